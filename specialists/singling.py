"""Of all the regions that a noun phrase may mean, those that it does: by number, colour, size and place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.geometry import area
from engine.protocols import Image
from engine.records import Mask, Phrase, Record, Region, Text
from specialists.appearance import COLOURS, colour_of
from specialists.reference import count_of

# What words say of a region's place and size, as a number that is low where they fit best. Boxes are (x0, y0, x1, y1)
# in fractions of the image; what is near stands low in a photo, or is large.
Measure = Callable[[tuple[float, float, float, float]], float]
MEASURES: dict[str, Measure] = {
    "left": lambda box: box[0] + box[2],
    "right": lambda box: -box[0] - box[2],
    "top": lambda box: box[1] + box[3],
    "bottom": lambda box: -box[1] - box[3],
    "centre": lambda box: abs(box[0] + box[2] - 1) + abs(box[1] + box[3] - 1),
    "front": lambda box: -box[3],
    "back": lambda box: box[3],
    "large": lambda box: -area(box),
    "small": area,
}
WORDS = {
    **dict.fromkeys(("left", "leftmost", "left-hand"), "left"),
    **dict.fromkeys(("right", "rightmost", "right-hand"), "right"),
    **dict.fromkeys(("top", "upper", "topmost"), "top"),
    **dict.fromkeys(("bottom", "lower", "bottommost"), "bottom"),
    **dict.fromkeys(("centre", "center", "middle", "central"), "centre"),
    **dict.fromkeys(("foreground", "nearest", "closest", "near"), "front"),
    **dict.fromkeys(("background", "farthest", "furthest", "distant", "distance"), "back"),
    **dict.fromkeys(("large", "larger", "largest", "big", "bigger", "biggest", "huge"), "large"),
    **dict.fromkeys(("small", "smaller", "smallest", "little", "tiny"), "small"),
}
# Colours that one thing may have in one light and another; measured, that is, or named by somebody else.
ALIKE = {
    frozenset((one, other))
    for one, others in (
        ("grey", ("black", "white", "blue", "brown")),
        ("brown", ("black", "red", "orange", "yellow")),
        ("orange", ("red", "yellow")),
        ("pink", ("red", "purple")),
        ("blue", ("black", "purple")),
        ("yellow", ("white", "green")),
    )
    for other in others
}
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
CLEARLY = 0.05  # of the image: what is first by less is not first


@dataclass
class View:
    """An image and what stands of its record. Colours are measured when they are asked for, and once."""

    image: Image
    record: Record
    _colours: dict[str, str | None] = field(default_factory=dict)

    def colour(self, region: Region) -> str | None:
        if region.id not in self._colours:
            self._colours[region.id] = colour_of(self.image, region, self._mask(region))
        return self._colours[region.id]

    def box(self, region: Region) -> tuple[float, float, float, float]:
        """In fractions of the image."""
        height, width = self.image.shape[:2]
        x0, y0, x1, y1 = region.box
        return x0 / width, y0 / height, x1 / width, y1 / height

    def _mask(self, region: Region) -> Mask | None:
        return next((mask for mask in self.record.masks if mask.region_id == region.id), None)


def single_out(candidates: Sequence[Region], phrase: Phrase, text: Text, view: View) -> Sequence[Region]:
    """The regions among `candidates` that `phrase` of `text` means; none if that can't be told.

    A phrase of a number means exactly so many; a plural without number means all that fit it. A place or size that it
    names tells which are meant only with a number, unless the text was made from the candidates.
    """
    crowds = [region for region in candidates if region.crowd]
    singles = [region for region in candidates if not region.crowd]
    words = _words(phrase, text.text)
    count = count_of(phrase, text.text, (candidates[0].label or "") if candidates else "")
    fitting = _of_colour(singles, words, view)
    if count is None:
        known = {region.id for region in candidates} <= set(text.derived_from)
        if not known and len(candidates) > 1 and any(word in WORDS for word in words):
            return []
        return [*fitting, *(crowds if fitting == singles else ())]
    if count > 1 and len(crowds) == 1 and not singles:
        return crowds
    return _first(fitting, count, words, view)


def _words(phrase: Phrase, text: str) -> list[str]:
    """The words of the expression, without those of the noun phrases that hang on it: of "the cup to the left of the
    big plate", it is not the cup that is big."""
    core = text[phrase.start : phrase.stop]
    after = text[phrase.stop : phrase.expression_stop]
    place = re.match(
        r"\s*(?:,?\s*(?:on|at|in|to|near|from)\s+the\s+(?:far\s+|very\s+)?([\w-]+(?:\s+(?:left|right))?))", after
    )
    # "to the left of the plate" is relative to the plate, and no place in the image.
    absolute = place is not None and not re.match(
        r"\s*(?:side\s+)?of\s+(?!the\s+(?:image|photo|picture|frame))", after[place.end() :]
    )
    return WORD.findall(core.casefold()) + (WORD.findall(place[1].casefold()) if place and absolute else [])


def _of_colour(regions: Sequence[Region], words: Sequence[str], view: View) -> Sequence[Region]:
    """Those of the colour that is named, or else those that may have it: colours are a matter of light, but not so much
    that black is white. What colour of a person is meant, skin or clothes, nobody knows."""
    colours = {"grey" if word == "gray" else word for word in words} & set(COLOURS)
    if not colours:
        return regions
    measured = {region.id: None if region.label == "person" else view.colour(region) for region in regions}
    having = [region for region in regions if measured[region.id] in colours]
    return having or [region for region in regions if not _contradicts(measured[region.id], colours)]


def _contradicts(measured: str | None, named: set[str]) -> bool:
    return measured is not None and not any(frozenset((measured, name)) in ALIKE for name in named)


def _first(regions: Sequence[Region], count: int, words: Sequence[str], view: View) -> Sequence[Region]:
    """The `count` that come first by the places and sizes that are named, if they come clearly before the others."""
    if len(regions) <= count:
        return regions if len(regions) == count else []
    measures = [MEASURES[WORDS[word]] for word in words if word in WORDS]
    if not measures:
        return []
    total = {region.id: sum(measure(view.box(region)) for measure in measures) for region in regions}
    ranked = sorted(regions, key=lambda region: total[region.id])
    gap = total[ranked[count].id] - total[ranked[count - 1].id]
    return ranked[:count] if gap > CLEARLY else []
