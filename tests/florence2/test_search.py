"""Beam search against transformers' generate, against the decoder run at once, and against its own promises."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from florence import small_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import Questions, copy, end_now_and_then, generated, lean, models, padded, pair, randomise, searched
from torch import Tensor

from florence2.cache import BLOCK
from florence2.config import Florence2Config, TextConfig, VisionConfig
from florence2.errors import Florence2Error
from florence2.grammar import FORBIDDEN, TEXT, Grammar
from florence2.model import Florence2
from florence2.search import Decoding, Hypothesis, Search
from florence2.tasks import Form, Prompt, ask

# Half of nano, since hundreds of searches are made here.
CONFIG = Florence2Config(
    VisionConfig(
        depths=(1, 1, 1, 1),
        embed_dim=(16, 32, 48, 96),
        num_heads=(1, 2, 2, 4),
        num_groups=(1, 2, 4, 2),
        window_size=4,
        projection_dim=96,
    ),
    TextConfig(
        d_model=96,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=192,
        decoder_ffn_dim=256,
        max_position_embeddings=200,
    ),
).with_vocabulary(1700)
START = EOS = 2
BOS = 0
LOCS = 600  # where the bins of a made-up vocabulary begin


def ending(seed: int, questions: Questions, spread: float = 1.5) -> Florence2:
    """Answers end now and then."""
    _, model = models(CONFIG)
    randomise(model, seed, spread)
    end_now_and_then(model, questions, seed)
    return model


def small(seed: int, count: int = 4) -> Questions:
    return Questions.make(seed, count, size=(48, 64))


def run(
    model: Florence2, questions: Questions, decoding: Decoding, grammar: Grammar | None = None
) -> tuple[Search, list[int]]:
    """A search at its end, for those who want to see more of it than its answers; and by step, how many items the cache
    held."""
    with torch.inference_mode():
        memory = model.encode(model.encode_image(questions.pixels), questions.ids, questions.mask)
        search, held = Search(model, memory, decoding, (), None, grammar), list[int]()
        while search.items:
            (size,) = {len(x) for layer in search.cache.layers for x in (layer.keys, layer.values, layer.memory_keys)}
            held.append(size)
            search.step()
        return search, held


def at_once(model: Florence2, questions: Questions, row: int, token_ids: list[int]) -> Tensor:
    """log p of every token [T, vocabulary] at each place of an answer, all places computed together."""
    one = questions[[row]]
    with torch.inference_mode():
        logits = model(one.pixels, one.ids, one.mask, torch.tensor([[START, *token_ids[:-1]]]))
    return logits[0].log_softmax(dim=-1)


def lengths(hypotheses: list[Hypothesis]) -> list[int]:
    return [len(hypothesis.token_ids) for hypothesis in hypotheses]


# --- transformers ----------------------------------------------------------------------------------------------------


def drawn(seed: int, beams: int) -> tuple[Decoding, Questions, float]:
    """How to search, what to ask, and how unequal the logits are."""
    dice = random.Random(f"{seed} {beams}")
    decoding = Decoding(
        num_beams=beams,
        max_new_tokens=dice.choice([2, 3, 9, 24, 24, 40]),
        no_repeat_ngram_size=dice.choice([0, 0, 1, 2, 3, 3]),
        length_penalty=dice.choice([-1.0, 0.0, 0.5, 1.0, 2.0]),
        early_stopping=dice.choice([True, False, "never"]),
        forced_bos=dice.choice([True, True, False]),
        forced_eos=dice.choice([True, True, False]),
    )
    return decoding, small(seed, dice.randint(3, 6)), dice.choice([1.0, 1.5, 2.0])


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_transformers_gives_the_same_answers(beams: int) -> None:
    """Token for token, with equal scores, in 20 random settings."""
    found = list[Hypothesis]()
    for seed in range(20):
        decoding, questions, spread = drawn(seed, beams)
        theirs, ours = pair(CONFIG, seed, spread)
        end_now_and_then(ours, questions, seed)
        copy(ours, theirs)
        answers, scores = generated(theirs, questions, decoding)
        hypotheses = searched(ours, questions, decoding)
        assert padded(hypotheses) == answers, (seed, decoding)
        if scores is not None:
            assert [h.score for h in hypotheses] == pytest.approx(scores, rel=1e-4, abs=1e-4), (seed, decoding)
        for hypothesis in hypotheses:
            cut = len(hypothesis.token_ids) == decoding.max_new_tokens
            assert hypothesis.ended or cut
            assert not (hypothesis.ended and cut and decoding.forced_eos)
        found += hypotheses
    assert len(set(lengths(found))) >= 6  # else this would be of answers that all end alike
    assert 10 < sum(h.ended for h in found) < len(found) - 10


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("stopping", [True, False, "never"])
def test_transformers_stops_at_the_same_place(stopping: Literal["never"] | bool, penalty: float) -> None:
    """Where it stops decides which answer is the best one found: all pairs of the two rules, on answers that end."""
    decoding = Decoding(3, 24, 3, penalty, stopping)
    for seed in (1, 3, 12, 36, 37, 38):
        questions = small(seed)
        theirs, ours = pair(CONFIG, seed)
        end_now_and_then(ours, questions, seed, share=0.2)
        copy(ours, theirs)
        answers, scores = generated(theirs, questions, decoding)
        hypotheses = searched(ours, questions, decoding)
        assert padded(hypotheses) == answers
        assert [h.score for h in hypotheses] == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("beams", "ngram"), [(1, 0), (3, 0), (3, 3)])
def test_answers_longer_than_the_caches_blocks(beams: int, ngram: int) -> None:
    theirs, ours = pair(CONFIG, seed=5, spread=1.5)
    lean(ours, [EOS], -50.0)
    copy(ours, theirs)
    questions = small(5, count=2)
    decoding = Decoding(num_beams=beams, max_new_tokens=3 * BLOCK + 5, no_repeat_ngram_size=ngram)
    hypotheses = searched(ours, questions, decoding)
    assert lengths(hypotheses) == [3 * BLOCK + 5] * 2 and not any(h.ended for h in hypotheses)
    assert padded(hypotheses) == generated(theirs, questions, decoding)[0]


# --- the decoder run at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("beams", [1, 3, 5])
def test_probabilities_are_the_models_own(beams: int, forced: bool) -> None:
    """Those of tokens and of all bins, before any rule, along the answer's path: whatever beams it went through."""
    unused = [7, 8, *range(1650, CONFIG.text.vocab_size)]
    reordered = 0
    for seed in range(4):
        questions = small(seed)
        model = ending(seed, questions)
        decoding = Decoding(
            beams, BLOCK + 8, 2, 0.5, forced_bos=forced, forced_eos=forced, eos_penalty=[0.0, 3.0, 0.5, 9.0]
        )
        hypotheses = searched(model, questions, decoding, unused=unused, locs=LOCS)
        for row, hypothesis in enumerate(hypotheses):
            ids, logp = hypothesis.token_ids, at_once(model, questions, row, hypothesis.token_ids)
            logp[:, unused] = -torch.inf
            logp = logp.log_softmax(dim=-1)  # over the tokens that mean something
            expected, bins = logp[range(len(ids)), ids], logp[:, LOCS : LOCS + 1000].clone()
            if forced:
                expected[0], bins[0] = 0.0, -torch.inf
            assert hypothesis.loc_logp is not None
            torch.testing.assert_close(hypothesis.token_logp, expected, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(hypothesis.loc_logp, bins, atol=1e-4, rtol=1e-4)
        ran, _ = run(model, questions, decoding)
        reordered += sum(len(set(answers[0].ancestors.tolist())) > 1 for answers in ran.finished)
    assert beams == 1 or reordered >= 4  # of 16 answers


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [1, 4])
def test_the_score_is_the_sum_of_the_tokens_chosen(beams: int, penalty: float) -> None:
    questions = small(3)
    decoding = Decoding(beams, 24, length_penalty=penalty, forced_eos=False)
    for h in searched(ending(3, questions), questions, decoding):
        assert h.score == pytest.approx(h.token_logp.sum().item() / len(h.token_ids) ** penalty, rel=1e-4)
    # A forced </s> costs the score nothing; what the model thought of it is told all the same.
    for h in searched(ending(3, questions), questions, replace(decoding, forced_eos=True)):
        chosen = h.token_logp if h.ended else h.token_logp[:-1]
        assert h.score == pytest.approx(chosen.sum().item() / len(h.token_ids) ** penalty, rel=1e-4)
        assert h.token_logp[-1] < 0


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_equals_its_items(seed: int) -> None:
    """Each alone without pads, all of them in another order, and each several times."""
    questions = small(seed, count=5)
    model = ending(seed, questions)
    decoding = Decoding(1 + seed % 3, 30, early_stopping=seed % 2 == 0)
    together = searched(model, questions, decoding, locs=LOCS)
    order = [3, 1, 1, 4, 0, 2, 3]
    others = searched(model, questions[order], decoding, locs=LOCS)
    alone = [searched(model, questions[[row]], decoding, locs=LOCS)[0] for row in range(5)]
    for row, again in [*zip(order, others, strict=True), *enumerate(alone)]:
        one = together[row]
        assert one.token_ids == again.token_ids and one.ended == again.ended
        assert one.score == pytest.approx(again.score, rel=1e-4)
        torch.testing.assert_close(one.token_logp, again.token_logp, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.loc_logp, again.loc_logp, atol=1e-4, rtol=1e-4)


