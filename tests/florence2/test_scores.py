"""Scores computed by hand, on distributions whose score is known, and over answers of any shape."""

from __future__ import annotations

from math import erf, exp, inf, log, nan, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from florence2.codec import Annotation, Found, Piece, decode, pieces_of_text
from florence2.errors import Florence2Error
from florence2.scores import likelihood, scored, within
from florence2.tasks import Form

SIZE = (1000.0, 1000.0)


def answer(text: str) -> list[Piece]:
    """Pieces as if every word of a text were a token."""
    pieces, at = [], 0
    for piece in pieces_of_text(text):
        length = len(piece.text.split()) if piece.kind == "text" else 1
        pieces.append(Piece(piece.kind, piece.text, range(at, at + length)))
        at += length
    return pieces


def locs(*bins: int) -> str:
    return "".join(f"<loc_{q}>" for q in bins)


def logs(*rows: dict[int, float]) -> Tensor:
    """log p [T, 1000] of the bins given."""
    p = torch.zeros(len(rows), 1000, dtype=torch.float64)
    for row, masses in zip(p, rows, strict=True):
        for bin, mass in masses.items():
            row[bin] = mass
    return p.log()


def normal(middle: int, deviation: float) -> Tensor:
    """p [1000] of an error that is normal around the middle of a bin."""
    edges = [(edge - middle - 0.5) / deviation / sqrt(2) for edge in range(1001)]
    cumulated = torch.tensor([(1 + erf(edge)) / 2 for edge in edges], dtype=torch.float64)
    return cumulated.diff()


def box(label: str, *bins: int) -> list[Found]:
    return decode(Form.LABELLED_BOXES, answer(label + locs(*bins)), SIZE)


def test_by_hand() -> None:
    """A box of 100 x 20 bins: edges count up to 10 and 2 bins away, the last bins half."""
    found = box("a dog", 100, 200, 200, 220)
    loc_logp = logs(
        {}, {},  # a dog
        {100: 0.4, 91: 0.1, 109: 0.1, 90: 0.2, 89: 0.2},  # 0.6 + 0.2 / 2
        {200: 0.5, 201: 0.2, 202: 0.2, 203: 0.1},  # 0.7 + 0.2 / 2
        {200: 0.5, 300: 0.5},
        {220: 0.3, 0: 0.1},  # the rest of the mass is at other tokens
    )  # fmt: skip
    chosen = [0.9, 0.4, 0.4, 0.5, 0.5, 0.3]
    one = scored(found, torch.tensor(chosen).log(), loc_logp)[0]
    assert one.score == pytest.approx(0.7 * 0.8 * 0.5 * 0.3)
    assert one.raw == pytest.approx((0.4 * 0.5 * 0.5 * 0.3) ** (1 / 4))
    assert one.label_score == pytest.approx(sqrt(0.9 * 0.4))
    assert (one.label, one.box) == (found[0].annotation.label, found[0].annotation.box)


def test_a_quad_has_the_sides_of_its_extent() -> None:
    found = decode(Form.LABELLED_QUADS, answer(f"EXIT{locs(10, 30, 110, 10, 100, 50, 20, 50)}"), SIZE)
    tolerances = [10, 4] * 4  # 100 x 40 bins
    rows = [{b: 0.5, b + t - 1: 0.25, b + t + 1: 0.25} for b, t in zip(found[0].bins, tolerances, strict=True)]
    one = scored(found, torch.full((9,), log(0.5)), logs({}, *rows))[0]
    assert one.score == pytest.approx(0.75**8)
    assert [one.raw, one.label_score] == pytest.approx([0.5, 0.5])


def test_polygons_get_no_score() -> None:
    rings = f"<poly>{locs(1, 1, 5, 1, 5, 5)}<sep>{locs(7, 7, 9, 7, 9, 9)}</poly>"
    found = decode(Form.POLYGONS, answer(rings), SIZE, "asked")
    token_logp = torch.tensor([-9.0, *[-1.0] * 6, -9.0, *[-2.0] * 6, -9.0])
    one = scored(found, token_logp, torch.zeros(15, 1000))[0]
    assert (one.score, one.label_score) == (None, None)
    assert one.raw == pytest.approx(exp(-1.5)), "of locs alone"


def test_what_has_no_tokens_has_no_scores() -> None:
    """A label that was asked for; an answer that came from a string."""
    unlabelled = decode(Form.BOXES, answer(locs(1, 2, 3, 4)), SIZE, "asked")
    one = scored(unlabelled, torch.zeros(4), torch.full((4, 1000), log(1 / 1000)))[0]
    assert (one.label, one.label_score, one.raw) == ("asked", None, 1)
    of_a_string = decode(Form.LABELLED_BOXES, pieces_of_text(f"dog{locs(1, 2, 3, 4)}"), SIZE)
    assert scored(of_a_string, torch.zeros(0), torch.zeros(0, 1000)) == [Annotation("dog", box=(1.5, 2.5, 3.5, 4.5))]
    assert likelihood(torch.zeros(0)) is None


def test_a_shared_label_has_one_score() -> None:
    found = decode(Form.LABELLED_BOXES, answer(f"a dog{locs(1, 2, 3, 4, 5, 6, 7, 8)}cat{locs(1, 2, 3, 4)}"), SIZE)
    token_logp = torch.tensor([-1.0, -3.0, *[-0.5] * 8, -4.0, *[-0.25] * 4])
    made = scored(found, token_logp, torch.full((15, 1000), log(1 / 1000)))
    assert [a.label_score for a in made] == pytest.approx([exp(-2), exp(-2), exp(-4)])
    assert [a.raw for a in made] == pytest.approx([exp(-0.5), exp(-0.5), exp(-0.25)])


