"""A specialist without weights: what is left of a run is the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.protocols import Reads, Sample
from engine.records import AnyAnnotation, Region


@dataclass
class Weightless:
    """One region an image, over all of it; after `milliseconds` in which it sleeps, or computes on one core."""

    name: str = "weightless"
    milliseconds: float = 0.0
    by: Literal["sleeping", "computing"] = "sleeping"
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"
    reads: ClassVar[Reads] = "image"

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        seconds = len(batch) * self.milliseconds / 1000
        if self.by == "sleeping":
            time.sleep(seconds)
        else:
            end = time.thread_time() + seconds  # of this thread alone: two that share a core take twice as long
            while time.thread_time() < end:
                pass
        return [[self._region(sample)] for sample in batch]

    def _region(self, sample: Sample) -> Region:
        height, width = sample.image.shape[:2]
        box = (0.0, 0.0, float(width), float(height))
        return Region(id=next(sample.record.ids(self.name)), source=self.name, kind="object", box=box, label="thing")
