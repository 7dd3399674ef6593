"""One shard, in all its layers: whole, of one schema, of the same images everywhere, and what it speaks of is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.atomic import read_bytes
from engine.config import Ingest
from engine.errors import ImageError, OutputError
from engine.ingest import unknown_uri
from engine.layout import Layer, Output, ShardId
from engine.reading import read
from engine.records import Item, digest16
from engine.schema import ANNOTATION_COLUMNS, ANNOTATIONS, DECISIONS, GIVEN, ITEMS, VERSION
from engine.storage import content_ids_in, digest_of_content
from engine.summary import count_round
from engine.verify.findings import Finding
from engine.verify.references import faults

AGAIN = "remove it, and run again: its images are annotated anew"
INGEST_AGAIN = (
    "remove the shard's items and round 0's marker of its partition, and run again: they are ingested anew, and what "
    "was made of them stays"
)


@dataclass(frozen=True)
class Stored:
    """A file of a shard that could be read: its table, the digest of what made it, and of annotations which images
    they are of."""

    path: Path
    table: pa.Table
    digest: str
    content_ids: Sequence[bytes | None] | None = None


@dataclass
class ShardReport:
    """What one shard comes to."""

    shard: ShardId
    findings: list[Finding] = field(default_factory=list)
    rows: int = 0
    annotations: int = 0
    images: int = 0
    ids: bytes = b""  # of its items, 16 bytes each
    originals: tuple[bytes, ...] = ()  # that its duplicates name
    content: str = ""  # digest of its images and of what came along, where these are whole
    done: set[str] = field(default_factory=set)  # layers that have its decisions, whole or not
    begun: set[str] = field(default_factory=set)  # and those that have its annotations
    counts: dict[int, dict[str, Any]] = field(default_factory=dict)  # by round, as `count_round` has them
    digests: dict[str, tuple[str, str]] = field(default_factory=dict)  # by layer, of annotations and decisions


@dataclass(frozen=True)
class ShardCheck:
    """Checks one shard. `looked_at` are the rows, by shard, whose images are read; None: of all."""

    output: Output
    layers: tuple[tuple[int, Layer], ...]
    rows: Mapping[ShardId, int]
    made_by: Sequence[str]  # by partition, the digest of what read its images
    ingest: Ingest
    looked_at: Mapping[ShardId, Sequence[int]] | None

    def __call__(self, shard: ShardId) -> ShardReport:
        report = ShardReport(shard)
        items = self._items(report)
        if items is None:
            list(self._layers(report, None))
            return report
        report.rows, report.ids = len(items.table), b"".join(items.table["item_id"].to_pylist())
        report.originals = tuple(items.table["duplicate_of"].drop_null().unique().to_pylist())
        self._given(report, items)
        report.content = "" if report.findings else digest_of_content(report.ids, self._bytes_given(shard))
        layers = list(self._layers(report, items))
        if layers and not report.findings:
            report.findings += self._faults(shard, items, layers)
            lengths = [pc.list_value_length(made.table[c]) for _, _, made, _ in layers for c in ANNOTATION_COLUMNS]
            report.annotations = sum(pc.sum(length).as_py() or 0 for length in lengths)
            if not report.findings:
                report.counts = self._counted(shard, layers)
        report.findings += self._images(report, items)
        return report

    def relative(self, path: Path) -> str:
        return path.relative_to(self.output.root).as_posix()

    def _items(self, report: ShardReport) -> Stored | None:
        path = self.output.items(report.shard)
        wrong = self._ingested(report.shard)
        try:
            items = stored(path, ITEMS)
        except FileNotFoundError:
            report.findings.append(Finding("missing", wrong[0], "the manifest speaks of it", INGEST_AGAIN, wrong))
            return None
        except NotWhole as error:
            report.findings.append(Finding(error.kind, wrong[0], str(error), INGEST_AGAIN, wrong))
            return None
        ids = items.table["item_id"].to_pylist()
        expected = self.rows[report.shard]
        if len(ids) != expected:
            message = f"it has {len(ids)} rows, the manifest says {expected}"
            report.findings.append(Finding("rows", wrong[0], message, INGEST_AGAIN, wrong))
        rows = zip(ids, items.table["uri"].to_pylist(), strict=True)
        foreign = [uri for id_, uri in rows if id_ != Item.id_of(uri) and uri != unknown_uri(id_)]
        if foreign:
            message = f"{len(foreign)} ids are not their images', the first that of {foreign[0][:200]}"
            report.findings.append(Finding("foreign_id", wrong[0], message, INGEST_AGAIN, wrong))
        if items.digest != (made_by := self.made_by[report.shard.partition]):
            message = f"made by configuration {items.digest or 'none'}, by the manifest by {made_by}"
            report.findings.append(Finding("digest", wrong[0], message, INGEST_AGAIN, wrong))
        return items

    def _ingested(self, shard: ShardId) -> tuple[str, ...]:
        return tuple(map(self.relative, ingested_again(self.output, shard)))

    def _given(self, report: ShardReport, items: Stored) -> None:
        path = self.output.given(report.shard)
        name, again = self.relative(path), self._ingested(report.shard)
        try:
            given = stored(path, GIVEN)
        except FileNotFoundError:
            return
        except NotWhole as error:
            report.findings.append(Finding(error.kind, name, str(error), INGEST_AGAIN, (name, *again)))
            return
        if not _same(given, items) and not self._is_told(report, items.path):
            report.findings.append(Finding("other_images", name, _other(given, items), INGEST_AGAIN, again))

    def _bytes_given(self, shard: ShardId) -> bytes:
        try:
            return read_bytes(self.output.given(shard))
        except FileNotFoundError:  # nothing came along
            return b""

    def _layers(self, report: ShardReport, items: Stored | None) -> Iterator[tuple[int, Layer, Stored, Stored | None]]:
        """The layers whose files can be read, and are of the same images. Without these no more is said than which
        files can't be read."""
        for number, layer in self.layers:
            # In this order, or a run might write both in between, and the first would be told missing.
            decisions = self._stored(report, layer, layer.decisions(report.shard), DECISIONS)
            annotations = self._stored(report, layer, layer.annotations(report.shard), ANNOTATIONS)
            name = self.relative(layer.folder)
            if decisions or self._is_told(report, layer.decisions(report.shard)):
                report.done.add(name)
            if annotations:
                report.begun.add(name)
                report.digests[name] = (annotations.digest, decisions.digest if decisions else "")
            if decisions and annotations is None:
                if not any(f.path == self.relative(layer.annotations(report.shard)) for f in report.findings):
                    report.findings.append(
                        self._of(
                            layer, report.shard, "missing", layer.annotations(report.shard), "its decisions are there"
                        )
                    )
                continue
            if items is None or annotations is None:
                continue
            if self._of_others(report, layer, items, annotations, decisions):
                continue
            if decisions:
                report.findings += self._of_other_bytes(report.shard, layer, items, annotations)
            yield number, layer, annotations, decisions

    def _stored(self, report: ShardReport, layer: Layer, path: Path, schema: pa.Schema) -> Stored | None:
        try:
            return stored(path, schema)
        except FileNotFoundError:
            return None
        except NotWhole as error:
            report.findings.append(self._of(layer, report.shard, error.kind, path, str(error)))
            return None

    def _is_told(self, report: ShardReport, path: Path) -> bool:
        """Whether the file is there, and a finding."""
        return any(finding.path == self.relative(path) for finding in report.findings)

    def _of_others(
        self, report: ShardReport, layer: Layer, items: Stored, annotations: Stored, decisions: Stored | None
    ) -> bool:
        """Whether a layer's files are of other images than the manifest's. Where both are of the same others, it is the
        manifest's shard that is in the wrong place; and where that is at fault anyway, nothing is said of them."""
        other = [one for one in (annotations, decisions) if one and not _same(one, items)]
        for one in other if not self._is_told(report, items.path) else ():
            finding = self._of(layer, report.shard, "other_images", one.path, _other(one, items))
            if len(other) == 2 and decisions and _same(annotations, decisions):
                remove = self._ingested(report.shard)
                finding = Finding(finding.kind, finding.path, finding.message, INGEST_AGAIN, remove)
            report.findings.append(finding)
        return bool(other)

    def _of_other_bytes(self, shard: ShardId, layer: Layer, items: Stored, annotations: Stored) -> Iterator[Finding]:
        """Where annotations are of other bytes than the manifest's, the file of the first one tells who is right. What
        failed is of nothing: it may be another file by now."""
        rows = zip(annotations.content_ids or (), items.table["content_id"].to_pylist(), strict=False)
        made = annotations.table["error"].is_null().to_pylist()
        other = [row for row, (then, now) in enumerate(rows) if made[row] and then != now]
        if not other:
            return
        uri, then = items.table["uri"][other[0]].as_py(), (annotations.content_ids or ())[other[0]]
        message = f"{len(other)} of its images have other bytes than by the manifest, the first of them {uri[:200]}"
        finding = self._of(layer, shard, "other_bytes", annotations.path, message)
        if then and not image_fault(self.output, self.ingest, uri, then):
            finding = replace(finding, remedy=INGEST_AGAIN, remove=self._ingested(shard))
        yield finding

    def _of(self, layer: Layer, shard: ShardId, kind: str, path: Path, message: str) -> Finding:
        """A fault in a layer's shard. Decisions are made again with the annotations that they are about."""
        remove = {path, layer.decisions(shard), layer.closed(shard.partition), layer.summary}
        if path != layer.decisions(shard):
            remove.add(layer.annotations(shard))
        return Finding(kind, self.relative(path), message, AGAIN, tuple(sorted(map(self.relative, remove))))

    def _faults(
        self, shard: ShardId, items: Stored, layers: Sequence[tuple[int, Layer, Stored, Stored | None]]
    ) -> Iterator[Finding]:
        tables = [
            (annotations.table, decisions.table if decisions else None) for _, _, annotations, decisions in layers
        ]
        for fault in faults(items.table, tables):
            _, layer, annotations, decisions = layers[fault.layer]
            path = decisions.path if fault.in_decisions and decisions else annotations.path
            uri = items.table["uri"][fault.row].as_py()
            more = f", and {fault.count - 1} more" if fault.count > 1 else ""
            yield self._of(layer, shard, fault.kind, path, f"{uri[:200]}: {fault.message}{more}")

    def _counted(
        self, shard: ShardId, layers: Sequence[tuple[int, Layer, Stored, Stored | None]]
    ) -> dict[int, dict[str, Any]]:
        """As the markers and summaries have it: of rounds that are decided on, without what merging added to them."""
        numbers = [n for n, layer, _, decisions in layers if decisions and layer == self.output.round(n)]
        try:
            return {number: count_round(self.output, number, [shard], merged=False) for number in numbers}
        except OutputError:  # a run has removed something since
            return {}

    def _images(self, report: ShardReport, items: Stored) -> Iterator[Finding]:
        rows = range(len(items.table)) if self.looked_at is None else self.looked_at.get(report.shard, ())
        ids, uris = items.table["content_id"], items.table["uri"]
        for row in rows:
            wanted = ids[row].as_py() if row < len(ids) else None
            if wanted is None:  # could not be read when it was ingested
                continue
            report.images += 1
            if fault := image_fault(self.output, self.ingest, uris[row].as_py(), wanted):
                yield fault


