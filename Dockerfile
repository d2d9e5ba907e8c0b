# One image for every service of both modes: `docker run IMAGE orchestrated order`, `docker run IMAGE choreographed`.
# Without a command it runs the comparison, which needs no broker beside it.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements/ requirements/
# The environment gets no pip: that stays behind in this stage.
RUN python -m venv --without-pip /opt/saga-lab \
    && pip --python /opt/saga-lab/bin/python install --no-cache-dir --require-hashes -r requirements/run.txt \
    && pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/saga-lab/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13-slim
# By number, so that an orchestrator can tell that it is not root.
RUN groupadd --gid 10001 saga \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin saga \
    && install --directory --owner 10001 --group 10001 /data
COPY --from=build /opt/saga-lab /opt/saga-lab
ENV PATH=/opt/saga-lab/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data \
    HTTP_HOST=0.0.0.0 \
    HTTP_PORT=8000
USER 10001:10001
VOLUME /data
EXPOSE 8000
# No curl in a slim image. A proxy that the engine may have set is not asked for this machine's own port.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:' + os.environ['HTTP_PORT'] + '/health/ready', timeout=3)"]
# -P: the working directory is no place to import from.
ENTRYPOINT ["python", "-P", "-m"]
CMD ["compare", "run"]
