"""Every task through a small model with random weights: what comes out, in which order, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from florence import bart_sized_tokens, small_tokens
from PIL import Image

from florence2 import Annotation, Annotator, Answer, Florence2, Florence2Config, Processor, Prompt, Task, annotate
from florence2.codec import pieces_of_ids
from florence2.errors import ConfigError, Florence2Error, ImageError, PromptError
from florence2.tasks import Form

TOKENS = small_tokens()
SIZES = [(90, 60), (50, 200), (64, 64), (333, 40)]  # width, height
SIDE = 64  # of what the tower sees
NEW_TOKENS = 40
ANY_TASK: list[Any] = [
    task
    if not task.takes_input
    else (
        task,
        (4, 5, 40, 30) if task.takes_region else ["cat", "red dog"] if task.name.startswith("OPEN") else "a cat",
    )
    for task in Task
]
MIXED: list[Any] = ["OD", "CAPTION", ("OPEN_VOCABULARY_DETECTION", "cat"), ("REGION_TO_OCR", (4, 5, 40, 30))]

RING = "LLLL(LL)+"
RINGS = f"{RING}(<sep>{RING})*"
SHAPES = {
    Form.TEXT: "T?",
    Form.BOXES: "(LLLL)*",
    Form.LABELLED_BOXES: "(T(LLLL)+)*",
    Form.LABELLED_QUADS: "(TLLLLLLLL)*",
    Form.POLYGONS: f"({RINGS})?|(<poly>{RINGS}</poly>)*",
    Form.BOXES_OR_POLYGONS: f"(T(LLLL|<poly>{RINGS}</poly>)+)*",
}


def made(positions: int = 100, eos: float = 5.0, padding: int = 0) -> Florence2:
    """Random weights, large enough that answers depend on image and prompt; `eos`: nats added to the end, about.

    In float64: two candidates that are nearly equal are then told apart in the same way in every batch.
    """
    torch.manual_seed(0)
    config = Florence2Config.preset("nano")
    text = replace(config.text, vocab_size=TOKENS.size + padding, init_std=0.12, max_position_embeddings=positions)
    model = Florence2(replace(config, text=text, image_token_id=None)).double()
    end = model.language_model.shared.weight.detach()[TOKENS.eos]
    with torch.no_grad():
        model.language_model.decoder.layers[-1].final_layer_norm.bias.copy_(eos * end / end.square().sum())
    return model


@pytest.fixture(scope="module")
def model() -> Florence2:
    return made()


@pytest.fixture(scope="module")
def processor(model: Florence2) -> Processor:
    return Processor.for_model(model.config, TOKENS, (SIDE, SIDE))


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Blots of colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


IMAGES = [picture(size, seed) for seed, size in enumerate(SIZES)]
Ask = Callable[..., list[list[Answer]]]


@pytest.fixture(scope="module")
def ask(model: Florence2, processor: Processor) -> Ask:
    def asked(images: Any, tasks: Any, **options: Any) -> list[list[Answer]]:
        return annotate(model, processor, images, tasks, **{"max_new_tokens": NEW_TOKENS, **options})

    return asked


def flat(answers: list[list[Answer]]) -> list[Answer]:
    return list(chain.from_iterable(answers))


def shape(answer: Answer) -> str:
    """T for a text, L for a location, marks as they are."""
    kinds = {"text": "T", "loc": "L"}
    return "".join(kinds.get(piece.kind, piece.text) for piece in pieces_of_ids(answer.token_ids, TOKENS))


def points(annotation: Annotation) -> Iterator[tuple[float, float]]:
    for ring in (annotation.box, annotation.quad, *(annotation.polygons or ())):
        yield from zip((ring or ())[0::2], (ring or ())[1::2], strict=True)


def scores(answer: Answer) -> list[float | None]:
    return [answer.score, *(s for a in answer.annotations for s in (a.score, a.raw, a.label_score))]


def assert_same(left: list[list[Answer]], right: list[list[Answer]]) -> None:
    """But for the last digits of the scores."""
    assert [len(answers) for answers in left] == [len(answers) for answers in right]
    for one, other in zip(flat(left), flat(right), strict=True):
        assert scores(one) == pytest.approx(scores(other), abs=1e-6)
        assert unscored(one) == unscored(other)


def unscored(answer: Answer) -> Answer:
    places = tuple(replace(a, score=None, raw=None, label_score=None) for a in answer.annotations)
    return replace(answer, score=0.0, annotations=places)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constrained", [False, True])
def test_every_task(constrained: bool, ask: Ask) -> None:
    answers = ask(IMAGES, ANY_TASK, constrained=constrained, eos_penalty=9, num_beams=2)
    places = {form: 0 for form in Form}
    for image, (width, height) in zip(answers, SIZES, strict=True):
        assert [answer.task for answer in image] == list(Task)
        for answer in image:
            form = answer.prompt.form
            assert answer.token_ids[0] == TOKENS.bos and answer.token_ids[-1] == TOKENS.eos
            assert 2 <= len(answer.token_ids) <= NEW_TOKENS and TOKENS.pad not in answer.token_ids
            assert not constrained or re.fullmatch(SHAPES[form], shape(answer)), answer
            assert all(0 < score <= 1 for score in scores(answer) if score is not None) and answer.score > 0
            for one in answer.annotations:
                assert all(0 < x < width and 0 < y < height for x, y in points(one))
                assert one.raw is not None and (one.score is None) == (one.polygons is not None)
                kind = next(name for name in ("box", "quad", "polygons") if getattr(one, name) is not None)
                assert kind in KINDS[form]
            places[form] += len(answer.annotations)
    seen = {form for form, count in places.items() if count}
    assert seen == {*Form} - {Form.TEXT} if constrained else seen  # unconstrained, it is chance that writes a box


KINDS = {
    Form.TEXT: set[str](),
    Form.BOXES: {"box"},
    Form.LABELLED_BOXES: {"box"},
    Form.LABELLED_QUADS: {"quad"},
    Form.POLYGONS: {"polygons"},
    Form.BOXES_OR_POLYGONS: {"box", "polygons"},
}


def test_answers_are_about_their_image_and_their_prompt(ask: Ask) -> None:
    answers = ask(IMAGES, MIXED)
    assert len({answer.token_ids for image in answers for answer in image}) > len(answers)
    turned = ask(IMAGES[::-1], MIXED[::-1])
    assert_same(answers, [image[::-1] for image in turned[::-1]])


def test_coordinates_are_in_pixels_of_the_image_as_it_came(ask: Ask) -> None:
    sizes = [(100, 50), (50, 100), (1000, 1000)]
    images = [Image.new("RGB", size, "teal") for size in sizes]
    answers = [image for (image,) in ask(images, ["REGION_PROPOSAL"], constrained=True, eos_penalty=9)]
    assert len({answer.token_ids for answer in answers}) == 1
    for answer, (width, height) in zip(answers, sizes, strict=True):
        assert answer.annotations
        for one, at_1000 in zip(answer.annotations, answers[-1].annotations, strict=True):
            assert one.box and at_1000.box
            shares = [v / (width, height)[n % 2] for n, v in enumerate(one.box)]
            assert shares == pytest.approx([v / 1000 for v in at_1000.box])


def test_labels_of_the_list_only(ask: Ask) -> None:
    """Several classes in one query, one class, and a fine-tuned checkpoint's own prompt with labels."""
    own = Prompt("Find signs of 2 kinds.", Form.LABELLED_BOXES, labels=("stop", "a cat"))
    queries = [
        ("OPEN_VOCABULARY_DETECTION", ["cat", "red dog", "car"]),
        ("OPEN_VOCABULARY_DETECTION", "cup<and>spoon"),
        ("OPEN_VOCABULARY_DETECTION", "table"),
        own,
    ]
    found: list[set[str]] = [set() for _ in queries]
    for image in ask(IMAGES, queries, constrained=True, eos_penalty=9):
        for labels, answer in zip(found, image, strict=True):
            labels.update(one.label for one in answer.annotations)
            assert all(one.label_score is not None for one in answer.annotations)
    for labels, allowed in zip(
        found, [{"cat", "red dog", "car"}, {"cup", "spoon"}, {"table"}, own.labels], strict=True
    ):
        assert labels and labels <= set(allowed)


