"""Constrained decoding: which token may come next, so that every answer is whole and of its prompt's form.

A form is a regular expression over classes of tokens (text, a location, <poly>, ...); where labels are given, each of
their tokens is a class of its own. Each expression becomes a deterministic automaton, and the automata of a batch lie
in one table: a step of decoding is a look-up for all rows at once.

Corners in order (x0 <= x1) are no business of classes: whoever reads an answer sorts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from florence2.errors import PromptError
from florence2.locations import BINS
from florence2.tasks import Form, Prompt, Task

NEVER, TEXT, BLANK, LOC, SEP, OPEN, CLOSE, EOS, PAD = range(9)  # BLANK: white space
OWN = 9  # from here on: the tokens of the given labels, a class each
STRUCTURE = {"<sep>": SEP, "<poly>": OPEN, "</poly>": CLOSE}
FORBIDDEN = 2**31 - 1  # more tokens than any answer may have


class Tokens(Hashable, Protocol):
    """What is asked of a tokenizer. Ids from `size` up are padding of the vocabulary."""

    loc_start: int
    bos: int
    pad: int
    eos: int
    size: int

    def special(self, id: int, /) -> str | None:
        """The name of a token that is no text, as in "<poly>"."""

    def encode_plain(self, text: str, /) -> list[int]:
        """The ids of a text as it stands at the start of an answer: no <s>, no space put in front, nothing special."""

    def decode(self, ids: list[int], /) -> str:
        """The text of tokens that are not special."""


@dataclass(frozen=True)
class Grammar:
    """S states, C classes. The tables are small: the columns of a vocabulary are made for the rows of a step alone."""

    start: Tensor  # [queries] int64: the state in which a query's answer begins
    class_of: Tensor  # [vocabulary] int64
    others: Tensor  # [about 1,100] int64: the ids that are not of the class TEXT
    following: Tensor  # [S, C] int64: the next state; the same state where the class is not allowed
    need: Tensor  # [S, C] int32: the fewest tokens that end the answer through this class, this one and EOS included

    @classmethod
    def build(cls, queries: Sequence[Prompt], tokens: Tokens, vocabulary: int, max_new_tokens: int) -> Grammar:
        """One automaton a query, equal queries sharing theirs.

        `vocabulary` is the width of the logits. A label of `max_new_tokens` or more fits no answer and takes no state.
        PromptError for a label that can't be written with text tokens.
        """
        classes = list(token_classes(tokens, vocabulary))
        keys = [(query.form, spellings(query, tokens, classes, max_new_tokens)) for query in queries]
        spelt = sorted({token for _, labels in keys for label in labels or () for token in label})
        own = {token: OWN + n for n, token in enumerate(spelt)}
        elsewhere = [classes[token] for token in spelt]  # what they are to queries without labels
        states, first, tables = 0, {}, []
        for form, labels in dict.fromkeys(keys):
            label = WORDS if labels is None else Either(tuple(Then(tuple(own[t] for t in ids)) for ids in labels))
            edges = automaton(Then((language(form, label), EOS)))
            tables.append(table(edges, states, OWN + len(own), elsewhere if labels is None else None))
            first[form, labels] = states
            states += len(edges)
        for token, symbol in own.items():
            classes[token] = symbol
        following, need = (torch.cat(part) for part in zip(*tables, strict=True))
        others = [token for token, symbol in enumerate(classes) if symbol != TEXT]
        return cls(
            torch.tensor([first[key] for key in keys]), torch.tensor(classes), torch.tensor(others), following, need
        )

    def allowed(self, states: Tensor, left: int) -> Tensor:
        """[R] states -> [R, vocabulary] bool: what may come if `left` new tokens remain, EOS included.

        Only what leaves room to end the answer properly; in a finished row EOS and <pad>; never <s>. Each row that has
        come this way has a choice, as long as `left` is 1 or more.
        """
        classes = self.need[states] <= left
        # A row is text nearly all along: filled at once, then the 1,100 other columns; six times as fast as a gather.
        tokens = classes[:, TEXT, None].expand(-1, len(self.class_of)).contiguous()
        return tokens.index_copy_(1, self.others, classes[:, self.class_of[self.others]])

    def advance(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """[R] states, [R] ids -> [R] states. A token that is not allowed, as <s> at the start, changes nothing."""
        return self.following[states, self.class_of[token_ids]]

    def to(self, device: str | torch.device) -> Grammar:
        return Grammar(*(getattr(self, field.name).to(device) for field in fields(self)))


# The forms as regular expressions. An int is a class.


@dataclass(frozen=True)
class Then:
    parts: tuple[Pattern, ...]


@dataclass(frozen=True)
class Either:
    choices: tuple[Pattern, ...]


@dataclass(frozen=True)
class Many:
    """Once or more."""

    part: Pattern


Pattern = int | Then | Either | Many


def optional(pattern: Pattern) -> Pattern:
    return Either((pattern, Then(())))


BOX = Then((LOC,) * 4)
QUAD = Then((LOC,) * 8)
SOME_TEXT = Many(Either((TEXT, BLANK)))
WORDS = Then((optional(Many(BLANK)), TEXT, optional(SOME_TEXT)))  # more than white space
RING = Then((LOC, LOC, LOC, LOC, Many(Then((LOC, LOC)))))  # three points or more
RINGS = Then((RING, optional(Many(Then((SEP, RING))))))
INSTANCE = Then((OPEN, RINGS, CLOSE))


def language(form: Form, label: Pattern) -> Pattern:
    """The answers of a form, EOS apart. The empty answer is one of each."""
    languages: dict[Form, Pattern] = {
        Form.TEXT: SOME_TEXT,
        Form.BOXES: Many(BOX),
        Form.LABELLED_BOXES: Many(Then((label, Many(BOX)))),
        Form.LABELLED_QUADS: Many(Then((label, QUAD))),
        Form.POLYGONS: Either((RINGS, Many(INSTANCE))),
        Form.BOXES_OR_POLYGONS: Many(Then((label, Many(Either((BOX, INSTANCE)))))),
    }
    return optional(languages[form])


# Tokens and their classes.


@lru_cache(maxsize=4)
def token_classes(tokens: Tokens, vocabulary: int) -> tuple[int, ...]:
    """The class of each id below `vocabulary`; specials without a place in an answer (<s>, <od>, ...) never come.

    Kept, since it asks for the text of every token: once for a tokenizer, not once a batch.
    """
    classes = []
    for id in range(tokens.size):
        name = tokens.special(id)
        text = BLANK if name is None and tokens.decode([id]).isspace() else TEXT
        classes.append(text if name is None else STRUCTURE.get(name, NEVER))
    classes[tokens.loc_start : tokens.loc_start + BINS] = [LOC] * BINS
    classes[tokens.bos], classes[tokens.pad], classes[tokens.eos] = NEVER, PAD, EOS
    return tuple((classes + [NEVER] * vocabulary)[:vocabulary])


Spellings = tuple[tuple[int, ...], ...]


def spellings(query: Prompt, tokens: Tokens, classes: Sequence[int], max_new_tokens: int) -> Spellings | None:
    """The ids of each label that an answer may hold; None where labels are free.

    The `labels` of a grounding prompt hold its caption: its phrases are free text.
    """
    labelled = query.form in (Form.LABELLED_BOXES, Form.LABELLED_QUADS, Form.BOXES_OR_POLYGONS)
    if not (labelled and query.labels) or query.task is Task.CAPTION_TO_PHRASE_GROUNDING:
        return None
    found = [tuple(tokens.encode_plain(label)) for label in query.labels]
    for label, ids in zip(query.labels, found, strict=True):
        kinds = {classes[id] if id < len(classes) else NEVER for id in ids}
        if TEXT not in kinds or not kinds <= {TEXT, BLANK}:
            raise PromptError(f"expected labels that can be written in tokens of text; got {label!r}: {list(ids)}")
    return tuple(ids for ids in found if len(ids) < max_new_tokens)


# From an expression to a table.


class Part(NamedTuple):
    """The positions at which a part of an expression may begin and end, and whether it may be left out."""

    skippable: bool
    first: set[int]
    last: set[int]


class Positions:
    """Glushkov's construction: each class in an expression is a position, and `after` it come those that may follow."""

    def __init__(self) -> None:
        self.classes: list[int] = []
        self.after: list[set[int]] = []

    def read(self, pattern: Pattern) -> Part:
        if isinstance(pattern, int):
            self.classes.append(pattern)
            self.after.append(set())
            return Part(False, {len(self.after) - 1}, {len(self.after) - 1})
        if isinstance(pattern, Many):
            part = self.read(pattern.part)
            self.join(part, part)
            return part
        if isinstance(pattern, Either):
            any_of = Part(False, set(), set())
            for part in map(self.read, pattern.choices):
                any_of = Part(any_of.skippable or part.skippable, any_of.first | part.first, any_of.last | part.last)
            return any_of
        whole = Part(True, set(), set())
        for each in pattern.parts:
            whole = self.join(whole, self.read(each))
        return whole

    def join(self, left: Part, right: Part) -> Part:
        for position in left.last:
            self.after[position] |= right.first
        return Part(
            left.skippable and right.skippable,
            left.first | right.first if left.skippable else left.first,
            left.last | right.last if right.skippable else right.last,
        )


