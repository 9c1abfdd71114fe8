#!/usr/bin/env bash
# deploy/helm/make-secrets.sh FOLDER     print the Secrets that the chart's `existingSecrets` name
#
# FOLDER is what docker/make-secrets.sh wrote. Each process gets a Secret of its own, with what it uses and
# nothing else:   deploy/helm/make-secrets.sh secrets | kubectl --namespace assay apply -f -
set -euo pipefail

folder="${1:?Name the folder that docker/make-secrets.sh wrote.}"

secret() { # NAME KEY[=FILE]...: a Secret of these files; a key is its file's name
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata:\n' "$1"
    shift
    for pair in "$@"; do
        file="$folder/${pair#*=}"
        printf '  %s: "%s"\n' "${pair%%=*}" "$(base64 <"$file" | tr -d '\n')"
    done
}

optional() { # FILE...: those of the bucket, where there are some
    for file in "$@"; do
        [ ! -e "$folder/${file#*=}" ] || echo "$file"
    done
}

writer="$(optional store_access_key_id=store_writer_id store_secret_access_key=store_writer_key)"
reader="$(optional store_access_key_id=store_reader_id store_secret_access_key=store_reader_key)"

migrate=(database_password=database_password_owner valkey=valkey_web key_pepper audit_public_key
    database_password_web database_password_controller database_password_worker)

# shellcheck disable=SC2086 # one word for each key
{
    secret assay-web database_password=database_password_web valkey=valkey_web secret_key key_pepper \
        audit_public_key usage_key wire_key request_log_key egress_public_key metrics_token oidc_client_secret \
        scim_token siem_streams email_url review_webhook_secret $writer
    secret assay-controller database_password=database_password_controller valkey=valkey_controller \
        audit_signing_key usage_key siem_streams email_url review_webhook_secret $writer
    secret assay-compute database_password=database_password_worker valkey=valkey_compute $reader
    secret assay-engine database_password=database_password_worker valkey=valkey_engine wire_key $reader
    secret assay-egress database_password=database_password_worker valkey=valkey_engine wire_key \
        egress_key egress_key_2 $reader
    secret assay-migrate "${migrate[@]}"
    secret assay-backup "${migrate[@]}" $writer
    secret assay-mlflow database_password=database_password_mlflow
    secret assay-broker-ca ca.crt=valkey_ca
}
