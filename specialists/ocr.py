"""The embedded OCR: RapidOCR with the PP-OCRv6 weights of its own wheel, on a CPU; on a GPU with onnxruntime-gpu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.geometry import quad_box
from engine.native import native_threads
from engine.protocols import Image, Reads, Sample
from engine.records import Quad, Region, Scores
from engine.versions import digest_of
from specialists import folding
from specialists.folding import GREY, STRIP, Page, fold

PAGE_SIDE = 2000  # px: RapidOCR makes larger images smaller before it looks for text
LEGIBLE = 8  # px: below that there are no letters, and RapidOCR fails


@dataclass(frozen=True)
class Line:
    """A line of text as it was read: four corners in pixels of the image, clockwise from the one at its top left.

    For text upside down that isn't the text's own: RapidOCR turns it before it reads, and doesn't say so.
    """

    quad: Quad
    text: str
    score: float
    row: int  # of the page that it was read in

    def covers(self, other: Line) -> bool:
        """Whether `other`, of another row, lies in this one: a share of its area would let its last letters go."""
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = quad_box(self.quad), quad_box(other.quad)
        beyond = max(ax0 - bx0, ay0 - by0, bx1 - ax1, by1 - ay1)
        return self.row != other.row and beyond <= _slack(np.reshape(other.quad, (4, 2)))


@dataclass
class RapidOcr:
    """Regions of kind "text": quads, what they say, and how sure the reader is (label score), in reading order.

    In strips longer than six times their width, a line longer than twice the width may come in pieces.
    """

    name: str = "ocr"
    min_score: Annotated[float, Field(ge=0, le=1, description="lines below are not reported")] = 0.3
    licence: ClassVar[str] = "Apache-2.0"
    reads: ClassVar[Reads] = "image"
    _read: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def version(self) -> str:
        packages = ("rapidocr", "onnxruntime", "opencv-python-headless", "pyclipper", "shapely")
        return digest_of(__name__, Path(folding.__file__), *_weights(), packages=packages)

    def setup(self) -> None:
        from onnxruntime import get_available_providers
        from rapidocr import RapidOCR

        self._read = RapidOCR(
            params={
                "EngineConfig.onnxruntime.intra_op_num_threads": native_threads(),
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "EngineConfig.onnxruntime.use_cuda": "CUDAExecutionProvider" in get_available_providers(),
                "Global.log_level": "critical",  # it reports "no text found" as a warning
                "Global.text_score": self.min_score,
            }
        )
        self._read(_page_to_warm_up())  # it loads its weights when it needs them

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region]]:
        return [self._regions(sample) for sample in batch]

    def _regions(self, sample: Sample) -> list[Region]:
        ids = sample.record.ids(self.name)
        return [
            Region(
                id=next(ids),
                source=self.name,
                kind="text",
                box=quad_box(line.quad),
                quad=line.quad,
                text=line.text,
                scores=Scores(label=line.score),
            )
            for line in self._lines(sample.image)
        ]

    def _lines(self, image: Image) -> list[Line]:
        page = fold(image, PAGE_SIDE)
        if min(page.breadth, page.length) < LEGIBLE:
            return []
        answer = self._read(np.ascontiguousarray(widened(page.pixels)[:, :, ::-1]))  # BGR
        if answer.txts is None:
            return []
        lines = []
        for corners, text, score in zip(answer.boxes, answer.txts, answer.scores, strict=True):
            row = _row(page, corners)
            if row is not None and text.strip():
                quad: Any = tuple(page.unfolded(corners.astype(np.float64), row).ravel().tolist())
                lines.append(Line(quad, text, float(score), row))
        return lines if len(page.starts) == 1 else _distinct(lines)


def widened(pixels: Image) -> Image:
    """A narrow page with grey at its right or bottom: RapidOCR enlarges what it sees until the shorter side has 736 px.

    Without it, a page of 60 x 1990 px took 24 s and 2.8 GB on one core, with it 1.8 s.
    """
    least = math.ceil(max(pixels.shape) / STRIP)
    missing = [(0, max(least - side, 0)) for side in pixels.shape[:2]]
    return np.pad(pixels, [*missing, (0, 0)], constant_values=GREY)


def _slack(corners: npt.NDArray[Any]) -> float:
    """By how much two readings of a line [4, 2] may differ: half the height of its letters."""
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).min()) / 2


def _row(page: Page, corners: npt.NDArray[Any]) -> int | None:
    """The row that owns a line. Near a border both may: they put its middle differently, and neither's might count."""
    for shift in (0.0, -_slack(corners), _slack(corners)):
        row = page.owner(corners + ((0, shift) if page.tall else (shift, 0)))
        if row is not None:
            return row
    return None


def _distinct(lines: Sequence[Line]) -> list[Line]:
    """Without what was read again in the overlap of two rows: lines that a larger one, or one before, covers."""
    return [
        line
        for n, line in enumerate(lines)
        if not any(other.covers(line) and (m < n or not line.covers(other)) for m, other in enumerate(lines) if m != n)
    ]


@cache
def _weights() -> tuple[Path, ...]:
    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.origin is not None
    return tuple(sorted((Path(spec.origin).parent / "models").glob("*.onnx")))


def _page_to_warm_up() -> Image:
    """Stripes that the detector takes for text, so that the reader gets something to read."""
    page = np.full((64, 256, 3), 255, dtype=np.uint8)
    page[20:44, 20:236:8] = 0
    page[20:44, 23:236:8] = 0
    return page
