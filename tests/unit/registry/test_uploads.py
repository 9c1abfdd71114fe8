"""Uploads in parts: bounds, offsets, two requests at once, and their use by intake and datasets."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    Unavailable,
    WrongState,
)
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from governance.rowsecurity import scope
from registry.uploads import files
from registry.uploads.models import Upload
from registry.uploads.selectors import upload_get, uploads_of
from registry.uploads.services import (
    OPEN_MAX,
    ChecksumMismatch,
    upload_append,
    upload_create,
    upload_discard,
    uploads_expire_due,
    uploads_use,
)
from tests.waiting import PATIENCE_S

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def devi(policy: object, person: Callable[..., Person]) -> Principal:
    return principal_for_person(person("Devi", "developer@clinical"))


@pytest.fixture
def clinical(department: Callable[[str], Department]) -> Department:
    return department("clinical")


@pytest.fixture(autouse=True)
def _no_files_stay() -> Any:
    yield
    for path in files.folder().iterdir() if files.folder().is_dir() else ():
        path.unlink()


def create(actor: Principal, department: Department, **changes: Any) -> Upload:
    return upload_create(
        **{
            "actor": actor, "kind": "intake", "department": department, "target": "writer",
            "filename": "model.safetensors", "size": len(DATA), "sha256": SHA, **changes,
        }
    )  # fmt: skip


def append(actor: Principal, upload: Upload, data: bytes, offset: int, **more: Any) -> Upload:
    return upload_append(actor=actor, upload_id=upload.pk, offset=offset, data=data, **more)


def complete(actor: Principal, department: Department, **changes: Any) -> Upload:
    return append(actor, create(actor, department, **changes), DATA, 0)


def actions() -> list[str]:
    events = AuditEvent.objects.filter(action__startswith="upload:")
    return list(events.order_by("pk").values_list("action", flat=True))


def test_parts_make_the_whole_whose_hash_is_verified(devi: Principal, clinical: Department) -> None:
    upload = create(devi, clinical)
    assert append(devi, upload, DATA[:4000], 0).received == 4000
    part = DATA[4000:]
    done = append(devi, upload, part, 4000, sha256=hashlib.sha256(part).digest())
    assert done.completed_at is not None
    assert b"".join(files.chunks(upload.pk)) == DATA
    assert files.upload_file(upload.pk).stat().st_mode & 0o777 == 0o600
    assert actions() == ["upload:create", "upload:complete"]
    with pytest.raises(WrongState, match="is already complete"):
        append(devi, upload, b"", len(DATA))


def test_without_a_stated_hash_the_whole_gets_the_computed_one(
    devi: Principal, clinical: Department
) -> None:
    assert complete(devi, clinical, sha256="").sha256 == SHA


@pytest.mark.parametrize("offset", [0, 3999, 4001, len(DATA), 10**17])
def test_another_offset_is_refused_and_changes_nothing(
    devi: Principal, clinical: Department, offset: int
) -> None:
    upload = create(devi, clinical)
    append(devi, upload, DATA[:4000], 0)
    with pytest.raises(WrongState, match="continues at byte 4000"):
        append(devi, upload, b"x", offset)
    append(devi, upload, DATA[4000:], 4000)


def test_more_than_was_announced_is_refused(devi: Principal, clinical: Department) -> None:
    upload = create(devi, clinical)
    with pytest.raises(TooLarge):
        append(devi, upload, DATA + b"x", 0)
    assert files.stored_size(upload.pk) == 0


def test_bytes_that_were_garbled_on_the_way_are_not_stored(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical)
    with pytest.raises(ChecksumMismatch):
        append(devi, upload, DATA[:10], 0, sha256=hashlib.sha256(b"other").digest())
    assert upload_get(actor=devi, id=upload.pk).received == 0


def test_a_whole_that_is_not_the_stated_one_never_completes(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical, sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="has the SHA-256"), transaction.atomic():
        append(devi, upload, DATA, 0)
    assert upload_get(actor=devi, id=upload.pk).completed_at is None


def test_a_wrong_whole_is_read_once_and_begins_again(devi: Principal, clinical: Department) -> None:
    """The last byte alone would have the server read gigabytes, as often as it is sent."""
    upload = create(devi, clinical, sha256="0" * 64)
    append(devi, upload, DATA[:-1], 0)
    with pytest.raises(ChecksumMismatch) as refused, transaction.atomic():
        append(devi, upload, DATA[-1:], len(DATA) - 1)
    assert refused.value.code == "file_checksum_mismatch"
    assert files.stored_size(upload.pk) == 0
    assert append(devi, upload, DATA[-1:], len(DATA) - 1).received == 0


def test_an_access_token_reaches_the_uploads_of_its_scopes_alone(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical)
    for scopes in ({"deployment:invoke"}, {"dataset:create"}, {"intake:view"}):
        token = replace(devi, scopes=frozenset(scopes))
        assert not uploads_of(token).exists()
        with pytest.raises(NotFound):
            upload_discard(actor=token, upload_id=upload.pk)
    upload_discard(actor=replace(devi, scopes=frozenset({"intake:create"})), upload_id=upload.pk)


def test_what_an_interrupted_request_left_behind_is_overwritten(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical)
    append(devi, upload, DATA[:100], 0)
    # Written to the disk, and never committed.
    files.write_at(upload.pk, 100, b"x" * 9000)
    append(devi, upload, DATA[100:200], 100)
    assert files.stored_size(upload.pk) == 200
    append(devi, upload, DATA[200:], 200)


def test_bytes_that_the_disk_lost_are_asked_for_again(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical)
    append(devi, upload, DATA[:100], 0)
    files.discard(upload.pk)
    assert append(devi, upload, DATA[100:200], 100).received == 0


def test_someone_elses_upload_is_not_there(
    devi: Principal, clinical: Department, person: Callable[..., Person]
) -> None:
    upload = create(devi, clinical)
    for roles in (("developer@clinical",), ("lead@finance",), ("admin",), ()):
        other = principal_for_person(person(f"Other {roles}", *roles))
        assert list(uploads_of(other)) == []
        for attempt in (
            lambda other=other: upload_get(actor=other, id=upload.pk),
            lambda other=other: append(other, upload, b"x", 0),
            lambda other=other: upload_discard(actor=other, upload_id=upload.pk),
            lambda other=other: uploads_use(
                actor=other, kind="intake", department=clinical, upload_ids=[upload.pk]
            ),
        ):
            with pytest.raises(NotFound, match="of yours"), transaction.atomic():
                attempt()
    assert upload_get(actor=devi, id=upload.pk).received == 0


def test_a_forgotten_filter_shows_no_other_persons_uploads(
    devi: Principal, clinical: Department, person: Callable[..., Person]
) -> None:
    create(devi, clinical)
    other = principal_for_person(person("Odd", "developer@clinical"))
    with scope(other):
        assert list(Upload.objects.all()) == []
    with scope(devi):
        assert Upload.objects.count() == 1


def test_who_may_not_deliver_may_not_upload(
    devi: Principal, clinical: Department, person: Callable[..., Person]
) -> None:
    viewer = principal_for_person(person("Vera", "viewer@clinical"))
    with pytest.raises(NotPermitted):
        create(viewer, clinical)
    with pytest.raises(NotFound):
        create(principal_for_person(person("Fay", "lead@finance")), clinical)
    upload = create(devi, clinical)
    RoleAssignment.objects.filter(person_id=devi.person_id).delete()
    without = principal_for_person(Person.objects.get(pk=devi.person_id))
    with pytest.raises((NotFound, NotPermitted)):
        append(without, upload, DATA, 0)


def test_an_expired_upload_is_gone_and_tidied(devi: Principal, clinical: Department) -> None:
    upload = create(devi, clinical)
    append(devi, upload, DATA[:100], 0)
    Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        append(devi, upload, DATA[100:], 100)
    with pytest.raises(NotFound):
        upload_get(actor=devi, id=upload.pk)


@pytest.mark.django_db(transaction=True)
def test_the_controller_removes_rows_and_files(
    devi: Principal, clinical: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = create(devi, clinical), create(devi, clinical)
    append(devi, old, DATA[:100], 0)
    append(devi, new, DATA[:100], 0)
    orphan = uuid.uuid4()
    files.write_at(orphan, 0, b"x")
    Upload.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert uploads_expire_due() == 1
    assert not files.upload_file(old.pk).exists()
    # A file without a row may be of a transaction that is under way.
    assert files.upload_file(orphan).exists()
    monkeypatch.setattr(files, "ORPHAN_AGE_S", -1.0)
    assert uploads_expire_due() == 1
    assert not files.upload_file(orphan).exists()
    assert files.upload_file(new.pk).exists()
    assert actions()[-1] == "upload:expire"


def test_writing_keeps_it_alive_for_a_week_at_most(devi: Principal, clinical: Department) -> None:
    upload = create(devi, clinical)
    Upload.objects.update(created_at=timezone.now() - timedelta(days=6, hours=23))
    done = append(devi, upload, DATA[:10], 0)
    assert done.expires_at - timezone.now() < timedelta(hours=2)


def test_the_number_and_the_bytes_of_a_person_are_bounded(
    devi: Principal, clinical: Department, settings: Any
) -> None:
    settings.INTAKE_MAX_BYTES = 1000
    with pytest.raises(TooLarge):
        create(devi, clinical, size=1001)
    first = create(devi, clinical, size=400)
    with pytest.raises(WrongState, match="more than 1,000 bytes together"):
        create(devi, clinical, size=601)
    Upload.objects.bulk_create(
        Upload(
            owner_id=first.owner_id,
            department=clinical,
            kind=first.kind,
            filename=first.filename,
            size=1,
            expires_at=first.expires_at,
        )
        for _ in range(OPEN_MAX - 1)
    )
    with pytest.raises(WrongState, match=f"You have {OPEN_MAX} unfinished uploads"):
        create(devi, clinical, size=1)


def test_the_bytes_of_everyone_together_are_bounded(
    devi: Principal, clinical: Department, person: Callable[..., Person], settings: Any
) -> None:
    settings.UPLOAD_TOTAL_BYTES = 1000
    create(devi, clinical, size=900)
    other = principal_for_person(person("Odd", "developer@clinical"))
    with pytest.raises(Unavailable), scope(other):
        create(other, clinical, size=101)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"}, {"filename": ""}, {"filename": "x" * 256}, {"filename": "a\0b"},
        {"size": 0}, {"size": -1}, {"sha256": "0" * 63}, {"sha256": "G" * 64},
    ],
)  # fmt: skip
def test_malformed_fields_are_refused(
    devi: Principal, clinical: Department, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        create(devi, clinical, **changes)


def test_a_name_is_never_a_path(devi: Principal, clinical: Department) -> None:
    upload = complete(devi, clinical, filename="../../../../tmp/evil")
    assert files.upload_file(upload.pk).parent == files.folder()
    assert [path.name for path in files.folder().iterdir()] == [str(upload.pk)]


class TestUse:
    """Taking complete uploads out."""

    def use(self, actor: Principal, department: Department, *ids: uuid.UUID, **more: Any) -> Any:
        found = {"kind": "intake", **more}
        return uploads_use(actor=actor, department=department, upload_ids=list(ids), **found)

    def test_it_can_be_used_once(self, devi: Principal, clinical: Department) -> None:
        upload = complete(devi, clinical)
        (part,) = self.use(devi, clinical, upload.pk)
        assert (part.name, part.size) == ("model.safetensors", len(DATA))
        assert b"".join(part.chunks()) == DATA
        with pytest.raises(NotFound):
            self.use(devi, clinical, upload.pk)

    @pytest.mark.django_db(transaction=True)
    def test_its_file_goes_with_the_commit_and_stays_without(
        self, devi: Principal, clinical: Department
    ) -> None:
        upload = complete(devi, clinical)
        with transaction.atomic():
            self.use(devi, clinical, upload.pk)
            transaction.set_rollback(True)
        assert upload_get(actor=devi, id=upload.pk).completed_at is not None
        with transaction.atomic():
            self.use(devi, clinical, upload.pk)
        assert not files.upload_file(upload.pk).exists()

    def test_what_is_incomplete_or_for_another_use_is_refused(
        self, devi: Principal, clinical: Department, department: Callable[[str], Department]
    ) -> None:
        whole, half = complete(devi, clinical), create(devi, clinical)
        with pytest.raises(WrongState, match="has 0 of"):
            self.use(devi, clinical, half.pk)
        with pytest.raises(InvalidInput, match="is for intake in clinical"):
            self.use(devi, clinical, whole.pk, kind="dataset")
        with pytest.raises(InvalidInput):
            self.use(devi, department("finance"), whole.pk)
        with pytest.raises(InvalidInput, match="named twice"):
            self.use(devi, clinical, whole.pk, whole.pk)


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_at_once_for_one_offset_one_is_stored(
    devi: Principal, clinical: Department
) -> None:
    upload = create(devi, clinical)
    barrier, said = threading.Barrier(2), []

    def write(data: bytes) -> None:
        try:
            barrier.wait(PATIENCE_S)
            with scope(devi):
                append(devi, upload, data, 0)
            said.append("stored")
        except DomainError as error:
            said.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(letter * 5000,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(said) == ["offset_mismatch", "stored"]
    stored = b"".join(files.chunks(upload.pk))
    assert len(stored) == 5000
    assert len(set(stored)) == 1
    assert connection.vendor == "postgresql"
