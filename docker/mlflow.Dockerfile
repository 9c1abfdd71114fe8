# MLflow as Assay runs it: private, one worker, on the same PostgreSQL.
FROM python:3.11-slim-bookworm
COPY locks/mlflow.txt /locks/mlflow.txt
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r /locks/mlflow.txt \
    && useradd --system --uid 10001 --create-home mlflow \
    && install -d -o mlflow /var/lib/mlflow
USER mlflow
EXPOSE 5000
ENTRYPOINT ["mlflow", "server"]
