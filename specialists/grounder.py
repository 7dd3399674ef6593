"""The grounder: which regions the noun phrases of a text name. Triplets of text, phrase and regions.

It has no weights: it goes by words. A phrase names the regions whose label is its noun, or a synonym of it by the
vocabulary, as many as it says ("two dogs"); where there are more, its adjectives and positions choose, and if they
leave a doubt nothing is linked. A phrase that is the core of a longer expression ("a dog" in "a dog on a leash") gives
a triplet for both, as GrIT has it (Kosmos-2, section 2.1). Scores are null: words know none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias

from engine.protocols import Sample
from engine.records import Parse, Phrase, Record, Region, Text, Triplet
from engine.versions import digest_of
from engine.vocabulary import Vocabulary
from specialists import appearance, distinct, naming, reference, singling
from specialists.naming import meant, singular
from specialists.reference import is_definite, refers
from specialists.singling import View, single_out

CODE = (appearance.__file__, singling.__file__, distinct.__file__, naming.__file__, reference.__file__)
Link: TypeAlias = tuple[Phrase, Sequence[Region]]
LEAST_QUOTED = 3  # words
QUOTED = re.compile(r'"([^"\n]{1,200})"|“([^”\n]{1,200})”')


@dataclass
class Grounder:
    """Links the noun phrases of texts, and what they quote, to regions by the words for them."""

    name: str = "grounder"
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    licence: ClassVar[str] = "Apache-2.0"

    @property
    def version(self) -> str:
        return digest_of(__name__, *map(Path, CODE), packages=("inflect",))

    def setup(self) -> None:
        singular("cups")  # loads the rules

    def annotate(self, batch: Sequence[Sample]) -> list[list[Triplet]]:
        return [list(self._triplets(sample)) for sample in batch]

    def _triplets(self, sample: Sample) -> Iterator[Triplet]:
        ids, standing = sample.record.ids(self.name), sample.standing
        parses = {parse.text_id: parse for parse in standing.parses}
        for text in standing.texts:
            links = [*self._named(text, parses.get(text.id), sample), *_quoted(text, standing)]
            for (start, stop), regions in sorted(dict(links).items(), key=lambda link: link[0]):
                yield Triplet(
                    id=next(ids),
                    source=self.name,
                    derived_from=(text.id,),
                    text_id=text.id,
                    start=start,
                    stop=stop,
                    region_ids=tuple(region.id for region in regions),
                )

    def _named(
        self, text: Text, parse: Parse | None, sample: Sample
    ) -> Iterator[tuple[tuple[int, int], Sequence[Region]]]:
        """Spans of the text and what they name: phrases, and the expressions that they grow to."""
        view, found = View(sample.image, sample.standing), []
        for phrase in parse.phrases if parse else ():
            if refers(phrase, text.text):
                candidates = self._candidates(text, phrase, sample.standing)
                found.append((phrase, single_out(candidates, phrase, text, view)))
        for phrase, regions in _undisputed(found, text.text):
            yield (phrase.start, phrase.stop), regions
            yield (phrase.expression_start, phrase.expression_stop), regions

    def _candidates(self, text: Text, phrase: Phrase, record: Record) -> list[Region]:
        """The objects that the phrase's words may mean; of those that the text was made from, if it was."""
        objects = [region for region in distinct.distinct(record.regions) if region.kind == "object" and region.label]
        made_from = set(text.derived_from)
        named = [region for region in objects if region.id in made_from] or objects
        return meant(named, phrase, text.text, self.vocabulary)


def _undisputed(found: Sequence[Link], text: str) -> Iterator[Link]:
    """Without phrases that introduce, each, what is one thing: "a man and a woman" are not one person found."""
    introduced = Counter(region.id for phrase, regions in found if not is_definite(phrase, text) for region in regions)
    for phrase, regions in found:
        disputed = not is_definite(phrase, text) and any(introduced[region.id] > 1 for region in regions)
        if regions and not disputed:
            yield phrase, regions


def _quoted(text: Text, record: Record) -> Iterator[tuple[tuple[int, int], Sequence[Region]]]:
    """What the text quotes, and the text regions that say it."""
    for match in QUOTED.finditer(text.text):
        quotation = match[match.lastindex or 0]
        read = [r for r in record.regions if r.kind == "text" and r.text and _quotes(quotation, r.text)]
        if read:
            yield match.span(match.lastindex or 0), read


def _quotes(quotation: str, text: str) -> bool:
    """Whether a text is quoted, whole or in its first words, of which there must be LEAST_QUOTED then."""
    quoted, said = quotation.casefold().split(), text.casefold().split()
    return quoted == said or (len(quoted) >= LEAST_QUOTED and said[: len(quoted)] == quoted)
