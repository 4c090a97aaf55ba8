# docker build -t ddtl .                          for GPUs and CPUs: every package by the hashes of requirements.lock
# docker build -t ddtl --build-arg DEVICE=cpu .   4 GB smaller: torch and torchvision of the same versions without CUDA, by version
ARG BASE=python:3.12-slim
FROM ${BASE} AS build
ARG DEVICE=cuda
WORKDIR /src
COPY requirements.lock requirements-uv.lock ./
RUN python -m venv /opt/ddtl && /opt/ddtl/bin/pip install --no-cache-dir --require-hashes -r requirements-uv.lock
ENV VIRTUAL_ENV=/opt/ddtl UV_NO_CACHE=1
RUN if [ "$DEVICE" = cpu ]; then \
      grep -oE '^(torch|torchvision)==[^ ;]+' requirements.lock > torch.txt; \
      grep -oE '^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' requirements.lock | tr -d = > without.txt; \
      /opt/ddtl/bin/uv pip install --require-hashes -r requirements.lock --no-deps --excludes without.txt \
      && /opt/ddtl/bin/uv pip install --torch-backend cpu -r torch.txt; \
    else /opt/ddtl/bin/uv pip install --require-hashes -r requirements.lock; fi
COPY pyproject.toml README.md LICENSE ./
COPY ddtl ddtl
COPY conf conf
RUN /opt/ddtl/bin/uv pip install --no-deps --no-build-isolation .

FROM ${BASE}
RUN useradd --create-home --uid 1000 ddtl && install -d -o ddtl /work /cache
COPY --from=build /opt/ddtl /opt/ddtl
ENV PATH=/opt/ddtl/bin:$PATH DDTL_DATA=/data DDTL_CACHE=/cache
USER ddtl
WORKDIR /work
ENTRYPOINT ["ddtl"]
CMD ["--help"]
