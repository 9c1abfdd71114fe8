"""Archives and Parquet files of media become rows that name checked files by SHA-256."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from governance.errors import DomainError, InvalidInput, TooLarge
from registry.catalog.declaration import Task
from registry.datasets.parsing import ParsedDataset, parse_dataset, read_rows
from registry.media.limits import MediaLimits
from tests.unit.governance.zip_files import FORGED
from tests.unit.registry.media_files import (
    archive,
    not_a_number,
    parquet,
    picture,
    png_header,
    saved,
    sound,
    wav_header,
)
from tests.unit.registry.media_tasks import PAIRS, PICTURES, SPEECH
from tests.unit.registry.objects import sha256

pytestmark = pytest.mark.sweep

CAT, DOG = picture(1), picture(2, form="JPEG")
BIG = picture(3, (400, 300), "JPEG")
Parse = Callable[..., ParsedDataset]


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    """Parse an upload in a folder of its own."""

    def parse(
        content: bytes, task: Task = PICTURES, name: str = "data.zip", **options: Any
    ) -> ParsedDataset:
        shutil.rmtree(tmp_path / "unpacked", ignore_errors=True)
        (tmp_path / "upload").write_bytes(content)
        return parse_dataset(
            source=tmp_path / "upload",
            name=name,
            target=tmp_path / "data.jsonl",
            row_kind=task.row_kind(""),
            **{"columns": None, **options},
        )

    return parse


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return list(read_rows((tmp_path / "data.jsonl").open("rb")))


def test_folders_of_labels_become_rows(parse: Parse, tmp_path: Path) -> None:
    parsed = parse(archive({"dog/b.jpg": DOG, "cat/a.png": CAT}))
    assert rows(tmp_path) == [
        {"image": sha256(CAT), "label": "cat"},
        {"image": sha256(DOG), "label": "dog"},
    ]
    assert parsed.files is not None
    assert (parsed.files / sha256(CAT)).read_bytes() == CAT
    assert parsed.profile["labels"] == {"cat": 1, "dog": 1}
    assert "characters" not in parsed.profile
    assert parsed.profile["media"]["image"] == {
        "kind": "image",
        "rows": 2,
        "files": 2,
        "bytes": len(CAT) + len(DOG),
        "types": {"image/png": 1, "image/jpeg": 1},
        "width": {"min": 64, "mean": 64.0, "max": 64},
        "height": {"min": 48, "mean": 48.0, "max": 48},
        "histogram": {"from": 0.0031, "to": 0.0031, "counts": [2]},
        "near_duplicates": 0,
        "near_duplicates_complete": True,
    }


def test_a_folder_that_all_share_and_what_desktops_add_count_for_nothing(
    parse: Parse, tmp_path: Path
) -> None:
    plain = parse(archive({"cat/a.png": CAT})).digest
    files = {
        "train/": b"",
        "train/cat/": b"",
        "train/cat/a.png": CAT,
        "train/.DS_Store": b"x",
        "__MACOSX/train/cat/._a.png": b"x",
    }
    assert parse(archive(files)).digest == plain


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("metadata.csv", b"file_name,text,more\na.wav,Good morning,1\nsub/b.flac,Hello,2\n"),
        (
            "metadata.jsonl",
            b'{"file_name": "./a.wav", "text": "Good morning"}\n'
            b'{"file_name": "sub/b.flac", "text": "Hello"}\n',
        ),
        ("train/metadata.csv", b"file_name,text\na.wav,Good morning\nsub/b.flac,Hello\n"),
    ],
)
def test_a_metadata_file_names_the_files_of_its_rows(
    parse: Parse, tmp_path: Path, name: str, metadata: bytes
) -> None:
    base = name.removesuffix(Path(name).name)
    wav, flac = sound(0.5), sound(1.5, form="FLAC")
    files = {f"{base}sub/b.flac": flac, name: metadata, f"{base}a.wav": wav}
    parsed = parse(archive(files, zipfile.ZIP_DEFLATED), SPEECH)
    assert rows(tmp_path) == [
        {"audio": sha256(wav), "text": "Good morning", "language": None},
        {"audio": sha256(flac), "text": "Hello", "language": None},
    ]
    found = parsed.profile["media"]["audio"]
    assert found["seconds"] == {"min": 0.5, "mean": 1.0, "max": 1.5, "total": 2.0}
    assert found["sample_rates"] == {"16000": 2}
    assert sum(found["histogram"]["counts"]) == 2


def test_columns_may_have_other_names_and_several_files(parse: Parse, tmp_path: Path) -> None:
    lines = "\n".join(
        json.dumps({"left_file_name": left, "second": right})
        for left, right in (("a.png", "b.jpg"), ("b.jpg", "a.png"))
    )
    files = {"metadata.jsonl": lines.encode(), "a.png": CAT, "b.jpg": DOG}
    columns = {"left": "left_file_name", "right": "second"}
    parsed = parse(archive(files), PAIRS, columns=columns)
    assert rows(tmp_path)[1] == {"left": sha256(DOG), "right": sha256(CAT)}
    assert parsed.profile["media"]["right"]["files"] == 2


def test_the_same_bytes_are_kept_once_and_counted_as_duplicates(parse: Parse) -> None:
    parsed = parse(archive({"cat/a.png": CAT, "cat/b.png": CAT, "dog/c.png": CAT}))
    assert (parsed.rows, parsed.profile["duplicates"], len(parsed.media)) == (3, 2, 1)
    assert parsed.files is not None
    assert [path.name for path in parsed.files.iterdir()] == [sha256(CAT)]


def test_images_that_look_alike_are_counted(parse: Parse) -> None:
    with Image.open(BytesIO(CAT)) as image:
        smaller = saved(image.convert("RGB").resize((48, 36)), "JPEG", quality=60)
    files = {"cat/a.png": CAT, "cat/b.jpg": smaller, "dog/c.jpg": DOG}
    parsed = parse(archive(files))
    assert parsed.profile["duplicates"] == 0
    assert parsed.profile["media"]["image"]["near_duplicates"] == 1


def test_the_same_rows_have_the_same_digest_from_an_archive_and_from_parquet(
    parse: Parse, tmp_path: Path
) -> None:
    zipped = parse(archive({"cat/a.png": CAT, "dog/b.jpg": DOG}))
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    images = [{"bytes": CAT, "path": "a.png"}, {"bytes": DOG, "path": None}]
    content = parquet({"image": images, "label": [0, 1]}, {"huggingface": json.dumps(features)})
    packed = parse(content, name="rows.parquet")
    assert (packed.digest, packed.profile) == (zipped.digest, zipped.profile)
    assert packed.media == zipped.media


def test_parquet_holds_text_and_plain_binary_files_too(parse: Parse, tmp_path: Path) -> None:
    wav = sound()
    content = parquet({"sound": [wav], "text": ["Hello"], "more": [1.5]})
    parse(content, SPEECH, "rows.parquet", columns={"audio": "sound", "text": "text"})
    assert rows(tmp_path) == [{"audio": sha256(wav), "text": "Hello", "language": None}]


META = "metadata.csv"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"../a.png": CAT}, "entry '../a.png' has a path that leads elsewhere"),
        ({"cat/../../a.png": CAT}, "leads elsewhere"),
        ({"/etc/a.png": CAT}, "entry '/etc/a.png' has an absolute path"),
        ({"C:/a.png": CAT}, "has an absolute path"),
        ({"cat\\a.png": CAT}, "control character or a backslash"),
        ({"cat/a\n.png": CAT}, "control character"),
        ({"cat/" + "a" * 600: CAT}, "more than 500 bytes"),
        ({"a/b/c/d/e/f/g.png": CAT}, "more than 6 folders deep"),
        ({"cat/a.png": archive({"b.png": CAT})}, "entry 'cat/a.png' is an archive itself"),
        ({"cat/a.png": CAT, "cat/b.zip": archive({})}, "'cat/b.zip' is an archive itself"),
        ({"cat/a.png": CAT, "README.md": b"# Cats"}, "entry 'README.md' has another format"),
        ({"cat/a.png": sound()}, "entry 'cat/a.png' is audio/wav; a PNG"),
        ({"cat/a.jpg": BIG[: len(BIG) // 2]}, "'cat/a.jpg' is a truncated or damaged JPEG"),
        ({"cat/a.png": b""}, "'cat/a.png' is empty"),
        ({"cat/a.png": png_header(20_000, 20_000)}, "too many pixels"),
        ({"a.png": CAT}, "a.png: it is not in the folder of a label"),
        ({"x/cat/a.png": CAT, "cat/b.png": CAT}, "x/cat/a.png: it is not in the folder"),
        ({}, "The archive holds no file"),
        ({"cat/": b""}, "The archive holds no file"),
        ({META: b"file_name,label\na.png,cat\n"}, "metadata.csv, line 2: there is no file 'a.png'"),
        (
            {META: b"file_name,label\na.png,\n", "a.png": CAT},
            "metadata.csv, line 2: label is empty.",
        ),
        (
            {META: b"file,label\na.png,cat\n", "a.png": CAT},
            "line 1: there is no column 'file_name'",
        ),
        ({META: b"file_name,label\n\xff,cat\n"}, "is not UTF-8 text"),
        ({"metadata.jsonl": b"nonsense"}, "metadata.jsonl, line 1: it is not JSON"),
        ({"metadata.jsonl": b'{"file_name": 7, "label": "x"}'}, "there is no file '7'"),
        (
            {META: b"file_name,label\na.png,cat\n", "a.png": CAT, "b.png": DOG, "c.png": DOG},
            "entry 'b.png' and 1 more are not named in metadata.csv",
        ),
        ({META: b"", "x/metadata.jsonl": b""}, "two metadata files"),
        ({f"x/{META}": b"", "a.png": CAT}, "'a.png' lies outside 'x/'"),
        (
            {META: f"file_name,label\n{'0' * 64},cat\n".encode(), "a.png": CAT},
            f"there is no file '{'0' * 64}'",
        ),
    ],
)
def test_a_bad_archive_is_refused_with_the_entry_or_line(
    parse: Parse, files: dict[str, bytes], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(archive(files))
    assert sentence in refused.value.message
    assert refused.value.fields


def test_a_row_cannot_name_a_file_by_its_sha256_though_it_is_in_the_archive(parse: Parse) -> None:
    """Else a row could name the file of another department and show it."""
    line = json.dumps({"file_name": "a.png", "image": sha256(DOG), "label": "cat"})
    parsed = parse(archive({"metadata.jsonl": line.encode(), "a.png": CAT}))
    assert list(parsed.media) == [sha256(CAT)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (sound()[:1000], "'a.wav' is truncated"),
        (wav_header(10 * 3600), "'a.wav' lasts 10:00:00; at most 1,800 seconds"),
        (wav_header(0), "'a.wav' holds no sound"),
        (not_a_number(), "'a.wav' holds samples that are not numbers"),
        (CAT, "'a.wav' is image/png; a WAV"),
    ],
)
def test_a_bad_recording_is_refused(parse: Parse, content: bytes, sentence: str) -> None:
    files = {META: b"file_name,text\na.wav,Hello\n", "a.wav": content}
    with pytest.raises(InvalidInput) as refused:
        parse(archive(files), SPEECH)
    assert sentence in refused.value.message


def test_recordings_need_a_metadata_file(parse: Parse) -> None:
    with pytest.raises(InvalidInput, match="rows of test-speech need text"):
        parse(archive({"hello/a.wav": sound()}), SPEECH)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.png"])
def test_a_text_file_cannot_hold_rows_with_files(parse: Parse, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"name files \(image\)") as refused:
        parse(json.dumps({"image": sha256(CAT), "label": "x"}).encode(), name=name)
    assert refused.value.hint == "Send one of .parquet, .zip."


def special(mode: int = 0, method: int = zipfile.ZIP_STORED) -> bytes:
    output = BytesIO()
    with zipfile.ZipFile(output, "w") as target:
        entry = zipfile.ZipInfo("cat/a.png")
        entry.external_attr = mode << 16
        entry.compress_type = method
        target.writestr(entry, CAT)
    return output.getvalue()


def twice() -> bytes:
    output = BytesIO()
    with zipfile.ZipFile(output, "w") as target:
        target.writestr("cat/a.png", CAT)
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("cat/a.png", DOG)
    return output.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive({"cat/a.png": CAT}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[data.index(b"PK\x03\x04") + 6] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: special(stat.S_IFLNK | 0o777), "'cat/a.png' is a symbolic link"),
        (lambda: special(stat.S_IFIFO | 0o644), "neither a file nor a folder"),
        (lambda: special(method=zipfile.ZIP_LZMA), "by a method other than deflate"),
        (lambda: special(method=zipfile.ZIP_BZIP2), "by a method other than deflate"),
        (twice, "'cat/a.png' occurs twice"),
        (encrypted, "'cat/a.png' is encrypted"),
        (lambda: b"no archive", "not a zip archive"),
        (lambda: archive({"cat/a.png": CAT})[:-30], "not a zip archive"),
        (lambda: b"PK\x05\x06" + b"\xff" * 18, "cannot be read as a zip file"),
        (lambda: b"MZ" + archive({"cat/a.png": CAT}), "before its entries"),
        (FORGED["an entry between two"], "bytes after its entry 'README.txt'"),
        (lambda: archive({"a/x.png": CAT, "A/X.png": CAT}), "differ only in case"),
        (lambda: archive({"é/x.png": CAT, "e\u0301/x.png": CAT}), "differ only in case"),
        (lambda: archive({"a/x.png": CAT, "a": b""}), "is a file and a folder"),
        (
            lambda: archive({"cat/a.png": CAT}).replace(CAT[:40], b"\0" * 40),
            "not have the stated size and checksum",
        ),
    ],
)
def test_what_is_wrong_with_an_archive_itself_is_told(
    parse: Parse, content: Callable[[], bytes], sentence: str
) -> None:
    with pytest.raises(DomainError) as refused:
        parse(content())
    assert sentence in refused.value.message
    assert refused.value.status in {400, 413}


def test_a_zip_bomb_is_refused_by_its_ratio(parse: Parse) -> None:
    bomb = archive({"cat/a.png": b"\0" * 20_000_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidInput, match=r"'cat/a.png' would unpack to more than 200 times"):
        parse(bomb)


def test_a_bomb_that_lies_about_its_size_is_cut_off(parse: Parse) -> None:
    data = bytearray(archive({"cat/a.png": b"\0" * 20_000_000}, zipfile.ZIP_DEFLATED))
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = data.index(signature) + at
        data[start : start + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(InvalidInput, match=r"cat/a.png|zip file"):
        parse(bytes(data))


def test_what_is_unpacked_is_bounded_as_a_whole(parse: Parse) -> None:
    files = {f"cat/{number}.png": picture(number) for number in range(10)}
    with pytest.raises(TooLarge, match=r"entry 'cat/\d.png' unpacks to more than"):
        parse(archive(files), max_unpacked_bytes=30_000)


def test_limits_of_one_file_are_those_given(parse: Parse) -> None:
    with pytest.raises(TooLarge, match=r"more than the 100 bytes"):
        parse(archive({"cat/a.png": CAT}), limits=MediaLimits(bytes=100))
    with pytest.raises(InvalidInput, match="64 × 48 pixels; at most 10 pixels"):
        parse(archive({"dog/a.png": CAT}), limits=MediaLimits(pixels=10))


def end_record(entries: int) -> bytes:
    """The end of an archive that states so many entries, in 16 bits or in 64."""
    if entries < 0xFFFF:
        return b"PK\x05\x06" + b"\0" * 4 + entries.to_bytes(2, "little") * 2 + b"\0" * 10
    wide = b"PK\x06\x06" + (44).to_bytes(8, "little") + b"\0" * 12
    wide += entries.to_bytes(8, "little") * 2 + b"\0" * 16
    locator = b"PK\x06\x07" + b"\0" * 12 + (1).to_bytes(4, "little")
    return wide + locator + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"


def test_ten_million_entries_are_refused_before_they_are_read(parse: Parse) -> None:
    with pytest.raises(TooLarge, match="has 10,000,000 entries; at most 100,000"):
        parse(end_record(10_000_000))


def test_more_entries_than_stated_are_counted(parse: Parse) -> None:
    files = {f"cat/{number}": b"" for number in range(100_001)}
    data = bytearray(archive(files))
    at = data.rindex(b"PK\x05\x06")
    assert data[at + 8 : at + 12] == b"\xff" * 4
    wide = data.rindex(b"PK\x06\x06")
    data[wide + 24 : wide + 40] = (5).to_bytes(8, "little") * 2
    with pytest.raises(InvalidInput, match=r"contains more than|longer than its entries need"):
        parse(bytes(data))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": [CAT]}, "There is no column 'label'; there are image"),
        ({"image": ["x"], "label": ["a"]}, "'image' has the type string; files are expected"),
        ({"image": [{"path": "x"}], "label": ["a"]}, "files are expected"),
        ({"image": [None, CAT], "label": ["a", "b"]}, "Row 1: image holds no file"),
        (
            {"image": [{"bytes": None, "path": "/etc/passwd"}], "label": ["a"]},
            "Row 1: image holds no file",
        ),
        ({"image": [CAT, b"x"], "label": ["a", "b"]}, "Row 2: image has another format"),
        ({"image": [CAT, DOG], "label": ["a", None]}, "Row 2: it has no key 'label'"),
        ({"image": [CAT], "label": [1]}, "Row 1: label must be text."),
        ({"image": [CAT], "label": [b"a"]}, "'label' has the type binary, which is not supported"),
    ],
)
def test_a_bad_parquet_file_is_refused_by_row_or_column(
    parse: Parse, columns: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(parquet(columns), name="rows.parquet")
    assert sentence in refused.value.message


def test_two_parquet_columns_of_one_name_are_refused(parse: Parse) -> None:
    columns = [pa.array([CAT]), pa.array(["a"]), pa.array(["b"])]
    table = pa.table(columns, names=["image", "label", "label"])
    output = BytesIO()
    pq.write_table(table, output)
    with pytest.raises(InvalidInput, match="Two columns have the name 'label'"):
        parse(output.getvalue(), name="rows.parquet")


def test_a_damaged_parquet_file_is_refused(parse: Parse) -> None:
    good = parquet({"image": [CAT], "label": ["a"]})
    for bad in (b"", b"PAR1", good[:-20], good[:4] + b"\xff" * 50 + good[54:], b"PAR1" * 1000):
        with pytest.raises(InvalidInput):
            parse(bad, name="rows.parquet")


def test_a_parquet_bomb_is_cut_off(parse: Parse, tmp_path: Path) -> None:
    """One value, repeated: a few kilobytes that become gigabytes of rows."""
    content = parquet({"image": [CAT] * 20_000, "label": ["x" * 1_000] * 20_000})
    assert len(content) < 200_000
    with pytest.raises(TooLarge, match=r"Row [\d,]+: the rows so far have more than 1,000,000"):
        parse(content, name="rows.parquet", max_unpacked_bytes=1_000_000)
