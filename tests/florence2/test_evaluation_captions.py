"""CIDEr-D and BLEU against pycocoevalcap's own path, and words against what its Java tokenizer says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from florence2 import Florence2Error
from florence2.evaluation.captions import caption_scores
from florence2.evaluation.ptb import PUNCTUATION, tokenised, tokens

GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "ptb.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "words"), GOLDEN["same"])
def test_words_are_the_ptb_tokenizers(text: str, words: str) -> None:
    assert tokenised(text) == words


def test_known_differences_are_few() -> None:
    """What differs is listed as such, and is what it says that it is."""
    assert not [text for text, words in GOLDEN["differs"] if tokenised(text) == words]
    assert len(GOLDEN["differs"]) / len(GOLDEN["same"]) < 0.02


@given(st.text(max_size=80))
def test_any_text_has_words(text: str) -> None:
    words = tokenised(text)
    assert words == " ".join(words.split())
    assert not set(words.split()) & {"", *PUNCTUATION} or any(" " in token for token in tokens(text))


@given(st.lists(st.text("abcdefghijklm", min_size=1), max_size=9).map(" ".join))
def test_plain_words_stay(text: str) -> None:
    assert tokenised(text.upper()) == text


REFERENCES = {
    1: ["A dog sits on the grass.", "The brown dog is sitting on green grass!"],
    2: ["Two people don't ride bikes.", "Two people near their bikes", "A pair of cyclists"],
    3: ["A cup of coffee on a table"],
    7: ["It's a cat, asleep."],
}
CAPTIONS = {
    1: "a brown dog is sitting on the grass",
    2: "Two people ride bikes.",
    3: "a cup",
    7: "A train at a station",
}


def test_equals_pycocoevalcap() -> None:
    """As its COCOEvalCap feeds its scorers: tokens with spaces between, in lists by image."""
    truth = {id: [tokenised(text) for text in texts] for id, texts in REFERENCES.items()}
    said = {id: [tokenised(text)] for id, text in CAPTIONS.items()}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    cider, _ = Cider().compute_score(truth, said)
    result = caption_scores(REFERENCES, CAPTIONS)
    assert result.numbers == pytest.approx(
        {"CIDEr-D": cider, **{f"BLEU-{n}": value for n, value in enumerate(bleu, 1)}}
    )
    assert cider > 0.5 and bleu[3] > 0.01, "or nothing is compared"
    assert "METEOR and SPICE" in result.protocol


def test_bleu_by_hand() -> None:
    """Papineni et al.: clipped counts over the words, times a penalty for brevity."""
    result = caption_scores({1: ["the cat is on the mat"], 2: ["there is a cat"]}, {1: "the the the cat", 2: "a cat"})
    right, said, there = 2 + 1 + 2, 4 + 2, 6 + 4  # "the" counts twice
    penalty = math.exp(1 - there / said)
    assert result.numbers["BLEU-1"] == pytest.approx(right / said * penalty)
    pairs = 1 + 1  # "the cat", "a cat" of 3 + 1
    assert result.numbers["BLEU-2"] == pytest.approx(math.sqrt(right / said * pairs / 4) * penalty)


def test_cider_by_hand() -> None:
    """A caption that equals its only reference has 10; one of other words 0; the mean over the images counts."""
    references = {1: ["a red fox runs"], 2: ["two boats sail home"], 3: ["some cheese lies there"]}
    result = caption_scores(references, {1: "A red fox runs.", 2: "nothing of it", 3: "Some cheese"})
    log3 = math.log(3)
    # Words and pairs: 2 of 4 and 1 of 3 equal ones; a Gaussian penalty for 2 words less (counted in pairs, as there).
    similarity = (2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3)) / 4 * math.exp(-(2**2) / (2 * 6**2))
    assert log3 > 0
    assert result.numbers["CIDEr-D"] == pytest.approx((10 + 0 + 10 * similarity) / 3)


def test_images_without_a_caption_or_references() -> None:
    whole = caption_scores(REFERENCES, CAPTIONS)
    fewer = caption_scores(REFERENCES | {9: []}, {id: CAPTIONS[id] for id in (1, 2, 3)} | {9: "x", 10: "y"})
    assert fewer.numbers["CIDEr-D"] == pytest.approx(whole.numbers["CIDEr-D"]), "image 7 had 0, and has it still"
    assert fewer.counts == {
        "images": 4,
        "images without references": 1,
        "images without caption": 1,
        "captions without image": 2,
    }
    one = caption_scores({1: REFERENCES[1]}, CAPTIONS)
    assert one.numbers["CIDEr-D"] is None and one.numbers["BLEU-1"] is not None
    nothing = caption_scores({}, CAPTIONS)
    assert set(nothing.numbers.values()) == {None}
    silent = caption_scores({1: ["..."], 2: ["!"]}, {1: "a dog"})
    assert silent.numbers["CIDEr-D"] == 0 and silent.numbers["BLEU-1"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", ["a dog", [1], [None]])
def test_references_are_lists_of_texts(wrong: object) -> None:
    with pytest.raises(Florence2Error, match="image 5: expected a list of texts"):
        caption_scores({5: wrong}, {})  # type: ignore[dict-item]
