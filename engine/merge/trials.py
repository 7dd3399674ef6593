"""Whether what texts are ranked by can be trusted, by images of which people wrote texts themselves.

Where a new text would take an old one's place, both are held against people's by CIDEr-D. What gives worse texts than
it takes, on average over LEAST trials or more, decides no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.cider import Cider
from engine.merge.case import Case
from engine.merge.draft import Draft
from engine.merge.regions import merge_regions
from engine.merge.rules import Ground, Rules
from engine.merge.texts import Judged, judge, ranking
from engine.records import DETAILS, HUMAN, Detail, Record

LEAST = 20


@dataclass(frozen=True)
class Trial:
    """On one labelled image a new text that would take an old one's place, and why; and what people wrote."""

    ground: Ground
    old: str
    new: str
    references: tuple[str, ...]


def trials_of(case: Case, labels: Record, rules: Rules) -> list[Trial]:
    """Of one image, as its regions come out by `rules`."""
    if case.record.error or case.says_nothing or not labels.texts:
        return []
    draft = Draft(case)
    merge_regions(case, rules, draft)
    standing = draft.standing()
    found = []
    for detail in DETAILS:
        references = tuple(text.text for text in labels.texts if text.detail == detail)
        texts = [t for t in case.standing.texts if t.detail == detail and t.source != HUMAN]
        judged = [judge(text, case, rules, standing) for text in texts]
        if references and (pair := _rivals(judged, detail)):
            found.append(Trial(*pair, references))
    return found


def _rivals(judged: Sequence[Judged], detail: Detail) -> tuple[Ground, str, str] | None:
    """The best old and the best new text, if the new one is better by what is known of both."""
    old, new = ([one for one in judged if one.new == is_new] for is_new in (False, True))
    if not old or not new:
        return None
    order = ranking(judged)
    a, b = (min(some, key=order) for some in (old, new))
    first, second = order(a), order(b)
    if second >= first:
        return None
    return (detail, "agreement" if second[0] != first[0] else "gain"), a.text.text, b.text.text


def distrusted(trials: Sequence[Trial]) -> frozenset[Ground]:
    """The grounds on which texts became worse."""
    cider = Cider([trial.references for trial in trials])
    changes: dict[Ground, list[float]] = {}
    for n, trial in enumerate(trials):
        changes.setdefault(trial.ground, []).append(cider.score(n, trial.new) - cider.score(n, trial.old))
    return frozenset(ground for ground, some in changes.items() if len(some) >= LEAST and sum(some) <= 0)
