"""Merging: old and new annotations of an image are put together by rules, and every choice is a decision.

`merge` is plain Python, and works on one record. What it makes and decides does not depend on the order of the
record's annotations; what people annotated stands; nothing is removed.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.merge.carrying import carry
from engine.merge.case import Case
from engine.merge.choosing import PhrasesIn, Pixels, choose_region_texts
from engine.merge.draft import Draft
from engine.merge.lines import merge_lines
from engine.merge.regions import merge_regions
from engine.merge.rules import Rules
from engine.merge.texts import merge_texts
from engine.records import Phrase, Record

__all__ = ["Case", "Rules", "merge"]


def _no_phrases(text: str) -> Sequence[Phrase]:
    return ()


def merge(case: Case, rules: Rules, phrases_in: PhrasesIn = _no_phrases, pixels: Pixels = lambda: None) -> Record:
    """The case's record with what merging adds to it: annotations of the source "merge", and decisions by it.

    `phrases_in` gives the noun phrases of a region's description, `pixels` the image, for a chooser that looks at it.
    Where the round adds nothing, so does this: merging again what was merged changes nothing.
    """
    if case.record.error or case.record.item.duplicate_of or case.says_nothing:
        return case.record
    draft = Draft(case)
    merge_regions(case, rules, draft)
    merge_lines(case, rules, draft)
    carry(draft)
    merge_texts(case, rules, draft)
    choose_region_texts(draft, rules.chooser, phrases_in, pixels)
    return draft.finished()
