"""Dataset versions with media: stored once, hidden until unmasked, compared for leaks."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, Unavailable, WrongState
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.reviews.checklist import CheckOutcome
from governance.reviews.policies.selectors import review_policies_in_force
from registry.datasets import unpacking
from registry.datasets.cells import File
from registry.datasets.leaks import Overlap, overlap
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.preview import dataset_media_open, dataset_unmask, rows_preview
from registry.datasets.services import dataset_create, dataset_version_add
from registry.releases.checklist import CHECKS, Case
from registry.releases.dossier import dossier_evidence
from registry.sandbox.places import FairPlaces
from tests.stored import incoming, media_list, preview, stored_file
from tests.unit.registry import objects
from tests.unit.registry.media_files import archive, picture, saved, sound
from tests.unit.registry.media_tasks import PICTURES, SPEECH, register
from tests.unit.registry.objects import Upload, sha256

pytestmark = pytest.mark.django_db
CAT, DOG, WAV = picture(1), picture(2, form="JPEG"), sound()


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lena", "lead@clinical")


@pytest.fixture
def add(lead: Principal, department: Callable[[str], Department]) -> Callable[..., DatasetVersion]:
    """A version with these files in a dataset of its own, or in `dataset`."""

    def add(
        files: dict[str, bytes], task: str = PICTURES.name, dataset: Dataset | None = None
    ) -> DatasetVersion:
        made = dataset or dataset_create(
            actor=lead,
            name=f"data-{Dataset.objects.count()}",
            department=department("clinical"),
            task=task,
            classification="internal",
            license="CC0-1.0",
        )
        return dataset_version_add(
            actor=lead, dataset=made, file=Upload("data.zip", archive(files))
        )

    return add


Add = Callable[..., DatasetVersion]


def files_of(preview: Any) -> list[File]:
    return [each for row in preview.rows for cell in row for each in cell if type(each) is File]


def changed(data: bytes) -> bytes:
    """The same picture, smaller and recompressed."""
    with Image.open(BytesIO(data)) as image:
        return saved(image.convert("RGB").resize((48, 36)), "JPEG", quality=60)


def test_a_department_does_not_hold_all_readers(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    first = add({"cat/a.png": CAT})
    places = FairPlaces(2, wait_s=0.1, refusal="Too many uploads.")
    monkeypatch.setattr(unpacking, "_places", places)
    with places.place(str(first.dataset.department_id)), pytest.raises(Unavailable):
        add({"dog/a.png": DOG})
    with places.place("another department"):
        add({"dog/a.png": DOG})


def test_files_are_stored_once_by_their_content_and_read_only(add: Add) -> None:
    add({"cat/a.png": CAT})
    stored = stored_file(sha256(CAT))
    before = stored.stat()
    add({"cat/other.png": CAT, "dog/b.jpg": DOG})
    after = stored.stat()
    assert (after.st_ino, after.st_mode & 0o777) == (before.st_ino, 0o444)
    assert stored.read_bytes() == CAT
    assert incoming() == []


def test_a_preview_image_holds_pixels_alone(add: Add) -> None:
    with Image.open(BytesIO(CAT)) as image:
        exif = Image.Exif()
        exif[0x010E] = "taken at home"
        big = saved(image.convert("RGB").resize((1200, 900)), "JPEG", exif=exif)
    assert b"taken at home" in big
    add({"cat/a.jpg": big})
    small = preview(sha256(big))
    with Image.open(small) as image:
        assert (image.format, image.size) == ("JPEG", (320, 240))
    assert b"taken at home" not in small.read_bytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_get_a_preview_and_a_hash(add: Add, mode: str) -> None:
    with Image.open(BytesIO(picture(5))) as image:
        if mode == "I;16":
            image = Image.frombytes("I;16", (64, 48), bytes(range(256)) * 24)
        data = saved(image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    version = add({"cat/a.png": data})
    assert preview(sha256(data)).stat().st_size > 100
    assert '"looks"' in media_list(version.digest).read_text()


def test_the_digest_covers_the_files(add: Add) -> None:
    first = add({"cat/a.png": CAT})
    with pytest.raises(WrongState, match="holds exactly these rows"):
        add({"cat/b.png": CAT}, dataset=first.dataset)
    second = add({"cat/a.png": DOG}, dataset=first.dataset)
    assert (second.number, second.digest != first.digest) == (2, True)


def test_a_damaged_list_of_media_is_replaced_when_equal_rows_come_again(add: Add) -> None:
    files = {"cat/a.png": CAT, "dog/b.jpg": DOG}
    first = add(files)
    listing = media_list(first.digest)
    whole = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(whole[: whole.index(b"\n") + 1])
    second = add(files)
    assert listing.read_bytes() == whole
    assert first.media_list_sha256 == second.media_list_sha256 == sha256(whole)


def test_nothing_is_kept_of_an_archive_that_is_refused(add: Add) -> None:
    new = picture(77)
    with pytest.raises(InvalidInput):
        add({"cat/a.png": new, "cat/b.png": b"no picture"})
    assert not stored_file(sha256(new)).exists()
    assert not DatasetVersion.objects.exists()
    assert incoming() == []


def test_files_are_hidden_until_unmasked_though_no_text_is_personal(
    add: Add, lead: Principal
) -> None:
    version = add({"cat/a.png": CAT, "dog/b.jpg": DOG})
    preview = rows_preview(version)
    assert (preview.masked, preview.hidden) == ([], ["image"])
    assert [(each.shown, each.media.width) for each in files_of(preview)] == [(False, 64)] * 2
    shown = dataset_unmask(actor=lead, id=version.pk)
    assert [each.shown for each in files_of(shown)] == [True, True]
    assert AuditEvent.objects.filter(action="dataset:unmask", outcome="allowed").count() == 1


def test_only_who_may_unmask_opens_a_file(
    add: Add, lead: Principal, actor: Callable[..., Principal]
) -> None:
    version = add({"cat/a.png": CAT})

    def opened(who: Principal, sha: str = sha256(CAT), **options: Any) -> Any:
        return dataset_media_open(actor=who, id=version.pk, sha256=sha, **options)

    assert (opened(lead).data, opened(lead).content_type) == (CAT, "image/png")
    assert opened(lead, small=True).content_type == "image/jpeg"
    for role, refusal in (
        ("viewer@clinical", NotPermitted),
        ("admin", NotPermitted),
        ("auditor", NotPermitted),
        ("lead@finance", NotFound),
    ):
        with pytest.raises(refusal):
            opened(actor(role, role))


def test_a_version_opens_its_own_files_alone(add: Add, lead: Principal) -> None:
    version, _other = add({"cat/a.png": CAT}), add({"dog/b.jpg": DOG})
    assert stored_file(sha256(DOG)).exists()
    for sha in (sha256(DOG), "0" * 64, "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            dataset_media_open(actor=lead, id=version.pk, sha256=sha)


def test_files_that_the_store_lost_or_that_changed_are_told(add: Add, lead: Principal) -> None:
    version = add({"metadata.csv": b"file_name,text\na.wav,Hi\n", "a.wav": WAV}, SPEECH.name)
    stored = stored_file(sha256(WAV))
    stored.chmod(0o644)
    stored.write_bytes(WAV[:-1])
    with pytest.raises(Unavailable, match="was changed"):
        dataset_media_open(actor=lead, id=version.pk, sha256=sha256(WAV))
    stored.unlink()
    with pytest.raises(Unavailable, match="not in the artifact store"):
        dataset_media_open(actor=lead, id=version.pk, sha256=sha256(WAV))
    media_list(version.digest).unlink()
    with pytest.raises(Unavailable, match="media of data-0 v1 are not"):
        rows_preview(version)


def test_a_leak_between_datasets_is_found_by_content_and_by_looks(add: Add) -> None:
    train = add({"cat/a.png": CAT, "cat/b.png": picture(3)})
    test = add(
        {
            "dog/same.png": CAT,
            "cat/alike.jpg": changed(picture(3)),
            "cat/new.png": picture(4),
            "cat/plain.png": saved(Image.new("RGB", (64, 64), "red"), "PNG"),
        }
    )
    assert overlap([train], test) == Overlap(same=1, alike=1)
    assert overlap([test], train) == Overlap(same=1, alike=1)


def test_a_leak_check_without_the_list_of_files_cannot_run(add: Add) -> None:
    train, test = add({"cat/a.png": picture(8)}), add({"cat/b.png": picture(9)})
    media_list(test.digest).unlink()
    with pytest.raises(Unavailable, match="leak check cannot run"):
        overlap([train], test)


@pytest.mark.parametrize(
    ("files", "shared", "alike", "outcome"),
    [
        ({"cat/alike.jpg": "alike", "cat/new.png": "new"}, 0, 1, CheckOutcome.NEEDS_JUDGMENT),
        ({"cat/alike.jpg": "alike", "dog/same.png": "same"}, 1, 1, CheckOutcome.FAILED),
        ({"cat/new.png": "new"}, 0, 0, CheckOutcome.PASSED),
    ],
)
def test_equal_images_fail_the_leak_check_and_reviewers_judge_those_that_look_alike(
    add: Add, lead: Principal, files: dict[str, str], shared: int, alike: int, outcome: str
) -> None:
    content = {"alike": changed(picture(3)), "same": CAT, "new": DOG}
    train = add({"cat/a.png": CAT, "cat/b.png": picture(3)})
    test = add({name: content[kind] for name, kind in files.items()})
    owner = Person.objects.get(pk=lead.person_id)
    model = objects.model(owner, train.dataset.department, task=PICTURES.name)
    base = objects.version(model, owner)
    made = objects.version(model, owner, "full", base, dataset_version=train)
    objects.evaluation(made, test, owner)
    dossier = dossier_evidence(made)
    (found,) = dossier["evaluations"]
    assert (found["rows_in_training_data"], found["rows_alike_in_training_data"]) == (shared, alike)
    decided, note = CHECKS["leak"](Case(made, dossier, review_policies_in_force()[0].document))
    assert decided == outcome
    assert ("1 more hold an image that looks like one" in note) == bool(alike)
