# make demo   from synthetic sheets and frames to a scored table, set-up included
# make test   every test, set-up included
# make lint   ruff, mypy, import contracts   make bench   every benchmark's short form
# make kills  hundreds of kills and thousands of bit flips, JOBS side by side; fails where SOAK_SECONDS, 900 or more,
#             are too short for what is promised. Fewer seconds: as many as fit
# make soak   the same, then whether memory and descriptors stay flat over SOAK_MINUTES of builds and runs
# make mutants   bugs planted one at a time in a copy of the core, MUTANTS per file (all: every one), ONLY=part/of/a/path
# make docs   the pages as a site in site/      make lock    versions of this .venv into requirements-dev.lock
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The newest torch that the packages are tested with. On a machine without a GPU, set e.g. PIP_EXTRA_INDEX_URL to a
# CPU-only index before the first `make` to save the CUDA download.
TORCH  ?= torch==2.13.0
# A list of versions to hold to, as requirements-dev.lock (of Python 3.11); the newest that fit unless given.
LOCK   ?=
DEMO   ?= demo
JOBS   ?= 2
SOAK_SECONDS ?= 900
SOAK_MINUTES ?= 5
MUTANTS ?= 5
ONLY   ?=
export OMP_NUM_THREADS ?= 1

STAMP := $(VENV)/.set-up
PROJECTS := pyproject.toml $(wildcard packages/*/pyproject.toml)
PIP := $(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(LOCK))

.PHONY: install demo test kills soak mutants lint docs lock bench clean
.DEFAULT_GOAL := test

$(STAMP): $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(PIP) '$(TORCH)'
	$(PIP) -e 'packages/mer-flow[all,cluster]' -e 'packages/mer-bench[plots,export]' -e 'packages/ahmsa-model[predict,bench,explain]' --group dev
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/mer-flow demo --out $(DEMO)
	$(BIN)/mer-bench run ahmsa --protocol cde --variant tiny --recipe quick --store $(DEMO)/flows.h5 --out $(DEMO)/runs
	$(BIN)/mer-bench report $(DEMO)/runs --html $(DEMO)/site --store $(DEMO)/flows.h5
	test -d $(DEMO)/ahmsa || $(BIN)/mer-bench fit ahmsa --variant tiny --recipe quick --store $(DEMO)/flows.h5 --out $(DEMO)/ahmsa
	$(BIN)/ahmsa predict --checkpoint $(DEMO)/ahmsa --video "$$(ls -d $(DEMO)/casme2/*/sub01/*/ | head -n 1)" --fps 200 \
		--picture $(DEMO)/clip.png --annotated $(DEMO)/clip.mp4

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -q

kills: $(STAMP)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q tests/faults \
		tests/mer_flow/store/test_kill.py tests/mer_bench/weights/test_checkpoint.py tests/ahmsa_model/test_checkpoint.py

soak: $(STAMP) kills
	$(BIN)/python benchmarks/soak.py --minutes $(SOAK_MINUTES)

mutants: $(STAMP)
	$(BIN)/python -m tests.mutants.run --sample $(MUTANTS) --jobs $(JOBS) --only '$(ONLY)'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(STAMP)
	$(PIP) --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# In a fresh .venv, after `make docs`. Torch's build (CPU, CUDA) is the machine's; its version is ours.
lock: $(STAMP)
	printf '# Versions that development and CI were tried with, Python 3.11: make test LOCK=requirements-dev.lock\n' > requirements-dev.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> requirements-dev.lock

bench: $(STAMP)
	$(BIN)/python benchmarks/build_speed.py
	$(BIN)/python benchmarks/flow_accuracy.py
	$(BIN)/python benchmarks/fold_training.py

clean:
	rm -rf $(DEMO) build dist site .pytest_cache .mypy_cache .ruff_cache
