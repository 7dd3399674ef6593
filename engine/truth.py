"""What somebody says of images of the set: annotated sets of any kind, or what stands in another output folder.

Annotated sets are ingested into a folder of their own. An image is known again by its content: wherever the copy lies
that something is said of, its bytes are those of an image of the set. One whose bytes are not to be had may be known by
its place or its name; see `adopt`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.atomic import is_there, read_json, remove_all, write_json
from engine.config import Ingest
from engine.dataset import accepted
from engine.entry import Entry, Fault
from engine.errors import OutputError
from engine.given import take
from engine.ingest import ingest, listed_digest, listing_of, missing
from engine.ingest.summary import write_counts
from engine.layout import LOCK, Output, ShardId
from engine.records import Item, Record
from engine.schema import items_to_table
from engine.storage import (
    Tables,
    given_tables,
    read_faults,
    read_items,
    read_shard,
    read_table,
    shard_digest,
    write_given,
    write_table,
)
from engine.uris import ROW, is_url
from engine.versions import digest_of_json

ADOPTED = "adopted.json"
SHOWN = 5  # images, and faults, that are named
UNREAD = "unread_image"  # the fault of all that came along with an image that can't be read
URI, NAME = "uri", "file name"
COLUMNS = ["item_id", "uri", "content_id", "duplicate_of", "error"]  # of images


@dataclass(frozen=True)
class Told:
    """One place that says something: `output` as it is in a `round`, or, without one, what came along with images."""

    output: Output
    round: int | None = None

    def tables(self, shard: ShardId) -> Tables:
        """What is said, and of an output folder what fell, too."""
        return given_tables(self.output, shard) if self.round is None else read_shard(self.output, self.round, shard)

    def images(self, shard: ShardId) -> list[dict[str, Any]]:
        """`COLUMNS` of each image. In an output folder it may have come to its error in any round."""
        images: list[dict[str, Any]] = read_table(self.output.items(shard), COLUMNS).to_pylist()
        if self.round is not None:
            layers = read_shard(self.output, self.round, shard, columns=(), decided=False).layers
            for added, _ in reversed(layers):
                for image, error in zip(images, added["error"].to_pylist(), strict=True):
                    image["error"] = image["error"] or error
        return images

    def records(self, shard: ShardId, rows: Sequence[int]) -> list[Record]:
        """Records of nothing but what is said."""
        records = self.tables(shard).records(rows)
        return records if self.round is None else [replace(record.standing, decisions=()) for record in records]


@dataclass(frozen=True)
class Part:
    """Of one shard of what is told the rows that are of images of the set, and which those are."""

    told: Told
    shard: ShardId
    rows: Mapping[int, bytes]


@dataclass(frozen=True)
class Unread:
    """An image that could not be read, or is in quarantine, and the kind of its error."""

    uri: str
    kind: str


@dataclass(frozen=True)
class Untaken:
    """What could not be taken as it was, and of which image; "" where only its list was read."""

    uri: str
    fault: Fault


@dataclass(frozen=True)
class Truth:
    """What is told, image by image of the set.

    `shards` has the images of the set that it is of, in the set's order, and the shard of each. Of the `listed` images
    `readable` ones could be read or were adopted; `strangers` are not in the set, `twice` say something of an image
    that another one is of, too. `how` images were known again; `errors` of images and `faults` of annotations by kind.
    `unread` are the first images that have an error, `untaken` the first faults of images that have none.
    """

    parts: tuple[Part, ...]
    shards: Mapping[bytes, ShardId]
    listed: int
    readable: int
    strangers: tuple[str, ...]
    twice: int
    how: Mapping[str, int]
    errors: Mapping[str, int]
    unread: Sequence[Unread]
    faults: Mapping[str, int]
    untaken: Sequence[Untaken]

    def records(self) -> dict[bytes, Record]:
        """By ids of images of the set, in its order."""
        told: dict[bytes, Record] = {}
        for part in self.parts:
            told.update(zip(part.rows.values(), part.told.records(part.shard, list(part.rows)), strict=True))
        return {id_: told[id_] for id_ in self.shards}


def is_output(path: str) -> bool:
    """Whether it is an output folder of the engine's."""
    return not is_url(path) and os.path.exists(os.path.join(path, LOCK)) and Output(Path(path)).manifest.exists()


def annotated(asked: Ingest) -> Ingest:
    """What is asked for without the output folders of the engine's: those are read where they are."""
    return asked.model_copy(update={"images": tuple(path for path in asked.images if not is_output(path))})


