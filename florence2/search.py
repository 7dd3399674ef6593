"""Beam search: the most likely answers, token for token those of transformers' generate, several times faster.

What makes it fast is in cache.py; here: finished items leave the batch, the logits of positions that are given are
never computed, and each beam offers its few best tokens instead of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from florence2.cache import Cache
from florence2.config import fits
from florence2.errors import Florence2Error
from florence2.grammar import Grammar
from florence2.model import Florence2, Memory

LARGEST = 2**31 - 1  # of any number of things
DEAD = -1.0e9  # the score of a beam that does not count
ALIVE = DEAD / 2  # those that count are above this


@dataclass(frozen=True)
class Decoding:
    """How answers are searched for. The defaults are the released models'; fields are named as in transformers.

    `no_repeat_ngram_size`: no n tokens in a row come twice (0: they may), which also forbids repeats in lists of boxes.
    `eos_penalty`: nats taken from the log-probability of ending: longer lists of objects.
    These two are one value for all items, or one for each.
    """

    num_beams: int = 3
    max_new_tokens: int = 1024
    no_repeat_ngram_size: int | Sequence[int] = 3
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = True
    forced_bos: bool = True
    forced_eos: bool = True
    eos_penalty: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        for name, least in (("num_beams", 1), ("max_new_tokens", 2)):  # two: <s> and </s>
            if not fits(value := getattr(self, name), int, least, LARGEST):
                raise Florence2Error(f"expected {name}, a whole number >= {least}; got {value!r}")
        if not all(fits(size, int, 0, LARGEST) for size in several(self.no_repeat_ngram_size)):
            raise Florence2Error(f"expected no_repeat_ngram_size >= 0; got {self.no_repeat_ngram_size!r}")
        for name, most in (("length_penalty", 100), ("eos_penalty", 1_000_000)):  # 1024 ** 100 is a float; -1e6 no DEAD
            values = several(getattr(self, name))
            if not all(fits(value, float, -most, most) for value in values):
                raise Florence2Error(f"expected {name}, a number within +-{most}; got {getattr(self, name)!r}")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise Florence2Error(f"expected early_stopping true, false or 'never'; got {self.early_stopping!r}")


def several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class Hypothesis:
    """An answer. `token_ids` begin with <s> and end with </s>, where these are forced or found.

    `score` ranks beams: the sum of log-probabilities over length ** length_penalty, as transformers' sequences_scores.
    `token_logp` [T] and `loc_logp` [T, 1000] are the model's own, before any rule took tokens away or forced one; those
    of a forced <s> were never computed: 0 and -inf.
    """

    token_ids: list[int]
    score: float
    token_logp: Tensor
    loc_logp: Tensor | None
    ended: bool  # by itself, not by the limit


@torch.inference_mode()
def search(
    model: Florence2,
    memory: Memory,
    decoding: Decoding = Decoding(),
    *,
    unused: Sequence[int] = (),
    locs: int | None = None,
    grammar: Grammar | None = None,
) -> list[Hypothesis]:
    """The best answer of each item in memory.

    `unused`: ids that mean nothing, rows that pad the vocabulary. `locs`: the id of <loc_0>; with it, hypotheses tell
    the probabilities of all bins. `grammar`: which token may come when; it has a start state for each item.
    """
    running = Search(model, memory, decoding, unused, locs, grammar)
    while running.items:
        running.step()
    return [running.answer(item) for item in range(len(memory.states))]


@dataclass
class Finished:
    """A hypothesis whose tokens are known, and the beams that wrote them, by which its bins are found."""

    score: float
    token_ids: Tensor
    token_logp: Tensor
    ancestors: Tensor
    ended: bool


class Search:
    def __init__(
        self,
        model: Florence2,
        memory: Memory,
        decoding: Decoding,
        unused: Sequence[int],
        locs: int | None,
        grammar: Grammar | None,
    ) -> None:
        self.text, self.decoding = model.config.text, decoding
        self.locs, self.grammar = locs, grammar
        count, beams, device = len(memory.states), decoding.num_beams, memory.states.device
        if 2 * beams > self.text.vocab_size:
            raise Florence2Error(
                f"expected num_beams of at most half the vocabulary of {self.text.vocab_size}; got {beams}"
            )
        self.limit = min(decoding.max_new_tokens, self.text.max_position_embeddings)
        self.unused = torch.tensor(unused, dtype=torch.long, device=device)
        self.cache = Cache(model, memory, beams)
        self.items = list(range(count))  # those that go on; rows of the tensors below
        self.finished: list[list[Finished]] = [[] for _ in range(count)]
        self.bins: list[tuple[list[int], Tensor]] = []  # by time: the items, log p of the bins [items, beams, 1000]
        self.tokens = torch.full((count, beams, 1), self.text.decoder_start_token_id, device=device)
        self.logp = torch.zeros(count, beams, 0, device=device)
        self.scores = torch.zeros(count, beams, device=device)
        self.scores[:, 1:] = DEAD  # all beams are the same at first: one of them counts
        self.ngrams = each(decoding.no_repeat_ngram_size, count, device)
        self.penalties = each(decoding.eos_penalty, count, device)
        self.states = grammar.start[:, None].expand(-1, beams).contiguous() if grammar else None

    def step(self) -> None:
        """One token more for every beam."""
        hidden = self.cache.step(self.tokens[:, :, -1])
        written = self.tokens.shape[2] - 1
        if written == 0 and self.decoding.forced_bos:
            return self.begin()
        logits = self.cache.logits(hidden.flatten(0, 1))
        logits[:, self.unused] = -torch.inf
        total = logits.logsumexp(-1)
        ending = (logits[:, self.text.eos_token_id] - total).view(len(self.items), -1)
        if self.locs is not None:
            bins = logits[:, self.locs : self.locs + 1000] - total[:, None]
            self.bins.append((self.items, bins.view(len(self.items), -1, 1000)))
        last = written + 1 == self.limit
        self.restrict(logits, total, self.limit - written, last)
        self.extend(*self.candidates(logits, total), ending, last)

    def begin(self) -> None:
        """<s> is given: nothing to choose."""
        given = torch.full_like(self.tokens[:, :, -1:], self.text.bos_token_id)
        self.tokens = torch.cat([self.tokens, given], dim=-1)
        self.logp = torch.cat([self.logp, torch.zeros_like(self.scores)[..., None]], dim=-1)
        if self.locs is not None:
            self.bins.append((self.items, self.scores.new_full((*self.scores.shape, 1000), -torch.inf)))

    def restrict(self, logits: Tensor, total: Tensor, left: int, last: bool) -> None:
        """Takes away what may not come, in place [items * beams, vocabulary]. A logit of `total` is probability 1."""
        eos = self.text.eos_token_id
        if last and self.decoding.forced_eos:
            logits.fill_(-torch.inf)
            logits[:, eos] = total
            return
        beams = self.scores.shape[1]
        logits[:, eos] -= self.penalties.repeat_interleave(beams)
        if self.grammar is not None and self.states is not None:
            logits.masked_fill_(~self.grammar.allowed(self.states.flatten(), left), -torch.inf)
        forbid_repeats(logits, self.tokens.flatten(0, 1), self.ngrams.repeat_interleave(beams))

    def candidates(self, logits: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The 2 * beams best continuations of each item: scores, tokens, the beams they continue, log p of the token.

        Twice as many as beams, since up to half of them can end.
        """
        items, beams = self.scores.shape
        best, tokens = logits.topk(2 * beams)  # of each beam: no other token of it can be among the item's best
        logp = (best - total[:, None]).view(items, beams, -1)
        scores, order = (logp + self.scores[..., None]).flatten(1).topk(2 * beams)
        return scores, tokens.view(items, -1).gather(1, order), order // (2 * beams), logp.flatten(1).gather(1, order)

    def extend(self, scores: Tensor, tokens: Tensor, parents: Tensor, logp: Tensor, ending: Tensor, last: bool) -> None:
        """Candidates that end are answers; the best of the others go on."""
        ends = tokens == self.text.eos_token_id
        logp = torch.where(ends, ending.gather(1, parents), logp)  # not what penalty or force made of it
        self.finish(scores, tokens, parents, logp, ends, last)
        ends = ends | last
        self.scores, chosen = (scores + DEAD * ends).topk(self.scores.shape[1])
        tokens, parents, logp = (x.gather(1, chosen) for x in (tokens, parents, logp))
        self.tokens = torch.cat([descend(self.tokens, parents), tokens[..., None]], dim=-1)
        self.logp = torch.cat([descend(self.logp, parents), logp[..., None]], dim=-1)
        self.cache.follow(parents)
        if self.grammar is not None and self.states is not None:
            states = self.states.gather(1, parents)
            self.states = self.grammar.advance(states.flatten(), tokens.flatten()).view_as(states)
        best = self.scores[:, 0].tolist()
        self.keep([row for row, item in enumerate(self.items) if not last and self.goes_on(item, best[row])])

    def finish(self, scores: Tensor, tokens: Tensor, parents: Tensor, logp: Tensor, ends: Tensor, last: bool) -> None:
        """Each item's best answers so far, at most as many as beams. Only the first `beams` candidates count."""
        beams = self.scores.shape[1]
        length = self.tokens.shape[2] ** self.decoding.length_penalty
        for row, rank in ((ends | last) & (scores > ALIVE))[:, :beams].nonzero().tolist():
            parent = parents[row, rank]
            answers = self.finished[self.items[row]]
            answers.append(
                Finished(
                    scores[row, rank].item() / length,
                    torch.cat([self.tokens[row, parent, 1:], tokens[row, rank, None]]),
                    torch.cat([self.logp[row, parent], logp[row, rank, None]]),
                    self.cache.ancestors[row, parent],
                    not last or (not self.decoding.forced_eos and bool(ends[row, rank])),
                )
            )
            answers.sort(key=lambda answer: -answer.score)  # stable: the earlier one stands where two are equal
            del answers[beams:]

    def goes_on(self, item: int, best: float) -> bool:
        """Whether an item's running beams, of which the first has the score `best`, can still give a better answer than
        those that it has. None is alive where a grammar leaves fewer ways than there are beams, and all have ended."""
        if best <= ALIVE or len(self.finished[item]) < self.scores.shape[1]:
            return best > ALIVE
        stopping, penalty = self.decoding.early_stopping, self.decoding.length_penalty
        if stopping is True or self.scores.shape[1] == 1:
            return False
        length = self.limit if stopping == "never" and penalty > 0 else self.tokens.shape[2] - 1
        return best / length**penalty > self.finished[item][-1].score

    def keep(self, rows: list[int]) -> None:
        if len(rows) == len(self.items):
            return
        self.items = [self.items[row] for row in rows]
        if not rows:
            return
        index = torch.tensor(rows, device=self.tokens.device)
        self.tokens, self.logp, self.scores = self.tokens[index], self.logp[index], self.scores[index]
        self.ngrams, self.penalties = self.ngrams[index], self.penalties[index]
        self.states = None if self.states is None else self.states[index]
        self.cache.keep(index)

    def answer(self, item: int) -> Hypothesis:
        if not self.finished[item]:
            raise Florence2Error("expected logits that are numbers, got NaN: broken weights, or float16 was too small")
        best, bins = self.finished[item][0], None
        if self.locs is not None:
            steps = zip(self.bins, best.ancestors.tolist(), strict=False)
            bins = torch.stack([bins[items.index(item), beam] for (items, bins), beam in steps]).cpu()
        return Hypothesis(best.token_ids.tolist(), best.score, best.token_logp.cpu(), bins, best.ended)


