"""All of an output folder: its shards, what they come to together, and the files that speak of them."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from engine.atomic import is_there, names_in, read_json
from engine.config import Ingest, Run, load_config
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError
from engine.ingest import is_of_others
from engine.layout import Layer, Output, Round, ShardId
from engine.partitions import Closed
from engine.spill import Digests
from engine.storage import read_table
from engine.summary import added_up
from engine.verify.findings import Finding, Verdict
from engine.verify.leftovers import leftovers
from engine.verify.shards import AGAIN, INGEST_AGAIN, ShardCheck, ShardReport, ingested_again
from engine.versions import digest_of_json

Looking = Literal["sample", "all", "none"]  # at images
SAMPLE = 1000
OF_OTHERS = {"rows", "digest", "beyond"}  # what is found where a manifest is of other shards
PARALLEL = 512  # shards from which processes are worth their start
GIVEN_AGAIN = (
    "bring it back from a copy; or, to take it from the list again, remove the items of the partition and round 0's "
    "marker of it, and run again"
)
REMAKE_CONFIG = "name what made this set with engine run --config"
WRITE_AGAIN = "remove it, and run again: it is written anew"
REWRITE = "engine verify --repair --yes writes it anew from the shards, if it can; all else is looked at after that"


def verified(
    output: Output,
    *,
    round: int | None = None,
    images: Looking = "sample",
    writing: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Verdict:
    """Looks at all rounds, or at those up to `round`. Raises OutputError where there is no dataset."""
    check_there(output, round)
    return _Verification(output, round, images, writing, progress).run()


def check_there(output: Output, round: int | None = None) -> None:
    """Raises OutputError where there is no dataset, nor one that only lost its manifest, and where it has no such
    round."""
    if not output.has_lost_manifest:
        open_dataset(output.root, round or 0)


@dataclass
class _Verification:
    output: Output
    round: int | None
    images: Looking
    writing: bool
    progress: Callable[[int], None]
    verdict: Verdict = field(default_factory=lambda: Verdict(""))
    ids: Digests = field(default_factory=Digests)
    unread: set[int] = field(default_factory=set)  # partitions of which a shard's items are at fault themselves
    done: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    begun: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    undone: dict[str, list[ShardId]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    counts: dict[int, dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))  # round, partition
    counted: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    contents: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))  # by partition
    digests: dict[str, dict[tuple[int, str, str], ShardId]] = field(default_factory=lambda: defaultdict(dict))

    def run(self) -> Verdict:
        start = time.monotonic()
        self.verdict.root = str(self.output.root)
        try:
            sizes = self.output.counts()
            manifest = read_json(self.output.manifest)
            digests = [str(part.get("digest", manifest["digest"])) for part in manifest["partitions"]]
            parts = [int(part["shards"]) for part in manifest["partitions"]]
            same = sum(sizes.values()) == manifest["items"]
        except (OutputError, KeyError, TypeError, ValueError) as error:
            kind = "damaged" if is_there(self.output.manifest) else "missing"
            self._file(kind, self.output.manifest, str(error).split(". ")[0], REWRITE)
            return self.verdict
        if not same:
            self._file("counts", self.output.manifest, "its partitions don't add up to its items", REWRITE)
        layers = tuple(self._layers())
        check = ShardCheck(self.output, layers, sizes, digests, self._ingest(), self._chosen(sizes))
        self._each(check, list(sizes))
        for number, layer in layers:
            self._layer(number, layer, parts)
        self._others(layers)
        self.verdict.add(leftovers(self.output, [layer for _, layer in layers], parts, self.writing))
        if not self.writing and OF_OTHERS & self.verdict.kinds.keys() and is_of_others(self.output):
            self.verdict = replace(self.verdict, findings=[], kinds=Counter())  # they are by a manifest that is wrong
            self._file("other_images", self.output.manifest, "it is of other shards than those that are there", REWRITE)
        self.verdict.seconds = time.monotonic() - start
        return self.verdict

    def _each(self, check: ShardCheck, shards: list[ShardId]) -> None:
        if len(shards) < PARALLEL:
            for shard in shards:
                self._add(check(shard))
            return
        from engine.runner import each_shard  # Ray takes seconds to start

        each_shard(check, shards, Run(), self._add)

    def _layers(self) -> Iterator[tuple[int, Layer]]:
        for round_ in self.output.rounds():
            if self.round is None or round_.number <= self.round:
                yield round_.number, round_
                if is_there(round_.merge.sources):
                    yield round_.number, round_.merge

    def _ingest(self) -> Ingest:
        try:
            return load_config(self.output.config).ingest
        except ConfigError as error:
            self._file("damaged", self.output.config, str(error), REMAKE_CONFIG, keep=True)
            return Ingest()

    def _chosen(self, sizes: Mapping[ShardId, int]) -> Mapping[ShardId, list[int]] | None:
        """The rows of a sample of all items, the same each time."""
        if self.images == "all":
            return None
        total = sum(sizes.values())
        numbers = sorted(random.Random(0).sample(range(total), min(SAMPLE, total))) if self.images == "sample" else []
        chosen: dict[ShardId, list[int]] = {}
        start, at = 0, 0
        for shard, size in sizes.items():
            while at < len(numbers) and numbers[at] < start + size:
                chosen.setdefault(shard, []).append(numbers[at] - start)
                at += 1
            start += size
        return chosen

    def _add(self, report: ShardReport) -> None:
        verdict, shard = self.verdict, report.shard
        verdict.add(report.findings)
        verdict.shards, verdict.rows = verdict.shards + 1, verdict.rows + report.rows
        verdict.annotations, verdict.images = verdict.annotations + report.annotations, verdict.images + report.images
        self.rows[shard.partition] += report.rows
        self.contents[shard.partition].append(report.content)
        twice = [id_ for at in range(0, len(report.ids), 16) if not self.ids.add(id_ := report.ids[at : at + 16])]
        path, marker = ingested_again(self.output, shard)
        if twice:
            message = f"{len(twice)} of its items are in the set already, the first of them {twice[0].hex()}"
            self._file("item_twice", path, message, INGEST_AGAIN, marker)
        if any(finding.path == path.relative_to(self.output.root).as_posix() for finding in report.findings):
            self.unread.add(shard.partition)
        dangling = [id_ for id_ in report.originals if self.ids.number(id_) is None]
        if dangling and not self.unread:  # or they may be in what is at fault
            message = f"{len(dangling)} of its duplicates are of images that are nowhere before"
            self._file("dangling_duplicate", path, message, INGEST_AGAIN, marker)
        for name in report.begun:
            self.begun[name] += 1
        for name in report.done:
            self.done[name][shard.partition] += 1
        for name, (annotate, filter_) in report.digests.items():
            self.digests[name].setdefault((shard.partition, annotate, filter_), shard)
            if name not in report.done:
                self.undone[name].append(shard)
        for number, counts in report.counts.items():
            there = self.counts[number].get(shard.partition)
            self.counts[number][shard.partition] = counts if there is None else added_up([there, counts])
            self.counted[number] += 1
        self.progress(report.rows)

    def _layer(self, number: int, layer: Layer, parts: list[int]) -> None:
        """What a layer's shards come to, against what its files say of them."""
        name = layer.folder.relative_to(self.output.root).as_posix()
        done = self.done[name]
        left = sum(parts) - sum(done.values())
        damaged = any(finding.path.startswith(f"{name}/") for finding in self.verdict.findings)
        markers = self._markers(layer)
        for partition, marker in markers.items():
            self._marker(number, layer, partition, marker, parts)
        self._sources(name, layer)
        if is_there(layer.summary):
            self._summary(number, layer, left, damaged)
        elif left:
            self.verdict.open[name] = left

    def _markers(self, layer: Layer) -> dict[int, Closed]:
        """Those that can be read and may be true; the others are findings."""
        markers = {}
        folder = layer.closed(0).parent
        for name in names_in(folder):
            try:
                marker = Closed(**read_json(folder / name))
                markers[int(name.removeprefix("part-").removesuffix(".json"))] = marker
            except (OutputError, TypeError, ValueError) as error:
                self._file("damaged", folder / name, str(error).split(". ")[0], WRITE_AGAIN)
        return markers

    def _marker(self, number: int, layer: Layer, partition: int, marker: Closed, parts: list[int]) -> None:
        name = layer.folder.relative_to(self.output.root).as_posix()
        path = layer.closed(partition)
        if partition >= len(parts):
            self._file("beyond", path, "the manifest has no such partition", WRITE_AGAIN)
            return
        there = self.done[name][partition]
        if there != parts[partition] or marker.shards != parts[partition]:
            message = f"it says that {marker.shards} shards are done, and {there} of {parts[partition]} are"
            self._file("stale_marker", path, message, WRITE_AGAIN, layer.summary)
            return
        if partition in self.unread:
            return
        if layer == self.output.round(0):
            self._came_along(partition, marker)
        digests = {(a, f) for part, a, f in self.digests[name] if part == partition and f}
        if marker.items != self.rows[partition] or (digests and digests != {(marker.annotate, marker.filter)}):
            message = "it closes other images, or what another configuration made"
            self._file("stale_marker", path, message, WRITE_AGAIN, layer.summary)
        counts = self.counts[number].get(partition)
        whole = counts is not None and counts["items"] == self.rows[partition]
        if isinstance(layer, Round) and whole and counts is not None and differs(marker.counts, counts):
            message = f"its counts are not its shards': {', '.join(differs(marker.counts, counts))}"
            self._file("counts", path, message, WRITE_AGAIN, layer.summary)

    def _came_along(self, partition: int, marker: Closed) -> None:
        """What came along with a shard's images may be nothing: only a marker of round 0 tells where it is gone."""
        contents = self.contents[partition]
        if all(contents) and marker.images != digest_of_json(contents):
            path = self.output.given(ShardId(partition, 0)).parent
            message = "what came along with its images is gone, or is other than what round 0 was made of"
            self._file("came_along", path, message, GIVEN_AGAIN, keep=True)

    def _sources(self, name: str, layer: Layer) -> None:
        if not self.digests[name]:
            return
        try:
            said = read_json(layer.sources) if is_there(layer.sources) else {"digest": None}
            digest, updating = said["digest"], said.get("updating", False)
        except (OutputError, KeyError, TypeError) as error:
            self._file("damaged", layer.sources, str(error).split(". ")[0], WRITE_AGAIN)
            return
        if updating and not self.writing:
            told = "an --update was stopped: a part is made anew, and the rest is not yet"
            self._file("updating", layer.sources, told, "engine run --update", keep=True)
        if digest is None:
            self._file(
                "missing", layer.sources, "nothing says what made the annotations", "run again: it is written anew"
            )
            return
        for (_, annotate, _), shard in self.digests[name].items():
            if annotate != digest and not updating:
                message = f"made by configuration {annotate or 'none'}, sources.json says {digest}"
                more = (layer.decisions(shard), layer.closed(shard.partition), layer.summary)
                self._file("digest", layer.annotations(shard), message, AGAIN, *more)
        filters = {filter_ for _, _, filter_ in self.digests[name] if filter_}
        if len(filters) > 1:
            first = {f: s for (_, _, f), s in self.digests[name].items()}
            told = ", ".join(f"{digest} ({shard})" for digest, shard in first.items())
            path = layer.folder / "decisions"
            self._file(
                "mixed_filters",
                path,
                f"decided by {len(filters)} sets of filters: {told}",
                "engine run --stage filter",
                keep=True,
            )

    def _summary(self, number: int, layer: Layer, left: int, damaged: bool) -> None:
        try:
            summary = read_json(layer.summary)
            counted = ("items", "quarantined", "annotations", "fallen") if isinstance(layer, Round) else ()
            said = {key: summary[key] for key in counted}
        except (OutputError, KeyError, TypeError) as error:
            self._file("damaged", layer.summary, str(error).split(". ")[0], WRITE_AGAIN)
            return
        if left:
            told = ", ".join(map(str, self.undone[layer.folder.relative_to(self.output.root).as_posix()][:3]))
            message = (
                f"it says that the round is done, and {left} shards are not ({told or 'nothing of them is there'})"
            )
            if not damaged:
                self._file("missing", layer.summary, message, "remove it, and run again: they are annotated")
            return
        counts = added_up(self.counts[number].values())
        if (
            self.counted[number] == self.verdict.shards
            and isinstance(layer, Round)
            and (wrong := differs(said, counts))
        ):
            self._file("counts", layer.summary, f"its counts are not its shards': {', '.join(wrong)}", WRITE_AGAIN)

    def _others(self, layers: tuple[tuple[int, Layer], ...]) -> None:
        """Files of which a dataset has one each."""
        for _, layer in layers:
            for name, lost in (
                ("round.json", ""),
                ("choice.json", "which images the round takes"),
                ("progress.json", ""),
            ):
                path = layer.folder / name
                if is_there(path) and not _is_json(path):
                    self._file("damaged", path, "it is no JSON", WRITE_AGAIN, lost=lost)
        near = self.output.round(0).near_duplicates
        for path, lost in ((near, ""), (self.output.contamination, "what engine decontaminate found")):
            try:
                if is_there(path):
                    read_table(path)
            except OutputError as error:
                self._file("damaged", path, str(error).split(". ")[0], WRITE_AGAIN, lost=lost)

    def _file(
        self, kind: str, path: Path, message: str, remedy: str, *more: Path, keep: bool = False, lost: str = ""
    ) -> None:
        """A finding about a file, which is repaired by removing it and some more, unless it is to be kept."""
        relative = [one.relative_to(self.output.root).as_posix() for one in (path, *more)]
        self.verdict.add([Finding(kind, relative[0], message, remedy, () if keep else tuple(relative), lost)])


def differs(said: dict[str, Any], counted: dict[str, Any]) -> list[str]:
    return [key for key in said if key in counted and said[key] != counted[key]]


def _is_json(path: Path) -> bool:
    try:
        read_json(path)
    except OutputError:
        return False
    return True