def test_polygons_bear_the_expression_that_was_asked_for(ask: Ask) -> None:
    ((answer,),) = ask(
        IMAGES[:1], [("REFERRING_EXPRESSION_SEGMENTATION", "a red car")], constrained=True, eos_penalty=9
    )
    assert answer.annotations and {one.label for one in answer.annotations} == {"a red car"}
    assert {one.label_score for one in answer.annotations} == {None}  # it was given, not written


def test_prompts_with_free_words(ask: Ask, processor: Processor) -> None:
    free = [Prompt("count the dogs"), Prompt(Task.OD.sentence, Form.LABELLED_BOXES), Prompt("", Form.BOXES)]
    (answers,) = ask(IMAGES[:1], free)
    assert [(answer.prompt, answer.task) for answer in answers] == [(prompt, None) for prompt in free]
    ((od,),) = ask(IMAGES[:1], ["OD"])
    assert (od.token_ids, od.text) == (answers[1].token_ids, answers[1].text)
    assert od.text == processor.decode(od.token_ids)


def test_the_score_of_an_answer_is_its_likelihood(model: Florence2, processor: Processor, ask: Ask) -> None:
    """By the path of training: all positions at once, and without padding. <s> is given, and doesn't count."""
    with torch.no_grad():
        for image, answers in zip(IMAGES, ask(IMAGES, MIXED, eos_penalty=2, constrained=True), strict=True):
            features = model.encode_image(processor.images([image]))
            for answer in answers:
                ids, mask = processor.prompts([answer.prompt])
                labels = torch.tensor([answer.token_ids])
                whole, given = (model.log_likelihood(features, ids, mask, part) for part in (labels, labels[:, :1]))
                mean = (whole - given) / (labels.shape[1] - 1)
                assert answer.score == pytest.approx(mean.exp().item(), rel=1e-4)


