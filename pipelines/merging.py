"""The merge stage: calibrates on labelled images, and puts together what a round adds and what stood before it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial, reduce
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console

from engine import calibration, geometry
from engine.annotate import open_image
from engine.apart import Apart
from engine.atomic import is_there, read_json, remove, write_json
from engine.components import build
from engine.config import Config, Run
from engine.dataset import Dataset
from engine.errors import ImageError
from engine.folds import Folds
from engine.labels import Labels
from engine.layout import Output, Round, ShardId
from engine.merge import Case, Rules, merge
from engine.merge.choosing import Chooser
from engine.merge.evidence import Evidence, evidence_of, together
from engine.merge.trials import Trial, distrusted, trials_of
from engine.partitions import Partition, close, closed, decided, partitions, reopen, stale_by
from engine.places import is_local
from engine.protocols import Image
from engine.records import MERGE, Item, Record
from engine.rounds import added
from engine.storage import read_items, read_records, shard_digests, write_annotations, write_decisions
from engine.summary import class_counts, summed
from engine.versions import digest_of, digest_of_json
from pipelines.reannotate import digest_of_rounds, labels_of
from pipelines.spread import spread
from specialists import parser
from specialists.parser import Parser

# A labelled image is merged by what the other parts taught, or rounds would be judged by what they learned by heart.
PARTS = 5
T = TypeVar("T")
FLORENCE = "specialists.florence:Florence"


class Models(NamedTuple):
    """The sources of a round that are models: those that were kept from what they annotate (folds), those that were
    trained elsewhere, and those that learned it."""

    kept: frozenset[str]
    elsewhere: frozenset[str]
    learners: frozenset[str]


@dataclass(frozen=True)
class Merging:
    """Merging of one round's additions into what stood before."""

    output: Output
    config: Config
    number: int
    labels: Labels
    console: Console

    @property
    def round(self) -> Round:
        return self.output.round(self.number)

    def run(self) -> dict[str, Any]:
        """Merges the shards that are not merged yet by this configuration; returns the merge's summary."""
        layer, digest, left = self.round.merge, self.digest, self.left
        if not left and is_there(layer.summary):
            self.say("merge: nothing to do, every image is merged")
            return dict(read_json(layer.summary))
        remove(layer.summary)
        remove(self.round.manifest)  # its verdict is of another merge
        start = time.monotonic()
        with self.console.status("merge: calibrating"):
            rules, told = self.rules()
        write_json(layer.sources, {"digest": digest, "sources": {MERGE: self.source}})
        task = ShardMerge(self.output, self.config, self.number, self.models, self.parts, tuple(rules), digest)
        weights = hasattr(chooser_of(self.config), "weights")
        with self.console.status("merge") as status:
            done = count(1)

            def progress(_: None) -> None:
                status.update(f"merge: {next(done)} of {left} shards")

            spread(task, self.waiting(), left, self.config.run, progress, weights)
        summary = {"digest": digest, "calibration": told, **self.counts()}
        write_json(layer.summary, summary)
        shards = sum(len(partition.shards) for partition in partitions(self.output))
        self.say(f"merge: {left} of {shards} shards in {time.monotonic() - start:.1f} s")
        return summary

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @property
    def left(self) -> int:
        """How many shards are not merged by this configuration."""
        return sum(len(shards) for _, shards in self._stale())

    def waiting(self) -> Iterator[ShardId]:
        """These shards; their partitions are open before the first of them is merged again."""
        for partition, shards in self._stale():
            reopen(self.round.merge, partition.number)
            yield from shards

    def _stale(self) -> Iterator[tuple[Partition, list[ShardId]]]:
        layer = self.round.merge
        for partition in stale_by(self.output, layer, self.digest):
            there = decided(layer, partition)
            yield partition, [s for s in partition.shards if s not in there or self._is_other(layer.decisions(s))]

    def _is_other(self, decisions: Path) -> bool:
        return shard_digests(decisions)[0] != self.digest

    @cached_property
    def digest(self) -> str:
        """What the merge depends on: what it merges, by which rules, and by which labels."""
        earlier = [digest_of_rounds(self.output, self.number - 1), labels_of(self.output, self.number, merged=False)]
        return digest_of_json(
            [self.source, earlier, self.labels.digest, self.config.vocabulary.model_dump(mode="json")]
        )

    @property
    def source(self) -> dict[str, Any]:
        """Provenance of what merging makes."""
        parameters = self.config.merge.model_dump(mode="json")
        return {
            "specialist": "engine.merge:merge",
            "version": digest_of_json([_code(), code_of(chooser_of(self.config))]),
            "licence": "Apache-2.0",
            "parameters": parameters,
        }

    def rules(self) -> tuple[list[Rules], dict[str, Any]]:
        """The rules for each part of the labelled images, and behind them those for all other images; and what is
        calibrated, for the summary."""
        config = self.config.merge
        parts: list[list[Evidence]] = [[] for _ in range(PARTS)]
        for part, case, said in self.labelled_cases():
            parts[part].append(evidence_of(case, said, config))
        evidence = [together(part) for part in parts]
        counts = class_counts(self.output, 0, self.output.shards())  # of the filtered round: a cap on caps would grow
        base = Rules(
            config,
            counts={label: count / images for label, (count, images) in counts.items()},
            families=config.families,
            vocabulary=self.config.vocabulary,
            chooser=chooser_of(self.config),
        )
        learned = [together(e for n, e in enumerate(evidence) if n != left_out) for left_out in range(PARTS + 1)]
        rules = [replace(base, calibration=e.calibration(config), edges=e.edges(config)) for e in learned]
        trials: list[list[Trial]] = [[] for _ in range(PARTS)]
        for part, case, said in self.labelled_cases():
            trials[part] += trials_of(case, said, rules[part])
        rules = [
            replace(one, distrusted=distrusted([t for n, some in enumerate(trials) if n != left_out for t in some]))
            for left_out, one in enumerate(rules)
        ]
        return rules, _told(rules[PARTS], learned[PARTS])

    def labelled_cases(self) -> Iterator[tuple[int, Case, Record]]:
        """Each labelled image: its part, its case, and what people say of it."""
        for shard in self.output.shards():
            if self.labels.ids.isdisjoint(item.item_id for item in read_items(self.output, shard)):
                continue
            for case in cases(self.output, self.number, shard, self.models):
                if said := self.labels.records.get(case.record.item.item_id):
                    yield self.parts[case.record.item.item_id], case, said

    @cached_property
    def parts(self) -> dict[bytes, int]:
        """Of each labelled image its part; those that look alike are in one."""
        folds = Folds(PARTS, Dataset(self.output).leaders())
        items = (item for shard in self.output.shards() for item in read_items(self.output, shard))
        return {item.item_id: folds.of(item) for item in items if item.item_id in self.labels.records}

    @cached_property
    def models(self) -> Models:
        sources = read_json(self.round.sources)["sources"]
        models = {name: made_by for name, made_by in sources.items() if made_by["specialist"] == FLORENCE}
        kept = frozenset(name for name, made_by in models.items() if made_by.get("folds", 1) > 1)
        elsewhere = frozenset(name for name, made_by in models.items() if self._is_elsewhere(made_by))
        return Models(kept, elsewhere, frozenset(models) - kept - elsewhere)

    def _is_elsewhere(self, made_by: Mapping[str, Any]) -> bool:
        path, root = made_by["parameters"]["model"], self.output.root
        return bool(path) and not (is_local(root) and Path(path).absolute().is_relative_to(root.absolute()))

    def counts(self) -> dict[str, Any]:
        """Decisions by action and reason. Partitions that are open yet are closed with theirs."""
        layer = self.round.merge
        merged_now = {partition.number: partition for partition in stale_by(self.output, layer, self.digest)}
        found: dict[int, Counter[tuple[str, str]]] = {number: Counter() for number in merged_now}

        def done(one: tuple[ShardId, Counter[tuple[str, str]]]) -> None:
            found[one[0].partition].update(one[1])

        shards = [shard for partition in merged_now.values() for shard in partition.shards]
        spread(partial(_decisions_of, self.output, self.number), shards, len(shards), self.config.run, done)
        for number, partition in merged_now.items():
            close(self.output, layer, partition, {"decisions": _by_action(found[number])})
        markers = closed(self.output, layer).values()
        return dict(reduce(summed, (marker.counts for marker in markers), {"decisions": {}}))


