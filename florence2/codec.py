"""Annotations to the string that the model is to write, and what it wrote back to annotations.

annotations --encode--> "dog<loc_1><loc_2><loc_3><loc_4>" --pieces_of_text--> pieces --decode--> annotations
                                              token ids  --pieces_of_ids---^

`encode` is strict, since a target that says something else than its annotations teaches that. `decode` takes whatever a
model writes and never raises: it gives what can be had. A coordinate comes back within half a bin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any, Literal, Protocol

from florence2.errors import Florence2Error
from florence2.locations import BINS, Size, dequantize, quantize, written
from florence2.tasks import Box, Form
from florence2.tokens import CONTROL, SPECIALS

# Every special token of the released vocabulary, spelled exactly.
OTHERS = "|".join(token for token in (*SPECIALS, *sorted(CONTROL)) if not token.startswith("<loc_"))
SPECIAL = re.compile(rf"({OTHERS}|<loc_(?:0|[1-9]\d{{0,2}})>)", re.ASCII)
SILENT = frozenset(("<s>", "</s>", "<pad>"))  # say nothing, wherever they are


@dataclass(frozen=True)
class Annotation:
    """One thing of an answer; coordinates are in pixels of the image."""

    label: str = ""
    box: Box | None = None  # x0, y0, x1, y1
    quad: tuple[float, ...] | None = None  # x, y of four corners, clockwise from the top left
    polygons: tuple[tuple[float, ...], ...] | None = None  # rings x, y, x, y, ...
    score: float | None = None  # of the box or quad, see scores.py; None: not computed
    raw: float | None = None  # Microsoft's: exp(mean log p) of the loc tokens
    label_score: float | None = None  # exp(mean log p) of the label's tokens


@dataclass(frozen=True)
class Piece:
    """A run of text, one location or one other special token ("mark") of an answer.

    `tokens` are the positions that it came from, and empty if it came from a string. A silent token in the middle of a
    text is inside its range.
    """

    kind: Literal["text", "loc", "mark"]
    text: str  # as written: "a dog", "<loc_3>", "<poly>"
    tokens: range = range(0)

    @property
    def bin(self) -> int:
        """Of a loc."""
        return int(self.text[len("<loc_") : -1])


@dataclass(frozen=True)
class Found:
    """An annotation, and what it was read from; `scores.scored` takes it from here."""

    annotation: Annotation
    bins: tuple[int, ...]  # as written: reversed corners are reversed here, and sorted in the annotation
    label_tokens: range  # positions; empty if the label came from elsewhere, or all came from a string
    loc_tokens: tuple[int, ...]  # one for each bin, or none if all came from a string


class Vocabulary(Protocol):
    """What `pieces_of_ids` asks of a tokenizer."""

    @property
    def loc_start(self) -> int:
        """The id of <loc_0>; the other 999 follow."""

    def special(self, id: int, /) -> str | None:
        """The text of a special token; None for any other."""

    def decode(self, ids: list[int], /) -> str:
        """The text of tokens that are not special."""


def pieces_of_text(text: str) -> list[Piece]:
    """An answer as a string. Only an exactly spelled special token is one; any other `<` is text."""
    pieces: list[Piece] = []
    for odd, part in enumerate(SPECIAL.split(text)):
        if odd % 2:
            pieces += [] if part in SILENT else [special(part)]
        elif pieces and pieces[-1].kind == "text":  # goes on behind a silent token
            pieces[-1] = Piece("text", pieces[-1].text + part)
        elif part:
            pieces.append(Piece("text", part))
    return pieces


def pieces_of_ids(ids: Iterable[int], vocabulary: Vocabulary) -> list[Piece]:
    """An answer as token ids. Negative ones (the -100 of padded labels) are silent, too."""
    heard = [
        (at, token, name)
        for at, token in enumerate(map(int, ids))
        if token >= 0 and (name := name_of(token, vocabulary)) not in SILENT
    ]
    pieces: list[Piece] = []
    for is_text, run in groupby(heard, key=lambda entry: entry[2] is None):
        if not is_text:
            pieces += [special(str(name), range(at, at + 1)) for at, _, name in run]
            continue
        positions, tokens, _ = zip(*run, strict=True)
        # Together: in byte-level BPE one character may be several tokens.
        if text := vocabulary.decode(list(tokens)):
            pieces.append(Piece("text", text, range(positions[0], positions[-1] + 1)))
    return pieces


def name_of(token: int, vocabulary: Vocabulary) -> str | None:
    place = token - vocabulary.loc_start
    return f"<loc_{place}>" if 0 <= place < BINS else vocabulary.special(token)


def special(name: str, tokens: range = range(0)) -> Piece:
    return Piece("loc" if name.startswith("<loc_") else "mark", name, tokens)


def plain(pieces: Iterable[Piece]) -> str:
    """The text of an answer, without its special tokens and outer white space."""
    return "".join(piece.text for piece in pieces if piece.kind == "text").strip()


# To the target string


def encode(form: Form | str, annotations: Sequence[Annotation] | str, size: Size) -> str:
    """The target string, without <s> </s>, of annotations in the order given; for TEXT of a text.

    A label is written without its outer white space. One that spells a special token gets a space behind that `<`
    ("<loc_5>" becomes "< loc_5>"), lest it be read as structure; every other label comes back as it was.
    Special are those of the released models: what a fine-tuned checkpoint added to them is not known here. Neighbours
    of one label share it ("dog", box, box), except in quads. BOXES and POLYGONS write no labels. POLYGONS writes a
    single instance without <poly> </poly>: nothing is there to be told apart, and transformers' parser reads it, too.
    BOXES_OR_POLYGONS writes an annotation's polygons if it has some, and its box if not.
    Places may be tuples, lists, arrays or tensors. `form` may be a form's value ("boxes"). Florence2Error for any other
    form, and if an annotation lacks what the form writes.
    """
    form = Form.of(form)
    if isinstance(annotations, str) and form is Form.TEXT:
        return unforged(annotations)
    given = listed(annotations, otherwise=[None])
    if form is Form.TEXT or not all(isinstance(a, Annotation) for a in given):
        expected = "a text" if form is Form.TEXT else "a list of annotations"
        raise Florence2Error(f"{form.value}: expected {expected}, got {annotations!r}")
    if form is Form.BOXES:
        return "".join(box(a, size) for a in given)
    if form is Form.POLYGONS:
        instances = [rings(a, size) for a in given]
        return "".join(instances) if len(instances) == 1 else "".join(f"<poly>{i}</poly>" for i in instances)
    if form is Form.LABELLED_QUADS:
        return "".join(labelled(a) + quad(a, size) for a in given)
    place = box if form is Form.LABELLED_BOXES else polygons_or_box
    same_label = groupby(given, key=labelled)
    return "".join(label + "".join(place(a, size) for a in group) for label, group in same_label)


def unforged(text: str) -> str:
    return SPECIAL.sub(lambda match: f"< {match[0][1:]}", text.strip())


def labelled(annotation: Annotation) -> str:
    if not isinstance(annotation.label, str) or not annotation.label.strip():
        raise Florence2Error(f"expected an annotation with a label, got {annotation}")
    return unforged(annotation.label)


def box(annotation: Annotation, size: Size) -> str:
    return written(quantize(upright(*checked(annotation, annotation.box, "a box", length=4)), size))


def quad(annotation: Annotation, size: Size) -> str:
    return written(quantize(checked(annotation, annotation.quad, "a quad", length=8), size))


def rings(annotation: Annotation, size: Size) -> str:
    given = listed(annotation.polygons)
    if not given:
        raise Florence2Error(f"expected an annotation with polygons, got {annotation}")
    whole = [checked(annotation, ring, "rings of 3 points or more") for ring in given]
    return "<sep>".join(written(quantize(ring, size)) for ring in whole)


def polygons_or_box(annotation: Annotation, size: Size) -> str:
    return f"<poly>{rings(annotation, size)}</poly>" if listed(annotation.polygons) else box(annotation, size)


def checked(
    annotation: Annotation, place: Sequence[float] | None, expected: str, length: int | None = None
) -> list[float]:
    """`place`, a part of `annotation`, if it has `length` numbers (None: pairs, 3 or more of them), all finite."""
    try:
        numbers = [float(value) for value in listed(place)]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, for a row
        numbers = []
    fits = len(numbers) == length if length else len(numbers) >= 6 and len(numbers) % 2 == 0
    if not fits or not all(map(isfinite, numbers)):
        raise Florence2Error(f"expected an annotation with {expected}, got {annotation}")
    return numbers


def listed(given: object, otherwise: Sequence[Any] = ()) -> list[Any]:
    """What a list, tuple, array or tensor holds; `otherwise` of a text and of what holds nothing."""
    return list(given if isinstance(given, Iterable) and not isinstance(given, str | bytes) else otherwise)


def upright(x0: float, y0: float, x1: float, y1: float) -> Box:
    """With sorted corners: a box from right to left is one all the same."""
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


# From the answer


def decode(form: Form | str, pieces: Iterable[Piece], size: Size, label: str = "") -> list[Found]:
    """What an answer says, in its order and with its repetitions. TEXT has no places: its text is `plain(pieces)`.

    `label` is for a place without one of its own, such as the referring expression that was asked for. Never raises on
    an answer, whatever is in it:
    - A place that is incomplete is left out: 3 locs are no box, 7 are one; 7 are no quad; a ring loses an odd
      coordinate, and is none below 3 points. A special token ends a place, and another one starts behind it.
    - The label is the last text before a place, white space alone being none. It holds for all boxes and polygons up to
      the next text, but only for the first quad: no two quads share their words. A text without a place is left out.
    - An unclosed <poly> ends with its answer or at the next text. Corners of a box are sorted. In BOXES_OR_POLYGONS
      what is outside <poly> </poly> is boxes; either of the two is enough.
    """
    form = Form.of(form)
    found: list[Found] = []
    for text, run in phrases(pieces) if form is not Form.TEXT else ():
        for n, (kind, parts) in enumerate(places(form, run)):
            own = text if n == 0 or form is not Form.LABELLED_QUADS else None
            points = tuple(loc for part in parts for loc in part)
            found.append(
                Found(
                    dequantized(kind, own.text.strip() if own else label, parts, size),
                    tuple(loc.bin for loc in points),
                    own.tokens if own else range(0),
                    tuple(at for loc in points for at in loc.tokens),
                )
            )
    return found


Kind = Literal["box", "quad", "polygons"]
Part = Sequence[Piece]  # locs


def phrases(pieces: Iterable[Piece]) -> Iterator[tuple[Piece | None, list[Piece]]]:
    """Each text (None before the first) with the locs and marks behind it."""
    text: Piece | None = None
    run: list[Piece] = []
    for piece in pieces:
        if piece.kind != "text":
            run.append(piece)
        elif piece.text.strip():
            yield text, run
            text, run = piece, []
    yield text, run


def places(form: Form, run: Iterable[Piece]) -> Iterator[tuple[Kind, list[Part]]]:
    """The whole places of a run; a box or quad is one part, polygons have a part for each ring."""
    kind: Kind = "quad" if form is Form.LABELLED_QUADS else "box"
    length = 8 if kind == "quad" else 4
    for parts, marked in instances(run):
        if form is Form.POLYGONS or (form is Form.BOXES_OR_POLYGONS and marked):
            if whole := [part[: len(part) // 2 * 2] for part in parts if len(part) >= 6]:
                yield "polygons", whole
            continue
        for part in parts:
            for start in range(0, len(part) - length + 1, length):
                yield kind, [part[start : start + length]]


def instances(run: Iterable[Piece]) -> Iterator[tuple[list[Part], bool]]:
    """Locs between marks, those of one <poly> </poly> together; and whether one of these two is there."""
    parts: list[list[Piece]] = [[]]
    opened = False
    for piece in run:
        if piece.kind == "loc":
            parts[-1].append(piece)
        elif piece.text in ("<poly>", "</poly>"):
            yield [*parts], opened or piece.text == "</poly>"
            parts, opened = [[]], piece.text == "<poly>"
        else:
            parts.append([])
    yield [*parts], opened


def dequantized(kind: Kind, label: str, parts: Sequence[Part], size: Size) -> Annotation:
    numbers = [dequantize([loc.bin for loc in part], size) for part in parts]
    if kind == "polygons":
        return Annotation(label, polygons=tuple(numbers))
    if kind == "quad":
        return Annotation(label, quad=numbers[0])
    return Annotation(label, box=upright(*numbers[0]))