@pytest.mark.parametrize("constrained", [False, True])
def test_complete_or_cut(constrained: bool, ask: Ask) -> None:
    every = [ask(IMAGES, ANY_TASK, max_new_tokens=n, num_beams=1, constrained=constrained) for n in (2, 12, 40)]
    for limit, answers in zip((2, 12, 40), every, strict=True):
        for answer in flat(answers):
            assert len(answer.token_ids) <= limit
            assert answer.complete or len(answer.token_ids) == limit
    longest = flat(every[-1])
    for answers in every[:-1]:  # greedy: a shorter answer is the beginning of a longer one, unless the room shaped it
        for short, long in zip(flat(answers), longest, strict=True):
            assert short.token_ids == long.token_ids if short.complete and not constrained else True
    assert {answer.complete for answer in flat(every[1])} == {True, False}


def test_rows_that_pad_the_vocabulary_never_come(processor: Processor) -> None:
    model = made(padding=36)
    with torch.no_grad():  # by far the most likely ones
        model.language_model.shared.weight[TOKENS.size :] = 9 * model.language_model.shared.weight[TOKENS.eos]
    for constrained in (False, True):
        answers = annotate(model, processor, IMAGES[:2], ["CAPTION", "OD"], 2, 12, constrained=constrained)
        assert all(id < TOKENS.size for answer in flat(answers) for id in answer.token_ids)
        assert all(answer.score > 1e-4 for answer in flat(answers))  # of what is left, not of all


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constrained", [False, True])
def test_batches_change_nothing(constrained: bool, ask: Ask) -> None:
    images, tasks = IMAGES[:3], [*MIXED, "OD"]
    options = {"constrained": constrained, "eos_penalty": 3, "max_new_tokens": 12, "num_beams": 2}
    alone = [ask([image], [task], **options)[0] for image in images for task in tasks]
    expected = [flat(alone[n : n + len(tasks)]) for n in range(0, len(alone), len(tasks))]
    assert unscored(expected[0][0]) == unscored(expected[0][4])  # a task that is asked twice is answered twice
    for batch_size in (1, 3, 100):
        assert_same(ask(images, tasks, batch_size=batch_size, **options), expected)


def test_tasks_of_each_image(ask: Ask) -> None:
    tasks: list[list[Any]] = [["OD"], [], ["CAPTION", "OD", "CAPTION"], [("REGION_TO_OCR", (0, 0, 300, 40))]]
    answers = ask(IMAGES, tasks)
    assert [[answer.task for answer in image] for image in answers] == [
        ["OD"],
        [],
        ["CAPTION", "OD", "CAPTION"],
        ["REGION_TO_OCR"],
    ]
    assert "<loc_0><loc_0><loc_900><loc_999>" in answers[3][0].prompt.text
    assert_same(answers, [ask([image], own)[0] if own else [] for image, own in zip(IMAGES, tasks, strict=True)])
    assert_same(ask(iter(IMAGES), iter(tasks)), answers)
    assert ask(IMAGES, [[]] * 4) == [[]] * 4


