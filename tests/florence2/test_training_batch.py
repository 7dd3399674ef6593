"""Rows and batches: what is weighed, what is padded, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from florence import small_tokens
from PIL import Image
from training import PROCESSOR, SIDE, batch, examples, picture, rows

from florence2 import Florence2Error, Task, ask
from florence2.errors import ImageError, PromptError
from florence2.examples import Example
from florence2.training import Batch, Row, tokenise
from florence2.training.batch import OTHER, TASKS

TOKENS = small_tokens()


def test_a_row_is_what_the_annotator_reads_and_writes() -> None:
    for example, row in zip(examples(3), rows(3), strict=True):
        assert torch.tensor([row.prompt]).equal(PROCESSOR.prompts([example.prompt])[0])
        assert PROCESSOR.decode(row.answer) == example.answer
        assert (row.answer[0], row.answer[-1], row.weights) == (TOKENS.bos, TOKENS.eos, None)


def test_silent_characters_have_no_weight_but_are_read() -> None:
    answer = "dog<loc_1><loc_2><loc_3><loc_4>noise près<loc_5><loc_6><loc_7><loc_8>"
    start, stop = answer.index("<loc_5>"), len(answer)
    row = tokenise(Example(Task.OD, ask("OD"), answer, silent=((start, stop),)), TOKENS)
    assert row.weights is not None
    silent = [token for token, weight in zip(row.answer, row.weights, strict=True) if weight == 0]
    assert TOKENS.raw(silent) == "<loc_5><loc_6><loc_7><loc_8>"
    assert row.weights[-1] == 1 and PROCESSOR.decode(row.answer) == answer


@pytest.mark.parametrize("word", ["dog", "près", "窓のそば"])
def test_silent_words(word: str) -> None:
    answer = f"a {word} there"
    row = tokenise(Example(Task.CAPTION, ask("CAPTION"), answer, silent=((2, 2 + len(word)),)), TOKENS)
    assert row.weights is not None
    heard = [token for token, weight in zip(row.answer, row.weights, strict=True) if weight]
    assert PROCESSOR.decode(heard) == "a there"


def test_the_weight_of_the_end_is_for_lists() -> None:
    weights = {str(e.task): tokenise(e, TOKENS, eos_weight=0.25).weights for e in examples(0)}
    assert weights["CAPTION"] is weights["REGION_TO_OCR"] is None
    assert weights["OD"] is not None and set(weights["OD"][:-1]) == {1.0} and weights["OD"][-1] == 0.25


@pytest.mark.parametrize(
    ("prompt", "answer", "weights"),
    [([], [0, 2], None), ([0, 2], [], None), ([0, 2], [0, 2], [1.0]), ([0, 2], [0, 2], [1.0, float("nan")])],
)
def test_rows_that_make_no_sense(prompt: list[int], answer: list[int], weights: list[float] | None) -> None:
    with pytest.raises(Florence2Error, match="expected a"):
        Row("OD", prompt, answer, weights)


def test_pixels_are_the_processors() -> None:
    made = batch(0, 5)
    images = [Image.fromarray(picture(n).permute(1, 2, 0).numpy()) for n in (0, 5)]
    torch.testing.assert_close(made.pixel_values, PROCESSOR.images(images), rtol=0, atol=1e-6)
    unit = [picture(n) / 255 for n in (0, 5)]
    floats = Batch.of(unit, [rows(0), rows(5)], ["a", "b"], PROCESSOR)
    torch.testing.assert_close(floats.pixel_values, made.pixel_values, rtol=0, atol=1e-6)


def test_every_row_is_there_with_its_image() -> None:
    made = batch(2, 6)
    expected = sorted((f"image-{n}", row.task, row.prompt, row.answer) for n in (2, 6) for row in rows(n))
    found = [
        (
            made.image_ids[made.image_of_row[r]],
            made.tasks[r],
            made.input_ids[r][made.attention_mask[r] == 1].tolist(),
            made.labels[r][made.labels[r] != -100].tolist(),
        )
        for r in range(len(made))
    ]
    assert sorted(found) == expected
    assert [TASKS[place] for place in made.task_of_row] == list(made.tasks)
    assert made.weights.equal((made.labels != -100).float())


def test_buckets_hold_their_rows_and_cut_padding() -> None:
    lengths = [170, 160, 60, 55, 50, 50, *[10] * 60]
    long = replace(PROCESSOR, positions=200)
    made = Batch.of([picture(0)], [[Row("OD", [0, 2], [0] * n) for n in reversed(lengths)]], ["a"], long)
    assert made.labels.shape == (66, 170) and len(made.buckets) > 1
    assert [bucket.start for bucket in made.buckets[1:]] == [bucket.stop for bucket in made.buckets[:-1]]
    assert (made.buckets[0].start, made.buckets[-1].stop) == (0, 66)
    for bucket in made.buckets:
        rest = made.labels[bucket.start : bucket.stop]
        assert (rest[:, bucket.answer :] == -100).all() and (rest[:, bucket.answer - 1] != -100).any()
    assert sum((b.stop - b.start) * b.answer for b in made.buckets) < 2 * sum(lengths)


def test_images_without_rows_are_left_out() -> None:
    made = Batch.of([picture(0), picture(1)], [[], rows(1)[:2]], ["a", "b"], PROCESSOR)
    assert made.image_ids == ("b",) and made.pixel_values.shape[0] == 1 and made.image_of_row.tolist() == [0, 0]
    empty = Batch.of([picture(0)], [[]], ["a"], PROCESSOR)
    assert len(empty) == 0 and empty.pixel_values.shape == (0, 3, SIDE, SIDE)


def test_prompts_without_a_task_are_counted_together() -> None:
    made = Batch.of([picture(0)], [[Row("", [0, 2], [0, 2]), Row("MINE", [0, 2], [0, 2])]], ["a"], PROCESSOR)
    assert made.tasks == (OTHER, OTHER)


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(SIDE, SIDE, 3), torch.zeros(3, SIDE, SIDE).int()])
def test_another_image(image: torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"image x7: expected uint8 or float \(3, 64, 64\).*got"):
        Batch.of([image], [rows(0)], ["x7"], PROCESSOR)


def test_more_tokens_than_positions() -> None:
    room = PROCESSOR.max_prompt_tokens
    assert room is not None
    with pytest.raises(PromptError, match="image x7, OD: expected at most 128 tokens of answer, got 129"):
        Batch.of([picture(0)], [[Row("OD", [0, 2], [0] * 129)]], ["x7"], PROCESSOR)
    with pytest.raises(PromptError, match=f"image x7, OD: expected at most {room} tokens of prompt, got {room + 1}"):
        Batch.of([picture(0)], [[Row("OD", [0] * (room + 1), [0, 2])]], ["x7"], PROCESSOR)


def test_lists_of_one_length() -> None:
    with pytest.raises(Florence2Error, match="rows and an id for each of 1 images"):
        Batch.of([picture(0)], [rows(0), rows(1)], ["a"], PROCESSOR)
