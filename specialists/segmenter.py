"""The embedded segmenter: OpenCV's GrabCut, prompted with a box. It has no weights, so it runs anywhere.

GrabCut (Rother, Kolmogorov, Blake 2004) learns the colours of the thing from inside the box and those of the
background from a margin around it, and cuts between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from engine.geometry import MaskArray, clip, encode_mask
from engine.native import native_threads
from engine.protocols import Image, Sample
from engine.records import Box, Kind, Mask, Region
from engine.versions import digest_of

Share = Annotated[float, Field(ge=0, le=1)]

SMALLEST = 4  # px: sides of a box with colours to learn from
EMPTY, FULL = 0.01, 0.99  # shares of its box below and above which a mask says nothing
LEAST_BACKGROUND = 0.05  # of what is looked at; with less, a cat that fills its photo loses all but its nose


@dataclass
class GrabCut:
    """Masks of regions; none where the cut fails: nothing, or the whole box, or too little background around it."""

    name: str = "segmenter"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that get a mask")] = ("object",)
    min_score: Annotated[Share, Field(description="regions with a lower label score get no mask")] = 0.35
    max_regions: Annotated[int, Field(ge=0, description="of an image; the surest get masks")] = 20
    margin: Annotated[float, Field(gt=0, le=1, description="of the box's sides: the background to learn from")] = 0.15
    iterations: Annotated[int, Field(ge=1, description="of learning and cutting")] = 5
    max_side: Annotated[int, Field(ge=32, description="px: what is larger is cut smaller, and the mask enlarged")] = 320
    licence: ClassVar[str] = "Apache-2.0"

    @property
    def version(self) -> str:
        return digest_of(__name__, packages=("opencv-python-headless", "pycocotools", "numpy"))

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(native_threads())

    def annotate(self, batch: Sequence[Sample]) -> list[list[Mask]]:
        return [list(self._masks(sample)) for sample in batch]

    def _masks(self, sample: Sample) -> Iterator[Mask]:
        ids = sample.record.ids(self.name)
        height, width = sample.image.shape[:2]
        for region in self._chosen(sample.record.standing.regions):
            found = self._cut(sample.image, clip(region.box, width, height))
            if found is not None:
                mask, corner = found
                yield Mask(
                    id=next(ids),
                    source=self.name,
                    region_id=region.id,
                    derived_from=(region.id,),
                    size=(height, width),
                    counts=encode_mask(mask, corner, (height, width)),
                )

    def _chosen(self, regions: Sequence[Region]) -> list[Region]:
        """The surest first; those without a score count as sure."""
        scored = [(1.0 if r.scores.label is None else r.scores.label, r) for r in regions if r.kind in self.kinds]
        ranked = sorted(scored, key=lambda pair: pair[0], reverse=True)
        return [region for score, region in ranked[: self.max_regions] if score >= self.min_score]

    def _cut(self, image: Image, box: Box) -> tuple[MaskArray, tuple[int, int]] | None:
        """The mask inside the box, and the box's top left (x, y) in whole pixels; None where the cut fails."""
        import cv2

        x0, y0, x1, y1 = (round(value) for value in box)
        if min(x1 - x0, y1 - y0) < SMALLEST:
            return None
        view, inner = self._view(image, (x0, y0, x1, y1))
        labels = np.full(view.shape[:2], cv2.GC_BGD, dtype=np.uint8)
        labels[inner] = cv2.GC_PR_FGD
        if (labels == cv2.GC_BGD).mean() < LEAST_BACKGROUND or min(labels[inner].shape) < SMALLEST:
            return None
        cv2.setRNGSeed(0)  # its clusters begin at random
        cv2.grabCut(view, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), self.iterations, cv2.GC_INIT_WITH_MASK)
        cut = np.isin(labels[inner], (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
        mask = cv2.resize(cut, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) >= 0.5
        return (mask, (x0, y0)) if EMPTY < mask.mean() < FULL else None

    def _view(self, image: Image, box: tuple[int, int, int, int]) -> tuple[Image, tuple[slice, slice]]:
        """The box with its margin, cut out and made smaller, and where in it the box is (rows, columns)."""
        import cv2

        x0, y0, x1, y1 = box
        dx, dy = round(self.margin * (x1 - x0)), round(self.margin * (y1 - y0))
        left, top = max(x0 - dx, 0), max(y0 - dy, 0)
        view = image[top : y1 + dy, left : x1 + dx]
        scale = min(self.max_side / max(view.shape[:2]), 1.0)
        size = max(round(view.shape[1] * scale), 1), max(round(view.shape[0] * scale), 1)
        small = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
        rows = slice(round((y0 - top) * scale), round((y1 - top) * scale))
        columns = slice(round((x0 - left) * scale), round((x1 - left) * scale))
        return small.astype(np.uint8, copy=False), (rows, columns)
