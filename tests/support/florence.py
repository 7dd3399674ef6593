"""Small tokenizers and processors for the tests of florence2, made here: no released file is needed."""

from __future__ import annotations

import json
from functools import cache
from itertools import chain, product

from tokenizers.pre_tokenizers import ByteLevel

from florence2.processor import Processor, image_tokens
from florence2.tasks import Task
from florence2.tokens import BOS, EOS, MASK, PAD, UNK, Tokens

SENTENCES = (
    *(task.sentence for task in Task),
    "A small dog sits on green grass beside a red car.",
    "Two people ride bicycles along the river; a third one walks.",
    "a cup of coffee, a spoon and a plate on a wooden table",
    "Un garçon près d'une fenêtre. 窓のそばの犬。 Größe: 12 cm",
)


@cache
def small_tokens() -> Tokens:
    """476 entries of a BPE, and the 1024 specials: 1500 in all."""
    return Tokens.train(SENTENCES, 1500)


@cache
def bart_sized_tokens() -> Tokens:
    """Laid out as BART's, so that the specials have their published ids (<mask> 50264, <od> 50265, <and> 51288)."""
    return Tokens(*bart_vocabulary())


@cache
def bart_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """4 control tokens, 256 bytes, 50,000 merges, BART's 4 leftovers and <mask>: 50265 entries.

    The merges are those of `small_tokens` and then, made up, pairs of bytes.
    """
    letters = sorted(ByteLevel.alphabet(), reverse=True)
    learnt = json.loads(small_tokens().to_json())["model"]["merges"]
    vocab = {token: id for id, token in enumerate((BOS, PAD, EOS, UNK, *letters))}
    merges: list[tuple[str, str]] = []
    for left, right in chain(learnt, product(letters, letters)):
        if len(vocab) == 50_260:
            break
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append((left, right))
    for token in ("<|endoftext|>", "madeupword0000", "madeupword0001", "madeupword0002", MASK):
        vocab[token] = len(vocab)
    return vocab, merges


def small_processor(size: tuple[int, int] = (96, 96), stride: int = 32, positions: int | None = None) -> Processor:
    """For a model of `stride` and images of `size` (height, width); `small_tokens`."""
    return Processor(small_tokens(), size=size, image_tokens=image_tokens(size, stride), positions=positions)