@dataclass(frozen=True)
class ShardMerge:
    """Merges one shard: plain and without state, so that any process can."""

    output: Output
    config: Config
    number: int
    models: Models
    parts: Mapping[bytes, int]
    rules: tuple[Rules, ...]  # of each part of the labelled images, and of all others
    digest: str

    def __call__(self, shard: ShardId) -> None:
        made: list[Record] = []
        chooser = self.ready()
        for case in cases(self.output, self.number, shard, self.models):
            item = case.record.item
            by = replace(self.rules[self.parts.get(item.item_id, PARTS)], chooser=chooser)
            made.append(added(merge(case, by, _phrases_in, partial(self.pixels, item)), case.record))
        layer = self.output.round(self.number).merge
        write_annotations(layer, shard, made, self.digest)
        write_decisions(layer, shard, made, self.digest)

    def ready(self) -> Chooser:
        """The chooser, set up once in each process."""
        if self.digest not in _choosers:
            _choosers.clear()
            _choosers[self.digest] = self.rules[PARTS].chooser
            _choosers[self.digest].setup()
        return _choosers[self.digest]

    def pixels(self, item: Item) -> Image:
        """Raises ImageError, also for one that takes too long."""
        (image,) = self.opener.each([item])
        if isinstance(image, ImageError):
            raise image
        return image

    @cached_property
    def opener(self) -> Apart[Item, Image]:
        opens = partial(open_image, ingest=self.config.ingest, downloads=self.output.downloads)
        return Apart(opens, self.config.run)