def descend(history: Tensor, parents: Tensor) -> Tensor:
    """[items, beams, T]: each beam takes over the history of its parent."""
    return history.gather(1, parents[..., None].expand(-1, -1, history.shape[2]))


def each(value: float | Sequence[float], count: int, device: torch.device) -> Tensor:
    """One value for each item."""
    values = torch.as_tensor(value, device=device)
    if values.ndim and len(values) != count:
        raise Florence2Error(f"expected one value, or one for each of {count} items; got {len(values)}")
    return values.expand(count).contiguous()


def forbid_repeats(logits: Tensor, tokens: Tensor, sizes: Tensor) -> None:
    """No n-gram twice in a row of tokens [R, T], start token included. A row that could go nowhere then may repeat."""
    length = tokens.shape[1]
    for n in set(sizes.tolist()) - {0}:
        if length < n:
            continue
        windows = tokens.unfold(1, n, 1)  # [R, T - n + 1, n]
        seen = (windows[..., :-1] == tokens[:, None, length - n + 1 :]).all(-1) & (sizes == n)[:, None]
        rows, at = seen.nonzero(as_tuple=True)
        banned = windows[rows, at, -1]
        before = logits[rows, banned]
        logits[rows, banned] = -torch.inf
        stuck = logits[rows].amax(-1) == -torch.inf
        logits[rows[stuck], banned[stuck]] = before[stuck]
