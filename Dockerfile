# The base is named by tag, so that a rebuild brings its security updates. To build on known bytes,
# name them by the digest that `docker buildx imagetools inspect python:3.11-slim-bookworm` or
# `skopeo inspect --format '{{.Digest}}' docker://docker.io/library/python:3.11-slim-bookworm` shows:
#   --build-arg BASE=docker.io/library/python:3.11-slim-bookworm@sha256:…
# The label org.opencontainers.image.base.name then says which it was.
#
# Without a network: fill a folder `wheels` here with
#   pip download --require-hashes --only-binary :all: -d wheels -r requirements/run.txt
#   pip download --require-hashes --only-binary :all: -d wheels -r requirements/dev.txt
# (of the second only hatchling and what it needs is used), then build with
# --build-arg PIP_NO_INDEX=1. Everything is checked against the same hashes.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE} AS build

ARG PIP_NO_INDEX=
ENV PIP_NO_INDEX=${PIP_NO_INDEX} \
    PIP_FIND_LINKS=/wheels \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /src
# pyproject.toml is there so that the line holds where there are no wheels.
COPY pyproject.toml wheels* /wheels/
COPY requirements/run.txt requirements/dev.txt requirements/
RUN python3 -m venv /build \
    && awk '/^[a-z]/ {keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} keep' \
       requirements/dev.txt > /build/requirements.txt \
    && /build/bin/pip install --require-hashes --no-deps -r /build/requirements.txt \
    && python3 -m venv --without-pip /opt/devserver-watcher \
    && /build/bin/python -m pip --python /opt/devserver-watcher/bin/python install \
       --require-hashes --only-binary :all: --no-compile -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY watcher watcher
# Nothing that runs needs the tests and stubs of dependencies; nothing that is read-only can be
# compiled later, so it is compiled now, bound to the content and not to a time.
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/python -m pip --python /opt/devserver-watcher/bin/python install \
       --no-deps --no-compile /dist/*.whl \
    && find /opt/devserver-watcher/lib -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/devserver-watcher/lib -name '*.py[ix]' -delete \
    && /opt/devserver-watcher/bin/python -m compileall -q -j 0 \
       --invalidation-mode unchecked-hash /opt/devserver-watcher/lib \
    && install -d -m 0700 -o 65532 -g 65532 /state


FROM ${BASE}

ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="devserver-watcher" \
      org.opencontainers.image.description="Watches jobs on Huawei Cloud ModelArts DevServers: logs every transition, feeds Prometheus." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"

# What installs software has no business in a running container.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/bin/pip* /usr/local/bin/wheel

COPY --from=build /opt/devserver-watcher /opt/devserver-watcher
COPY --from=build --chown=65532:65532 /state /var/lib/devserver-watcher

# The address wins over server.listen of the configuration file: inside a container, loopback
# reaches nobody.
ENV PATH=/opt/devserver-watcher/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONFAULTHANDLER=1 \
    STATE_DIRECTORY=/var/lib/devserver-watcher \
    WATCHER_CONFIG=/etc/devserver-watcher/watcher.yaml \
    WATCHER_SERVER__LISTEN=:10911

WORKDIR /var/lib/devserver-watcher
VOLUME /var/lib/devserver-watcher
EXPOSE 10911
USER 65532:65532

# Turns where the poll loop hangs; Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["watcher", "healthcheck"]
ENTRYPOINT ["watcher"]
CMD ["run"]
