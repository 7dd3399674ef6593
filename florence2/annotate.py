"""Images and tasks in, answers out: the whole way, and what makes many tasks an image cheap.

Each image is encoded once for all its tasks. Tasks and images are then asked together, prompts of like length in one
batch, and each answer leaves its batch when it is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from florence2.codec import Annotation, decode, pieces_of_ids
from florence2.config import fits
from florence2.errors import ConfigError, Florence2Error, ImageError, PromptError
from florence2.grammar import Grammar
from florence2.locations import UNKNOWN, Size
from florence2.model import Florence2
from florence2.processor import Processor, Source, opened, resized
from florence2.scores import likelihood, scored
from florence2.search import LARGEST, Decoding, Hypothesis, search
from florence2.tasks import Form, Input, Prompt, Task, ask

Question = Task | str | tuple[Task | str, Input] | Prompt
# At once through the tower. A CPU takes one image of 768 px: in base 2.9 s, and 3.3 each where they are two or four.
CPU_PIXELS, GPU_PIXELS = 768**2, 4 * 768**2


@dataclass(frozen=True)
class Answer:
    """What the model says to a prompt. `text` is raw, as written but for <s> </s> <pad>; coordinates are in pixels.

    `score` is exp(mean log p) of the tokens, </s> among them; annotations have scores of their own, for place and label
    apart. `complete` is false where max_new_tokens cut the answer.
    """

    prompt: Prompt
    text: str
    token_ids: tuple[int, ...]
    score: float
    annotations: tuple[Annotation, ...]
    complete: bool

    @property
    def task(self) -> Task | None:
        return self.prompt.task


def annotate(
    model: Florence2,
    processor: Processor,
    images: Sequence[Source],
    tasks: Sequence[Question] | Sequence[list[Question]],
    num_beams: int = 3,
    max_new_tokens: int = 1024,
    **options: Any,
) -> list[list[Answer]]:
    """For each image a list of answers, one for each of its tasks, in order.

    images: PIL images, paths or bytes of files. tasks: tasks, (task, input) pairs or Prompts, for all images; or a list
    of them for each image. `options` are the fields of `Annotator`, which says more, and streams. Florence2Error for
    options that can't be; PromptError and ImageError, which are such, say which image or task.
    """
    annotator = Annotator(model, processor, num_beams, max_new_tokens, **options)
    return list(annotator.stream(images, tasks))


class Picture(NamedTuple):
    """An image at the model's size: what it was decoded from may be fifty times as large, and is let go."""

    pixels: Image.Image
    size: tuple[int, int]  # width, height as it came: coordinates are in these
    prompts: list[Prompt]


class Asked(NamedTuple):
    """A prompt, and the image of its group that it is about."""

    image: int
    prompt: Prompt


