"""A small set whose annotations a test writes down by hand, and truth about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from engine.atomic import write_json, write_text
from engine.config import Config, Ingest
from engine.ingest import ingest
from engine.layout import LOCK, Output
from engine.near import perceptual_hash
from engine.records import AnyAnnotation, Box, Record, Region, Scores
from engine.rounds import added
from engine.storage import read_items, write_annotations, write_decisions

WIDTH, HEIGHT = 100, 80
Maker = Callable[[Record], Iterable[AnyAnnotation]]


def pictures(folder: Path, count: int) -> Path:
    """Pictures that look like nothing else: noise of a seed each."""
    folder.mkdir(parents=True)
    for n in range(count):
        coarse = np.random.default_rng(n).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT)).save(folder / f"{n}.png")
    return folder


@dataclass
class Judged:
    """An output folder with rounds that are written at once: `round` takes what is new by the image's number."""

    images: Path
    output: Output
    rounds: list[dict[str, Record]] = field(default_factory=list)

    @classmethod
    def of(cls, images: Path, root: Path, config: Config | None = None) -> Judged:
        config = config or Config(ingest=Ingest(images=(str(images),), shard_size=2))
        output = Output(root)
        root.mkdir(parents=True)
        (root / LOCK).touch()
        write_text(output.config, yaml.safe_dump(config.model_dump(mode="json")))
        ingest(output, config.ingest, "d", lambda done: None)
        return cls(images, output)

    def round(
        self, makers: Mapping[int, Maker], decisions: Callable[[Record], Record] = lambda record: record
    ) -> Judged:
        number = len(self.rounds)
        before = self.rounds[-1] if self.rounds else {}
        layer, after = self.output.round(number), {}
        for shard in self.output.shards():
            new = []
            for item in read_items(self.output, shard):
                was = replace(before.get(item.uri, Record(item, error=item.error)), round=number)
                if not item.error and not item.duplicate_of and number == 0:
                    was = replace(was, perceptual_hash=perceptual_hash(np.asarray(Image.open(item.uri).convert("RGB"))))
                name = Path(item.uri).stem
                maker = makers.get(int(name)) if name.isdecimal() and not item.duplicate_of else None
                record = was.append(maker(was) if maker else ())
                after[item.uri] = decisions(record)
                new.append(after[item.uri] if number == 0 else added(after[item.uri], was))
            write_annotations(layer, shard, new, "d")
            write_decisions(layer, shard, new, "d")
        write_json(layer.sources, {"digest": "d", "settings": "d", "filters": "d", "sources": {}})
        self.rounds.append(after)
        return self


def regions(source: str, *found: tuple[str, Box] | tuple[str, Box, float | None]) -> Maker:
    """Objects of a source: label, box, and a score if it gives one."""

    def make(record: Record) -> Iterable[AnyAnnotation]:
        ids = record.ids(source)
        for label, box, *score in found:
            yield Region(
                id=next(ids),
                source=source,
                kind="object",
                box=box,
                raw_label=label,
                label=label.casefold(),
                scores=Scores(label=score[0] if score else None),
            )

    return make


def several(*makers: Maker) -> Maker:
    """What one makes after the other."""

    def make(record: Record) -> Iterable[AnyAnnotation]:
        for maker in makers:
            made = list(maker(record))
            record = record.append(made)
            yield from made

    return make


def coco(folder: Path, images: Sequence[str], annotations: Sequence[dict[str, Any]], name: str = "truth.json") -> str:
    """A COCO file in a folder; categories are those that annotations name. Annotations are `image` (name), `label`,
    `bbox` (x0, y0, x1, y1) and whatever else COCO has."""
    names = sorted({str(one["label"]) for one in annotations if "label" in one})
    categories = {label: number for number, label in enumerate(names, 7)}
    ids = {image: number for number, image in enumerate(images, 1)}
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(annotations, 1):
        row = {"id": number, "image_id": ids[one["image"]]} | {
            k: v for k, v in one.items() if k not in ("image", "label", "bbox")
        }
        if "bbox" in one:
            x0, y0, x1, y1 = one["bbox"]
            row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        if "label" in one:
            row["category_id"] = categories[one["label"]]
        rows.append(row)
    document = {
        "images": [
            {"id": number, "file_name": image, "width": WIDTH, "height": HEIGHT} for image, number in ids.items()
        ],
        "categories": [{"id": number, "name": label} for label, number in categories.items()],
        "annotations": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document))
    return str(folder / name)
