"""The world on the disk: an image set with annotations by people, or an output folder whose round 0 is the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from benchmarks.world.captions import phrase, tell
from benchmarks.world.picture import Picture, World
from benchmarks.world.records import record_of
from engine.atomic import write_json, write_text
from engine.config import Config
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.lock import run_lock
from engine.records import Item, Record
from engine.storage import read_items, write_annotations, write_decisions
from engine.summary import count_round, group_near_duplicates
from pipelines.build import Pipeline, build_pipeline

IMAGES = "pictures"  # the folder of the pictures, in an image set and beside the rounds of an output folder


def write_images(folder: Path, world: World, seed: int, count: int) -> None:
    """An image set in COCO's format: `pictures/`, `instances.json` with boxes, masks and descriptions (`caption` beside
    a box), and `captions.json`.

    COCO has no place for the rest of the truth. The engine tells by its length alone how detailed a caption is, and
    these are short: of 400 pictures of FULL a third of the detailed ones count as brief, and nine in ten of the more
    detailed ones as detailed. Words stand in `instances.json` under `words`, which the engine doesn't read.
    """
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    categories = {label: number for number, label in enumerate(world.labels, 1)}
    for index, picture in _drawn(folder / IMAGES, world, seed, count):
        width, height = world.size
        images.append({"id": index, "file_name": f"{IMAGES}/{_name(index)}", "width": width, "height": height})
        for one in _instances(picture, categories):
            instances.append({"id": len(instances) + 1, "image_id": index, **one})
        for told in tell(picture):
            captions.append({"id": len(captions) + 1, "image_id": index, "caption": told.text})
        words += [{"image_id": index, "text": word.text, "quad": list(word.quad)} for word in picture.words]
    head = {"info": {"description": "world"}, "images": images}
    named = [{"id": number, "name": label} for label, number in categories.items()]
    _write(folder / "instances.json", {**head, "annotations": instances, "categories": named, "words": words})
    _write(folder / "captions.json", {**head, "annotations": captions})


def write_round(
    output: Output, world: World, seed: int, count: int, shard_size: int = 64, config: Config | None = None
) -> None:
    """An output folder as after `--stage annotate`, whose round 0 has the whole truth, by people, and no decision.

    The pictures lie in it, too. `config` is kept as the folder's own, with these pictures as its image set: what runs
    on the folder later has to agree with it. It must name no specialist. Raises OutputError where something is there.
    """
    folder = output.root.absolute() / IMAGES
    config = config or Config()
    images = config.ingest.model_copy(update={"images": (str(folder),), "shard_size": shard_size})
    pipeline = build_pipeline(config.model_copy(update={"ingest": images}))
    if pipeline.specialists:
        raise ValueError("the truth has no specialists; give a configuration without any")
    output.check_ours()
    with run_lock(output.root):
        for _ in _drawn(folder, world, seed, count):
            pass
        document = pipeline.config.model_dump(mode="json")
        write_text(output.config, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        ingest(output, pipeline.config.ingest, pipeline.ingest_digest, lambda done: None)
        shards = list(output.shards())
        for shard in shards:
            _write_shard(output, shard, pipeline, [_record(item, world, seed) for item in read_items(output, shard)])
        _write_summary(output, shards, pipeline)


def _drawn(folder: Path, world: World, seed: int, count: int) -> Iterator[tuple[int, Picture]]:
    """The pictures, each written first."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = world.picture(seed, index)
        Image.fromarray(picture.pixels).save(folder / _name(index))
        yield index, picture


def _name(index: int) -> str:
    return f"{index:06d}.png"


def _record(item: Item, world: World, seed: int) -> Record:
    """Of an image that another one equals byte for byte, nothing, as when specialists annotate."""
    if item.duplicate_of:
        return Record(item)
    return record_of(world.picture(seed, int(Path(item.uri).stem)), item)


def _write_shard(output: Output, shard: ShardId, pipeline: Pipeline, records: list[Record]) -> None:
    write_annotations(output.round(0), shard, records, pipeline.annotate_digest)
    write_decisions(output.round(0), shard, records, pipeline.filter_digest)


def _write_summary(output: Output, shards: list[ShardId], pipeline: Pipeline) -> None:
    """sources.json and summary.json, as `pipelines.stages` has them."""
    digests = {"digest": pipeline.annotate_digest, "settings": pipeline.annotate_settings}
    sources = {**digests, "filters": pipeline.filter_digest, "sources": pipeline.sources}
    write_json(output.round(0).sources, sources)
    summary = {
        "round": 0,
        **count_round(output, 0, shards),
        "near_duplicates": group_near_duplicates(output, 0, shards),
        "digests": {
            "ingest": pipeline.ingest_digest,
            "annotate": pipeline.annotate_digest,
            "filter": pipeline.filter_digest,
        },
        "last_run": {},
    }
    write_json(output.round(0).summary, summary)


def _instances(picture: Picture, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    width, height = picture.world.size
    for shape in picture.shapes:
        x0, y0, x1, y1 = shape.box
        yield {
            "category_id": categories[shape.label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": shape.area,
            "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": shape.mask.decode()},
            "caption": phrase(shape),
        }


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
