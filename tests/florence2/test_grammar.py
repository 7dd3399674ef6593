"""Constrained answers: random walks read by strict regular expressions, and tables against sets of whole answers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from florence2.errors import PromptError
from florence2.grammar import Grammar
from florence2.tasks import Form, Prompt, Task, ask

STRUCTURE = ["<od>", *(f"<loc_{k}>" for k in range(1000)), "<sep>", "<poly>", "</poly>", "<and>"]
LABELS = ("cat", "cat food", "dog", "größe")
CORPUS = ["cat", "cat food", "dog", "a dog sits", "the cattle", "two  spaces", "line\n\nline"] * 3


class Tiny:
    """A byte-level BPE with the specials of Florence-2 that matter here."""

    def __init__(self) -> None:
        self.bpe = Tokenizer(models.BPE())
        self.bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        control = ["<s>", "<pad>", "</s>", "<unk>"]
        self.bpe.train_from_iterator(
            CORPUS, trainers.BpeTrainer(special_tokens=control, initial_alphabet=alphabet, show_progress=False)
        )
        text = self.bpe.get_vocab_size()
        self.names = dict(enumerate(control)) | dict(enumerate(STRUCTURE, text))
        self.ids = {name: id for id, name in self.names.items()}
        self.bos, self.pad, self.eos, self.loc_start = 0, 1, 2, text + 1
        self.size = text + len(STRUCTURE)

    def special(self, id: int) -> str | None:
        return self.names.get(id)

    def encode_plain(self, text: str) -> list[int]:
        return list(self.bpe.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.bpe.decode(ids))


TOKENS = Tiny()
WIDTH = TOKENS.size + 23  # padded
QUERIES = [
    ask("CAPTION"),
    ask("REGION_PROPOSAL"),
    ask("OD"),
    ask("OCR_WITH_REGION"),
    ask("REFERRING_EXPRESSION_SEGMENTATION", "dog"),
    ask("OPEN_VOCABULARY_DETECTION", LABELS),
    ask("OPEN_VOCABULARY_DETECTION", ["two  spaces"]),
    ask("CAPTION_TO_PHRASE_GROUNDING", "cat"),
    Prompt("Read the numbers.", Form.LABELLED_QUADS, labels=("dog", "cat")),
    Prompt("Find things.", Form.BOXES_OR_POLYGONS),
]
GRAMMAR = Grammar.build(QUERIES, TOKENS, WIDTH, max_new_tokens=64)

# Whole answers, as text. In pieces of text "<" is written "(".
BOX, QUAD, RING = "(?:<loc>){4}", "(?:<loc>){8}", "(?:<loc>){6}(?:<loc><loc>)*"
RINGS = f"{RING}(?:<sep>{RING})*"
WORDS = r"\s*[^<\s][^<]*"
PATTERNS = {
    Form.TEXT: "[^<]*",
    Form.BOXES: f"(?:{BOX})*",
    Form.LABELLED_BOXES: f"(?:LABEL(?:{BOX})+)*",
    Form.LABELLED_QUADS: f"(?:LABEL{QUAD})*",
    Form.POLYGONS: f"(?:{RINGS})?|(?:<poly>{RINGS}</poly>)*",
    Form.BOXES_OR_POLYGONS: f"(?:LABEL(?:{BOX}|<poly>{RINGS}</poly>)+)*",
}


def labels_of(query: Prompt) -> tuple[str, ...]:
    return (
        () if query.task in (Task.CAPTION_TO_PHRASE_GROUNDING, Task.REFERRING_EXPRESSION_SEGMENTATION) else query.labels
    )


def pattern_of(query: Prompt) -> str:
    return PATTERNS[query.form].replace("LABEL", f"(?:{'|'.join(labels_of(query)) or WORDS})")


def written(ids: Iterable[int]) -> str:
    """An answer as text, its bins left out."""
    text, run = "", list[int]()
    for id in [*ids, TOKENS.pad]:
        name = TOKENS.special(id)
        if name is None:
            run.append(id)
            continue
        text += TOKENS.decode(run).replace("<", "(") + re.sub(r"loc_\d+", "loc", name)
        run = []
    return text.removesuffix("<pad>")


def kind(id: int) -> str:
    name = TOKENS.special(id) or ("blank" if TOKENS.decode([id]).isspace() else "text")
    return "<loc>" if name.startswith("<loc_") else name


KINDS = [kind(id) for id in range(TOKENS.size)] + ["padding"] * (WIDTH - TOKENS.size)


NAMES = sorted(set(KINDS))
KIND_OF = torch.tensor([NAMES.index(name) for name in KINDS])


def walk(seed: int, budget: int) -> list[list[int]]:
    """An answer for each query, with its </s> and what comes after it.

    First a kind is drawn, so that structure comes as often as text; the end seldom, so that answers are long.
    """
    dice, states = torch.Generator().manual_seed(seed), GRAMMAR.start
    states = GRAMMAR.advance(states, torch.full_like(states, TOKENS.bos))
    steps = []
    for left in range(budget, 0, -1):
        weights = GRAMMAR.allowed(states, left).float()
        of_kind = torch.zeros(len(QUERIES), len(NAMES)).index_add_(1, KIND_OF, weights)
        weights /= of_kind.clamp(min=1)[:, KIND_OF]
        weights[:, TOKENS.eos] /= 10
        steps.append(torch.multinomial(weights, 1, generator=dice)[:, 0])
        states = GRAMMAR.advance(states, steps[-1])
    return torch.stack(steps, 1).tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), budget=st.integers(1, 45))
def test_every_walk_is_an_answer(seed: int, budget: int) -> None:
    for query, ids in zip(QUERIES, walk(seed, budget), strict=True):
        assert TOKENS.eos in ids, query
        end = ids.index(TOKENS.eos)
        assert set(ids[end:]) <= {TOKENS.eos, TOKENS.pad}
        assert re.fullmatch(pattern_of(query), written(ids[:end])), (query, written(ids[:end]))


def test_walks_visit_what_they_can() -> None:
    """Each label, repeated boxes, second rings and instances: the walks above are not short ones."""
    answers = [[written(ids) for ids in walk(seed, 60)] for seed in range(12)]
    proposals, polygons, listed = ("\n".join(answer[n] for answer in answers) for n in (1, 4, 5))
    assert f"\n{'<loc>' * 12}" in proposals
    assert (
        re.search(f"^{RING}<sep>", polygons, re.MULTILINE) and "<loc><sep>" in polygons and "</poly><poly>" in polygons
    )
    assert all(f"{label}<" in listed for label in LABELS)
    assert "<loc><poly>" in listed and "</poly><loc>" in listed


# The reference: sets of whole answers up to a length, in symbols; each text token of a query with labels is one.

Word = tuple[str, ...]


def then(left: set[Word], right: set[Word], limit: int) -> set[Word]:
    by_length = defaultdict(list)
    for b in right:
        by_length[len(b)].append(b)
    return {a + b for a in left for n in by_length if len(a) + n <= limit for b in by_length[n]}


def many(words: set[Word], limit: int) -> set[Word]:
    found = new = {w for w in words if len(w) <= limit}
    while new := then(new, words, limit) - found:
        found = found | new
    return found


def symbol(id: int, query: Prompt) -> str:
    return str(id) if labels_of(query) and KINDS[id] in ("text", "blank") else KINDS[id]


def answers(query: Prompt, limit: int) -> set[Word]:
    texts = many({("text",), ("blank",)}, min(limit, 12))
    listed = {tuple(str(t) for t in TOKENS.encode_plain(label)) for label in labels_of(query)}
    labels = listed or {text for text in texts if "text" in text}
    box, quad = {("<loc>",) * 4}, {("<loc>",) * 8}
    ring = {("<loc>",) * n for n in range(6, limit + 1, 2)}
    rings = ring | then(ring, many(then({("<sep>",)}, ring, limit), limit), limit)
    instance = {("<poly>", *inner, "</poly>") for inner in rings if len(inner) + 2 <= limit}
    whole = {
        Form.TEXT: lambda: texts,
        Form.BOXES: lambda: many(box, limit),
        Form.LABELLED_BOXES: lambda: many(then(labels, many(box, limit), limit), limit),
        Form.LABELLED_QUADS: lambda: many(then(labels, quad, limit), limit),
        Form.POLYGONS: lambda: rings | many(instance, limit),
        Form.BOXES_OR_POLYGONS: lambda: many(then(labels, many(box | instance, limit), limit), limit),
    }[query.form]()
    return {(*word, "</s>") for word in {*whole, ()}}


def needs(words: set[Word]) -> dict[Word, dict[str, int]]:
    """For each beginning, what may come next and the fewest tokens from there through the end."""
    found: dict[Word, dict[str, int]] = {}
    for word in words:
        for n, following in enumerate(word):
            entry = found.setdefault(word[:n], {})
            entry[following] = min(entry.get(following, 99), len(word) - n)
    return found


@pytest.mark.parametrize("n", range(len(QUERIES)), ids=[f"{n}-{query.form.name}" for n, query in enumerate(QUERIES)])
def test_equal_to_sets_of_whole_answers(n: int) -> None:
    """At each beginning, and each budget up to where the sets end: the same tokens of all the vocabulary."""
    query = QUERIES[n]
    free = not labels_of(query)
    limit = {"TEXT": 6, "BOXES": 14, "POLYGONS": 24}.get(query.form.name, 12 if free else 22)
    reference = needs(answers(query, limit))
    symbols = [symbol(id, query) for id in range(WIDTH)]
    example = {s: id for id, s in enumerate(symbols)}
    known = sorted({s for entry in reference.values() for s in entry})
    column = torch.tensor([known.index(s) if s in known else len(known) for s in symbols])
    state: dict[Word, int] = {(): int(GRAMMAR.start[n])}
    for word in sorted(reference, key=len)[1:]:
        state[word] = int(GRAMMAR.advance(torch.tensor([state[word[:-1]]]), torch.tensor([example[word[-1]]])))
    for left in range(1, limit + 2):
        words = [word for word in reference if len(word) + left <= limit + 1]
        expected = torch.tensor([[reference[w].get(s, 99) <= left for s in [*known, "none"]] for w in words])
        assert torch.equal(GRAMMAR.allowed(torch.tensor([state[w] for w in words]), left), expected[:, column])


def next_names(query: Prompt, text: list[int], left: int) -> set[str]:
    grammar = Grammar.build([query], TOKENS, WIDTH, 64)
    states = grammar.start
    for id in text:
        states = grammar.advance(states, torch.tensor([id]))
    allowed = grammar.allowed(states, left)[0].nonzero()[:, 0].tolist()
    return {"<loc>" if KINDS[id] == "<loc>" else TOKENS.special(id) or TOKENS.decode([id]) for id in allowed}


def test_a_label_that_begins_another() -> None:
    cat, food = TOKENS.encode_plain("cat"), TOKENS.encode_plain("cat food")
    assert food[: len(cat)] == cat and len(food) == len(cat) + 1  # else this test is of nothing
    query = ask("OPEN_VOCABULARY_DETECTION", ["cat", "cat food"])
    assert next_names(query, [], 20) == {"cat", "</s>"}
    assert next_names(query, cat, 20) == {"<loc>", "<poly>", " food"}
    assert next_names(query, food, 20) == {"<loc>", "<poly>"}
    assert next_names(query, cat, 8) == {"<loc>", " food"}  # <poly>, 6 locs, </poly> and </s> are 9
    assert next_names(query, cat, 5) == {"<loc>"}


def test_budgets_too_small() -> None:
    assert all(row.nonzero()[:, 0].tolist() == [TOKENS.eos] for row in GRAMMAR.allowed(GRAMMAR.start, 1))
    assert not GRAMMAR.allowed(GRAMMAR.start, 0).any()
    for query, least in [(QUERIES[1], 5), (QUERIES[4], 7), (QUERIES[8], 10)]:
        assert next_names(query, [], least - 1) == {"</s>"}
        assert len(next_names(query, [], least)) > 1
    assert next_names(ask("CAPTION"), [], 1) == {"</s>"}
    without = Grammar.build([ask("OPEN_VOCABULARY_DETECTION", "cat")], TOKENS, WIDTH, 20)
    with_long = Grammar.build([ask("OPEN_VOCABULARY_DETECTION", ["dog " * 50, "cat"])], TOKENS, WIDTH, 20)
    assert len(with_long.following) == len(without.following)  # a label that fits no answer has no states


def test_never() -> None:
    """Padding, <s>, and the specials that no answer has; <s> and what is not allowed leave the state as it is."""
    states = torch.arange(len(GRAMMAR.following))
    names = ("<s>", "<unk>", "<od>", "<and>", "padding")
    never = [id for id in range(WIDTH) if KINDS[id] in names]
    assert len(never) == 4 + 23
    assert not GRAMMAR.allowed(states, 10**6)[:, never].any()
    for id in never:
        assert torch.equal(GRAMMAR.advance(states, torch.full_like(states, id)), states)
    ended = GRAMMAR.advance(GRAMMAR.start, torch.full_like(GRAMMAR.start, TOKENS.eos))
    for left in (0, 1, 50):
        assert [row.nonzero()[:, 0].tolist() for row in GRAMMAR.allowed(ended, left)] == [[1, 2]] * len(QUERIES)


def test_equal_queries_share_their_states() -> None:
    once = Grammar.build(QUERIES, TOKENS, WIDTH, 64)
    often = Grammar.build([query for query in QUERIES for _ in range(3)], TOKENS, WIDTH, 64)
    assert torch.equal(often.need, once.need) and torch.equal(often.start, once.start.repeat_interleave(3))
    assert once.start[2] == once.start[7]  # OD, and grounding with its free phrases
    moved = once.to("cpu")
    assert all(torch.equal(part, vars(once)[name]) for name, part in vars(moved).items())


@pytest.mark.parametrize("label", ["", " ", "\n\n"])
def test_labels_that_say_nothing(label: str) -> None:
    with pytest.raises(PromptError, match=re.escape(repr(label))):
        Grammar.build([Prompt("Find.", Form.BOXES_OR_POLYGONS, labels=("dog", label))], TOKENS, WIDTH, 64)


def test_labels_with_tokens_outside_the_vocabulary() -> None:
    with pytest.raises(PromptError, match="'cat food'"):
        Grammar.build([ask("OPEN_VOCABULARY_DETECTION", ["cat food"])], TOKENS, TOKENS.encode_plain("cat food")[-1], 64)
