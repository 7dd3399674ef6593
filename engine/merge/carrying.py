"""What belongs to a region goes along with it when another takes its place: masks, texts about it, phrases that name
it. Copies are appended, and the old ones are superseded by them. Where the other has another label, masks alone go:
they say where the thing is, and not what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from engine.merge.draft import Draft
from engine.records import HUMAN, MERGE, Mask, Region, RegionText, Triplet

Of = TypeVar("Of", Mask, RegionText, Triplet)


def carry(draft: Draft) -> None:
    stands, heirs = draft.case.standing, draft.heirs
    masks, outlined = _by_precedence(stands.masks, draft), draft.ousted | heirs
    masked = {mask.region_id: mask for mask in reversed(masks) if mask.region_id not in outlined}
    for mask in sorted(masks, key=lambda mask: mask.region_id in draft.ousted):  # its own before another label's
        if heir := outlined.get(mask.region_id):
            _move_mask(mask, heir, masked, draft)
    told = {(text.region_id, text.text): text for text in stands.region_texts if text.region_id not in heirs}
    for about in _by_precedence(stands.region_texts, draft):
        if heir := heirs.get(about.region_id):
            _move_text(about, heir, told, draft)
    for triplet in _by_precedence(stands.triplets, draft):
        if not heirs.keys().isdisjoint(triplet.region_ids):
            _move_triplet(triplet, heirs, draft)


def _move_mask(mask: Mask, heir: Region, masked: dict[str, Mask], draft: Draft) -> None:
    """Of several masks that come to one region the first stays: of what stood before, then of what is new."""
    there = masked.get(heir.id)
    if there is None:
        there = replace(mask, id=draft.id(), source=MERGE, derived_from=(mask.id, heir.id), region_id=heir.id)
        masked[heir.id] = there
        draft.make(there, "carried")
    draft.decide("supersede", mask, "carried", against=there.id)


def _move_text(about: RegionText, heir: Region, told: dict[tuple[str, str], RegionText], draft: Draft) -> None:
    there = told.get((heir.id, about.text))
    if there is None:
        there = replace(about, id=draft.id(), source=MERGE, derived_from=(about.id, heir.id), region_id=heir.id)
        told[heir.id, about.text] = there
        draft.make(there, "carried")
    draft.decide("supersede", about, "carried", against=there.id)


def _move_triplet(triplet: Triplet, heirs: dict[str, Region], draft: Draft) -> None:
    regions = tuple(dict.fromkeys(heirs[id_].id if id_ in heirs else id_ for id_ in triplet.region_ids))
    moved = replace(
        triplet, id=draft.id(), source=MERGE, derived_from=(triplet.text_id, triplet.id), region_ids=regions
    )
    draft.make(moved, "carried")
    draft.decide("supersede", triplet, "carried", against=moved.id)


def _by_precedence(annotations: Iterable[Of], draft: Draft) -> list[Of]:
    """A person's first, then old, then new ones."""
    return sorted(annotations, key=lambda a: (a.source != HUMAN, draft.case.is_new(a), a.id))
