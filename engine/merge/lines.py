"""Lines of text: the specialist's string stands unless two independent sources read another one alike."""

from __future__ import annotations

from collections.abc import Sequence

from engine.merge.case import Case
from engine.merge.claims import claims_of, clusters_of
from engine.merge.draft import Draft
from engine.merge.rules import Rules
from engine.records import HUMAN, Region


def merge_lines(case: Case, rules: Rules, draft: Draft) -> None:
    for cluster in clusters_of(case, "text", rules.config.iou):
        if all(case.is_new(line) for line in cluster):
            _enter(case, cluster, rules, draft)
        elif len(cluster) > 1:
            _agree(case, cluster, rules, draft)
        else:
            draft.stand(cluster[0], "read_once")


def _agree(case: Case, cluster: Sequence[Region], rules: Rules, draft: Draft) -> None:
    """Several have read a line: the string of two independent families or more prevails, of equals the first."""
    first = cluster[0]
    readings: dict[str, list[Region]] = {}
    for line in cluster:
        readings.setdefault(read(line), []).append(line)
    support = {text: len(_families(case, lines, rules)) for text, lines in readings.items()}
    best = max(readings, key=lambda text: support[text])
    prevails = first.source != HUMAN and support[best] > max(1, support[read(first)])
    stands = readings[best][0] if prevails else first
    draft.stand(stands, "agreed" if support[read(stands)] > 1 else "specialist", support[read(stands)])
    for line in cluster:
        if line is not stands:
            draft.yield_to(line, stands, "same_reading" if read(line) == read(stands) else "other_reading")


def _enter(case: Case, cluster: Sequence[Region], rules: Rules, draft: Draft) -> None:
    """A line where none was read before: the reading of the highest calibrated precision, or, uncalibrated, that of
    most independent families, of which there must be two: a class that could have a cap, text has not."""
    claims = claims_of(case, cluster, rules.config)
    precisions = {claim.region.id: p for claim in claims if (p := rules.precision(claim)) is not None}
    support = {line.id: len(_families(case, [r for r in cluster if read(r) == read(line)], rules)) for line in cluster}
    if precisions:
        best = max(cluster, key=lambda line: precisions.get(line.id, -1.0))
        value, least = precisions[best.id], rules.config.enter
        reason, faulty = "precise", "imprecise"
    else:
        best = max(cluster, key=lambda line: support[line.id])
        value, least = float(support[best.id]), 2.0
        reason, faulty = "agreed", "unread_uncalibrated"
    for line in cluster:
        if value < least:
            draft.decide("reject", line, faulty, value, least)
        elif line is best:
            draft.stand(line, reason, value, least)
        else:
            draft.yield_to(line, best, "same_reading" if read(line) == read(best) else "other_reading")


def _families(case: Case, lines: Sequence[Region], rules: Rules) -> frozenset[str]:
    return frozenset().union(*(rules.families_of(case.witnesses(line)) for line in lines))


def read(line: Region) -> str:
    """What is compared: white space does not count."""
    return " ".join((line.text or "").split())
