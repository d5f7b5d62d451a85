# Python 3.13: the newest that the tests run on, and of those the one with the longest support ahead.
ARG PYTHON=python:3.13-slim-bookworm

# The wheel, built with the locked build tools.
FROM ${PYTHON} AS wheel
WORKDIR /src
COPY requirements-dev.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
RUN hatchling build -t wheel -d /wheel

# What runs: the locked packages, each checked against its hash, and the wheel. No pip inside.
FROM ${PYTHON} AS venv
RUN python -m venv --without-pip /opt/venv
COPY requirements.lock ./
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /wheel/*.whl
RUN install -d -o 65532 -g 65532 /empty

FROM ${PYTHON}
LABEL org.opencontainers.image.title="alertmanager-ai-proxy" \
      org.opencontainers.image.description="A transparent proxy in front of Alertmanager that adds AI labels and annotations to alerts before they are routed." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="1.1.0"
COPY --from=venv /opt/venv /opt/venv
COPY --from=venv --chown=65532:65532 /empty /data

# Works with a read-only root: no byte code is written, and what libraries keep in a home goes to /tmp.
# LiteLLM's two switches keep it from fetching its price list and its header list when it starts.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    STORAGE_PATH=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LITELLM_LOCAL_MODEL_COST_MAP=True \
    LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True
VOLUME /data
USER 65532:65532

# 19093: Alertmanager's whole surface. 19094: /-/healthy, /-/ready, /metrics and the admin API, on loopback
# unless --web.admin-listen-address says otherwise.
EXPOSE 19093 19094

# No HEALTHCHECK: Kubernetes ignores it and asks /-/healthy and /-/ready itself.
ENTRYPOINT ["alertmanager-ai-proxy"]