def test_no_images(ask: Ask) -> None:
    assert ask([], ["OD"]) == ask(iter([]), ["OD"]) == ask([], iter([])) == []


@pytest.mark.parametrize(("tasks", "batch_size", "ahead"), [(1, 1, 1), (1, 3, 3), (2, 5, 2), (2, 1, 1), (0, 3, 3)])
def test_images_are_read_a_batch_ahead(
    tasks: int, batch_size: int, ahead: int, model: Florence2, processor: Processor
) -> None:
    read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal read
        for read, image in enumerate(cycle(IMAGES), 1):  # noqa: B007
            yield image

    annotator = Annotator(model, processor, num_beams=1, max_new_tokens=3, batch_size=batch_size)
    questions = ["OD", "CAPTION"][:tasks]
    answers = annotator.stream(endless(), questions if tasks else cycle([[]]))
    assert read == 0
    for n, found in enumerate(islice(answers, 7)):
        assert n < read <= n + ahead
        assert [answer.task for answer in found] == questions


def test_tasks_from_an_endless_iterator(ask: Ask) -> None:
    answers = ask(IMAGES[:3], cycle([["OD"], ["CAPTION", "OCR"]]), max_new_tokens=3)
    assert [[answer.task for answer in image] for image in answers] == [["OD"], ["CAPTION", "OCR"], ["OD"]]


# --- options ---------------------------------------------------------------------------------------------------------


def test_a_penalty_on_the_end_gives_longer_lists(ask: Ask) -> None:
    def counts(penalty: float) -> tuple[int, list[str]]:
        answers = ask(IMAGES, ["OD", "REGION_PROPOSAL", "CAPTION"], eos_penalty=penalty, constrained=True, num_beams=2)
        return sum(len(a.annotations) for image in answers for a in image), [image[-1].text for image in answers]

    (none, texts), (some, _), (many, with_penalty) = (counts(penalty) for penalty in (0, 1, 12))
    assert none <= some <= many and many > 1.5 * none
    assert texts == with_penalty  # no list


def ngrams(answer: Answer, n: int = 3) -> list[tuple[int, ...]]:
    ids = (TOKENS.eos, *answer.token_ids)  # </s> starts a sequence
    return [ids[k : k + n] for k in range(len(ids) - n + 1)]


def test_no_repeats_by_task(ask: Ask) -> None:
    tasks = ["REGION_PROPOSAL", "OD", Prompt("Say it again", Form.BOXES)]
    for sizes in (0, 3, {Task.REGION_PROPOSAL: 0}, {Task.REGION_PROPOSAL: 0, Task.OD: 0}):
        answers = ask(IMAGES, tasks, no_repeat_ngram_size=sizes, eos_penalty=9, num_beams=1)
        repeats = [any(len(set(ngrams(image[k]))) < len(ngrams(image[k])) for image in answers) for k in range(3)]
        assert repeats == {
            0: [True, True, True],
            3: [False, False, False],
        }.get(sizes if isinstance(sizes, int) else -1, [True, isinstance(sizes, dict) and len(sizes) == 2, False])


def test_images_in_any_form(tmp_path: Path, ask: Ask) -> None:
    path, buffer = tmp_path / "image.png", BytesIO()
    IMAGES[0].save(path)
    IMAGES[0].save(buffer, "PNG")
    grey = IMAGES[1].convert("L")
    answers = ask([IMAGES[0], path, str(path), buffer.getvalue(), grey], ["OD"], max_new_tokens=8)
    for answer in answers[1:4]:
        assert_same([answer], answers[:1])
    assert np.asarray(IMAGES[0]).any() and grey.mode == "L"  # not closed, not changed


def test_max_new_tokens_beyond_the_positions(processor: Processor) -> None:
    model = made(positions=60, eos=0)
    short = Processor.for_model(model.config, TOKENS, (SIDE, SIDE))
    for constrained in (False, True):
        ((caption, od),) = annotate(
            model, short, IMAGES[:1], ["CAPTION", "OD"], 2, 5000, eos_penalty=50, constrained=constrained
        )
        assert len(caption.token_ids) <= 60 and 50 < len(od.token_ids) <= 60
        assert not constrained or re.fullmatch(SHAPES[Form.LABELLED_BOXES], shape(od))


