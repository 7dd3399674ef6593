"""The benchmarks: what each asks of an image, and how the answers are measured.

Every one has `asked`, the images and questions in order of image id; `about`, what they are and come from; `published`,
the paper's figures; and `measure`, of the answers to the images that count: those without one have answered nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from florence2.codec import Annotation
from florence2.errors import Florence2Error
from florence2.evaluation import published
from florence2.evaluation.asking import Answers, Asked, Said
from florence2.evaluation.captions import caption_scores
from florence2.evaluation.classes import PROTOCOL, ClassMap
from florence2.evaluation.coco import Captioned, Labelled, read_captions, read_instances
from florence2.evaluation.detection import Objects, average_precision
from florence2.evaluation.flickr30k import Entities, Sentence, read_flickr30k
from florence2.evaluation.grounding import Grounded, recall
from florence2.evaluation.masks import Rle, mask_of
from florence2.evaluation.published import Published
from florence2.evaluation.refcoco import Expression, Referred, read_refcoco
from florence2.evaluation.referring import referred_boxes, referred_masks
from florence2.evaluation.result import Result
from florence2.tasks import Box, Form, Task, ask

NOTHING = Said("", ())
Ids = Collection[int | str]


class Benchmark(Protocol):
    @property
    def asked(self) -> list[Asked]: ...

    @property
    def about(self) -> dict[str, Any]: ...

    @property
    def published(self) -> Published: ...

    def measure(self, answers: Answers, counted: Ids) -> Result: ...


@dataclass(frozen=True)
class Wanted:
    """What is said of a benchmark on the command line. A split or task of None is the usual one."""

    data: Path
    split: str | None = None
    task: Task | None = None
    masks: bool = False


def said_to(answers: Answers, image: int | str, at: int = 0) -> Said:
    return answers[image][at] if image in answers else NOTHING


def boxed(annotations: Sequence[Annotation]) -> list[tuple[Box, Annotation]]:
    """Those with a box, in the order of the answer."""
    return [(one.box, one) for one in annotations if one.box is not None]


def surest(found: Sequence[tuple[Box, Annotation]]) -> list[Box]:
    """Boxes in order of their scores."""
    return [box for box, _ in sorted(found, key=lambda pair: -(pair[1].score or 0.0))]


# Captions


@dataclass(frozen=True)
class Captions:
    """COCO's captions: one task that writes a text."""

    source: Captioned
    task: Task

    @classmethod
    def of(cls, wanted: Wanted) -> Captions:
        task = wanted.task or Task.CAPTION
        if task.form is not Form.TEXT or task.takes_input or task is Task.OCR:
            raise Florence2Error(f"--task: expected CAPTION, DETAILED_CAPTION or MORE_DETAILED_CAPTION, got {task}")
        return cls(read_captions(wanted.data, wanted.split), task)

    @property
    def asked(self) -> list[Asked]:
        return [Asked(photo, (ask(self.task),)) for photo in self.source.photos]

    @property
    def about(self) -> dict[str, Any]:
        return {"data": str(self.source.file), "split": self.source.split, "task": self.task}

    @property
    def published(self) -> Published:
        return published.CAPTIONS

    def measure(self, answers: Answers, counted: Ids) -> Result:
        references = {id: texts for id, texts in self.source.references.items() if id in counted}
        return caption_scores(references, {id: said_to(answers, id).text for id in references})


# Detection


@dataclass(frozen=True)
class Detection:
    """COCO's objects, by the task OD."""

    source: Labelled

    @classmethod
    def of(cls, wanted: Wanted) -> Detection:
        return cls(read_instances(wanted.data, wanted.split))

    @property
    def asked(self) -> list[Asked]:
        return [Asked(photo, (ask(Task.OD),)) for photo in self.source.photos]

    @property
    def about(self) -> dict[str, Any]:
        return {"data": str(self.source.file), "split": self.source.split, "task": Task.OD}

    @property
    def published(self) -> Published:
        return published.DETECTION

    def measure(self, answers: Answers, counted: Ids) -> Result:
        truth = {id: objects for id, objects in self.source.objects.items() if id in counted}
        mapped = ClassMap(self.source.categories)
        found = {id: objects_of(said_to(answers, id).annotations, mapped) for id in truth}
        result = average_precision(
            truth,
            found,
            self.source.categories,
            score="the box's (probability that each edge is within 10 % of its side) times the label's likelihood",
        )
        words = ", ".join(f"{label!r} {count}" for label, count in mapped.unmapped.most_common(20))
        return replace(
            result,
            numbers={**result.numbers, "labels unmapped": mapped.share_unmapped},
            counts={**result.counts, "labels": mapped.asked, "labels unmapped": sum(mapped.unmapped.values())},
            protocol=f"{result.protocol}; {PROTOCOL}; objects with other labels left out: {words or 'none'}",
        )


