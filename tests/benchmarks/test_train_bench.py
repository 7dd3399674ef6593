from __future__ import annotations

import pytest

from benchmarks.train.curve import row, table
from benchmarks.train.measures import (
    CAPTIONS,
    Found,
    Said,
    anything,
    average_precision,
    f1,
    matched,
    measure,
    said,
    same_label,
)
from benchmarks.train.stage import paces, steps_in
from benchmarks.world import FULL, Picture, floor, tell
from engine.geometry import quad_box
from engine.records import Box
from florence2.annotate import Answer
from florence2.codec import Annotation
from florence2.tasks import Prompt, Task

PICTURES = [p for p in (FULL.picture(5, n) for n in range(40)) if p.words and p.shapes][:6]


def at(x: float, label: str = "star", score: float = 1.0) -> Found:
    return Found(label, (x, 0.0, x + 10.0, 10.0), score)


def truth(picture: Picture) -> Said:
    return Said(
        tuple(Found(shape.label, shape.box) for shape in picture.shapes),
        {told.detail: told.text for told in tell(picture)},
        tuple(Found(word.text, quad_box(word.quad)) for word in picture.words),
    )


def test_the_truth_is_perfect_and_silence_is_worth_nothing() -> None:
    best = measure([truth(picture) for picture in PICTURES], PICTURES)
    assert all(value == pytest.approx(0 if "characters" in name else 1) for name, value in best.items())
    worst = measure([Said((), dict.fromkeys(CAPTIONS, ""), ())] * len(PICTURES), PICTURES)
    assert worst == {name: 0.0 for name in best} | {"characters": 1.0, "characters_matched": None}


def test_a_box_counts_once_with_its_label_and_from_half_on() -> None:
    true = [at(0), at(50), at(80, "moon")]
    found = [at(2), at(0), at(53.4), at(80, "ring")]  # IoU 0.67, a double, 0.49, another label
    assert matched(found, true, same_label) == [(found[0], true[0])]
    assert f1([(found, true)], same_label) == 2 * 1 / 7
    assert f1([(found, true), ([], [])], anything) == 2 * 2 / 7
    assert matched([at(49)], [at(51.5), at(50)], anything) == [(at(49), at(50))]  # the better one


def test_average_precision_is_cocos() -> None:
    true = [at(0), at(50)]
    # Precision is 1/2 up to recall 1/2, and 0 beyond: 51 of COCO's 101 points.
    pairs = [([at(20, score=0.9), at(0, score=0.8), at(50, "unheard of")], true)]
    assert average_precision(pairs, ("moon", "star")) == pytest.approx((51 / 101 / 2, 51 / 101 / 2))
    # IoU 9/11 is right at 0.5 to 0.8: at 7 of COCO's 10 thresholds.
    assert average_precision([([at(1), at(51)], true)], ("star",)) == pytest.approx((0.7, 1))
    assert average_precision([([], true)], ("star",)) == average_precision([([at(0)], [])], ("star",)) == (0, 0)


def test_words_are_read_from_the_top_and_matched_where_they_are() -> None:
    picture = next(p for p in PICTURES if len(p.words) == 1)
    word = picture.words[0]
    box = quad_box(word.quad)
    below: Box = (box[0], box[3] + 50, box[2], box[3] + 60)
    words = (Found("zz", below), Found("x" + word.text[1:], box))
    found = measure([Said((), dict.fromkeys(CAPTIONS, ""), words)], [picture])
    letters = len(word.text)
    assert found["characters"] == 4 / letters  # one is wrong, and " zz" is too much
    assert found["characters_matched"] == 1 / letters
    assert found["words"] == 2 / 3


def test_answers_become_what_is_measured_surest_first() -> None:
    def answer(task: Task, *annotations: Annotation) -> Answer:
        return Answer(Prompt(task.sentence, task.form, task), "A red star.", (), 1.0, annotations, True)

    boxes = (
        Annotation("star", (0, 0, 2, 2), score=0.5, label_score=0.5),
        Annotation("moon", (1, 1, 2, 2), score=1, label_score=1),
    )
    word = Annotation("stop", quad=(1, 1, 5, 0, 5, 3, 1, 4), score=0.5, label_score=0.25)
    answers = [answer(Task.OD, *boxes), *map(answer, CAPTIONS.values()), answer(Task.OCR_WITH_REGION, word)]
    found = said(answers)
    assert [(one.label, one.score) for one in found.objects] == [("moon", 1), ("star", 0.25)]
    assert found.words == (Found("stop", (1, 0, 5, 4), 0.125),)
    assert found.captions == dict.fromkeys(CAPTIONS, "A red star.")


def test_the_floors_answers_get_no_more_than_the_floor() -> None:
    train = [FULL.picture(1, n) for n in range(40)]
    lowest = floor(train, PICTURES)
    boxes = tuple(Found(label, box) for label, box in lowest.boxes)
    found = measure([Said(boxes, dict.fromkeys(CAPTIONS, ""), ())] * len(PICTURES), PICTURES)
    assert found["f1"] <= lowest.regions


def journal() -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The first of five steps of 16 images takes 8 s, the others 2 s, of which they wait 0.5; step 4 is kept in 3 s."""
    ends = [120.0, 122.0, 124.0, 126.0, 131.0]
    steps = [{"step": n, "at": end, "images_per_second": 8.0, "waited": 0.5} for n, end in enumerate(ends, 1)]
    steps[0] |= {"images_per_second": 2.0, "waited": 7.0}
    return steps, [{"step": 4, "at": 129.0}]


def test_the_pace_leaves_start_up_out() -> None:
    pace = paces(*journal(), images=16, began=100.0)
    assert pace == {
        "steps": 5,
        "images": 80,
        "start_up": 20.0,
        "step": 2.0,
        "keep": 3.0,
        "waited": 0.25,
        "images_per_second": 64 / 11,
    }
    assert steps_in(100.0, pace, checkpoints=10) == (100 - 20 - 30) // 2
    with pytest.raises(SystemExit, match="60 s are too few"):
        steps_in(60.0, pace, checkpoints=10)


def test_every_number_stands_in_the_table() -> None:
    measured = measure([truth(picture) for picture in PICTURES], PICTURES)
    point = {"model": "step-7", "step": 7, "images": 112, "seconds": 9.0, "held_out_loss": None, **measured}
    found = {
        "floor": {"f1": 0.125, "characters": 1.0},
        "curve": [point],
        "pace": paces(*journal(), images=16, began=100.0),
        "peak_mb": {"worker": 700.0, "all": 1500.0, "all_resident": 2500.0},
        "load": {"mean": 2.0, "most": 3.0},
        "seconds": 33.0,
        "stopped": True,
    }
    printed = table(found)
    assert row("step-7", point) in printed
    assert "1.000" in row("step-7", point)
    for words in (
        "0.125",
        "5 steps in 33 s (stopped",
        "2.000 s a step",
        "25.0% of a step",
        "start-up 20.0 s",
        "700 MB",
    ):
        assert words in printed
