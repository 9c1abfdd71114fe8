"""Make a bundle for an installation without internet access, and verify one.

    python tools/bundle.py make FOLDER --lock control --lock worker --versions exported …
    python3 FOLDER/bundle.py verify FOLDER --key sender.pem

A bundle contains packages, images, models and evidence packs; `index.json` lists each file with its
size and SHA-256. `make` copies this file into the bundle, because `verify` runs before Assay is
installed: it needs Python 3.9 or newer, and openssl to check a signature.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
FORMAT = "assay-bundle-1"
INDEX, SIGNATURE = "index.json", "index.json.sig"
LONGEST_INDEX = 64 * 1024**2
MOST_FILES = 100_000
# Wheels of this repository, whose packages are in no lock file, and their folders.
OWN = {"assay": ".", "assay_tasks_extra": "tasks-extra"}
IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,78}")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Bad(Exception):
    """The bundle cannot be made, or does not match its index."""


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_digest(files: Iterable[dict], base: str | None) -> str:
    """Return the digest of a version with these files, as `registry.manifests` computes it."""
    items = sorted(
        ({"path": each["path"], "sha256": each["sha256"], "size": each["size"]} for each in files),
        key=lambda each: each["path"],
    )
    text = json.dumps(
        {"base": base, "files": items}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def regular_files(folder: Path) -> list[Path]:
    """Return every file below a folder.

    Raises:
        Bad: an entry is neither a file nor a folder, such as a link.
    """
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Bad(f"{path.relative_to(folder).as_posix()} is not a regular file.")
    return [path for path in paths if path.is_file()]


def entries(folder: Path) -> Iterator[dict]:
    """Yield path, size and SHA-256 of every file below a folder; raise `Bad` for a link."""
    for path in regular_files(folder):
        name = path.relative_to(folder).as_posix()
        yield {"path": name, "sha256": sha256_of(path), "size": path.stat().st_size}


def make(options: argparse.Namespace) -> None:
    """Fill the folder, write its index, and sign the index if there is a key."""
    folder: Path = options.folder
    if folder.exists() and any(folder.iterdir()):
        raise Bad(f"{folder} is not empty.")
    folder.mkdir(parents=True, exist_ok=True)
    if unpinned := [image for image in options.image if not IMAGE.fullmatch(image)]:
        raise Bad(f"These images are not named by digest: {', '.join(unpinned)}.")
    shutil.copy(__file__, folder / "bundle.py")
    for lock in options.lock:
        _packages(ROOT / "locks" / f"{lock}.txt", folder, options.wheels)
    if options.own_wheel:
        _run(
            "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels",
            *(ROOT / place for place in OWN.values()),
        )  # fmt: skip
    for kind, paths in (("images", options.image_archive), ("evidence", options.evidence)):
        for path in paths:
            (folder / kind).mkdir(exist_ok=True)
            shutil.copy(path, folder / kind / path.name)
    models = [_model(text, folder) for text in options.model]
    for exported in options.versions:
        models += _versions(exported, folder)
    index = {
        "format": FORMAT,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "images": sorted(options.image),
        "models": models,
        "files": list(entries(folder)),
    }
    path = folder / INDEX
    path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if options.sign:
        _openssl("-sign", "-inkey", options.sign, "-out", folder / SIGNATURE, "-in", path)
    say(f"{len(index['files'])} files. The SHA-256 of {INDEX}:\n{sha256_of(path)}")


def _packages(lock: Path, folder: Path, wheels: Path | None) -> None:
    """Download the packages of a lock file by hash, or take them from a folder of wheels."""
    (folder / "locks").mkdir(exist_ok=True)
    shutil.copy(lock, folder / "locks" / lock.name)
    where = () if wheels is None else ("--no-index", "--find-links", wheels)
    _run(
        "download", "--require-hashes", "--no-deps", "--only-binary", ":all:", *where,
        "--dest", folder / "wheels", "-r", lock,
    )  # fmt: skip


def _model(text: str, folder: Path) -> dict:
    """Copy the files of a model, described as NAME=FOLDER or NAME=FOLDER@DIGEST-OF-ITS-BASE."""
    name, _, place = text.partition("=")
    place, _, base = place.partition("@")
    source, target = Path(place), folder / "models" / name
    if not NAME.fullmatch(name) or not source.is_dir():
        raise Bad(f"{text} is not NAME=FOLDER, with a name of small letters, digits and . _ -")
    files = list(entries(source))
    shutil.copytree(source, target)
    digest = manifest_digest(files, base or None)
    if digest != manifest_digest(entries(target), base or None):
        raise Bad(f"The files of {name} changed while they were copied.")
    return {"name": name, "base": base or None, "digest": digest}


def _versions(exported: Path, folder: Path) -> list[dict]:
    """Copy the models of the last `assay versions export`, with their cards and evidence packs."""
    models: list[dict] = json.loads((exported / "versions.json").read_text(encoding="utf-8"))
    # Reject links first: copying follows them, and they may point outside the folder.
    regular_files(exported)
    for model in models:
        if not NAME.fullmatch(model["name"]):
            raise Bad(f"{model['name']!r} is not the name of a model.")
        target = folder / "models" / model["name"]
        if target.exists():
            raise Bad(f"Two models have the name {model['name']}.")
        shutil.copytree(exported / "models" / model["name"], target)
        for path in (model["card"], *model["evidence"]):
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.copy(exported / path, folder / path)
        digest = manifest_digest(entries(target), model["base"])
        if digest != model["digest"]:
            raise Bad(f"The exported files of {model['name']} do not have its digest.")
    return models


def _run(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, words)], check=True)


def _openssl(action: str, *words: object) -> bool:
    command = ["openssl", "pkeyutl", action, "-rawin", *map(str, words)]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0


def verify(options: argparse.Namespace) -> None:
    """Compare every file with the index, and the index with its signature or expected SHA-256."""
    folder: Path = options.folder
    path = folder / INDEX
    if not path.is_file() or path.stat().st_size > LONGEST_INDEX:
        raise Bad(f"{path} is missing or too long.")
    # Read once, so that the checked bytes are the used ones.
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if options.digest and options.digest.lower() != digest:
        raise Bad(f"The SHA-256 of {INDEX} is {digest}.")
    if options.key:
        _check_signature(text, folder / SIGNATURE, options.key)
    try:
        index = json.loads(text, object_pairs_hook=_unique)
        faults = list(compare(folder, index))
        about = [
            f"model {each['name']}: {each['digest']}{_facts(each)}" for each in index["models"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Bad(f"{INDEX} is not a valid index: {error!r}.") from error
    if faults:
        raise Bad("\n".join(faults[:100]))
    for line in about:
        say(line)
    for image in index["images"]:
        say(f"image {image}")
    say(f"{len(index['files'])} files match {INDEX}.")
    if not (options.key or options.digest):
        say(f"Compare with the sender: the SHA-256 of {INDEX} is\n{digest}")


def _unique(pairs: list) -> dict:
    """Return an object of the index. Duplicate keys are refused: programs read them differently."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names a key twice")
    return result


