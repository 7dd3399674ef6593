"""Listing real folders, lists and manifests, with everything that people have in them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import listing
from engine.errors import ConfigError, ImageError
from engine.images import read
from engine.listing import Entry, Listing, uri_of

NOT_UNICODE = os.fsdecode(b"caf\xe9.jpg")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def uris(*paths: str | Path) -> list[str]:
    return [entry.uri for entry in Listing(paths)]


def names(root: Path, entries: Iterable[str]) -> list[str]:
    return [uri.removeprefix(f"{root}/") for uri in entries]


# Folders


def test_a_folder_is_sorted_at_every_level(tmp_path: Path) -> None:
    expected = ["B.jpg", "a/2.jpg", "a/b/1.jpg", "a/b.jpg", "a.jpg", "b/10.jpg", "b/9.jpg", "z.jpg"]
    touch(tmp_path, *reversed(expected))
    assert names(tmp_path, uris(tmp_path)) == expected
    assert uris(tmp_path) == uris(str(tmp_path) + "/") == uris(tmp_path / "a" / "..")


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "set/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert uris("set") == uris("set/a.jpg") == uris("./set/../set") == [f"{tmp_path}/set/a.jpg"]


def test_listing_is_lazy_and_can_be_repeated(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "b/notes.txt")
    found = Listing([tmp_path])
    entries = iter(found)
    assert next(entries).uri == f"{tmp_path}/a/1.jpg"
    touch(tmp_path, "b/3.jpg")  # b has not been looked into
    assert [entry.uri for entry in entries] == [f"{tmp_path}/b/2.jpg", f"{tmp_path}/b/3.jpg"]
    assert len(list(found)) == 3 and found.skipped == {".txt": 1}


def test_images_by_name_or_content(tmp_path: Path) -> None:
    extensions = sorted(listing.IMAGE_EXTENSIONS)
    touch(tmp_path, *(f"{n}{extension}" for n, extension in enumerate(extensions)), "x.JPG", "y.TiFF")
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"by content {format_}", format_)
    Image.new("RGB", (8, 8)).save(tmp_path / "really.txt", "PNG")
    (tmp_path / "text").write_bytes(b"BMW, GIFs and RIFFs")
    found = Listing([tmp_path])
    assert len(list(found)) == len(extensions) + 2 + 7 + 1
    assert found.skipped == {"no extension": 1}


def test_what_is_skipped_is_counted_by_extension(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", *(f"{n}.json" for n in range(10)), "1.txt", "sub/2.TXT", "README", "2024.01 a long name")
    touch(tmp_path, "list.parquet", ".hidden.jpg", ".git/a.jpg", "__MACOSX/a.jpg", "sub/Thumbs.db", "sub/._a.jpg")
    touch(tmp_path, os.fsdecode(b"x.caf\xe9"))
    found = Listing([tmp_path])
    assert len(list(found)) == 1
    assert found.skipped == {".json": 10, ".txt": 2, ".parquet": 1, "no extension": 3}
    assert found.describe_skipped() == (
        "skipped 16 files that are not images by name or content (.json 10, no extension 3, .txt 2, .parquet 1)"
    )


def test_nothing_skipped_is_nothing_to_say(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    found = Listing([tmp_path])
    assert len(list(found)) == 1 and found.describe_skipped() == ""


def test_a_hidden_folder_that_was_asked_for_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.jpg")
    assert uris(tmp_path / ".cache") == [f"{tmp_path}/.cache/a.jpg"]


@pytest.mark.parametrize(
    "name", ["line\nbreak.jpg", " leading and trailing .jpg", "snow☃🎈.png", "a#1.jpg", "100%25.gif"]
)
def test_odd_names_come_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    (uri,) = uris(tmp_path)
    assert uri == f"{tmp_path}/{name}"
    assert read(uri, max_bytes=7) == b"content"


@pytest.mark.parametrize("name", [NOT_UNICODE, "x.parquet#3"])
def test_names_that_need_a_file_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    (uri,) = uris(tmp_path)
    assert uri == path.as_uri() and uri.isascii()
    assert read(uri, max_bytes=10_000) == path.read_bytes()


names_in_folders = st.lists(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(b"/\0") & set(name) and name[:1] != b"."),
    min_size=1,
    max_size=8,
    unique_by=lambda name: os.fsdecode(name).lower(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names_in_folders)
def test_any_name_can_be_listed_and_read(tmp_path_factory: pytest.TempPathFactory, stems: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("names")
    for stem in stems:
        (folder / os.fsdecode(stem + b".jpg")).write_bytes(stem)
    found = uris(folder)
    assert sorted(read(uri, max_bytes=12) for uri in found) == sorted(stems)
    for uri in found:
        uri.encode()


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "elsewhere/deep/2.jpg", "set/a.jpg")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/b.jpg").symlink_to(tmp_path / "set/a.jpg")
    (tmp_path / "set/dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set/circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "set/dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set/circle").symlink_to("circle")
    found = Listing([tmp_path / "set"])
    expected = ["a.jpg", "b.jpg", "circle.jpg", "dangling.jpg", "linked/1.jpg", "linked/deep/2.jpg"]
    assert names(tmp_path / "set", [entry.uri for entry in found]) == expected
    assert found.skipped == {"no extension": 2}
    for name in ("circle.jpg", "dangling.jpg"):
        with pytest.raises(ImageError) as error:
            read(f"{tmp_path}/set/{name}", max_bytes=1)
        assert error.value.kind == "missing"


def test_folders_that_link_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/to b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to a").symlink_to(tmp_path / "a")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path)
    found = Listing([tmp_path])
    assert names(tmp_path, [entry.uri for entry in found]) == ["a/1.jpg", "a/to b/2.jpg"]
    # Of "a/to b": "to a" and "up"; of the top: "b", by then listed as "a/to b", and "self".
    assert found.skipped == {"folder listed already": 4}
    assert found.describe_skipped() == "folder listed already 4"


def test_very_deep_folders(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python's recursion, within the length of a path
        os.mkdir("d", dir_fd=here)
        here = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here - 1) if False else None
        if here > 200:  # file descriptors are few
            os.dup2(here, 200)
            os.close(here)
            here = 200
    os.close(os.open("deep.jpg", os.O_CREAT, dir_fd=here))
    assert uris(tmp_path) == [f"{tmp_path}/{'d/' * 1500}deep.jpg"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.sock")
        found = Listing([tmp_path])
        assert names(tmp_path, [entry.uri for entry in found]) == ["a.jpg", "pipe.jpg"]
    assert found.skipped == {"no extension": 1, ".sock": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_without_permission(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "secret/b.jpg", "file")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "file").chmod(0)
    try:
        found = Listing([tmp_path])
        assert len(list(found)) == 1
        assert found.skipped == {"unreadable folder": 1, "no extension": 1}
        with pytest.raises(ConfigError, match="secret can't be read: Permission denied"):
            uris(tmp_path / "secret")
    finally:
        (tmp_path / "secret").chmod(0o700)


# What is given


def test_a_path_that_does_not_exist_stops(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "set/b.jpg")
    for paths in ([tmp_path / "sett"], [tmp_path / "a.jpg", tmp_path / "sett"], [tmp_path / "b.jpg"], [""]):
        with pytest.raises(ConfigError, match=re.escape(f"no such file or folder: {paths[-1]}")):
            Listing(paths)


def test_one_of_several_images_may_be_gone(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert names(tmp_path, uris(tmp_path / "a.jpg", tmp_path / "gone.jpg")) == ["a.jpg", "gone.jpg"]


def test_a_file_that_is_given_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md", "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, uris(tmp_path / "notes.md", tmp_path / "a", tmp_path / "dangling")) == [
        "notes.md",
        "a",
        "dangling",
    ]


def test_nothing_at_all_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no images in .*: no files seen; expected images by name \(\.apng .*\.webp\)"
    ):
        uris(tmp_path)
    touch(tmp_path, "1.json", "2.json", "a.parquet")
    with pytest.raises(
        ConfigError, match=r"no images in .*: skipped 3 files .*\(\.json 2, \.parquet 1\); expected .*manifest"
    ):
        uris(tmp_path)
    with pytest.raises(ConfigError, match="no images in no paths"):
        uris()


def test_what_is_listed_twice_comes_once(tmp_path: Path) -> None:
    touch(tmp_path, "set/a.jpg", "set/b.jpg")
    (tmp_path / "list.txt").write_text(f"set/b.jpg\nset/../set/a.jpg\n{(tmp_path / 'set/a.jpg').as_uri()}\nset/c.jpg\n")
    found = Listing([tmp_path / "set", tmp_path / "set/b.jpg", tmp_path / "list.txt"])
    assert names(tmp_path / "set", [entry.uri for entry in found]) == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.repeated == 4


# Lists


def test_lists(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfa.jpg",
        b"",
        b"   ",
        b"sub/b c.jpg\r",
        b" d.jpg ",
        b"/absolute/e.jpg",
        b"../f.jpg",
        b"file:///g%20h.jpg",
        b"caf\xe9.jpg",
        b"rows.parquet#3",
        b"file:///r.parquet#4",
        b"https://example.org/i.jpg",
        b"s3://bucket/r.parquet#5",
        "snow☃.jpg".encode(),
    ]
    (tmp_path / "list.TXT").write_bytes(b"\n".join(lines))
    assert uris(tmp_path / "list.TXT") == [
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/sub/b c.jpg",
        f"{tmp_path}/ d.jpg ",
        "/absolute/e.jpg",
        f"{tmp_path.parent}/f.jpg",
        "/g h.jpg",
        (tmp_path / NOT_UNICODE).as_uri(),
        f"{tmp_path}/rows.parquet#3",
        "/r.parquet#4",
        "https://example.org/i.jpg",
        "s3://bucket/r.parquet#5",
        f"{tmp_path}/snow☃.jpg",
    ]


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n", encoding="utf-16")
    with pytest.raises(
        ConfigError, match=r"list\.txt can't be read as a list of paths: line 1 has a zero byte; expected UTF-8"
    ):
        uris(tmp_path / "list.txt")


# Manifests


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "m.parquet", row_group_size: int = 3, statistics: bool = True, **columns: Any) -> Path:
        with open(tmp_path / name, "wb") as file:
            pq.write_table(pa.table(columns), file, row_group_size=row_group_size, write_statistics=statistics)
        return tmp_path / name

    return write


def test_a_manifest_of_uris(manifest: Callable[..., Path], tmp_path: Path) -> None:
    path = manifest(
        uri=["a.jpg", "/b.jpg", "file:///c%20d.jpg", None, "", "https://example.org/e.jpg"],
        dataset=["one", None, "two", None, None, None],
        licence=pa.array(["CC0", "CC0", None, None, None, None]).dictionary_encode(),
        labels=[["cat", "dog"], [], None, ["x", None], None, None],
        ignored=range(6),
    )
    assert list(Listing([path])) == [
        Entry(f"{tmp_path}/a.jpg", "one", "CC0", ("cat", "dog")),
        Entry("/b.jpg", None, "CC0"),
        Entry("/c d.jpg", "two"),
        Entry(f"{path}#3", labels=("x",)),
        Entry(f"{path}#4"),
        Entry("https://example.org/e.jpg"),
    ]


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_manifest_of_images(
    manifest: Callable[..., Path], tmp_path: Path, statistics: bool, kind: pa.DataType
) -> None:
    """Row groups of three: all images, some, none."""
    images = pa.array([b"0", b"1", b"2", b"3", None, b"5", None, None], kind)
    path = manifest(
        bytes=images, uri=[None, *(f"{n}.jpg" for n in range(1, 7)), None], statistics=statistics, labels=["cat"] * 8
    )
    rows = [f"{path}#{row}" for row in range(8)]
    expected = [*rows[:4], f"{tmp_path}/4.jpg", rows[5], f"{tmp_path}/6.jpg", rows[7]]
    assert list(Listing([path])) == [Entry(uri, labels=("cat",)) for uri in expected]
    assert [read(uri, max_bytes=1) for uri in expected if uri in rows[:6]] == [b"0", b"1", b"2", b"3", b"5"]


def test_a_manifest_of_images_and_nothing_else(manifest: Callable[..., Path]) -> None:
    path = manifest(bytes=[b"0", b"1", None, b"3"])
    assert uris(path) == [f"{path}#{row}" for row in range(4)]


@pytest.mark.parametrize("statistics", [True, False])
def test_hugging_face_images(manifest: Callable[..., Path], tmp_path: Path, statistics: bool) -> None:
    values = [{"bytes": b"0", "path": "0.jpg"}, {"bytes": None, "path": "1.jpg"}, None, {"bytes": b"3", "path": None}]
    path = manifest(image=values, dataset=["hf"] * 4, statistics=statistics)
    expected = [f"{path}#0", f"{tmp_path}/1.jpg", f"{path}#2", f"{path}#3"]
    assert list(Listing([path])) == [Entry(uri, "hf") for uri in expected]


def test_a_manifest_whose_images_are_all_null(manifest: Callable[..., Path], tmp_path: Path) -> None:
    assert uris(manifest(bytes=pa.nulls(2), uri=["a.jpg", "b.jpg"])) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


def test_a_manifest_of_an_odd_name(manifest: Callable[..., Path]) -> None:
    path = manifest(os.fsdecode(b"caf\xe9.PARQUET"), bytes=[b"0", b"1"])
    assert uris(path) == [f"{path.as_uri()}#0", f"{path.as_uri()}#1"]
    assert [read(uri, max_bytes=1) for uri in uris(path)] == [b"0", b"1"]


def test_the_images_of_a_manifest_are_not_read(manifest: Callable[..., Path]) -> None:
    """Overwritten with noise, they are listed all the same."""
    path = manifest(bytes=[bytes(100_000), os.urandom(100_000)])
    data = bytearray(path.read_bytes())
    data[4:90_000] = os.urandom(90_000 - 4)
    path.write_bytes(data)
    assert uris(path) == [f"{path}#0", f"{path}#1"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": ["a"], "n": [1]}, ["no manifest", "`uri` (string)", "`bytes` (binary)", "path: string, n: int64"]),
        ({"image": ["a"]}, ["no manifest", "image: string"]),
        ({"uri": [1]}, ["column `uri` must be string, not int64"]),
        ({"bytes": ["a"]}, ["column `bytes` must be binary, not string"]),
        ({"image": [{"bytes": "a", "path": "b"}]}, ["column `image.bytes` must be binary, not string"]),
        ({"image": [{"bytes": b"a", "path": 1}]}, ["column `image.path` must be string, not int64"]),
        ({"uri": ["a"], "licence": [1.5]}, ["column `licence` must be string, not double"]),
        ({"uri": ["a"], "dataset": [True]}, ["column `dataset` must be string, not bool"]),
        ({"uri": ["a"], "labels": [[1]]}, ["column `labels` must be string or list of strings, not list<"]),
    ],
)
def test_a_manifest_with_wrong_columns(
    manifest: Callable[..., Path], columns: dict[str, Any], words: list[str]
) -> None:
    path = manifest(**columns)
    with pytest.raises(ConfigError) as error:
        uris(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_manifest_that_is_broken(manifest: Callable[..., Path], tmp_path: Path) -> None:
    whole = manifest(uri=[f"{n}.jpg" for n in range(1000)], row_group_size=1000).read_bytes()
    damaged = whole[:4] + os.urandom(2000) + whole[2004:]
    for data in (b"", b"not parquet at all", whole[:-1], whole[: len(whole) // 2], damaged):
        (tmp_path / "broken.parquet").write_bytes(data)
        with pytest.raises(ConfigError, match=r"broken\.parquet can't be read as a Parquet manifest: "):
            uris(tmp_path / "broken.parquet")


def test_a_row_group_too_large_to_be_read_at_once(
    manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest(bytes=[os.urandom(10_000) for _ in range(6)])
    monkeypatch.setattr(listing, "ROW_GROUP_BYTES", 29_000)
    with pytest.raises(ConfigError, match=r"m\.parquet .*row group 0 holds 30,\d\d\d bytes .*row_group_size=256"):
        uris(path)


def test_an_empty_manifest(manifest: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no images in"):
        uris(manifest(uri=pa.array([], pa.string())))


# URIs


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_uris_of_valid_paths_are_the_paths(name: str) -> None:
    path = os.path.abspath(f"/{name}")
    assert uri_of(path) == path or (re.search(r"\.parquet#\d+$", path, re.I) and uri_of(path) == Path(path).as_uri())