# --- what stays as it was --------------------------------------------------------------------------------------------


def test_no_trace_is_left_in_the_model(ask: Ask) -> None:
    """Also none of inference mode: a model that has annotated can be trained."""
    model = made()
    processor = Processor.for_model(model.config, TOKENS, (SIDE, SIDE))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    annotate(model, processor, IMAGES[:2], MIXED, max_new_tokens=5, constrained=True)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not model.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad and not p.is_inference() for p in model.parameters())
    ids, mask = processor.prompts(MIXED[:2])
    features = model.train().encode_image(processor.images(IMAGES[:2]))
    model.loss(features, ids, mask, ids).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("part", ["", "vision_tower.blocks.0", "language_model.decoder"])
def test_a_model_in_training_is_refused(part: str) -> None:
    """Its dropout would make answers random. To turn it off for the time would change what is not ours."""
    model = made()
    processor = Processor.for_model(model.config, TOKENS, (SIDE, SIDE))
    model.get_submodule(part).train()
    annotator = Annotator(model, processor, max_new_tokens=3)
    with pytest.raises(Florence2Error, match=r"eval mode, got one in training: call model.eval\(\)"):
        list(annotator.stream(IMAGES[:1], ["OD"]))
    model.eval()
    assert len(list(annotator.stream(IMAGES[:1], ["OD"]))) == 1


# --- what is refused -------------------------------------------------------------------------------------------------


class Unread:
    """An iterator of images that must not be asked for one."""

    def __iter__(self) -> Iterator[Image.Image]:
        raise AssertionError("an image was read")


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([], r"expected a list of tasks, got \[\]"),
        ((), r"expected a list of tasks, got \(\)"),
        ("OD", "expected a list of tasks, got 'OD'"),
        (["OD", "DOG"], "expected a task, one of .* got 'DOG'"),
        (["OD", 7], "expected a task, a .task, input. pair or a Prompt; got 7"),
        (["OD", None], "got None"),
        (["OD", ["CAPTION"]], r"got \['CAPTION'\]"),
        ([("OD", "cat")], "OD takes no input; got 'cat'"),
        ([("OD", None, None)], "expected a task, a .task, input. pair or a Prompt"),
        (["OPEN_VOCABULARY_DETECTION"], "OPEN_VOCABULARY_DETECTION needs a text as input"),
        ([("REGION_TO_OCR", "cat")], "REGION_TO_OCR needs a box"),
        ([("REGION_TO_OCR", (9, 9, 1, 1))], "REGION_TO_OCR needs a box x0 <= x1"),
        ([("CAPTION_TO_PHRASE_GROUNDING", ["a", "b"])], "takes one text; got 2"),
        (
            ["OD", ("CAPTION_TO_PHRASE_GROUNDING", "<loc_1>" * 90)],
            r"prompt 1 has \d{3} tokens, and 83 fit \(100 positions less 17 of the image\); shorten 'Locate the phr",
        ),
    ],
)
def test_tasks_for_all_images_are_refused_before_an_image_is_read(tasks: Any, words: str, ask: Ask) -> None:
    with pytest.raises(PromptError, match=words):
        ask(Unread(), tasks)


@pytest.mark.parametrize(
    ("images", "tasks", "words"),
    [
        (IMAGES[:3], [["OD"], ["CAPTION"]], "a list of tasks for each of 3 images, got 2 lists"),
        (IMAGES[:1], [["OD"], ["CAPTION"]], "a list of tasks for each of 1 images, got 2 lists"),
        (IMAGES[:3], iter([["OD"], ["CAPTION"]]), "a list of tasks for image 2, got None"),
        (IMAGES[:3], Task, "a list of tasks for image 0, got <Task.CAPTION"),
        (IMAGES[:3], iter(["OD", "OD", "OD"]), "a list of tasks for image 0, got 'OD'"),
        (IMAGES[:3], [["OD"], ["OD", "DOG"], ["OD"]], "image 1: expected a task, one of .* got 'DOG'"),
        (IMAGES[:2], [["OD"], ["OD", Prompt("<loc_1>" * 82)]], "image 1: prompt 1 has 84 tokens, and 83 fit"),
        (IMAGES[:2], [["OD"], [("REGION_TO_OCR", (0, 0, float("nan"), 1))]], "image 1: REGION_TO_OCR needs a box"),
    ],
)
def test_tasks_of_each_image_are_refused_with_its_number(images: Any, tasks: Any, words: str, ask: Ask) -> None:
    with pytest.raises(PromptError, match=words):
        ask(images, tasks, max_new_tokens=3)


