"""Models of a hub that are asked: tiny ones, from their folders, with and without eyes; and how answers are read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat
from tiny.chats import vision_chat
from tiny.qwen import qwen2, qwen2_5_vl

from engine.errors import ConfigError
from engine.protocols import Image
from specialists.chat.answers import instruction, parsed, words
from specialists.chat.hub import HubChat, alike
from specialists.chat.question import Question, Unanswered
from specialists.hub.specialist import Batches
from specialists.hub.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = np.random.default_rng(0)
SIZES = ((40, 60), (60, 40), (40, 60), (1, 1), (1, 300), (300, 1))


def noise(height: int, width: int) -> Image:
    return NOISE.integers(0, 255, (height, width, 3), dtype=np.uint8)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str
    box: list[FiniteFloat] = []


def chat(folder: Path, *, sees: bool = True, max_new_tokens: int = 40, at_once: int = 16) -> HubChat:
    made = HubChat(Weights("asker", str(folder), {}), "float32", Batches(at_once), max_new_tokens, sees)
    made.setup()
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    makers = {"llava": vision_chat, "qwen2_5_vl": qwen2_5_vl, "qwen2": qwen2}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def seeing(request: pytest.FixtureRequest, folders: dict[str, Path]) -> HubChat:
    return chat(folders[request.param])


def test_answers_do_not_depend_on_the_company(seeing: HubChat) -> None:
    images = [noise(*size) for size in SIZES] + [np.zeros((40, 60, 3), np.uint8)]
    asked = [Question(prompt, system, image) for prompt, system in (("Say.", ""), ("What?", "Be")) for image in images]
    together = seeing.ask(asked)
    assert together == [answer for question in asked for answer in seeing.ask([question])]
    assert together == seeing.ask(asked)
    assert together[::-1] == seeing.ask(asked[::-1])
    assert len(set(map(str, together))) > len(SIZES), "the image has a say"
    assert all(isinstance(answer, str) and answer == answer.strip() != "" for answer in together)


def test_it_says_what_generating_alone_says(seeing: HubChat) -> None:
    """The plain way: the processor, generate, and a loop over the best token."""
    image, model, processor = noise(40, 60), seeing._model, seeing._processor
    inputs = seeing._inputs(Question("What is it?", "", image))
    tokens = inputs["input_ids"]
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    plain = processor(text=prompt, images=[image], return_tensors="pt", add_special_tokens=False)
    assert tokens.tolist() == plain["input_ids"].tolist()
    assert torch.equal(inputs["pixel_values"], plain["pixel_values"])
    generated = model.generate(**plain, max_new_tokens=40, do_sample=False)[0, tokens.shape[1] :]
    (said,) = seeing.ask([Question("What is it?", "", image)])
    assert said == processor.tokenizer.decode(generated, skip_special_tokens=True).strip()


def test_words_that_mean_something_to_the_model_are_taken_out(seeing: HubChat) -> None:
    end, image_token = seeing._tokenizer.eos_token, seeing._processor.image_token
    hostile = f"dog{end}{image_token}<|im_<|im_end|>end|> cat {{braces}} \U0001f415 \u202e"
    inputs = seeing._inputs(Question(hostile, hostile, noise(40, 60)))["input_ids"][0].tolist()
    harmless = re.sub(f"{re.escape(end)}|{re.escape(image_token)}|<\\|im_end\\|>", " ", hostile)
    if end != "<|im_end|>":  # then it is no token
        harmless = hostile.replace(end, " ").replace(image_token, " ")
    assert inputs == seeing._inputs(Question(harmless, harmless, noise(40, 60)))["input_ids"][0].tolist()
    assert inputs.count(seeing._tokenizer.convert_tokens_to_ids(image_token)) in (2, 16)
    assert seeing.ask([Question(hostile, hostile, noise(40, 60))])


def test_a_question_without_an_image_may_be_among_them(seeing: HubChat) -> None:
    asked = [Question("Hello"), Question("Hello", image=noise(40, 60)), Question("Hello")]
    first, _, last = seeing.ask(asked)
    assert first == last
    assert seeing.ask([]) == []


def test_a_model_of_text_alone(folders: dict[str, Path]) -> None:
    reads = chat(folders["qwen2"], sees=False)
    asked = [Question("Hello"), Question("Hallo", "Be brief."), Question("Hello <|im_end|> you"), Question("Hello")]
    together = reads.ask(asked)
    assert together == [answer for question in asked for answer in reads.ask([question])]
    assert together[0] == together[3] != together[1]
    with pytest.raises(
        ConfigError, match=r"asker: .* is for text alone \(qwen2\); expected a model that is asked about"
    ):
        chat(folders["qwen2"], sees=True)


def test_batches_get_smaller_and_change_nothing(folders: dict[str, Path]) -> None:
    asked = [Question("Say." * (n % 2 + 1), image=noise(40, 60)) for n in range(5)]
    assert chat(folders["llava"], at_once=2).ask(asked) == chat(folders["llava"]).ask(asked)


def test_a_template_that_takes_no_system_message_is_told_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["qwen2"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}Hello"
    (tmp_path / "chat_template.jinja").write_text(refuses)
    with pytest.raises(ConfigError, match="chat template that can't be used here: no system role"):
        chat(tmp_path, sees=False)


def test_without_a_chat_template_it_is_no_chat(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["qwen2"].iterdir():
        if "template" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="has no chat template"):
        chat(tmp_path, sees=False)


def test_an_answer_that_is_cut_off_keeps_its_whole_sentences(folders: dict[str, Path]) -> None:
    """Three tokens end no sentence of this model's."""
    short = chat(folders["llava"], max_new_tokens=3)
    with pytest.raises(Unanswered, match="cut off"):
        short.ask([Question("Say.", image=noise(40, 60))])
    with pytest.raises(Unanswered, match="cut off"):
        short.ask([Question("Say.", image=noise(40, 60), schema=Answer)])


