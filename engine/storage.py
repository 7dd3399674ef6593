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
      round-0/partitions/part-00000.json                     what a partition comes to whose shards are all done
      logs/<run id>.jsonl                                    what happened in a run; on an object store in parts
      round-0/progress.json                                  how it goes, for those who look from elsewhere
      round-0/near_duplicates.parquet                        images that look like another one
      round-0/sources.json, summary.json                     summary.json is written last
      round-0/training/fold-0/                               checkpoints, log.jsonl, TensorBoard, sample answers
      round-0/model/                                         a Florence-2 trained on the round; fold-0/, ... if several
      round-1/                                               what that model adds: annotations/, decisions/, ...
      round-1/merge/                                         what merging adds to that: annotations/, decisions/, ...
      round-1/round.json                                     what the round comes to, and whether it was accepted
      labels/                                                images that people labelled, by which rounds are judged
      evaluation/<digest>/                                   annotated sets that it was evaluated by, as in labels/
      contamination.parquet                                  images that are in evaluation sets, to be kept from models
      export/coco/                                           what stands, for others to read, by format
      report/index.html                                      a page to look at; gallery/, ... beside it if it is large

Files are written aside and renamed, so that a file that is there is whole, whoever was killed when. On an object store
(`engine.places`), which renames nothing, they are put together on this machine and sent as a whole: what breaks off is
no object. Whoever looks for many files lists their folder (`there`): each question of its own is a request.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.entry import Fault
from engine.errors import OutputError
from engine.files import opened
from engine.places import filesystem, is_local, reached
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
SMALL_BYTES = 1 << 20  # of a file on a store: reading some columns takes three requests, and all of it one
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

    @property
    def progress(self) -> Path:
        """How the stage that makes it goes; see `engine.heartbeat`."""
        return self.folder / "progress.json"

    def closed(self, partition: int) -> Path:
        """Says that all shards of a partition are done; see `engine.partitions`."""
        return self.folder / "partitions" / f"part-{partition:05d}.json"

    def annotations(self, shard: ShardId) -> Path:
        return self.folder / "annotations" / f"{shard}.parquet"

    def decisions(self, shard: ShardId) -> Path:
        return self.folder / "decisions" / f"{shard}.parquet"


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

    def evaluation(self, digest: str) -> Output:
        """Annotated sets that it was evaluated by: a manifest of their own, and what came along."""
        return Output(self.root / "evaluation" / digest)

    @property
    def contamination(self) -> Path:
        """Images that are in evaluation sets; see `engine.contamination`."""
        return self.root / "contamination.parquet"

    def round(self, number: int) -> Round:
        return Round(self.root / f"round-{number}")

    def layers(self, number: int, shard: ShardId, *, merged: bool = True) -> list[tuple[int, Layer]]:
        """What makes up a shard in a round, in order, each with its round's number; with what merging added to the
        last one only if `merged`."""
        layers: list[tuple[int, Layer]] = []
        for before in range(number + 1):
            round_ = self.round(before)
            layers.append((before, round_))
            if is_there(round_.merge.decisions(shard)) and (merged or before < number):
                layers.append((before, round_.merge))
        return layers

    def shards(self) -> Iterator[ShardId]:
        """The shards of the manifest, in order. Raises OutputError where ingest has not ended."""
        if not is_there(self.manifest):
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
        for name in names_in(self.root):
            if not name.startswith("round-"):
                continue
            round_ = Round(self.root / name)
            for layer in (round_, round_.merge):
                marker = layer.closed(shard.partition)
                for path in (marker, layer.summary, layer.decisions(shard), layer.annotations(shard)):
                    remove(path)
            remove(round_.near_duplicates)
            remove(round_.manifest)

    def check_ours(self) -> None:
        """Raises OutputError if it is anything but new, empty, or a folder that the engine made."""
        try:
            str(self.root).encode()  # Arrow opens no other
            there = names_in(self.root)
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
        images = self.root / "images"
        written = [
            self.config,
            self.manifest,
            *(images / name for name in names_in(images) if name.startswith("part-")),
        ]
        written += [self.root / name for name in names_in(self.root) if name.startswith("round-")]
        written += [self.root / "export", self.root / "given", self.downloads, self.report.parent, self.labels.root]
        written += [self.root / "evaluation", self.root / "logs", self.contamination]
        for path in written:
            remove_all(path)

    def sweep(self) -> None:
        """Removes the files that killed runs left half-written. Only for the holder of the run's lock. On a store
        parts of a large file that were sent and never put together are no file: its own rules remove them."""
        if not is_local(self.root):
            return
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
    given = read_bytes(output.given(shard)) if is_there(output.given(shard)) else b""
    return hashlib.sha256(b"".join([*ids.to_pylist(), given])).hexdigest()[:12]


def write_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]], digest: str) -> None:
    """What came along with a shard's images; no file if nothing did."""
    if any(record.by_id or faults for record, faults in taken):
        write_table(output.given(shard), given_to_table(taken), digest)
    else:
        remove(output.given(shard))


def has_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]]) -> bool:
    """Whether `write_given` wrote the same."""
    table = given_to_table(taken)
    if is_there(output.given(shard)):
        return bool(read_table(output.given(shard)).equals(table))
    return not any(record.by_id or faults for record, faults in taken)


def read_given(output: Output, shard: ShardId) -> list[Record]:
    """A shard's records before anybody annotates: its items, and what came along with them."""
    return [replace(record, error=record.item.error) for record in given_tables(output, shard).records()]