def test_finished_items_leave_the_batch() -> None:
    """And their keys and values with them; those that stay go on as if nothing had been."""
    questions = small(12, count=6)
    model = ending(12, questions)
    ran, held = run(model, questions, Decoding(max_new_tokens=40))
    assert held == sorted(held, reverse=True) and len(set(held)) >= 3, held
    found = [ran.answer(item) for item in range(6)]
    alone = [searched(model, questions[[row]], Decoding(max_new_tokens=40))[0] for row in range(6)]
    assert [h.token_ids for h in found] == [h.token_ids for h in alone]


# --- rules -----------------------------------------------------------------------------------------------------------

decodings = st.builds(
    Decoding,
    num_beams=st.integers(1, 4),
    max_new_tokens=st.integers(2, 30),
    no_repeat_ngram_size=st.integers(0, 4) | st.lists(st.integers(0, 4), min_size=3, max_size=3),
    length_penalty=st.floats(-2, 3),
    early_stopping=st.sampled_from([True, False, "never"]),
    forced_bos=st.booleans(),
    forced_eos=st.booleans(),
    eos_penalty=st.floats(-5, 20) | st.lists(st.floats(-5, 20), min_size=3, max_size=3),
)


def grams(token_ids: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(token_ids[i : i + n]) for i in range(len(token_ids) - n + 1)]


