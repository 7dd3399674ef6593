"""Which annotations leave, and under which label: by kind, source, score, vocabulary and label map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.flat import Bools, Flat, Ints
from engine.vocabulary import Vocabulary

# Kinds of annotations as a person chooses among them; regions are of three kinds.
REGIONS = {"objects": "object", "lines": "text", "proposals": "proposal"}
KINDS = ("texts", *REGIONS, "region_texts", "masks", "triplets")
ANY = "*"  # of the sources that have no least score of their own


@dataclass(frozen=True)
class Selection:
    """What is chosen of what stands. `sources` None are all. `min_score` is per source, or ANY: regions with less fall,
    those without a score stay, as a missing score is no low one. Labels are the vocabulary's words for the raw ones;
    with a `label_map` they are its classes, and objects of none of them are left out."""

    kinds: frozenset[str]
    sources: frozenset[str] | None = None
    min_score: Mapping[str, float] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    label_map: Vocabulary | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What is to be read. Regions always are: they tell which texts are composed."""
        return ("regions", *(name for name in ("texts", "region_texts", "masks", "triplets") if name in self.kinds))

    def of(self, flat: Flat) -> tuple[Flat, Counter[str]]:
        """What is chosen, and of what is left out how much, by the reason: what hangs on it, too."""
        left_out: Counter[str] = Counter()
        flat = self._of_kinds(flat)
        for name in ("texts", "regions", "region_texts", "masks", "triplets"):
            if self.sources is not None:
                before = _size(flat)
                flat = flat.without(name, _is_in(flat[name]["source"], self.sources))
                left_out["other_source"] += before - _size(flat)
        flat = self._named(flat)
        for reason, kept_of in (
            ("below_min_score", self._scored),
            ("ignored", self._wanted),
            ("unmapped", self._mapped),
        ):
            before = _size(flat)
            flat = flat.without("regions", kept_of(flat["regions"]))
            left_out[reason] += before - _size(flat)
        return flat, +left_out

    def _of_kinds(self, flat: Flat) -> Flat:
        kinds = [kind for name, kind in REGIONS.items() if name in self.kinds]
        flat = flat.without("regions", _is_in(flat["regions"]["kind"], kinds))
        unwanted = {name: flat[name].slice(0, 0) for name in flat.annotations if name not in (*self.kinds, "regions")}
        return Flat(flat.images, {**flat.annotations, **unwanted})

    def _named(self, flat: Flat) -> Flat:
        """Regions under their canonical labels, or those of the label map; "" where that has none."""
        regions = flat["regions"]
        words = pc.coalesce(regions["raw_label"], regions["label"]).combine_chunks().dictionary_encode()
        named = [self.label(word) for word in words.dictionary.to_pylist()]
        labels = pa.DictionaryArray.from_arrays(words.indices, pa.array(named, pa.string())).cast(pa.string())
        at = regions.column_names.index("label")
        return Flat(flat.images, {**flat.annotations, "regions": regions.set_column(at, "label", labels)})

    def label(self, word: str) -> str:
        """Under which objects of a word leave; "" for those of which none does."""
        label = self.vocabulary.canonical(word)
        if self.label_map is None or label in self.vocabulary.ignore:
            return label
        known = next((one for one in (label, word) if self.label_map.knows(one)), None)
        return "" if known is None else self.label_map.canonical(known)

    def _scored(self, regions: pa.Table) -> Bools:
        least = [self.min_score.get(source, self.min_score.get(ANY, -np.inf)) for source in _words(regions["source"])]
        scores = regions["score"].to_numpy()  # nulls are NaN, and less than nothing
        kept: Bools = ~(scores < np.array(least, float)[_codes(regions["source"])])
        return kept

    def _wanted(self, regions: pa.Table) -> Bools:
        return ~_is_in(regions["label"], self.vocabulary.ignore)

    def _mapped(self, regions: pa.Table) -> Bools:
        if self.label_map is None:
            return np.ones(len(regions), bool)
        known = pc.fill_null(pc.not_equal(regions["label"], ""), False)
        others = pc.not_equal(regions["kind"], "object")
        kept: Bools = pc.or_(known, others).to_numpy()
        return kept


def _size(flat: Flat) -> int:
    """How many annotations there are; parses are of their texts."""
    return sum(len(table) for name, table in flat.annotations.items() if name != "parses")


def _is_in(column: pa.ChunkedArray, words: Iterable[str]) -> Bools:
    kept: Bools = pc.is_in(column, pa.array(list(words), pa.string())).to_numpy()
    return kept


def _words(column: pa.ChunkedArray) -> list[str]:
    words: list[str] = column.combine_chunks().dictionary_encode().dictionary.to_pylist()
    return words


def _codes(column: pa.ChunkedArray) -> Ints:
    codes: Ints = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes
