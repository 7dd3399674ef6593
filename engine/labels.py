"""What people say of some images of the set, by which scores are calibrated and rounds are judged.

Labels come as any annotated image set does, and are ingested into a folder of their own. An image is known again by its
content: wherever the labelled copy lies, its bytes are those of an image of the set.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from engine.config import Config, Ingest
from engine.errors import ConfigError, OutputError
from engine.given import canonical
from engine.ingest import ingest, listed_digest
from engine.records import Record
from engine.storage import Output, read_given, read_json, read_table
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
    asked, listed = asked_of(config)
    there = there or output.labels
    if not there.manifest.exists() or read_json(there.manifest)["listed"] != listed:
        shutil.rmtree(there.root, ignore_errors=True)
        ingest(there, asked, digest_of_json(asked.model_dump(mode="json", exclude={"http"})), lambda done: None)
    told: dict[bytes, Record] = {}
    twice = 0
    for record in (record for shard in there.shards() for record in read_given(there, shard)):
        if record.item.content_id and not record.error and not record.item.duplicate_of:
            told[record.item.content_id] = canonical(record, config.vocabulary)
        twice += bool(record.item.duplicate_of and record.by_id)
    found = {id_: told[content] for id_, content in _contents(output).items() if content in told}
    manifest = read_json(there.manifest)
    if not told:
        errors = ", ".join(f"{kind} {count}" for kind, count in manifest["errors"].items()) or "there are none"
        raise OutputError(
            f"gate.labels: not one of the {manifest['items']} labelled images could be read ({errors}). Paths are "
            "taken from the folder of the file that names them, or from gate.image_root, and must lie in it"
        )
    if not found:
        raise OutputError(
            f"gate.labels: none of the {len(told)} labelled images is one of the {output.root} set. An image is known "
            "by its bytes: label the files themselves, not copies in another size or format"
        )
    if not manifest["faults"] and not any(record.by_id for record in found.values()):
        raise OutputError(
            f"gate.labels: the {len(found)} images of {', '.join(config.gate.labels)} have no labels, as engine audit "
            "writes them: mark what is in them first (README.txt beside them says how)"
        )
    faults = manifest["faults"] | ({"labelled_twice": twice} if twice else {})
    return Labels(found, digest_of(found), len(told) - len(found), faults)


def asked_of(config: Config) -> tuple[Ingest, str]:
    """What is to be ingested, and the digest of its listing. ConfigError where something is not there."""
    asked = config.ingest.model_copy(
        update={"images": config.gate.labels, "image_root": config.gate.image_root, "limit": None}
    )
    try:
        return asked, listed_digest(asked)
    except ConfigError as error:
        raise ConfigError(f"gate.labels: {error}") from error


def digest_of(records: Mapping[bytes, Record]) -> str:
    """Of what is said of which image, wherever it was read."""
    said = sorted((id_.hex(), repr(list(record.annotations()))) for id_, record in records.items())
    return digest_of_json(said) if said else ""


def _contents(output: Output) -> dict[bytes, bytes]:
    """The hashes of all images that are there once, by their ids."""
    contents: dict[bytes, bytes] = {}
    for shard in output.shards():
        for row in read_table(output.items(shard), ["item_id", "content_id", "duplicate_of"]).to_pylist():
            if row["content_id"] is not None and row["duplicate_of"] is None:
                contents[row["item_id"]] = row["content_id"]
    return contents
