"""There and back exact within the bin, malformed answers in a table and at random, and against transformers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from florence2.codec import (
    SPECIAL,
    Annotation,
    Found,
    Piece,
    decode,
    encode,
    pieces_of_ids,
    pieces_of_text,
    plain,
)
from florence2.errors import Florence2Error
from florence2.locations import Size, quantize
from florence2.tasks import Form, Task

BASE = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# All 1024, in their order.
ADDED = [
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{k}>" for k in range(1000)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
]
SPECIALS = [*BASE, *ADDED, "<image>"]
FORMS = [form for form in Form if form is not Form.TEXT]
SQUARE = (1000.0, 1000.0)  # a bin is a pixel here


@dataclass
class Tokens:
    tokenizer: Tokenizer
    loc_start: int

    def special(self, id: int, /) -> str | None:
        token = self.tokenizer.id_to_token(id)
        return token if token in SPECIALS else None

    def decode(self, ids: list[int], /) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)


@functools.cache
def vocabulary() -> Tokens:
    """A byte-level BPE like BART's, with few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=BASE, initial_alphabet=alphabet, vocab_size=400, show_progress=False)
    tokenizer.train_from_iterator(["a dog and a cat on the grass, the dog on a loc"] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [*ADDED, "<image>"]])
    return Tokens(tokenizer, tokenizer.get_vocab()["<loc_0>"])


def locs(*bins: int) -> str:
    return "".join(f"<loc_{q}>" for q in bins)


def places(found: Sequence[Found]) -> list[tuple[Any, ...]]:
    """Label, and the bins of the box, quad or rings that the annotation has, at one pixel a bin."""
    return [
        (a.label, *(tuple(int(v) for v in part) for part in a.polygons or (a.box or a.quad or (),)))
        for a in (one.annotation for one in found)
    ]


def numbers(annotation: Annotation) -> list[float]:
    return [v for part in (annotation.box, annotation.quad, *(annotation.polygons or ())) for v in part or ()]


# Strategies

sizes = st.tuples(*[st.integers(1, 4000) | st.floats(1, 4000)] * 2)
words = st.text(st.characters(codec="utf-8") | st.sampled_from("<>/_\"'\n\r\t loc123é検🐕"), min_size=1, max_size=12)
labels = words.filter(lambda text: text.strip() and not SPECIAL.search(text))
ascii_labels = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="<"), min_size=1)


@st.composite
def answers(draw: st.DrawFn, form: Form, size: Size, labels: st.SearchStrategy[str] = labels) -> list[Annotation]:
    """Up to four of two labels, so that neighbours often share one; boxes alone or polygons alone."""
    pool = draw(st.lists(labels, min_size=1, max_size=2))
    points = st.tuples(st.floats(0, size[0]), st.floats(0, size[1]))
    places: dict[str, st.SearchStrategy[Any]] = {
        "box": st.tuples(points, points).map(box),
        "quad": st.lists(points, min_size=4, max_size=4).map(flat),
        "polygons": st.lists(st.lists(points, min_size=3, max_size=5).map(flat), min_size=1, max_size=3).map(tuple),
    }
    kinds = {Form.LABELLED_QUADS: ["quad"], Form.POLYGONS: ["polygons"], Form.BOXES_OR_POLYGONS: ["box", "polygons"]}
    kind = draw(st.sampled_from(kinds.get(form, ["box"])))
    made = st.builds(Annotation, st.sampled_from(pool), **{kind: places[kind]})
    return draw(st.lists(made, max_size=4))


