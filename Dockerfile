# The server and what it runs on; no test, training or build tools.
#
#   docker build -t cds-server .
#   docker run --read-only --tmpfs /tmp -v cds-data:/var/lib/cds -p 8000:8000 cds-server
#
# The key store lies in the data directory: `cds backup` copies both, keep them apart. From outside, health checks are answered
# at once; hook calls are, once an EHR is registered in the configuration (docs/trust.md): `trust = "open"` is for loopback only.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/cds
COPY requirements/app.txt requirements/build.txt requirements/
RUN python -m pip --python /opt/cds/bin/python install --no-cache-dir --require-hashes -r requirements/app.txt \
    && python -m pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml LICENSE NOTICE ./
COPY models/ models/
COPY adapters/ adapters/
COPY smart_app/ smart_app/
COPY cds_server/ cds_server/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/cds/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin cds \
    && install --directory --owner=cds --group=cds --mode=0700 /var/lib/cds
COPY --from=build /opt/cds /opt/cds
# `cds demo` lands these; they are not part of the wheel.
WORKDIR /srv/cds
COPY fixtures/ fixtures/

ENV PATH=/opt/cds/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    CDS_DATA_DIR=/var/lib/cds \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER cds
VOLUME /var/lib/cds
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2).read()"]
ENTRYPOINT ["cds"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
