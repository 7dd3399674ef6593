"""Phrases for what is in a scene: what it is called, where it is, how far it reaches. All of it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from engine.records import Box
from specialists.scene import Group, arrangement, zone

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
SPREAD, SCATTERED = "spread across the image", "in different parts of the image"
MOSTLY = 2 / 3  # of a group's things
EDGE = 0.01  # of the image's side: what comes closer reaches the edge


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
    zones = [zone(box)[::-1] for box in group.boxes]
    cells, rows, columns = sorted(set(zones)), {row for row, _ in zones}, {column for _, column in zones}
    if len(cells) <= 2:
        return listed([PLACES[row][column] for row, column in cells]) + of
    if len(columns) == 1:
        return COLUMNS[columns.pop()] + of
    if len(rows) == 1:
        return ROWS[rows.pop()] + of
    for side, (axis, places) in product((0, 2), enumerate((ROWS, COLUMNS))):
        if not group.crowd and sum(cell[axis] == side for cell in zones) >= MOSTLY * len(zones):
            return f"mostly {places[side]}{of}"
    return SPREAD if len(cells) > 4 else SCATTERED


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
        pair = apart(group)
        at = f" {where(group, of)}" if not group.fills else " filling most of the image"
        at = f", one {pair[0]} and one {pair[1]}" if pair else at
        if parts and not pair and (parts[-1][1] == at or {parts[-1][1], at} == {f" {SPREAD}", f" {SCATTERED}"}):
            parts[-1] = [*parts[-1][0], phrase(group)], at if parts[-1][1] == at else f" {SCATTERED}"
        else:
            parts.append(([phrase(group)], at))
    return clauses([f"{listed(phrases)}{at}" for phrases, at in parts])


def clauses(parts: Sequence[str]) -> str:
    """Listed; with a comma before the last "and" if there are others."""
    *others, last = parts
    comma = "," if len(others) > 1 or any(" and " in part for part in parts) else ""
    return f"{', '.join(others)}{comma} and {last}" if others else last


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


def edges_of(box: Box) -> str:
    """ "the left and bottom edges": those that the box comes to; empty if there are none."""
    x0, y0, x1, y1 = box
    reached = (x0 <= EDGE, "left"), (x1 >= 1 - EDGE, "right"), (y0 <= EDGE, "top"), (y1 >= 1 - EDGE, "bottom")
    names = [name for near, name in reached if near]
    if len(names) == 4:
        return "all four edges"
    return f"the {listed(names)} edge{'s' if len(names) > 1 else ''}" if names else ""


def preposition(side: str, close: bool) -> str:
    """In words what `specialists.scene.relation` gives."""
    if side in ("left", "right"):
        return f"{'just ' if close else ''}to the {side} of"
    if side in ("above", "below"):
        return f"{'just ' if close else ''}{side}"
    return "on either side of" if side == "either side" else side
