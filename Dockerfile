# syntax=docker/dockerfile:1
# Two stages: what builds stays behind; what runs holds the locked runtime dependencies and nothing of the tests.
ARG PYTHON_IMAGE=python:3.13.7-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/gateway
COPY requirements.lock .
RUN /opt/gateway/bin/python -m pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY policies policies
COPY gateway gateway
COPY admin admin
RUN /opt/gateway/bin/python -m pip install --no-deps . \
    && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Entitlement Gateway" \
      org.opencontainers.image.licenses="MIT"
# The file system may be read-only: nothing is written but to the database, and /data is there for SQLite.
RUN groupadd --system --gid 10001 gateway \
    && useradd --system --uid 10001 --gid gateway --home-dir /data --no-create-home gateway \
    && install --directory --owner=gateway --group=gateway --mode=0750 /data
COPY --from=build /opt/gateway /opt/gateway
COPY gateway.yaml /etc/gateway/gateway.yaml
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LISTEN=0.0.0.0:8080 \
    OPERATOR_LISTEN=0.0.0.0:8081 \
    DATABASE_URL=sqlite:////data/gateway.db
USER 10001:10001
WORKDIR /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as c; a = c.HTTPConnection('127.0.0.1', 8081, timeout=2); a.request('GET', '/livez'); raise SystemExit(a.getresponse().status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["run", "--config", "/etc/gateway/gateway.yaml"]