def box(corners: tuple[tuple[float, float], tuple[float, float]]) -> tuple[float, ...]:
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def flat(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(v for point in points for v in point)


# To the string

DOG, CAT = Annotation("dog", box=(1, 2, 3, 4)), Annotation("cat", box=(5, 6, 7, 8))
QUAD = Annotation("EXIT", quad=(1, 1, 5, 1, 5, 5, 1, 5))
ONE = Annotation("dog", polygons=((1, 1, 5, 1, 5, 5),))
TWO = Annotation("dog", polygons=((1, 1, 5, 1, 5, 5), (7, 7, 9, 7, 9, 9)))


@pytest.mark.parametrize(
    ("form", "given", "target"),
    [
        (Form.TEXT, " a <b>dog</b>\n", "a <b>dog</b>"),
        (Form.TEXT, "at <loc_5>", "at < loc_5>"),
        (Form.TEXT, "", ""),
        (Form.BOXES, [DOG, CAT], locs(1, 2, 3, 4, 5, 6, 7, 8)),
        (Form.LABELLED_BOXES, [DOG, DOG, CAT], f"dog{locs(1, 2, 3, 4, 1, 2, 3, 4)}cat{locs(5, 6, 7, 8)}"),
        (Form.LABELLED_BOXES, [DOG, CAT, DOG], f"dog{locs(1, 2, 3, 4)}cat{locs(5, 6, 7, 8)}dog{locs(1, 2, 3, 4)}"),
        (Form.LABELLED_BOXES, [Annotation(" dog\n", box=(3, 2, 1, 4)), DOG], f"dog{locs(1, 2, 3, 4, 1, 2, 3, 4)}"),
        (Form.LABELLED_BOXES, [Annotation("dog", box=(-9, 0, 1000, 1e9))], f"dog{locs(0, 0, 999, 999)}"),
        (Form.LABELLED_BOXES, [], ""),
        (Form.LABELLED_QUADS, [QUAD, QUAD], f"EXIT{locs(1, 1, 5, 1, 5, 5, 1, 5)}" * 2),
        (Form.POLYGONS, [ONE], locs(1, 1, 5, 1, 5, 5)),
        (Form.POLYGONS, [TWO], f"{locs(1, 1, 5, 1, 5, 5)}<sep>{locs(7, 7, 9, 7, 9, 9)}"),
        (
            Form.POLYGONS,
            [ONE, TWO],
            f"<poly>{locs(1, 1, 5, 1, 5, 5)}</poly><poly>{locs(1, 1, 5, 1, 5, 5)}<sep>{locs(7, 7, 9, 7, 9, 9)}</poly>",
        ),
        (Form.BOXES_OR_POLYGONS, [DOG, CAT], f"dog{locs(1, 2, 3, 4)}cat{locs(5, 6, 7, 8)}"),
        (Form.BOXES_OR_POLYGONS, [ONE], f"dog<poly>{locs(1, 1, 5, 1, 5, 5)}</poly>"),
        (Form.BOXES_OR_POLYGONS, [DOG, ONE], f"dog{locs(1, 2, 3, 4)}<poly>{locs(1, 1, 5, 1, 5, 5)}</poly>"),
    ],
)
def test_target_strings(form: Form, given: Sequence[Annotation] | str, target: str) -> None:
    assert encode(form, given, SQUARE) == target


@pytest.mark.parametrize(
    ("form", "given", "message"),
    [
        (Form.TEXT, [DOG], "text: expected a text, got"),
        (Form.BOXES, "dog", "boxes: expected a list of annotations, got 'dog'"),
        (Form.BOXES, DOG, "boxes: expected a list of annotations, got"),
        (Form.BOXES, ["dog"], "boxes: expected a list of annotations, got"),
        (Form.BOXES, None, "boxes: expected a list of annotations, got"),
        ("box", [DOG], "expected a form, one of 'text', 'boxes', .*; got 'box'"),
        (Task.OD, [DOG], "expected a form, one of .*; got <Task.OD"),
        (None, [DOG], "expected a form, one of .*; got None"),
        (Form.BOXES, [Annotation(box="1234")], "with a box, got"),  # type: ignore[arg-type]
        (Form.BOXES, [Annotation(box=torch.ones(4, 4))], "with a box, got"),
        (Form.BOXES, [Annotation(box=(1, 2, 3, 10**400))], "with a box, got"),
        (Form.LABELLED_BOXES, [Annotation(None, box=(1, 2, 3, 4))], "with a label, got"),  # type: ignore[arg-type]
        (Form.POLYGONS, [Annotation(polygons=(1, 1, 5, 1, 5, 5))], "3 points or more, got"),  # type: ignore[arg-type]
        (Form.POLYGONS, [Annotation(polygons=())], "with polygons, got"),
        (Form.BOXES, [QUAD], "with a box, got Annotation.label='EXIT'"),
        (Form.LABELLED_BOXES, [Annotation(" ", box=(1, 2, 3, 4))], "with a label, got"),
        (Form.LABELLED_BOXES, [Annotation("dog", box=(1, 2, float("nan"), 4))], "with a box, got"),
        (Form.LABELLED_QUADS, [DOG], "with a quad, got"),
        (Form.POLYGONS, [DOG], "with polygons, got"),
        (Form.POLYGONS, [Annotation(polygons=((1, 1, 5, 5),))], "3 points or more, got"),
        (Form.POLYGONS, [Annotation(polygons=((1, 1, 5, 5, 6, 6, 7),))], "3 points or more, got"),
    ],
)
def test_what_a_form_cannot_write(form: Form, given: Any, message: str) -> None:
    with pytest.raises(Florence2Error, match=message):
        encode(form, given, SQUARE)


@pytest.mark.parametrize("array", [list, np.array, torch.tensor, np.float32])
def test_arrays_are_places(array: Any) -> None:
    def same(form: str, **place: Any) -> bool:
        given = {name: array(value) for name, value in place.items()}
        return encode(form, [Annotation("dog", **given)], SQUARE) == encode(form, [Annotation("dog", **place)], SQUARE)

    assert same("boxes", box=(1, 2, 3, 4)) and same("labelled quads", quad=QUAD.quad)
    assert same("polygons", polygons=TWO.polygons) and same("boxes or polygons", polygons=TWO.polygons)
    with pytest.raises(Florence2Error, match="with a box, got"):
        encode("boxes or polygons", [Annotation("dog", polygons=array([]))], SQUARE)


def test_sizes_and_numbers_beyond_any_image() -> None:
    assert encode(Form.BOXES, [Annotation(box=(-1e308, 3, 1e308, 1e308))], (10, 10)) == locs(0, 300, 999, 999)
    for size in [(0, 0), (-5, 10), (10, float("inf")), (float("nan"), 10), (10, 10, 3)]:
        with pytest.raises(Florence2Error, match=r"expected the size \(width, height\).*; got \("):
            encode(Form.BOXES, [DOG], size)  # type: ignore[arg-type]


def test_decoding_by_a_forms_value() -> None:
    pieces = pieces_of_text(locs(1, 2, 3, 4))
    assert decode("boxes", pieces, SQUARE) == decode(Form.BOXES, pieces, SQUARE) != []
    with pytest.raises(Florence2Error, match="expected a form, one of"):
        decode("box", pieces, SQUARE)


def test_the_special_tokens_are_those_of_the_vocabulary() -> None:
    assert len(ADDED) == 1024
    assert all(SPECIAL.fullmatch(token) for token in SPECIALS)
    for text in ("<loc_1000>", "<loc_01>", "<loc_>", "<loc_٣>", "<LOC_1>", "< sep>", "<b>", "<OD>", "</sep>", "</pad>"):
        assert not SPECIAL.search(text), text


# There and back


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(st.data(), sizes)
def test_there_and_back(form: Form, data: st.DataObject, size: Size) -> None:
    """As a string and as tokens; each coordinate within half a bin."""
    given = data.draw(answers(form, size))
    target = encode(form, given, size)
    ids = vocabulary().ids(target)
    found = decode(form, pieces_of_ids(ids, vocabulary()), size, label="asked")
    assert [f.annotation for f in decode(form, pieces_of_text(target), size, "asked")] == [f.annotation for f in found]
    assert len(found) == len(given)
    for a, one in zip(given, found, strict=True):
        b = one.annotation
        assert b.label == ("asked" if form in (Form.BOXES, Form.POLYGONS) else a.label.strip())
        assert (b.score, b.raw, b.label_score) == (None, None, None)
        assert [len(ring) for ring in a.polygons or ()] == [len(ring) for ring in b.polygons or ()]
        for n, (v, w) in enumerate(zip(numbers(a), numbers(b), strict=True)):
            assert abs(v - w) <= size[n % 2] / 2000 * (1 + 1e-9)
        assert [ids[at] - vocabulary().loc_start for at in one.loc_tokens] == list(one.bins)
        own = vocabulary().decode([ids[at] for at in one.label_tokens]).strip()
        assert own == ("" if form in (Form.BOXES, Form.POLYGONS) else b.label)
    assert encode(form, [f.annotation for f in found], size) == target


@settings(deadline=None)
@given(words)
def test_texts_there_and_back(text: str) -> None:
    assume(not SPECIAL.search(text))
    target = encode(Form.TEXT, text, SQUARE)
    assert plain(pieces_of_text(target)) == plain(pieces_of_ids(vocabulary().ids(target), vocabulary())) == text.strip()


@settings(deadline=None)
@given(st.lists(st.sampled_from(SPECIALS) | st.sampled_from(SPECIALS[1000:]) | words, min_size=1).map("".join))
def test_a_label_cannot_forge_structure(label: str) -> None:
    assume(label.strip())
    target = encode(Form.BOXES_OR_POLYGONS, [Annotation(label, box=(1, 2, 3, 4)), ONE], SQUARE)
    for pieces in (pieces_of_text(target), pieces_of_ids(vocabulary().ids(target), vocabulary())):
        first, second = decode(Form.BOXES_OR_POLYGONS, pieces, SQUARE)
        assert (first.bins, second.bins) == ((1, 2, 3, 4), (1, 1, 5, 1, 5, 5))
        broken = label.strip()
        for token in SPECIALS:
            broken = broken.replace(token, f"< {token[1:]}")
        assert first.annotation.label == broken


def test_characters_of_several_tokens_around_silent_ones() -> None:
    dog = vocabulary().ids("🐕")
    assert len(dog) == 4
    padded = [2, 0, *dog[:2], 1, *dog[2:], 1, -100, *vocabulary().ids(locs(1, 2)), 2, *vocabulary().ids(locs(3, 4)), 2]
    assert pieces_of_ids(padded, vocabulary()) == [
        Piece("text", "🐕", range(2, 7)),
        *(Piece("loc", f"<loc_{q}>", range(at, at + 1)) for q, at in ((1, 9), (2, 10), (3, 12), (4, 13))),
    ]
    assert pieces_of_text("</s><s>a d<pad>og<pad></s>") == [Piece("text", "a dog")]
    assert pieces_of_text("<lo<pad>c_5>") == [Piece("text", "<loc_5>")], "no token comes of what is around another"


# Malformed answers

Q = locs(1, 1, 5, 1, 5, 5, 1, 5)
R = locs(1, 1, 5, 1, 5, 5)
BOX, BIG, RING, CORNERS = (1, 2, 3, 4), (5, 6, 7, 8), (1, 1, 5, 1, 5, 5), (1, 1, 5, 1, 5, 5, 1, 5)


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        # boxes
        (Form.BOXES, "", []),
        (Form.BOXES, "</s><s></s><pad><pad>", []),
        (Form.BOXES, locs(1, 2, 3), []),
        (Form.BOXES, locs(1, 2, 3, 4, 5), [("asked", BOX)]),
        (Form.BOXES, locs(1, 2, 3, 4, 5, 6, 7), [("asked", BOX)]),
        (Form.BOXES, locs(1, 2, 3, 4) * 2, [("asked", BOX)] * 2),
        (Form.BOXES, locs(3, 4, 1, 2), [("asked", BOX)]),
        (Form.BOXES, locs(7, 7, 7, 7), [("asked", (7, 7, 7, 7))]),
        (Form.BOXES, f"{locs(1, 2)}<pad></s>{locs(3, 4)}", [("asked", BOX)]),
        (Form.BOXES, f"{locs(9, 9, 9)}<sep>{locs(1, 2, 3, 4)}", [("asked", BOX)]),
        (Form.BOXES, locs(1, 2, 3, 4).replace("><", "> <"), [("asked", BOX)]),
        (Form.BOXES, f"dog{locs(1, 2, 3, 4)}", [("dog", BOX)]),
        (Form.BOXES, "<loc_1000><loc_1><loc_01><loc_2>", []),
        # labelled boxes
        (Form.LABELLED_BOXES, "a dog", []),
        (Form.LABELLED_BOXES, locs(1, 2, 3, 4), [("asked", BOX)]),
        (Form.LABELLED_BOXES, f" \n{locs(1, 2, 3, 4)}", [("asked", BOX)]),
        (Form.LABELLED_BOXES, f"{locs(1, 2, 3, 4)}dog{locs(5, 6, 7, 8)}", [("asked", BOX), ("dog", BIG)]),
        (Form.LABELLED_BOXES, f"dog{locs(1, 2, 3)}cat{locs(5, 6, 7, 8)}bird", [("cat", BIG)]),
        (Form.LABELLED_BOXES, f"dog{locs(1, 2, 3, 4, 5)}cat{locs(5, 6, 7, 8)}", [("dog", BOX), ("cat", BIG)]),
        (Form.LABELLED_BOXES, f"dog{locs(1, 2, 3, 4)} {locs(5, 6, 7, 8)}", [("dog", BOX), ("dog", BIG)]),
        (Form.LABELLED_BOXES, f"dog{locs(1, 2, 3, 4)}" * 3, [("dog", BOX)] * 3),
        (Form.LABELLED_BOXES, f"d<pad>og{locs(1, 2)}</s>{locs(3, 4)}", [("dog", BOX)]),
        (Form.LABELLED_BOXES, f"x < 3\n<b>{locs(1, 2, 3, 4)}", [("x < 3\n<b>", BOX)]),
        (Form.LABELLED_BOXES, f"chien âgé 検出{locs(1, 2, 3, 4)}", [("chien âgé 検出", BOX)]),
        (Form.LABELLED_BOXES, f"cat<and>dog<sep>{locs(1, 2, 3, 4)}", [("dog", BOX)]),
        (Form.LABELLED_BOXES, f"dog<poly>{locs(1, 2, 3, 4)}</poly>", [("dog", BOX)]),
        # quads
        (Form.LABELLED_QUADS, f"EXIT{locs(1, 1, 5, 1, 5, 5, 1)}", []),
        (Form.LABELLED_QUADS, f"EXIT{Q}<loc_9>", [("EXIT", CORNERS)]),
        (Form.LABELLED_QUADS, f"EXIT{locs(1, 2, 3, 4)}IN{Q}", [("IN", CORNERS)]),
        (Form.LABELLED_QUADS, f"EXIT{Q}{Q}", [("EXIT", CORNERS), ("asked", CORNERS)]),
        (Form.LABELLED_QUADS, Q, [("asked", CORNERS)]),
        (Form.LABELLED_QUADS, "EXIT", []),
        (Form.LABELLED_QUADS, f"a\nb<{Q}", [("a\nb<", CORNERS)]),
        # polygons
        (Form.POLYGONS, R, [("asked", RING)]),
        (Form.POLYGONS, f"{R}<loc_9>", [("asked", RING)]),
        (Form.POLYGONS, locs(1, 1, 5, 1, 5), []),
        (Form.POLYGONS, f"<poly>{R}", [("asked", RING)]),
        (Form.POLYGONS, f"{R}</poly>", [("asked", RING)]),
        (Form.POLYGONS, f"<poly>{R}<poly>{R}</poly>", [("asked", RING)] * 2),
        (Form.POLYGONS, f"<sep>{R}<sep><sep>{R}<sep>", [("asked", RING, RING)]),
        (Form.POLYGONS, f"{locs(1, 1)}<sep>{R}", [("asked", RING)]),
        (Form.POLYGONS, f"<poly></poly></poly>{R}<sep>", [("asked", RING)]),
        (Form.POLYGONS, f"<poly>{locs(1, 1, 5, 1)}<pad>{locs(5, 5)}</s></poly>", [("asked", RING)]),
        (Form.POLYGONS, f"dog<poly>{R}</poly>", [("dog", RING)]),
        (Form.POLYGONS, "<sep></poly><poly><and>", []),
        # either
        (Form.BOXES_OR_POLYGONS, f"dog<poly>{R}", [("dog", RING)]),
        (Form.BOXES_OR_POLYGONS, f"dog{R}</poly>", [("dog", RING)]),
        (Form.BOXES_OR_POLYGONS, f"dog<poly>{R}cat{locs(5, 6, 7, 8)}", [("dog", RING), ("cat", BIG)]),
        (
            Form.BOXES_OR_POLYGONS,
            f"dog{locs(1, 2, 3, 4)}<poly>{R}</poly>{locs(5, 6, 7, 8)}",
            [("dog", BOX), ("dog", RING), ("dog", BIG)],
        ),
        (Form.BOXES_OR_POLYGONS, f"dog<sep>{locs(1, 2, 3, 4)}<sep>", [("dog", BOX)]),
        (Form.BOXES_OR_POLYGONS, f"dog<poly>{locs(1, 2, 3, 4)}</poly>", []),
        (Form.BOXES_OR_POLYGONS, f"<poly>{R}</poly>", [("asked", RING)]),
        (Form.BOXES_OR_POLYGONS, "<poly>", []),
        # text
        (Form.TEXT, f"a dog{locs(1, 2, 3, 4)}", []),
    ],
)
def test_malformed_answers(form: Form, answer: str, expected: list[Any]) -> None:
    assert places(decode(form, pieces_of_text(answer), SQUARE, "asked")) == expected
    pieces = pieces_of_ids(vocabulary().ids(answer), vocabulary())
    assert places(decode(form, pieces, SQUARE, "asked")) == expected


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("</s><s>A dog.</s><pad><pad>", "A dog."),
        ("A <pad>dog</s> and a cat", "A dog and a cat"),
        (f" A dog{locs(1, 2)} <poly>runs.\n", "A dog runs."),
        ("5 < 6 > 4 <b> <loc_1000> é", "5 < 6 > 4 <b> <loc_1000> é"),
        ("<pad></s>", ""),
    ],
)
def test_plain(answer: str, text: str) -> None:
    assert plain(pieces_of_text(answer)) == plain(pieces_of_ids(vocabulary().ids(answer), vocabulary())) == text


