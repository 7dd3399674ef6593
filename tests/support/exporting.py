"""What tests of export formats share: pictures with odd names, hostile words, and an export of an output folder."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.config import Ingest, Run
from engine.dataset import open_dataset
from engine.export.format import Format, Part, Whole
from engine.export.images import How
from engine.export.parquet import Parquet
from engine.export.run import Export, export
from engine.export.selection import Selection
from engine.export.split import splits_of
from engine.layout import Output
from engine.records import Record
from engine.storage import read_records

SHARES = {"train": 0.5, "val": 0.5}
HOSTILE = (
    "ein Größenwahn 検出 собака",
    "\u202eright to left \u2066 \u05e9\u05dc\u05d5\u05dd \u200f",
    "👩‍👩‍👧 \U0001f415",
    'quote " and \\ and \' and \\u0041, {"a": [1]}',
    " line\nbreak\r\n\ttab, and spaces  at both ends ",
    "\x00\x01\x1b[31m\x7f\x85\u2028\ufffe",
    "</script><img src=x onerror=alert(1)> &amp;",
    "<image> <loc_1> <|endoftext|>",
    "yes",
    "~",
    "1e3",
    "- a: &b *c !!python/object:os.system #d",
)
NAMES: tuple[str, ...] = ("a.png", "ö 写真.jpg", 'q"uote\\.png', "sub/b.png", "<b>c.webp", "d.e.png", "turned.jpg")
NAMES += tuple(f"more/{n}.png" for n in range(5))  # or all might be in one split


def pictures(folder: Path, scale: int = 1) -> Path:
    """Pictures of noise, no two of one size, none square; one is stored on its side."""
    for n, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 255, (scale * (48 + 5 * n), scale * (70 + 3 * n), 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1
        Image.fromarray(pixels).save(path, exif=exif)
    return folder


def endless(path: Path) -> Path:
    """A JPEG of 300 kB that lies on its side, and takes minutes to decode: its last scan comes ten thousand times."""
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (4000, 4008), 100).save(file, "JPEG", progressive=True, exif=exif)
    data = file.getvalue()[:-2]
    path.write_bytes(data + data[data.rindex(b"\xff\xda") :] * 10_000 + b"\xff\xd9")
    return path


def asked(
    output: Output, format_: Format, to: Path, *, how: How | None = None, kinds: Iterable[str] = (), **options: Any
) -> Export:
    dataset = open_dataset(output.root)
    selection = Selection(frozenset(kinds or format_.by_default), **options.pop("selection", {}))
    splits = splits_of(dataset, options.pop("shares", SHARES))
    return Export(dataset, format_, to, selection, splits, how or format_.how[0], "stop", Ingest(), **options)


def run(one: Export) -> dict[str, Any]:
    return export(one, Run(), lambda done: None)


def totals_of(summary: dict[str, Any]) -> dict[str, int]:
    """Images and annotations of all splits that an export says it has."""
    totals: Counter[str] = Counter()
    for counts in summary["splits"].values():
        totals.update(counts)
    return dict(totals)


def standing(output: Output) -> dict[str, Record]:
    """What stands of each image that was read, by item id in hex."""
    records = (record for shard in output.shards() for record in read_records(output, 0, shard))
    return {
        record.item.item_id.hex(): record.standing
        for record in records
        if not record.item.error and not record.item.duplicate_of
    }


# Formats that fail, which also tasks of Ray can import


class Full(Parquet):
    """Writes to a disk without room."""

    def write(self, part: Part) -> None:
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)


class Leaving(Parquet):
    """Ends its process, as code for a command line does."""

    def write(self, part: Part) -> None:
        raise SystemExit(0)


class Deadly(Parquet):
    """Kills whoever writes one of the parts, as a broken decoder does."""

    def write(self, part: Part) -> None:
        if part.shard.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(part)


class Unfinished(Parquet):
    """Ends between its parts and the whole."""

    def finish(self, whole: Whole) -> None:
        raise ZeroDivisionError
