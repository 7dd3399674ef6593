"""The fifteen prompts against transformers' own, and every way to ask for something that can't be asked."""

from __future__ import annotations

from typing import Any

import pytest
from florence import small_processor
from hypothesis import given
from hypothesis import strategies as st

from florence2.errors import Florence2Error, PromptError
from florence2.tasks import Form, Prompt, Task, ask

REGION = "<loc_52><loc_332><loc_932><loc_774>"
WITH_TEXT = [
    Task.CAPTION_TO_PHRASE_GROUNDING,
    Task.REFERRING_EXPRESSION_SEGMENTATION,
    Task.OPEN_VOCABULARY_DETECTION,
]
WITH_REGION = [
    Task.REGION_TO_SEGMENTATION,
    Task.REGION_TO_CATEGORY,
    Task.REGION_TO_DESCRIPTION,
    Task.REGION_TO_OCR,
]
ALONE = [task for task in Task if task not in (*WITH_TEXT, *WITH_REGION)]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' processor, made from our files."""
    from transformers import AutoProcessor

    path = tmp_path_factory.mktemp("processor")
    small_processor().save_pretrained(path)
    return AutoProcessor.from_pretrained(path, backend="pil")


def test_the_tables_have_the_same_tasks(native: Any) -> None:
    assert len(Task) == 15
    assert native.task_prompts_without_inputs == {f"<{task}>": task.sentence for task in ALONE}
    assert native.task_prompts_with_input == {f"<{task}>": task.sentence for task in (*WITH_TEXT, *WITH_REGION)}
    assert native.tasks_answer_post_processing_type.keys() == {f"<{task}>" for task in Task}


@pytest.mark.parametrize("task", Task)
def test_word_for_word(task: Task, native: Any) -> None:
    input = None if task in ALONE else REGION if task in WITH_REGION else "a red car, 2 {dogs} & un café"
    assert native._construct_prompts(f"<{task}>{input or ''}") == [ask(task, input).text]


def test_forms_are_what_transformers_parses_as(native: Any) -> None:
    parsers = {
        "pure_text": Form.TEXT,
        "ocr": Form.LABELLED_QUADS,
        "description_with_bboxes": Form.LABELLED_BOXES,
        "phrase_grounding": Form.LABELLED_BOXES,
        "polygons": Form.POLYGONS,
        "description_with_bboxes_or_polygons": Form.BOXES_OR_POLYGONS,
        "bboxes": Form.BOXES,
    }
    kinds = native.tasks_answer_post_processing_type
    assert {task: parsers[kinds[f"<{task}>"]] for task in Task} == {task: task.form for task in Task}


def test_names() -> None:
    for task in Task:
        assert Task.of(task) is Task.of(f"<{task}>") is Task.of(task.lower()) is Task.of(f"<{task.lower()}>") is task


@pytest.mark.parametrize(
    "name", ["", "<>", "<", "dog", "<OD", "OD>", "OD ", "<<OD>>", "<OD>dog", None, 3, b"OD", ["OD"]]
)
def test_no_such_task(name: Any) -> None:
    for asked in (Task.of, ask):
        with pytest.raises(PromptError, match=r"expected a task, one of CAPTION, .*REGION_TO_OCR; got ") as caught:
            asked(name)
        assert repr(name) in str(caught.value)


def test_prompts() -> None:
    assert ask("<OD>") == Prompt("Locate the objects with category name in the image.", Form.LABELLED_BOXES, Task.OD)
    grounding = ask("CAPTION_TO_PHRASE_GROUNDING", " a <and> b\n")
    assert grounding.text == "Locate the phrases in the caption: a <and> b" and grounding.labels == ("a <and> b",)
    assert ask("REGION_TO_OCR", REGION).labels == ask("OCR").labels == ()
    assert ask(Task.REFERRING_EXPRESSION_SEGMENTATION, "{input}").text == "Locate {input} in the image with mask"


@pytest.mark.parametrize("queries", ["cat<and>red dog", ("cat", "red dog"), ["cat ", " red dog"], " cat <and> red dog"])
def test_several_classes_in_one_query(queries: Any) -> None:
    asked = ask("OPEN_VOCABULARY_DETECTION", queries)
    assert asked.text == "Locate cat<and>red dog in the image." and asked.labels == ("cat", "red dog")


def test_regions_in_pixels() -> None:
    for box in [(32, 60, 64, 119.9), [32, 60.0, 64, 119], (v for v in (32, 60, 64, 119))]:
        tokens = ask("REGION_TO_CATEGORY", box, (64, 120)).text.removeprefix("What is the region ")  # type: ignore[arg-type]
        assert tokens.startswith("<loc_500><loc_500><loc_999><loc_99")
    outside = ask("REGION_TO_CATEGORY", (-5, 0, 1e9, 0), (64, 120))
    assert outside.text == "What is the region <loc_0><loc_0><loc_999><loc_0>?"


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 9999), st.integers(1, 9999))
def test_any_region_is_four_tokens(shares: list[float], width: int, height: int) -> None:
    (x0, x1), (y0, y1) = sorted(shares[:2]), sorted(shares[2:])
    asked = ask("REGION_TO_OCR", (x0 * width, y0 * height, x1 * width, y1 * height), (width, height))
    tokens = asked.text.removeprefix("What text is in the region ").removesuffix("?")
    assert ask("REGION_TO_OCR", tokens) == asked


