"""Where everything lies in an output folder, and the only place that reads or writes it.

    out/
      .engine-lock                                           who runs; its presence says that the folder is ours
      config.yaml                                            the resolved configuration
      images/part-00000/shard-00000.parquet                  the manifest: one row an item
      images/manifest.json                                   what ingest found; written last
      given/part-00000/shard-00000.parquet                   annotations that came along with the images
      downloads/                                             images that were at http(s) URLs
      round-0/annotations/part-00000/shard-00000.parquet     immutable
      round-0/decisions/part-00000/shard-00000.parquet       written last: it says that the shard is done
      round-0/notes/part-00000/shard-00000                   what a worker has in hand; gone when the shard is done
      round-0/near_duplicates.parquet                        images that look like another one
      round-0/sources.json, summary.json                     summary.json is written last
      round-0/training/fold-0/                               checkpoints, log.jsonl, TensorBoard, sample answers
      round-0/model/                                         a Florence-2 trained on the round; fold-0/, ... if several
      round-1/                                               what that model adds: annotations/, decisions/, ...
      round-1/merge/                                         what merging adds to that: annotations/, decisions/, ...
      round-1/round.json                                     what the round comes to, and whether it was accepted
      labels/                                                images that people labelled, by which rounds are judged
      report/index.html                                      a page to look at

Files are written aside and renamed, so that a file that is there is whole, whoever was killed when.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.entry import Fault
from engine.errors import OutputError
from engine.records import Item, Record
from engine.rounds import joined
from engine.schema import (
    ANNOTATION_COLUMNS,
    VERSION,
    annotations_to_table,
    decisions_to_table,
    faults_from_table,
    given_to_table,
    items_from_table,
    records_from_tables,
)

_ASIDE = re.compile(r"\..+\.aside-[0-9a-f]{32}")
LOCK = ".engine-lock"  # the run's lock; a folder that has it was made by the engine


@dataclass(frozen=True, order=True, slots=True)
class ShardId:
    """A shard's place: its partition and its number there."""

    partition: int
    number: int

    def __str__(self) -> str:
        return f"part-{self.partition:05d}/shard-{self.number:05d}"

    @classmethod
    def of(cls, path: Path) -> ShardId:
        """The shard that a file of its is named after."""
        return cls(int(path.parent.name.removeprefix("part-")), int(path.stem.removeprefix("shard-")))


@dataclass(frozen=True)
class Layer:
    """The files of what was added together: annotations and, beside them, decisions."""

    folder: Path

    @property
    def sources(self) -> Path:
        return self.folder / "sources.json"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def annotations(self, shard: ShardId) -> Path:
        return self.folder / "annotations" / f"{shard}.parquet"

    def decisions(self, shard: ShardId) -> Path:
        return self.folder / "decisions" / f"{shard}.parquet"

    def digests(self, shards: Iterable[ShardId]) -> set[str]:
        """Of the configurations that made its decisions; a shard without any counts as ""."""
        return {shard_digest(self.decisions(shard)) or "" for shard in shards}


@dataclass(frozen=True)
class Round(Layer):
    """The files of one round."""

    @property
    def number(self) -> int:
        return int(self.folder.name.removeprefix("round-"))

    @property
    def merge(self) -> Layer:
        """What merging adds to the round."""
        return Layer(self.folder / "merge")

    @property
    def choice(self) -> Path:
        """Which images the round takes, where those are not all; see `engine.folds.Choice`."""
        return self.folder / "choice.json"

    @property
    def manifest(self) -> Path:
        """What the round was made of, what it comes to, and whether it was accepted; written last."""
        return self.folder / "round.json"

    @property
    def near_duplicates(self) -> Path:
        return self.folder / "near_duplicates.parquet"

    @property
    def training(self) -> Path:
        """What trainings of this round keep: checkpoints, logs and sample answers, a folder a fold."""
        return self.folder / "training"

    def model(self, fold: int = 0, folds: int = 1) -> Path:
        """The model trained on this round; of several, that which was kept from `fold`."""
        return self.folder / "model" if folds == 1 else self.folder / "model" / f"fold-{fold}"

    def note(self, shard: ShardId) -> Path:
        return self.folder / "notes" / str(shard)


