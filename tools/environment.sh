# Sourced by ./demo, ./test and ./bench: makes .venv once, and again when what it installs changes.
# Leaves $VENV_PYTHON pointing at its interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV_PYTHON="$PWD/.venv/bin/python"
STAMP="$PWD/.venv/.assay-installed"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Assay needs Python 3.11 or newer with its venv module, and found none." >&2
    echo "Install it (Debian: apt-get install python3 python3-venv), or set PYTHON to its path." >&2
    exit 1
}

ensure_environment() {
    local python wanted
    python="$(find_python)"
    wanted="$(cat pyproject.toml constraints.txt | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if [ -x "$VENV_PYTHON" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing Assay into .venv with $("$python" --version) (about 2 GB, some minutes, once) ..." >&2
    [ -x "$VENV_PYTHON" ] || "$python" -m venv .venv
    if ! "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable '.[worker,local,dev]' >.venv/install.log 2>&1; then
        tail -n 25 .venv/install.log >&2
        echo "The installation failed; the whole log is .venv/install.log. A package index must be reachable." >&2
        exit 1
    fi
    echo "$wanted" >"$STAMP"
}
