"""WebDataset: what is in a tar is read where it lies; where one breaks off, what came before is kept."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from engine.config import Ingest
from engine.errors import ConfigError, ImageError
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.reading import read
from engine.records import Item
from engine.storage import read_given, read_items

Members = list[tuple[str, bytes]]
MOST = 10**8


def picture(n: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8 + n, 9), (n, 2 * n, 3 * n)).save(data, "PNG")
    return data.getvalue()


def tar(path: Path, members: Members, format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


SAMPLES: Members = [
    ("0001.png", picture(1)),
    ("0001.txt", b"A red square."),
    ("0001.cls", b"7\n"),
    ("0002.png", picture(2)),
    ("0002.json", json.dumps({"caption": "A blue square.", "license": "CC-BY", "label": ["a", 3]}).encode()),
    ("in/deep.er/0003.seg.png", picture(3)),
    ("in/deep.er/0003.txt", "Ein Bär".encode()),
]


def ingested(
    path: Path, out: Path, **options: object
) -> tuple[list[Item], list[list[tuple[str, str]]], dict[str, object]]:
    """Items, the given texts of each with their sources, and the manifest."""
    output = Output(out)
    manifest = ingest(output, Ingest(images=(str(path),), **options), "digest", lambda n: None)  # type: ignore[arg-type]
    items, texts = [], []
    for shard in output.shards():
        items += read_items(output, shard)
        texts += [[(t.source, t.text) for t in record.texts] for record in read_given(output, shard)]
    return items, texts, manifest


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_with_texts_labels_and_licences(tmp_path: Path, format: int) -> None:
    path = tar(tmp_path / "set 1.tar", SAMPLES, format)
    items, texts, manifest = ingested(path, tmp_path / "out")
    assert [item.uri for item in items] == [
        f"{path}#{name}" for name in ("0001.png", "0002.png", "in/deep.er/0003.seg.png")
    ]
    assert [(item.width, item.height) for item in items] == [(9, 9), (10, 9), (11, 9)]
    assert [item.labels for item in items] == [("7",), ("a", "3"), ()]
    assert [item.licence for item in items] == [None, "CC-BY", None]
    assert {item.dataset for item in items} == {"set 1"}
    assert texts == [[("alt", "A red square.")], [("alt", "A blue square.")], [("alt", "Ein Bär")]]
    assert manifest["given"] == {"alt texts": 3}
    assert manifest["faults"] == {}


def test_members_are_read_by_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES)
    for name, data in SAMPLES:
        assert read(f"{path}#{name}", max_bytes=MOST) == data
        assert read(f"{path.as_uri()}#{name}", max_bytes=MOST) == data
    for name, kind, most in [("0009.png", "missing", MOST), ("0001.png", "too_large", 10)]:
        with pytest.raises(ImageError) as error:
            read(f"{path}#{name}", max_bytes=most)
        assert error.value.kind == kind


@pytest.mark.parametrize(
    "name",
    ["a#b.png", "x.tar#y.png", "../../etc/0.png", "/abs/0.png", "p.parquet#3.png", "n\udcff.png", "日本.png", " .png"],
)
def test_odd_names_are_found_again_and_lead_nowhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "odd.tar#dir"
    folder.mkdir()
    items, _, _ = ingested(tar(folder / "a.tar", [(name, picture(4))], tarfile.PAX_FORMAT), tmp_path / "out")
    assert [(item.width, item.error) for item in items] == [(12, None)]
    assert read(items[0].uri, max_bytes=MOST) == picture(4)


def test_faults_of_samples(tmp_path: Path) -> None:
    members: Members = [
        ("1.txt", b"no image"),
        ("2.png", picture(1)),
        ("2.jpg", picture(2)),
        ("2.json", b"[[[[ not json"),
        ("2.png", picture(5)),
        ("3.bin", picture(3)),  # an image by content
        ("4.png", b"<html>not found</html>"),
        ("4.json", json.dumps({"caption": {"deep": ["x"]}, "label": None}).encode()),
        ("5.png", picture(4)),
        ("5.txt", b"\xff\xfe\x00 bytes"),
    ]
    items, texts, manifest = ingested(tar(tmp_path / "a.tar", members), tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == ["2.png", "2.jpg", "3.bin", "4.png", "5.png"]
    assert [item.width for item in items] == [9, 10, 11, None, 12]
    assert items[3].error is not None
    assert manifest["faults"] == {"bad_json": 1, "bad_text": 1, "no_image": 1, "repeated_name": 1}
    assert manifest["first_faults"][0]["where"] == "2.png in a.tar"  # type: ignore[index]
    assert texts[4] == [("alt", "\ufffd\ufffd\x00 bytes")]


def test_hidden_files_and_endless_texts_are_left_out(tmp_path: Path) -> None:
    members: Members = [("._1.png", b"resource fork"), ("1.png", picture(1)), ("1.txt", b"x" * (1 << 20) + b"x")]
    items, texts, manifest = ingested(tar(tmp_path / "a.tar", members), tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == ["1.png"]
    assert texts == [[]]
    assert manifest["faults"] == {"too_large": 1}


@pytest.mark.parametrize("size", [10**9, -1])
def test_a_header_that_lies_about_its_size(tmp_path: Path, size: int) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES[:1])
    data = path.read_bytes().rstrip(b"\0")
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = (tarfile.XHDTYPE, size) if size > 0 else (tarfile.REGTYPE, 0)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:  # GNU's base 256, where the highest bits are a sign
        header[124:136] = b"\xff" * 12
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    start = -(-len(data) // 512) * 512
    path.write_bytes(data.ljust(start, b"\0") + header + bytes(1024))
    items, _, _ = ingested(path, tmp_path / "out")
    assert [(item.uri.rpartition("#")[2], item.error is None) for item in items] == [("0001.png", True), ("", False)]


def test_links_and_folders(tmp_path: Path) -> None:
    """A hard link is a second name of a file in the tar; what leads elsewhere is none."""
    path = tmp_path / "a.tar"
    kinds = [
        ("0.png", tarfile.SYMTYPE),
        ("1.png", tarfile.LNKTYPE),
        ("2.png", tarfile.DIRTYPE),
        ("3.png", tarfile.FIFOTYPE),
    ]
    with tarfile.open(path, "w") as archive:
        for name, kind in kinds:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("4.png")
        info.size = len(picture(1))
        archive.addfile(info, io.BytesIO(picture(1)))
        info = tarfile.TarInfo("5.png")
        info.type, info.linkname = tarfile.LNKTYPE, "4.png"
        archive.addfile(info)
    items, _, manifest = ingested(path, tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == ["4.png", "5.png"]
    assert items[0].content_id == items[1].content_id
    assert manifest["faults"] == {"not_a_file": 3}


def test_joined_tars_say_that_more_follows(tmp_path: Path) -> None:
    one, other = tar(tmp_path / "a.tar", SAMPLES[:1]), tar(tmp_path / "b.tar", SAMPLES[3:4])
    one.write_bytes(one.read_bytes() + other.read_bytes())
    items, _, _ = ingested(one, tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == ["0001.png", ""]
    assert items[1].error is not None and "more follows behind its end" in items[1].error.message


@pytest.mark.parametrize("name", ["0001.txt", "0001.cls", "0001.json"])
def test_half_of_a_text_is_no_text(tmp_path: Path, name: str) -> None:
    path = tar(tmp_path / "a.tar", [("0001.png", picture(1)), (name, b'{"caption": "' + b"1" * 700 + b'"}')])
    path.write_bytes(path.read_bytes()[: end_of(path, name)[0] + 600])
    items, texts, manifest = ingested(path, tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == ["0001.png", ""]
    assert texts == [[], []] and items[0].labels == ()
    assert manifest["faults"] == {"truncated": 1}


def end_of(path: Path, name: str) -> tuple[int, int]:
    with tarfile.open(path) as archive:
        info = archive.getmember(name)
        return info.offset_data, info.size


@pytest.mark.parametrize(
    ("cut", "left", "broken"),
    [
        (
            lambda start, size: start + size // 2,
            ["0001.png", "0002.png", "in/deep.er/0003.seg.png"],
            {"in/deep.er/0003.seg.png", ""},
        ),
        (lambda start, size: start - 300, ["0001.png", "0002.png"], {""}),  # in the middle of a header
        (lambda start, size: start - 512, ["0001.png", "0002.png"], {""}),  # between two members
    ],
)
def test_a_tar_that_is_cut_off(
    tmp_path: Path, cut: Callable[[int, int], int], left: list[str], broken: set[str]
) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES)
    data = path.read_bytes()
    path.write_bytes(data[: cut(*end_of(path, "in/deep.er/0003.seg.png"))])
    items, texts, manifest = ingested(path, tmp_path / "out")
    assert [item.uri.rpartition("#")[2] for item in items] == [*left, ""]
    errors = {item.uri.rpartition("#")[2]: item.error.kind for item in items if item.error}
    assert errors == dict.fromkeys(broken, "truncated")
    assert texts[:2] == [[("alt", "A red square.")], [("alt", "A blue square.")]]
    assert manifest["errors"] == {"truncated": len(broken)}


def test_a_header_that_is_broken_in_the_middle(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES)
    data = bytearray(path.read_bytes())
    start, _ = end_of(path, "in/deep.er/0003.seg.png")
    data[start - 512 : start - 400] = b"\xab" * 112
    path.write_bytes(data)
    items, _, _ = ingested(path, tmp_path / "out")
    assert [(item.uri.rpartition("#")[2], item.error is None) for item in items] == [
        ("0001.png", True),
        ("0002.png", True),
        ("", False),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar", b"", "is empty"),
        ("a.tar", b"\x1f\x8b" + bytes(600), r"compressed \(gzip\)"),
        ("a.tar.gz", b"\x1f\x8b" + bytes(600), r"compressed \(gzip\)"),
        ("a.tar", b"<html>" + b"x" * 2000, "can't be read as a tar"),
        ("a.tar", bytes(10240), "no images in"),
    ],
)
def test_what_is_no_tar(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        list(Listing([tmp_path / name]))


def test_ingested_again_the_files_are_the_same(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES)
    ingested(path, tmp_path / "out")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (tmp_path / "out").rglob("*.parquet")}
    Output(tmp_path / "out").manifest.unlink()
    ingested(path, tmp_path / "out")
    assert before == {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (tmp_path / "out").rglob("*.parquet")
    }
    tar(path, [*SAMPLES[:1], ("0001.txt", b"Another text."), *SAMPLES[2:]])
    Output(tmp_path / "out").manifest.unlink()
    assert ingested(path, tmp_path / "out")[1][0] == [("alt", "Another text.")]


def test_what_the_webdataset_package_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for n in range(3):
            sink.write({"__key__": f"s{n}", "png": picture(n), "txt": f"Number {n}.", "cls": n})
    items, texts, _ = ingested(tmp_path / "a.tar", tmp_path / "out")
    assert [item.labels for item in items] == [("0",), ("1",), ("2",)]
    assert texts == [[("alt", f"Number {n}.")] for n in range(3)]
