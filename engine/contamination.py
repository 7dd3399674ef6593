"""Images of the set that are in evaluation sets: what learned them is not to be judged by these.

An image is the same if its bytes are, and nearly the same if its perceptual hash is within a few bits; see
`engine.near`. Those that are listed leave with no export, and no model is trained on them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.atomic import is_there
from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ConfigError, ImageError, OutputError
from engine.images import decode
from engine.ingest import chunks, listing_of
from engine.layout import Output
from engine.near import MAX_DISTANCE, MOST_DISTANCE, Hashes, between, perceptual_hash
from engine.reading import read
from engine.records import digest16
from engine.storage import read_table, write_table
from engine.truth import SHOWN, Unread, annotated, is_output
from engine.uris import is_url

AT_A_TIME = 1024  # images of an evaluation set
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.binary(16), nullable=False),
        pa.field("how", pa.string(), nullable=False),  # exact, near
        pa.field("distance", pa.int32(), nullable=False),  # bits; 0 for the very bytes
        pa.field("against", pa.string(), nullable=False),  # the image of the evaluation set
    ]
)


@dataclass(frozen=True)
class Seen:
    """An image: its content, and its perceptual hash where there is anything to see. `error` says why it has none."""

    uri: str
    content_id: bytes | None
    hash: bytes | None
    error: str | None = None


@dataclass(frozen=True)
class Same:
    """An image of the set, and the one of an evaluation set that it is, or looks like most."""

    item_id: bytes
    uri: str
    how: str
    distance: int
    against: str


@dataclass(frozen=True)
class Contamination:
    """`images` of the set were held against `evaluated` ones, of which `unread` could not be read, by kind; the first
    of these are named."""

    same: Sequence[Same]
    images: int
    evaluated: int
    unread: Mapping[str, int]
    first_unread: Sequence[Unread]

    @property
    def counts(self) -> dict[str, int]:
        counts = Counter(one.how for one in self.same)
        return {how: counts[how] for how in ("exact", "near")}


def contaminated(output: Output) -> frozenset[bytes]:
    """Ids of the images that are in evaluation sets, as far as was looked; of copies of them, too."""
    if not is_there(output.contamination):
        return frozenset()
    return frozenset(read_table(output.contamination, ["item_id"])["item_id"].to_pylist())


def decontaminate(
    output: Output,
    asked: Ingest,
    distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda done: None,
    anew: bool = False,
) -> Contamination:
    """Looks for the images of the evaluation sets `asked.images` and adds what it finds to contamination.parquet, or
    with `anew` writes it anew. `progress` gets how many of them are done. In memory are ids and hashes of all images,
    and the pixels of a few of theirs.

    Raises OutputError for a set that is not annotated yet, ConfigError where evaluation sets can't be listed or read.
    """
    if not 0 <= distance <= MOST_DISTANCE:
        raise ConfigError(f"--distance {distance}: expected 0 to {MOST_DISTANCE} bits of 64")
    seen = list(evaluated(output, asked, progress))
    unread = Counter(one.error for one in seen if one.error)
    first_unread = tuple(islice((Unread(one.uri, one.error) for one in seen if one.error), SHOWN))
    if len(seen) == unread.total():
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(unread.items()))
        first = ", ".join(f"{one.uri} ({one.kind})" for one in first_unread)
        raise ConfigError(
            f"--against {', '.join(asked.images)}: none of its {len(seen)} images could be read ({told}): {first}"
        )
    ids, contents, originals, uris, hashes, _ = _columns(output)
    contents_there = {one.content_id: one.uri for one in reversed(seen) if one.content_id}
    found = {
        at: Same(ids[at], uris[at], "exact", 0, contents_there[content])
        for at, content in enumerate(contents)
        if content in contents_there
    }
    near = _near(hashes, [one for one in seen if one.hash], distance)
    found = {at: Same(ids[at], uris[at], "near", bits, against) for at, (bits, against) in near.items()} | found
    by_id = {found[at].item_id: found[at] for at in found}
    for at, original in enumerate(originals):  # copies are not hashed
        if original in by_id and at not in found:
            one = by_id[original]
            found[at] = Same(ids[at], uris[at], one.how, one.distance, one.against)
    same = [found[at] for at in sorted(found)]
    rows = [{name: getattr(one, name) for name in SCHEMA.names} for one in same]
    if is_there(output.contamination) and not anew:
        new = {one.item_id for one in same}
        rows += [row for row in read_table(output.contamination).to_pylist() if row["item_id"] not in new]
    write_table(output.contamination, pa.Table.from_pylist(rows, schema=SCHEMA))
    return Contamination(same, len(ids), len(seen), dict(sorted(unread.items())), first_unread)


def _columns(output: Output) -> list[list[Any]]:
    """Ids, contents, originals of copies, uris and perceptual hashes of all images, and the kind of the error for which
    one has no hash."""
    tables = []
    for shard in output.shards():
        path = output.round(0).annotations(shard)
        if not is_there(path):
            raise OutputError(
                f"{output.root}: not every image is annotated yet, and what it looks like is found out then. Go on "
                "with engine run, or engine import"
            )
        items = read_table(output.items(shard), ["item_id", "content_id", "duplicate_of", "uri", "error"])
        looks = read_table(path, ["perceptual_hash", "error"]).combine_chunks()
        error = pc.coalesce(items["error"].combine_chunks(), looks["error"].combine_chunks())
        kind = pc.if_else(
            pc.is_valid(looks["perceptual_hash"]), pa.scalar(None, pa.string()), pc.struct_field(error, "kind")
        )
        hashed = items.drop_columns("error").append_column("hash", looks["perceptual_hash"])
        tables.append(hashed.append_column("error", kind))
    return [column.to_pylist() for column in pa.concat_tables(tables).columns]


def _near(hashes: Sequence[bytes | None], seen: Sequence[Seen], distance: int) -> dict[int, tuple[int, str]]:
    """By place the images that look like one that was seen: in how many bits they differ from the closest, and it."""
    at = np.array([place for place, hash_ in enumerate(hashes) if hash_], np.int64)
    own, theirs = _numbers(hash_ for hash_ in hashes if hash_), _numbers(one.hash for one in seen if one.hash)
    one, other = between(own, theirs, distance)
    bits = np.bitwise_count(own[one] ^ theirs[other])
    order = np.lexsort((other, bits, one))
    one, other, bits = one[order], other[order], bits[order]
    _, firsts = np.unique(one, return_index=True)
    return {int(at[one[n]]): (int(bits[n]), seen[int(other[n])].uri) for n in firsts}


def _numbers(hashes: Iterator[bytes]) -> Hashes:
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


# The images of evaluation sets


def evaluated(output: Output, asked: Ingest, progress: Callable[[int], None]) -> Iterator[Seen]:
    """The images of the sets `asked.images`, those at URLs fetched into the output folder. What output folders of the
    engine's know of theirs is read."""
    done = 0
    for path in asked.images:
        if is_output(path):
            _, contents, _, *looks = _columns(Output(Path(path)))
            done += len(contents)
            yield from (
                Seen(uri, content, hash_, error) for content, uri, hash_, error in zip(contents, *looks, strict=True)
            )
            progress(done)
    others = annotated(asked)
    if not others.images:
        return
    downloads = Downloader(output.evaluation("downloads").root, asked.http, asked.max_bytes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for entries in chunks(listing_of(others), AT_A_TIME):
            for seen in pool.map(partial(_look, asked=others, downloads=downloads), entries):
                done += 1
                progress(done)
                yield seen


def _look(entry: Entry, asked: Ingest, downloads: Downloader) -> Seen:
    """Of one that can be read and not decoded the bytes count."""
    content_id = None
    try:
        if entry.error:
            raise ImageError(entry.error.kind, entry.error.message)
        if is_url(entry.uri):
            downloads.fetch(entry.uri)
        data = read(entry.uri, max_bytes=asked.max_bytes, downloads=downloads.folder)
        content_id = digest16(data)
        return Seen(entry.uri, content_id, perceptual_hash(decode(data, max_pixels=asked.max_pixels)))
    except ImageError as error:
        return Seen(entry.uri, content_id, None, error.kind)
