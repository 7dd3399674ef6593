"""Phrases and expressions, and the boxes of what they name: grounding and referring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from engine.errors import ConfigError
from engine.flat import Ints
from engine.said import Said, boxes_of, equal, listed, numbers_of, split
from engine.stats.columns import places, rows_of
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.measured import Judged, Measured
from pipelines.evaluation.objects import IOU, sizes_of

Box = list[float]
LENGTHS = ((1, "1 word"), (2, "2 words"), (4, "3 or 4 words"))


@dataclass(frozen=True)
class Named:
    """Words that name regions of an image, the surest first; with their place in a text, where they stand in one. The
    `score` is one that `source` gave "phrases" or "regions"; `ranked` regions are in the order of scores of their
    own."""

    row: int
    words: str
    boxes: list[Box]
    ids: tuple[str, ...]
    score: float
    source: str
    scored: str
    ranked: bool = False
    place: tuple[str, int, int] | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.row, bare(self.words)


def bare(text: str) -> str:
    """Case and a first article don't count."""
    words = text.casefold().split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def triplets_of(said: Said) -> list[Named]:
    """Those of which a region is there."""
    table, regions = said["triplets"], said["regions"]
    rows, texts = rows_of(table), _texts(said, table)
    parents, ids = listed(table["region_ids"])
    at = places(rows[parents], ids, regions)
    scores, boxes, names = numbers_of(regions["score"]), boxes_of(regions), regions["id"].to_pylist()
    phrase_scores = numbers_of(table["phrase_score"])
    columns = (*(table[name].to_pylist() for name in ("phrase", "start", "stop", "source")), phrase_scores, texts)
    found = []
    for row, (own, phrase, start, stop, source, score, text) in enumerate(
        zip(split(parents, len(table)), *columns, strict=True)
    ):
        there = [int(n) for n in at[own] if n >= 0]
        there.sort(key=lambda n: _last(float(scores[n])))
        if there and phrase:
            place = (text or "", start, stop)
            named = tuple(names[n] for n in there)
            ranked = len(there) > 1 and bool(np.isfinite(scores[there]).any())
            own_boxes = boxes[there].tolist()
            found.append(
                Named(int(rows[row]), phrase, own_boxes, named, float(score), source, "phrases", ranked, place)
            )
    return found


def region_texts_of(said: Said) -> list[Named]:
    table, regions = said["region_texts"], said["regions"]
    at = places(rows_of(table), table["region_id"], regions)
    scores, boxes = numbers_of(regions["score"]), boxes_of(regions)
    names, sources = regions["id"].to_pylist(), regions["source"].to_pylist()
    return [
        Named(row, text, [boxes[n].tolist()], (names[n],), float(scores[n]), sources[n], "regions")
        for row, text, n in zip(table["row"].to_pylist(), table["text"].to_pylist(), at.tolist(), strict=True)
        if n >= 0
    ]


def _texts(said: Said, triplets: Any) -> list[str | None]:
    texts = said["texts"]
    at, words = places(rows_of(triplets), triplets["text_id"], texts), texts["text"].to_pylist()
    return [words[n] if n >= 0 else None for n in at.tolist()]


def _told(named: Sequence[Named]) -> str:
    """What kind of score it goes by."""
    makers = {(one.source, one.scored) for one in named if not np.isnan(one.score)}
    kind = "none"
    if makers:
        whose = "the source's" if len({source for source, _ in makers}) == 1 else "the sources'"
        kind = f"{whose} own, of {' and '.join(sorted({scored for _, scored in makers}))}"
        kind += ", which are not comparable" if len(makers) > 1 else ""
        without = float(np.mean([np.isnan(one.score) for one in named]))
        kind += f"; {without:.1%} have none" if without else ""
    return kind + ("; several regions of a phrase by their own" if any(one.ranked for one in named) else "")


def _last(score: float) -> float:
    """By which the surest come first, and those without a score last."""
    return np.inf if np.isnan(score) else -score


