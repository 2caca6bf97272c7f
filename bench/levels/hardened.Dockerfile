# Two stages, so that what builds stays behind; a fixed user, and a health check.
ARG SLIM=python:3.11-slim
FROM ${SLIM} AS build
WORKDIR /build
COPY requirements.txt .
RUN pip wheel --no-cache-dir --wheel-dir /wheels -r requirements.txt

FROM ${SLIM}
WORKDIR /app
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels /wheels/*.whl
COPY main.py model.joblib ./
RUN useradd --uid 1000 --create-home app
USER app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
CMD ["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "8000"]