def _facts(model: dict) -> str:
    """Return kind, task, base and license of a model exported from an installation."""
    if "kind" not in model:
        return ""
    base = f" on {model['base']}" if model["base"] else ""
    return f" ({model['kind']} for {model['task']}{base}, {model['license'] or 'no license'})"


def _check_signature(text: bytes, signature: Path, key: Path) -> None:
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(text)
        copy.flush()
        words = ("-pubin", "-inkey", key, "-sigfile", signature, "-in", copy.name)
        if not (signature.is_file() and _openssl("-verify", *words)):
            raise Bad(f"{INDEX} was not signed by the owner of {key}.")


def compare(folder: Path, index: dict) -> Iterator[str]:
    """Yield the differences between the index and the files."""
    if index["format"] != FORMAT or len(index["files"]) > MOST_FILES:
        yield f"The index has the format {index['format']!r}, or too many files."
        return
    indexed = {each["path"]: each for each in index["files"]}
    if len(indexed) != len(index["files"]):
        yield "The index names a file twice."
    actual = {each["path"]: each for each in entries(folder)}
    for extra in sorted(actual.keys() - indexed.keys() - {INDEX, SIGNATURE}):
        yield f"{extra} is not in the index."
    folded: dict = {}
    for path, entry in indexed.items():
        if folded.setdefault(path.lower(), path) != path:
            yield f"{path} and {folded[path.lower()]} differ only in case."
        if "\\" in path or any(ord(each) < 32 for each in path):
            yield f"{path!r} is not the same file on every system."
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            yield f"{path!r} is outside the bundle."
        elif path not in actual:
            yield f"{path} is missing."
        elif actual[path] != {key: entry[key] for key in ("path", "sha256", "size")}:
            yield f"{path} differs from the index."
    for model in index["models"]:
        start = f"models/{model['name']}/"
        files = [
            {**each, "path": each["path"][len(start) :]}
            for each in indexed.values()
            if each["path"].startswith(start)
        ]
        if manifest_digest(files, model["base"]) != model["digest"]:
            yield f"The model {model['name']} does not have the digest {model['digest']}."
        for path in (model.get("card"), *model.get("evidence", [])):
            if path is not None and path not in indexed:
                yield f"{path}, of the model {model['name']}, is missing."
    yield from _unlocked(folder, indexed)
    for image in index["images"]:
        if not IMAGE.fullmatch(image):
            yield f"The image {image!r} is not named by digest."


