#!/usr/bin/env bash
# tools/docs.sh [--serve]: build the documentation site in .cache/docs-site, or serve it while you write.
. "$(dirname "$0")/environment.sh"
ensure_environment
export ASSAY_ENV=test DJANGO_SETTINGS_MODULE=assay.settings NO_MKDOCS_2_WARNING=1
if [ "${1:-}" = "--serve" ]; then
    exec "$VENV_PYTHON" -m mkdocs serve
fi
exec "$VENV_PYTHON" -m mkdocs build --strict --quiet
