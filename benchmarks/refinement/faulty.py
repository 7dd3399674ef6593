"""Specialists that know the truth and are wrong about it as often, and in the ways, that their parameters say.

Independent faults are drawn anew for each thing by each specialist: training on many images, or asking several
specialists, averages them away. Systematic ones are the same each time, and what is too small or too hidden for one is
so for all: a second opinion does not help, and a model that is trained on them learns them. They are the test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from benchmarks.refinement.worlds import HERE, THERE
from benchmarks.world import Picture, Shape, phrase, tell
from benchmarks.world.shapes import COLOURS
from engine.geometry import area, clip, decode_mask, encode_mask, quad_box
from engine.protocols import Sample
from engine.records import AnyAnnotation, Box, Mask, Record, Region, RegionText, Scores, Text

WORLDS = {"here": HERE, "there": THERE}
Chance = Annotated[float, Field(ge=0, le=1)]
HARD = 1  # a stream of chances beside that which drew the picture, and those of specialists
Fault = Literal["missed", "mislabelled", "too small", "hidden", "renamed"]  # independent ones first


@lru_cache(maxsize=64)
def picture_of(world: str, seed: int, index: int) -> Picture:
    """The picture whose file is named after its index."""
    return WORLDS[world].picture(seed, index)


@dataclass
class _Specialist:
    name: str = ""
    world: str = "here"
    scenes: int = 0  # the seed of the pictures
    seed: int = 0  # of the faults
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None:
        """There is nothing to load."""

    def annotate(self, batch: Sequence[Sample]) -> list[list[AnyAnnotation]]:
        return [list(self._annotations(sample.record)) for sample in batch]

    def _annotations(self, record: Record) -> Iterator[AnyAnnotation]:
        raise NotImplementedError

    def _known(self, record: Record) -> tuple[Picture, np.random.Generator]:
        """The picture, and the chances that this specialist takes with it."""
        index = int(Path(record.item.uri).stem)
        named = sum(ord(letter) << n for n, letter in enumerate(self.name))
        return picture_of(self.world, self.scenes, index), np.random.default_rng((self.seed, index, named))


@dataclass
class Detector(_Specialist):
    """Objects with boxes, masks and descriptions."""

    name: str = "detector"
    # Independent.
    missed: Chance = 0.0
    duplicated: Chance = 0.0
    shifted: Annotated[float, Field(ge=0, description="deviation of each edge, as a share of the side")] = 0.0
    mislabelled: Chance = 0.0
    invented: Annotated[float, Field(ge=0, description="regions an image")] = 0.0
    misdescribed: Annotated[Chance, Field(description="descriptions with another colour")] = 0.0
    # Systematic.
    small_missed: Annotated[Chance, Field(description="of objects smaller than `small`, a share of the side")] = 0.0
    small: float = 0.25
    occluded_missed: Annotated[Chance, Field(description="of objects of which less than `occluded` is seen")] = 0.0
    occluded: float = 0.8
    renamed: Annotated[dict[str, str], Field(description="class -> what it is always called")] = field(
        default_factory=dict
    )
    bias: Annotated[float, Field(description="by which every box is larger to the right and below, of its side")] = 0.0

    def faults(self, record: Record) -> list[Fault | None]:
        """What is wrong with what it says of each shape of a picture, but for places and descriptions."""
        picture, rng = self._known(record)
        return [fault for fault, _ in self._shapes(record, picture, rng, record.ids(self.name))]

    def _annotations(self, record: Record) -> Iterator[AnyAnnotation]:
        picture, rng = self._known(record)
        width, height = picture.world.size
        ids = record.ids(self.name)
        for _, found in self._shapes(record, picture, rng, ids):
            yield from found
        for _ in range(int(rng.poisson(self.invented))):
            side = float(rng.uniform(0.13, 0.4)) * min(width, height)
            x, y = float(rng.uniform(0, width - side)), float(rng.uniform(0, height - side))
            label = str(rng.choice(picture.world.labels))
            yield self._region(next(ids), (x, y, x + side, y + side), label, False, rng)

    def _shapes(
        self, record: Record, picture: Picture, rng: np.random.Generator, ids: Iterator[str]
    ) -> Iterator[tuple[Fault | None, list[AnyAnnotation]]]:
        width, height = picture.world.size
        hard = np.random.default_rng((self.scenes, int(Path(record.item.uri).stem), HARD))  # the same for everybody
        for shape in picture.shapes:
            is_small = math.sqrt(area(shape.box) / (width * height)) < self.small
            too_small, hidden = hard.random(2) < (
                self.small_missed * is_small,
                self.occluded_missed * (shape.visible < self.occluded),
            )
            missed = rng.random() < self.missed
            if too_small or hidden or missed:
                yield ("too small" if too_small else "hidden" if hidden else "missed"), []
                continue
            wrong = bool(rng.random() < self.mislabelled)
            label = self._other(shape.label, picture, rng) if wrong else self.renamed.get(shape.label, shape.label)
            fault: Fault | None = "mislabelled" if wrong else "renamed" if label != shape.label else None
            yield fault, list(self._shape(shape, label, picture, rng, ids))

    def _shape(
        self, shape: Shape, label: str, picture: Picture, rng: np.random.Generator, ids: Iterator[str]
    ) -> Iterator[AnyAnnotation]:
        size = picture.world.size[::-1]
        colour = str(rng.choice(list(COLOURS))) if rng.random() < self.misdescribed else shape.colour
        words = phrase(shape).replace(shape.label, label).replace(shape.colour, colour)
        for _ in range(1 + (rng.random() < self.duplicated)):
            box = self._moved(shape.box, picture, rng)
            region = self._region(next(ids), box, label, label == shape.label, rng)
            yield region
            yield RegionText(id=next(ids), source=self.name, region_id=region.id, text=words)
            pixels = decode_mask(Mask(id="", source="", region_id="", size=size, counts=shape.mask))
            counts = encode_mask(np.roll(pixels, round(float(box[0] - shape.box[0])), axis=1))
            yield Mask(id=next(ids), source=self.name, region_id=region.id, size=size, counts=counts)

    def _region(self, id_: str, box: Box, label: str, is_right: bool, rng: np.random.Generator) -> Region:
        """Surer of what is right than of what is not, and of both too sure."""
        score = 1 / (1 + math.exp(-float(rng.normal(2.2 if is_right else 0.9, 1.0))))
        scores = Scores(label=round(score, 4))
        return Region(id=id_, source=self.name, kind="object", box=box, raw_label=label, label=label, scores=scores)

    def _moved(self, box: Box, picture: Picture, rng: np.random.Generator) -> Box:
        w, h = box[2] - box[0], box[3] - box[1]
        a, b, c, d = rng.normal(0, self.shifted, 4).tolist()
        x0, y0 = box[0] + a * w, box[1] + b * h
        x1, y1 = max(box[2] + (c + self.bias) * w, x0 + 2), max(box[3] + (d + self.bias) * h, y0 + 2)
        return clip((x0, y0, x1, y1), *picture.world.size)

    def _other(self, label: str, picture: Picture, rng: np.random.Generator) -> str:
        return str(rng.choice([other for other in picture.world.labels if other != label]))


@dataclass
class Reader(_Specialist):
    """Words with quads."""

    name: str = "ocr"
    missed: Chance = 0.0
    misread: Annotated[Chance, Field(description="letters that become another one")] = 0.0
    invented: Annotated[float, Field(ge=0, description="words an image")] = 0.0
    confused: Annotated[dict[str, str], Field(description="letter -> as what it is always read")] = field(
        default_factory=dict
    )

    def _annotations(self, record: Record) -> Iterator[AnyAnnotation]:
        picture, rng = self._known(record)
        ids = record.ids(self.name)
        for word in picture.words:
            if rng.random() >= self.missed:
                text = "".join(self._letter(letter, rng) for letter in word.text)
                box = clip(quad_box(word.quad), *picture.world.size)
                scores = Scores(label=round(float(rng.uniform(0.6, 1.0)), 4))
                quad, name = word.quad, self.name
                yield Region(id=next(ids), source=name, kind="text", box=box, quad=quad, text=text, scores=scores)
        for _ in range(int(rng.poisson(self.invented))):
            x, y = rng.uniform(0, 40, 2).tolist()
            text = "".join(rng.choice(list("abcdefghijklmnop"), 3))
            box, scores = (x, y, x + 18.0, y + 10.0), Scores(label=round(float(rng.uniform(0.3, 0.8)), 4))
            yield Region(id=next(ids), source=self.name, kind="text", box=box, text=text, scores=scores)

    def _letter(self, letter: str, rng: np.random.Generator) -> str:
        if rng.random() < self.misread:
            other = str(rng.choice(list("abcdefghijklmnopqrstuvwxyz")))
            return other.upper() if letter.isupper() else other
        return self.confused.get(letter, letter)


@dataclass
class Captioner(_Specialist):
    """Texts of three granularities."""

    name: str = "captioner"
    wrong_words: Annotated[Chance, Field(description="colours, shapes, sides and numbers that become another")] = 0.0
    renamed: Annotated[Mapping[str, str], Field(description="class -> what it is always called")] = field(
        default_factory=dict
    )

    def _annotations(self, record: Record) -> Iterator[AnyAnnotation]:
        picture, rng = self._known(record)
        ids = record.ids(self.name)
        for told in tell(picture):
            text = self._told(told.text, picture, rng)
            yield Text(id=next(ids), source=self.name, text=text, detail=told.detail)

    def _told(self, text: str, picture: Picture, rng: np.random.Generator) -> str:
        groups = (tuple(COLOURS), picture.world.labels, ("two", "three"), ("left of", "right of"), ("above", "below"))
        for group in groups:
            for word in group:
                if word in text and rng.random() < self.wrong_words:
                    text = text.replace(word, str(rng.choice([other for other in group if other != word])), 1)
        for word, other in self.renamed.items():
            text = text.replace(word, other)
        return text
