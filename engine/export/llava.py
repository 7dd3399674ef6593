"""Conversations about images, as LLaVA's training reads them: captions, regions, phrases and the text in the image.

    <to>/llava_<split>.json    [{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}]

One conversation a caption; regions, phrases and lines of text of an image are turns of one, TURNS at most. The first
question has the image's one token. `engine.conversations` has the questions, and what a box looks like: fractions of
the image as it is, not padded to a square. `image` is relative to <to> where images are copied or linked.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from engine.atomic import aside
from engine.conversations import CAPTIONS, CATEGORY, DESCRIBE, FIND, IMAGE, READ, READ_REGION, boxes_said, harmless
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.files import opened

TURNS = 10  # of a conversation: some 1000 tokens
Turn = tuple[str, str, Iterable[str]]  # question, answer, who made what is said
Place = tuple[int, str]  # row and id of a region


@dataclass(frozen=True)
class Llava:
    name: ClassVar[str] = "llava"
    kinds: ClassVar[tuple[str, ...]] = ("texts", "objects", "lines", "proposals", "region_texts", "triplets")
    by_default: ClassVar[tuple[str, ...]] = kinds
    how: ClassVar[tuple[How, ...]] = ("refer", "copy", "link")
    needs_classes: ClassVar[bool] = False
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        said = _Said(part)
        samples: dict[str, list[bytes]] = {split: [] for split in part.splits}
        for image in part.flat.images.to_pylist():
            own = list(map(orjson.dumps, said.samples(image)))
            samples[image["split"]] += own
            part.leave_out("images", () if own else (image["row"],), "images of which nothing is said")
        for split, lines in samples.items():
            if lines:
                with aside(part.fragment(f"{split}.json")) as file:
                    file.write(b",\n".join(lines))
        part.counts["texts with a model's tokens, broken"] += said.broken
        said.leave_out()

    def finish(self, whole: Whole) -> None:
        for split in whole.setting.splits:
            with aside(whole.setting.to / f"llava_{split}.json") as file:
                before = b"[\n"
                for path in whole.fragments(f"{split}.json"):
                    file.write(before)
                    with opened(str(path)) as fragment:
                        shutil.copyfileobj(fragment, file, 2**20)
                    before = b",\n"
                file.write(b"\n]\n" if before == b",\n" else b"[]\n")


class _Said:
    """What is said about the images of a part, by row."""

    def __init__(self, part: Part) -> None:
        self.part, self.broken = part, 0
        flat = part.flat
        regions = flat["regions"]
        self.captions = self._captions(flat["texts"])
        places = list(_zipped(regions, "row", "id"))
        self.sources = dict(zip(places, regions["source"].to_pylist(), strict=True))
        self.boxes = dict(zip(places, _boxes(flat.images, regions), strict=True))
        self.named = set[Place]()  # regions of which something is said
        self.regions = self._regions(regions, flat["region_texts"])
        self.phrases = self._phrases(flat["triplets"])
        self.lines = self._lines(regions)

    def leave_out(self) -> None:
        """What none of the conversations is made of."""
        silent = [row for row, _ in self.sources.keys() - self.named]
        self.part.leave_out("regions", silent, "regions without a label, text or phrase")

    def samples(self, image: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The conversations about an image, of its row."""
        row = image["row"]
        several = chain.from_iterable(_cut(of[row]) for of in (self.regions, self.phrases, self.lines) if row in of)
        for number, turns in enumerate(chain(([turn] for turn in self.captions.get(row, ())), several)):
            talk: list[dict[str, str]] = []
            for question, answer, _ in turns:
                talk += ({"from": "human", "value": question}, {"from": "gpt", "value": answer})
            talk[0]["value"] = f"{IMAGE}\n{talk[0]['value']}"
            yield {
                "id": f"{image['item_id']}-{number}",
                "image": image["file"],
                "conversations": talk,
                "item_id": image["item_id"],
                "licence": image["licence"],
                "dataset": image["dataset"],
                "source": sorted({source for _, _, sources in turns for source in sources}),
            }

    def _captions(self, texts: pa.Table) -> dict[int, list[Turn]]:
        found: dict[int, list[Turn]] = defaultdict(list)
        for row, detail, text, source in _zipped(texts, "row", "detail", "text", "source"):
            if words := self._words(text):
                found[row].append((CAPTIONS[detail], words, (source,)))
            else:
                self.part.leave_out("texts", [row], "texts without a word")
        return found

    def _regions(self, regions: pa.Table, texts: pa.Table) -> dict[int, list[Turn]]:
        """A region's category first, then its descriptions."""
        found: dict[int, list[Turn]] = defaultdict(list)
        told: dict[Place, list[tuple[str, str]]] = defaultdict(list)
        for row, id_, text, source in _zipped(texts, "row", "region_id", "text", "source"):
            if words := self._words(text):
                told[row, id_].append((words, source))
            else:
                self.part.leave_out("region_texts", [row], "texts without a word")
        self.named.update(told)
        for row, id_, kind, label, source in _zipped(regions, "row", "id", "kind", "label", "source"):
            place = row, id_
            if kind == "object" and (words := self._words(label)):
                found[row].append((CATEGORY.format(self.boxes[place]), words, (source,)))
                self.named.add(place)
            for words, by in told.get(place, ()):
                found[row].append((DESCRIBE.format(self.boxes[place]), words, (source, by)))
        return found

    def _phrases(self, triplets: pa.Table) -> dict[int, list[Turn]]:
        """Each phrase once, with all that it names in the image."""
        named: dict[int, dict[str, dict[Place, str]]] = defaultdict(lambda: defaultdict(dict))
        for row, phrase, ids, source in _zipped(triplets, "row", "phrase", "region_ids", "source"):
            if ids and (words := self._words(phrase)):
                named[row][words].update({(row, id_): source for id_ in ids})
            else:
                self.part.leave_out("triplets", [row], "triplets without a phrase or a region")
        found: dict[int, list[Turn]] = {}
        for row, phrases in named.items():
            self.named.update(*phrases.values())
            found[row] = [
                (
                    f"{FIND[:-3]}{words}.",
                    ", ".join(dict.fromkeys(self.boxes[place] for place in places)),
                    {*places.values(), *(self.sources[place] for place in places)},
                )
                for words, places in phrases.items()
            ]
        return found

    def _lines(self, regions: pa.Table) -> dict[int, list[Turn]]:
        """All that is written in an image, in the order in which it was read, and then each line by itself."""
        found: dict[int, list[Turn]] = defaultdict(list)
        for row, id_, kind, text, source in _zipped(regions, "row", "id", "kind", "text", "source"):
            if kind == "text" and (words := self._words(text)):
                found[row].append((READ_REGION.format(self.boxes[row, id_]), words, (source,)))
                self.named.add((row, id_))
        for turns in found.values():
            by = {source for _, _, sources in turns for source in sources}
            turns.insert(0, (READ, "\n".join(words for _, words, _ in turns), by))
        return found

    def _words(self, text: str | None) -> str:
        words = (text or "").strip()
        kept = harmless(words)
        self.broken += kept != words
        return kept


def _cut(turns: list[Turn]) -> Iterator[list[Turn]]:
    return (turns[start : start + TURNS] for start in range(0, len(turns), TURNS))


def _zipped(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _boxes(images: pa.Table, regions: pa.Table) -> list[str]:
    """Each region's box in words."""
    rows, sizes = images["row"].to_numpy(), np.ones((int(max(images["row"].to_pylist(), default=-1)) + 1, 2))
    sizes[rows] = np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1)
    boxes = np.stack([regions[name].to_numpy().astype(np.float64) for name in ("x0", "y0", "x1", "y1")], axis=1)
    return boxes_said(boxes, sizes[regions["row"].to_numpy()])
