"""Texts by detail, how long they are, what they speak of, and what their phrases name; composed ones apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.flat import Flat
from engine.stats.columns import Sums, beside, places, rows_of, words
from engine.stats.histograms import tally
from engine.stats.published import MEASURES

OF = ("detail", "composed")


@dataclass
class TextCounts:
    """All by detail and whether the text was composed of regions. `linked` are texts with a triplet, `triplets` have
    the number of their `pairs` of a phrase and a region, and the words of the phrases over these pairs."""

    texts: Sums = field(default_factory=Sums)
    lengths: dict[tuple[str, bool], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    parses: Sums = field(default_factory=Sums)
    linked: Sums = field(default_factory=Sums)
    triplets: Sums = field(default_factory=Sums)

    def add(self, flat: Flat) -> None:
        texts = flat["texts"].select(["row", "id", *OF]).append_column("words", words(flat["texts"]["text"]))
        self.texts.add(texts, OF, ("words",), images=True)
        for key in self.texts:
            here = pc.and_(pc.equal(texts["detail"], key[0]), pc.equal(texts["composed"], key[1]))
            self.lengths[key].update(tally(texts["words"].filter(here)))
        self.parses.add(beside(flat["parses"], "text_id", texts, OF), OF, MEASURES)
        self._add_triplets(flat["triplets"], texts)

    def _add_triplets(self, triplets: pa.Table, texts: pa.Table) -> None:
        pairs = pc.list_value_length(triplets["region_ids"])
        triplets = triplets.append_column("pairs", pairs).filter(pc.greater(pairs, 0))
        triplets = triplets.append_column("words", pc.multiply(words(triplets["phrase"]), triplets["pairs"]))
        found = np.unique(places(rows_of(triplets), triplets["text_id"], texts))
        self.linked.add(texts.take(found[found >= 0]), OF, ("words",), images=True)
        columns = triplets.select(["row", "text_id", "pairs", "words"])
        self.triplets.add(beside(columns, "text_id", texts, OF), OF, ("pairs", "words"))
