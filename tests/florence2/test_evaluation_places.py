"""Phrases, referring expressions and text, by numbers worked out by hand and by plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from florence2 import Florence2Error
from florence2.evaluation.grounding import Grounded, recall
from florence2.evaluation.masks import Rle, mask_of
from florence2.evaluation.ocr import Line, character_error_rate, spotting
from florence2.evaluation.referring import referred_boxes, referred_masks

NAN = float("nan")

# Phrases


def test_recall_of_any_box_and_of_the_merged() -> None:
    pair = [[0, 0, 10, 10], [20, 0, 30, 10]]
    phrases = [
        Grounded(pair, [[0, 0, 10, 9]], ["animals"]),  # one of the two: right by ANY, a third of MERGED
        Grounded(pair, [[0, 0, 30, 10]], ["animals"]),  # around both: a third by ANY, right by MERGED
        Grounded([[0, 0, 10, 10]], [[0, 0, 10, 4.9], [0, 0, 10, 5]], ["people"]),  # the second, on the very edge
        Grounded([[0, 0, 10, 10]], [[50, 50, 60, 60]] * 5 + [[0, 0, 10, 10]], ["people", "other"]),  # the sixth
        Grounded([[0, 0, 10, 10]], (), ["people"]),
        Grounded((), [[0, 0, 10, 10]], ["scene"]),
    ]
    result = recall(phrases)
    assert result.numbers == {
        "R@1 ANY": 1 / 5,
        "R@5 ANY": 2 / 5,
        "R@10 ANY": 3 / 5,
        "R@1 MERGED": 1 / 5,
        "R@5 MERGED": 2 / 5,
        "R@10 MERGED": 3 / 5,
    }
    assert result.counts == {"phrases": 5, "phrases without truth": 1, "phrases without answer": 1}
    assert list(result.classes) == ["animals", "other", "people"]
    assert result.classes["animals"] == dict.fromkeys(result.numbers, 1 / 2)
    assert result.classes["people"]["R@5 ANY"] == 1 / 3
    assert "ANY" in result.protocol and "MERGED" in result.protocol
    assert set(recall([]).numbers.values()) == {None}
    one, both = (recall([phrase]).numbers for phrase in phrases[:2])
    assert (one["R@1 ANY"], one["R@1 MERGED"], both["R@1 ANY"], both["R@1 MERGED"]) == (1, 0, 0, 1)


@pytest.mark.parametrize("box", [[0, 0, NAN, 1], [5, 0, 0, 1], [1, 2, 3]])
def test_a_phrase_with_what_is_no_box(box: list[float]) -> None:
    for phrase in (Grounded([box], (), name="a dog"), Grounded([[0, 0, 1, 1]], [box], name="a dog")):
        with pytest.raises(Florence2Error, match="a dog: expected boxes"):
            recall([phrase])


# Referring expressions


def test_referred_boxes() -> None:
    truth = [[0, 0, 10, 10]] * 4
    result = referred_boxes(truth, [[0, 0, 10, 5], [0, 0, 10, 4], [5, 0, 15, 10], None])
    assert result.numbers["accuracy@0.5"] == 1 / 4
    assert result.numbers["mIoU"] == pytest.approx((0.5 + 0.4 + 1 / 3 + 0) / 4)
    assert result.numbers["oIoU"] == pytest.approx((50 + 40 + 50) / (100 + 100 + 150 + 100))
    assert result.counts == {"expressions": 4, "expressions without answer": 1}
    assert set(referred_boxes([], []).numbers.values()) == {None}


def square(x: float, y: float, side: float) -> Rle:
    return mask_of([[x, y, x + side, y, x + side, y + side, x, y + side]], (40, 50))


def test_referred_masks() -> None:
    truth = [square(0, 0, 20), square(10, 10, 4), square(3, 5, 7), square(0, 0, 2)]
    found = [square(0, 0, 10), square(10, 10, 4), None, mask_of([], (40, 50))]
    result = referred_masks(truth, found)
    assert result.numbers["accuracy@0.5"] == 1 / 4
    assert result.numbers["mIoU"] == pytest.approx((0.25 + 1) / 4)
    assert result.numbers["oIoU"] == pytest.approx((100 + 16) / (400 + 16 + 49 + 4))
    assert result.counts["expressions without answer"] == 1


def test_referred_masks_by_pixels() -> None:
    random = np.random.default_rng(0)
    pixels = random.random((2, 9, 20, 30)) < random.random((2, 9, 1, 1))
    masks = [[dict(coco_mask.encode(np.asfortranarray(p.astype(np.uint8)))) for p in side] for side in pixels]
    both, either = (pixels[0] & pixels[1]).sum((1, 2)), (pixels[0] | pixels[1]).sum((1, 2))
    numbers = referred_masks(*masks).numbers
    assert numbers["mIoU"] == pytest.approx((both / either).mean())
    assert numbers["oIoU"] == pytest.approx(both.sum() / either.sum())
    assert numbers["accuracy@0.5"] == pytest.approx((both / either >= 0.5).mean())


def test_what_is_no_answer() -> None:
    with pytest.raises(Florence2Error, match="an answer for each of 2 expressions, got 1"):
        referred_boxes([[0, 0, 1, 1]] * 2, [None])
    with pytest.raises(Florence2Error, match="the dog: expected boxes of finite"):
        referred_boxes([[0, 0, 1, 1]], [[0, 0, NAN, 1]], ["the dog"])
    with pytest.raises(Florence2Error, match="expression 1: expected masks of one size"):
        referred_masks([square(0, 0, 1)] * 2, [None, mask_of([], (3, 3))])
    with pytest.raises(Florence2Error, match="the dog: expected COCO's compressed run lengths"):
        referred_masks([{"size": [3, 3], "counts": b"~~~"}], [None], ["the dog"])


# Text


def quad(x: float, y: float, width: float = 10, height: float = 10) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def test_spotting() -> None:
    truth = {
        "a": [Line(quad(0, 0), "Open"), Line(quad(20, 0), "24h"), Line(quad(40, 0), "exit"), Line(quad(60, 0), None)],
        "b": [],
    }
    found = {
        "a": [
            Line(quad(0, 0, 10, 5), "open"),  # IoU 0.5, on the very edge; another case
            Line(quad(21, 0), "24h"),  # 9 / 11
            Line(quad(40, 0, 10, 4), "exit"),  # 0.4: not found
            Line(quad(61, 0, 10, 10), "noise"),  # in what nobody can read
        ],
        "b": [Line(quad(0, 0), "ghost")],
        "c": [Line(quad(0, 0), "elsewhere")],
    }
    result = spotting(truth, found)
    assert result.numbers == pytest.approx(
        {
            "detection precision": 2 / 4,
            "detection recall": 2 / 3,
            "detection F1": 2 * 2 / 7,
            "end-to-end precision": 1 / 4,
            "end-to-end recall": 1 / 3,
            "end-to-end F1": 2 * 1 / 7,
            "end-to-end caseless precision": 2 / 4,
            "end-to-end caseless recall": 2 / 3,
            "end-to-end caseless F1": 2 * 2 / 7,
            "CER": (1 + 0 + 4 + 4 + 5) / (4 + 3 + 4),  # Open, 24h, exit missed; exit and ghost surplus
            "CER of matched": 1 / 7,
        }
    )
    assert result.counts == {
        "images": 2,
        "lines": 3,
        "don't care": 1,
        "found": 4,
        "found in don't care": 1,
        "matched": 2,
        "images without truth": 1,
    }
    assert "ICDAR 2015" in result.protocol and "NFC" in result.protocol


def test_spotting_is_one_to_one_and_the_best_first() -> None:
    truth = {1: [Line(quad(0, 0), "left"), Line(quad(3, 0), "right")]}
    found = {1: [Line(quad(2, 0), "right"), Line(quad(2.5, 0), "right")]}
    numbers = spotting(truth, found).numbers
    assert numbers["detection F1"] == 1 and numbers["end-to-end recall"] == 1 / 2
    one = spotting(truth, {1: [Line(quad(2, 0), "right")]}).numbers  # 8 / 12 with the first, 9 / 11 with the second
    assert one["end-to-end precision"] == 1
    twice = spotting({1: truth[1][:1]}, {1: [Line(quad(0, 0), "left"), Line(quad(0, 0), "left")]}).numbers
    assert (twice["detection precision"], twice["detection recall"]) == (1 / 2, 1)


def test_dont_care_by_the_area_of_what_is_found() -> None:
    truth = {1: [Line(quad(0, 0, 100, 100), None), Line(quad(200, 0), None)]}
    for place, ignored in ((quad(5, 5), 1), (quad(96, 0), 0), (quad(94, 0), 1), (quad(150, 0, 100, 10), 0)):
        assert spotting(truth, {1: [Line(place, "x")]}).counts["found in don't care"] == ignored


def test_outlines_of_any_shape() -> None:
    """A turned square against its own box: half of its area."""
    diamond = Line([10, 0, 20, 10, 10, 20, 0, 10], "x")
    box = Line([0, 0, 20, 20], "x")
    assert spotting({1: [diamond]}, {1: [box]}).numbers["detection F1"] == 1
    smaller = Line([0, 0, 20, 19], "x")  # the part of the diamond in it is 199 of 200 + 380 - 199
    assert spotting({1: [diamond]}, {1: [smaller]}).numbers["detection F1"] == 1
    larger = Line([0, 0, 20, 20.5], "x")
    assert spotting({1: [diamond]}, {1: [larger]}).numbers["detection F1"] == 0
    crossed = Line([0, 0, 10, 10, 10, 0, 0, 10], "x")  # its sides cross: two triangles of 25 each
    assert spotting({1: [crossed]}, {1: [crossed]}).numbers["detection F1"] == 1
    flat = Line([0, 0, 10, 0, 10, 0, 0, 0], "x")
    assert spotting({1: [flat]}, {1: [flat]}).numbers["detection F1"] == 0
    clockwise_or_not = Line([0, 0, 0, 10, 10, 10, 10, 0], "x")
    assert spotting({1: [clockwise_or_not]}, {1: [Line(quad(0, 0), "x")]}).numbers["end-to-end F1"] == 1


def test_texts_are_the_same_however_they_are_encoded() -> None:
    truth = {1: [Line(quad(0, 0), "Café  au\tlait")]}
    found = {1: [Line(quad(0, 0), " Cafe\u0301 au lait")]}
    numbers = spotting(truth, found).numbers
    assert (numbers["end-to-end F1"], numbers["CER"]) == (1, 0)


def test_character_error_rate() -> None:
    truth = {1: "kitten", 2: "Saturday", 3: "exit", 4: ""}
    found = {1: "sitting", 2: "Sunday", 4: "x", 5: "elsewhere"}
    result = character_error_rate(truth, found)
    assert result.numbers["CER"] == pytest.approx((3 + 3 + 4 + 1) / (6 + 8 + 4))
    assert result.numbers["exact"] == 0
    assert result.counts == {"images": 4, "characters": 18, "images without truth": 1}
    assert character_error_rate({1: "a b"}, {1: "a  b\n"}).numbers == {"CER": 0, "exact": 1}
    assert character_error_rate({1: "a"}, {1: "A"}).numbers == {"CER": 1, "exact": 0}
    assert character_error_rate({}, {}).numbers == {"CER": None, "exact": None}


@pytest.mark.parametrize("outline", [[0, 0, NAN, 1], [0, 0, 1, 1, 2], [0, 0], [], "abcd", [[0, 0], [1]], [1e999] * 8])
def test_what_is_no_outline(outline: Any) -> None:
    with pytest.raises(Florence2Error, match="image 3: expected an outline of finite"):
        spotting({3: [Line(outline, "x")]}, {})
    with pytest.raises(Florence2Error, match="image 3: expected an outline of finite"):
        spotting({3: []}, {3: [Line(outline, "x")]})
