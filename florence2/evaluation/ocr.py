"""Text in images: are the words found, are they read, and by how many characters are they wrong?"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import shapely
from rapidfuzz.distance import Levenshtein
from shapely.geometry.base import BaseGeometry

from florence2.errors import Florence2Error
from florence2.evaluation.result import Numbers, Result, f_measure, ratio

Id = TypeVar("Id", int, str)
IOU = 0.5
IN_DONT_CARE = 0.5  # of its own area: what was found there is ignored, as in ICDAR 2015


@dataclass(frozen=True)
class Line:
    """A word or line. outline: x, y of three corners or more in pixels, a quad's four mostly; a box is x0, y0, x1, y1.

    text: None in the truth for what nobody can read (ICDAR's "###"): it needn't be found, and may be.
    """

    outline: Sequence[float]
    text: str | None


def spotting(truth: Mapping[Id, Sequence[Line]], found: Mapping[Id, Sequence[Line]]) -> Result:
    """Precision, recall and F1 of outlines ("detection"), and of outlines with their text ("end-to-end"), and CER.

    truth: every image that counts, also without text; what was found in others is left out, and counted.
    Florence2Error, naming the image, for an outline that is none.
    """
    ids = sorted(truth)
    matched = [match(truth[id], found.get(id, ()), f"image {id}") for id in ids]
    there, seen = sum(len(one.truth) for one in matched), sum(len(one.found) for one in matched)
    pairs = [pair for one in matched for pair in one.pairs]
    numbers: Numbers = {}
    for name, same in SAME.items():
        measured = f_measure(sum(same(a, b) for a, b in pairs), seen, there)
        numbers |= {f"{name} {number}": value for number, value in measured.items()}
    left = sum(len(text) for one in matched for text in one.missed)
    surplus = sum(len(text) for one in matched for text in one.surplus)
    edits, length = sum(Levenshtein.distance(a, b) for a, b in pairs), sum(len(a) for a, _ in pairs)
    numbers["CER"] = ratio(edits + left + surplus, length + left)
    numbers["CER of matched"] = ratio(edits, length)
    return Result(
        numbers,
        {
            "images": len(ids),
            "lines": there,
            "don't care": sum(line.text is None for id in ids for line in truth[id]),
            "found": seen,
            "found in don't care": sum(len(found.get(id, ())) for id in ids) - seen,
            "matched": len(pairs),
            "images without truth": sum(id not in truth for id in found),
        },
        f"word spotting after ICDAR 2015: outlines matched one to one, the largest IoU first, at IoU >= {IOU}; found "
        f"lines with more than {IN_DONT_CARE:.0%} of their area in don't-care regions are ignored; end-to-end: the "
        "text is the same, too, case-sensitive or not, by all its characters. " + CER,
    )


def character_error_rate(truth: Mapping[Id, str], found: Mapping[Id, str]) -> Result:
    """CER of whole texts, one an image; an image without an answer has all its characters wrong."""
    pairs = [(normal(text), normal(found.get(id, ""))) for id, text in truth.items()]
    edits = sum(Levenshtein.distance(a, b) for a, b in pairs)
    return Result(
        {
            "CER": ratio(edits, sum(len(a) for a, _ in pairs)),
            "exact": ratio(sum(a == b for a, b in pairs), len(pairs)),
        },
        {
            "images": len(pairs),
            "characters": sum(len(a) for a, _ in pairs),
            "images without truth": sum(id not in truth for id in found),
        },
        "exact: share of images with the very text. " + CER,
    )


CER = (
    "CER: Levenshtein edits of all texts together over the characters of the truth, case-sensitive, Unicode NFC, white "
    "space as one space; what was missed and what is surplus counts with all its characters"
)
SAME: dict[str, Callable[[str, str], bool]] = {
    "detection": lambda a, b: True,
    "end-to-end": lambda a, b: a == b,
    "end-to-end caseless": lambda a, b: a.casefold() == b.casefold(),
}


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True)
class Matched:
    """The texts of an image, without those that don't count."""

    truth: list[str]
    found: list[str]
    pairs: list[tuple[str, str]]  # truth, found
    missed: list[str]
    surplus: list[str]


def match(truth: Sequence[Line], found: Sequence[Line], where: str) -> Matched:
    cared = [line for line in truth if line.text is not None]
    ignored = outlines([line for line in truth if line.text is None], where)
    shapes = outlines(found, where)
    counts = [not inside(shape, ignored) for shape in shapes]
    kept = [line for line, count in zip(found, counts, strict=True) if count]
    own = outlines(cared, where)
    seen = [shape for shape, count in zip(shapes, counts, strict=True) if count]
    texts, read = ([normal(line.text or "") for line in lines] for lines in (cared, kept))
    pairs = one_to_one(own, seen)
    missed = set(range(len(texts))) - {a for a, _ in pairs}
    surplus = set(range(len(read))) - {b for _, b in pairs}
    return Matched(
        texts, read, [(texts[a], read[b]) for a, b in pairs], [texts[a] for a in missed], [read[b] for b in surplus]
    )


def outlines(lines: Sequence[Line], where: str) -> list[BaseGeometry]:
    return [outline(line.outline, where) for line in lines]


def outline(given: Sequence[float], where: str) -> BaseGeometry:
    try:
        points = np.asarray(given, np.float64).ravel()
    except (TypeError, ValueError):
        points = np.array([np.nan])
    if len(points) == 4:
        points = points[[0, 1, 2, 1, 2, 3, 0, 3]]
    if len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise Florence2Error(f"{where}: expected an outline of finite x, y, x, y, ...; got {given!r:.200}")
    shape = shapely.Polygon(points.reshape(-1, 2))
    return shape if shape.is_valid else shapely.make_valid(shape)  # one whose sides cross is its parts


def inside(shape: BaseGeometry, ignored: Sequence[BaseGeometry]) -> bool:
    return any(shape.intersection(other).area > IN_DONT_CARE * shape.area for other in ignored)


def one_to_one(truth: Sequence[BaseGeometry], found: Sequence[BaseGeometry]) -> list[tuple[int, int]]:
    """Places of those that belong together: the largest IoU first, each once."""
    if not truth or not found:
        return []
    near = shapely.STRtree(found).query(truth, predicate="intersects")
    overlaps = []
    for a, b in near.T.tolist():
        both = truth[a].intersection(found[b]).area
        either = truth[a].area + found[b].area - both
        if both >= IOU * either > 0:
            overlaps.append((-both / either, a, b))
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for _, a, b in sorted(overlaps):
        if a not in taken[0] and b not in taken[1]:
            pairs.append((a, b))
            taken[0].add(a)
            taken[1].add(b)
    return sorted(pairs)