def test_the_longest_prompt_that_fits(ask: Ask) -> None:
    ((answer,),) = ask(IMAGES[:1], [Prompt("<loc_1>" * 81)], max_new_tokens=3)
    assert len(answer.token_ids) <= 3


def broken() -> bytes:
    """A PNG with a whole header, so that it breaks only when its pixels are read."""
    buffer = BytesIO()
    Image.effect_noise((300, 300), 90).save(buffer, "PNG")
    return buffer.getvalue()[:20_000]


@pytest.mark.parametrize("image", [broken(), b"no image", "no/such.png", None, Image.new("RGB", (0, 9)), 3])
@pytest.mark.parametrize("batch_size", [1, 100])
def test_what_is_no_image_is_refused_with_its_number(image: Any, batch_size: int, ask: Ask) -> None:
    with pytest.raises(ImageError, match=r"image 6\b"):
        ask([*IMAGES, *IMAGES[:2], image, *IMAGES], ["OD"], batch_size=batch_size, max_new_tokens=2, num_beams=1)


@pytest.mark.parametrize("image", ["photo.jpg", Path("photo.jpg"), b"GIF89a", IMAGES[0]])
def test_an_image_that_is_no_list(image: Any, ask: Ask) -> None:
    with pytest.raises(ImageError, match="expected a list of images, got one alone"):
        ask(image, ["OD"])


def test_another_models_processor(model: Florence2) -> None:
    released = Processor(bart_sized_tokens(), (SIDE, SIDE))
    with pytest.raises(ConfigError, match=r"\(1500, 0, 1, 2\) in the model and \(51289, 0, 1, 2\) in the processor"):
        Annotator(model, released)
    config = replace(model.config, text=replace(model.config.text, pad_token_id=7))
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=r"\(1500, 0, 7, 2\) in the model and \(1500, 0, 1, 2\)"),
    ):
        Annotator(Florence2(config), Processor.for_model(config, TOKENS, (64, 64)))


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 0},
        {"num_beams": 10**20},
        {"num_beams": None},
        {"max_new_tokens": 1},
        {"max_new_tokens": 2.5},
        {"batch_size": 0},
        {"batch_size": "8"},
        {"no_repeat_ngram_size": -1},
        {"no_repeat_ngram_size": None},
        {"no_repeat_ngram_size": {"OD": "3"}},
        {"length_penalty": 1000},
        {"eos_penalty": float("nan")},
        {"eos_penalty": "1"},
        {"early_stopping": "always"},
        {"early_stopping": 1},
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], model: Florence2, processor: Processor) -> None:
    with pytest.raises(Florence2Error, match=next(iter(options))):
        Annotator(model, processor, **options)


def test_more_beams_than_words(model: Florence2, processor: Processor, photos: Path) -> None:
    with pytest.raises(Florence2Error, match="half the vocabulary"):
        annotate(model, processor, [photos / "coffee.png"], ["OD"], num_beams=5000)


def test_what_is_not_a_model_and_its_processor(model: Florence2, processor: Processor) -> None:
    with pytest.raises(Florence2Error, match="got Processor, Florence2"):
        Annotator(processor, model)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["OD", "<OD>", "od", Task.OD])
def test_ngram_sizes_by_any_name_of_a_task(name: str, model: Florence2, processor: Processor) -> None:
    sizes = Annotator(model, processor, no_repeat_ngram_size={name: 0})  # type: ignore[dict-item]
    assert [sizes.ngram(Prompt("", task=task)) for task in (Task.OD, Task.CAPTION)] == [0, 3]


def test_a_pair_that_is_in_no_list(model: Florence2, processor: Processor, photos: Path) -> None:
    with pytest.raises(PromptError, match="put it into a list"):
        annotate(model, processor, [photos / "coffee.png"], ("CAPTION_TO_PHRASE_GROUNDING", "a cat"))
