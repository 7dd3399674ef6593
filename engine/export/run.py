"""Exports a dataset: which parts are missing, each of them, and at last what they come to.

<to>/.export/plan.json                        what is exported, and how: written first, and who goes on compares it
<to>/.export/part-00000/shard-00000/done.json what a part came to; written last
<to>/export.json                              all of it, when all parts are there; .export goes then
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.atomic import is_there, names_in, read_json, remove_all, there, write_json
from engine.config import Ingest, Run, load_config
from engine.dataset import Dataset
from engine.errors import OutputError, RunError, unwritable
from engine.export.format import Format, Part, Setting, Whole, fragment
from engine.export.images import How, Images, Lost
from engine.export.selection import Selection
from engine.export.split import Splits
from engine.files import stamp
from engine.flat import Flat, flatten
from engine.layout import LOCK, ShardId, sweep
from engine.lock import run_lock
from engine.storage import read_shard
from engine.versions import digest_of_json

# Images up to which threads of this process write an export, column by column or record by record: Ray takes longer to
# start. Arrow's columns leave Python's lock to others, records don't.
INLINE = {False: 250_000, True: 4096}
MOST_LISTED, MOST_TOLD = 100, 20  # images that are gone, in export.json and in an error
VERSION = 2  # of what parts are: of another one nothing is gone on with
Missing = Literal["stop", "skip"]


@dataclass(frozen=True)
class Export:
    """What is exported of a dataset, how, and where to. `contaminated` are ids, in hex, of images that are in
    evaluation sets: they stay. `missing` says what becomes of images whose bytes are gone."""

    dataset: Dataset
    format: Format
    to: Path
    selection: Selection
    splits: Splits
    how: How
    missing: Missing
    ingest: Ingest
    contaminated: frozenset[str] = frozenset()


def export(asked: Export, run: Run, progress: Callable[[int], None]) -> dict[str, Any]:
    """Writes the export, going on where one was broken off, and returns what export.json says. `progress` gets the
    number of images done since.

    Raises OutputError if the folder holds anything else, or if no image is to leave; RunError where an image is gone or
    the disk is full.
    """
    digest, work = _digest(asked), asked.to / ".export"
    if (ended := _ended(asked.to, digest, asked)) and not is_there(work):
        return ended
    _check_any(asked)
    with run_lock(work):
        ended = _ended(asked.to, digest, asked)  # by who held the lock, or was killed before all of `work` was gone
        summary = ended or _export(asked, work, digest, run, progress)
        for name in names_in(work):
            if name != LOCK:
                remove_all(work / name)
    remove_all(work)  # the lock itself once nobody holds it: on a store it is a lease, and lost if it is not there
    return summary


def _export(asked: Export, work: Path, digest: str, run: Run, progress: Callable[[int], None]) -> dict[str, Any]:
    shards, counts = asked.dataset.shards(), asked.dataset.output.counts()
    try:
        setting = _setting(asked, shards, work / "plan.json", digest)
        firsts = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
        task = partial(write_part, asked, run, setting, firsts)
        done = there(_done(asked.to, shard) for shard in shards)
        waiting = [shard for shard in shards if _done(asked.to, shard) not in done]
        progress(sum(counts[shard] for shard in shards) - sum(counts[shard] for shard in waiting))
        _run(asked, task, waiting, sum(counts[shard] for shard in waiting), run, progress)
        sweep(asked.to)
        totals = _totals(asked.to, shards)
        asked.format.finish(Whole(setting, shards, totals["splits"]))
        summary = {**read_json(work / "plan.json"), **totals}
        write_json(asked.to / "export.json", summary)
    except (OSError, RunError) as error:
        if why := unwritable(error, asked.to):
            raise RunError(why) from error
        raise
    return summary


def write_part(
    asked: Export, run: Run, setting: Setting, firsts: Mapping[ShardId, int], shard: ShardId
) -> tuple[int, list[Lost]]:
    """Writes a part; how many images its shard has, and those that are gone. If that stops, the part is not done."""
    try:
        return _written(asked, run, setting, firsts, shard)
    except SystemExit as error:  # a format's, which would end its process with whatever code it says
        raise RunError(f"{asked.format.name}, or what it reads, called sys.exit({error.code})") from error


def _written(
    asked: Export, run: Run, setting: Setting, firsts: Mapping[ShardId, int], shard: ShardId
) -> tuple[int, list[Lost]]:
    columns = (*asked.selection.columns, *(("parses",) if asked.format.by_record else ()))
    tables = read_shard(asked.dataset.output, asked.dataset.round, shard, columns=columns)
    everything = flatten(tables)
    flat, left_out = asked.selection.of(_present(everything, asked, firsts[shard]))
    images = Images(asked.how, asked.ingest, asked.dataset.output.downloads, run)
    lost, counts = list[Lost](), Counter[str]()
    if asked.how != "inside":
        flat = _with_files(flat, images, asked.to, lost, counts)
    part = Part(setting, shard, flat, images, tables, lost, counts)
    remove_all(part.fragment("done.json").parent)  # of a run that was killed
    asked.format.write(part)
    if part.lost and asked.missing == "stop":
        return len(tables.items), part.lost
    gone = {one.row for one in part.lost}
    images_out, annotations_out = _without_place(part, gone)
    report = {
        "splits": _counted(part, gone),
        "left_out": {
            "images": {**_left_out(everything.images, asked.contaminated), **images_out},
            "annotations": {**left_out, **annotations_out},
        },
        "images": dict(+part.counts),
        "lost": [asdict(one) for one in part.lost],
    }
    write_json(_done(asked.to, shard), report)
    return len(tables.items), part.lost


def _run(
    asked: Export,
    task: Callable[[ShardId], tuple[int, list[Lost]]],
    shards: Sequence[ShardId],
    images: int,
    run: Run,
    progress: Callable[[int], None],
) -> None:
    lost: list[Lost] = []

    def done(came: tuple[int, list[Lost]]) -> None:
        lost.extend(came[1][: MOST_LISTED - len(lost)])
        progress(came[0])

    if images > INLINE[asked.format.by_record] or run.address != "local":
        from engine.runner import each_shard  # Ray takes a second to import

        each_shard(task, shards, run, done)
    else:
        with ThreadPoolExecutor(1 if asked.format.by_record else os.cpu_count()) as pool:
            try:
                for came in pool.map(task, shards):
                    done(came)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    if asked.missing == "stop":
        _check_lost(lost)


# What is where


def _ended(to: Path, digest: str, asked: Export) -> dict[str, Any] | None:
    """What export.json says if the same is there already. OutputError if anything else is."""
    told = to / "export.json"
    plan = told if is_there(told) else to / ".export" / "plan.json"
    if is_there(plan):
        there = read_json(plan)
        if there.get("digest") == digest:
            return there if plan == told else None
        raise OutputError(
            f"{to} holds another export ({there.get('format')} of round {there.get('round')} of "
            f"{there.get('dataset')}): name another folder, or remove it. {_difference(there, asked)}".rstrip()
        )
    if is_there(to) and (not to.is_dir() or any(name != ".export" for name in names_in(to))):
        raise OutputError(f"{to} holds something that is no export: name a new or an empty folder")
    return None


def _difference(there: Mapping[str, Any], asked: Export) -> str:
    options = _options(asked)
    changed = [name for name in options if there.get("options", {}).get(name) != options[name]]
    if there.get("format") == asked.format.name and not changed:
        return "What is exported has changed since, or how it is written"
    return f"It differs in {', '.join(changed)}" if changed and there.get("format") == asked.format.name else ""


def _options(asked: Export) -> dict[str, Any]:
    chosen = asked.selection
    options = {
        "kinds": sorted(chosen.kinds),
        "sources": sorted(chosen.sources) if chosen.sources is not None else None,
        "min_score": dict(chosen.min_score),
        "vocabulary": digest_of_json(chosen.vocabulary.model_dump(mode="json")),
        "label_map": digest_of_json(chosen.label_map.model_dump(mode="json")) if chosen.label_map else None,
        "split": dict(asked.splits.shares),
        "images": asked.how,
        "contaminated": digest_of_json(sorted(asked.contaminated)) if asked.contaminated else None,
    }
    return dict(json.loads(json.dumps(options)))


def _digest(asked: Export) -> str:
    """Of what is exported, and of the files that it is exported from."""
    output, state = asked.dataset.output, []
    for shard in asked.dataset.shards():
        layers = [layer for _, layer in output.layers(asked.dataset.round, shard)]
        paths = [
            output.items(shard),
            *(path(shard) for layer in layers for path in (layer.annotations, layer.decisions)),
        ]
        state += [stamp(str(path)) for path in paths]
    root = str(output.root.absolute())
    # Formats that make examples go by how the dataset is trained on.
    told = asked.format.by_record and is_there(output.config)
    taught = load_config(output.config).train.model_dump(mode="json") if told else None
    return digest_of_json([VERSION, asked.format.name, root, asked.dataset.round, _options(asked), state, taught])


def _setting(asked: Export, shards: Sequence[ShardId], plan: Path, digest: str) -> Setting:
    """What holds for all parts. The labels of the set are looked for once, whoever goes on."""
    if not is_there(plan):
        there = {
            "format": asked.format.name,
            "dataset": asked.dataset.output.root.name,
            "round": asked.dataset.round,
            "digest": digest,
            "options": _options(asked),
            "classes": _classes(asked, shards) if asked.format.needs_classes else [],
            "sources": asked.dataset.sources(),
        }
        write_json(plan, there)
    there = read_json(plan)
    return Setting(
        asked.to,
        asked.dataset.output,
        there["round"],
        asked.splits.names,
        tuple(there["classes"]),
        there["sources"],
        asked.selection,
    )


def _classes(asked: Export, shards: Sequence[ShardId]) -> list[str]:
    """The labels of the objects that leave, and with a label map all of its classes."""
    found = set(asked.selection.label_map.classes) if asked.selection.label_map else set()
    only = replace(asked.selection, kinds=frozenset({"objects"}))

    def labels(shard: ShardId) -> list[str]:
        flat, _ = only.of(flatten(read_shard(asked.dataset.output, asked.dataset.round, shard, columns=("regions",))))
        there: list[str] = pc.unique(flat["regions"]["label"]).drop_null().to_pylist()
        return there

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted(found.union(*pool.map(labels, shards)))


def _done(to: Path, shard: ShardId) -> Path:
    return fragment(to, shard, "done.json")


# One part


def _present(flat: Flat, asked: Export, first: int) -> Flat:
    """The images that leave, with their number and split, and what is of them."""
    kept = np.ones(len(flat.images), bool)
    for which in _kept_back(flat.images, asked.contaminated).values():
        kept &= ~which.to_numpy()
    flat = flat.of_rows(kept)
    numbers = flat.images["row"].to_numpy().astype(np.int64) + first
    images = flat.images.append_column("number", pa.array(numbers))
    return replace(flat, images=images.append_column("split", asked.splits.of_all(images["content_id"])))


def _kept_back(images: pa.Table, contaminated: Collection[str]) -> dict[str, pa.ChunkedArray]:
    """Which images do not leave: those that could not be read or annotated, copies of others, and of the rest those
    that are in evaluation sets."""
    failed = pc.or_(pc.is_valid(images["error"]), pc.is_null(images["width"]))
    copies = pc.and_(pc.invert(failed), pc.is_valid(images["duplicate_of"]))
    known = pc.is_in(images["item_id"], pa.array(list(contaminated), pa.string()))
    seen = pc.and_(known, pc.invert(pc.or_(failed, copies)))
    return {"quarantined": failed, "exact duplicates": copies, "in evaluation sets": seen}


def _check_any(asked: Export) -> None:
    """Raises OutputError if no image is to leave."""
    why = Counter[str]()
    for shard in asked.dataset.shards():
        images = flatten(read_shard(asked.dataset.output, asked.dataset.round, shard, columns=())).images
        left_out = _left_out(images, asked.contaminated)
        if sum(left_out.values()) < len(images):
            return
        why.update(left_out)
    told = ", ".join(f"{reason} {count:,}" for reason, count in why.items())
    raise OutputError(f"no image of {asked.dataset.output.root} is to leave: {told or 'it has none'}")


def _left_out(images: pa.Table, contaminated: Collection[str]) -> dict[str, int]:
    return {name: n for name, which in _kept_back(images, contaminated).items() if (n := pc.sum(which).as_py())}


def _with_files(flat: Flat, images: Images, to: Path, lost: list[Lost], counts: Counter[str]) -> Flat:
    """With the column `file`, and without the images that are gone."""
    names: list[str] = []
    there = np.zeros(max(flat.images["row"].to_pylist(), default=-1) + 1, bool)
    for placed in images.placed(flat.images, to):
        if isinstance(placed, Lost):
            lost.append(placed)
        else:
            there[placed.row] = True
            names.append(placed.name)
            counts["turned upright"] += placed.turned
    flat = flat.of_rows(there) if lost else flat
    return replace(flat, images=flat.images.append_column("file", pa.array(names, pa.string())))


def _check_lost(lost: Sequence[Lost]) -> None:
    """Raises RunError with the images that are gone, of all parts: who brings one back is to know of the next."""
    if lost:
        many = "or more " if len(lost) == MOST_LISTED else ""
        told = "\n".join(f"  {one.item_id[:8]} {one.kind}: {one.message}" for one in lost[:MOST_TOLD])
        more = f"\n  and {len(lost) - MOST_TOLD} more" if lost[MOST_TOLD:] else ""
        raise RunError(
            f"{len(lost)} {many}annotated image(s) can't be read any more:\n{told}{more}\nThe others are written. "
            "Bring them back or mend them and run the same again, or leave them out with --missing skip"
        )


def _counted(part: Part, lost: Collection[int]) -> dict[str, dict[str, int]]:
    """By split how many images are written, and how many annotations of each table."""
    splits = dict(zip(*(part.flat.images[name].to_pylist() for name in ("row", "split")), strict=True))
    written = {row: split for row, split in splits.items() if row not in lost}
    counts = {split: Counter({"images": count}) for split, count in Counter(written.values()).items()}
    for name, table in part.flat.annotations.items():
        for row, count in _by_row(table):
            if row in written:
                counts[written[row]][name] += count
    for found in part.left_out.values():
        for (what, row), count in found.items():
            if row in written:
                counts[written[row]][what] -= count
    return {split: {"images": own.pop("images"), **+own} for split, own in counts.items()}


def _by_row(table: pa.Table) -> Iterator[tuple[int, int]]:
    """How many annotations images have, by their rows."""
    rows, counts = np.unique(table["row"].to_numpy(), return_counts=True)
    return zip(rows.tolist(), counts.tolist(), strict=True)


def _without_place(part: Part, lost: Collection[int]) -> tuple[dict[str, int], dict[str, int]]:
    """Images and annotations that the format has no place for, by the reason."""
    images, annotations = Counter[str](), Counter[str]()
    for reason, found in part.left_out.items():
        for (what, row), count in found.items():
            if row not in lost:
                (images if what == "images" else annotations)[reason] += count
    return dict(images), dict(annotations)


def _totals(to: Path, shards: Sequence[ShardId]) -> dict[str, Any]:
    splits: dict[str, Counter[str]] = {}
    left_out: dict[str, Counter[str]] = {"images": Counter(), "annotations": Counter()}
    images: Counter[str] = Counter()
    lost: list[dict[str, Any]] = []
    count = 0
    for shard in shards:
        part = read_json(_done(to, shard))
        for split, counts in part["splits"].items():
            splits.setdefault(split, Counter()).update(counts)
        for what, counts in part["left_out"].items():
            left_out[what].update(counts)
        images.update(part["images"])
        count += len(part["lost"])
        lost += part["lost"][: MOST_LISTED - len(lost)]
    return {
        "splits": {split: dict(counts) for split, counts in sorted(splits.items())},
        "left_out": {what: dict(sorted(counts.items())) for what, counts in left_out.items()},
        "images": dict(sorted(images.items())),
        "missing": count,
        "first_missing": lost,
    }