def objects_of(annotations: Sequence[Annotation], mapped: ClassMap) -> Objects:
    found = [(key, box, score_of(one)) for box, one in boxed(annotations) if (key := mapped.key(one.label)) is not None]
    keys, boxes, scores = zip(*found, strict=True) if found else ((), (), ())
    return Objects(keys, boxes, scores=scores)


def score_of(annotation: Annotation) -> float | None:
    """None if one of the two isn't known."""
    if annotation.score is None or annotation.label_score is None:
        return None
    return annotation.score * annotation.label_score


# Referring expressions


@dataclass(frozen=True)
class Referring:
    """RefCOCO's expressions: their boxes by grounding, or their masks."""

    source: Referred
    masks: bool

    @classmethod
    def of(cls, wanted: Wanted) -> Referring:
        return cls(read_refcoco(wanted.data, wanted.split, wanted.masks), wanted.masks)

    @property
    def task(self) -> Task:
        return Task.REFERRING_EXPRESSION_SEGMENTATION if self.masks else Task.CAPTION_TO_PHRASE_GROUNDING

    @property
    def asked(self) -> list[Asked]:
        return [
            Asked(photo, tuple(ask(self.task, one.text) for one in self.source.expressions[int(photo.id)]))
            for photo in self.source.photos
        ]

    @property
    def about(self) -> dict[str, Any]:
        return {"data": str(self.source.folder), "split": self.source.split, "task": self.task}

    @property
    def published(self) -> Published:
        return published.REFERRED_MASKS if self.masks else published.REFERRED_BOXES

    def measure(self, answers: Answers, counted: Ids) -> Result:
        asked = [
            (one, said_to(answers, image, at))
            for image, expressions in self.source.expressions.items()
            if image in counted
            for at, one in enumerate(expressions)
        ]
        names = [f"image {one.image}, expression {one.id}" for one, _ in asked]
        if not self.masks:
            boxes = [meant(one, said) for one, said in asked]
            result = referred_boxes([one.box for one, _ in asked], boxes, names)
            how = "the surest box of the whole expression where the answer has one, else of its first phrase"
        else:
            masks = [mask_said(one, said) for one, said in asked]
            result = referred_masks([one.mask for one, _ in asked if one.mask], masks, names)
            how = "all polygons of the answer together"
        return replace(result, protocol=f"{result.protocol}; what is measured: {how}")


def meant(expression: Expression, said: Said) -> Box | None:
    found = boxed(said.annotations)
    if not found:
        return None
    whole = [pair for pair in found if plain_words(pair[1].label) == plain_words(expression.text)]
    return surest(whole or [pair for pair in found if pair[1].label == found[0][1].label])[0]


def mask_said(expression: Expression, said: Said) -> Rle | None:
    rings = [ring for one in said.annotations for ring in one.polygons or ()]
    if not rings:
        return None
    assert expression.mask is not None
    height, width = expression.mask["size"]
    return mask_of(rings, (height, width))


# Phrases


@dataclass(frozen=True)
class Phrases:
    """Flickr30k Entities' sentences: whole ones are grounded, and their phrases looked for in the answer."""

    source: Entities

    @classmethod
    def of(cls, wanted: Wanted) -> Phrases:
        return cls(read_flickr30k(wanted.data, wanted.split))

    @property
    def asked(self) -> list[Asked]:
        return [
            Asked(
                photo,
                tuple(
                    ask(Task.CAPTION_TO_PHRASE_GROUNDING, sentence.text)
                    for sentence in self.source.sentences[str(photo.id)]
                ),
            )
            for photo in self.source.photos
        ]

    @property
    def about(self) -> dict[str, Any]:
        return {"data": str(self.source.folder), "split": self.source.split, "task": Task.CAPTION_TO_PHRASE_GROUNDING}

    @property
    def published(self) -> Published:
        return published.PHRASES

    def measure(self, answers: Answers, counted: Ids) -> Result:
        grounded = [
            one
            for image, sentences in self.source.sentences.items()
            if image in counted
            for at, sentence in enumerate(sentences)
            for one in grounded_in(sentence, said_to(answers, image, at), f"image {image}")
        ]
        result = recall(grounded)
        how = "a phrase's boxes: those with its words in the answer to the sentence, articles and case aside"
        return replace(result, protocol=f"{result.protocol}; {how}")


def grounded_in(sentence: Sentence, said: Said, image: str) -> list[Grounded]:
    found = boxed(said.annotations)
    return [
        Grounded(
            phrase.boxes,
            surest([pair for pair in found if plain_words(pair[1].label) == plain_words(phrase.text)]),
            phrase.kinds,
            f"{image}, {phrase.text!r}",
        )
        for phrase in sentence.phrases
    ]


def plain_words(text: str) -> list[str]:
    """Of a phrase: without articles, case and white space."""
    return [word for word in text.casefold().split() if word not in ("a", "an", "the")]


BENCHMARKS: dict[str, Callable[[Wanted], Benchmark]] = {
    "coco-caption": Captions.of,
    "coco-detection": Detection.of,
    "refcoco": Referring.of,
    "flickr30k": Phrases.of,
}
