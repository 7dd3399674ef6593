"""What people say of some images of the set, by which scores are calibrated and rounds are judged.

Labels come as any annotated image set does, or are what stands in another output folder; see `engine.truth`. An image
is known again by its content alone: what withholds images from training goes by no names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from engine.config import Config, Ingest
from engine.errors import ConfigError, OutputError
from engine.given import canonical
from engine.ingest import listed_digest
from engine.layout import Output
from engine.records import HUMAN, Record
from engine.truth import annotated, matched, told_by
from engine.versions import digest_of_json


@dataclass(frozen=True)
class Labels:
    """Ids of images of the set, and what people say of each: a record of nothing but that. Of the images that were
    labelled `unknown` are not in the set; `faults` are labels that could not be taken as they are, by kind: those of a
    second copy of an image, too ("labelled_twice")."""

    records: Mapping[bytes, Record] = field(default_factory=dict)
    digest: str = ""
    unknown: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def blank(self) -> int:
        """Images without one label."""
        return sum(not record.by_id for record in self.records.values())

    @property
    def ids(self) -> frozenset[bytes]:
        return frozenset(self.records)

    def of(self, ids: Collection[bytes]) -> Labels:
        """Those of some images alone."""
        kept = {id_: record for id_, record in self.records.items() if id_ in ids}
        return Labels(kept, digest_of(kept), self.unknown, self.faults)


NO_LABELS = Labels()


def read_labels(output: Output, config: Config, there: Output | None = None) -> Labels:
    """The labels of `config`, ingested into `there` (the output's own place for them) if they are not yet, or have
    changed. Raises ConfigError where they can't be read, and OutputError where none is of an image of the set."""
    if not config.gate.labels:
        return NO_LABELS
    asked = asked_of(config)
    truth = matched(output, told_by(asked, there or output.labels))
    if not truth.readable:
        errors = ", ".join(f"{kind} {count}" for kind, count in truth.errors.items()) or "there are none"
        raise OutputError(
            f"gate.labels: not one of the {truth.listed} labelled images could be read ({errors}). Paths are "
            "taken from the folder of the file that names them, or from gate.image_root, and must lie in it"
        )
    if not truth.shards:
        raise OutputError(
            f"gate.labels: none of the {truth.readable} labelled images is one of the {output.root} set. An image is "
            "known by its bytes: label the files themselves, not copies in another size or format"
        )
    found = {id_: canonical(record, config.vocabulary) for id_, record in truth.records().items()}
    if not truth.faults and not any(record.by_id for record in found.values()):
        raise OutputError(
            f"gate.labels: the {len(found)} images of {', '.join(config.gate.labels)} have no labels, as engine audit "
            "writes them: mark what is in them first (README.txt beside them says how)"
        )
    faults = {**truth.faults, **({"labelled_twice": truth.twice} if truth.twice else {})}
    return Labels(found, digest_of(found), len(truth.strangers), faults)


def asked_of(config: Config) -> Ingest:
    """What is to be ingested. ConfigError where something is not there."""
    asked = config.ingest.model_copy(
        update={"images": config.gate.labels, "image_root": config.gate.image_root, "limit": None, "source": HUMAN}
    )
    try:
        if annotated(asked).images:
            listed_digest(annotated(asked))
    except ConfigError as error:
        raise ConfigError(f"gate.labels: {error}") from error
    return asked


def digest_of(records: Mapping[bytes, Record]) -> str:
    """Of what is said of which image, wherever it was read."""
    said = sorted((id_.hex(), repr(list(record.annotations()))) for id_, record in records.items())
    return digest_of_json(said) if said else ""
