"""A language model of a hub, that runs here: one that sees images, or one for text alone.

Answers are greedy. Questions go through the model together where their inputs have the same shapes: padding would give
each of them a say in the others' answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image as Pillow
from pydantic import BaseModel

from engine.errors import ConfigError
from engine.protocols import Image
from specialists.chat.answers import instruction, parsed, words
from specialists.chat.question import Question, Unanswered
from specialists.hub.specialist import Batches
from specialists.hub.weights import Precision, Weights

LONG = 100  # times as long as wide: a longer image is stretched
Inputs = Mapping[str, Any]  # tensors [1, ...]


@dataclass
class HubChat:
    """Asks the model of `weights`. `sees`: there will be images in the questions."""

    weights: Weights
    precision: Precision
    batches: Batches
    max_new_tokens: int
    sees: bool
    _model: Any = field(default=None, init=False, repr=False)
    _processor: Any = field(default=None, init=False, repr=False)  # of a model for text alone the tokenizer
    _tokenizer: Any = field(default=None, init=False, repr=False)
    _template: str = field(default="", init=False, repr=False)
    _marks: re.Pattern[str] = field(default=re.compile("(?!)"), init=False, repr=False)

    def setup(self) -> None:
        from transformers import (
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )

        config = self.weights.processor(AutoConfig)
        sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if self.sees and not sees:
            raise ConfigError(
                f"{self._where} is for text alone ({config.model_type}); expected a model that is asked about images: "
                "hubs list them under image-text-to-text"
            )
        self._processor = self.weights.processor(AutoProcessor if sees else AutoTokenizer)
        self._tokenizer = self._processor.tokenizer if sees else self._processor
        self._template = self._chat_template()
        self._marks = self._control_tokens()
        self._try_template()
        self._model = self.weights.load(AutoModelForImageTextToText if sees else AutoModelForCausalLM, self.precision)

    def ask(self, questions: Sequence[Question]) -> list[str | BaseModel]:
        """As a Chat does. What is cut off after `max_new_tokens` is Unanswered if it is to be JSON."""
        import torch

        with torch.inference_mode():
            answers = self.batches.run(self._answers, questions)
        return [_read(question, *answer) for question, answer in zip(questions, answers, strict=True)]

    def _answers(self, questions: Sequence[Question]) -> list[tuple[str, bool]]:
        """Of each question the answer, and whether the model had ended it."""
        found: dict[int, tuple[str, bool]] = {}
        for places, inputs in alike([self._inputs(question) for question in questions]):
            found.update(zip(places, self._generated(inputs), strict=True))
        return [found[place] for place in range(len(questions))]

    def _generated(self, inputs: Inputs) -> list[tuple[str, bool]]:
        device, dtype = self._model.device, self._model.dtype
        moved = {key: each.to(device, dtype if each.is_floating_point() else None) for key, each in inputs.items()}
        # The other settings of how to generate are the checkpoint's own; a penalty for repetition may be among them.
        tokens = self._model.generate(**moved, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens)
        ends = self._model.generation_config.eos_token_id
        return [
            self._decoded(row, {ends} if isinstance(ends, int) else set(ends or ()))
            for row in tokens[:, moved["input_ids"].shape[1] :].tolist()
        ]

    def _decoded(self, row: Sequence[int], ends: set[int]) -> tuple[str, bool]:
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        return self._tokenizer.decode(row[:stop], skip_special_tokens=True), stop < len(row)

    def _inputs(self, question: Question) -> Inputs:
        asked = question.prompt if question.schema is None else f"{question.prompt}\n\n{instruction(question.schema)}"
        messages = [self._message("user", asked, question.image)]
        if question.system:
            messages.insert(0, self._message("system", question.system))
        made = self._processor.apply_chat_template(
            messages,
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"enable_thinking": False} if "enable_thinking" in self._template else {}),
        )
        return {key: value for key, value in made.items() if hasattr(value, "shape")}

    def _message(self, role: str, text: str, image: Image | None = None) -> dict[str, Any]:
        said = self._marks.sub(" ", text)
        if self._processor is self._tokenizer:
            return {"role": role, "content": said}
        shown = [] if image is None else [{"type": "image", "image": _visible(image)}]
        return {"role": role, "content": [*shown, {"type": "text", "text": said}]}

    def _chat_template(self) -> str:
        """The checkpoint's. ConfigError if it has none."""
        found = getattr(self._processor, "chat_template", None) or getattr(self._tokenizer, "chat_template", None)
        template = found.get("default") if isinstance(found, dict) else found
        if not template:
            raise ConfigError(f"{self._where} has no chat template: it is no model that answers questions")
        return str(template)

    def _try_template(self) -> None:
        try:
            self._inputs(Question("Hello", "Answer."))
        except Exception as error:  # a template raises what it likes: some do for a system message
            raise ConfigError(f"{self._where} has a chat template that can't be used here: {error}") from error

    def _control_tokens(self) -> re.Pattern[str]:
        """What means something to the model beyond what it says: no text of others is to have the turn end in it."""
        added = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        marks = {*added, getattr(self._processor, "image_token", None)} - {None, ""}
        longest_first = sorted(map(str, marks), key=lambda mark: (-len(mark), mark))
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @property
    def _where(self) -> str:
        return f"{self.weights.where}: {self.weights.model}"


def _visible(image: Image) -> Pillow.Image:
    """The image; one that is very long is stretched, which leaves places in it at their share of its sides. Qwen's
    processors turn down what is 200 times as long as wide."""
    picture = Pillow.fromarray(image)
    least = math.ceil(max(picture.size) / LONG)
    if min(picture.size) >= least:
        return picture
    return picture.resize((max(picture.width, least), max(picture.height, least)))


def _read(question: Question, answer: str, complete: bool) -> str | BaseModel:
    if question.schema is None:
        return words(answer, complete)
    if not complete:
        raise Unanswered("the answer is cut off: it has more tokens than it may have")
    return parsed(answer, question.schema)


def alike(inputs: Sequence[Inputs]) -> Iterator[tuple[list[int], Inputs]]:
    """Inputs whose tensors have the same shapes together, one behind the other, with their places."""
    import torch

    places: dict[Any, list[int]] = {}
    for place, one in enumerate(inputs):
        places.setdefault(tuple((key, one[key].shape) for key in sorted(one)), []).append(place)
    for some in places.values():
        yield some, {key: torch.cat([inputs[place][key] for place in some]) for key in inputs[some[0]]}
