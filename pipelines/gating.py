"""The gate: whether a round counts. What it was made of, what it comes to and the verdict are its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.atomic import is_there, read_json, write_json
from engine.config import Config
from engine.dataset import Dataset
from engine.diff import Change, nested, of_shard
from engine.folds import Choice, Folds
from engine.gate.drift import Habits
from engine.gate.verdict import Verdict, judge
from engine.labels import Labels
from engine.layout import Output, Round, ShardId
from engine.records import Record
from engine.storage import read_items, read_records
from engine.summary import count_round
from engine.versions import digest_of, digest_of_json
from pipelines.manifests import in_models
from pipelines.merging import over_shards
from pipelines.reannotate import digest_of_rounds

HABITS = 20_000  # images by which the habits of rounds are told, from shards evenly spaced through the set
COLUMNS = ("texts", "regions", "masks")


@dataclass(frozen=True)
class Gating:
    """The judgement of one round against the one before."""

    output: Output
    config: Config
    number: int
    labels: Labels
    choice: Choice
    console: Console

    @property
    def round(self) -> Round:
        return self.output.round(self.number)

    @cached_property
    def digest(self) -> str:
        """What the verdict depends on."""
        gate = self.config.gate.model_dump(mode="json", exclude={"labels", "image_root", "audit"})
        rules = self.config.merge.model_dump(mode="json", include={"iou", "sizes"})
        made_of = digest_of_rounds(self.output, self.number)
        return digest_of_json([made_of, gate, rules, self.labels.digest, self.choice.digest, _code()])

    def run(self) -> dict[str, Any]:
        """The round's manifest, made if it is missing or of something else."""
        if is_there(self.round.manifest):
            there = read_json(self.round.manifest)
            if there["digest"] == self.digest:
                return dict(there)
        with self.console.status(f"gate: judging round {self.number}"):
            manifest = self.manifest(self.verdict())
        write_json(self.round.manifest, manifest)
        return manifest

    def verdict(self) -> Verdict:
        shards = list(self.output.shards())
        before, after, said = [], [], []
        for shard in shards:
            if self.labels.ids.isdisjoint(item.item_id for item in read_items(self.output, shard)):
                continue
            for one, other in self.pairs(shard):
                if one.item.item_id in self.labels.records:
                    before.append(one)
                    after.append(other)
                    said.append(self.labels.records[one.item.item_id])
        return judge(before, after, said, self.config, self.habits(shards))

    def pairs(self, shard: ShardId) -> Iterator[tuple[Record, Record]]:
        """The records of a shard before and after the round."""
        was = read_records(self.output, self.number - 1, shard, columns=COLUMNS)
        now = read_records(self.output, self.number, shard, columns=COLUMNS)
        return zip(was, now, strict=True)

    def habits(self, shards: list[ShardId]) -> tuple[Habits, Habits]:
        """Of the images that the round took."""
        items = sum(self.output.counts().values())
        some = shards[:: max(1, round(items / HABITS))]
        folds = Folds(1, Dataset(self.output).leaders(), self.choice)
        before, after = Habits(), Habits()
        for shard in some:
            for one, other in self.pairs(shard):
                if folds.chosen(one.item) and not other.error:
                    before.add(one)
                    after.add(other)
        return before, after

    def manifest(self, verdict: Verdict) -> dict[str, Any]:
        shards = list(self.output.shards())
        models = in_models(self.output.round(self.number - 1), "made_by.json")
        counts = count_round(self.output, self.number, shards)
        return {
            "round": self.number,
            "outcome": verdict.outcome,
            "digest": self.digest,
            "digests": {
                "images and annotations": digest_of_rounds(self.output, self.number),
                "labels": self.labels.digest,
                "models": [read_json(path)["digest"] for path in models],
                "configuration": digest_of_json(self.config.model_dump(mode="json", exclude={"run", "report"})),
            },
            "images": {"bound": f"{self.choice.bound:033x}", "withheld": len(self.choice.withheld)},
            "verdict": verdict.told(),
            "counts": counts,
            "diff": nested(self.diff(shards)),
        }

    def diff(self, shards: list[ShardId]) -> Counter[Change]:
        of_shards = partial(of_shard, self.output, self.number - 1, self.number)
        return sum(over_shards(of_shards, shards, self.config.run, lambda done: None), Counter())


def _code() -> str:
    spec = find_spec("engine.gate")
    assert spec is not None
    assert spec.origin is not None
    return digest_of(__name__, *sorted(Path(spec.origin).parent.glob("*.py")))