@pytest.mark.parametrize("bins", [(10, 10, 10, 10), (0, 0, 999, 999), (400, 300, 401, 700), (9, 9, 5, 2)])
def test_certainty_is_one(bins: tuple[int, ...]) -> None:
    one = scored(box("dog", *bins), torch.zeros(5), logs({}, *({b: 1.0} for b in bins)))[0]
    assert (one.score, one.raw, one.label_score) == (1, 1, 1)


def test_a_side_of_zero_counts_the_chosen_bin_alone() -> None:
    rows = [{b: 0.5, b + 1: 0.25, b - 1: 0.25} for b in (10, 10, 10, 50)]
    one = scored(box("dog", 10, 10, 10, 50), torch.zeros(5), logs({}, *rows))[0]
    assert one.score == pytest.approx(0.5 * 1 * 0.5 * 1), "0 wide and 40 high"


def test_reversed_corners_count_where_they_were_written() -> None:
    straight, backwards = box("dog", 100, 200, 200, 220), box("dog", 200, 220, 100, 200)
    rows = [{100: 0.9, 500: 0.1}, {200: 0.8}, {200: 0.7}, {220: 0.6}]
    a = scored(straight, torch.zeros(5), logs({}, *rows))[0]
    b = scored(backwards, torch.zeros(5), logs({}, *rows[2:], *rows[:2]))[0]
    assert a == b and a.score == pytest.approx(0.9 * 0.8 * 0.7 * 0.6)


@pytest.mark.parametrize(("side", "best"), [(30, 0.26), (900, 0.009)])
def test_an_error_of_5_percent_of_the_side(side: int, best: float) -> None:
    """Microsoft's score falls with the side, ours stays near erf(sqrt(2)) ** 4 = 0.83: 0.79, and 0.90 where what would
    be outside the image is inside, having no bins."""
    corners = (50, 50, 50 + side, 50 + side)
    p = torch.stack([normal(bin, 0.05 * side) for bin in (50, *corners)])
    p /= p.sum(-1, keepdim=True)
    chosen = torch.stack([row[bin] for row, bin in zip(p, (50, *corners), strict=True)])
    one = scored(box("dog", *corners), chosen.log(), p.log())[0]
    assert one.raw == pytest.approx(best, abs=0.002)
    assert one.score is not None and 0.78 < one.score < 0.91


def test_the_side_matters_little_to_an_edge() -> None:
    """0.84 to 0.96 an edge at sides of 5 bins and more, and no jump from a side to the next."""
    sides = range(5, 900)
    p = torch.stack([normal(500, 0.05 * side) for side in sides])
    mass = within(torch.full((len(sides),), 500), torch.tensor(sides), p)
    assert mass.min() > 0.83 and mass.max() < 0.96
    assert mass.diff().abs().max() < 0.06
    assert mass[45:].min() > 0.945, "from 50 bins on"
    assert mass[-1] == pytest.approx(erf(sqrt(2)), abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.data(), st.sampled_from([f for f in Form if f is not Form.TEXT]), st.integers(0, 999), st.floats(0, 30))
def test_in_range(data: st.DataObject, form: Form, seed: int, sharpness: float) -> None:
    """From flat distributions to sharp ones, with other tokens beside the locs."""
    bins = st.lists(st.integers(0, 999), max_size=20).map(lambda some: locs(*some))
    parts = bins | st.sampled_from(["a dog", "<poly>", "</poly>", "<sep>"])
    pieces = answer("".join(data.draw(st.lists(parts, max_size=8))))
    length = pieces[-1].tokens.stop if pieces else 0
    logp = (sharpness * torch.randn(length, 1100, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    token_logp = logp[:, 1050].clone()
    for piece in pieces:
        if piece.kind == "loc":
            token_logp[piece.tokens.start] = logp[piece.tokens.start, piece.bin]
    found = decode(form, pieces, SIZE)
    made = scored(found, token_logp, logp[:, :1000])
    assert len(made) == len(found)
    for one, a in zip(found, made, strict=True):
        assert all(value is None or 0 <= value <= 1 for value in (a.score, a.raw, a.label_score))
        assert (a.score is None) == (a.polygons is not None) and a.raw is not None
        assert (a.label_score is None) == (a.label == "")
        if a.score is not None:
            assert a.score >= a.raw ** len(one.bins) * (1 - 1e-4), "the chosen bins always count"


def test_a_log_p_of_nothing_and_of_nan() -> None:
    assert likelihood(torch.tensor([-1.0, -inf])) == 0
    assert likelihood(torch.tensor([1e-3])) == 1, "of rounding in bf16"
    assert str(likelihood(torch.tensor([-1.0, nan]))) == "nan", "no number of a broken model passes for a score"
    half = torch.tensor([-1.0, -2.0], dtype=torch.bfloat16)
    assert likelihood(half) == pytest.approx(exp(-1.5))


@pytest.mark.parametrize(("token_logp", "loc_logp"), [((5,), (4, 1000)), ((5,), (5, 999)), ((1, 5), (5, 1000))])
def test_shapes_that_do_not_fit(token_logp: tuple[int, ...], loc_logp: tuple[int, ...]) -> None:
    with pytest.raises(Florence2Error, match=r"expected token_logp \[T\] and loc_logp \[T, 1000\] of one answer, got"):
        scored([], torch.zeros(token_logp), torch.zeros(loc_logp))