def told_by(asked: Ingest, there: Output) -> list[Told]:
    """What the sets of `asked.images` tell. Annotated ones are ingested into `there` if they are not yet, or changed.

    Of an output folder it is what stands in the last round that was accepted. ConfigError for what can't be listed,
    OutputError for an output folder whose round is not whole.
    """
    told = [_standing(Output(Path(path))) for path in asked.images if is_output(path)]
    others = annotated(asked)
    if others.images:
        listed = listed_digest(others)
        if not is_there(there.manifest) or read_json(there.manifest)["listed"] != listed or missing(there):
            remove_all(there.root)
            ingest(there, others, digest_of_json(others.model_dump(mode="json", exclude={"http"})), lambda done: None)
        told.append(Told(there))
    return told


def _standing(output: Output) -> Told:
    number = accepted(output)
    if not all(output.round(number).decisions(shard).exists() for shard in output.shards()):
        raise OutputError(f"{output.root}: its round {number} is not whole yet; go on with the run that makes it")
    return Told(output, number)


# Which image is which


@dataclass(frozen=True)
class _Seen:
    """An image of what is told."""

    told: int
    shard: ShardId
    row: int
    uri: str


def matched(output: Output, told: Sequence[Told]) -> Truth:
    """What is told of images of the set in `output`, known again by their content. Of one that is told of twice the
    first counts, in the order of `told`."""
    by_content: dict[bytes, _Seen] = {}
    errors, unread = Counter[str](), list[Unread]()
    listed = twice = 0
    for number, one in enumerate(told):
        for shard in one.output.shards():
            repeated = []
            for row, image in enumerate(one.images(shard)):
                listed += 1
                if error := image["error"]:
                    errors[error["kind"]] += 1
                    if len(unread) < SHOWN:
                        unread.append(Unread(image["uri"], error["kind"]))
                elif image["duplicate_of"] or image["content_id"] in by_content:
                    repeated.append(row)
                else:
                    by_content[image["content_id"]] = _Seen(number, shard, row, image["uri"])
            twice += sum(bool(record.by_id) for record in one.records(shard, repeated)) if repeated else 0
    found = {content: (id_, shard) for content, id_, shard in _contents(output) if content in by_content}
    rows: dict[tuple[int, ShardId], dict[int, bytes]] = {}
    for content, seen in by_content.items():
        if content in found:
            rows.setdefault((seen.told, seen.shard), {})[seen.row] = found[content][0]
    adopted = [_adopted(one) for one in told]
    faults = sum((Counter(_manifest(one).get("faults", {})) for one in told), Counter[str]())
    return Truth(
        tuple(Part(told[number], shard, there) for (number, shard), there in rows.items()),
        dict(found.values()),
        listed,
        len(by_content),
        tuple(seen.uri for content, seen in by_content.items() if content not in found),
        twice,
        Counter(
            adopted[seen.told][seen.uri].how if seen.uri in adopted[seen.told] else "content"
            for content, seen in by_content.items()
            if content in found
        ),
        dict(sorted(errors.items())),
        tuple(unread),
        dict(sorted(faults.items())),
        _first(one for each in told for one in _untaken(each)) if set(faults) - {UNREAD} else (),
    )


def _contents(output: Output) -> Iterator[tuple[bytes, bytes, ShardId]]:
    """Content, id and shard of all images that are there once."""
    for shard in output.shards():
        for row in read_table(output.items(shard), ["item_id", "content_id", "duplicate_of"]).to_pylist():
            if row["content_id"] is not None and row["duplicate_of"] is None:
                yield row["content_id"], row["item_id"], shard


def _manifest(told: Told) -> dict[str, Any]:
    """Of an annotated set. An output folder told of its own faults when it was made."""
    return read_json(told.output.manifest) if told.round is None else {}


def _untaken(told: Told) -> Iterator[Untaken]:
    """Those of an annotated set: of its lists the first ones, then those of its images."""
    if told.round is not None:
        return
    for fault in _manifest(told)["first_faults"]:
        yield Untaken("", Fault(**fault))
    for shard in told.output.shards():
        faults = [(id_, fault) for id_, fault in read_faults(told.output, shard) if fault.kind != UNREAD]
        uris = {item.item_id: item.uri for item in read_items(told.output, shard)} if faults else {}
        yield from (Untaken(uris[id_], fault) for id_, fault in faults)


def _first(faults: Iterable[Untaken]) -> tuple[Untaken, ...]:
    """The first of each kind, before the second of any."""
    met = Counter[str]()
    kept: list[tuple[int, Untaken]] = []
    for one in faults:
        met[one.fault.kind] += 1
        if met[one.fault.kind] <= SHOWN:
            kept.append((met[one.fault.kind], one))
    return tuple(one for _, one in sorted(kept, key=lambda numbered: numbered[0])[:SHOWN])


