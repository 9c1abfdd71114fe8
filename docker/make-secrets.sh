#!/usr/bin/env bash
# docker/make-secrets.sh [FOLDER]   make the secrets that compose.yaml names (default docker/secrets)
#
# What is there already stays as it is. Optional secrets are made empty, which switches off what they
# belong to. The folder is this user's alone; its files can be read by the users of the containers,
# into which Compose mounts them one by one.
set -euo pipefail

folder="${1:-$(dirname "$0")/secrets}"
log_name="${ASSAY_AUDIT_LOG_NAME:-assay.example/audit}"
mkdir -p "$folder"
chmod 700 "$folder"

make() { # NAME COMMAND...: the command's output is the secret
    local name="$1" file="$folder/$1"
    shift
    [ -e "$file" ] || "$@" >"$file"
    chmod 444 "$file"
    echo "$name"
}

bytes() { # HEX: as bytes
    printf "$(sed 's/../\\x&/g' <<<"$1")"
}

public_key() { # the verifier key of the audit signing key: name+hash+base64 (C2SP signed note)
    local seed key hash
    seed="$(tr -d '[:space:]' <"$folder/audit_signing_key")"
    # An Ed25519 private key in PKCS #8 is this header and the seed (RFC 8410).
    key="$(bytes "302e020100300506032b657004220420$seed" |
        openssl pkey -inform DER -pubout -outform DER | tail -c 32 | od -An -tx1 | tr -d ' \n')"
    hash="$( (printf '%s\n' "$log_name" && bytes "01$key") | openssl dgst -sha256 -r | cut -c1-8)"
    printf '%s+%s+%s\n' "$log_name" "$hash" "$(bytes "01$key" | openssl base64 -A)"
}

egress_public_key() { # the public key (X25519) of the egress key, in hexadecimal
    # A private key in PKCS #8 is this header and the key (RFC 8410).
    bytes "302e020100300506032b656e04220420$(tr -d '[:space:]' <"$folder/egress_key")" |
        openssl pkey -inform DER -pubout -outform DER | tail -c 32 | od -An -tx1 | tr -d ' \n'
}

broker_certificate() { # of the broker, and of an authority whose key is not kept
    local curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes) made
    made="$(mktemp -d)"
    openssl req -x509 "${curve[@]}" -days 3650 -subj '/CN=Assay broker CA' \
        -keyout "$made/ca.key" -out "$made/ca" 2>"$made/log" &&
        openssl req "${curve[@]}" -subj /CN=valkey -keyout "$made/key" -out "$made/request" \
            2>>"$made/log" &&
        printf 'subjectAltName=DNS:valkey\n' >"$made/names" &&
        openssl x509 -req -days 825 -in "$made/request" -CA "$made/ca" -CAkey "$made/ca.key" \
            -CAcreateserial -extfile "$made/names" -out "$made/cert" 2>>"$made/log" ||
        { cat "$made/log" >&2; rm -r "$made"; exit 1; }
    for name in ca cert key; do
        make "valkey_$name" cat "$made/$name"
    done
    rm -r "$made"
}

for name in owner web controller worker mlflow superuser; do
    make "database_password_$name" openssl rand -hex 24
done
for name in web controller compute engine admin; do
    make "valkey_$name" openssl rand -hex 24
done
case "$(cd "$folder" && ls valkey_ca valkey_cert valkey_key 2>/dev/null | wc -l)" in
0) broker_certificate ;;
3) ;;
*)
    echo "valkey_ca, valkey_cert and valkey_key belong together; remove those that are there." >&2
    exit 1
    ;;
esac
make secret_key openssl rand -base64 48
make key_pepper openssl rand -base64 48
make usage_key openssl rand -base64 48
make wire_key openssl rand -base64 48
make egress_key openssl rand -hex 32
make egress_public_key egress_public_key
make request_log_key openssl rand -base64 48
make audit_signing_key openssl rand -hex 32
make audit_public_key public_key
for name in egress_key_2 metrics_token oidc_client_secret scim_token siem_streams email_url \
    review_webhook_secret; do
    make "$name" true
done