def _unlocked(folder: Path, indexed: dict) -> Iterator[str]:
    """Yield packages that are in no lock file of the bundle, except this repository's own."""
    locked: set = set()
    for path in indexed:
        if path.startswith("locks/") and (folder / path).is_file():
            locked.update(HASH.findall((folder / path).read_text(encoding="utf-8")))
    for path, each in indexed.items():
        own = path.startswith(tuple(f"wheels/{name}-" for name in OWN))
        if path.startswith("wheels/") and not own and each["sha256"] not in locked:
            yield f"{path} is not in a lock file of the bundle."


def main(argv: list[str] | None = None) -> int:
    """Run `make` or `verify`; return 1 and print the reason if the bundle is not in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    maker = commands.add_parser("make", help="fill a new folder")
    maker.add_argument("folder", type=Path)
    maker.add_argument(
        "--lock", action="append", default=[], help="file in locks/, such as control"
    )
    maker.add_argument(
        "--wheels", type=Path, help="take packages from this folder, not the internet"
    )
    maker.add_argument(
        "--own-wheel", action="store_true", help="build and add Assay and tasks-extra"
    )
    maker.add_argument("--image", action="append", default=[], help="NAME@sha256:…")
    maker.add_argument(
        "--image-archive", action="append", default=[], type=Path, help="docker save"
    )
    maker.add_argument("--model", action="append", default=[], help="NAME=FOLDER[@DIGEST-OF-BASE]")
    maker.add_argument(
        "--versions", action="append", default=[], type=Path,
        help="folder that `assay versions export` wrote",
    )  # fmt: skip
    maker.add_argument("--evidence", action="append", default=[], type=Path, help="evidence pack")
    maker.add_argument("--sign", type=Path, help="private key (Ed25519, PEM)")
    maker.set_defaults(run=make)
    verifier = commands.add_parser("verify", help="check every file; exit with 1 if one differs")
    verifier.add_argument("folder", type=Path)
    verifier.add_argument("--key", type=Path, help="public key of the sender (PEM)")
    verifier.add_argument("--digest", help="SHA-256 of index.json, as the sender stated it")
    verifier.set_defaults(run=verify)
    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (Bad, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
