"""Boxes and masks in datasets: checked against their images, counted, and drawn in previews."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from governance.errors import InvalidInput, TooLarge
from governance.people.models import Department
from governance.principals import Principal
from registry.catalog import get_task
from registry.catalog.formats import archive_layout, row_fields
from registry.catalog.regions import HUES
from registry.datasets.cells import File
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.preview import dataset_media_open, dataset_unmask, rows_preview
from registry.datasets.services import dataset_create, dataset_version_add
from tests.stored import stored_file
from tests.unit.registry.media_files import archive, picture, saved
from tests.unit.registry.objects import Upload, sha256

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
IMAGE = picture(1, (64, 48))
NAMES = ["background", "shirt", "bag"]


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lena", "lead@clinical")


Add = Callable[..., DatasetVersion]


@pytest.fixture
def add(lead: Principal, department: Callable[[str], Department]) -> Add:
    """A version of a new dataset with these files and these lines of metadata."""

    def add(task: str, files: dict[str, bytes], lines: list[Any]) -> DatasetVersion:
        made = dataset_create(
            actor=lead,
            name=f"data-{Dataset.objects.count()}",
            department=department("clinical"),
            task=task,
            classification="internal",
            license="CC0-1.0",
        )
        metadata = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        content = archive({**files, "metadata.jsonl": metadata})
        return dataset_version_add(actor=lead, dataset=made, file=Upload("data.zip", content))

    return add


def boxed(*boxes: Any, categories: Any = None, **more: Any) -> dict[str, Any]:
    labels = ["shirt"] * len(boxes) if categories is None else categories
    return {"file_name": "a.png", "objects": {"bbox": list(boxes), "categories": labels, **more}}


def mask(values: Any = None, mode: str = "L", size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[10:20, 10:30] = 1 if values is None else values
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(bytes(range(256)) * 3)
    elif mode == "1":
        image = image.point(lambda value: 255 * value).convert("1")
    else:
        image = image.convert(mode)
    return saved(image, "PNG")


def masked(**changes: Any) -> dict[str, Any]:
    line = {"image_file_name": "a.png", "mask_file_name": "m.png", "categories": NAMES}
    return {**line, **changes}


def test_boxes_are_read_as_hugging_face_lays_them_out(add: Add) -> None:
    lines = [
        boxed([1, 2, 30, 40], [50.5, 0, 13.5, 48], categories=["shirt", "bag"]),
        {"file_name": "b.png", "objects": {"bbox": [], "categories": []}},
        {
            "file_name": "c.png",
            "objects": {"id": [7], "area": [4.0], "bbox": [[0, 0, 2, 2]], "category": [3]},
        },
    ]
    files = {"a.png": IMAGE, "b.png": picture(2), "c.png": picture(3)}
    version = add("object-detection", files, lines)
    rows = [json.loads(line) for line in stored_file(version.digest).open()]
    assert rows[0] == {
        "image": sha256(IMAGE),
        "objects": {"bbox": [[1, 2, 30, 40], [50.5, 0, 13.5, 48]], "categories": ["shirt", "bag"]},
    }
    assert rows[2]["objects"] == {"bbox": [[0, 0, 2, 2]], "categories": ["3"]}
    assert version.profile["objects_by_label"] == {"shirt": 1, "bag": 1, "3": 1}
    assert version.profile["objects_per_row"] == {"min": 0, "mean": 1.0, "max": 2}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (boxed([60, 0, 20, 5]), "bbox.0: the box .* reaches outside of its image of 64 × 48"),
        (boxed([0, 0, 5, 5], [-9, 0, 5, 5]), "bbox.1: the box"),
        (boxed([0, 0, 0, 5]), "bbox.0: .*greater than 0, and they are 0 and 5"),
        (boxed([0, 0, 5, -1]), "bbox.0: .*5 and -1"),
        (boxed([float("nan"), 0, 5, 5]), "bbox.0.0 must be a finite number"),
        (boxed([0, 0, float("inf"), 5]), "bbox.0.2"),
        (boxed([0, 0, 5]), "bbox.0 must have at least 4 entries"),
        (boxed(["0", 0, 5, 5]), "bbox.0.0 must be a number"),
        (boxed([0, 0, 5, 5], categories=[]), "1 boxes and 0 categories"),
        (boxed([0, 0, 5, 5], categories=[""]), "categories.0 is empty"),
        (boxed([0, 0, 5, 5], categories=[None]), "categories.0"),
        (boxed(*[[0, 0, 5, 5]] * 1001), "bbox must have at most 1,000 entries"),
        (boxed([0, 0, 5, 5], score=[1]), "objects.score is unknown"),
        ({"file_name": "a.png", "objects": [[0, 0, 5, 5]]}, "objects must be an object"),
        ({"file_name": "a.png", "objects": None}, "objects"),
        ({"file_name": "a.png"}, "no key 'objects'"),
    ],
)
def test_a_box_that_is_wrong_is_named_by_file_and_line(add: Add, line: Any, said: str) -> None:
    good = {**boxed([0, 0, 5, 5]), "file_name": "b.png"}
    with pytest.raises(InvalidInput, match=f"metadata.jsonl, line 2: .*{said}"):
        add("object-detection", {"a.png": IMAGE, "b.png": picture(2)}, [good, line])
    assert not DatasetVersion.objects.exists()


def test_a_row_of_100_000_boxes_is_refused_by_its_length(add: Add) -> None:
    with pytest.raises((TooLarge, InvalidInput), match=r"metadata\.jsonl, line 1"):
        add("object-detection", {"a.png": IMAGE}, [boxed(*[[0, 0, 5, 5]] * 100_000)])


def test_boxes_stand_on_the_upright_image(add: Add) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.new("RGB", (60, 20)), "JPEG", exif=exif)
    high = {"file_name": "a.jpg", "objects": {"bbox": [[0, 0, 20, 60]], "categories": ["x"]}}
    assert add("object-detection", {"a.jpg": turned}, [high]).rows == 1
    wide = {"file_name": "a.jpg", "objects": {"bbox": [[0, 0, 60, 20]], "categories": ["x"]}}
    with pytest.raises(InvalidInput, match="of 20 × 60"):
        add("object-detection", {"a.jpg": turned}, [wide])


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_masks_of_one_channel_are_read_and_counted(add: Add, mode: str) -> None:
    version = add("image-segmentation", {"a.png": IMAGE, "m.png": mask(mode=mode)}, [masked()])
    assert version.profile["rows_with_mask_of"] == {"background": 1, "shirt": 1}
    assert version.profile["categories_per_mask"] == {"min": 2, "mean": 2.0, "max": 2}
    assert "near_duplicates" not in version.profile["media"]["mask"]
    assert "near_duplicates" in version.profile["media"]["image"]


def test_pixels_of_no_category_are_allowed(add: Add) -> None:
    files = {"a.png": IMAGE, "m.png": mask(255)}
    version = add("image-segmentation", files, [masked()])
    assert version.profile["rows_with_mask_of"] == {"background": 1}


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (mask(size=(48, 64)), masked(), "mask: the mask has 48 × 64 pixels, its image 64 × 48"),
        (mask(mode="RGB"), masked(), "one channel of 8 bits"),
        (mask(mode="I;16"), masked(), "one channel of 8 bits"),
        (picture(5, form="JPEG"), masked(), "one channel of 8 bits"),
        (mask(7), masked(), "a pixel has the value 7, and there are 3 categories"),
        (mask(), masked(categories=["one"]), "a pixel has the value 1"),
        (mask(), masked(categories=[]), "categories is empty"),
        (mask(), masked(categories=["a", "a"]), "the category 'a' occurs twice"),
        (mask(), masked(categories="background"), "categories must be a list"),
        (mask(), masked(categories=["c"] * 256), "categories must have at most 255 entries"),
        (mask(), masked(mask_file_name="gone.png"), "there is no file 'gone.png'"),
    ],
)
def test_a_mask_that_is_wrong_is_named_by_file_and_line(
    add: Add, content: bytes, line: Any, said: str
) -> None:
    good = masked(image_file_name="b.png", mask_file_name="n.png")
    files = {"a.png": IMAGE, "m.png": content, "b.png": picture(2), "n.png": mask()}
    with pytest.raises(InvalidInput, match=f"metadata.jsonl, line 2: .*{said}"):
        add("image-segmentation", files, [good, line])
    assert not DatasetVersion.objects.exists()


def files_of(preview: Any) -> list[File]:
    return [each for row in preview.rows for cell in row for each in cell if type(each) is File]


def test_boxes_are_drawn_on_images_that_are_shown(add: Add, lead: Principal) -> None:
    line = boxed([1, 2, 30, 40], [50.5, 0, 13.5, 48], categories=["shirt", "bag"])
    version = add("object-detection", {"a.png": IMAGE}, [line])
    hidden = rows_preview(version)
    assert files_of(hidden)[0].overlay is None
    assert hidden.rows[0][1][0].text == "shirt × 1, bag × 1"  # type: ignore[union-attr]
    (file,) = files_of(dataset_unmask(actor=lead, id=version.pk))
    assert file.overlay is not None
    assert (file.overlay.width, file.overlay.height) == (64, 48)
    assert [(box.x, box.width, box.label, box.hue) for box in file.overlay.boxes] == [
        ("1", "30", "shirt", 1),
        ("50.5", "13.5", "bag", 0),
    ]
    assert [label.text for label in file.overlay.labels] == ["bag", "shirt"]


def test_masks_are_drawn_in_colors_over_their_images(add: Add, lead: Principal) -> None:
    content = mask(2)
    version = add("image-segmentation", {"a.png": IMAGE, "m.png": content}, [masked()])
    image, drawn = files_of(dataset_unmask(actor=lead, id=version.pk))
    assert image.overlay is not None
    assert drawn.overlay is not None
    assert (image.overlay.mask, image.overlay.is_mask) == (sha256(content), False)
    assert (drawn.overlay.mask, drawn.overlay.is_mask) == ("", True)
    assert [(label.text, label.hue) for label in image.overlay.labels] == [("bag", 1)]
    opened = dataset_media_open(
        actor=lead, id=version.pk, sha256=sha256(content), small=True, mask=True
    )
    assert opened.content_type == "image/png"
    with Image.open(BytesIO(opened.data)) as colors:
        shown = colors.convert("RGBA")
    assert shown.getpixel((0, 0))[3] == 0  # type: ignore[index]
    assert shown.getpixel((15, 15)) == (*bytes.fromhex(HUES[1]), 150)


@pytest.mark.parametrize("task", ["object-detection", "image-segmentation"])
def test_the_format_shows_a_metadata_file_in_json_lines(task: str) -> None:
    layout = archive_layout(get_task(task).row_kinds[0])
    listing, _, lines = layout.partition("\n\nmetadata.jsonl holds:\n")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 2
    named = {value for row in rows for name, value in row.items() if name.endswith("file_name")}
    assert named == set(listing.splitlines()) - {"metadata.jsonl"}
    assert next(field.name for field in row_fields(get_task(task).row_kinds[0])) == "image"
