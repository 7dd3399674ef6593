"""Which texts stand: what they name is held against the regions that stand, then how much the image says for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine.merge.case import Case
from engine.merge.draft import Draft
from engine.merge.rules import Rules
from engine.records import DETAILS, HUMAN, Detail, Parse, Record, Text
from engine.vocabulary import Vocabulary

DEFINITE = ("the ", "this ", "that ", "these ", "those ", "its ", "his ", "her ", "their ")


@dataclass(frozen=True)
class Judged:
    """A text, how well what it names agrees with what stands (F1; None if nobody can say), and its gain."""

    text: Text
    new: bool
    agreement: float | None
    precision: float | None
    gain: float | None
    margin: float

    @property
    def steps(self) -> int | None:
        """Its agreement in steps of the margin, inside of which texts are equals."""
        return None if self.agreement is None else round(self.agreement / self.margin)


@dataclass(frozen=True)
class Ranking:
    """What texts of one granularity are ranked by. That of whose agreement nobody can say is taken for the least that
    another one has: so it changes nothing among the others, and beside them its gain decides."""

    least: int | None  # steps of agreement; None if that is not looked at
    by_gain: bool

    def steps(self, one: Judged) -> int:
        return 0 if self.least is None else self.least if one.steps is None else one.steps

    def __call__(self, one: Judged) -> tuple[float, float, bool]:
        """The lowest is the best; of equals the old one."""
        return -self.steps(one), -(one.gain or 0.0) if self.by_gain else 0.0, one.new


def ranking(judged: Sequence[Judged], by_agreement: bool = True, by_gain: bool = True) -> Ranking:
    least = min((one.steps for one in judged if one.steps is not None), default=None)
    return Ranking(least if by_agreement else None, by_gain and all(one.gain is not None for one in judged))


def merge_texts(case: Case, rules: Rules, draft: Draft) -> None:
    """Of each granularity as many texts stand as did before, one at least: the best. People's are not counted. What was
    made of a region that is turned down falls first: it must not take another one's place."""
    standing = draft.standing()
    rejected = {decision.annotation_id for decision in draft.decisions if decision.action == "reject"}
    for detail in DETAILS:
        texts = [text for text in case.standing.texts if text.detail == detail and text.source != HUMAN]
        for text in [text for text in texts if not rejected.isdisjoint(text.derived_from)]:
            texts.remove(text)
            cause = min(rejected.intersection(text.derived_from))
            draft.decide("reject", text, "region_fell", against=cause)
        if not any(case.is_new(text) for text in texts):
            continue  # there is nothing to choose
        judged = [judge(text, case, rules, standing) for text in sorted(texts, key=lambda text: text.id)]
        _choose(_distinct(judged, draft), detail, rules, draft)


def judge(text: Text, case: Case, rules: Rules, standing: Record) -> Judged:
    """Regions that a text was made from say nothing of it."""
    parses = (parse for parse in case.standing.parses if parse.text_id == text.id)
    parse = min(parses, key=lambda parse: parse.id, default=None)
    gain = case.gain(text)
    if parse is None or text.derived_from:
        return Judged(text, case.is_new(text), None, None, gain, rules.config.text_margin)
    there = Counter(region.label for region in standing.regions if region.kind == "object" and region.label)
    named = named_in(text, parse, {*rules.counts, *there} - {""}, rules.vocabulary)
    hits = sum(min(count or there[label] or 1, there[label]) for label, count in named.items())
    said = sum(count or there[label] or 1 for label, count in named.items())
    total = said + sum(there.values())
    agreement = 2 * hits / total if total else 1.0  # it names nothing, and there is nothing
    return Judged(text, case.is_new(text), agreement, hits / said if said else None, gain, rules.config.text_margin)


def named_in(text: Text, parse: Parse, classes: Collection[str], vocabulary: Vocabulary) -> dict[str, int | None]:
    """How many of each class a text names; None for "dogs", as many as there are. What is no class is left out; "the
    dog" after "a dog" is the same one."""
    known = {vocabulary.canonical(name): name for name in classes}
    named: dict[str, int | None] = {}
    for phrase in parse.phrases:
        names = map(vocabulary.canonical, phrase.names(text.text))
        label = next((known[name] for name in names if name in known), None)
        if label is None:
            continue
        again = label in named and text.text[phrase.start : phrase.stop].lower().startswith(DEFINITE)
        if not again:
            before = named.get(label, 0)
            named[label] = None if before is None or phrase.count is None else before + phrase.count
    return named


def _distinct(judged: Sequence[Judged], draft: Draft) -> list[Judged]:
    """Old ones first; what says the same as one before falls in its favour."""
    kept: dict[str, Judged] = {}
    for one in sorted(judged, key=lambda one: one.new):
        said = " ".join(one.text.text.casefold().split())
        if said in kept:
            draft.decide("supersede", one.text, "same_text", against=kept[said].text.id)
        else:
            kept[said] = one
    return list(kept.values())


def _choose(judged: Sequence[Judged], detail: Detail, rules: Rules, draft: Draft) -> None:
    old = sum(not one.new for one in judged)
    if not old:
        judged = [one for one in judged if _enters(one, rules, draft)]
    if not judged:
        return
    trusted = [(detail, ground) not in rules.distrusted for ground in ("agreement", "gain")]
    order = ranking(judged, *trusted)
    ranked = sorted(judged, key=order)
    stay, fall = ranked[: max(old, 1)], ranked[max(old, 1) :]
    last = stay[-1]
    for one in stay:
        draft.stand(one.text, "best_text", one.gain if order.least is None else one.agreement)
    for one in fall:
        differs = order.steps(one) != order.steps(last)
        reason = "names_less_of_it" if differs else "less_gain" if order.by_gain else "unjudged"
        value, held = (one.agreement, last.agreement) if differs else (one.gain, last.gain)
        draft.decide("supersede", one.text, reason, value, held, against=last.text.id)


def _enters(one: Judged, rules: Rules, draft: Draft) -> bool:
    """Whether a text of a granularity that had none stands: what it names must be there, and the image count for it."""
    if one.precision is not None and one.precision < rules.config.text_precision:
        draft.decide("reject", one.text, "names_what_is_not_there", one.precision, rules.config.text_precision)
    elif one.gain is not None and one.gain <= 0:
        draft.decide("reject", one.text, "not_of_the_image", one.gain, 0.0)
    else:
        return True
    return False
