"""Objects and proposals of two rounds: fused, kept, added or turned down, thing by thing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from engine.merge.case import Case
from engine.merge.claims import Claim, claims_of, clusters_of
from engine.merge.draft import Draft
from engine.merge.edges import fused
from engine.merge.rules import Rules
from engine.records import HUMAN, Kind, Region

KINDS: tuple[Kind, ...] = ("object", "proposal")


def merge_regions(case: Case, rules: Rules, draft: Draft) -> None:
    for kind in KINDS:
        waiting: list[tuple[list[Claim], list[Claim]]] = []  # of each new thing all claims, and those that prevail
        for cluster in clusters_of(case, kind, overlap_of(kind, rules)):
            claims = claims_of(case, cluster, rules.config)
            winners = _settled(claims, rules, draft)
            if winners and all(claim.new for claim in claims):
                waiting.append((claims, winners))
            elif winners:
                _stand(winners, rules, draft)
                _oust(claims, winners[0].region, draft)
        _enter(waiting, kind, rules, draft)


def overlap_of(kind: Kind, rules: Rules) -> float:
    """The lowest IoU at which two regions of a kind are of one thing."""
    return rules.config.iou_proposals if kind == "proposal" else rules.config.iou


def _settled(claims: Sequence[Claim], rules: Rules, draft: Draft) -> list[Claim]:
    """Of what is seen in one place the claims of the label that prevails; the others fall."""
    first = claims[0].region
    if first.source == HUMAN:
        for claim in claims[1:]:
            if claim.region.label == first.label:
                draft.yield_to(claim.region, first, "human_region")
            else:
                draft.decide("reject", claim.region, "human_label", against=first.id)
                draft.ousted[claim.region.id] = first
        return []
    by_label: dict[str | None, list[Claim]] = {}
    for claim in claims:
        by_label.setdefault(claim.region.label, []).append(claim)
    label = _prevailing(by_label, rules, draft.case)
    strongest = _best(by_label[label], rules)
    for other, theirs in by_label.items():
        for claim in theirs if other != label else ():
            value, held = rules.precision(claim), rules.precision(strongest)
            reason = "contested_uncalibrated" if value is None else "imprecise" if held is None else "less_precise"
            held = rules.config.enter if reason == "imprecise" else held
            draft.decide("reject", claim.region, reason, value, held, strongest.region.id)
    return by_label[label]


def _prevailing(by_label: dict[str | None, list[Claim]], rules: Rules, case: Case) -> str | None:
    """The label with the highest calibrated precision. One that stood before and is uncalibrated gives way to what is
    precise enough to enter; or else, as where nothing is calibrated, the label of most model families stands, of equals
    what stood before."""
    labels = list(by_label)  # what stood before first; that of a proposal is None
    precisions = {label: rules.precision(_best(by_label[label], rules)) for label in labels}
    unknown = [label for label in labels if precisions[label] is None]
    known = sorted(precisions.keys() - unknown, key=lambda label: (-(precisions[label] or 0.0), labels.index(label)))
    if known and (labels[0] not in unknown or (precisions[known[0]] or 0.0) >= rules.config.enter):
        return known[0]
    return max([*unknown, *known[:1]], key=lambda label: len(_families(by_label[label], rules, case)))


def _families(claims: Sequence[Claim], rules: Rules, case: Case) -> frozenset[str]:
    """The independent model families that say the same. What derives from others adds none to theirs."""
    return frozenset().union(*(rules.families_of(case.witnesses(claim.region)) for claim in claims))


def _best(claims: Sequence[Claim], rules: Rules) -> Claim:
    """The one whose precision is highest; of equals the first."""
    return max(claims, key=lambda claim: -1.0 if (p := rules.precision(claim)) is None else p)


def _stand(claims: Sequence[Claim], rules: Rules, draft: Draft) -> None:
    """What was seen before, alone or by several, or took the place of what was."""
    best = _best(claims, rules)
    precision = rules.precision(best)
    if _falls(claims, precision, rules):
        for claim in claims:
            draft.decide("reject", claim.region, "imprecise", precision, rules.config.fall)
    elif len(claims) > 1:
        _fuse(claims, rules, draft)
    else:
        won = best.role in ("contested", "renamed")
        reason = "uncalibrated" if precision is None else "more_precise" if won else "precise"
        _place(best, reason, precision, rules, draft)


def _falls(claims: Sequence[Claim], precision: float | None, rules: Rules) -> bool:
    """What no independent source confirms, and a model that looked at the place does not make precise enough."""
    alone = all(claim.role in ("alone", "renamed") for claim in claims)
    judged = any(claim.is_judged or claim.role == "renamed" for claim in claims)
    return alone and judged and precision is not None and precision < rules.config.fall


def _oust(claims: Sequence[Claim], winner: Region, draft: Draft) -> None:
    """What was turned down in one place, for what stands there, if anything does."""
    stands = draft.heirs.get(winner.id, winner)
    if stands.id not in draft.rejected:
        draft.ousted.update({c.region.id: stands for c in claims if c.region.id in draft.rejected})


def _fuse(claims: Sequence[Claim], rules: Rules, draft: Draft) -> None:
    """The places are those of who found it; only renamed it has that of what was renamed."""
    finders = [claim for claim in claims if claim.role != "renamed"] or claims
    precisions = [rules.precision(claim) for claim in finders]
    weights = [1.0 if None in precisions else max(p or 0.0, 1e-3) for p in precisions]
    boxes, of = [claim.region.box for claim in finders], [rules.edges_of(claim) for claim in finders]
    box = fused(boxes, of, weights, _size(draft.case))
    known = [p for claim in claims if (p := rules.precision(claim)) is not None]
    draft.inherit([claim.region for claim in claims], box, "fused", max(known, default=None))


def _place(claim: Claim, reason: str, precision: float | None, rules: Rules, draft: Draft) -> None:
    """It stands, put right if its source's boxes are known to be off."""
    edges = rules.edges_of(claim)
    if edges.is_biased:
        box = fused([claim.region.box], [edges], [1.0], _size(draft.case))
        draft.inherit([claim.region], box, "corrected", precision)
    else:
        draft.stand(claim.region, reason, precision)