@dataclass(frozen=True)
class Output:
    """An output folder. Nothing is created before something is written."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "images" / "manifest.json"

    def items(self, shard: ShardId) -> Path:
        return self.root / "images" / f"{shard}.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def given(self, shard: ShardId) -> Path:
        return self.root / "given" / f"{shard}.parquet"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def labels(self) -> Output:
        """Images that people labelled, by which rounds are judged: a manifest of its own, and what came along."""
        return Output(self.root / "labels")

    def round(self, number: int) -> Round:
        return Round(self.root / f"round-{number}")

    def layers(self, number: int, shard: ShardId, *, merged: bool = True) -> list[tuple[int, Layer]]:
        """What makes up a shard in a round, in order, each with its round's number; with what merging added to the
        last one only if `merged`."""
        layers: list[tuple[int, Layer]] = []
        for before in range(number + 1):
            round_ = self.round(before)
            layers.append((before, round_))
            if round_.merge.decisions(shard).exists() and (merged or before < number):
                layers.append((before, round_.merge))
        return layers

    def shards(self) -> Iterator[ShardId]:
        """The shards of the manifest, in order. Raises OutputError where ingest has not ended."""
        if not self.manifest.exists():
            raise OutputError(f"{self.root} has no manifest: nothing was ingested there, or ingest did not end")
        for number, partition in enumerate(read_json(self.manifest)["partitions"]):
            yield from (ShardId(number, shard) for shard in range(partition["shards"]))

    def counts(self) -> dict[ShardId, int]:
        """How many items each shard of the manifest holds."""
        counts = {}
        for number, partition in enumerate(read_json(self.manifest)["partitions"]):
            size = partition["shard_size"]
            for shard in range(partition["shards"]):
                counts[ShardId(number, shard)] = min(size, partition["items"] - shard * size)
        return counts

    def forget(self, shard: ShardId) -> None:
        """Removes what was made of a shard's items, in all rounds: they are about to be others."""
        for folder in self.root.glob("round-*"):
            round_ = Round(folder)
            for layer in (round_, round_.merge):
                for path in (layer.summary, layer.decisions(shard), layer.annotations(shard)):
                    path.unlink(missing_ok=True)
            round_.near_duplicates.unlink(missing_ok=True)
            round_.manifest.unlink(missing_ok=True)

    def check_ours(self) -> None:
        """Raises OutputError if it is anything but new, empty, or a folder that the engine made."""
        try:
            str(self.root).encode()  # Arrow opens no other
            there = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        except (OSError, UnicodeEncodeError) as error:
            name = os.fsencode(self.root).decode(errors="replace")
            raise OutputError(f"{name} can't be an output folder: {error}. Name another with --out.") from error
        if there and LOCK not in there:
            raise OutputError(
                f"{self.root} holds files that are no run's output ({', '.join(there[:3])}"
                f"{', ...' if len(there) > 3 else ''}). Name a new or empty folder with --out."
            )

    def clear(self) -> None:
        """Removes what the engine wrote, and nothing else. Links are removed, not followed."""
        self.check_ours()
        written = [self.config, self.manifest, *self.root.glob("images/part-*"), *self.root.glob("round-*")]
        written += [self.root / "given", self.downloads, self.report.parent, self.labels.root]
        for path in written:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes the files that killed runs left half-written. Only for the holder of the run's lock."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if _ASIDE.fullmatch(name):
                    (Path(folder) / name).unlink(missing_ok=True)


def read_items(output: Output, shard: ShardId) -> list[Item]:
    return items_from_table(read_table(output.items(shard)))


def read_records(
    output: Output,
    round_number: int,
    shard: ShardId,
    *,
    columns: Sequence[str] = ANNOTATION_COLUMNS,
    decided: bool = True,
    merged: bool = True,
) -> list[Record]:
    """A shard's records as they are in a round: with the annotations of `columns`, and the decisions, of all rounds up
    to it; without the decisions of any if `decided` is False, and as the round was before merging if `merged` is."""
    return read_shard(output, round_number, shard, columns=columns, decided=decided, merged=merged).records()


def read_shard(
    output: Output,
    round_number: int,
    shard: ShardId,
    *,
    columns: Sequence[str] = ANNOTATION_COLUMNS,
    decided: bool = True,
    merged: bool = True,
) -> Tables:
    """As `read_records`, but nothing is made a record yet: that takes 50 times as long as reading."""
    items = read_table(output.items(shard))
    layers = output.layers(round_number, shard, merged=merged)
    there = [_of_layer(layer, shard, items, output.items(shard), columns, decided) for _, layer in layers]
    return Tables(items, tuple(there), tuple(number for number, _ in layers))


@dataclass(frozen=True)
class Tables:
    """What was read of a shard: its items, and of each layer annotations and, if they were read, decisions; and the
    rounds that the layers are of."""

    items: pa.Table
    layers: tuple[tuple[pa.Table, pa.Table | None], ...]
    numbers: tuple[int, ...]

    def records(self, rows: Sequence[int] | None = None) -> list[Record]:
        """Those of the rows, in their order; of all if none are named."""

        def chosen(table: pa.Table | None) -> pa.Table | None:
            return table if rows is None or table is None else table.take(list(rows))

        of_layers = (
            records_from_tables(chosen(self.items), chosen(annotations), chosen(decisions), number)
            for number, (annotations, decisions) in zip(self.numbers, self.layers, strict=True)
        )
        return reduce(lambda before, new: list(map(joined, before, new)), of_layers)


