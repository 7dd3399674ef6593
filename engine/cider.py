"""CIDEr-D: how much a caption says of what people say of an image, and of that more what they rarely say.

Vedantam, Zitnick and Parikh, CIDEr (CVPR 2015), with the clipping and the penalty for length of its section 5.2; as
COCO's evaluation computes it. Document frequencies are those of the references of all images together.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LONGEST = 4  # words of an n-gram
DEVIATION = 6.0  # words, of the penalty for another length
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")

Ngram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """Casefolded, without punctuation; "sheep's" and "black-and-white" are one word."""
    return WORD.findall(text.casefold())


@dataclass(frozen=True)
class Cider:
    """Scores captions of images whose references, [image][reference], are known, by the `words` that a text has."""

    references: Sequence[Sequence[str]]
    words: Callable[[str], list[str]] = words_of

    def score(self, image: int, caption: str) -> float:
        """0 to 10; 10 for a caption that equals the only reference word for word."""
        words = self.words(caption)
        own, length = self._vectors(_ngrams(words)), len(words)
        theirs = self._of_image[image]
        if not theirs:
            return 0.0
        total = np.zeros(LONGEST)
        for vectors, other_length in theirs:
            penalty = math.exp(-((length - other_length) ** 2) / (2 * DEVIATION**2))
            total += [_similarity(a, b) * penalty for a, b in zip(own, vectors, strict=True)]
        return float(10 * total.mean() / len(theirs))

    @cached_property
    def _frequencies(self) -> Counter[Ngram]:
        """In how many images' references an n-gram is."""
        found: Counter[Ngram] = Counter()
        for references in self.references:
            found.update({ngram for reference in references for ngram in _ngrams(self.words(reference))})
        return found

    @cached_property
    def _of_image(self) -> list[list[tuple[list[dict[Ngram, float]], int]]]:
        return [
            [(self._vectors(_ngrams(words)), len(words)) for words in map(self.words, references)]
            for references in self.references
        ]

    def _vectors(self, ngrams: Counter[Ngram]) -> list[dict[Ngram, float]]:
        """Of n-grams of each length their count times the logarithm of how rare they are."""
        images = math.log(max(len(self.references), 1))
        vectors: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
        for ngram, count in ngrams.items():
            vectors[len(ngram) - 1][ngram] = count * (images - math.log(max(1.0, self._frequencies[ngram])))
        return vectors


def _ngrams(words: Sequence[str]) -> Counter[Ngram]:
    return Counter(
        tuple(words[at : at + length]) for length in range(1, LONGEST + 1) for at in range(len(words) - length + 1)
    )


def _similarity(own: dict[Ngram, float], other: dict[Ngram, float]) -> float:
    """The cosine of two vectors, in which a caption gains nothing by saying a thing oftener than the reference."""
    norms = math.sqrt(sum(v * v for v in own.values())) * math.sqrt(sum(v * v for v in other.values()))
    product = sum(min(value, other[ngram]) * other[ngram] for ngram, value in own.items() if ngram in other)
    return product / norms if norms else 0.0
