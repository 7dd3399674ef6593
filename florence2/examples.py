"""An example: what the model is asked and what it should answer; read from a file of them; and an answer cut to as many
tokens as fit."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from florence2.codec import Annotation, decode, pieces_of_text
from florence2.errors import ConfigError, Florence2Error
from florence2.locations import UNKNOWN
from florence2.tasks import Form, Prompt, Task

Span = tuple[int, int]

LARGEST = 2**31  # pixels a side that are believed
LEAST = 3  # ids: <s>, something, </s>
LOC = r"<loc_\d{1,3}>"
# Where a region of an answer ends. A single instance of POLYGONS has no <poly>: it is one region, whole or not at all.
REGION = {
    Form.BOXES: re.compile(rf"(?:{LOC}){{4}}"),
    Form.LABELLED_BOXES: re.compile(rf"(?:{LOC}){{4}}"),
    Form.LABELLED_QUADS: re.compile(rf"(?:{LOC}){{8}}"),
    Form.POLYGONS: re.compile(r"<poly>.*?</poly>|^(?!<poly>).+$"),
    Form.BOXES_OR_POLYGONS: re.compile(rf"<poly>.*?</poly>|(?:{LOC}){{4}}"),
}
# Latin marks with closing quotes and brackets behind them, before white space; ideographic ones anywhere; a new line.
SENTENCE = re.compile(r"[.!?…]+[\"'\u201d\u2019»)\]]*(?=\s|$)|[\u3002\uff01\uff1f]+[\u201d\u300d\u300f\uff09]*|\n")
WORD = re.compile(r"\S(?=\s|$)")


class Words(Protocol):
    """What `fit` asks of a tokenizer: ids of a text, and with <s> and </s> around it."""

    def encode(self, text: str, /) -> list[int]: ...

    def sentence(self, text: str, /) -> list[int]: ...


@dataclass(frozen=True)
class Example:
    """What the model learns from at once: `answer` is the target without <s> </s>.

    `annotations` are what the answer says, in its order and in pixels of the scene; none for a text. `silent` are
    characters [start, stop) of the answer that make no loss: the places of noise objects, which no annotation stands
    for.
    """

    task: Task
    prompt: Prompt
    answer: str
    annotations: tuple[Annotation, ...] = ()
    silent: tuple[Span, ...] = ()


def read_examples(path: str | Path) -> Iterator[tuple[str, Example]]:
    """The examples of a .jsonl file, each with the name that the file has for its image: an object a line with `image`,
    `task`, `prompt` (the whole sentence) and `target` (without <s> </s>); with `width` and `height` of the image the
    annotations are in its pixels, else from 0 to 1.

    `fit` and `florence2.training.tokenise` take them from here. Florence2Error, with the line, for any other.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield example_of(line)
                except (ValueError, RecursionError) as error:  # UnicodeError and our own are ValueErrors
                    raise Florence2Error(f"{path}, line {number}: {error}") from error


def example_of(line: bytes) -> tuple[str, Example]:
    said = json.loads(line)
    named = ("image", "task", "prompt", "target")
    texts = [text for name in named if isinstance(text := said.get(name), str)] if isinstance(said, dict) else []
    if len(texts) < len(named):
        raise ValueError(f"expected an object with {', '.join(named)}, all texts; got {line[:80]!r}")
    image, name, prompt, target = texts
    task, size = Task.of(name), (said.get("width"), said.get("height"))
    known = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < LARGEST for side in size)
    found = decode(task.form, pieces_of_text(target), size if known else UNKNOWN)
    return image, Example(task, Prompt(prompt, task.form, task), target, tuple(one.annotation for one in found))


def fit(example: Example, tokens: Words, limit: int) -> tuple[Example, int]:
    """The example with an answer of at most `limit` ids, <s> and </s> among them, and how much was cut.

    A list loses its last regions, each whole, and they are counted (noise is none). A text loses what is behind the
    last sentence that fits, or else the last word, or else the last character; that counts as 1. Where not even the
    first region fits, the answer is empty, which would say that nothing is there: leave out an example that was cut to
    an empty answer. ConfigError for a limit that leaves no room for anything.
    """
    if limit < LEAST:
        raise ConfigError(f"expected a limit of {LEAST} ids at least, <s> and </s> among them; got {limit}")
    if len(tokens.sentence(example.answer)) <= limit:
        return example, 0
    if example.prompt.form is Form.TEXT:
        return replace(example, answer=shortened(example.answer, tokens, limit)), 1
    ends = [match.end() for match in REGION[example.prompt.form].finditer(example.answer)]
    parts = [example.answer[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
    lengths = list(accumulate(len(tokens.encode(part)) for part in parts))  # a region ends with a token of its own
    kept = bisect_right(lengths, limit - 2)
    end = ends[kept - 1] if kept else 0
    cut = replace(
        example,
        answer=example.answer[:end],
        annotations=example.annotations[:kept],
        silent=tuple(span for span in example.silent if span[1] <= end),
    )
    return cut, len(example.annotations) - len(cut.annotations)


def shortened(text: str, tokens: Words, limit: int) -> str:
    """The longest beginning that fits and ends with a sentence; if there is none with a word, or else anywhere."""
    for ends in ([m.end() for m in SENTENCE.finditer(text)], [m.end() for m in WORD.finditer(text)], range(len(text))):
        if end := longest(text, ends, tokens, limit):
            return text[:end].rstrip()
    return ""


def longest(text: str, ends: Sequence[int], tokens: Words, limit: int) -> int:
    """The last of the ends that fits; 0 if none does."""
    # More text is more ids, but for one now and then: so the place is found as in a sorted list, then made sure of.
    place = bisect_right(ends, limit, key=lambda end: len(tokens.sentence(text[:end])))
    while place and len(tokens.sentence(text[: ends[place - 1]])) > limit:
        place -= 1
    return ends[place - 1] if place else 0
