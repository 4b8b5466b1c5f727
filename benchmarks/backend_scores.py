"""Whether scores depend on what computed the flow: stores by both backends, cde scores and end-point errors.

    python benchmarks/backend_scores.py [--subjects 4] [--clips 6] [--model ahmsa:tiny@quick] [--seeds 3]

Makes synthetic trees of SMIC, SAMM and CASME II, builds them once with OpenCV's TV-L1 and once with
PyTorch's, and trains the same model with the same seeds on both under `cde`. Printed as Markdown: UF1 and
UAR of the last epoch per seed, the difference of the means beside the standard deviation over seeds, and the
end-point errors of both stores. With --folder the trees and stores are kept and used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import describe

DATABASES = ("smic", "samm", "casme2")
BACKENDS = ("opencv", "torch")


def call(module: str, *arguments: str) -> str:
    """Run a command line as a user does and return what it prints."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def make_stores(folder: Path, subjects: int, clips: int, workers: int) -> dict[str, Path]:
    """Make the trees and a store per backend; what is there already is kept."""
    if not all((folder / database).exists() for database in DATABASES):
        trees = ("--out", str(folder), "--subjects", str(subjects), "--clips", str(clips), "--trees-only")
        chosen = [word for database in DATABASES for word in ("--db", database)]
        call("mer_flow.cli", "demo", *trees, *chosen, "--quiet")
    stores = {backend: folder / f"{backend}.h5" for backend in BACKENDS}
    for backend, store in stores.items():
        for database in DATABASES:
            where = ("--db", database, "--root", str(folder / database), "--store", str(store))
            how = ("--flow-backend", backend, "--workers", str(workers), "--quiet")
            call("mer_flow.cli", "build", *where, *how)
    return stores


def scores(store: Path, runs: Path, model: str, settings: list[str], seeds: int) -> dict[str, np.ndarray]:
    """Train and return UF1 and UAR of the last epoch, one value per seed."""
    words = [word for setting in settings for word in ("--set", setting)]
    where = ("--store", str(store), "--out", str(runs), "--seeds", str(seeds), "--quiet", "--json")
    found = json.loads(call("mer_bench.cli", "run", model, "--protocol", "cde", *where, *words))
    figures = found["summary"]["selections"]["last"]["Full"]["figures"]
    return {name: np.array(figures[name]["per_seed"]) for name in ("uf1", "uar")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--model", default="ahmsa:tiny@quick")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep trees and stores here")
    options = parser.parse_args()

    from mer_flow.store.reader import FlowStore
    from mer_flow.synthetic.evaluate import endpoint_errors

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        stores = make_stores(folder, options.subjects, options.clips, options.workers)
        results = {
            backend: scores(store, folder / f"runs-{backend}", options.model, options.settings, options.seeds)
            for backend, store in stores.items()
        }
        lines = [
            "# Scores by flow backend",
            "",
            f"{describe()}; {options.model} {' '.join(options.settings)}, cde on synthetic databases, "
            f"{len(DATABASES) * options.subjects * options.clips} samples, {options.seeds} seeds.",
            "",
            "| score | " + " | ".join(BACKENDS) + " | difference of means | sd over seeds |",
            "|---|---|---|---|---|",
        ]
        for name in ("uf1", "uar"):
            table = {backend: found[name] for backend, found in results.items()}
            cells = [f"{v.mean():.3f} ({', '.join(f'{x:.3f}' for x in v)})" for v in table.values()]
            spread = np.sqrt(np.mean([v.var(ddof=1) if len(v) > 1 else np.nan for v in table.values()]))
            apart = table["torch"].mean() - table["opencv"].mean()
            lines.append(f"| {name.upper()} | {' | '.join(cells)} | {apart:+.3f} | {spread:.3f} |")
        for backend, path in stores.items():
            with FlowStore(path) as store:
                errors = endpoint_errors(store, {database: folder / database for database in DATABASES})
            mean = np.mean([sample.epe for sample in errors.samples])
            lines += ["", f"## End-point error, {backend}: mean {mean:.4f} px", "", errors.to_markdown()]
        with FlowStore(stores["opencv"]) as first, FlowStore(stores["torch"]) as second:
            apart = [
                np.hypot(*(first.flow(d)[i] - second.flow(d)[i])[:2]).mean()
                for d in DATABASES
                for i in range(len(first.samples(d)))
            ]
        lines += ["", f"Mean difference of the two stores' flow over whole maps: {np.mean(apart):.4f} px."]
        print("\n".join(lines))


if __name__ == "__main__":
    main()
