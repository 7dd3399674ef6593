"""English for a scene: what there is, where it is, how things stand to each other, and what can be read.

Each function puts measured facts into one sentence or phrase. Those that can be put in several ways take a `Voice`,
which decides by the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import Box, digest16
from specialists.appearance import Tone
from specialists.nouns import counted
from specialists.scene import SMALL, Group, Quote, arrangement, relation, zone

PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the centre", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)
ROWS = ("at the top", "across the middle", "at the bottom")
COLUMNS = ("on the left", "down the middle", "on the right")
# A box's side in words: the nearest of these.
FRACTIONS = (
    (1 / 20, "a twentieth"),
    (1 / 10, "a tenth"),
    (1 / 5, "a fifth"),
    (1 / 4, "a quarter"),
    (1 / 3, "a third"),
    (2 / 5, "two fifths"),
    (1 / 2, "half"),
    (3 / 5, "three fifths"),
    (2 / 3, "two thirds"),
    (3 / 4, "three quarters"),
    (9 / 10, "nine tenths"),
)
EDGE = 0.01  # of the image's side: what comes closer reaches the edge


@dataclass(frozen=True)
class Voice:
    """Chooses words by a digest of the image's id, so that images differ and one image never does."""

    item_id: bytes

    def pick(self, *options: str) -> str:
        """One of `options`. Different choices of one image don't depend on each other."""
        digest = digest16(self.item_id + "\0".join(options).encode(errors="replace"))
        return options[int.from_bytes(digest[:4], "big") % len(options)]


@dataclass(frozen=True)
class Sentence:
    """A sentence and the ids of the regions that it speaks of."""

    text: str
    ids: tuple[str, ...] = ()


def sentence(words: str, *about: Group | Quote) -> Sentence:
    """`words` from a capital to a full stop, said of `about`."""
    ids = (each.ids if isinstance(each, Group) else (each.region.id,) for each in about)
    return Sentence(words[:1].upper() + words[1:] + ".", tuple(id_ for some in ids for id_ in some))


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def verb(group: Group, singular: str, plural: str) -> str:
    return plural if group.noun.plural else singular


def phrase(group: Group) -> str:
    """ "a large red motorcycle", "two people"."""
    return group.noun.indefinite(*group.adjectives)


def place_of(box: Box) -> str:
    """ "on the left", "in the lower right corner"."""
    column, row = zone(box)
    from_centre = abs(box[0] + box[2] - 1) / 2, abs(box[1] + box[3] - 1) / 2
    return PLACES[row][column] + (" corner" if min(from_centre) > 0.25 else "")


def where(group: Group, of: str = "") -> str:
    """Where a group is as a whole; `of` is what to put behind: " of the image", or nothing."""
    if len(group.things) == 1:
        return place_of(group.boxes[0]) + of
    cells = sorted({zone(box)[::-1] for box in group.boxes})
    rows, columns = {row for row, _ in cells}, {column for _, column in cells}
    if len(cells) <= 2:
        return listed([PLACES[row][column] for row, column in cells]) + of
    if len(columns) == 1:
        return COLUMNS[columns.pop()] + of
    if len(rows) == 1:
        return ROWS[rows.pop()] + of
    return "spread across the image" if len(rows) == len(columns) == 3 else "in different parts of the image"


def apart(group: Group) -> tuple[str, str] | None:
    """The places of two things, if they are in different ones, in reading order."""
    if group.noun.number != 2:
        return None
    one, other = sorted(group.boxes, key=lambda box: zone(box)[::-1])
    return (place_of(one), place_of(other)) if zone(one) != zone(other) else None


def in_line(group: Group) -> str:
    """ " side by side", " in a row" and so on; empty if they don't stand so."""
    pair = group.noun.number == 2
    words = {"row": (" in a row", " side by side"), "column": (" one below the other", " one above the other")}
    return words.get(arrangement(group) or "", ("", ""))[pair]


def placed(groups: Sequence[Group], of: str = "") -> str:
    """ "two people on the left and a motorcycle in the centre"; what is in the same place is named together."""
    parts: list[tuple[list[str], str]] = []
    for group in groups:
        at = "filling most of the image" if group.fills else where(group, of)
        if parts and parts[-1][1] == at:
            parts[-1][0].append(phrase(group))
        else:
            parts.append(([phrase(group)], at))
    return listed([f"{listed(phrases)} {at}" for phrases, at in parts])


def extent(box: Box) -> str:
    """ "about half of the width and a third of the height"."""
    width, height = _fraction(box[2] - box[0]), _fraction(box[3] - box[1])
    if width == height:
        return f"{width} of the width and of the height"
    both_about = width.startswith("about ") and height.startswith("about ")
    return f"{width} of the width and {height.removeprefix('about ') if both_about else height} of the height"


def _fraction(share: float) -> str:
    if share > 0.95:
        return "almost all"
    if share < 0.035:
        return "a small part"
    return "about " + min(FRACTIONS, key=lambda pair: abs(pair[0] - share))[1]


