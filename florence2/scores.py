"""How sure the model is of what it wrote, read off its own probabilities; what has no definition gets no score.

Microsoft's score of a box, exp(mean log p) of its loc tokens, falls with the size of the box: where the error of an
edge is normal with a standard deviation of 5 % of the side, the best bin has p = 0.26 at a side of 30 bins and 0.009 at
900, though both boxes are equally good. It is kept as `raw`. Ours asks how probable it is that each edge is within 10 %
of the side (2 standard deviations there: 0.95).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp

import torch
from torch import Tensor

from florence2.codec import Annotation, Found
from florence2.errors import Florence2Error
from florence2.locations import BINS

TOLERANCE = 0.1  # of the side, to either side of an edge


def scored(found: Sequence[Found], token_logp: Tensor, loc_logp: Tensor) -> list[Annotation]:
    """The annotations of an answer with their scores.

    token_logp: [T] log p of each token of the answer, at the positions that `pieces_of_ids` counted.
    loc_logp: [T, 1000] log p of every loc there, under the softmax over the whole vocabulary (it sums to 1 or less).
    Scores are in 0..1. `score` is the place's (None for polygons: no definition is published), `raw` Microsoft's,
    `label_score` the label's, the same for all that share it. None where there are no such tokens: a label that came
    from the prompt; an answer that came from a string.
    """
    if token_logp.ndim != 1 or loc_logp.shape != (len(token_logp), BINS):
        shapes = f"{list(token_logp.shape)} and {list(loc_logp.shape)}"
        raise Florence2Error(f"expected token_logp [T] and loc_logp [T, {BINS}] of one answer, got {shapes}")
    token_logp, loc_logp = token_logp.detach().cpu().double(), loc_logp.detach().cpu()
    return [
        replace(
            one.annotation,
            score=score,
            raw=likelihood(token_logp[list(one.loc_tokens)]),
            label_score=likelihood(token_logp[list(one.label_tokens)]),
        )
        for one, score in zip(found, place_scores(found, loc_logp), strict=True)
    ]


def likelihood(logp: Tensor) -> float | None:
    """exp(mean log p) of tokens [n], None if there are none. Of all tokens of an answer it is the answer's score."""
    return min(exp(float(logp.double().mean())), 1.0) if len(logp) else None


def place_scores(found: Sequence[Found], loc_logp: Tensor) -> list[float | None]:
    """Product, over the edges of a box or the coordinates of a quad, of the probability that it is within TOLERANCE."""
    have = [one.annotation.polygons is None and len(one.loc_tokens) > 0 for one in found]
    places = [one for one, has in zip(found, have, strict=True) if has]
    at = [token for one in places for token in one.loc_tokens]
    chosen = torch.tensor([bin for one in places for bin in one.bins], dtype=torch.long)
    sides = torch.tensor([side for one in places for side in sides_of(one.bins)], dtype=torch.long)
    mass = within(chosen, sides, loc_logp[at].double().exp())  # of all places at once
    scores = iter([float(part.prod()) for part in mass.split([len(one.bins) for one in places])])
    return [next(scores) if has else None for has in have]


def sides_of(bins: Sequence[int]) -> list[int]:
    """For each of x, y, x, y, ... the side of the place along its axis, in bins."""
    xs, ys = bins[0::2], bins[1::2]
    return [max(xs) - min(xs), max(ys) - min(ys)] * len(xs)


def within(chosen: Tensor, sides: Tensor, p: Tensor) -> Tensor:
    """Probability mass [n] of what is within TOLERANCE of its side [n, in bins] from the middle of each chosen bin [n].

    p: [n, 1000]. A bin's mass is spread evenly over the bin, so that of the bins at the two ends a part counts; the
    chosen bin counts whole, also where the side is 0. Whole bins alone would make the score jump with the side: with
    the errors above 0.73 an edge at 9 bins and 0.997 at 10, instead of 0.84 at both.
    """
    distance = (torch.arange(BINS) - chosen[:, None]).abs()
    reach = (TOLERANCE * sides).clamp(min=0.5)
    share = (reach[:, None] + 0.5 - distance).clamp(0, 1)
    return (share * p).sum(-1).clamp(max=1)
