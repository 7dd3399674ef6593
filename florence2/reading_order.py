"""Words to lines, and lines to the order in which a person reads them.

Columns come from an XY-cut: a block of text is cut into bands where no word crosses, neighbouring bands that share a
gutter are one piece, and a piece is cut at its gutters into columns, which are blocks again. What has no gutter is
lines. Left to right and top to bottom: pages that are read otherwise come out in that order, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import hypot
from statistics import median
from typing import cast

from florence2.scene import Line, Quad
from florence2.tasks import Box

GUTTER = 1.5  # heights of the median word that a gutter is wide; between words there is about a third of one
SAME_LINE = 0.5  # of the lower word's height that two words of a line share, at least
ABREAST = 0.5  # of the narrower word's width from which on two words are above one another, and no line
Gap = tuple[float, float]
Band = list[Line]


def lines_in_order(words: Iterable[Line], same_line: float = SAME_LINE) -> list[Line]:
    """Words, or lines already, joined to lines where they share `same_line` of their height; in reading order.

    A joined line has its words in their order with a space between, and the smallest quad around them that leans as
    they do. Words that say nothing are left out.
    """
    said = [replace(word, quad=turned_clockwise(word.quad), text=word.text.strip()) for word in words]
    said = [word for word in said if word.text]
    if not said:
        return []
    gutter = GUTTER * median(y1 - y0 for _, y0, _, y1 in map(box_around, (word.quad for word in said)))
    return block(said, gutter, same_line)


def box_around(quad: Quad) -> Box:
    xs, ys = quad[0::2], quad[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def block(words: Sequence[Line], gutter: float, same_line: float) -> list[Line]:
    ordered: list[Line] = []
    for piece in pieces(bands(words, 1, 0.0), gutter):
        columns = bands(piece, 0, gutter)
        if len(columns) > 1:
            ordered += [line for column in columns for line in block(column, gutter, same_line)]
        else:
            ordered += joined(piece, same_line)
    return ordered


def bands(words: Iterable[Line], axis: int, gap: float) -> list[Band]:
    """The words in groups, one behind the other along x (axis 0) or y (1), with more than `gap` between them."""
    found: list[Band] = []
    end = 0.0
    for word in sorted(words, key=lambda word: extent(word, axis)):
        start, stop = extent(word, axis)
        if found and start - end <= gap:
            found[-1].append(word)
            end = max(end, stop)
        else:
            found.append([word])
            end = stop
    return found


def extent(word: Line, axis: int) -> Gap:
    """From where to where it reaches along an axis."""
    box = box_around(word.quad)
    return box[axis], box[axis + 2]


def pieces(rows: Iterable[Band], gutter: float) -> list[Band]:
    """Bands from top to bottom, neighbours together as long as one gutter goes through them all.

    One of them must have words on both sides of it: two signs, one below and to the left of the other, have no gutter.
    """
    found: list[Band] = []
    for row in rows:
        together = [*found[-1], *row] if found else row
        has_gutter = any(len(bands(part, 0, gutter)) > 1 for part in (*found[-1:], row))
        if found and has_gutter and len(bands(together, 0, gutter)) > 1:
            found[-1] = together
        else:
            found.append(row)
    return found


def joined(words: Iterable[Line], same_line: float) -> list[Line]:
    """Words without a gutter to lines, from top to bottom."""
    lines: list[Band] = []
    for word in sorted(words, key=lambda word: extent(word, 0)):
        fitting = [line for line in lines if in_line(word, line[-1], same_line)]
        if fitting:
            min(fitting, key=lambda line: abs(middle(line[-1]) - middle(word))).append(word)
        else:
            lines.append([word])
    return [one_line(line) for line in sorted(lines, key=lambda line: min(map(middle, line)))]


def in_line(word: Line, other: Line, same_line: float) -> bool:
    return shared(word, other, 1) >= same_line and shared(word, other, 0) < ABREAST


def shared(a: Line, b: Line, axis: int) -> float:
    """The share of the shorter extent that lies in the other; two without an extent share all or nothing."""
    (a0, a1), (b0, b1) = extent(a, axis), extent(b, axis)
    common, shorter = min(a1, b1) - max(a0, b0), min(a1 - a0, b1 - b0)
    return common / shorter if shorter else float(common >= 0)


def middle(word: Line) -> float:
    y0, y1 = extent(word, 1)
    return (y0 + y1) / 2


def one_line(words: Band) -> Line:
    if len(words) == 1:
        return words[0]
    x, y = direction(words)
    words = sorted(words, key=lambda word: sum(word.quad[0::2]) * x + sum(word.quad[1::2]) * y)
    corners = [(word.quad[n], word.quad[n + 1]) for word in words for n in range(0, 8, 2)]
    along = [px * x + py * y for px, py in corners]
    across = [py * x - px * y for px, py in corners]
    frame = ((min(along), min(across)), (max(along), min(across)), (max(along), max(across)), (min(along), max(across)))
    quad = tuple(v for a, b in frame for v in (a * x - b * y, a * y + b * x))
    parts = tuple(part for word in words for part in word.parts)
    return Line(cast(Quad, quad), " ".join(word.text for word in words), parts)


def direction(words: Iterable[Line]) -> Gap:
    """Which way the words run, of length 1: the sum of their upper edges."""
    quads = [word.quad for word in words]
    x, y = sum(q[2] - q[0] for q in quads), sum(q[3] - q[1] for q in quads)
    length = hypot(x, y)
    return (x / length, y / length) if length else (1.0, 0.0)


def turned_clockwise(quad: Quad) -> Quad:
    """From the same corner, but clockwise to the eye: where a source goes round the other way."""
    x0, y0, x1, y1, x2, y2, x3, y3 = quad
    twice_area = (x2 - x0) * (y3 - y1) - (x3 - x1) * (
        y2 - y0
    )  # of the diagonals; above 0 is clockwise where y goes down
    return quad if twice_area >= 0 else (x0, y0, x3, y3, x2, y2, x1, y1)
