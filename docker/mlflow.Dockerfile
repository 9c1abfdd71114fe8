# MLflow as Assay runs it: private, one worker, on the same PostgreSQL.
FROM python:3.11-slim-bookworm
COPY constraints.txt /constraints.txt
RUN pip install --no-cache-dir --constraint /constraints.txt "mlflow>=3.17,<3.18" "psycopg[binary]>=3.3" \
    && useradd --system --uid 10001 --create-home mlflow
USER mlflow
EXPOSE 5000
ENTRYPOINT ["mlflow", "server"]
