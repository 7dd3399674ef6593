"""A scene: what is known to be true of one image, in the parts that the fifteen tasks ask for.

Whoever has annotations of another form makes scenes of them; `targets` makes of a scene what the model learns, and
`augment` changes image and scene together. Coordinates are pixels of the image as it is given, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from florence2.tasks import Box

Detail = Literal["brief", "detailed", "more_detailed"]
Quad = tuple[float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an original lie in the scene: (x, y) -> (x * scale_x + shift_x, y * scale_y + shift_y).

    A mirrored image has a negative scale_x. Nothing is turned or sheared.
    """

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0

    def points(self, values: Sequence[float]) -> tuple[float, ...]:
        """x, y, x, y, ... moved, in their order."""
        ways = ((self.scale_x, self.shift_x), (self.scale_y, self.shift_y))
        return tuple(v * ways[i % 2][0] + ways[i % 2][1] for i, v in enumerate(values))

    def then(self, other: Placement) -> Placement:
        """This one first, and then `other`."""
        return Placement(
            self.scale_x * other.scale_x,
            self.shift_x * other.scale_x + other.shift_x,
            self.scale_y * other.scale_y,
            self.shift_y * other.scale_y + other.shift_y,
        )


@dataclass(frozen=True)
class Mask:
    """The pixels of a thing: COCO's compressed run-length `counts` over an original of `size` (height, width), and
    where that lies in the scene. Turning it into outlines waits until a target asks for it: see `polygons`."""

    size: tuple[int, int]
    counts: bytes
    placement: Placement = Placement()


@dataclass(frozen=True)
class Thing:
    """An object, or without a label a proposal. `texts` describe it, the best first. A `crowd` is many in one box."""

    box: Box
    label: str | None = None
    texts: tuple[str, ...] = ()
    mask: Mask | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Line:
    """Words that stand in the image: what they say, and their corners, clockwise from the text's own top left. `parts`
    are the caller's names for it: of a line that is joined, all of its words'."""

    quad: Quad
    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrase:
    """The characters [start, stop) of a caption, and the things (places in the scene's) that they name.

    [expression_start, expression_stop) is the phrase with all that tells the thing apart: "a dog on a leash".
    """

    start: int
    stop: int
    things: tuple[int, ...]
    expression_start: int
    expression_stop: int


@dataclass(frozen=True)
class Caption:
    text: str
    detail: Detail
    phrases: tuple[Phrase, ...] = ()


@dataclass(frozen=True)
class Scene:
    """What is true of an image of `size` (width, height).

    `exhaustive` are the labels of which every instance is among the things: only of these is an absence known.
    """

    size: tuple[float, float]
    captions: tuple[Caption, ...] = ()
    things: tuple[Thing, ...] = ()
    lines: tuple[Line, ...] = ()
    exhaustive: frozenset[str] = frozenset()
