"""A benchmark's questions put to a model, image by image."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from PIL import Image

from florence2.annotate import Annotator, Answer, Question
from florence2.codec import Annotation, pieces_of_text, plain
from florence2.errors import ImageError
from florence2.evaluation.files import Photo
from florence2.evaluation.photos import seen
from florence2.tasks import Prompt

EVERY = 10.0  # seconds from one line of progress to the next


@dataclass(frozen=True)
class Asked:
    """An image, and what it is asked."""

    photo: Photo
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Said:
    """What the model says to one prompt; places are in pixels of the size that the benchmark gives its image."""

    text: str
    annotations: tuple[Annotation, ...]


Answers = Mapping[int | str, Sequence[Said]]  # by image: for each of its prompts


def ask_all(
    annotator: Annotator, asked: Sequence[Asked], paths: Mapping[int | str, Path], unreadable: dict[int | str, str]
) -> Iterator[tuple[Asked, list[Said]]]:
    """Each image with its answers, in order; what can't be read is put down as such, by id: why."""
    waiting: deque[tuple[Asked, tuple[int, int]]] = deque()

    def images() -> Iterator[Image.Image]:
        for one in asked:
            try:
                image = seen(paths[one.photo.id], one.photo.size)
            except ImageError as error:
                unreadable[one.photo.id] = str(error)
            else:
                waiting.append((one, image.size))
                yield image

    def questions() -> Iterator[list[Question]]:
        """Asked for when the image is there."""
        while True:
            yield list(waiting[-1][0].prompts)

    for answers in annotator.stream(images(), questions()):
        one, size = waiting.popleft()
        yield one, [said(answer, size, one.photo.size or size) for answer in answers]


def said(answer: Answer, size: tuple[int, int], to: tuple[int, int]) -> Said:
    """In pixels of an image of size `to`, where the file was another one."""
    return Said(
        plain(pieces_of_text(answer.text)),
        tuple(scaled(annotation, to[0] / size[0], to[1] / size[1]) for annotation in answer.annotations),
    )


def scaled(annotation: Annotation, x: float, y: float) -> Annotation:
    def points(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(value * (y if n % 2 else x) for n, value in enumerate(values))

    fields = asdict(annotation)
    for name in ("box", "quad"):
        fields[name] = fields[name] and points(fields[name])
    fields["polygons"] = fields["polygons"] and tuple(points(ring) for ring in fields["polygons"])
    return Annotation(**fields)


def told(done: int, total: int, started: float) -> str:
    rate = done / max(monotonic() - started, 1e-9)
    left = (total - done) / rate if done else 0.0
    return f"{done} of {total} images, {rate:.2f} a second, {left / 60:.0f} min left"


def progress(total: int) -> Callable[[int], None]:
    """Says on stderr how far it is, every ten seconds."""
    started = last = monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if monotonic() - last >= EVERY:
            last = monotonic()
            print(told(done, total, started), file=sys.stderr, flush=True)

    return tell
