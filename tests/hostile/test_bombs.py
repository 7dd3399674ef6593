"""Few bytes that stand for many: turned down before memory is taken, or taken one at a time."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from limits import deadline, memory_of
from PIL import Image

from engine.config import Ingest
from engine.entry import GivenText, GivenTriplet
from engine.errors import ConfigError, ImageError
from engine.given import take
from engine.images import PNG_SIGNATURE, decode, probe
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.records import Item
from engine.segmentation import Unusable, run_lengths

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
MANY = 2000
LONG = 1_000_000
ZEROS = zlib.compress(bytes(200_000_000), 9)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(min((3 * width + 1) * height, 10_000))))
    return b"".join([PNG_SIGNATURE, head, *more, pixels, chunk(b"IEND", b"")])


def gif(side: int) -> bytes:
    size = struct.pack("<HH", side, side)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + size + b"\0\2\2L\1\0;"


def tiff(side: int) -> bytes:
    values = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: side}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + tags + bytes(100)


def still(format_: str, frames: int = 1) -> bytes:
    file = BytesIO()
    images = [Image.new("RGB", (1000, 1000), (n, 0, 0)) for n in range(frames)]
    images[0].save(file, format_, save_all=True, append_images=images[1:])
    return file.getvalue()


BOMBS = {
    "a PNG of 900 million pixels": png(30_000, 30_000),
    "a PNG of 2^62 pixels": png(2**31 - 1, 2**31 - 1),
    "a PNG whose profile has 200 MB": png(10, 10, chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "a PNG with a text of 200 MB": png(10, 10, chunk(b"zTXt", b"x\0\0" + ZEROS)),
    "a PNG with 20 such texts": png(10, 10, *[chunk(b"zTXt", b"x\0\0" + ZEROS)] * 20),
    "a PNG with such a text in Unicode": png(10, 10, chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
    "a GIF of 4 billion pixels": gif(65_535),
    "a GIF of 81 million pixels, without any": gif(9_000),
    "a GIF of 60 frames": still("GIF", 60),
    "a PNG of 60 frames": still("PNG", 60),
    "a WebP of 60 frames": still("WEBP", 60),
    "a WebP of 2^48 pixels": b"RIFF\x1e\0\0\0WEBPVP8X\n\0\0\0\2\0\0\0" + b"\xff" * 6,
    "a JPEG of 4 billion pixels": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\3\1\x22\0\2\x11\1\3\x11\1" + bytes(99),
    "a TIFF of 10 billion pixels": tiff(100_000),
    "a TIFF of 81 million pixels, without any": tiff(9_000),
    "a BMP of 2^62 pixels": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 2**31 - 1, 2**31 - 1, 1, 24) + bytes(24),
}


def looked_at(data: bytes) -> None:
    for look in (probe, decode):
        try:
            look(data, max_pixels=100_000_000)
        except ImageError as error:
            assert len(str(error)) < 2000


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_takes_no_memory_for_what_is_not_there(name: str) -> None:
    data = BOMBS[name]
    megabytes, told = memory_of(looked_at, data)
    assert told == "done"
    assert megabytes < 60 + 3 * len(data) / 2**20, name


def said_often(path: Path, name: str, value: Any, **others: Any) -> Path:
    """A Parquet file in which a column has the same value in each of MANY rows, and stores it once."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(MANY, np.int32)), pa.array([value]))
    pq.write_table(pa.table({name: column, **others}), path, store_schema=False)
    assert path.stat().st_size < 400_000
    return path


