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
    """A line where none was read before. Uncalibrated, one more reader has to agree: a class that could have a cap,
    text has not."""
    claims = claims_of(case, cluster, rules.config.sizes)
    precision = max((p for claim in claims if (p := rules.precision(claim)) is not None), default=None)
    if precision is None:
        agreed = len(_families(case, [r for r in cluster if read(r) == read(cluster[0])], rules))
        enters, reason, value, least = agreed > 1, "unread_uncalibrated", float(agreed), 2.0
    else:
        enters, reason, value, least = precision >= rules.config.enter, "imprecise", precision, rules.config.enter
    for place, line in enumerate(cluster):
        if not enters:
            draft.decide("reject", line, reason, value, least)
        elif place == 0:
            draft.stand(line, "agreed" if precision is None else "precise", value, least)
        else:
            draft.yield_to(line, cluster[0], "same_reading" if read(line) == read(cluster[0]) else "other_reading")


def _families(case: Case, lines: Sequence[Region], rules: Rules) -> frozenset[str]:
    return frozenset().union(*(rules.families_of(case.origins(line)) for line in lines))


def read(line: Region) -> str:
    """What is compared: white space does not count."""
    return " ".join((line.text or "").split())
