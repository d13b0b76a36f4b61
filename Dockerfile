# A server on a machine with an NVIDIA GPU: docker build -t distime . (docs/SERVING.md)
FROM python:3.11-slim

WORKDIR /distime
# torch's wheel brings its CUDA libraries; the machine needs a driver and the container toolkit.
COPY requirements*.txt ./
RUN pip install --no-cache-dir -r requirements-lock-cuda.txt -r requirements-serve.txt
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY internvl_chat ./internvl_chat
RUN pip install --no-cache-dir --no-deps .

RUN useradd --create-home distime
USER distime
WORKDIR /home/distime
EXPOSE 8000
ENTRYPOINT ["distime", "serve", "--host", "0.0.0.0"]