@dataclass(frozen=True)
class Grounding:
    """Phrases of images whose ids are known. Of the truth's triplets each is looked for among what a row says of the
    same place in the same text, or else of the same words. If the truth has none, each phrase that a row has and that
    names a class of the truth's objects is held against all objects of that class."""

    truth: Said
    classes: Classes
    ids: Sequence[str]
    reads: ClassVar[tuple[str, ...]] = ("texts", "parses", "regions", "triplets")
    mains: ClassVar[tuple[str, ...]] = ("triplets",)
    region_kind: ClassVar[str | None] = None
    by: ClassVar[str] = "R@1 ANY"
    judging: ClassVar[str] = "R@1 ANY of the surest region that a source made for a phrase"
    notes: list[str] = field(default_factory=list)

    @cached_property
    def there(self) -> list[Named]:
        return triplets_of(self.truth)

    @cached_property
    def objects(self) -> dict[int, dict[str, list[Box]]]:
        """By image and class; only where there are no triplets."""
        regions = self.truth["regions"]
        codes, _, names = self.classes.named(self.truth)
        found: dict[int, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
        kept = np.flatnonzero(equal(regions["kind"], "object")).tolist()
        rows, boxes = rows_of(regions).tolist(), boxes_of(regions).tolist()
        for at in kept:
            if name := names[codes[at]]:
                found[rows[at]][name].append(boxes[at])
        if not found:
            raise ConfigError(
                f"--kind grounding: the truth of {len(self.ids)} images has neither phrases with boxes nor objects"
            )
        return found

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(label for own in self.objects.values() for label in own)

    def measure(self, found: Said, *, standing: bool) -> Measured:
        from florence2.evaluation.grounding import recall

        answers = triplets_of(found)
        result = recall(self._asked(answers) if self.there else self._named(answers, _Names(found), self.labels))
        how = (
            "phrases of the truth, looked for at the same place of the same text, else by the same words (case and a "
            "first article aside)"
            if self.there
            else "the row's own phrases that name a class of the truth's objects, with all objects of the class as "
            f"truth: rows have other phrases; {self.classes.protocol}"
        )
        numbers = {name: result.numbers[name] for name in ("R@1 ANY", "R@1 MERGED")}
        return Measured(numbers, result.counts, f"{result.protocol}. {how[0].upper()}{how[1:]}", _told(answers))

    def _asked(self, found: Sequence[Named]) -> list[Any]:
        from florence2.evaluation.grounding import Grounded

        answers = Answers(found)
        return [
            Grounded(one.boxes, answers.boxes(one), name=f"image {self.ids[one.row]}: {one.words[:80]}")
            for one in self.there
        ]

    def _named(self, found: Sequence[Named], names: _Names, labels: frozenset[str]) -> list[Any]:
        from florence2.evaluation.grounding import Grounded

        asked = []
        for one in found:
            label = next((name for name in map(self.classes.name, names.of(one)) if name in labels), None)
            if label is not None:
                truth = self.objects.get(one.row, {}).get(label, [])
                asked.append(Grounded(truth, one.boxes, name=f"image {self.ids[one.row]}: {one.words[:80]}"))
        return asked

    # Which are right

    @cached_property
    def strata(self) -> Mapping[str, Sequence[str]]:
        return _strata(self.there)

    def judge(self, found: Said) -> Judged | None:
        """None where each row has phrases of its own."""
        if not self.there:
            return None
        answers = Answers(triplets_of(found))
        return Judged(np.array([float(_hits(one.boxes, answers.boxes(one)[:1])) for one in self.there]))


@dataclass(frozen=True)
class Referring:
    """Expressions of images whose ids are known: what the truth says of one region alone."""

    truth: Said
    ids: Sequence[str]
    reads: ClassVar[tuple[str, ...]] = ("texts", "regions", "region_texts", "triplets")
    mains: ClassVar[tuple[str, ...]] = ("region_texts", "triplets")
    region_kind: ClassVar[str | None] = None
    by: ClassVar[str] = "accuracy at IoU 0.5"
    judging: ClassVar[str] = "accuracy at IoU 0.5 of the surest region that a source made for an expression"
    notes: list[str] = field(default_factory=list)

    @cached_property
    def there(self) -> list[Named]:
        bearers: dict[tuple[int, str], set[tuple[str, ...]]] = defaultdict(set)
        said: dict[tuple[int, str], Named] = {}
        for one in (*region_texts_of(self.truth), *triplets_of(self.truth)):
            bearers[one.key].add(one.ids)
            said.setdefault(one.key, one)
        single = [one for key, one in said.items() if len(bearers[key]) == 1 and len(one.ids) == 1]
        if not single:
            raise ConfigError(
                f"--kind referring: the truth of {len(self.ids)} images has no words that name one region alone: "
                "descriptions of regions, or phrases of texts"
            )
        if several := len(said) - len(single):
            self.notes.append(f"{several} expressions of the truth name several regions of an image: left out")
        return single

    def measure(self, found: Said, *, standing: bool) -> Measured:
        from florence2.evaluation.referring import referred_boxes

        named = [*region_texts_of(found), *triplets_of(found)]
        result = referred_boxes(
            [one.boxes[0] for one in self.there],
            self._found(named),
            [f"image {self.ids[one.row]}: {one.words[:80]}" for one in self.there],
        )
        how = "the answer is the surest region that the row gives the same words, case and a first article aside"
        return Measured(result.numbers, result.counts, f"{result.protocol}; {how}", _told(named))

    def _found(self, named: Sequence[Named]) -> list[Box | None]:
        answers = Answers(named)
        return [next(iter(answers.boxes(one)), None) for one in self.there]

    @cached_property
    def strata(self) -> Mapping[str, Sequence[str]]:
        return _strata(self.there)

    def judge(self, found: Said) -> Judged | None:
        named = [*region_texts_of(found), *triplets_of(found)]
        pairs = zip(self.there, self._found(named), strict=True)
        return Judged(np.array([float(_hits(one.boxes, [] if box is None else [box])) for one, box in pairs]))


class Answers:
    """Boxes that are said of words, the surest first."""

    def __init__(self, named: Sequence[Named]) -> None:
        self._by_words: dict[tuple[int, str], list[Named]] = defaultdict(list)
        self._by_place: dict[tuple[int, tuple[str, int, int]], list[Named]] = defaultdict(list)
        for one in sorted(named, key=lambda one: _last(one.score)):
            self._by_words[one.key].append(one)
            if one.place:
                self._by_place[one.row, one.place].append(one)

    def boxes(self, asked: Named) -> list[Box]:
        here = self._by_place.get((asked.row, asked.place), []) if asked.place else []
        return [box for one in here or self._by_words.get(asked.key, []) for box in one.boxes]


class _Names:
    """What the thing of a phrase may be called, by its parse if there is one, else by its last words."""

    def __init__(self, said: Said) -> None:
        parses, texts = said["parses"], said["texts"]
        at, words = places(rows_of(parses), parses["text_id"], texts), texts["text"].to_pylist()
        self._known: dict[tuple[int, str, int, int], dict[str, Any]] = {}
        for row, n, phrases in zip(parses["row"].to_pylist(), at.tolist(), parses["phrases"].to_pylist(), strict=True):
            for phrase in phrases if n >= 0 else ():
                self._known[row, words[n], phrase["start"], phrase["stop"]] = phrase

    def of(self, one: Named) -> list[str]:
        words = bare(one.words).split()
        last = [" ".join(words[at:]) for at in range(len(words))]
        phrase = self._known.get((one.row, *one.place)) if one.place else None
        if phrase is None:
            return last
        parts = [*phrase["modifiers"], phrase["head"]]
        return [*(" ".join(parts[at:]) for at in range(len(parts))), *last]


def _hits(truth: Sequence[Box], found: Sequence[Box]) -> bool:
    return bool(truth and found and (ious(np.array(found), np.array(truth)) >= IOU).any())


def ious(a: Any, b: Any) -> Any:
    """[n, m] of boxes [n, 4] and [m, 4]."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clip(min=0).prod(axis=2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    either = sizes[0][:, None] + sizes[1] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def _strata(named: Sequence[Named]) -> dict[str, Sequence[str]]:
    lengths: Ints = np.array([len(one.words.split()) for one in named])
    areas = np.array([max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in one.boxes) for one in named])
    return {
        "length": [next((name for most, name in LENGTHS if n <= most), "5 words and more") for n in lengths],
        "size": sizes_of(areas),
    }