_choosers: dict[str, Chooser] = {}  # by digest


def cases(output: Output, number: int, shard: ShardId, models: Models) -> list[Case]:
    """The records of a shard as they are to be merged."""
    after = read_records(output, number, shard, merged=False)
    before = read_records(output, number - 1, shard)
    return [Case(one, other, *models) for one, other in zip(after, before, strict=True)]


def over_shards(
    task: Callable[[ShardId], T],
    shards: Sequence[ShardId],
    run: Run,
    progress: Callable[[int], None],
    weights: bool = False,
) -> list[T]:
    """What a task gives for each shard, see `pipelines.spread`. With `weights` each needs what a worker does."""
    results: list[T] = []

    def done(result: T) -> None:
        results.append(result)
        progress(len(results))

    spread(task, shards, len(shards), run, done, weights)
    return results


def chooser_of(config: Config) -> Chooser:
    """Who chooses the texts of regions. Raises ConfigError for one that is not installed, or takes other parameters."""
    asked = config.merge.chooser
    chooser: Chooser = build("choosers", str(asked.get("use", "by_class")), asked, config.vocabulary)
    return chooser


def code_of(chooser: Chooser) -> str:
    """Digest of a chooser's module, and its own version if it has one."""
    module = import_module(type(chooser).__module__)
    return digest_of_json([digest_of(module.__name__), str(getattr(chooser, "version", ""))])


def _decisions_of(output: Output, number: int, shard: ShardId) -> tuple[ShardId, Counter[tuple[str, str]]]:
    """The merge's decisions on a shard, by action and reason."""
    records = read_records(output, number, shard, columns=())
    ours = (d for record in records for d in record.decisions if d.by == MERGE and d.round == number)
    return shard, Counter((decision.action, decision.reason) for decision in ours)


def _by_action(found: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    decisions: dict[str, dict[str, int]] = {}
    for (action, reason), times in sorted(found.items()):
        decisions.setdefault(action, {})[reason] = times
    return decisions


def _told(rules: Rules, evidence: Evidence) -> dict[str, Any]:
    """What is calibrated and by how many matches, and what is not; which sources' boxes are put right."""
    matches = Counter(sample.strata[-1] for sample in evidence.samples)
    return {
        "matches": {" ".join(stratum): count for stratum, count in sorted(matches.items())},
        "calibrated": [" ".join(stratum) for stratum in rules.calibration.curves],
        "uncalibrated": [" ".join(s) for s in sorted(matches) if s not in rules.calibration.curves],
        "distrusted": [" ".join(ground) for ground in sorted(rules.distrusted)],
        "bias": {" ".join(stratum): list(e.bias) for stratum, e in rules.edges.items() if e.is_biased},
    }


@lru_cache(maxsize=100_000)
def _phrases_in(text: str) -> Sequence[Any]:
    return _parser().phrases_in(text)


@lru_cache(maxsize=1)
def _parser() -> Parser:
    ready = Parser()
    ready.setup()
    return ready


@lru_cache(maxsize=1)
def _code() -> str:
    spec = find_spec("engine.merge")
    assert spec is not None
    assert spec.origin is not None
    modules = [Path(str(module.__file__)) for module in (calibration, geometry, parser)]
    return digest_of(__name__, *sorted(Path(spec.origin).parent.glob("*.py")), *modules, packages=("scipy", "spacy"))
