"""What labelled images say of the claims of sources: which of them are right, and how far off their boxes are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.calibration import Calibration, Sample, Stratum, calibrated
from engine.config import Merge
from engine.geometry import area, intersection
from engine.merge.case import Case
from engine.merge.claims import Claim, claims_of, clusters_of
from engine.merge.edges import Edges, Offsets, edges, offsets
from engine.merge.lines import read
from engine.merge.matching import pairs
from engine.merge.rules import places
from engine.records import HUMAN, KINDS, Kind, Record, Region

IN_CROWD = 0.5  # of a region's area, from which on it is one of a crowd, and neither right nor wrong


@dataclass
class Evidence:
    """Of some images."""

    samples: list[Sample] = field(default_factory=list)
    offsets: list[tuple[tuple[Stratum, ...], Offsets]] = field(default_factory=list)

    def add(self, other: Evidence) -> None:
        self.samples += other.samples
        self.offsets += other.offsets

    def calibration(self, config: Merge) -> Calibration:
        return calibrated(self.samples, config.min_matches)

    def edges(self, config: Merge) -> dict[Stratum, Edges]:
        return edges(self.offsets, config.min_matches)


def evidence_of(case: Case, labels: Record, config: Merge) -> Evidence:
    """Of one image: each claim of a source, held against what people say, one to one at `config.iou`.

    An object is right if its label is, too, a proposal wherever there is an object, a line if it reads the same. Where
    people only wrote captions or lines, nothing is known of objects, and where they wrote down no line, nothing of
    lines.
    """
    found = Evidence()
    for kind in KINDS:
        truth = _truth(labels, kind)
        if truth is None:
            continue
        least = config.iou_proposals if kind == "proposal" else config.iou
        claims = [c for one in clusters_of(case, kind, least) for c in claims_of(case, one, config)]
        # What a source says again in a later round, or of another one's place, is right, or not, by itself.
        groups: dict[tuple[str, bool, bool], list[Claim]] = {}
        for claim in claims:
            groups.setdefault((claim.region.source, claim.new, claim.role == "renamed"), []).append(claim)
        for (source, _, _), theirs in sorted(groups.items()):
            if source != HUMAN:
                _judge(theirs, truth, labels, kind, config, found)
    return found


def _judge(
    claims: Sequence[Claim], truth: Sequence[Region], labels: Record, kind: Kind, config: Merge, found: Evidence
) -> None:
    regions = [_comparable(claim.region, kind) for claim in claims]
    matches = {a: truth[b] for a, b in pairs(regions, truth, config.iou)}
    for place, claim in enumerate(claims):
        true = matches.get(place)
        right = true is not None and true.label == regions[place].label
        if not right and _is_in_crowd(claim.region, labels):
            continue
        if claim.value is not None:
            found.samples.append(Sample(claim.strata, claim.region.label or "", claim.value, right))
        if true is not None and right and claim.drawn_by == claim.region.source:
            found.offsets.append((places(claim), offsets(claim.region.box, true.box)))


def _truth(labels: Record, kind: Kind) -> list[Region] | None:
    """What is to be found; None where nobody can say."""
    regions = [region for region in labels.regions if not region.crowd]
    if kind == "text":
        lines = [_comparable(region, kind) for region in regions if region.kind == "text"]
        return lines or None
    return [_comparable(region, kind) for region in regions if region.kind == "object"] if has_objects(labels) else None


def has_objects(labels: Record) -> bool:
    """Whether people said what is in an image, if only that there is nothing: of one that has captions or lines of text
    alone nobody knows whether it was looked at for objects."""
    return any(region.kind == "object" for region in labels.regions) or not (labels.texts or labels.regions)


def _comparable(region: Region, kind: Kind) -> Region:
    """With what has to agree as its label."""
    return replace(region, label={"object": region.label, "text": read(region), "proposal": None}[kind])


def _is_in_crowd(region: Region, labels: Record) -> bool:
    crowds = (crowd for crowd in labels.regions if crowd.crowd and crowd.label == region.label)
    return any(intersection(region.box, crowd.box) > IN_CROWD * area(region.box) for crowd in crowds)


def together(parts: Iterable[Evidence]) -> Evidence:
    whole = Evidence()
    for part in parts:
        whole.add(part)
    return whole
