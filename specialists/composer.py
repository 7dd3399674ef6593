"""The composer: texts from what the other specialists found, where there is no model that writes captions.

It says nothing that is not annotated or measured: how many things of which label stand, where their boxes are, their
colours (`specialists.appearance`), and what can be read. How it is put differs from image to image, by a digest of the
item's id. What was read is quoted; to this it is letters and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from engine import geometry
from engine.native import native_threads
from engine.protocols import Sample
from engine.records import DETAILS, RegionText, Text
from engine.versions import digest_of
from specialists import appearance, distinct, nouns, phrases, scene, sentences, telling


@dataclass
class Composer:
    """A text for each granularity with enough to say, and a phrase for each of the most prominent object regions."""

    name: str = "composer"
    max_regions: Annotated[
        int, Field(ge=0, description="of an image; the largest and surest get a phrase, and their colours are measured")
    ] = 20
    licence: ClassVar[str] = "Apache-2.0"

    @property
    def version(self) -> str:
        parts = (appearance, distinct, geometry, nouns, phrases, scene, sentences, telling)
        packages = ("inflect", "opencv-python-headless", "pycocotools", "numpy")
        return digest_of(__name__, *(Path(str(part.__file__)) for part in parts), packages=packages)

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(native_threads())
        # 2 s for inflect and 0.1 s for OpenCV's tables that are no image's fault.
        nouns.article("cup")
        appearance.tone_of(np.zeros((1, 1, 3), np.uint8))

    def annotate(self, batch: Sequence[Sample]) -> list[list[Text | RegionText]]:
        return [list(self._composed(sample)) for sample in batch]

    def _composed(self, sample: Sample) -> Iterator[Text | RegionText]:
        ids = sample.record.ids(self.name)
        voice = sentences.Voice(sample.record.item.item_id)
        seen = scene.look(sample.image, sample.standing, self.max_regions)
        for detail in DETAILS:
            told = telling.tell(seen, detail, voice)
            if told is not None:
                yield Text(id=next(ids), source=self.name, derived_from=told.ids, text=told.text, detail=detail)
        for thing in seen.things[: self.max_regions]:
            yield RegionText(
                id=next(ids),
                source=self.name,
                derived_from=(thing.region.id,),
                region_id=thing.region.id,
                text=phrases.placed([scene.Group((thing,))]),
            )