@dataclass(frozen=True)
class Annotator:
    """A model ready to be asked.

    num_beams, max_new_tokens (<s> and </s> among them), length_penalty, early_stopping: as in transformers' generate.
    no_repeat_ngram_size: no n tokens in a row twice in an answer; one for all tasks, or by task (3 for the others).
        The released models' 3 also keeps dense lists from repeating a label with a corner: 0 lets them.
    eos_penalty: nats taken from the log-probability of an end where the answer is a list: more objects.
    constrained: only whole answers: locations in boxes or quads; of labels, those that were asked for.
    batch_size: prompts at once; 22 MB of keys and values each in base, 58 in large (768 px, fp32).
    """

    model: Florence2
    processor: Processor
    num_beams: int = 3
    max_new_tokens: int = 1024
    no_repeat_ngram_size: int | Mapping[Task, int] = 3
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = True
    eos_penalty: float = 0.0
    constrained: bool = False
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.model, Florence2) or not isinstance(self.processor, Processor):
            got = f"{type(self.model).__name__}, {type(self.processor).__name__}"
            raise Florence2Error(f"expected a Florence2 and a Processor, got {got}")
        if not fits(self.batch_size, int, 1, LARGEST):
            raise Florence2Error(f"expected batch_size, a whole number >= 1; got {self.batch_size!r}")
        if isinstance(self.no_repeat_ngram_size, Mapping):
            sizes = {Task.of(task): size for task, size in self.no_repeat_ngram_size.items()}
            object.__setattr__(self, "no_repeat_ngram_size", sizes)
        self.decoding([Prompt(task.sentence, task.form, task) for task in Task])  # errors now, not with the first batch
        text, tokens = self.model.config.text, self.processor.tokens
        expected = text.vocab_size, text.bos_token_id, text.pad_token_id, text.eos_token_id
        used = tokens.size - (tokens.image == tokens.size - 1)  # a model needs no row for <image>
        if used > text.vocab_size or (tokens.bos, tokens.pad, tokens.eos) != expected[1:]:
            raise ConfigError(
                "expected the processor of this model: vocabulary, <s>, <pad>, </s> are "
                f"{expected} in the model and {(used, tokens.bos, tokens.pad, tokens.eos)} in the processor"
            )

    def stream(
        self, images: Iterable[Source], tasks: Iterable[Question] | Iterable[list[Question]]
    ) -> Iterator[list[Answer]]:
        """The answers of one image after the other, for any number of images; a batch of them is read ahead.

        A Sequence of lists, or any iterator of lists, has the tasks of each image; other Sequences are for all images.
        PromptError for a task that can't be asked, before the first image is read if `tasks` are for all of them;
        ImageError, with its number, for what is no image.
        """
        group: list[Picture] = []
        waiting = 0
        lists = iter(self.by_image(images, tasks))
        for number, image in enumerate(images):
            try:
                group.append(self.read(image, next(lists, None), number))
            except Florence2Error:
                if group:  # whoever reads them has paid for those before
                    yield from self.answers(group)
                raise
            room = max(1, len(group[-1].prompts))
            waiting += room
            if waiting + room > self.batch_size:  # taking the next image to have as many
                yield from self.answers(group)
                group, waiting = [], 0
        if group:
            yield from self.answers(group)

    def by_image(
        self, images: Iterable[Source], tasks: Iterable[Question] | Iterable[list[Question]]
    ) -> Iterable[list[Question]]:
        """The questions of each image. What can be said against them before an image is there is said here."""
        if isinstance(images, Source):
            raise ImageError(f"expected a list of images, got one alone ({type(images).__name__}): put it into a list")
        if not isinstance(tasks, Sequence):
            return tasks  # type: ignore[return-value]
        if tasks and all(isinstance(entry, list) for entry in tasks):
            if isinstance(images, Sequence) and len(images) != len(tasks):
                raise PromptError(f"expected a list of tasks for each of {len(images)} images, got {len(tasks)} lists")
            return tasks
        if isinstance(tasks, str) or not tasks:
            raise PromptError(f"expected a list of tasks, got {tasks!r}")
        if isinstance(tasks, tuple) and isinstance(tasks[0], str) and Task.of(tasks[0]).takes_input:
            raise PromptError(
                f"expected a list of tasks, got a (task, input) pair alone, {tasks!r}: put it into a list"
            )
        self.processor.prompts([posed(question, UNKNOWN) for question in tasks])
        return repeat(list(tasks))

    def read(self, image: Source, questions: list[Question] | None, number: int) -> Picture:
        if not isinstance(questions, list):
            raise PromptError(f"expected a list of tasks for image {number}, got {questions!r}")
        source = opened(image, number)
        try:
            pixels = resized(source, number, self.processor.size[::-1], self.processor.resample)
            prompts = [posed(question, source.size) for question in questions]
            self.processor.prompts(prompts)
            return Picture(Image.fromarray(pixels), source.size, prompts)
        except PromptError as error:
            raise PromptError(f"image {number}: {error}") from error
        finally:
            if source is not image:
                source.close()

    @torch.inference_mode()
    def answers(self, group: Sequence[Picture], features: Tensor | None = None) -> list[list[Answer]]:
        """The answers to each picture's prompts, in order.

        `features` are the pictures', from `encode`, where they were kept: for questions that depend on earlier answers.
        Florence2Error if the model is in training mode, where dropout makes answers random.
        """
        if any(module.training for module in self.model.modules()):
            raise Florence2Error("expected a model in eval mode, got one in training: call model.eval() before")
        asked = [Asked(n, prompt) for n, picture in enumerate(group) for prompt in picture.prompts]
        if not asked:
            return [[] for _ in group]
        input_ids, mask = self.processor.prompts([prompt for _, prompt in asked])
        features = self.encode([picture.pixels for picture in group]) if features is None else features
        lengths = mask.sum(dim=1)
        found: dict[int, Answer] = {}
        for rows in lengths.argsort(descending=True, stable=True).split(self.batch_size):
            batch, longest = [asked[row] for row in rows], int(lengths[rows].max())
            hypotheses = self.ask(features, batch, input_ids[rows, :longest], mask[rows, :longest])
            for row, one, hypothesis in zip(rows.tolist(), batch, hypotheses, strict=True):
                found[row] = self.answer(group[one.image].size, one.prompt, hypothesis)
        answers: list[list[Answer]] = [[] for _ in group]
        for row, one in enumerate(asked):
            answers[one.image].append(found[row])
        return answers

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Features [images, N, d]."""
        device, (height, width) = self.model.device, self.processor.size
        count = max(1, (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) // (height * width))
        batches = [images[start : start + count] for start in range(0, len(images), count)]
        return torch.cat([self.model.encode_image(self.processor.images(batch).to(device)) for batch in batches])

    def ask(self, features: Tensor, batch: Sequence[Asked], input_ids: Tensor, mask: Tensor) -> list[Hypothesis]:
        model, tokens, prompts = self.model, self.processor.tokens, [prompt for _, prompt in batch]
        own = features[[image for image, _ in batch]]
        width = model.config.text.vocab_size
        unused = [*range(tokens.size, width), *([] if tokens.image is None else [tokens.image])]
        return search(
            model,
            model.encode(own, input_ids.to(model.device), mask.to(model.device)),
            self.decoding(prompts),
            unused=[id for id in unused if id < width],
            locs=tokens.loc_start if any(prompt.form is not Form.TEXT for prompt in prompts) else None,
            grammar=self.grammar(prompts, width) if self.constrained else None,
        )

    def decoding(self, prompts: Sequence[Prompt]) -> Decoding:
        return Decoding(
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            no_repeat_ngram_size=[self.ngram(prompt) for prompt in prompts],
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            eos_penalty=[0.0 if prompt.form is Form.TEXT else self.eos_penalty for prompt in prompts],
        )

    def ngram(self, prompt: Prompt) -> int:
        sizes = self.no_repeat_ngram_size
        if not isinstance(sizes, Mapping):
            return sizes
        return sizes.get(prompt.task, 3) if prompt.task else 3

    def grammar(self, prompts: Sequence[Prompt], width: int) -> Grammar:
        limit = min(self.max_new_tokens, self.model.config.text.max_position_embeddings)
        return Grammar.build(prompts, self.processor.tokens, width, limit - 1).to(self.model.device)  # less <s>

    def answer(self, size: tuple[int, int], prompt: Prompt, hypothesis: Hypothesis) -> Answer:
        tokens, ids = self.processor.tokens, hypothesis.token_ids
        named = prompt.form in (Form.POLYGONS, Form.BOXES_OR_POLYGONS) and len(prompt.labels) == 1
        pieces = pieces_of_ids(ids, tokens)
        found = decode(prompt.form, pieces, size, prompt.labels[0] if named else "")
        annotations = [] if hypothesis.loc_logp is None else scored(found, hypothesis.token_logp, hypothesis.loc_logp)
        score = likelihood(hypothesis.token_logp[1:])  # <s> is given
        assert score is not None, "max_new_tokens is 2 or more"
        return Answer(prompt, self.processor.decode(ids), tuple(ids), score, tuple(annotations), hypothesis.ended)


def posed(question: Question | list[Question], size: Size) -> Prompt:
    """The prompt that asks it of an image of `size` (width, height)."""
    if isinstance(question, Prompt):
        return question
    if isinstance(question, str):
        return ask(question)
    if isinstance(question, tuple) and len(question) == 2:
        return ask(question[0], question[1], size)
    raise PromptError(f"expected a task, a (task, input) pair or a Prompt; got {question!r}")
