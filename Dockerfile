# One image a service, with its own code and dependencies alone: docker build --build-arg SERVICE=actor .
# SERVICE is ingest, classifier, actor, reporter, migrate (the database), or cli (the command line and the demo's world).
ARG BASE=python:3.13-slim

FROM ${BASE} AS uv
COPY requirements.lock /tmp/
RUN awk '/^[^ #]/ { ours = /^uv==/ } ours' /tmp/requirements.lock >/tmp/uv.txt \
 && pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r /tmp/uv.txt

FROM uv AS build
ARG SERVICE
WORKDIR /app
COPY pyproject.toml requirements.lock /tmp/
# The lock holds the hashes; the extra says which of its packages this service needs.
RUN --mount=type=cache,target=/root/.cache/uv <<EOF
  set -eu
  case $SERVICE in
    migrate) extras= ;;
    cli) extras="--extra cli --extra ingest --extra classifier --extra actor --extra reporter" ;;
    *) extras="--extra $SERVICE" ;;
  esac
  uv venv --quiet --python /usr/local/bin/python /opt/venv
  VIRTUAL_ENV=/opt/venv UV_LINK_MODE=copy uv pip install --quiet --require-hashes --compile-bytecode \
    --constraint /tmp/requirements.lock -r /tmp/pyproject.toml $extras
EOF
COPY . /src
RUN <<EOF
  set -eu
  cd /src
  module=services.$SERVICE
  case $SERVICE in
    migrate) module=services.runtime.migrate; cp --parents -r contracts services/__init__.py services/runtime services/*/migrations /app ;;
    cli) module=nightshift; cp --parents -r contracts connectors processes services nightshift /app ;;
    *) cp --parents -r contracts connectors processes services/__init__.py services/runtime "services/$SERVICE" /app ;;
  esac
  printf '#!/bin/sh\nexec python -m %s "$@"\n' "$module" >/app/run
  chmod 755 /app/run
  /opt/venv/bin/python -m compileall -q /app
  mkdir /state
EOF

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY --from=build --chown=10001:10001 /state /state
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NIGHTSHIFT_HTTP_HOST=0.0.0.0 NIGHTSHIFT_HTTP_PORT=8080
USER 10001:10001
EXPOSE 8080
# Progress, not a heartbeat: /healthz fails while work waits that nobody claims.
HEALTHCHECK --interval=15s --timeout=5s --retries=3 --start-period=60s --start-interval=1s CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/app/run"]
