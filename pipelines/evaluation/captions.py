"""Texts about whole images, held against what the truth says of them, a granularity at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from engine.cider import Cider
from engine.errors import ConfigError
from engine.records import DETAILS, HUMAN
from engine.said import Said
from pipelines.evaluation.measured import Judged, Measured, Numbers

TAIL = 0.1  # of the truth's texts: a granularity with less is the long or short end of another one's
WORDS = ((8, "up to 8 words"), (16, "9 to 16 words"), (47, "17 to 47 words"))


@dataclass(frozen=True)
class Captions:
    """Texts of images whose ids are known."""

    truth: Said
    ids: Sequence[str]
    reads: ClassVar[tuple[str, ...]] = ("texts",)
    mains: ClassVar[tuple[str, ...]] = ("texts",)
    region_kind: ClassVar[str | None] = None
    by: ClassVar[str] = "mean CIDEr-D"
    judging: ClassVar[str] = (
        "CIDEr-D, of the same tokens, of the first text that a source made of an image and granularity"
    )
    notes: list[str] = field(default_factory=list)

    @cached_property
    def references(self) -> dict[str, dict[int, list[str]]]:
        """By granularity, of each image that has some."""
        texts = self.truth["texts"]
        rows = [texts[name].to_pylist() for name in ("row", "detail", "text")]
        counts = Counter(rows[1])
        if not counts:
            raise ConfigError(f"--kind captions: the truth of {len(self.ids)} images has no text of a whole image")
        most = counts.most_common(1)[0][0]
        tails = {detail for detail, count in counts.items() if count < TAIL * len(texts)}
        for detail in sorted(tails):
            told = (
                f"{counts[detail]} of the truth's {len(texts)} texts are {detail}: taken for the ends of those that are"
            )
            self.notes.append(f"{told} {most}")
        found: dict[str, dict[int, list[str]]] = {}
        for row, detail, text in zip(*rows, strict=True):
            found.setdefault(most if detail in tails else detail, {}).setdefault(row, []).append(text)
        return {detail: found[detail] for detail in DETAILS if detail in found}

    def answers(self, found: Said, detail: str, standing: bool = False) -> tuple[dict[int, str], int]:
        """The first text of each image, and how many others there are. Of what stands, none that people wrote."""
        texts = found["texts"]
        first: dict[int, str] = {}
        others = 0
        for row, own, source, text in zip(
            *(texts[name].to_pylist() for name in ("row", "detail", "source", "text")), strict=True
        ):
            if own != detail or (standing and source == HUMAN):
                continue
            others += row in first
            first.setdefault(row, text)
        return first, others

    def measure(self, found: Said, *, standing: bool) -> Measured:
        from florence2.evaluation.captions import caption_scores

        numbers: Numbers = {}
        counts: dict[str, int] = {}
        protocol = ""
        for detail, references in self.references.items():
            texts, others = self.answers(found, detail, standing)
            result = caption_scores(references, texts)
            told = detail.replace("_", " ")
            for name in ("CIDEr-D", "BLEU-4"):
                numbers[f"{told} {name}"] = result.numbers[name] if texts else None
            counts |= {f"{told}: {name}": count for name, count in result.counts.items()}
            counts[f"{told}: further texts left out"] = others
            protocol = result.protocol
        note = "one text an image and granularity, its first; of what stands, none that people wrote"
        return Measured(numbers, counts, f"{protocol}; {note}")

    # Who is right

    @cached_property
    def _things(self) -> list[tuple[str, int]]:
        return [(detail, row) for detail, references in self.references.items() for row in references]

    @cached_property
    def _ciders(self) -> dict[str, tuple[Cider, dict[int, int]]]:
        return {
            detail: (Cider(list(references.values()), _tokens), {row: at for at, row in enumerate(references)})
            for detail, references in self.references.items()
        }

    @cached_property
    def strata(self) -> Mapping[str, Sequence[str]]:
        lengths = [
            float(np.mean([len(text.split()) for text in self.references[detail][row]])) for detail, row in self._things
        ]
        return {
            "granularity": [detail.replace("_", " ") for detail, _ in self._things],
            "length": [next((name for most, name in WORDS if n <= most), "48 words and more") for n in lengths],
        }

    def judge(self, found: Said) -> Judged | None:
        worth = np.zeros(len(self._things))
        answers = {detail: self.answers(found, detail)[0] for detail in self.references}
        for place, (detail, row) in enumerate(self._things):
            cider, numbers = self._ciders[detail]
            if row in answers[detail]:
                worth[place] = cider.score(numbers[row], answers[detail][row])
        return Judged(worth)


def _tokens(text: str) -> list[str]:
    """As `caption_scores` has them: what is told of sources in both tables is the same measure."""
    from florence2.evaluation.ptb import tokenised

    return tokenised(text).split()
