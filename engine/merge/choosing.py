"""What is said of a region: its category, a description of it, or a noun phrase of that (Florence-2, section 4.1).

Who chooses is a part that can be exchanged: a contrastive model holds each of them against the region's pixels, as
Florence-1 does in the paper. Without one, `ByClass` goes by words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from engine.errors import ImageError
from engine.merge.draft import Draft
from engine.records import HUMAN, MERGE, Phrase, Region, RegionText
from engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A text that a region may have: `of` is the id of the region whose category it is, or of the description that it
    is or is part of. `names` are what the thing may be called that it is about, the longest first."""

    text: str
    kind: Literal["category", "description", "chunk"]
    of: str
    names: tuple[str, ...] = ()


Pixels: TypeAlias = Callable[[], object]  # the image, opened when it is asked for
PhrasesIn: TypeAlias = Callable[[str], Sequence[Phrase]]  # the noun phrases of a text, in its order


class Chooser(Protocol):
    """Chooses among the texts of a region. `setup` loads weights, once a process."""

    @property
    def name(self) -> str: ...

    def setup(self) -> None: ...

    def choose(self, region: Region, candidates: Sequence[Candidate], pixels: Pixels) -> Sequence[float]:
        """How well each candidate suits the region; only their order counts, and of equals the first is taken.

        `pixels` gives the image as uint8 [height, width, 3] RGB; boxes are in its pixels.
        """


WORTH = {"description": 3.0, "chunk": 2.0, "category": 1.0}


@dataclass(frozen=True)
class ByClass:
    """Goes by words: a description that is about the region's class is best, then a noun phrase that is, in one that is
    about something else ("a horse" of "a man on a horse"), then the class alone."""

    name: str = "by_class"
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def setup(self) -> None:
        """There is nothing to load."""

    def choose(self, region: Region, candidates: Sequence[Candidate], pixels: Pixels) -> list[float]:
        return [WORTH[candidate.kind] if self._is_about(region, candidate) else 0.0 for candidate in candidates]

    def _is_about(self, region: Region, candidate: Candidate) -> bool:
        named = {self.vocabulary.canonical(name) for name in candidate.names}
        return candidate.kind == "category" or region.label in named


def choose_region_texts(draft: Draft, chooser: Chooser, phrases_in: PhrasesIn, pixels: Pixels) -> None:
    """One text for each object that stands and has any: what is not chosen is superseded, a chunk is appended, and
    where the category says more than all that was written, nothing written stands."""
    standing = draft.standing()
    for region in sorted(standing.regions, key=lambda region: region.id):
        texts = [text for text in standing.region_texts if text.region_id == region.id]
        about = sorted(texts, key=lambda text: (draft.case.is_new(text), text.id))
        if region.kind != "object" or not region.label or not about or any(text.source == HUMAN for text in about):
            continue
        candidates = list(candidates_of(region, about, phrases_in))
        try:
            worth = chooser.choose(region, candidates, pixels)
        except ImageError:  # it is gone by now: what was said of it stays
            return
        best = max(range(len(candidates)), key=lambda n: (worth[n], -n))
        _take(draft, region, about, candidates[best], float(worth[best]))


def candidates_of(region: Region, about: Sequence[RegionText], phrases_in: PhrasesIn) -> Iterator[Candidate]:
    """Each text once; what is written first."""
    seen: set[str] = set()
    chunks: list[Candidate] = []
    for text in about:
        phrases = phrases_in(text.text)
        if text.text not in seen:
            seen.add(text.text)
            yield Candidate(text.text, "description", text.id, phrases[0].names(text.text) if phrases else ())
        for phrase in phrases:
            words = text.text[phrase.start : phrase.stop]
            chunks.append(Candidate(words, "chunk", text.id, phrase.names(text.text)))
    for chunk in chunks:
        if chunk.text not in seen:
            seen.add(chunk.text)
            yield chunk
    yield Candidate(region.label or "", "category", region.id, (region.label or "",))


def _take(draft: Draft, region: Region, about: Sequence[RegionText], best: Candidate, worth: float) -> None:
    taken = best.of
    if best.kind == "chunk":
        chunk = RegionText(
            id=draft.id(), source=MERGE, derived_from=(best.of, region.id), region_id=region.id, text=best.text
        )
        draft.make(chunk, "chosen", worth)
        taken = chunk.id
    for text in about:
        if text.id == taken:
            draft.choose(text, worth)
        else:
            draft.overrule(text, f"{best.kind}_chosen", taken)