def ingested_again(output: Output, shard: ShardId) -> tuple[Path, Path]:
    """The files of a shard without which the next run ingests it anew: see `engine.ingest.restoring`."""
    return output.items(shard), output.round(0).closed(shard.partition)


def image_fault(output: Output, ingest: Ingest, uri: str, content_id: bytes) -> Finding | None:
    """What is wrong with an image: gone, or another one by now."""
    bring = "bring back the file that was ingested; to take it as it is now, name another --out"
    try:
        data = read(uri, max_bytes=ingest.max_bytes, downloads=output.downloads)
    except ImageError as error:
        return Finding(f"image_{error.kind}", uri, error.message, bring)
    if digest16(data) != content_id:
        return Finding("image_changed", uri, "it is not the file that was ingested", bring)
    return None


class NotWhole(ValueError):
    """A file that can't be read, or is not what it should be. `kind` is the finding's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def stored(path: Path, schema: pa.Schema) -> Stored:
    """A shard's file, all of it read and its pages' checksums compared. Raises NotWhole; FileNotFoundError where it is
    not there."""
    data = read_bytes(path)
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            content_ids = content_ids_in(file.metadata)
            table = file.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotWhole("damaged", f"it can't be read whole: {str(error).splitlines()[0][:200]}") from error
    version = metadata.get(b"engine.schema", b"").decode(errors="replace")
    if version != str(VERSION):
        raise NotWhole("version", f"it has schema version {version or 'none'}, this engine has {VERSION}")
    if not table.schema.remove_metadata().equals(schema):
        differ = [name for name in {*table.schema.names, *schema.names} if not _equal(table.schema, schema, name)]
        raise NotWhole("schema", f"its columns are not those of version {VERSION}: {', '.join(sorted(differ))}")
    told = metadata.get(b"engine.digest", b"").decode(errors="replace")
    return Stored(path, table.combine_chunks(), told, content_ids)


def _equal(one: pa.Schema, other: pa.Schema, name: str) -> bool:
    return name in one.names and name in other.names and bool(one.field(name).equals(other.field(name)))


def _same(one: Stored, other: Stored) -> bool:
    return bool(one.table["item_id"].equals(other.table["item_id"]))


def _other(one: Stored, items: Stored) -> str:
    mine, theirs = set(one.table["item_id"].to_pylist()), set(items.table["item_id"].to_pylist())
    if mine == theirs:
        return f"its {len(one.table)} rows are the manifest's in another order, or some of them twice"
    return f"{len(mine - theirs)} of its images are not the manifest's, and {len(theirs - mine)} of those are not in it"