def joined(runs: list[list[Any]]) -> list[Any]:
    return [one for run in runs for one in run]


# Runs of locs that are long enough for places, between texts and marks; ids of the whole vocabulary and beyond it.
bins = st.lists(st.integers(0, 999), max_size=18)
loc_pieces = bins.map(lambda run: [Piece("loc", f"<loc_{q}>") for q in run])
text_pieces = words.map(lambda text: [Piece("text", text)])
marks = st.sampled_from(["<poly>", "</poly>", "<sep>", "<and>", "<od>"]).map(lambda mark: [Piece("mark", mark)])
random_pieces = st.lists(loc_pieces | text_pieces | marks, max_size=12).map(joined)
loc_ids = bins.map(lambda run: [vocabulary().loc_start + q for q in run])
random_ids = st.lists(loc_ids | st.lists(st.integers(-100, 1500), max_size=3), max_size=12).map(joined)


@pytest.mark.parametrize("form", Form)
@settings(deadline=None)
@given(random_pieces | random_ids.map(lambda ids: pieces_of_ids(ids, vocabulary())) | words.map(pieces_of_text), sizes)
def test_never_raises(form: Form, pieces: list[Piece], size: Size) -> None:
    found = decode(form, pieces, size, "asked")
    written = [piece.bin for piece in pieces if piece.kind == "loc"]
    assert sum(len(one.bins) for one in found) <= len(written), "no loc is used twice"
    texts = {piece.text.strip() for piece in pieces if piece.kind == "text"} | {"asked"}
    for one in found:
        a = one.annotation
        assert a.label and a.label in texts
        assert all(0 < v < size[n % 2] for n, v in enumerate(numbers(a)))
        if a.box:
            assert a.box[0] <= a.box[2] and a.box[1] <= a.box[3]
        assert (a.box is not None) + (a.quad is not None) + (a.polygons is not None) == 1
        assert all(len(ring) >= 6 for ring in a.polygons or ())
    if form is not Form.TEXT:
        again = decode(form, pieces_of_text(encode(form, [one.annotation for one in found], size)), size)
        assert [numbers(one.annotation) for one in again] == [numbers(one.annotation) for one in found]


