"""A small bundle is made and verified; whatever is changed in it is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.manifests import build_manifest
from tools import bundle

IMAGE = "registry.example/assay@sha256:" + "ab" * 32


def wheel(folder: Path) -> Path:
    """A package with one module."""
    path = folder / "one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.py", "VALUE = 1\n")
        archive.writestr(
            "one-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n"
        )
        archive.writestr(
            "one-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("one-1.0.dist-info/RECORD", "")
    return path


def keys(folder: Path) -> tuple[Path, Path]:
    private, public = folder / "private.pem", folder / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle, and the sender's public key."""
    folder = tmp_path_factory.mktemp("bundle")
    root, source = folder / "root", folder / "model"
    (root / "locks").mkdir(parents=True)
    (folder / "found").mkdir()
    package = wheel(folder / "found")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    (root / "locks" / "control.txt").write_text(f"one==1.0 \\\n    --hash=sha256:{digest}\n")
    (source / "tokenizer").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "release-7.zip").write_bytes(b"evidence")
    private, public = keys(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "ROOT", root)
        options = (
            *("--lock", "control", "--wheels", str(folder / "found"), "--image", IMAGE),
            *("--model", f"minilm={source}", "--model", f"tuned={source}@{'c' * 64}"),
            *("--evidence", str(folder / "release-7.zip"), "--sign", str(private)),
        )
        assert bundle.main(["make", str(folder / "out"), *options]) == 0
    return folder / "out", public


@pytest.fixture
def copy(made: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


def verified(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """As the receiver runs it: the bundle's own copy, by a Python that has no other package."""
    command = [sys.executable, "-I", "-S", folder / "bundle.py", "verify", folder, *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_a_bundle_is_verified_by_its_own_copy_and_without_any_package(
    made: tuple[Path, Path],
) -> None:
    folder, key = made
    ran = verified(folder, "--key", key)
    assert ran.returncode == 0, ran.stderr
    assert IMAGE in ran.stdout
    index = json.loads((folder / "index.json").read_text())
    assert {each["path"] for each in index["files"]} == {
        "bundle.py",
        "evidence/release-7.zip",
        "locks/control.txt",
        "models/minilm/model.safetensors",
        "models/minilm/tokenizer/vocab.json",
        "models/tuned/model.safetensors",
        "models/tuned/tokenizer/vocab.json",
        "wheels/one-1.0-py3-none-any.whl",
    }
    digest = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()
    assert verified(folder, "--digest", digest).returncode == 0
    assert digest in verified(folder).stdout
    assert "The SHA-256" in verified(folder, "--digest", "0" * 64).stderr


def test_the_bundle_tool_uses_nothing_that_python_3_10_lacks(tmp_path: Path) -> None:
    options = ("--python-version", "3.10", "--config-file", "", "--cache-dir", str(tmp_path))
    command = [sys.executable, "-m", "mypy", *options, bundle.__file__]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_models_have_the_digest_that_the_platform_gives_them(made: tuple[Path, Path]) -> None:
    index = json.loads((made[0] / "index.json").read_text())
    minilm, tuned = (each["digest"] for each in index["models"])
    assert minilm == build_manifest(made[0] / "models" / "minilm").digest
    assert tuned == build_manifest(made[0] / "models" / "tuned", "c" * 64).digest


def reindexed(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the index; its signature no longer holds."""
    path = folder / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def with_file(folder: Path, name: str) -> None:
    """Add a file, and list it."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"another")
    facts = {"path": name, "size": 7, "sha256": hashlib.sha256(b"another").hexdigest()}
    reindexed(folder, lambda index: index["files"].append(facts))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (
        lambda folder: (folder / "models/minilm/model.safetensors").write_bytes(b"Weights"),
        "models/minilm/model.safetensors differs",
    ),
    "a missing file": (
        lambda folder: (folder / "evidence/release-7.zip").unlink(),
        "evidence/release-7.zip is missing",
    ),
    "a file more": (
        lambda folder: (folder / "wheels/evil-1.0-py3-none-any.whl").write_bytes(b""),
        "wheels/evil-1.0-py3-none-any.whl is not in the index",
    ),
    "a link": (lambda folder: (folder / "models/x").symlink_to("/etc"), "not a regular file"),
    "no index": (lambda folder: (folder / "index.json").unlink(), "is missing"),
    "an index of something else": (
        lambda folder: (folder / "index.json").write_text("[]"),
        "is not a valid index",
    ),
    "a path that leads out": (
        lambda folder: reindexed(folder, lambda i: i["files"][0].update(path="../up")),
        "outside the bundle",
    ),
    "two names that some systems take for one": (
        lambda folder: with_file(folder, "Evidence/release-7.zip"),
        "differ only in case",
    ),
    "a name that is a path elsewhere": (
        lambda folder: with_file(folder, "evidence\\release-7.zip"),
        "is not the same file on every system",
    ),
    "a key that stands twice": (
        lambda folder: (folder / "index.json").write_text(
            (folder / "index.json").read_text().replace('"path"', '"size": 1, "path"', 1)
        ),
        "names a key twice",
    ),
    "another digest of a model": (
        lambda folder: reindexed(folder, lambda i: i["models"][0].update(digest="0" * 64)),
        "does not have the digest",
    ),
    "an image by its tag": (
        lambda folder: reindexed(folder, lambda i: i["images"].append("postgres:18")),
        "not named by digest",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bundle_with_a_fault_is_refused_and_the_fault_named(copy: Path, name: str) -> None:
    damage, said = DAMAGE[name]
    damage(copy)
    ran = verified(copy)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_package_that_no_lock_names_is_refused_though_the_index_does(copy: Path) -> None:
    path = copy / "wheels" / "one-1.0-py3-none-any.whl"
    path.write_bytes(b"other")
    digest = hashlib.sha256(b"other").hexdigest()

    def rename(index: dict) -> None:
        (entry,) = [each for each in index["files"] if each["path"].endswith(".whl")]
        entry.update(sha256=digest, size=5)

    reindexed(copy, rename)
    assert "not in a lock file" in verified(copy).stderr


def test_our_own_wheels_are_built_and_need_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert bundle.main(["make", str(folder), "--own-wheel"]) == 0
    names = {path.name.partition("-")[0] for path in (folder / "wheels").iterdir()}
    assert names == {"assay", "assay_tasks_extra"}
    ran = verified(folder)
    assert ran.returncode == 0, ran.stderr


def test_another_index_or_key_is_refused(
    copy: Path, made: tuple[Path, Path], tmp_path: Path
) -> None:
    _, other = keys(tmp_path)
    assert "not signed" in verified(copy, "--key", other).stderr
    reindexed(copy, lambda index: index["images"].clear())
    assert verified(copy).returncode == 0
    assert "not signed" in verified(copy, "--key", made[1]).stderr
    (copy / "index.json.sig").unlink()
    assert "not signed" in verified(copy, "--key", made[1]).stderr


def test_images_are_taken_by_digest_only_and_a_folder_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bundle.main(["make", str(tmp_path / "out"), "--image", "postgres:18"]) == 1
    assert "not named by digest" in capsys.readouterr().err
    (tmp_path / "file").write_text("kept")
    assert bundle.main(["make", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