def given_tables(output: Output, shard: ShardId) -> Tables:
    """As `read_given`, but nothing is made a record yet."""
    items = read_table(output.items(shard))
    path = output.given(shard)
    if not is_there(path):
        nothing = annotations_to_table([Record(item) for item in items_from_table(items)])
        return Tables(items, ((nothing, None),), (0,))
    given = read_table(path).drop_columns(["faults"])
    if given.column("item_id") != items.column("item_id"):
        raise OutputError(f"{path} is of other images than {output.items(shard)}. {_remedy(path)}")
    return Tables(items, ((given, None),), (0,))


def read_faults(output: Output, shard: ShardId) -> list[tuple[bytes, Fault]]:
    """What was wrong with what came along with a shard's images: item ids and faults."""
    if not is_there(output.given(shard)):
        return []
    return faults_from_table(read_table(output.given(shard), ["item_id", "faults"]))


def write_annotations(
    layer: Layer, shard: ShardId, records: Sequence[Record], digest: str, sources: Mapping[str, str] | None = None
) -> None:
    """`sources` has the digest of each source by itself: see `engine.recompute`."""
    write_table(layer.annotations(shard), annotations_to_table(records), digest, sources or {})


def write_decisions(layer: Layer, shard: ShardId, records: Sequence[Record], digest: str) -> None:
    write_table(layer.decisions(shard), decisions_to_table(records), digest)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard, or some of its columns; "regions.list.element.kind" names one inside."""
    with _damage_named(path), _parquet(path, whole=columns is None) as file:
        return file.read(columns=None if columns is None else list(columns))


def write_table(path: Path, table: pa.Table, digest: str = "", sources: Mapping[str, str] | None = None) -> None:
    """Writes `table` as Parquet, with the schema's version and the digest of the configuration that made it."""
    metadata = {"engine.schema": str(VERSION), "engine.digest": digest}
    if sources is not None:
        metadata["engine.sources"] = json.dumps(dict(sources))
    with aside(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", write_page_checksum=True)


def shard_digest(path: Path) -> str | None:
    """The digest that a shard was written with; None when it isn't there."""
    return shard_digests(path)[0] if is_there(path) else None


def shard_digests(path: Path) -> tuple[str, dict[str, str]]:
    """The digest that a shard, which is there, was written with, and of annotations that of each of their sources."""
    with _damage_named(path), _parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    version = metadata.get(b"engine.schema", b"").decode()
    if version != str(VERSION):
        raise OutputError(
            f"{path} has schema version {version or 'none'}; this engine reads version {VERSION}. "
            "Name another folder with --out, or start afresh with --overwrite."
        )
    return metadata[b"engine.digest"].decode(), json.loads(metadata.get(b"engine.sources", b"{}"))


def read_json(path: Path) -> Any:
    with _damage_named(path):
        return json.loads(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    if is_local(path):
        return path.read_bytes()
    with reached(path):
        store, inside = filesystem(path)
        try:
            return cast(bytes, store.cat_file(inside, start=0))  # without a start it would ask for the size first
        except OSError as error:
            if error.errno != errno.EINVAL:  # by S3 there is no range of an empty file
                raise
            return cast(bytes, store.cat_file(inside))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with aside(path) as file:
        file.write(text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """In place, and not waiting for the disk: for what is written again if that breaks off."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    with reached(path):
        store, inside = filesystem(path)
        store.pipe_file(inside, data)


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when it is whole and on the disk, or sent, and is gone if that fails."""
    if not is_local(path):
        with tempfile.NamedTemporaryFile(prefix="engine-") as spool:
            yield cast(BinaryIO, spool)
            spool.flush()
            with reached(path):
                store, inside = filesystem(path)
                store.put_file(spool.name, inside)
        return
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


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder."""
    if is_local(path):
        return path.exists()
    with reached(path):
        store, inside = filesystem(path)
        return bool(store.exists(inside))


def there(paths: Iterable[Path]) -> set[Path]:
    """Those of the files that are there. Each folder is listed once, however many files in it are asked for."""
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    found: set[Path] = set()
    for folder, asked in folders.items():
        names = set(names_in(folder))
        found.update(path for path in asked if path.name in names)
    return found


def names_in(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing if it isn't there."""
    try:
        if is_local(folder):
            return sorted(os.listdir(folder))
        with reached(folder):
            store, inside = filesystem(folder)
            below = (name.strip("/").removeprefix(inside.strip("/")) for name in store.ls(inside, detail=False))
            return sorted({name.strip("/") for name in below} - {""})
    except FileNotFoundError:
        return []


def remove(path: Path) -> None:
    """A file, if it is there."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    with reached(path):
        store, inside = filesystem(path)
        with suppress(FileNotFoundError):  # of which S3 says nothing
            store.rm_file(inside)


def remove_all(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there. Links are removed, not followed."""
    if is_local(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    with reached(path):
        store, inside = filesystem(path)
        with suppress(FileNotFoundError):
            store.rm(inside, recursive=True)


@contextmanager
def _parquet(path: Path, whole: bool = False) -> Iterator[pq.ParquetFile]:
    """A file of ours. On a store only what is asked for is read, unless it is `whole`, or small."""
    with reached(path):
        source: Any = path
        if not is_local(path):
            source = pa.BufferReader(read_bytes(path)) if whole else opened(str(path), 0)
            if not whole and source.size <= SMALL_BYTES:
                source = pa.BufferReader(source.read())
        with pq.ParquetFile(source, pre_buffer=not is_local(path), page_checksum_verification=True) as file:
            try:
                yield file
            except OSError as error:
                if type(error) is OSError and error.errno is None:  # Arrow's, of a page whose checksum is another
                    raise ValueError(str(error)) from error
                raise


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
            marker = folder.with_name("partitions") / f"{path.parent.name}.json"
            also = f"{marker} and " if is_there(marker) else ""  # or nobody looks for a shard of the partition
            return f"Remove {also}{decisions} and run again: its images are annotated anew."
    return f"Remove {path} and run again, or start afresh with --overwrite."
