# Sourced by ./demo, ./test and ./bench: creates .venv, and updates it when its packages change.
# Sets $VENV_PYTHON to its interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# uv does not compile packages. With this variable, each process would compile Django, MLflow and
# transformers at its start: 10 s of CPU in each of dozens of processes of tests and the demo.
unset PYTHONDONTWRITEBYTECODE

VENV_PYTHON="$PWD/.venv/bin/python"
STAMP="$PWD/.venv/.assay-installed"

# Prefer a distribution's Python: it is built with profile-guided optimization, unlike pyenv's default
# builds. Measured: a fifth less processor time for the gateway.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3.11 python3.11 python3.12 python3.13 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Assay needs Python 3.11 or newer with the venv module, and did not find it." >&2
    echo "Install it (Debian: apt-get install python3 python3-venv), or set PYTHON to its path." >&2
    exit 1
}

# Prints one of pip's settings, from its environment variable or its files.
pip_setting() {
    "$VENV_PYTHON" -m pip config get ":env:.$1" 2>/dev/null ||
        "$VENV_PYTHON" -m pip config get "global.$1" 2>/dev/null || true
}

# Each file is complete, so dependencies are not resolved again, which would require torch, too.
# uv does not read pip's configuration, so the configured index is passed to it.
install_locked() {
    local files=(--require-hashes --no-deps --only-binary :all: -r locks/control.txt -r locks/worker.txt -r locks/local.txt -r locks/dev.txt) index
    index="$(pip_setting index-url)"
    if "$VENV_PYTHON" -m pip install --require-hashes --only-binary :all: -r locks/uv.txt &&
        UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}" \
            .venv/bin/uv pip install --python "$VENV_PYTHON" "${files[@]}"; then
        return
    fi
    echo "uv failed. pip now installs the same packages, more slowly."
    "$VENV_PYTHON" -m pip install "${files[@]}"
}

# Everything is pinned by hash except torch and torchvision: CPU and CUDA builds of one version have different hashes,
# and pip's configuration selects the build for this machine.
install() {
    install_locked &&
        "$VENV_PYTHON" -m pip install 'torch>=2.9' 'torchvision>=0.24' &&
        "$VENV_PYTHON" -m pip install --no-deps --no-build-isolation --editable . --editable tasks-extra --editable examples/demo
}

ensure_environment() {
    local python wanted
    python="$(find_python)"
    wanted="$(cat pyproject.toml tasks-extra/pyproject.toml examples/demo/pyproject.toml locks/{control,worker,local,dev,uv}.txt | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if [ -x "$VENV_PYTHON" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing Assay into .venv with $("$python" --version) (about 2 GB; once) ..." >&2
    [ -x "$VENV_PYTHON" ] || "$python" -m venv .venv
    if ! PIP_DISABLE_PIP_VERSION_CHECK=1 install >.venv/install.log 2>&1; then
        tail -n 25 .venv/install.log >&2
        echo "The installation failed. Check that a package index is reachable, and read .venv/install.log." >&2
        exit 1
    fi
    echo "$wanted" >"$STAMP"
}
