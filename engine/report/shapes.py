"""What is drawn over a picture, in the pixels of its thumbnail: SVG paths of boxes, quads and masks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from engine.geometry import clip, decode_mask
from engine.protocols import Image
from engine.records import Box, Mask, Region

SHOWN = 480  # pixels that a thumbnail is wide on a screen
LONGER = 640  # pixels of a thumbnail's longer side
LONGER_CUT = 200  # of what is cut out of a picture
AROUND = 0.6  # of a box's sides, that are cut out with it on each side
LEAST_AROUND = 16  # pixels of the image
QUALITY = 80  # of its JPEG: 40 to 70 kB
TOLERANCE = 1  # pixels by which a mask's outline may be off once it is simplified
MOST_POINTS = 2000  # of a mask; a mask of noise would weigh more than its picture
TAG_HEIGHT = 18  # pixels


@dataclass(frozen=True)
class Frame:
    """The size of a thumbnail, and its image's."""

    width: int
    height: int
    image_width: int
    image_height: int

    @property
    def enlarged(self) -> float:
        """How much larger it is shown on a screen, roughly."""
        return max(1.0, SHOWN / self.width)

    @classmethod
    def of(cls, image_width: int, image_height: int, longer: int = LONGER) -> Frame:
        scale = min(longer / max(image_width, image_height), 1)
        width, height = (max(round(side * scale), 1) for side in (image_width, image_height))
        return cls(width, height, image_width, image_height)

    def placed(self, coordinates: Sequence[float]) -> list[float]:
        """Pairs x, y of the image's pixels as the thumbnail's; what lies outside comes to its edge."""
        axes = ((self.image_width, self.width), (self.image_height, self.height))
        return [
            min(max(value, 0), axes[n % 2][0]) * axes[n % 2][1] / axes[n % 2][0] for n, value in enumerate(coordinates)
        ]


def jpeg(image: Image, frame: Frame) -> bytes:
    """`image` [height, width, 3] RGB as a JPEG of the frame's size."""
    small = Pillow.fromarray(image).resize((frame.width, frame.height), Pillow.Resampling.LANCZOS, reducing_gap=3)
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return sink.getvalue()


def data_uri(data: bytes) -> str:
    """A JPEG inside a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Cut:
    """A box with something around it, cut out of an image, and where the box then lies."""

    image: Image
    frame: Frame
    path: str


def cut_out(image: Image, region: Region) -> Cut:
    """The region in its surroundings. One that lies outside of the image comes to its edge."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = clip(region.box, width, height)
    around = max(AROUND * max(x1 - x0, y1 - y0), LEAST_AROUND)
    left, top = (math.floor(max(value - around, 0)) for value in (x0, y0))
    right, bottom = math.ceil(min(x1 + around, width)), math.ceil(min(y1 + around, height))
    piece = np.ascontiguousarray(image[top:bottom, left:right])
    frame = Frame.of(right - left, bottom - top, LONGER_CUT)
    corners = frame.placed([value - (left, top)[n % 2] for n, value in enumerate(region.quad or _corners(region.box))])
    return Cut(piece, frame, _path(list(zip(corners[0::2], corners[1::2], strict=True))))


def outline(region: Region, frame: Frame) -> str:
    """The quad of a region that has one, else its box, as an SVG path."""
    corners = frame.placed(region.quad or _corners(region.box))
    return _path(list(zip(corners[0::2], corners[1::2], strict=True)))


def mask_outline(mask: Mask, frame: Frame) -> str:
    """The contours of a mask, holes too (fill rule evenodd). Raises RecordError if it can't be decoded."""
    import cv2

    pixels = decode_mask(mask).astype(np.uint8) * 255
    small = cv2.resize(pixels, (frame.width, frame.height), interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours((small >= 128).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    contours = sorted(contours, key=cv2.contourArea, reverse=True)
    paths, points = [], 0
    for contour in contours:
        ring = cv2.approxPolyDP(contour, TOLERANCE, closed=True)[:, 0]
        points += len(ring)
        if points > MOST_POINTS:
            break
        # OpenCV's points are pixels, whose middle lies half a pixel further.
        paths.append(_path([(x + 0.5, y + 0.5) for x, y in ring.tolist()]))
    return "".join(paths)


def tag_places(
    corners: Sequence[tuple[float, float]], widths: Sequence[float], frame: Frame
) -> list[tuple[float, float]]:
    """Where tags go that shall stand at `corners`, in pixels of the thumbnail: lower if others are there.

    `widths` are rough: a browser knows its letters, and a screen may show the thumbnail a little larger or smaller. A
    small thumbnail is shown much larger, but not its tags.
    """
    scale = frame.enlarged
    shown = Frame(round(frame.width * scale), round(frame.height * scale), frame.image_width, frame.image_height)
    places = _places([(x * scale, y * scale) for x, y in corners], widths, shown)
    return [(round(x / scale, 1), round(y / scale, 1)) for x, y in places]


def _places(
    corners: Sequence[tuple[float, float]], widths: Sequence[float], frame: Frame
) -> Iterator[tuple[float, float]]:
    taken: list[Box] = []
    for (x, y), width in zip(corners, widths, strict=True):
        x, y = max(min(x, frame.width - width), 0), max(min(y, frame.height - TAG_HEIGHT), 0)
        free = (place for place in _below(x, y, width, frame) if not any(_meet(place, other) for other in taken))
        taken.append(next(free, (x, y, x + width, y + TAG_HEIGHT)))
    return ((place[0], place[1]) for place in taken)


def _below(x: float, y: float, width: float, frame: Frame) -> Iterator[Box]:
    for top in np.arange(y, frame.height - TAG_HEIGHT + 1, TAG_HEIGHT / 2).tolist()[:20]:
        yield x, top, x + width, top + TAG_HEIGHT


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _corners(box: Box) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y0, x1, y1, x0, y1


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{round(x, 1):g} {round(y, 1):g}" for x, y in points) + "Z"
