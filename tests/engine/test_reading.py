"""Reading local files and rows of Parquet files, present, absent and odd."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from engine.manifest import _row_group
from engine.reading import read
from engine.records import Item
from engine.uris import download_of

MAX = 1_000_000


@pytest.mark.parametrize(
    "name", ["a b.jpg", "line\nbreak.jpg", "snow☃🎈.png", "x#1.jpg", "100%25.png", "file:", "a.parquet"]
)
def test_read_local_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"content")
    assert read(str(path), max_bytes=7) == b"content"
    assert read(path.as_uri(), max_bytes=7) == b"content"
    assert read(path.as_uri().replace("file://", "file://localhost"), max_bytes=7) == b"content"


def test_read_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"content")
    assert path.as_uri().isascii()
    assert read(path.as_uri(), max_bytes=7) == b"content"


def test_read_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    (tmp_path / "file").write_bytes(b"")
    for name in ("none.jpg", "dangling.jpg", "circle.jpg", "file/none.jpg", "zero\0byte.jpg", "none.parquet#1"):
        with refused("missing", name.partition("#")[0].replace("\0", r"\x00")):
            read(f"{tmp_path}/{name}", max_bytes=MAX)


def test_read_never_opens_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # socket paths are short
        server.bind("socket.jpg")
        found = {"pipe.jpg": "named pipe", "folder.jpg": "folder", "socket.jpg": "socket"}
        for name, word in found.items():
            with refused("unreadable", word, name):
                read(f"{tmp_path}/{name}", max_bytes=MAX)
    with refused("unreadable", "device"):
        read("/dev/zero", max_bytes=MAX)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"content")
    path.chmod(0)
    with refused("unreadable", "Permission denied", "secret.jpg"):
        read(str(path), max_bytes=MAX)


def test_read_other_schemes_and_long_names(tmp_path: Path) -> None:
    for uri in ("ftp://example.org/a.jpg", "sftp://host/a.parquet#3", f"file://host{tmp_path}/a.jpg"):
        with refused("unreadable", uri.partition("#")[0], "local files"):
            read(uri, max_bytes=MAX)
    with refused("unreadable", "File name too long"):
        read(f"{tmp_path}/{'x' * 300}.jpg", max_bytes=MAX)


def test_read_at_most_max_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(101))
    assert len(read(str(path), max_bytes=101)) == 101
    with refused("too_large", "101 bytes", "ingest.max_bytes = 100"):
        read(str(path), max_bytes=100)


# Downloads


@pytest.mark.parametrize("uri", ["https://example.org/a.jpg", "HTTP://example.org/x.parquet#3", "http://"])
def test_read_what_was_downloaded(tmp_path: Path, uri: str) -> None:
    path = download_of(tmp_path, uri)
    assert path.relative_to(tmp_path).as_posix() == f"{path.name[:2]}/{Item.id_of(uri).hex()}"
    with refused("missing", uri, str(path), "run again"):
        read(uri, max_bytes=MAX, downloads=tmp_path)
    with refused("missing", uri, "downloads/"):
        read(uri, max_bytes=MAX)
    path.parent.mkdir()
    path.write_bytes(b"content")
    assert read(uri, max_bytes=7, downloads=tmp_path) == b"content"
    with refused("too_large", "7 bytes"):
        read(uri, max_bytes=6, downloads=tmp_path)


# Rows of Parquet files


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., str]:
    def write(values: list[Any], name: str = "images.parquet", column: str = "bytes", **options: Any) -> str:
        with open(tmp_path / name, "wb") as file:
            pq.write_table(pa.table({"number": range(len(values)), column: values}), file, **options)
        return str(tmp_path / name)

    return write


def test_read_rows(manifest: Callable[..., str]) -> None:
    path = manifest([b"0", None, b"22", b"333", b"4444"], row_group_size=2)
    assert [read(f"{path}#{row}", max_bytes=4) for row in (4, 0, 2, 3)] == [b"4444", b"0", b"22", b"333"]
    assert read(f"{Path(path).as_uri()}#3", max_bytes=4) == b"333"
    with refused("missing", "row 1 ", "neither bytes nor a uri"):
        read(f"{path}#1", max_bytes=4)
    with refused("missing", "no row 5", "5 rows"):
        read(f"{path}#5", max_bytes=4)
    with refused("too_large", "4 bytes"):
        read(f"{path}#4", max_bytes=3)


def test_read_rows_of_hugging_face_images(manifest: Callable[..., str]) -> None:
    path = manifest([{"bytes": b"0", "path": "0.jpg"}, None, {"bytes": None, "path": "2.jpg"}], column="image")
    assert read(f"{path}#0", max_bytes=4) == b"0"
    for row in (1, 2):
        with refused("missing", f"row {row} "):
            read(f"{path}#{row}", max_bytes=4)


def test_read_rows_of_an_odd_name(manifest: Callable[..., str]) -> None:
    assert read(manifest([b"a"], "x#1.parquet#2.PARQUET") + "#0", max_bytes=1) == b"a"
    odd = Path(manifest([b"b"], os.fsdecode(b"caf\xe9.parquet"))).as_uri()
    assert read(f"{odd}#0", max_bytes=1) == b"b"


def test_read_rows_of_what_is_no_manifest(manifest: Callable[..., str], tmp_path: Path) -> None:
    with refused("missing", "neither bytes nor a uri"):
        read(manifest([b"a"], column="other") + "#0", max_bytes=MAX)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with refused("unreadable", "broken.parquet", "Parquet"):
        read(f"{tmp_path}/broken.parquet#0", max_bytes=MAX)
    (tmp_path / "folder.parquet").mkdir()
    with refused("unreadable", "a folder"):
        read(f"{tmp_path}/folder.parquet#0", max_bytes=MAX)


def test_a_row_group_is_read_once(manifest: Callable[..., str]) -> None:
    path = manifest([bytes([row]) for row in range(200)], row_group_size=50)
    order = [row ^ 3 for row in range(200)]  # not quite in order, as by several threads
    before = _row_group.cache_info().misses
    assert [read(f"{path}#{row}", max_bytes=1)[0] for row in order] == order
    assert _row_group.cache_info().misses - before == 4


def test_rows_from_many_threads(manifest: Callable[..., str]) -> None:
    path = manifest([bytes([row]) for row in range(200)], row_group_size=10)
    with ThreadPoolExecutor(8) as pool:
        rows = pool.map(lambda row: read(f"{path}#{row}", max_bytes=1)[0], range(200))
        assert list(rows) == list(range(200))


def test_a_manifest_that_was_written_again_is_read_again(manifest: Callable[..., str]) -> None:
    path = manifest([b"old"])
    os.utime(path, ns=(1, 1))
    assert read(f"{path}#0", max_bytes=3) == b"old"
    assert read(manifest([b"new"]) + "#0", max_bytes=3) == b"new"
