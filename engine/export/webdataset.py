"""WebDataset: tars that are read from front to back, with an image, its document and its caption one after another.

    <to>/<split>/part-00000-shard-00000.tar   <item_id>.jpg, <item_id>.json, <item_id>.txt
    <to>/README.md                            what is in it, and how it is loaded

The .json is the whole document (`engine.export.documents`); the .txt, for who wants image and text alone, is a brief
caption where there is one. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from engine.atomic import aside, names_in, write_text
from engine.export.card import note, readme
from engine.export.documents import illustrated
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.selection import KINDS

HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # mode 644, of nobody, from 1970
LARGEST = 8**11 - 1
USE = """## How to load it
```python
import glob
import webdataset

shards = sorted(glob.glob("{split}/*.tar")){braces}
samples = webdataset.WebDataset(shards, shardshuffle=100).shuffle(1000).decode("pil")
for image, document in samples.to_tuple("jpg;png;webp;gif;tif;bmp;avif", "json"):
    texts = [text["text"] for text in document["texts"]]
    boxes = [(region["label"], region["box"]) for region in document["regions"] if region["kind"] == "object"]
```
A sample is an image, a `.json` with all that is known of it, and a `.txt` with one caption, if it has any. In the
`.json`: `texts`; `regions` with a `box` (x0, y0, x1, y1) and for lines of text a `quad`; `region_texts` and `masks`
(COCO's run lengths) of the region `region_id`; and `triplets`, the characters `start` to `stop` of the text `text_id`
with the `region_ids` that they name."""


@dataclass(frozen=True)
class WebDataset:
    name: ClassVar[str] = "webdataset"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    by_default: ClassVar[tuple[str, ...]] = KINDS
    how: ClassVar[tuple[How, ...]] = ("inside",)
    needs_classes: ClassVar[bool] = False
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        names = dict(zip(*(part.flat.images[name].to_pylist() for name in ("row", "item_id")), strict=True))
        captions = captions_of(part.flat["texts"])
        for split in part.splits:
            with aside(part.path(split, ".tar")) as file:
                for picture, document in illustrated(part, split):
                    key = names[picture.row]  # without a dot: what is before the first is a sample's key
                    file.writelines(_member(f"{key}.{picture.extension}", picture.data))
                    file.writelines(_member(f"{key}.json", document))
                    if caption := captions.get(picture.row):
                        file.writelines(_member(f"{key}.txt", caption.encode()))
                file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end
        note(part)

    def finish(self, whole: Whole) -> None:
        split = next(iter(whole.totals), whole.setting.splits[0])
        to = whole.setting.to
        shards = braces(Path(split, name) for name in names_in(to / split) if name.endswith(".tar"))
        use = USE.format(split=split, braces=f'  # or "{shards}"' if shards else "")
        write_text(to / "README.md", readme(whole, use))


def braces(paths: Iterable[Path]) -> str | None:
    """Shards in one expression, as WebDataset expands it; None if their numbers don't follow one another."""
    names = sorted(map(str, paths))
    before, numbers = {name[:-9] for name in names}, [int(name[-9:-4]) for name in names]
    if len(before) != 1 or len(names) < 2 or numbers[-1] - numbers[0] + 1 != len(numbers):
        return None
    return f"{before.pop()}{{{numbers[0]:05d}..{numbers[-1]:05d}}}.tar"


def captions_of(texts: pa.Table) -> dict[int, str]:
    """Of each row a brief text, rather than a longer one; a written one, rather than one composed from regions."""
    columns = (texts[name].to_pylist() for name in ("row", "detail", "composed", "text"))
    best: dict[int, tuple[bool, bool, str]] = {}
    for row, detail, composed, text in zip(*columns, strict=True):
        rank = (detail != "brief", composed)
        if row not in best or rank < best[row][:2]:
            best[row] = (*rank, text)
    return {row: text for row, (_, _, text) in best.items()}


def _member(name: str, data: bytes) -> Iterator[bytes]:
    """A file in a tar, the same at any time, on any machine: of nobody, from 1970."""
    yield _header(name.encode("ascii"), len(data))
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: bytes, size: int) -> bytes:
    """What `tarfile` makes, which takes as long for a header as all else for its file: name, size and checksum go into
    one that it made. https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, "ustar Interchange Format"
    """
    if len(name) > 100 or size > LARGEST:
        raise ValueError(f"{name!r} of {size:,} bytes: a tar has room for 100 and {LARGEST:,}")
    header = bytearray(HEADER)
    header[: len(name)] = name
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (sum(header) - sum(header[148:156]) + 8 * ord(" "))
    return bytes(header)