def _of_layer(
    layer: Layer, shard: ShardId, items: pa.Table, items_path: Path, columns: Sequence[str], decided: bool
) -> tuple[pa.Table, pa.Table | None]:
    """What was added together."""
    annotations = read_table(layer.annotations(shard), ["item_id", "error", "perceptual_hash", *columns])
    decisions = read_table(layer.decisions(shard)) if decided else None
    for table, path in ((annotations, layer.annotations(shard)), (decisions, layer.decisions(shard))):
        if table is not None and table.column("item_id") != items.column("item_id"):
            raise OutputError(f"{path} is of other images than {items_path}. {_remedy(path)}")
    return annotations, decisions


def content_digest(output: Output, shard: ShardId) -> str:
    """Of which images a shard has, and of what came along with them: 12 hex digits."""
    ids = read_table(output.items(shard), ["item_id"]).column("item_id")
    given = output.given(shard).read_bytes() if output.given(shard).exists() else b""
    return hashlib.sha256(b"".join([*ids.to_pylist(), given])).hexdigest()[:12]


def write_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]], digest: str) -> None:
    """What came along with a shard's images; no file if nothing did."""
    if any(record.by_id or faults for record, faults in taken):
        write_table(output.given(shard), given_to_table(taken), digest)
    else:
        output.given(shard).unlink(missing_ok=True)


def has_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]]) -> bool:
    """Whether `write_given` wrote the same."""
    table = given_to_table(taken)
    if output.given(shard).exists():
        return bool(read_table(output.given(shard)).equals(table))
    return not any(record.by_id or faults for record, faults in taken)


def read_given(output: Output, shard: ShardId) -> list[Record]:
    """A shard's records before anybody annotates: its items, and what came along with them."""
    items = read_table(output.items(shard))
    path = output.given(shard)
    if not path.exists():
        return [Record(item, error=item.error) for item in items_from_table(items)]
    given = read_table(path).drop_columns(["faults"])
    if given.column("item_id") != items.column("item_id"):
        raise OutputError(f"{path} is of other images than {output.items(shard)}. {_remedy(path)}")
    return [replace(record, error=record.item.error) for record in records_from_tables(items, given)]


def read_faults(output: Output, shard: ShardId) -> list[tuple[bytes, Fault]]:
    """What was wrong with what came along with a shard's images: item ids and faults."""
    if not output.given(shard).exists():
        return []
    return faults_from_table(read_table(output.given(shard), ["item_id", "faults"]))


def write_annotations(layer: Layer, shard: ShardId, records: Sequence[Record], digest: str) -> None:
    write_table(layer.annotations(shard), annotations_to_table(records), digest)


def write_decisions(layer: Layer, shard: ShardId, records: Sequence[Record], digest: str) -> None:
    write_table(layer.decisions(shard), decisions_to_table(records), digest)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard, or some of its columns; "regions.list.element.kind" names one inside."""
    with _damage_named(path), pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def write_table(path: Path, table: pa.Table, digest: str = "") -> None:
    """Writes `table` as Parquet, with the schema's version and the digest of the configuration that made it."""
    metadata = {"engine.schema": str(VERSION), "engine.digest": digest}
    with aside(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


def shard_digest(path: Path) -> str | None:
    """The digest that a shard was written with; None when it isn't there."""
    if not path.exists():
        return None
    with _damage_named(path):
        metadata = pq.read_schema(path).metadata or {}
    version = metadata.get(b"engine.schema", b"").decode()
    if version != str(VERSION):
        raise OutputError(
            f"{path} has schema version {version or 'none'}; this engine reads version {VERSION}. "
            "Name another folder with --out, or start afresh with --overwrite."
        )
    return str(metadata[b"engine.digest"].decode())


def read_json(path: Path) -> Any:
    with _damage_named(path):
        return json.loads(path.read_bytes())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with aside(path) as file:
        file.write(text.encode())


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when it is whole and on the disk, and is gone if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.aside-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or the name might outlive a power cut, and the content not
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a file that the engine wrote into an OutputError with a way out."""
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, pa.ArrowException) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise OutputError(f"{path} {what}. {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    """What brings a lost file back: a shard is done again if its last file is not there."""
    for folder in path.parents:
        if folder.name == "given":
            return f"Remove {folder.with_name('images') / 'manifest.json'} and {path}, and run again."
        if folder.name == "images":
            return f"Remove {folder / 'manifest.json'} and run again: the images are ingested anew."
        if folder.name in ("annotations", "decisions"):
            decisions = folder.with_name("decisions") / path.relative_to(folder)
            return f"Remove {decisions} and run again: its images are annotated anew."
    return f"Remove {path} and run again, or start afresh with --overwrite."