def repeats(token_ids: list[int], n: int) -> bool:
    return len(set(grams(token_ids, n))) < len(grams(token_ids, n))


@settings(max_examples=60, deadline=None)
@given(decodings, st.integers(0, 3), st.sets(st.integers(3, 1727), max_size=1500))
def test_what_every_answer_keeps_to(decoding: Decoding, seed: int, unused: set[int]) -> None:
    questions = small(seed, count=3)
    sizes = decoding.no_repeat_ngram_size
    for row, h in enumerate(searched(ending(seed, questions), questions, decoding, unused=sorted(unused))):
        ids = h.token_ids
        assert 1 <= len(ids) <= decoding.max_new_tokens
        assert len(h.token_logp) == len(ids) and (h.token_logp <= 1e-5).all() and h.token_logp.isfinite().all()
        assert h.loc_logp is None
        assert unused.isdisjoint(ids)
        assert EOS not in ids[:-1] and (ids[0] == BOS or not decoding.forced_bos)
        assert h.ended <= (ids[-1] == EOS) and (ids[-1] == EOS or not decoding.forced_eos)
        assert h.ended or len(ids) == decoding.max_new_tokens
        size = sizes if isinstance(sizes, int) else sizes[row]
        forced = not h.ended and decoding.forced_eos
        assert size == 0 or not repeats([START, *(ids[:-1] if forced else ids)], size)


def test_unused_tokens_give_way() -> None:
    questions = small(2)
    model = ending(2, questions)
    decoding = Decoding(max_new_tokens=30)
    liked = {id for h in searched(model, questions, decoding) for id in h.token_ids} - {BOS, EOS}
    assert liked
    others = searched(model, questions, decoding, unused=sorted(liked))
    assert liked.isdisjoint(id for h in others for id in h.token_ids)


