# The toolkit on a CPU, from a bare Python to a scored table:
#   docker build -t mer . && docker run --rm mer
# With your own databases: docker run --rm -it -v /data:/data mer bash
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /mer
COPY . .
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PATH=/mer/.venv/bin:$PATH
RUN make install LOCK=requirements-dev.lock
CMD ["make", "demo"]
