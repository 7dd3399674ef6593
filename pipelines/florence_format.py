"""Questions and answers for a Florence-2, a line each: what transformers' processor and our own trainer learn from.

    <to>/<split>/part-00000-shard-00000.jsonl    {"image": ..., "task": "OD", "prompt": ..., "target": ..., ...}

`image` is relative to <to> where images are copied or linked. `prompt` is the whole sentence with a region's tokens in
it, `target` the answer without <s> </s>: `florence2.targets` says which annotations make which. `source` names who made
what a line is made of, `composed` whether a text of it was composed from regions, which teaches only repeating them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, BinaryIO, ClassVar

import orjson

from engine.atomic import aside
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.selection import KINDS
from engine.records import Decision, Record, Region
from florence2.examples import Example
from florence2.tasks import Task
from pipelines.lessons import Lessons, leaving
from pipelines.origins import Origins
from specialists.composer import Composer

TABLES = ("texts", "regions", "region_texts", "masks", "triplets")
# transformers' processor takes these for questions, wherever in a prompt they stand.
ASKED = re.compile(f"<({'|'.join(Task)})>")


@dataclass(frozen=True)
class FlorenceFormat:
    name: ClassVar[str] = "florence"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    by_default: ClassVar[tuple[str, ...]] = KINDS
    how: ClassVar[tuple[How, ...]] = ("refer", "copy", "link")
    needs_classes: ClassVar[bool] = False
    by_record: ClassVar[bool] = True

    def write(self, part: Part) -> None:
        lessons = leaving(part.setting.output, part.setting.round, part.setting.selection)
        with ExitStack() as files:
            into: dict[str, BinaryIO] = {
                split: files.enter_context(aside(part.path(split, ".jsonl"))) for split in part.splits
            }
            composers, composed = _composers(part), _composed(part)
            for image, record in _records(part):
                said = {one.id for one in record.region_texts if one.source in composers}
                lines, spoken = lines_of(lessons, image, record, said | composed.get(image["row"], set()))
                for line in lines:
                    into[image["split"]].write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
                part.leave_out("images", () if lines else (image["row"],), "images of which no task speaks")
                for name in TABLES:
                    silent = [image["row"] for one in getattr(record.standing, name) if one.id not in spoken]
                    part.leave_out(name, silent, f"{name.replace('_', ' ')} of which no task speaks")

    def finish(self, whole: Whole) -> None:
        """Nothing is left to do."""


def lines_of(
    lessons: Lessons, image: Mapping[str, Any], record: Record, composed: Collection[str]
) -> tuple[list[dict[str, Any]], set[str]]:
    """All that an image teaches, and the ids of the annotations that it is made of. `image` is its row of the flat
    table, `composed` are ids of texts, of regions too."""
    view = lessons.view(record)
    scene = view.scene()
    origins = Origins(view, scene.size, lessons.targets.lines(scene))
    lines, spoken = list[dict[str, Any]](), set[str]()
    for number, example in enumerate(lessons.examples(scene, list(Task), image["item_id"])):
        made_of = origins.of(example)
        spoken.update(one.id for one in made_of)
        line = {
            "image": image["file"],
            "id": f"{image['item_id']}-{number}",
            "item_id": image["item_id"],
            "task": example.task.value,
            "prompt": ASKED.sub(r"< \1>", example.prompt.text),
            "target": ASKED.sub(r"< \1>", example.answer),
            "width": image["width"],
            "height": image["height"],
            "split": image["split"],
            "source": sorted({one.source for one in made_of} or _absent(lessons, example)),
            "composed": any(one.id in composed for one in made_of),
            "licence": image["licence"],
            "dataset": image["dataset"],
        }
        lines.append(line)
    return lines, spoken


def _absent(lessons: Lessons, example: Example) -> set[str]:
    """Who would have marked what is not there."""
    return {name for name, classes in lessons.exhaustive.items() if classes.intersection(example.prompt.labels)}


def _records(part: Part) -> Iterator[tuple[dict[str, Any], Record]]:
    """Each image's row, and its record with labels as they leave, in which what does not leave is turned down: not left
    away, or of a class of which an instance is missing it would seem that all are there."""
    rows = part.flat.images.to_pylist()
    label = cache(part.setting.selection.label)
    leaving: dict[int, set[str]] = {row["row"]: set() for row in rows}
    for name in TABLES:
        table = part.flat[name]
        for row, id_ in zip(table["row"].to_pylist(), table["id"].to_pylist(), strict=True):
            leaving[row].add(id_)
    for image, record in zip(rows, part.tables.records([row["row"] for row in rows]), strict=True):
        kept = leaving[image["row"]]
        kept |= {parse.id for parse in record.parses if parse.text_id in kept}
        named = tuple(
            _named(one, label(word)) if (word := one.raw_label or one.label) else one for one in record.regions
        )
        stands = [one.id for one in record.standing.annotations()]
        others = [_turned_down(id_, record.round) for id_ in stands if id_ not in kept]
        yield image, replace(record, regions=named).decide(others)


def _named(region: Region, label: str) -> Region:
    """What fell or stays behind, too: of its class not all that is there leaves. Most have the label already, and to
    make them anew takes longer."""
    return region if region.label == label else replace(region, label=label)


def _turned_down(annotation_id: str, round_number: int) -> Decision:
    return Decision(
        annotation_id=annotation_id, action="reject", by="export", reason="not_exported", round=round_number
    )


def _composers(part: Part) -> frozenset[str]:
    """The sources whose words are put together from what was found, by whatever name."""
    made_by = f"{Composer.__module__}:{Composer.__qualname__}"
    return frozenset(name for name, said in part.setting.sources.items() if said.get("specialist") == made_by)


def _composed(part: Part) -> dict[int, set[str]]:
    """Ids of the texts that were composed from regions, by row."""
    found: dict[int, set[str]] = {}
    texts = part.flat["texts"]
    for row, id_, composed in zip(*(texts[name].to_pylist() for name in ("row", "id", "composed")), strict=True):
        if composed:
            found.setdefault(row, set()).add(id_)
    return found
