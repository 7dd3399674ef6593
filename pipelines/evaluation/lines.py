"""Lines of text in images: are they found, and do they read the same?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from engine.errors import ConfigError
from engine.flat import Bools
from engine.said import Said, boxes_of, equal, split
from engine.stats.columns import rows_of
from pipelines.evaluation.measured import Judged, Measured, Numbers
from pipelines.evaluation.objects import Things, match, sizes_of

UNREADABLE = "###"  # ICDAR's: nobody has to read it
NAMES = {
    "precision": "end-to-end precision",
    "recall": "end-to-end recall",
    "F1": "end-to-end F1",
    "detection precision": "detection precision",
    "detection recall": "detection recall",
    "detection F1": "detection F1",
    "CER": "CER",
}
LENGTHS = ((3, "up to 3 characters"), (8, "4 to 8 characters"), (20, "9 to 20 characters"))


@dataclass(frozen=True)
class Ocr:
    """Lines of images whose ids are known."""

    truth: Said
    ids: Sequence[str]
    reads: ClassVar[tuple[str, ...]] = ("regions",)
    mains: ClassVar[tuple[str, ...]] = ("regions",)
    region_kind: ClassVar[str | None] = "text"
    by: ClassVar[str] = "F1 of all lines"
    judging: ClassVar[str] = (
        "F1 of all lines that a source made, whatever their score; right are those that read the same, at IoU 0.5 of "
        "their boxes"
    )
    notes: list[str] = field(default_factory=list)

    @cached_property
    def there(self) -> dict[int, list[Any]]:
        lines = self.lines(self.truth, unreadable=True)
        if not any(line.text for own in lines.values() for line in own):
            raise ConfigError(f"--kind ocr: the truth of {len(self.ids)} images has no line of text that can be read")
        return lines

    def lines(self, said: Said, *, unreadable: bool = False) -> dict[int, list[Any]]:
        """Of all images; in the truth there are such as nobody can read."""
        from florence2.evaluation.ocr import Line

        regions = said["regions"].filter(equal(said["regions"]["kind"], "text"))
        found: dict[int, list[Any]] = {number: [] for number in range(len(self.ids))}
        columns = (regions["row"].to_pylist(), regions["quad"].to_pylist(), boxes_of(regions).tolist())
        for row, quad, box, text in zip(*columns, regions["text"].to_pylist(), strict=True):
            dont_care = unreadable and (text or "").strip() == UNREADABLE
            found[row].append(Line(quad or box, None if dont_care else text or ""))
        return found

    def measure(self, found: Said, *, standing: bool) -> Measured:
        from florence2.evaluation.ocr import spotting

        result = spotting(self.there, self.lines(found))
        numbers: Numbers = {name: result.numbers[of] for name, of in NAMES.items()}
        return Measured(
            numbers, result.counts, f"{result.protocol}. Precision, recall and F1 without a word: end-to-end"
        )

    # Which are right

    def _things(self, said: Said, texts: dict[str, int]) -> tuple[Things, list[str]]:
        regions = said["regions"].filter(equal(said["regions"]["kind"], "text"))
        words = [" ".join((text or "").split()) for text in regions["text"].to_pylist()]
        codes = np.array([texts.setdefault(word, len(texts)) for word in words], np.int64)
        boxes = boxes_of(regions)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        return Things(
            rows_of(regions), codes, boxes, np.full(len(codes), np.nan), np.zeros(len(codes), bool), areas
        ), words

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {}

    @cached_property
    def _judged(self) -> tuple[Things, list[str], Bools]:
        """Those of the truth, and which of them can be read."""
        things, words = self._things(self.truth, self._codes)
        return things, words, np.array([word != UNREADABLE for word in words], bool)

    @cached_property
    def strata(self) -> Mapping[str, Sequence[str]]:
        things, words, read = self._judged
        return _strata(things.take(read), [word for word, can in zip(words, read, strict=True) if can])

    def judge(self, found: Said) -> Judged | None:
        there, _, read = self._judged
        things, words = self._things(found, self._codes)
        right, wrong = match(there, things)
        wrong &= ~self._in_unreadable(things)
        missed = [word for word, is_wrong in zip(words, wrong, strict=True) if is_wrong]
        surplus = {name: Counter(values) for name, values in _strata(things.take(wrong), missed).items()}
        return Judged(right[read].astype(float), surplus)

    def _in_unreadable(self, things: Things) -> Bools:
        """Which lie in a line of the truth that nobody can read, as `measure` ignores them."""
        from florence2.evaluation.ocr import IN_DONT_CARE

        there, _, read = self._judged
        unreadable = replace(there, crowd=~read).take(~read)
        ignored = np.zeros(len(things.rows), bool)
        images = (split(one.rows, len(self.ids)) for one in (things, unreadable))
        for own, theirs in zip(*images, strict=True):
            if len(theirs):
                ignored[own] = (things.overlaps(own, unreadable, theirs) > IN_DONT_CARE).any(axis=1)
        return ignored


def _strata(things: Things, words: Sequence[str]) -> dict[str, Sequence[str]]:
    lengths = [next((name for most, name in LENGTHS if len(word) <= most), "more than 20 characters") for word in words]
    return {"length": lengths, "size": sizes_of(things.areas)}