Edges = list[dict[int, int]]  # for each state the next one by class; state 0 is the start, the end has none


def automaton(pattern: Pattern) -> Edges:
    """The subset construction; a state is the set of positions that may come next, so labels share their beginnings."""
    positions = Positions()
    states = [frozenset(positions.read(pattern).first)]
    number = {states[0]: 0}
    edges: Edges = []
    for state in states:  # which grows on the way
        reached: dict[int, set[int]] = defaultdict(set)
        for position in state:
            reached[positions.classes[position]] |= positions.after[position]
        edges.append({})
        for symbol, target in ((symbol, frozenset(target)) for symbol, target in reached.items()):
            if target not in number:
                number[target] = len(states)
                states.append(target)
            edges[-1][symbol] = number[target]
    return edges


def distances(edges: Edges) -> list[int]:
    """For each state, the fewest tokens to the end."""
    before: dict[int, list[int]] = defaultdict(list)
    for state, row in enumerate(edges):
        for target in row.values():
            before[target].append(state)
    queue = [edges.index({})]
    found = {queue[0]: 0}
    for target in queue:  # which grows on the way
        for state in before[target]:
            if state not in found:
                found[state] = found[target] + 1
                queue.append(state)
    return [found[state] for state in range(len(edges))]


def table(edges: Edges, first: int, width: int, own: list[int] | None) -> tuple[Tensor, Tensor]:
    """`following` and `need` of one automaton, [states, width], its states numbered from `first` up.

    `own`: if this one has no labels, the classes that the tokens of other queries' labels have here.
    """
    following = torch.arange(first, first + len(edges))[:, None].repeat(1, width)
    need = torch.full((len(edges), width), FORBIDDEN, dtype=torch.int32)
    triples = [(state, symbol, target) for state, row in enumerate(edges) for symbol, target in row.items()]
    states, symbols, targets = torch.tensor(triples).T
    following[states, symbols] = first + targets
    need[states, symbols] = 1 + torch.tensor(distances(edges), dtype=torch.int32)[targets]
    need[edges.index({}), [EOS, PAD]] = 0
    if own:
        following[:, OWN:], need[:, OWN:] = following[:, own], need[:, own]
    return following, need
