#!/usr/bin/env bash
# tools/client.sh: build `assay-client`, the typed client of the API, into .cache/client/.
# The generator needs another version of typer than Assay, so uv runs it in a separate environment.
. "$(dirname "$0")/environment.sh"
ensure_environment
export ASSAY_ENV=test DJANGO_SETTINGS_MODULE=assay.settings UV_SYSTEM_CERTS=1
UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$(pip_setting index-url)}"
[ -z "$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX
"$VENV_PYTHON" manage.py spectacular --format openapi-json --file client/openapi.json
exec .venv/bin/uv build --quiet --python "$VENV_PYTHON" --build-constraints locks/client.txt --require-hashes --out-dir .cache/client client
