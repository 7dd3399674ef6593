"""All that a Florence-2 is asked of images, from one encoding of each, since later questions depend on answers:

1. captions, objects, descriptions of regions, proposals, texts; what it would call the objects that stand already;
   and what it thinks of what stands, and of texts that another model wrote
2. each class by itself; the phrases of its own captions
3. outlines of the objects that these come to
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch
from PIL import Image as Pillow
from torch import Tensor

from engine.protocols import Sample
from engine.records import AnyAnnotation, Decision
from florence2 import Annotator, Florence2, Processor, Prompt, Task, ask
from florence2.annotate import Picture
from specialists.findings import CAPTIONS, Findings
from specialists.florence import Florence, files_of
from specialists.hub.specialist import Batches
from specialists.hub.weights import Precision, dtype_of
from specialists.verification import Told, asks, verified

LISTS = (Task.OD, Task.DENSE_REGION_CAPTION, Task.REGION_PROPOSAL, Task.OCR_WITH_REGION)
GREY = 128
LOOPING = 3  # tokens: a run that long is not said twice in a caption; in a list, two things may have one long name


@dataclass(frozen=True)
class Interviewer:
    """A model, as it is asked for captions, for lists, and for single things: what they are called, their outlines."""

    settings: Florence
    captioner: Annotator
    lister: Annotator
    plain: Annotator
    images: Batches  # how many are encoded together
    prompts: Batches  # how many are answered together

    @classmethod
    def of(cls, folder: Path, settings: Florence) -> Interviewer:
        """With the model in `folder`, on the GPU where there is one. Florence2Error says what is wrong with it."""
        plain = Annotator(
            _loaded(folder, settings.precision, tuple((path, path.stat().st_mtime_ns) for path in files_of(folder))),
            Processor.from_pretrained(folder),
            num_beams=settings.list_beams,
            max_new_tokens=settings.max_new_tokens,
            no_repeat_ngram_size=0,
            constrained=settings.constrained,
            batch_size=settings.prompts_at_once,
        )
        # Not the first three that end, as the released models' settings have it: a model that has seen little loses the
        # answer that it is nearly sure of to shorter ones.
        captioner = replace(plain, num_beams=settings.caption_beams, no_repeat_ngram_size=LOOPING, early_stopping=False)
        lister = replace(plain, eos_penalty=settings.eos_penalty)
        # A name or an outline that goes on is no better.
        return cls(settings, captioner, lister, plain, Batches(settings.at_once), Batches(settings.prompts_at_once))

    def annotate(self, samples: Sequence[Sample]) -> list[list[AnyAnnotation | Decision]]:
        """What it finds in each image, and its opinions."""
        pictures = [self.lister.read(Pillow.fromarray(s.image), [], n) for n, s in enumerate(samples)]
        features = self._encoded(pictures)
        found = [Findings(sample, self.settings, self.lister.processor.tokens) for sample in samples]
        hear = partial(self._hear, pictures, features, found)
        hear(self.captioner, [self._wanted(CAPTIONS)] * len(found))
        hear(self.lister, [self._wanted(LISTS)] * len(found))
        hear(self.plain, [one.categories() for one in found])
        hear(self.lister, [one.questions() for one in found])
        hear(self.plain, [one.outlines() for one in found])
        opinions: list[list[Decision]] = [[] for _ in samples]
        if self.settings.verify:
            opinions = self._opinions([Told.standing(sample) for sample in samples], features)
        return [[*one.annotations(), *some] for one, some in zip(found, opinions, strict=True)]

    def opinions(
        self, samples: Sequence[Sample], found: Sequence[Sequence[AnyAnnotation | Decision]]
    ) -> list[list[Decision]]:
        """What it thinks of the texts that another model wrote."""
        told = [
            Told.written(sample, [entry for entry in entries if not isinstance(entry, Decision)])
            for sample, entries in zip(samples, found, strict=True)
        ]
        pictures = [self.lister.read(Pillow.fromarray(s.image), [], n) for n, s in enumerate(samples)]
        return self._opinions(told, self._encoded(pictures))

    def _encoded(self, pictures: Sequence[Picture]) -> Tensor:
        """[pictures, N, d]"""
        rows = self.images.run(lambda some: list(self.lister.encode(some)), [picture.pixels for picture in pictures])
        return torch.stack(rows)

    def _opinions(self, told: Sequence[Told], features: Tensor) -> list[list[Decision]]:
        model, processor, by = self.lister.model, self.lister.processor, self.settings.name
        return self.prompts.halving(
            lambda at_once: verified(model, processor, told, features, lambda: self._blank, at_once, by)
        )

    @cached_property
    def _blank(self) -> Tensor:
        """The encoding of a grey image, [1, N, d]."""
        grey = self.lister.read(Pillow.new("RGB", (64, 64), (GREY, GREY, GREY)), [], 0)
        return self.lister.encode([grey.pixels])

    def _wanted(self, tasks: Iterable[Task]) -> list[Prompt]:
        return [ask(task) for task in tasks if task in self.settings.tasks]

    def _hear(
        self,
        pictures: Sequence[Picture],
        features: Tensor,
        found: Sequence[Findings],
        annotator: Annotator,
        prompts: Sequence[list[Prompt]],
    ) -> None:
        """Asks of each picture its prompts, less those that have no room beside the image."""
        group = [
            picture._replace(prompts=[prompt for prompt in some if asks(annotator.processor, prompt)])
            for picture, some in zip(pictures, prompts, strict=True)
        ]
        heard = self.prompts.halving(lambda at_once: replace(annotator, batch_size=at_once).answers(group, features))
        for one, answers in zip(found, heard, strict=True):
            for answer in answers:
                one.hear(answer)


@lru_cache(maxsize=8)
def _loaded(folder: Path, precision: Precision, files: tuple[tuple[Path, int], ...]) -> Florence2:
    """One model for all the roles that it has in a pipeline; `files` with their times of change: it may be another."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Florence2 = Florence2.from_pretrained(folder, dtype_of(precision)).to(device)
    return model