def _enter(waiting: Sequence[tuple[Sequence[Claim], Sequence[Claim]]], kind: Kind, rules: Rules, draft: Draft) -> None:
    """New regions in places where nothing was: those that are precise enough; uncalibrated ones, the surest first, as
    far as there is room for their class."""
    standing = Counter(_class(region) for region in draft.standing().regions if _stands(region, kind, draft))
    ranked = sorted(waiting, key=lambda one: (-_value(_best(one[1], rules)), one[1][0].region.id))
    for all_claims, claims in ranked:
        best, label = _best(claims, rules), _class(claims[0].region)
        precision = rules.precision(best)
        if precision is None:
            agreed = len(_families(claims, rules, draft.case)) > 1
            fault = _lacks(best, agreed, standing[label], rules)
        else:
            enter = rules.config.enter
            fault = ("imprecise", precision, enter) if precision < enter else None
        if fault is not None:
            for claim in claims:
                draft.decide("reject", claim.region, *fault)
            continue
        standing[label] += 1
        if len(claims) > 1:
            _fuse(claims, rules, draft)
        else:
            _place(best, "uncalibrated" if precision is None else "precise", precision, rules, draft)
        _oust(all_claims, best.region, draft)


def _lacks(best: Claim, agreed: bool, standing: int, rules: Rules) -> tuple[str, float, float] | None:
    """What keeps an uncalibrated claim out: a word, what was measured, and what it was held against."""
    score, room = math.exp(_value(best)), rules.room(_class(best.region))
    if not agreed and score < rules.config.uncalibrated_score:
        return "unsure_uncalibrated", score, rules.config.uncalibrated_score
    return ("no_room_uncalibrated", standing, room) if standing >= room else None


def _class(region: Region) -> str | None:
    return "" if region.kind == "proposal" else region.label


def _stands(region: Region, kind: Kind, draft: Draft) -> bool:
    """Whether it counts already: new ones that wait for a decision don't."""
    return region.kind == kind and (not draft.case.is_new(region) or region.id in draft.settled)


def _value(claim: Claim) -> float:
    return -math.inf if claim.value is None else claim.value


def _size(case: Case) -> tuple[int, int]:
    return case.record.item.width or 1, case.record.item.height or 1