# Images whose bytes are not to be had


@dataclass(frozen=True)
class Parent:
    """The image of the set that another one is: its content id in hex, its size, and how that is known."""

    content_id: str
    width: int
    height: int
    how: str


def adopt(there: Output, asked: Ingest, output: Output) -> None:
    """Takes what annotated sets say of images that can't be read for what they say of images of the set in `output`:
    of those at the same place, or else of those of the same file name, if only one has it on either side.

    In `there` they have the content of the set's images from then on, and are known by that. Which they are is written
    down before the first is taken: whoever goes on after a break finds others unread.
    """
    kept = there.root / ADOPTED
    if is_there(kept) and read_json(kept)["done"]:
        return
    if not is_there(kept):
        unread = [item for shard in there.shards() for item in read_items(there, shard) if item.error]
        _write_adopted(kept, _parents(unread, output), done=False)
    parents = _adopted(Told(there))
    entries = (entry for entry in listing_of(annotated(asked)) if entry.uri in parents) if parents else ()
    given = {entry.uri: entry for entry in entries}
    for shard in there.shards() if given else ():
        _take(there, shard, given, parents, asked.source)
    if given:
        write_counts(there)
    _write_adopted(kept, parents, done=True)


def _write_adopted(kept: Path, parents: Mapping[str, Parent], *, done: bool) -> None:
    write_json(kept, {"done": done, "images": {uri: asdict(parent) for uri, parent in parents.items()}})


def _adopted(told: Told) -> dict[str, Parent]:
    """By the uris of images of an annotated set that could not be read the images of the set that they are."""
    kept = told.output.root / ADOPTED
    known = read_json(kept)["images"] if told.round is None and is_there(kept) else {}
    return {uri: Parent(**parent) for uri, parent in known.items()}


def _take(
    there: Output, shard: ShardId, given: Mapping[str, Entry], parents: Mapping[str, Parent], source: str
) -> None:
    """What came along with the images of a shard that have parents, and are not taken yet."""
    taken = []
    for record, wrong in _with_faults(there, shard):
        item = record.item
        if item.error and item.uri in given:
            record, wrong = take(_as_read(item, parents[item.uri]), given[item.uri].given(), source)
        taken.append((record, wrong))
    digest = shard_digest(there.items(shard)) or ""
    write_given(there, shard, taken, digest)
    write_table(there.items(shard), items_to_table([record.item for record, _ in taken]), digest)


def _as_read(item: Item, parent: Parent) -> Item:
    content_id = bytes.fromhex(parent.content_id)
    return replace(item, error=None, content_id=content_id, width=parent.width, height=parent.height)


def _with_faults(there: Output, shard: ShardId) -> Iterator[tuple[Record, Sequence[Fault]]]:
    faults: dict[bytes, list[Fault]] = {}
    for id_, fault in read_faults(there, shard):
        faults.setdefault(id_, []).append(fault)
    for record in given_tables(there, shard).records():
        yield record, faults.get(record.item.item_id, [])


def _parents(unread: Sequence[Item], output: Output) -> dict[str, Parent]:
    """By the uris of images that can't be read the images of the set that they are."""
    if not unread:
        return {}
    uris = {item.uri for item in unread}
    names = Counter(_name(uri) for uri in uris)
    by_uri: dict[str, Parent] = {}
    by_name: dict[str, list[Parent]] = {}
    for shard in output.shards():
        for row in read_table(output.items(shard), ["uri", "content_id", "width", "height", "error"]).to_pylist():
            if row["content_id"] is None or row["error"]:
                continue
            told = (row["content_id"].hex(), row["width"], row["height"])
            if row["uri"] in uris:
                by_uri[row["uri"]] = Parent(*told, URI)
            if names[name := _name(row["uri"])] == 1:
                by_name.setdefault(name, []).append(Parent(*told, NAME))
    parents = {}
    for uri in uris:
        same_name = by_name.get(_name(uri), [])
        if uri in by_uri:
            parents[uri] = by_uri[uri]
        elif len({parent.content_id for parent in same_name}) == 1 and _name(uri):
            parents[uri] = same_name[0]
    return dict(sorted(parents.items()))


def _name(uri: str) -> str:
    """The file's name, also of one in an archive or at a URL; "" for a row of a table."""
    if ROW.fullmatch(uri):
        return ""
    path = uri.partition("?")[0] if is_url(uri) else uri
    return path.rpartition("/")[2].rpartition("#")[2]
