"""Garbage collection, inspection and copies of the artifact store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput
from governance.principals import service_principal
from registry.datasets.models import DatasetVersion
from registry.manifests import Manifest, build_manifest
from registry.storage import store
from registry.storage.backend import StoreUnavailable, file_key
from registry.storage.folder import FolderBackend
from registry.versions.models import ModelVersion
from tests.stored import media_list, preview, stored_file
from tests.unit.workers import company
from workers.jobs.models import Job
from workers.storage.collection import store_collect, store_collect_due
from workers.storage.copying import store_copy
from workers.storage.inspection import FaultKind, store_contents, store_faults
from workers.storage.needs import Unknowable

pytestmark = pytest.mark.django_db
ACTOR = service_principal("test")
AGE = timedelta(days=2)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, settings: Any) -> Path:
    """The folder of the store, empty."""
    settings.STORE_URL = (tmp_path / "store").as_uri()
    return tmp_path / "store"


def made(tmp_path: Path, **files: str) -> Manifest:
    """Files in the store that no row names."""
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    manifest = build_manifest(folder)
    store.adopt(folder, manifest)
    return manifest


def age_all(root: Path, days: float = 3) -> None:
    """Make everything in the store as old as that."""
    then = time.time() - days * 86400
    for file in root.rglob("*"):
        os.utime(file, (then, then))


def keys() -> set[str]:
    return {entry.key for entry in store.backend().entries()}


def of(manifest: Manifest) -> set[str]:
    return {file_key(manifest.digest), *(file_key(file.sha256) for file in manifest.files)}


def version() -> ModelVersion:
    return company.version(company.model(f"m-{uuid4().hex[:6]}", "text-classification"))


def test_only_what_nothing_needs_and_is_old_is_removed_and_recorded(
    tmp_path: Path, root: Path
) -> None:
    kept = version()
    shared = company.data("rows", "text-classification")
    garbage = made(tmp_path, weights="garbage", config="{}")
    unfinished = root / ".incoming" / "half"
    unfinished.write_text("half")
    assert store_collect(actor=ACTOR, age=AGE, apply=True).removed == 0
    age_all(root)
    fresh = made(tmp_path, weights="fresh")
    listed = store_collect(actor=ACTOR, age=AGE, apply=False)
    assert {entry.key for entry in listed.objects} == of(garbage) - of_version(kept)
    assert of(garbage) <= keys()
    done = store_collect(actor=ACTOR, age=AGE, apply=True)
    assert done.removed == 2
    assert not unfinished.exists()
    assert keys() == of_version(kept) | of(fresh) | {file_key(shared.digest)}
    events = AuditEvent.objects.filter(action="store:collect")
    recorded = b"".join(bytes(event.canonical) for event in events)
    assert garbage.digest.encode() in recorded
    assert b".incoming/half" in recorded
    assert list(store_faults()) == []


def of_version(made: ModelVersion) -> set[str]:
    return of(Manifest.from_json(made.manifest))


def test_adopting_a_file_again_saves_it(tmp_path: Path, root: Path) -> None:
    made(tmp_path, weights="again")
    age_all(root)
    again = made(tmp_path, weights="again")
    assert store_collect(actor=ACTOR, age=AGE, apply=True).removed == 0
    assert of(again) <= keys()


def test_results_of_running_jobs_media_and_previews_are_needed(tmp_path: Path, root: Path) -> None:
    waiting = made(tmp_path, prompt="waits for MLflow")
    job = Job.objects.create(
        kind="prompt",
        state="finishing",
        department=company.department("clinical"),
        title="a prompt",
        spec={},
        result={"manifest": waiting.to_json()},
        created_by=company.version(company.model("x", "text-classification")).created_by,
    )
    data, (picture, _) = pictures(tmp_path)
    preview(picture).parent.mkdir(parents=True)
    preview(picture).write_text("jpg")
    age_all(root)
    store_collect(actor=ACTOR, age=AGE, apply=True)
    assert of(waiting) <= keys()
    assert stored_file(picture).exists()
    assert preview(picture).exists()
    Job.objects.filter(pk=job.pk).update(state="failed")
    store_collect(actor=ACTOR, age=AGE, apply=True)
    assert not of(waiting) & keys()
    media_list(data.digest).unlink()
    with pytest.raises(Unknowable, match="nothing was done"):
        store_collect(actor=ACTOR, age=AGE, apply=True)
    assert stored_file(picture).exists()


def pictures(tmp_path: Path) -> tuple[DatasetVersion, list[str]]:
    """Return a version of two pictures, and their SHA-256s in order."""
    names = sorted(file.sha256 for file in made(tmp_path, a="one", b="two").files)
    rows = tmp_path / uuid4().hex
    rows.write_text("".join(f'{{"image":"{name}"}}\n' for name in names))
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    store.file_put(rows, digest)
    listing = tmp_path / uuid4().hex
    listing.write_text("".join(f"{name}\t{{}}\n" for name in names))
    list_sha256 = hashlib.sha256(listing.read_bytes()).hexdigest()
    store.media_list_put(listing, digest)
    data = company.data(f"pictures-{uuid4().hex[:6]}", "image-classification")
    data.digest, data.size_bytes = digest, stored_file(digest).stat().st_size
    data.profile = {"media": {"image": {}}}
    data.media_list_sha256 = list_sha256
    data.save()
    return data, names


def cut(lines: str) -> str:
    return lines[: lines.index("\n") + 1]


def garble(lines: str) -> str:
    return "!" + lines[1:]


def rename(lines: str) -> str:
    return ("a" if lines[0] != "a" else "b") + lines[1:]


@pytest.mark.parametrize("damage", [cut, garble, rename])
def test_a_damaged_list_of_media_is_named_and_removes_nothing(
    tmp_path: Path, root: Path, damage: Callable[[str], str]
) -> None:
    data, names = pictures(tmp_path)
    assert {fault.kind for fault in store_faults()} == set()
    listing = media_list(data.digest)
    listing.chmod(0o644)
    listing.write_text(damage(listing.read_text()))
    age_all(root)
    with pytest.raises(Unknowable, match="nothing was done"):
        store_collect(actor=ACTOR, age=AGE, apply=True)
    assert all(stored_file(name).exists() for name in names)
    found = [fault for fault in store_faults() if fault.kind is FaultKind.DAMAGED]
    assert [fault.owners for fault in found] == [(f"dataset version {data.pk} ({data})",)]
    assert found[0].key.startswith("records/media-lists/")
    # The rows still say what is needed.
    assert not {file_key(name) for name in names} & {
        fault.key for fault in store_faults() if fault.kind is FaultKind.UNKNOWN
    }
    assert store_contents().objects["records"] == 1


def test_without_list_or_rows_the_media_are_unknowable(tmp_path: Path, root: Path) -> None:
    data, names = pictures(tmp_path)
    stored_file(data.digest).unlink()
    media_list(data.digest).unlink()
    age_all(root)
    with pytest.raises(Unknowable, match="is missing"):
        store_collect(actor=ACTOR, age=AGE, apply=True)
    assert all(stored_file(name).exists() for name in names)


def test_a_manifest_that_cannot_be_read_stops_the_collection(root: Path, tmp_path: Path) -> None:
    broken = version()
    made(tmp_path, weights="garbage")
    age_all(root)
    ModelVersion.objects.bulk_create(
        [
            ModelVersion(
                model=broken.model,
                number=9,
                kind="base",
                digest="ab" * 32,
                manifest={},
                size_bytes=1,
                created_by=broken.created_by,
            )
        ]
    )
    before = keys()
    with pytest.raises(Unknowable):
        store_collect(actor=ACTOR, age=AGE, apply=True)
    assert keys() == before


def test_the_age_is_at_least_a_day() -> None:
    with pytest.raises(InvalidInput, match="at least one day"):
        store_collect(actor=ACTOR, age=timedelta(hours=1), apply=True)


def test_the_controller_collects_only_where_it_is_told_to(
    root: Path, tmp_path: Path, settings: Any
) -> None:
    garbage = made(tmp_path, weights="garbage")
    age_all(root)
    store_collect_due()
    assert of(garbage) <= keys()
    settings.STORE_GC_DAYS = 2
    store_collect_due()
    assert not of(garbage) & keys()
    settings.STORE_URL = (tmp_path / "file").as_uri()
    (tmp_path / "file").write_text("")
    store_collect_due()


def test_damaged_missing_and_unknown_files_are_named_with_what_they_affect(
    tmp_path: Path, root: Path
) -> None:
    damaged, missing = version(), version()
    unknown = made(tmp_path, weights="garbage")
    age_all(root)
    weights = of_version(damaged) - of_version(missing) - {file_key(damaged.digest)}
    (key,) = weights
    file = root / key
    file.chmod(0o644)
    file.write_bytes(b"!" + file.read_bytes()[1:])
    stored_file(missing.digest).unlink()
    assert {fault.kind for fault in store_faults(hashes=False)} == {"missing", "unknown"}
    faults = {(fault.kind, fault.key): fault for fault in store_faults()}
    assert faults[FaultKind.DAMAGED, key].owners == (f"version {damaged.pk} ({damaged})",)
    assert faults[FaultKind.MISSING, file_key(missing.digest)].owners == (
        f"version {missing.pk} ({missing})",
    )
    assert (FaultKind.UNKNOWN, file_key(unknown.digest)) in faults
    found = store_contents()
    assert found.missing == 1
    assert found.unneeded_objects == 2
    assert found.objects["files"] == len(keys())


def test_a_copy_goes_on_is_verified_and_takes_what_was_stored_meanwhile(
    tmp_path: Path, root: Path
) -> None:
    first, second = version(), made(tmp_path, weights="later")
    target = (tmp_path / "target").as_uri()
    started: list[str] = []

    def interrupt(_: object) -> None:
        started.append("object")
        if len(started) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_copy(source=store.store_url(), target=target, progress=interrupt)
    copied = FolderBackend(tmp_path / "target")
    assert len(list(copied.entries())) == 1
    done = store_copy(source=store.store_url(), target=target)
    assert (done.entries, done.failed) == (len(keys()), [])
    assert {entry.key for entry in copied.entries()} == keys()
    assert store_copy(source=store.store_url(), target=target).objects == 0
    (file,) = of(second) - {file_key(second.digest)}
    (root / file).chmod(0o644)
    (root / file).write_text("LATER")
    copied.remove(file)
    done = store_copy(source=store.store_url(), target=target)
    assert len(done.failed) == 1
    assert file in done.failed[0]
    assert copied.find(file) is None
    assert copied.find(file_key(first.digest)) is not None
    with pytest.raises(InvalidInput, match="another URL"):
        store_copy(source=store.store_url(), target=store.store_url())


def test_a_copy_names_a_file_that_cannot_be_read_and_takes_the_others(
    tmp_path: Path, root: Path
) -> None:
    manifest = made(tmp_path, a="one", b="two")
    closed = root / file_key(manifest.files[0].sha256)
    closed.unlink()
    closed.symlink_to(closed.name)
    done = store_copy(source=store.store_url(), target=(tmp_path / "target").as_uri())
    assert done.objects == 2
    (sentence,) = done.failed
    assert sentence.startswith(f"{file_key(manifest.files[0].sha256)}: It cannot be read: ")


def test_a_full_target_is_told_and_has_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    made(tmp_path, weights="x" * 100_000)
    target = tmp_path / "target"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(StoreUnavailable) as raised:
            store_copy(source=store.store_url(), target=target.as_uri())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.code == "store_full"
    assert all(entry.size < 100_000 for entry in FolderBackend(target).entries())
    assert list((target / ".incoming").iterdir()) == []


def test_the_commands_say_what_they_found(tmp_path: Path, root: Path) -> None:
    from assay.cli.store import app

    run = CliRunner()
    version()
    garbage = made(tmp_path, weights="garbage")
    age_all(root, days=9)
    shown = run.invoke(app, ["status"])
    assert shown.exit_code == 0, shown.output
    assert "files" in shown.output
    contents = json.loads(run.invoke(app, ["status", "--json"]).stdout)
    assert contents["unneeded_objects"] == 2
    assert contents["objects"]["files"] > 0
    unneeded = json.loads(run.invoke(app, ["gc", "--json"]).stdout)
    assert (len(unneeded["objects"]), unneeded["removed"]) == (2, 0)
    shown = run.invoke(app, ["gc"])
    assert "Nothing was removed; add --apply." in " ".join(shown.output.split())
    shown = run.invoke(app, ["fsck"])
    assert shown.exit_code == 1
    assert f"unknown: files/{garbage.digest[:2]}" in shown.output
    faults = json.loads(run.invoke(app, ["fsck", "--json"]).stdout)
    assert {fault["kind"] for fault in faults} == {"unknown"}
    assert {fault["key"] for fault in faults} == {each["key"] for each in unneeded["objects"]}
    shown = run.invoke(app, ["gc", "--apply"])
    assert "Removed 2 files" in shown.output
    shown = run.invoke(app, ["fsck"])
    assert (shown.exit_code, shown.output.strip()) == (0, "No faults.")
    target = (tmp_path / "target").as_uri()
    shown = run.invoke(app, ["migrate", "--to", target])
    assert shown.exit_code == 0, shown.output
    assert f"Set ASSAY_STORE_URL={target}" in shown.output