def test_a_penalty_on_the_end_makes_answers_longer() -> None:
    questions = small(12, count=6)
    model = ending(12, questions)
    plain = Decoding(max_new_tokens=40)
    before = searched(model, questions, plain)
    nothing, some, all_ = (lengths(searched(model, questions, replace(plain, eos_penalty=p))) for p in (0.0, 1.0, 1e4))
    assert nothing == lengths(before)
    assert sum(nothing) < sum(some) < sum(all_) == 6 * 40
    row = nothing.index(min(nothing))
    one = searched(model, questions, replace(plain, eos_penalty=[1e4 * (n == row) for n in range(6)]))
    assert lengths(one) == [40 if n == row else length for n, length in enumerate(nothing)]
    assert all(a.token_ids == b.token_ids for n, (a, b) in enumerate(zip(one, before, strict=True)) if n != row)


def test_a_size_of_repeats_for_each_item() -> None:
    questions = small(7, count=5)
    _, model = models(CONFIG)
    randomise(model, 7, spread=2.0)  # repeats itself, if it may
    lean(model, [EOS], -50.0)
    sizes = [3, 0, 1, 2, 0]
    together = searched(model, questions, Decoding(max_new_tokens=30, no_repeat_ngram_size=sizes))
    for row, (size, hypothesis) in enumerate(zip(sizes, together, strict=True)):
        (alone,) = searched(model, questions[[row]], Decoding(max_new_tokens=30, no_repeat_ngram_size=size))
        assert hypothesis.token_ids == alone.token_ids
        assert repeats(hypothesis.token_ids, 3) == (size == 0)


def test_no_answer_is_longer_than_the_position_table() -> None:
    config = replace(CONFIG, text=replace(CONFIG.text, max_position_embeddings=25))
    questions = small(1, count=2)
    theirs, ours = pair(config, seed=1)
    lean(ours, [EOS], -50.0)
    copy(ours, theirs)
    hypotheses = searched(ours, questions, Decoding(max_new_tokens=1024))
    assert lengths(hypotheses) == [25, 25]
    assert padded(hypotheses) == generated(theirs, questions, Decoding(max_new_tokens=25))[0]


def test_what_cannot_be_asked_for() -> None:
    for wrong in (Decoding(no_repeat_ngram_size=[3, 3]), Decoding(eos_penalty=[1.0])):
        with pytest.raises(ValueError, match="one for each of 4 items; got"):
            searched(models(CONFIG)[1], small(0), wrong)
    with pytest.raises(Florence2Error, match="num_beams, a whole number >= 1; got 0"):
        Decoding(num_beams=0)
    with pytest.raises(Florence2Error, match="max_new_tokens, a whole number >= 2; got 1"):
        Decoding(max_new_tokens=1)


# --- grammars --------------------------------------------------------------------------------------------------------

QUERIES = [
    ask("CAPTION"),
    ask("REGION_PROPOSAL"),
    ask("OD"),
    ask("OCR_WITH_REGION"),
    ask("REFERRING_EXPRESSION_SEGMENTATION", "a red car"),
    ask("OPEN_VOCABULARY_DETECTION", ["dog", "bicycle riders", "a dog"]),
    Prompt("Read the numbers.", Form.LABELLED_QUADS, labels=("dog", "12 cm")),
]
RINGS = "l{6}(ll)*(sl{6}(ll)*)*"  # a letter for each token, t for text
WHOLE = {
    Form.TEXT: "t*",
    Form.BOXES: "(l{4})*",
    Form.LABELLED_BOXES: "(t+(l{4})+)*",
    Form.LABELLED_QUADS: "(t+l{8})*",
    Form.POLYGONS: f"(({RINGS})?|(<{RINGS}>)*)",
    Form.BOXES_OR_POLYGONS: f"(t+(l{{4}}|<{RINGS}>)+)*",
}
LETTERS = {"<sep>": "s", "<poly>": "<", "</poly>": ">"}


def letters(token_ids: list[int]) -> str:
    names = [small_tokens().special(id) or "t" for id in token_ids]
    return "".join("l" if name.startswith("<loc_") else LETTERS.get(name, name) for name in names)


def speaking() -> Florence2Config:
    return CONFIG.with_vocabulary(small_tokens().size)


