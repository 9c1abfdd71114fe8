"""Environment of a run: variables that its libraries need, and none of the platform's secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    {
        "ASSAY_ESPEAK_NG", "CUBLAS_WORKSPACE_CONFIG", "HOME", "LANG", "LANGUAGE",
        "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "SLURM_CONF", "SSL_CERT_DIR",
        "SSL_CERT_FILE", "TMPDIR", "TOKENIZERS_PARALLELISM", "TZ", "USER", "VIRTUAL_ENV",
        "XDG_CACHE_HOME",
    }
)  # fmt: skip
_PREFIXES = (
    "CUDA_", "FI_", "GLOO_", "GOMP_", "HF_", "HIP_", "KMP_", "LC_", "MKL_", "NCCL_", "NVIDIA_",
    "OMP_", "OPENBLAS_", "OPENCV_", "PYTHON", "PYTORCH_", "ROCM_", "ROCR_", "TORCH_", "UCX_",
)  # fmt: skip
# Variables with an allowed prefix may be secrets too, such as HF_TOKEN.
_SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|_KEY|AUTH")


def run_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a run may have."""
    return {
        name: value
        for name, value in variables.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and not _SECRET.search(name)
    }
