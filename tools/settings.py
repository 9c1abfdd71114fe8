"""Write `docs/reference/settings.md` from `assay/settings.py` and the meanings in `settings.yaml`.

.venv/bin/python tools/settings.py
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "settings.md"
MEANINGS = ROOT / "tools" / "settings.yaml"
SOURCE = ROOT / "platform" / "assay" / "settings.py"
READERS = {"env", "env_bool", "env_int", "env_list", "env_networks", "secret", "process_secret"}
# Settings that processes and commands read directly, not through settings.py.
OUTSIDE = {
    "ASSAY_ESPEAK_NG",
    "ASSAY_SERVER",
    "ASSAY_TOKEN",
    "ASSAY_WORKER_KIND",
}
SECRETS = {"secret", "process_secret"}
COLUMNS = "| setting | default | read by | meaning |\n|---|---|---|---|\n"
HEAD = """# Settings

Written by `tools/settings.py` from `platform/assay/settings.py` and `tools/settings.yaml`.

All settings come from the environment. For a secret `NAME`, `NAME_FILE` may name a file that
contains the value. Lists are separated by commas. `assay doctor` reports invalid settings.
"""


def read_settings() -> dict[str, str]:
    """Return name and formatted default of every setting that `assay/settings.py` reads."""
    sys.path.insert(0, str(ROOT / "platform"))
    from assay.processes import HOLDERS

    settings: dict[str, str] = {}
    source = SOURCE.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        reader, arguments = node.func.id, node.args
        if reader not in READERS or not arguments or not isinstance(arguments[0], ast.Constant):
            continue
        name = arguments[0].value
        if reader in SECRETS:
            settings[name] = f"required by {' and '.join(HOLDERS[name])} in production"
        elif name not in settings or _default(node) is not None:
            settings[name] = _formatted(name, reader, _default(node))
    # Names that settings.py reads in a loop.
    for name in re.findall(r'"(REDIS_\w+_PATH)"', source):
        settings.setdefault(name, "none")
    return settings


def _default(call: ast.Call) -> ast.expr | None:
    defaults = [keyword.value for keyword in call.keywords if keyword.arg == "default"]
    return (*call.args[1:2], *defaults, None)[0]


def _formatted(name: str, reader: str, default: ast.expr | None) -> str:
    if default is None:
        return "0" if reader == "env_bool" else "none"
    try:
        # Arithmetic on numbers, as in 20 * 1024**3.
        value: Any = eval(compile(ast.Expression(default), "default", "eval"), {})  # noqa: S307
    except NameError:
        return "computed"
    if value in ("", None):
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        for size, unit in ((1024**3, "GiB"), (1024**2, "MiB")):
            if name.endswith("_BYTES") and value % size == 0:
                return f"{value} ({value // size} {unit})"
        return str(value)
    return f"`{value}`"


def page() -> str:
    """Return the page, with one table for each group of settings.yaml.

    Raises:
        ValueError: a setting has no meaning, or a meaning has no setting.
    """
    from assay.processes import HOLDERS, READERS

    defaults = read_settings()
    groups = yaml.safe_load(MEANINGS.read_text(encoding="utf-8"))
    described = [name for group in groups for name in group["settings"]]
    if missing := (set(defaults) | OUTSIDE) ^ set(described):
        raise ValueError(f"tools/settings.yaml and settings.py differ in {sorted(missing)}.")
    text = HEAD
    for group in groups:
        text += f"\n## {group['title']}\n\n{COLUMNS}"
        for name, about in group["settings"].items():
            default = about.get("default") or defaults[name]
            if default == "computed":
                raise ValueError(f"State the default of {name} in tools/settings.yaml.")
            readers = HOLDERS.get(name) or READERS.get(name, ())
            process = ", ".join(readers) or about.get("process", "all")
            text += f"| `{name}` | {default} | {process} | {about['meaning']} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