@pytest.mark.parametrize("beams", [1, 3, 5])
@pytest.mark.parametrize("longest", [3, 6, 11, 40])
def test_constrained_answers_are_whole(beams: int, longest: int) -> None:
    """Whatever else is in force: the budget, sizes of repeats, an early end."""
    tokens, config = small_tokens(), speaking()
    _, model = models(config)
    for seed, forced in [(0, True), (1, False), (2, True)]:
        randomise(model, seed, spread=2.0)
        lean(model, [EOS], 3.0)
        decoding = Decoding(beams, longest, [3, 0, 1, 2, 3, 2, 3], forced_bos=forced, forced_eos=forced)
        grammar = Grammar.build(QUERIES, tokens, config.text.vocab_size, longest - forced)
        hypotheses = searched(model, small(seed, len(QUERIES)), decoding, grammar=grammar)
        for query, hypothesis, state in zip(QUERIES, hypotheses, grammar.start[:, None], strict=True):
            answer = hypothesis.token_ids[1:] if forced else hypothesis.token_ids
            assert re.fullmatch(WHOLE[query.form] + "</s>", letters(answer)), (query, letters(answer))
            assert hypothesis.score > -1000
            for n, token in enumerate(answer):
                assert grammar.allowed(state, longest - forced - n)[0, token]
                state = grammar.advance(state, torch.tensor([token]))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_listed_label_comes_again(beams: int, size: int) -> None:
    """Where there is no other way its tokens repeat. Locations don't, since they need not."""
    tokens, config = small_tokens(), speaking()
    label = tokens.encode_plain("bicycle riders")
    assert len(label) >= 4
    _, model = models(config)
    randomise(model, 3, spread=1.0)
    lean(model, [EOS], -50.0)
    lean(model, label, 9.0)  # else it would be found once, and then boxes alone
    decoding = Decoding(beams, 60, size)
    grammar = Grammar.build(
        [ask("OPEN_VOCABULARY_DETECTION", "bicycle riders")] * 2, tokens, config.text.vocab_size, 59
    )
    for hypothesis in searched(model, small(3, 2), decoding, grammar=grammar):
        ids = hypothesis.token_ids
        assert re.fullmatch(f"(t{{{len(label)}}}(l{{4}}|<{RINGS}>)+)+</s>", letters(ids[1:]))
        places = [gram for gram in grams(ids, size) if min(gram, default=0) >= tokens.loc_start]
        assert len(set(places)) == len(places)
        assert len(ids) > 55 and (letters(ids).count("t") >= 2 * len(label) or size == 1)


Answer = tuple[int, ...]


def listed(answers: Sequence[Answer]) -> Grammar:
    """Allows these answers alone."""
    whole = [(*answer, EOS) for answer in answers]
    states = sorted({answer[:n] for answer in whole for n in range(len(answer) + 1)})
    tokens = sorted({token for answer in whole for token in answer})
    class_of = torch.full((CONFIG.text.vocab_size,), TEXT)
    class_of[tokens] = torch.arange(TEXT + 1, TEXT + 1 + len(tokens))
    following = torch.arange(len(states))[:, None].repeat(1, TEXT + 1 + len(tokens))
    need = torch.full_like(following, FORBIDDEN, dtype=torch.int32)
    for answer in whole:
        for n, token in enumerate(answer):
            state, symbol = states.index(answer[:n]), class_of[token]
            following[state, symbol] = states.index(answer[: n + 1])
            need[state, symbol] = min(int(need[state, symbol]), len(answer) - n)
    return Grammar(torch.tensor([0]), class_of, torch.tensor(tokens), following, need)


answers_of_a_language = st.sets(st.lists(st.integers(3, 6), max_size=4).map(tuple), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    answers_of_a_language,
    st.integers(0, 3),
    st.sampled_from([True, False, "never"]),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.integers(6, 8),
)
def test_the_best_of_a_small_language(
    language: set[Answer], seed: int, stopping: Literal["never"] | bool, penalty: float, beams: int
) -> None:
    """With as many beams as there are answers none is lost: the search is exact. Nor does it go on for nothing."""
    questions = small(seed, count=1)
    model = ending(seed, questions)
    grammar = listed(sorted(language))
    decoding = Decoding(beams, 20, 0, penalty, stopping)
    ran, held = run(model, questions, decoding, grammar)
    found = ran.answer(0)
    scores = {}
    for answer in language:
        ids = [BOS, *answer, EOS]
        logp = at_once(model, questions, 0, ids)[range(1, len(ids)), ids[1:]]
        scores[tuple(ids)] = logp.sum().item() / len(ids) ** penalty
    best = max(scores, key=lambda ids: scores[ids])
    assert tuple(found.token_ids) in scores
    assert found.score == pytest.approx(scores[best], rel=1e-4)
    assert len(held) <= 2 + max(map(len, language))
