"""A random sample of the images, to be labelled by people: what rounds are judged by."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.atomic import remove_all, write_bytes, write_text
from engine.config import Config
from engine.dataset import Dataset
from engine.errors import ConfigError
from engine.images import HEAD_BYTES, format_of
from engine.reading import read
from engine.records import Item

INSTANCES, CAPTIONS, README = "instances.json", "captions.json", "README.txt"
HOW = """\
{count} images, drawn at random, in images/. Do not change the files: they are known again by their bytes.

1. Import images/ and {instances} (COCO format) into an annotation tool, and mark in every image every object of every
   category, also small and half hidden ones. Many in one heap: one box with iscrowd 1. Add categories that are missing.
2. If texts are to be judged, too, write one or more captions an image into {captions} (COCO format).
3. Export in COCO format over these two files; then

   engine refine --out {out} --set {labels}

Images that are labelled are not trained on from then on. Label without looking at what the engine found: who corrects
its boxes overlooks what it overlooked.
"""


def draw(dataset: Dataset, count: int, seed: int) -> list[Item]:
    """`count` images at random, or all if there are fewer, in the set's order: of those that look alike the first, and
    none that can't be read. The draw of more images has those of fewer."""
    leaders = dataset.leaders()
    items = [
        (place, item)
        for place, item in enumerate(dataset.items())
        if not item.error and not item.duplicate_of and leaders.get(item.item_id, item.item_id) == item.item_id
    ]
    random.Random(f"audit {seed}").shuffle(items)
    return [item for _, item in sorted(items[:count], key=lambda entry: entry[0])]


def export(dataset: Dataset, items: Sequence[Item], config: Config, to: Path) -> None:
    """Writes copies of the images, and COCO files without annotations, to the new or empty folder `to`, or nothing.
    Raises ConfigError if something lies there, ImageError if an image is gone."""
    if to.exists() and any(to.iterdir()):
        raise ConfigError(f"{to} is not empty: labels may lie there. Name another folder with --to")
    try:
        _write(dataset, items, config, to)
    except BaseException:
        for name in ("images", INSTANCES, CAPTIONS, README):
            remove_all(to / name)
        raise


def _write(dataset: Dataset, items: Sequence[Item], config: Config, to: Path) -> None:
    images: list[dict[str, Any]] = []
    for number, item in enumerate(items, 1):
        data = read(item.uri, max_bytes=config.ingest.max_bytes, downloads=dataset.output.downloads)
        name = f"images/{item.item_id.hex()}.{(format_of(data[:HEAD_BYTES]) or 'bin').lower()}"
        write_bytes(to / name, data)
        images.append({"id": number, "file_name": name, "width": item.width, "height": item.height})
    categories = [{"id": number, "name": name} for number, name in enumerate(_categories(dataset, config), 1)]
    document = {"images": images, "categories": categories, "annotations": []}
    write_text(to / INSTANCES, json.dumps(document, ensure_ascii=False, indent=1))
    write_text(to / CAPTIONS, json.dumps({"images": images, "annotations": []}, ensure_ascii=False, indent=1))
    labels = json.dumps([str(to.absolute() / name) for name in (INSTANCES, CAPTIONS)], ensure_ascii=False)
    how = HOW.format(
        count=len(items),
        instances=INSTANCES,
        captions=CAPTIONS,
        out=shlex.quote(str(dataset.output.root)),
        labels=shlex.quote(f"gate.labels={labels}"),
    )
    write_text(to / README, how)


def _categories(dataset: Dataset, config: Config) -> list[str]:
    """The vocabulary's classes, and what stands."""
    found = {region.label for _, region in dataset.regions() if region.kind == "object" and region.label}
    return sorted({*found, *config.vocabulary.classes} - set(config.vocabulary.ignore))
