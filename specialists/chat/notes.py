"""What stands of an image, in words for a language model: brief texts, things and where they are, and what can be read.

Words that others wrote are JSON strings, in which no line ends and no tag begins: none can leave its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from engine.geometry import area, clip
from engine.records import Box, Record, Region, RegionText, Text
from specialists.distinct import distinct
from specialists.nouns import visible
from specialists.phrases import extent, place_of

# Of an image, the most prominent: 25,000 characters at most, 2000 of an ordinary photo.
TEXTS, THINGS, PHRASES, LINES = 5, 30, 2, 20  # phrases are of each thing
LONGEST = 160  # characters of what is quoted

Line: TypeAlias = tuple[str, tuple[str, ...]]  # and the ids of what it is made of


@dataclass(frozen=True)
class Notes:
    """Lines of words, and the ids of the annotations that they are made of. Empty if nothing is known."""

    words: str = ""
    ids: tuple[str, ...] = ()


NOTHING = Notes()


def notes_of(record: Record, size: tuple[int, int]) -> Notes:
    """Notes of `record`, all of which stands; its image is of `size` (width, height)."""
    blocks: dict[str, list[Line]] = {
        "Said of the whole image:": list(_texts(record.texts)),
        "Things in it, the most prominent first:": list(_things(record, size)),
        "Writing that was read in it:": list(_writing(record.regions, size)),
    }
    words = [word for title, lines in blocks.items() if lines for word in (title, *(f"- {line}" for line, _ in lines))]
    return Notes("\n".join(words), tuple(id_ for lines in blocks.values() for _, ids in lines for id_ in ids))


def _texts(texts: Iterable[Text]) -> Iterator[Line]:
    brief = [text for text in texts if text.detail == "brief" and _said(text.text)]
    for text in brief[:TEXTS]:
        yield quoted(text.text), (text.id,)


def _things(record: Record, size: tuple[int, int]) -> Iterator[Line]:
    """A line for each region that somebody named or described."""
    phrases: dict[str, list[RegionText]] = {}
    for one in record.region_texts:
        if _said(one.text):
            phrases.setdefault(one.region_id, []).append(one)
    known = [one for one in record.regions if one.kind != "text" and (_said(one.label or "") or one.id in phrases)]
    described_first = sorted(known, key=lambda region: region.id not in phrases)
    things = _prominent(distinct(described_first), size)
    for region in things[:THINGS]:
        said = phrases.get(region.id, [])[:PHRASES]
        name = quoted(region.label) if region.label else "something"
        several = ", several in one place" if region.crowd else ""
        as_said = f", described as {' and as '.join(quoted(one.text) for one in said)}" if said else ""
        box = _relative(region.box, size)
        yield f"{name}{several}, {place_of(box)}, {extent(box)}{as_said}", (region.id, *(one.id for one in said))
    if len(things) > THINGS:
        yield f"and {len(things) - THINGS} more, smaller or less sure", ()


def _writing(regions: Iterable[Region], size: tuple[int, int]) -> Iterator[Line]:
    """What can be read; the most prominent of it, in the order in which it was read."""
    legible = [region for region in regions if region.kind == "text" and _said(region.text or "")]
    chosen = {region.id for region in _prominent(distinct(legible), size)[:LINES]}
    for region in legible:
        if region.id in chosen:
            yield f"{quoted(region.text or '')}, {place_of(_relative(region.box, size))}", (region.id,)


def quoted(words: str) -> str:
    """Words as a JSON string on one line, without control characters and angle brackets; long ones end in "..."."""
    said = _said(words)
    shortened = said if len(said) <= LONGEST else f"{said[:LONGEST].rstrip()}..."
    return json.dumps(shortened, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _said(words: str) -> str:
    return " ".join(visible(words).split())


def _prominent(regions: Iterable[Region], size: tuple[int, int]) -> list[Region]:
    """Those with an area inside the image, by that and how sure their source is, the most prominent first."""
    shares = [(area(_relative(region.box, size)), region) for region in regions]
    weights = [(share * _certainty(region), region) for share, region in shares if share > 0]
    return [region for _, region in sorted(weights, key=lambda pair: pair[0], reverse=True)]


def _certainty(region: Region) -> float:
    score = region.scores.label
    return 1.0 if score is None else min(max(score, 0.0), 1.0)


def _relative(box: Box, size: tuple[int, int]) -> Box:
    """In shares of the image's width and height, clipped to it."""
    width, height = size
    x0, y0, x1, y1 = clip(box, width, height)
    return x0 / width, y0 / height, x1 / width, y1 / height