@pytest.mark.parametrize("task", ALONE)
@pytest.mark.parametrize("input", ["", "dog", (0, 0, 1, 1)])
def test_an_input_where_none_belongs(task: Task, input: Any) -> None:
    with pytest.raises(PromptError, match=f"{task} takes no input; got"):
        ask(task, input)


@pytest.mark.parametrize("task", [*WITH_TEXT, *WITH_REGION])
def test_an_input_that_is_missing(task: Task) -> None:
    kind = "region" if task in WITH_REGION else "text"
    with pytest.raises(PromptError, match=rf"{task} needs a {kind} as input: \({task}, input\)"):
        ask(task)


@pytest.mark.parametrize("task", WITH_TEXT)
@pytest.mark.parametrize(
    "input", ["", " \n", [], [""], ["dog", ""], ["dog", None], [3], 3, b"dog", (0.0, 0.0, 1.0, 1.0)]
)
def test_no_text(task: Task, input: Any) -> None:
    with pytest.raises(PromptError, match=f"{task} needs a text that is not empty; got"):
        ask(task, input)


@pytest.mark.parametrize("input", ["<and>", "cat<and>", "<and>cat", "cat<and> <and>dog"])
def test_a_class_that_says_nothing(input: str) -> None:
    with pytest.raises(PromptError, match="OPEN_VOCABULARY_DETECTION needs a text that is not empty"):
        ask("OPEN_VOCABULARY_DETECTION", input)


def test_several_texts_for_a_task_that_takes_one() -> None:
    for task in WITH_TEXT[:2]:
        with pytest.raises(PromptError, match=f"{task} takes one text; got 2: ask once for each"):
            ask(task, ["cat", "dog"])


@pytest.mark.parametrize("task", WITH_REGION)
@pytest.mark.parametrize(
    "input",
    [
        (),
        (1, 2, 3),
        (1, 2, 3, 4, 5),
        (1, 2, 3, float("nan")),
        (1, 2, float("inf"), 4),
        (1, 2, 10**400, 4),
        (1, 2, None, 4),
        (1, 2, "x", 4),
        ((1, 2), (3, 4)),
        (5, 2, 4, 4),
        (1, 5, 3, 4),
        7,
    ],
)
def test_no_box(task: Task, input: Any) -> None:
    with pytest.raises(PromptError, match=f"{task} needs a box x0 <= x1, y0 <= y1"):
        ask(task, input, (100, 100))


@pytest.mark.parametrize(
    "input",
    [
        "",
        "a dog",
        REGION + " ",
        REGION * 2,
        REGION[: -len("<loc_774>")],
        REGION.replace("774", "1000"),
        REGION.replace("52", "052"),
        REGION.replace("52", "٥٢"),
        REGION.replace("52", "-1"),
    ],
)
def test_no_box_in_tokens(input: str) -> None:
    with pytest.raises(PromptError, match="REGION_TO_OCR needs a box, or its four tokens as in <loc_1>"):
        ask("REGION_TO_OCR", input)


def test_a_box_without_the_size_of_its_image() -> None:
    with pytest.raises(PromptError, match="REGION_TO_OCR needs the image's size"):
        ask("REGION_TO_OCR", (0, 0, 1, 1))


@pytest.mark.parametrize("task", WITH_REGION)
def test_a_box_outside_its_image(task: Task) -> None:
    for box in [(-9, 0, -1, 5), (0, -9, 5, -1), (11, 0, 12, 5), (0, 21, 5, 22), (1e308,) * 4]:
        with pytest.raises(PromptError, match=f"{task} needs a box in its image of 10 x 20 pixels; got .*, outside it"):
            ask(task, box, (10, 20))
    assert ask(task, (9, 9, 1e308, 1e308), (10, 20)).text == ask(task, (9, 9, 10, 20), (10, 20)).text


@pytest.mark.parametrize("size", [(0, 0), (-5, 10), (10, float("nan"))])
def test_a_size_that_no_image_has(size: Any) -> None:
    with pytest.raises(Florence2Error, match=r"expected the size \(width, height\) of an image.*; got \("):
        ask("REGION_TO_OCR", (0, 0, 1, 1), size)


def test_a_prompt_by_hand() -> None:
    assert Prompt("x", "boxes").form is Form.BOXES  # type: ignore[arg-type]
    for labels, expected in [(None, ()), (["cat", "dog"], ("cat", "dog")), ("cat", ("cat",)), ([], ())]:
        assert Prompt("x", labels=labels).labels == expected  # type: ignore[arg-type]
    for form in ("box", Task.OD, None, ["boxes"]):
        with pytest.raises(PromptError, match=r"expected a form, one of 'text', 'boxes', .*; got "):
            Prompt("x", form)  # type: ignore[arg-type]
    for wrong in ([3], 3, ["cat", None]):
        with pytest.raises(PromptError, match="expected labels that are texts; got "):
            Prompt("x", labels=wrong)  # type: ignore[arg-type]
