"""Listing Parquet manifests, with every kind of column that people write."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.entry import Entry
from engine.errors import ConfigError
from engine.listing import Listing
from engine.reading import read

NOT_UNICODE = os.fsdecode(b"caf\xe9.jpg")
NOISE = random.Random(0)


def uris(*paths: str | Path) -> list[str]:
    return [entry.uri for entry in Listing(paths)]


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
    path = manifest(bytes=[bytes(100_000), NOISE.randbytes(100_000)])
    data = bytearray(path.read_bytes())
    data[4:90_000] = NOISE.randbytes(90_000 - 4)
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


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a.jpg"]), pa.array(["b.jpg"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match=r"m\.parquet has more than one column called uri"):
        uris(tmp_path / "m.parquet")


def test_a_manifest_that_is_broken(manifest: Callable[..., Path], tmp_path: Path) -> None:
    whole = manifest(uri=[f"{n}.jpg" for n in range(1000)], row_group_size=1000).read_bytes()
    damaged = whole[:4] + NOISE.randbytes(2000) + whole[2004:]
    for data in (b"", b"not parquet at all", whole[:-1], whole[: len(whole) // 2], damaged):
        (tmp_path / "broken.parquet").write_bytes(data)
        with pytest.raises(ConfigError, match=r"broken\.parquet can't be read as a Parquet manifest: "):
            uris(tmp_path / "broken.parquet")


def test_a_row_group_too_large_to_be_read_at_once(
    manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest(bytes=[NOISE.randbytes(10_000) for _ in range(6)])
    monkeypatch.setattr("engine.manifest.ROW_GROUP_BYTES", 29_000)
    with pytest.raises(ConfigError, match=r"m\.parquet .*row group 0 holds 30,\d\d\d bytes .*row_group_size=256"):
        uris(path)


def test_an_empty_manifest(manifest: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no images in"):
        uris(manifest(uri=pa.array([], pa.string())))