def placement(group: Group, voice: Voice) -> Sentence:
    """Where a group that has been introduced is, and how much of the image it takes."""
    it, at, is_, spans = group.noun.definite(), where(group), verb(group, "is", "are"), verb(group, "spans", "span")
    pair = apart(group)
    if pair:
        words = voice.pick(
            f"of {it}, one is {pair[0]} and the other {pair[1]}",
            f"one of {it} is {pair[0]}, the other {pair[1]}",
        )
    elif len(group.things) > 1:
        words = f"{it} {is_}{in_line(group)} {at}{_each(group)}"
    elif group.fills:
        words = f"{it} {verb(group, 'fills', 'fill')} most of the image, spanning {extent(group.boxes[0])}"
    elif group.things[0].share <= SMALL:
        words = f"{it} {is_} {at} and {verb(group, 'takes', 'take')} up only a small part of the image"
    else:
        size = extent(group.boxes[0])
        words = voice.pick(
            f"{it} {is_} {at} and {spans} {size}",
            f"{at} {is_} {it}, spanning {size}",
            f"{it}, {at}, {spans} {size}",
            f"{it} can be seen {at}, spanning {size}",
        )
    return sentence(words, group)


def _each(group: Group) -> str:
    """ ", and each spans ...", if several counted things are much alike in size; else nothing."""
    sides = [(box[2] - box[0], box[3] - box[1]) for box in group.boxes]
    alike = all(max(lengths) <= 1.3 * min(lengths) for lengths in zip(*sides, strict=True))
    if group.noun.number is None or not group.noun.plural or not alike:
        return ""
    return f", and each spans {extent(group.boxes[0])}"


def relations(groups: Sequence[Group]) -> list[Sentence]:
    """What the boxes say of how the groups stand to each other."""
    found = []
    for at, one in enumerate(groups):
        for other in groups[at + 1 :]:
            if side := relation(one, other):
                is_ = verb(one, "is", "are")
                words = f"{one.noun.definite()} {is_} {preposition(*side)} {other.noun.definite()}"
                found.append(sentence(words, one, other))
    return found


def preposition(side: str, close: bool) -> str:
    """In words what `specialists.scene.relation` gives."""
    if side in ("left", "right"):
        return f"{'just ' if close else ''}to the {side} of"
    return "on either side of" if side == "either side" else f"{'just ' if close else ''}{side}"


def reach(group: Group) -> Sentence:
    """Which edges of the image a single thing reaches."""
    x0, y0, x1, y1 = group.boxes[0]
    reached = (x0 <= EDGE, "left"), (x1 >= 1 - EDGE, "right"), (y0 <= EDGE, "top"), (y1 >= 1 - EDGE, "bottom")
    names = [name for near, name in reached if near]
    it, reaches = group.noun.definite(), verb(group, "reaches", "reach")
    if not names:
        return sentence(f"{it} {verb(group, 'does', 'do')} not reach any edge of the image", group)
    which = "all four edges" if len(names) == 4 else f"the {listed(names)} edge{'s' if len(names) > 1 else ''}"
    return sentence(f"{it} {reaches} {which} of the image", group)


def quotation(quotes: Sequence[Quote]) -> Sentence:
    """What the texts say, in reading order by thirds of the image, those in the same place together."""
    places: dict[str, list[Quote]] = {}
    for quote in sorted(quotes, key=lambda q: (zone(q.box)[1], zone(q.box)[0], q.box[1])):
        places.setdefault(place_of(quote.box), []).append(quote)
    clauses = [_said(at, some) for at, some in places.items()]
    words = ", and ".join([", ".join(clauses[:-1]), clauses[-1]] if len(clauses) > 1 else clauses)
    return sentence(words, *(quote for some in places.values() for quote in some))


def _said(at: str, quotes: Sequence[Quote]) -> str:
    words, cut = listed([f'"{quote.words}"' for quote in quotes]), any(quote.cut for quote in quotes)
    if len(quotes) == 1:
        return f"a piece of text {at} {'begins with' if cut else 'reads'} {words}"
    return f"{counted(len(quotes))} pieces of text {at} {'begin with' if cut else 'read'} {words}"


def overall(tone: Tone, voice: Voice) -> Sentence:
    """The light and the colours of the image."""
    light = f"{tone.light} and " if tone.light else ""
    if tone.black_and_white:
        return sentence(voice.pick(f"the image is {light}in black and white", f"it is a {light}black-and-white image"))
    colours = listed(tone.colours)
    if not tone.colours:
        return sentence(f"the image is {light}of no single main colour" if light else "no colour dominates the image")
    if tone.light:
        return sentence(
            voice.pick(
                f"the image is {tone.light}, and much of it is {colours}",
                f"much of the {tone.light} image is {colours}",
            )
        )
    if len(tone.colours) == 1:
        return sentence(voice.pick(f"much of the image is {colours}", f"{colours} is the main colour of the image"))
    return sentence(voice.pick(f"much of the image is {colours}", f"the main colours of the image are {colours}"))