# Against transformers

NATIVE = {
    Form.BOXES: "bboxes",
    Form.LABELLED_BOXES: "description_with_bboxes",
    Form.LABELLED_QUADS: "ocr",
    Form.POLYGONS: "polygons",
    Form.BOXES_OR_POLYGONS: "description_with_bboxes_or_polygons",
}


@functools.cache
def native() -> Any:
    from transformers import PreTrainedTokenizerFast
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary().tokenizer, **roles, extra_special_tokens=ADDED)
    tasks = [*NATIVE.values(), "phrase_grounding", "pure_text"]
    return Florence2PostProcessor({task: {} for task in tasks}, tokenizer)


def parsed(task: str, target: str, size: tuple[int, int]) -> list[tuple[str, list[list[int]]]]:
    """transformers' answer, from token ids: labels and their boxes, quads or rings."""
    ids = [2, 0, *vocabulary().ids(target), 2]
    answer = native()(sequence=ids, image_size=size, parse_tasks=task)[task]
    if task == "phrase_grounding":
        return [(one["cat_name"], [place]) for one in answer for place in one["bbox"]]
    if task == "ocr":
        return [(one["text"], [one["quad_box"]]) for one in answer]
    return [(one["cat_name"], one["polygons"] if "polygons" in one else [one["bbox"]]) for one in answer]