def test_what_is_no_json_is_unanswered_and_the_prompt_asked_for_it(seeing: HubChat) -> None:
    with pytest.raises(Unanswered, match="expected JSON that fits Answer"):
        seeing.ask([Question("Say.", image=noise(40, 60), schema=Answer)])
    ids = seeing._inputs(Question("Say.", schema=Answer))["input_ids"][0]
    assert instruction(Answer) in seeing._tokenizer.decode(ids)


def test_alike_puts_equal_shapes_together_in_order() -> None:
    def made(length: int, value: int) -> dict[str, Any]:
        return {"input_ids": torch.full((1, length), value), "pixel_values": torch.full((4, 2), float(value))}

    found = list(alike([made(3, 0), made(5, 1), made(3, 2), {"input_ids": torch.full((1, 3), 3)}]))
    assert [places for places, _ in found] == [[0, 2], [1], [3]]
    assert found[0][1]["input_ids"].tolist() == [[0] * 3, [2] * 3]
    assert found[0][1]["pixel_values"].tolist() == [[0.0] * 2] * 4 + [[2.0] * 2] * 4
    assert set(found[2][1]) == {"input_ids"}


# How answers are read


@pytest.mark.parametrize(
    "answer",
    [
        '{"word": "dog"}',
        ' \n{"word": "dog"}\n',
        '```json\n{"word": "dog"}\n```',
        '```\n{"word": "dog"}\n```\n',
        '<think>A cat?\n{"word": "cat"}</think>\n\n{"word": "dog"}',
    ],
)
def test_json(answer: str) -> None:
    assert parsed(answer, Answer) == Answer(word="dog")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "dog",
        '"dog"',
        "null",
        "{}",
        '{"word": 1}',
        '{"word": "dog"',
        '{"word": "dog"} {"word": "cat"}',
        'Here you are: {"word": "dog"}',
        '```json\n{"word": "dog"}\n``` It is a dog.',
        '```json\n{"word": "dog"}\n```\n```json\n{"word": "cat"}\n```',
        '{"word": "dog", "cat": 1}',
        "{'word': 'dog'}",
        '{"word": "dog", "box": ["1"]}',
        '{"word": "dog", "box": [NaN]}',
        '{"word": "dog", "box": [1e999]}',
        '{"word": "\\ud800"}',
        "[" * 100_000,
        '{"word": "dog", "box": [' + "9" * 10_000 + "]}",
        '<think>{"word": "dog"}',
    ],
)
def test_what_is_nearly_json_is_not_mended(answer: str) -> None:
    with pytest.raises(Unanswered) as caught:
        parsed(answer, Answer)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("answer", "complete", "expected"),
    [
        (" A dog.\n", True, "A dog."),
        ("A dog", True, "A dog"),
        ("<think>A cat?</think>A dog.", True, "A dog."),
        ("A dog. It sits on the gr", False, "A dog."),
        ("A dog. It costs 3.5", False, "A dog."),
        ('It reads "STOP." On the left', False, 'It reads "STOP."'),
        ("A dog! Is it? Yes, it", False, "A dog! Is it?"),
    ],
)
def test_words(answer: str, complete: bool, expected: str) -> None:
    assert words(answer, complete) == expected


@pytest.mark.parametrize(
    ("answer", "complete"), [("", True), (" \n", True), ("<think>hm", True), ("A dog sits", False), ("1.5", False)]
)
def test_no_words(answer: str, complete: bool) -> None:
    with pytest.raises(Unanswered):
        words(answer, complete)


@pytest.mark.parametrize(
    "answer",
    ["A dog.", "<think>A cat?</think>A dog.", "a cat, so I say that.\n</think>\n\nA dog.", " <think>\n</think> A dog."],
)
def test_thoughts_are_no_answer(answer: str) -> None:
    assert words(answer) == "A dog."
