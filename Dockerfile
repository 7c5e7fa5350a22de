# syntax=docker/dockerfile:1
# On a CPU:
#   docker build -t cs-gan .
#   docker run --rm -v cs-gan-samples:/app/samples cs-gan
# Anything else behind the image's name takes the place of the quickstart: python train_gan.py --config ...
FROM python:3.13-slim
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
WORKDIR /app
# PyTorch's CPU build, in a layer of its own: it is large and seldom changes.
RUN pip install "torch>=2.4,<3" "torchvision>=0.19,<1" --index-url https://download.pytorch.org/whl/cpu
# The other dependencies come with an empty package: a change of the sources then installs nothing anew.
ARG VERSION=0.1.0.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_CS_GAN=$VERSION
COPY pyproject.toml README.md LICENSE ./
RUN mkdir cs_gan && touch cs_gan/__init__.py && pip install -e ".[gan,lite0,parquet]"
COPY . .
RUN useradd --create-home --uid 1000 user && mkdir -p samples data && chown 1000 samples data
USER 1000
CMD ["python", "train_gan.py", "--config", "configs/gan/quickstart.yaml"]