def test_an_image_that_a_manifest_has_two_thousand_times_is_in_memory_once(tmp_path: Path) -> None:
    path = said_often(tmp_path / "m.parquet", "bytes", b"\x89PNG" + os.urandom(100) * (LONG // 100))

    def take() -> None:
        (tmp_path / "out").mkdir()
        summary = ingest(Output(tmp_path / "out"), Ingest(images=(str(path),)), "d", lambda done: None)
        assert (summary["items"], summary["errors"]) == (MANY, {"not_an_image": MANY})

    megabytes, told = memory_of(take)
    assert told == "done"
    assert megabytes < 250  # spelt out it is 2000


def test_a_text_that_a_manifest_has_two_thousand_times_is_spelt_out_with_its_image(tmp_path: Path) -> None:
    names = pa.array([f"{n}.png" for n in range(MANY)])
    path = said_often(tmp_path / "m.parquet", "caption", "x" * LONG, uri=names)

    def take() -> None:
        entries = list(Listing([path]))
        assert len(entries) == MANY
        for entry in entries[::100]:
            (text,) = entry.given()
            assert len(text.text) == LONG  # type: ignore[union-attr, arg-type]

    megabytes, told = memory_of(take)
    assert told == "done"
    assert megabytes < 250


@pytest.mark.parametrize("column", ["uri", "url", "labels"])
def test_names_that_come_to_gigabytes_are_turned_down(tmp_path: Path, column: str) -> None:
    others = {"uri": pa.array([f"{n}.png" for n in range(MANY)])} if column == "labels" else {}
    path = said_often(tmp_path / "m.parquet", column, "x" * LONG, **others)
    megabytes, told = memory_of(lambda: list(Listing([path])))
    assert "ConfigError" in told
    assert f"{path} can't be read" in told
    assert "rows come to 2,000,0" in told
    assert megabytes < 200


def test_a_table_of_an_export_that_comes_to_gigabytes_is_turned_down(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "export.json").write_text('{"format": "parquet"}')
    ids = pa.array([f"{n}" for n in range(MANY)])
    said_often(tmp_path / "images/train/part-00000.parquet", "uri", "x" * LONG, item_id=ids)
    megabytes, told = memory_of(lambda: list(Listing([tmp_path])))
    assert "ConfigError" in told
    assert "rows come to 2,000,0" in told
    assert megabytes < 200


SQUARE = (1000, 1000)
MASKS: dict[str, Any] = {
    "run lengths for a giant": {"size": [2**31, 2**31], "counts": [2**62]},
    "run lengths that are negative": {"size": [1000, 1000], "counts": [-(10**6), 2 * 10**6]},
    "run lengths of 10^30": {"size": [1000, 1000], "counts": [10**30]},
    "a string of run lengths for a giant": {"size": [1000, 1000], "counts": "oooo" * 100_000},
    "an outline as long as the light's way": [[0, 0, 1e300, 0, 1e300, 1e300]],
    "an outline of a million points": [[float(n * 7 % 999) for n in range(2_000_000)]],
    "a hundred thousand rings": [[0, 0, 999, 0, 999, 999]] * 100_000,
    "no numbers": [[float("nan")] * 8, [float("inf")] * 8],
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_takes_no_more_than_its_image(name: str) -> None:
    def take() -> None:
        with suppress(Unusable):
            assert len(run_lengths(MASKS[name], SQUARE)) < 2**22

    megabytes, told = memory_of(take)
    assert told == "done"
    assert megabytes < 500, name


def test_a_list_nested_without_end_is_turned_down(tmp_path: Path) -> None:
    for n, content in enumerate(
        (b"[" * 10**6, b'{"images":' * 10**6, b'{"images": [' + b"[" * 10**6, b'{"a": "' * 10**5)
    ):
        path = tmp_path / f"{n}.json"
        path.write_bytes(content)
        with deadline(20), pytest.raises(Exception, match=f"{n}.json"):
            list(Listing([path]))


# Texts that a list says once, and copies of which would fill memory and disk

SAID = "x" * LONG
TIMES = 300
CORNERS = "<loc_1><loc_2><loc_30><loc_40>"
LINE = {"image": "a.png", "prompt": "", "width": 40, "height": 30}


def coco(folder: Path, **lists: Any) -> Path:
    images = [{"id": n, "file_name": f"{n}.png", "license": 1} for n in range(TIMES)]
    boxes = [{"id": n, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9]} for n in range(TIMES)]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": boxes, **lists}))
    return folder / "coco.json"


def yolo(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "images/a.png").write_bytes(still("PNG"))
    (folder / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n" * TIMES)
    (folder / "data.yaml").write_text(f"names: [{SAID}]\ntrain: images\n")
    return folder / "data.yaml"


def open_images(folder: Path) -> list[Path]:
    long = [f"/m/{n},{'x' * 100_000}" for n in range(30)]
    boxes = [f"a,/m/{n % 30},0,1,0,1" for n in range(10 * TIMES)]
    (folder / "classes.csv").write_text("\n".join(["LabelName,DisplayName", *long]))
    (folder / "boxes.csv").write_text("\n".join(["ImageID,LabelName,XMin,XMax,YMin,YMax", *boxes]))
    return [folder / "boxes.csv", folder / "classes.csv"]


def florence(folder: Path, **line: str) -> Path:
    (folder / "lines.jsonl").write_text(json.dumps({**LINE, **line}) + "\n")
    return folder / "lines.jsonl"


SAYING_OFTEN: dict[str, Callable[[Path], Any]] = {
    "a COCO category": lambda folder: coco(folder, categories=[{"id": 1, "name": SAID}]),
    "a COCO licence": lambda folder: coco(folder, licenses=[{"id": 1, "name": SAID}]),
    "a COCO file's own name": lambda folder: coco(folder, info={"description": SAID}),
    "a YOLO class": yolo,
    "Open Images' classes": open_images,
    "a label of many boxes": lambda folder: florence(folder, task="OD", target=SAID + CORNERS * TIMES),
}


@pytest.mark.parametrize("name", SAYING_OFTEN)
def test_a_name_without_end_is_left_out(tmp_path: Path, name: str) -> None:
    paths = SAYING_OFTEN[name](tmp_path)

    def take_all() -> None:
        listing = Listing(paths if isinstance(paths, list) else [paths])
        item = Item(b"", "a.png", width=1000, height=1000)
        records = [take(item, entry.given()) for entry in listing]
        assert "too_long" in {*listing.faults.counts, *(fault.kind for _, faults in records for fault in faults)}
        assert not [region for record, _ in records for region in record.regions if len(region.raw_label or "") > 1000]

    megabytes, told = memory_of(take_all)
    assert told == "done"
    assert megabytes < 100  # spelt out it is 300


def test_a_caption_is_kept_once_however_many_phrases_it_has(tmp_path: Path) -> None:
    caption = "a " * 50_000
    prompt = "Locate the phrases in the caption: " + caption
    path = florence(tmp_path, task="CAPTION_TO_PHRASE_GROUNDING", prompt=prompt, target=f"a{CORNERS}" * 10 * TIMES)

    def take_all() -> None:
        (entry,) = Listing([path])
        given = entry.given()
        assert [one.text for one in given if isinstance(one, GivenText)] == [caption]
        assert sum(isinstance(one, GivenTriplet) for one in given) == 10 * TIMES

    megabytes, told = memory_of(take_all)
    assert told == "done"
    assert megabytes < 100  # with each phrase it is 300


# JSON that is parsed at once


HUGE = json.dumps({"more": SAID * 18})


def hugging_face(folder: Path, name: str) -> Path:
    for other in ("dataset_info.json", "state.json"):
        text = " " * 3 * 2**24 + HUGE if other == name else '{"_data_files": [{"filename": "a.arrow"}]}'
        (folder / other).write_text(text)
    return folder


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


OF_HUGE_JSON: dict[str, Callable[[Path], Path]] = {
    "dataset_info.json": lambda folder: hugging_face(folder, "dataset_info.json"),
    "state.json": lambda folder: hugging_face(folder, "state.json"),
    "export.json": lambda folder: written(folder, "export.json", HUGE).parent,
    "coco.json": lambda folder: written(folder, "coco.json", f'{{"images": [{HUGE}]}}'),
    "info.json": lambda folder: written(folder, "info.json", f'{{"images": [{{"id": 1}}], "info": {{"a": {HUGE}}}}}'),
    "llava.json": lambda folder: written(folder, "llava.json", f'[{{"conversations": {HUGE}}}]'),
    "list.txt": lambda folder: written(folder, "list.txt", SAID * 18),
    "narratives.jsonl": lambda folder: written(folder, "narratives.jsonl", HUGE),
}


@pytest.mark.parametrize("name", OF_HUGE_JSON)
def test_what_would_be_parsed_at_once_is_bounded(tmp_path: Path, name: str) -> None:
    path = OF_HUGE_JSON[name](tmp_path)
    most = "67,108,864" if name in ("dataset_info.json", "state.json") else "16,777,216"
    with pytest.raises(ConfigError, match=rf"{name} can't be read as .*more than {most} bytes"):
        list(Listing([path]))
