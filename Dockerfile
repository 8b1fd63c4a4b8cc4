# socodet on a machine with an NVIDIA GPU (or without one):
#   docker build -t socodet .
#   docker run --rm --gpus all --shm-size 4g -v "$PWD:/work" socodet pretrain images --output runs/first
# It was checked by hadolint, but not built: where it was written there is no Docker.
FROM python:3.12-slim-bookworm

# A C compiler is needed by Triton, with which kernels for the GPU are made when they are first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# What runs is not root; its folder is the one that is mounted.
RUN useradd --create-home --uid 1000 socodet \
    && mkdir /work \
    && chown socodet /work

WORKDIR /opt/socodet
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# torch and torchvision of the versions in constraints.txt bring CUDA with them; the driver is the host's.
RUN pip install --no-cache-dir -c constraints.txt '.[onnx,heif,tiff,timm,hub]'

USER 1000
WORKDIR /work
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["socodet"]
CMD ["--help"]