def same_but_for_truncation(ours: float, theirs: int) -> bool:
    return theirs in (int(ours - 1e-3), int(ours + 1e-3))  # it computes in float32


@pytest.mark.parametrize(("form", "task"), [*NATIVE.items(), (Form.LABELLED_BOXES, "phrase_grounding")])
@settings(deadline=None)
@given(st.data(), st.tuples(*[st.integers(1, 4000)] * 2))
def test_as_transformers_reads_it(form: Form, task: str, data: st.DataObject, size: tuple[int, int]) -> None:
    """Well-formed answers, whose labels it does not break on: ASCII without `<` and line ends."""
    given = data.draw(answers(form, size, ascii_labels))
    target = encode(form, given, size)
    ours = [one.annotation for one in decode(form, pieces_of_text(target), size)]
    theirs = parsed(task, target, size)
    assert [a.label for a in ours] == [label for label, _ in theirs]
    for a, (_, parts) in zip(ours, theirs, strict=True):
        assert [len(ring) for ring in a.polygons or (a.box or a.quad or (),)] == [len(part) for part in parts]
        flattened = [v for part in parts for v in part]
        assert all(same_but_for_truncation(v, w) for v, w in zip(numbers(a), flattened, strict=True))


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_texts_as_transformers_reads_them(text: str) -> None:
    assume(not SPECIAL.search(text))
    ids = vocabulary().ids(encode(Form.TEXT, text, SQUARE))
    assert native()(sequence=[0, *ids], image_size=SQUARE, parse_tasks="pure_text")["pure_text"] == plain(
        pieces_of_ids(ids, vocabulary())
    )


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-10, 5000)] * 2), min_size=1), st.tuples(*[st.integers(1, 4000)] * 2))
def test_bins_as_transformers_makes_them(points: list[tuple[float, float]], size: tuple[int, int]) -> None:
    """Up to rounding where a coordinate is on the edge of a bin; in float32, its own precision, one bin off there."""
    ours = quantize(flat(points), size)
    exact, single = (native().quantize(torch.tensor(points, dtype=d), size) for d in (torch.float64, torch.float32))
    for n, (v, a, b, c) in enumerate(zip(flat(points), ours, exact.flatten(), single.flatten(), strict=True)):
        from_edge = 0.5 - abs(v * 1000 / size[n % 2] % 1 - 0.5)
        assert a == b or (from_edge < 1e-9 and abs(a - b) == 1)
        assert a == c or (from_edge < 1e-2 and abs(a - c) == 1)
