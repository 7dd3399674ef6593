"""Captions against what people say of the same images: CIDEr-D and BLEU, as pycocoevalcap has them, without its Java.

METEOR and SPICE, which need Java, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from florence2.errors import Florence2Error
from florence2.evaluation.ptb import tokenised
from florence2.evaluation.result import Numbers, Result

Id = TypeVar("Id", int, str)
LONGEST = 4  # words of an n-gram
PROTOCOL = (
    "CIDEr-D (0 to 10; papers print it times 100) and BLEU-1 to BLEU-4 (closest reference length, over all images "
    "together) by pycocoevalcap's scorers; tokens like the PTB tokenizer's, lower case, without punctuation; document "
    "frequencies of these images' references; no answer counts as an empty one; METEOR and SPICE (Java) are left out"
)


def caption_scores(references: Mapping[Id, Sequence[str]], captions: Mapping[Id, str]) -> Result:
    """CIDEr-D and BLEU-1..4 of one caption an image, by image id; an image without a caption scores 0.

    Images without references say nothing, and neither do captions of other images: both are counted.
    CIDEr-D is None for fewer than two images: its weights are logarithms of document frequencies, all 0 then.
    """
    for id, texts in references.items():
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise Florence2Error(f"image {id}: expected a list of texts as references, got {texts!r:.200}")
    images = [id for id, texts in references.items() if texts]
    pairs = [(tokenised(captions.get(id, "")), [tokenised(text) for text in references[id]]) for id in images]
    return Result(
        {"CIDEr-D": cider(pairs), **bleu(pairs)},
        {
            "images": len(images),
            "images without references": len(references) - len(images),
            "images without caption": sum(not captions.get(id, "").strip() for id in images),
            "captions without image": sum(not references.get(id) for id in captions),
        },
        PROTOCOL,
    )


Pairs = Sequence[tuple[str, list[str]]]  # tokens with spaces between: a caption and its references


def cider(pairs: Pairs) -> float | None:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if len(pairs) < 2:
        return None
    if not any(text for _, references in pairs for text in references):
        return 0.0  # the scorer takes the largest of no document frequencies
    scorer = CiderScorer(n=LONGEST, sigma=6.0)
    for pair in pairs:
        scorer += pair
    return float(scorer.compute_score()[0])


def bleu(pairs: Pairs) -> Numbers:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    if not pairs:
        return {f"BLEU-{n}": None for n in range(1, LONGEST + 1)}
    scorer = BleuScorer(n=LONGEST)
    for pair in pairs:
        scorer += pair
    overall, _ = scorer.compute_score(option="closest", verbose=0)
    return {f"BLEU-{n}": float(value) for n, value in enumerate(overall, 1)}
