"""A Hugging Face dataset: Parquet files that `datasets.load_dataset(<to>)` reads without a script, and can be pushed.

    <to>/data/<split>/part-00000-shard-00000.parquet   an image a row
    <to>/README.md                                     the card, with splits, features and licence in its YAML header

A row is the whole document (`engine.export.documents`) beside its image, and once more what trainers look for by name:
`captions` by detail, and `objects` as a dictionary of lists, which transformers' object detection takes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from engine.atomic import aside, read_json, write_json, write_text
from engine.export.card import UNSAID, card_of, note, readme
from engine.export.documents import documents, listed, numbers
from engine.export.features import as_yaml, features
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.selection import KINDS
from engine.files import matching, stamp
from engine.flat import Flat, Ints
from engine.records import DETAILS
from engine.uris import MEMBER, ROW

ROW_GROUP_BYTES = 64 << 20  # who streams reads a row group at once
HUBS = re.compile(r"cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.[05]|mit|apache-2\.0|odbl|pddl")  # names of licences
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
TASKS = {"texts": "image-to-text", "regions": "object-detection", "masks": "image-segmentation"}
USE = """## How to load it
```python
from datasets import load_dataset

dataset = load_dataset({folder})  # this folder, from the one it lies in; or its name on the hub
row = dataset["{split}"][0]
image, captions, objects = row["image"], row["captions"], row["objects"]
```
With `streaming=True` it is read a row group at a time. `captions` are lists of texts: `brief`, `detailed` and
`more_detailed`. `objects` are lists of equal length: `bbox` (x, y, width, height), `category`, `area` of the box,
`iscrowd`, and the `region_id` of the same region in `regions`. The other columns are all that is known, under its ids:
`texts`; `regions` of every kind, with a `box` (x0, y0, x1, y1) and for lines of text a `quad`; `region_texts` and
`masks` (COCO's run lengths) of the region `region_id`; and `triplets`, the characters `start` to `stop` of the text
`text_id` with the `region_ids` that they name.

With transformers, for a detector:
```python
from transformers import RTDetrImageProcessor

names = dataset["{split}"].features["objects"]["category"].feature.names
processor = RTDetrImageProcessor()  # or AutoImageProcessor.from_pretrained(...) of your model


def encode(row):
    things = zip(*(row["objects"][name] for name in ("bbox", "category", "area", "iscrowd")))
    annotations = [
        {{"bbox": box, "category_id": category, "area": area, "iscrowd": int(crowd)}}
        for box, category, area, crowd in things
    ]
    about = {{"image_id": row["image_id"], "annotations": annotations}}
    return processor(images=row["image"].convert("RGB"), annotations=about, return_tensors="pt")


encoded = encode(row)
```"""


@dataclass(frozen=True)
class HuggingFace:
    name: ClassVar[str] = "hf"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    by_default: ClassVar[tuple[str, ...]] = KINDS
    how: ClassVar[tuple[How, ...]] = ("inside", "refer")
    needs_classes: ClassVar[bool] = True
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        table, sizes = _rows(part), Counter[str]()
        for split in part.splits:
            schema = _with_images(table, [], []).schema
            with (
                aside(part.path(split, ".parquet", "data")) as file,
                pq.ParquetWriter(file, schema, compression="zstd") as writer,
            ):
                for rows, images in _groups(part, split):
                    group = _with_images(table, rows, images)
                    writer.write_table(group, row_group_size=len(group))
                    sizes[split] += group.nbytes
        write_json(part.fragment("sizes.json"), sizes)
        note(part)

    def finish(self, whole: Whole) -> None:
        header = yaml.safe_dump(_header(whole), sort_keys=False, allow_unicode=True, width=120)
        split = next(iter(whole.totals), whole.setting.splits[0])
        use = USE.format(split=split, folder=json.dumps(whole.setting.to.name, ensure_ascii=False))
        write_text(whole.setting.to / "README.md", f"---\n{header}---\n\n{readme(whole, use)}")


# Rows


def _rows(part: Part) -> pa.Table:
    """All columns but the images themselves, and `row` besides."""
    flat, declared = part.flat, features(part.setting.classes)
    rows = flat.images["row"].to_numpy().astype(np.int64)
    columns = {
        "row": flat.images["row"],
        "image_id": flat.images["number"],
        "captions": _captions(flat, rows),
        "objects": _objects(flat, rows, part.setting.classes),
    }
    told = documents(flat).drop_columns(["row"])
    columns |= dict(zip(told.column_names, told.columns, strict=True))
    metadata = {"huggingface": json.dumps({"info": {"features": declared}})}
    return pa.table(columns).replace_schema_metadata(metadata)


def _captions(flat: Flat, rows: Ints) -> pa.StructArray:
    texts = flat["texts"]
    of_details = (listed(texts.filter(pc.equal(texts["detail"], detail)), rows, ("text",)) for detail in DETAILS)
    return pa.StructArray.from_arrays([_apart(texts).field("text") for texts in of_details], names=list(DETAILS))


def _objects(flat: Flat, rows: Ints, classes: Sequence[str]) -> pa.StructArray:
    """Objects with a label: one without is in `regions` alone."""
    regions = flat["regions"]
    regions = regions.filter(pc.and_(pc.equal(regions["kind"], "object"), pc.is_valid(regions["label"])))
    sides = {"x": regions["x0"], "y": regions["y0"]}
    sides |= {"width": pc.subtract(regions["x1"], regions["x0"]), "height": pc.subtract(regions["y1"], regions["y0"])}
    columns = {
        "bbox": numbers(pa.table(sides), tuple(sides)),
        "category": pc.index_in(regions["label"], pa.array(classes, pa.string())).cast(pa.int64()),
        "area": pc.multiply(sides["width"], sides["height"]),
        "iscrowd": regions["crowd"],
        "region_id": regions["id"],
    }
    return _apart(listed(pa.table({"row": regions["row"], **columns}), rows, tuple(columns)))


def _apart(lists: pa.ListArray) -> pa.StructArray:
    """Lists of structs as structs of lists."""
    structs = lists.values
    parts = [pa.ListArray.from_arrays(lists.offsets, column) for column in structs.flatten()]
    return pa.StructArray.from_arrays(parts, names=[field.name for field in structs.type])


# Images


def _groups(part: Part, split: str) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """The images of a split with their rows, in groups of ROW_GROUP_BYTES."""
    rows: list[int] = []
    images: list[dict[str, Any]] = []
    size = 0
    for row, image in _images(part, split):
        rows.append(row)
        images.append(image)
        size += len(image["bytes"] or b"")
        if size > ROW_GROUP_BYTES:
            yield rows, images
            rows, images, size = [], [], 0
    if rows:
        yield rows, images


def _images(part: Part, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a split, each with its image's bytes, or its path alone. What has no file of its own, a member of an
    archive, comes inside even if it should only be referred to."""
    images = part.flat.images.filter(pc.equal(part.flat.images["split"], split))
    if part.images.how == "refer":
        alone = [not (MEMBER.fullmatch(uri) or ROW.fullmatch(uri)) for uri in images["uri"].to_pylist()]
        referred = images.filter(pa.array(alone, pa.bool_()))
        for row, file in zip(referred["row"].to_pylist(), referred["file"].to_pylist(), strict=True):
            yield row, {"bytes": None, "path": file}
        images = images.filter(pa.array([not one for one in alone], pa.bool_()))
    names = dict(zip(images["row"].to_pylist(), images["item_id"].to_pylist(), strict=True))
    for picture in replace(part, flat=Flat(images, {})).pictures(split):
        yield picture.row, {"bytes": picture.data, "path": f"{names[picture.row]}.{picture.extension}"}


def _with_images(table: pa.Table, rows: Sequence[int], images: Sequence[dict[str, Any]]) -> pa.Table:
    """Some rows of the table, with their images."""
    places = pc.index_in(pa.array(rows, pa.int32()), table["row"].combine_chunks())
    column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return table.take(places).drop_columns(["row"]).add_column(1, "image", column)


# The card


def _header(whole: Whole) -> dict[str, Any]:
    to, card, totals = whole.setting.to, card_of(whole), whole.totals
    sizes = sum((Counter(read_json(path)) for path in whole.fragments("sizes.json")), Counter[str]())
    count = sum(counts["images"] for counts in totals.values())
    there = {name for counts in totals.values() for name in counts}
    splits = [{"name": split, "num_bytes": sizes[split], "num_examples": of["images"]} for split, of in totals.items()]
    return {
        "license": _licence(card.licences),
        "pretty_name": whole.setting.dataset,
        "size_categories": [SIZES[min(max(len(str(count)) - 3, 0), len(SIZES) - 1)]],
        "task_categories": [task for name, task in TASKS.items() if name in there],
        "tags": ["florence-engine", *(["phrase-grounding"] if "triplets" in there else [])],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}/*.parquet"} for split in totals],
            }
        ],
        "dataset_info": {
            "features": as_yaml(features(whole.setting.classes)),
            "splits": splits,
            "download_size": sum(stamp(path)[0] for path in matching(str(to), "data/*/*.parquet")),
            "dataset_size": sum(sizes.values()),
        },
    }


def _licence(licences: Counter[str]) -> str:
    """The images' licence by the hub's name for it: `other` if it has none, or there are several."""
    if set(licences) <= {UNSAID}:
        return "unknown"
    (name, *others) = (re.sub(r"[\s_]+", "-", licence.strip().lower()) for licence in licences)
    return name if not others and HUBS.fullmatch(name) else "other"
