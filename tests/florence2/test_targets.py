"""Scenes to targets: golden strings for every task, there and back within half a bin, cut whole, mixed by weight.

`python tests/florence2/test_targets.py rewrite` writes the golden file anew: read the difference before you commit it.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from florence import small_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from florence2.codec import Annotation, decode, pieces_of_ids, pieces_of_text, unforged
from florence2.errors import ConfigError
from florence2.scene import Caption, Line, Mask, Phrase, Placement, Scene, Thing
from florence2.targets import REFERRING, Mix, Targets, fit
from florence2.tasks import Form, Task

GOLDEN = Path(__file__).parents[1] / "golden" / "targets.yaml"
OUTLINED = (Task.REFERRING_EXPRESSION_SEGMENTATION, Task.REGION_TO_SEGMENTATION)
SIZE = (640.0, 480.0)


def phrase(text: str, words: str, *things: int, expression: str = "") -> Phrase:
    start, grown = text.index(words), text.index(expression or words)
    return Phrase(start, start + len(words), things, grown, grown + len(expression or words))


def mask_of(*boxes: tuple[int, int, int, int]) -> Mask:
    pixels = np.zeros((480, 640), np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 1
    return Mask((480, 640), coco.encode(np.asfortranarray(pixels))["counts"])


def rich_scene() -> Scene:
    """A dog on a leash, two people, one of them far away, a crowd, a bird too small, a sign and a page of two columns.

    Words in other scripts, and what spells structure.
    """
    brief = "A dog on a leash and two people."
    detailed = "It shows a brown dog on a red leash beside a woman. Größe <loc_5>, 犬."
    things = (
        Thing((100, 240, 300, 420), "dog", ("a brown dog on a red leash", "a dog"), mask_of((100, 240, 300, 420))),
        Thing((320, 60, 420, 440), "person", ("a woman",), mask_of((320, 60, 400, 440), (400, 200, 420, 300))),
        Thing((500, 200, 540, 300), "person", ("a man far away", "a person")),
        Thing((0, 180, 640, 240), "sheep", crowd=True),
        Thing((600, 20, 605, 25), "bird"),
        Thing((560, 300, 680, 480), "Größe<loc_5> 犬"),
        Thing((20, 20, 220, 120)),
    )
    words = [
        *((30, 30, "Keep off"), (120, 31, "the grass"), (30, 60, "by order"), (30, 90, "<and> so on")),
        *((400, 20, "犬に"), (400, 45, "注意")),
    ]
    lines = tuple(Line((x, y, x + 80, y, x + 80, y + 20, x, y + 20), text) for x, y, text in words)
    captions = (
        Caption(
            brief,
            "brief",
            (
                phrase(brief, "two people", 2, 1),
                phrase(brief, "A dog", 0, expression="A dog on a leash"),
                phrase(brief, "a leash", 4),
            ),
        ),
        Caption(
            detailed,
            "detailed",
            (phrase(detailed, "It", 0), phrase(detailed, "a woman", 1), phrase(detailed, "Größe <loc_5>, 犬", 5)),
        ),
        Caption("A paragraph. It says more.", "more_detailed"),
        Caption("A second one.", "brief"),
    )
    exhaustive = frozenset(("dog", "person", "sheep", "bird", "cat", "zebra"))
    return Scene(SIZE, captions, things, lines, exhaustive)


def written(targets: Targets, scene: Scene) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for task in Task:
        examples = targets.examples(scene, task, random.Random(0))
        found[str(task)] = [{"prompt": e.prompt.text, "answer": e.answer} for e in examples]
    return found


def test_the_golden_strings() -> None:
    golden = yaml.safe_load(GOLDEN.read_text(encoding="utf-8"))
    assert written(Targets(), rich_scene()) == golden
    assert all(golden[task] for task in Task)


# There and back

words = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["dog", "a dog", "it", "<loc_1>", "a<and>b", "<poly>", "犬", "Größe", "the", " "]
)
WIDTH, HEIGHT = 320.0, 200.0
x, y = st.floats(-10, WIDTH + 10), st.floats(-10, HEIGHT + 10)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    (x0, x1), (y0, y1) = sorted((draw(x), draw(x))), sorted((draw(y), draw(y)))
    return x0, y0, x1, y1


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    pixels = np.zeros((10, 16), np.uint8)
    for _ in range(draw(st.integers(0, 3))):
        column, row = draw(st.integers(0, 15)), draw(st.integers(0, 9))
        pixels[row : row + draw(st.integers(1, 8)), column : column + draw(st.integers(1, 8))] = 1
    scale = draw(st.sampled_from([(20.0, 0.0), (-20.0, WIDTH), (30.0, -50.0)]))
    counts = coco.encode(np.asfortranarray(pixels))["counts"]
    return Mask((10, 16), counts, Placement(*scale, 20.0, 0.0))


@st.composite
def captions(draw: st.DrawFn, things: int) -> Caption:
    text, phrases = draw(words) + draw(words), []
    for _ in range(draw(st.integers(0, 3)) if text else 0):
        a, b, c, d = sorted(draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
        named = draw(st.lists(st.integers(0, things - 1), max_size=3)) if things else []
        phrases.append(Phrase(b, c, tuple(named), a, d))
    return Caption(text, draw(st.sampled_from(["brief", "detailed", "more_detailed"])), tuple(phrases))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    thing = st.builds(
        Thing,
        boxes(),
        st.none() | words,
        st.lists(words, max_size=2).map(tuple),
        st.none() | masks(),
        st.sampled_from([False, False, False, True]),
    )
    things = tuple(draw(st.lists(thing, max_size=6)))
    lines = st.lists(st.builds(Line, st.tuples(x, y, x, y, x, y, x, y), words), max_size=5)
    return Scene(
        (WIDTH, HEIGHT),
        tuple(draw(captions(len(things))) for _ in range(draw(st.integers(0, 3)))),
        things,
        tuple(draw(lines)),
        draw(st.frozensets(words, max_size=4)) | {thing.label for thing in things[:3] if thing.label},
    )


choices = st.builds(
    Targets,
    order=st.sampled_from(["alphabetical", "area", "random"]),
    region_order=st.sampled_from(["area", "random"]),
    dense_labels=st.booleans(),
    queries=st.integers(1, 3),
    noise=st.integers(0, 2),
    ocr_join=st.sampled_from([" ", "\n"]),
    min_side=st.sampled_from([0.0, 8.0, 100.0]),
)


def numbers(annotation: Annotation) -> list[float]:
    rings = annotation.polygons or ()
    return [*(annotation.box or ()), *(annotation.quad or ()), *(v for ring in rings for v in ring)]


@given(scenes(), choices)
@settings(max_examples=80, deadline=None)
def test_every_answer_says_its_annotations(scene: Scene, targets: Targets) -> None:
    available = targets.available(scene)
    assert all(available.values())
    for task in Task:
        examples = targets.examples(scene, task, random.Random(1))
        assert examples == targets.examples(scene, task, random.Random(1))
        count = available.get(task, 0)
        assert len(examples) <= count if task in OUTLINED else len(examples) == count
        for example in examples:
            assert example.task is example.prompt.task is task
            if example.prompt.form is Form.TEXT:
                assert example.answer and not example.annotations
                continue
            for pieces in (
                pieces_of_text(example.answer),
                pieces_of_ids(small_tokens().sentence(example.answer), small_tokens()),
            ):
                found = [f.annotation for f in decode(example.prompt.form, pieces, scene.size)]
                real, noise = found[: len(example.annotations)], found[len(example.annotations) :]
                assert [a.label for a in noise] == ["noise"] * len(noise) and len(noise) == len(example.silent)
                for ours, theirs in zip(real, example.annotations, strict=True):
                    assert ours.label == unforged(theirs.label)
                    for n, (a, b) in enumerate(zip(numbers(ours), numbers(theirs), strict=True)):
                        assert abs(a - b) <= scene.size[n % 2] / 2000 + 1e-6


@given(scenes(), choices, st.integers(3, 60))
@settings(max_examples=60, deadline=None)
def test_fit_cuts_no_region(scene: Scene, targets: Targets, limit: int) -> None:
    tokens = small_tokens()
    for task in targets.available(scene):
        for example in targets.examples(scene, task, random.Random(1)):
            cut, count = fit(example, tokens, limit)
            assert len(tokens.sentence(cut.answer)) <= limit
            assert example.answer.startswith(cut.answer) and cut.prompt == example.prompt
            if len(tokens.sentence(example.answer)) <= limit:
                assert (cut, count) == (example, 0)
            elif example.prompt.form is Form.TEXT:
                assert count == 1 and len(cut.answer) < len(example.answer)
            else:
                assert count == len(example.annotations) - len(cut.annotations)
                assert cut.annotations == example.annotations[: len(cut.annotations)]
                found = decode(cut.prompt.form, pieces_of_text(cut.answer), scene.size)
                assert len(found) == len(cut.annotations) + len(cut.silent)
                assert all(set("<loc_0123456789>") >= set(cut.answer[a:b]) for a, b in cut.silent)


def test_fit_keeps_as_much_as_it_can() -> None:
    tokens = small_tokens()
    things = tuple(Thing((10 * n, 0, 300, 200), f"thing {n}") for n in range(9))
    (example,) = Targets().examples(Scene((320, 200), things=things), Task.OD, random.Random(0))
    lengths = []
    for kept in range(10):
        first = Scene((320, 200), things=things[:kept])
        short = Targets().examples(first, Task.OD, random.Random(0))
        lengths.append(len(tokens.sentence(short[0].answer)) if short else 2)
    for kept in range(1, 9):
        for limit in (lengths[kept], lengths[kept + 1] - 1):
            cut, count = fit(example, tokens, limit)
            assert (len(cut.annotations), count) == (kept, 9 - kept)
    assert fit(example, tokens, lengths[1] - 1)[0].answer == ""
    with pytest.raises(ConfigError, match="limit of 3"):
        fit(example, tokens, 2)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A dog sits. A cat (it is grey.) The end of it all is here", "A dog sits. A cat (it is grey.)"),
        ("version 2.5 of a dog that has no end at all in sight", "version 2.5 of a dog that has no end"),
        ("犬がいる。猫もいる。鳥がたくさん飛んでいる", "犬がいる。猫もいる。"),
        ("a-word-without-any-end-that-fits", "a-word-without-any-end-that"),
    ],
)
def test_texts_end_with_a_sentence_or_a_word(text: str, kept: str) -> None:
    (example,) = Targets().examples(Scene(SIZE, (Caption(text, "brief"),)), Task.CAPTION, random.Random(0))
    limit = len(small_tokens().sentence(kept))
    cut, count = fit(example, small_tokens(), limit)
    assert (cut.answer, count) == (kept, 1)


# What makes a target


def answers(scene: Scene, task: Task, **choices: Any) -> list[str]:
    return [example.answer for example in Targets(**choices).examples(scene, task, random.Random(0))]


def queries(scene: Scene, **choices: Any) -> dict[str, int]:
    """What open vocabulary asks for, and how many boxes it answers."""
    examples = Targets(**choices).examples(scene, Task.OPEN_VOCABULARY_DETECTION, random.Random(0))
    return {"+".join(example.prompt.labels): len(example.annotations) for example in examples}


def test_orders_of_detection() -> None:
    scene = Scene(
        (1000, 1000),
        things=(Thing((0, 0, 50, 50), "b"), Thing((0, 0, 100, 100), "a"), Thing((0, 0, 500, 500), "b")),
    )
    small, middle, large = (f"<loc_0><loc_0><loc_{side}><loc_{side}>" for side in (50, 100, 500))
    assert answers(scene, Task.OD) == [f"a{middle}b{large}{small}"]
    assert answers(scene, Task.OD, order="area") == [f"b{large}a{middle}b{small}"]
    orders = {Targets(order="random").examples(scene, Task.OD, random.Random(n))[0].answer for n in range(40)}
    assert len(orders) == 6
    assert answers(scene, Task.DENSE_REGION_CAPTION) == [f"b{large}a{middle}b{small}"]
    assert answers(scene, Task.DENSE_REGION_CAPTION, dense_labels=False) == []


def test_small_and_crowded_things_make_no_target() -> None:
    scene = Scene(
        (768, 768),
        (Caption("a bird", "brief", (Phrase(0, 6, (0,), 0, 6),)),),
        (Thing((0, 0, 7, 7), "bird"), Thing((0, 0, 500, 500), "sheep", crowd=True), Thing((900, 0, 990, 90), "out")),
        exhaustive=frozenset(("bird", "sheep", "out")),
    )
    assert Targets().available(scene) == {Task.CAPTION: 1}
    assert Targets(model_size=900).available(scene)[Task.OD] == 1
    assert answers(replace(scene, things=(Thing((0, 0, 4, 16), "pole"),)), Task.REGION_TO_CATEGORY) == ["pole"]


def test_proposals_are_the_union_of_boxes_and_masks() -> None:
    box, around = (100, 100, 200, 200), mask_of((100, 100, 200, 170))
    scene = Scene(SIZE, things=(Thing(box, "dog", mask=around), Thing((102, 100, 200, 200), "cat"), Thing(box)))
    (example,) = Targets().examples(scene, Task.REGION_PROPOSAL, random.Random(0))
    assert [a.box for a in example.annotations] == [box]  # the mask's has IoU 0.7
    (example,) = Targets(proposal_iou=0.75).examples(scene, Task.REGION_PROPOSAL, random.Random(0))
    assert [a.box for a in example.annotations] == [box, (100, 100, 200, 170)]


def test_absence_is_asked_for_only_where_it_is_known() -> None:
    big = (0, 0, 100, 100)
    things = tuple(Thing(big, label) for label in ("a", "b", "c", "d", "stray"))
    scene = Scene(SIZE, things=things, exhaustive=frozenset("abcdxyz"))
    asked = queries(scene)
    assert sum(asked.values()) == 4 and len(asked) == 5 and "stray" not in asked
    assert len(queries(scene, absent=0)) == 4 and len(queries(scene, absent=0.5)) == 7
    assert queries(scene, absent=0.5, queries=9) == {"+".join(queries(scene, absent=0.5)): 4}
    assert queries(replace(scene, exhaustive=frozenset())) == {}
    (nothing,) = queries(Scene(SIZE, exhaustive=frozenset("xyz"))).values()
    assert nothing == 0


def test_an_expression_is_of_one_thing_alone() -> None:
    one, two, three = ((200.0 * n, 0.0, 200.0 * n + 100, 100.0) for n in range(3))
    text = "The dog, a dog on a leash, two cats and it."
    scene = Scene(
        SIZE,
        (
            Caption(
                text,
                "brief",
                (
                    phrase(text, "The dog", 0),  # the second dog's label says so, too
                    phrase(text, "a dog", 0, expression="a dog on a leash"),
                    phrase(text, "two cats", 1, 2),
                    phrase(text, "it", 0),
                ),
            ),
        ),
        (Thing(one, "dog", ("a big one",)), Thing(two, "dog", ("a big one", "spotted")), Thing(three, None, ("spot",))),
    )
    examples = Targets().examples(scene, Task.CAPTION_TO_PHRASE_GROUNDING, random.Random(0))
    assert [len(example.annotations) for example in examples] == [4, 1, 1, 1]
    referring = {e.annotations[0].label: e.annotations[0].box for e in examples[1:]}
    assert referring == {"a dog on a leash": one, "spotted": two, "spot": three}


def test_noise_has_a_label_each_and_silent_places() -> None:
    scene = rich_scene()
    (plain,) = Targets().examples(scene, Task.OD, random.Random(0))
    (noisy,) = Targets(noise=3).examples(scene, Task.OD, random.Random(0))
    assert noisy.answer.startswith(plain.answer) and noisy.annotations == plain.annotations
    heard = noisy.answer
    for start, stop in reversed(noisy.silent):
        assert len(pieces_of_text(heard[start:stop])) == 4
        heard = heard[:start] + heard[stop:]
    assert heard == plain.answer + "noise" * 3


# The mix


def test_a_mix_draws_by_weight_and_nothing_twice() -> None:
    scene, targets, rng = rich_scene(), Targets(), random.Random(0)
    there = Mix().weights(list(targets.kinds(scene, rng)))
    assert sum(there.values()) == pytest.approx(100) and there[Task.OD] == 15 and there[Task.CAPTION] == 10
    drawn = Counter(Mix().draw(scene, targets, 1, rng)[0].task for _ in range(300))
    assert abs(drawn[Task.OD] - 45) < 20 and abs(drawn[Task.REGION_PROPOSAL] - 15) < 12
    everything = Mix().draw(scene, targets, 1000, rng)
    assert Counter(e.task for e in everything) == targets.available(scene)
    seen = Counter((example.prompt, example.answer) for example in everything)
    assert max(seen.values()) == 1
    assert Mix().draw(Scene(SIZE), targets, 3, rng) == []


def test_a_mix_builds_what_it_draws_alone() -> None:
    broken = Thing((0, 0, 100, 100), "dog", ("a spotted dog",), Mask((10, 10), b"none"))
    mix = Mix(segmentation=0, proposal=0, tasks={Task.REFERRING_EXPRESSION_SEGMENTATION: 0})
    drawn = mix.draw(Scene(SIZE, things=(broken,)), Targets(), 99, random.Random(0))
    assert {example.task for example in drawn} == {
        *(Task.OD, Task.DENSE_REGION_CAPTION, Task.CAPTION_TO_PHRASE_GROUNDING),
        *(Task.REGION_TO_CATEGORY, Task.REGION_TO_DESCRIPTION),
    }


def test_tasks_may_have_a_weight_of_their_own() -> None:
    there = [Task.CAPTION, Task.OCR, Task.OCR_WITH_REGION, REFERRING]
    weights = Mix(tasks={REFERRING: 3, Task.OCR: 0}).weights(there)
    assert weights == {Task.CAPTION: 30, Task.OCR_WITH_REGION: 5, REFERRING: 3}


@pytest.mark.parametrize(
    "choice",
    [
        *({"order": "size"}, {"region_order": "alphabetical"}, {"ocr_join": ", "}, {"absent": 1}, {"absent": -0.1}),
        *({"queries": 0}, {"noise": 1.5}, {"min_side": float("nan")}, {"max_vertices": 2}, {"proposal_iou": "high"}),
        *({"model_size": 0}, {"min_iou": True}, {"noise": True}),
    ],
)
def test_choices_that_make_no_sense(choice: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(choice))):
        Targets(**choice)


@pytest.mark.parametrize(
    ("mix", "named"),
    [
        ({"od": -1}, "od"),
        ({"tasks": {"OD ": 1}}, "OD "),
        ({"ocr": float("inf")}, "ocr"),
        ({"tasks": {"OD": "1"}}, "OD"),
    ],
)
def test_weights_that_make_no_sense(mix: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Mix(**mix)


def test_no_weight_at_all() -> None:
    groups = ("captions", "od", "grounding", "referring", "dense", "ocr", "region_to_text", "segmentation", "proposal")
    with pytest.raises(ConfigError, match="all are 0"):
        Mix(**dict.fromkeys(groups, 0.0))


if __name__ == "__main__" and sys.argv[1:] == ["rewrite"]:
    golden = yaml.safe_dump(written(Targets(), rich_scene()), allow_unicode=True, sort_keys=False, width=1000)
    GOLDEN.write_text(golden, encoding="utf-8")
