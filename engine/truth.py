"""What somebody says of images of the set: annotated sets of any kind, or what stands in another output folder.

Annotated sets are ingested into a folder of their own. An image is known again by its content: wherever the copy lies
that something is said of, its bytes are those of an image of the set. One whose bytes are not to be had may be known by
its place or its name; see `adopt`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.atomic import is_there, read_json, remove_all, write_json
from engine.config import Ingest
from engine.dataset import accepted
from engine.entry import Fault
from engine.errors import OutputError
from engine.given import take
from engine.ingest import ingest, listed_digest, listing_of, missing
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
SHOWN = 5  # images that are named
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
class Truth:
    """What is told, image by image of the set.

    `shards` has the images of the set that it is of, in the set's order, and the shard of each. Of the `listed` images
    `readable` ones could be read or were adopted; `strangers` are not in the set, `twice` say something of an image
    that another one is of, too. `how` images were known again; `errors` of images and `faults` of annotations by kind.
    `unread` are the first images that have an error.
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
    """What is told of images of the set in `output`, known again by their content."""
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
    adopted = {bytes.fromhex(content): known_by for one in told for content, known_by in _kept(one, "how").items()}
    return Truth(
        tuple(Part(told[number], shard, there) for (number, shard), there in rows.items()),
        dict(found.values()),
        listed,
        len(by_content),
        tuple(seen.uri for content, seen in by_content.items() if content not in found),
        twice,
        Counter(adopted.get(content, "content") for content in found),
        dict(sorted(errors.items())),
        tuple(unread),
        dict(sorted(sum((Counter(_kept(one, "faults")) for one in told), Counter[str]()).items())),
    )


def _contents(output: Output) -> Iterator[tuple[bytes, bytes, ShardId]]:
    """Content, id and shard of all images that are there once."""
    for shard in output.shards():
        for row in read_table(output.items(shard), ["item_id", "content_id", "duplicate_of"]).to_pylist():
            if row["content_id"] is not None and row["duplicate_of"] is None:
                yield row["content_id"], row["item_id"], shard


def _kept(told: Told, what: str) -> dict[str, Any]:
    """What is known of an annotated set's "faults" or, of adopted images, "how" they were known. An output folder told
    of its own faults when it was made."""
    if told.round is not None:
        return {}
    adopted = told.output.root / ADOPTED
    known: dict[str, Any] = read_json(adopted if is_there(adopted) else told.output.manifest)
    return dict(known.get(what, {}))


# Images whose bytes are not to be had


def adopt(there: Output, asked: Ingest, output: Output) -> None:
    """Takes what annotated sets say of images that can't be read for what they say of images of the set in `output`:
    of those at the same place, or else of those of the same file name, if only one has it on either side.

    In `there` they have the content of the set's images from then on, and are known by that.
    """
    if is_there(there.root / ADOPTED):
        return
    unread = [item for shard in there.shards() for item in read_items(there, shard) if item.error]
    parents = _parents(unread, output)
    entries = (entry for entry in listing_of(annotated(asked)) if entry.uri in parents) if parents else ()
    given = {entry.uri: entry for entry in entries}
    faults = Counter(read_json(there.manifest)["faults"])
    for shard in there.shards() if given else ():
        taken = []
        for record, wrong in _with_faults(there, shard):
            item = record.item
            if item.error and item.uri in given:
                faults.subtract(fault.kind for fault in wrong)
                record, wrong = take(_as_read(item, parents[item.uri][0]), given[item.uri].given(), asked.source)
                faults.update(fault.kind for fault in wrong)
            taken.append((record, wrong))
        digest = shard_digest(there.items(shard)) or ""
        write_given(there, shard, taken, digest)
        write_table(there.items(shard), items_to_table([record.item for record, _ in taken]), digest)
    how = {parent.content_id.hex(): known_by for parent, known_by in parents.values() if parent.content_id}
    write_json(there.root / ADOPTED, {"how": how, "faults": dict(+faults)})


def _as_read(item: Item, parent: Item) -> Item:
    return replace(item, error=None, content_id=parent.content_id, width=parent.width, height=parent.height)


def _with_faults(there: Output, shard: ShardId) -> Iterator[tuple[Record, Sequence[Fault]]]:
    faults: dict[bytes, list[Fault]] = {}
    for id_, fault in read_faults(there, shard):
        faults.setdefault(id_, []).append(fault)
    for record in given_tables(there, shard).records():
        yield record, faults.get(record.item.item_id, [])


def _parents(unread: Sequence[Item], output: Output) -> dict[str, tuple[Item, str]]:
    """By the uris of images that can't be read the images of the set that they are, and how that is known."""
    if not unread:
        return {}
    uris = {item.uri for item in unread}
    names = Counter(_name(uri) for uri in uris)
    by_uri: dict[str, Item] = {}
    by_name: dict[str, list[Item]] = {}
    for shard in output.shards():
        for row in read_table(output.items(shard), ["uri", "content_id", "width", "height", "error"]).to_pylist():
            if row["content_id"] is None or row["error"]:
                continue
            item = Item(b"", row["uri"], row["content_id"], width=row["width"], height=row["height"])
            if item.uri in uris:
                by_uri[item.uri] = item
            if names[name := _name(item.uri)] == 1:
                by_name.setdefault(name, []).append(item)
    parents = {}
    for uri in uris:
        same_name = by_name.get(_name(uri), [])
        if uri in by_uri:
            parents[uri] = by_uri[uri], URI
        elif len({item.content_id for item in same_name}) == 1 and _name(uri):
            parents[uri] = same_name[0], NAME
    return parents


def _name(uri: str) -> str:
    """The file's name, also of one in an archive or at a URL; "" for a row of a table."""
    if ROW.fullmatch(uri):
        return ""
    path = uri.partition("?")[0] if is_url(uri) else uri
    return path.rpartition("/")[2].rpartition("#")[2]
