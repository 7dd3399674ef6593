"""The compositions behind `engine run --stage ...`: a stage runs what it needs first, and goes on where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import yaml
from rich.console import Console
from rich.text import Text

from engine.annotate import Tally
from engine.config import Config, Run
from engine.dataset import open_dataset
from engine.decide import FilterFault, decide
from engine.errors import ConfigError, OutputError, RunError, is_no_space
from engine.folds import ALL, EVERYTHING, Choice
from engine.ingest import ingest, listed_digest, listing_of
from engine.labels import Labels, asked_of, read_labels
from engine.lock import run_lock
from engine.progress import RunProgress
from engine.records import Record
from engine.storage import (
    Output,
    Round,
    ShardId,
    read_json,
    read_records,
    shard_digest,
    write_decisions,
    write_json,
    write_text,
)
from engine.summary import count_round, group_near_duplicates
from pipelines.build import Pipeline
from pipelines.compatible import (
    check_compatible,
    check_decided_once,
    check_same_round,
    config_there,
    is_annotated,
    is_begun,
    is_decided,
)
from pipelines.manifests import accepted, bound_of, check_accepted, withheld_by
from pipelines.reannotate import (
    again,
    check_earlier,
    digest_of_rounds,
    is_foreign,
    is_unfinished,
    is_untrained,
    needs_training,
    warnings,
)
from pipelines.refining import Refining

# In the order of the loop. Those that are not RUNNABLE belong to parts of the engine that aren't there yet.
STAGES = ("ingest", "annotate", "filter", "train", "reannotate", "merge", "export", "report", "refine", "all")
OF_ROUND = ("train", "reannotate", "merge", "report")


@dataclass(frozen=True)
class Stages:
    """The stages over one output folder. `run` is the way in: it checks, locks, and then composes them."""

    RUNNABLE: ClassVar[tuple[str, ...]] = (
        "ingest",
        "annotate",
        "filter",
        "train",
        "reannotate",
        "merge",
        "report",
        "refine",
        "all",
    )

    pipeline: Pipeline
    output: Output
    console: Console
    round: int = 0  # that is trained on, that reannotate starts from, merge merges, and report shows
    rounds: int | None = None  # of refine; none: those that the configuration lists
    known_labels: Labels | None = None  # where they were read already

    def run(self, stage: str, *, overwrite: bool = False) -> dict[str, Any]:
        """Runs `stage` and returns its summary. Raises OutputError where the folder holds something else."""
        self.output.check_ours()
        if self.round and stage not in OF_ROUND:
            raise ConfigError(f"--round is for {', '.join(OF_ROUND)}; --stage {stage} begins with round 0")
        if stage in ("merge", "refine", "all"):
            self._check_rounds(stage)
        if overwrite and (self.round or stage in ("reannotate", "merge")):
            raise ConfigError(
                "--overwrite would remove all rounds, and their models, too. Remove what is to be made anew instead: "
                f"{self.output.round(max(self.round, 1)).folder}"
            )
        if stage == "reannotate":
            round_ = self.output.round(self.round)
            if not needs_training(self.pipeline) or not is_unfinished(round_, self.pipeline.config):
                again(self.pipeline, self.output, self.round)  # or the models are others, and nothing is begun
        if overwrite or not self.output.manifest.exists():
            next(iter(listing_of(self.pipeline.config.ingest)))  # before anything is written or lost
        try:
            with run_lock(self.output.root):
                self._check_space()
                if overwrite:
                    self.output.clear()
                self.output.sweep()
                check_compatible(self.output, self.pipeline, stage)
                for warning in self.pipeline.warnings:
                    self._warn(warning)
                return self._run(stage)
        except OSError as error:
            if is_no_space(error):
                raise RunError(f"no space left in {self.output.root}. Make room and run the same again.") from error
            raise

    def _run(self, stage: str) -> dict[str, Any]:
        """config.yaml says what made the files: it is there before they are. How to run, and other filters than those
        that decided, are kept only once they have proven good: what is wrong with them would come back with every run
        that goes on."""
        there, asked = config_there(self.output), self.pipeline.config
        decided = any(self.output.round(0).folder.glob("decisions/*/*.parquet"))
        if there is None or not decided:
            self._keep(asked.model_copy(update={"run": there.run if there else Run()}))
        if stage == "report" and is_decided(self.output, self.round):
            return self.report()
        manifest = self.ingest()
        run = {
            "ingest": lambda: manifest,
            "annotate": self.annotate,
            "filter": self.filter,
            "train": self.train,
            "reannotate": self.reannotate,
            "merge": lambda: {**self.merge(), **self.gate()},
            "report": self.report,
            "refine": self.refine,
            "all": self.all,
        }
        summary = run[stage]()
        if stage in ("annotate", "filter", "train") or not decided:
            self._keep(asked)
        return summary

    def _warn(self, warning: str) -> None:
        self.console.print(f"! {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _keep(self, config: Config) -> None:
        document = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text(self.output.config, document)

    def ingest(self) -> dict[str, Any]:
        """The manifest, made if it is missing."""
        if self.output.manifest.exists():
            manifest: dict[str, Any] = read_json(self.output.manifest)
            limit = self.pipeline.config.ingest.limit
            limited = f", limited to the first {limit} (ingest.limit)" if limit else ""
            self.console.print(f"ingest: {manifest['items']} images are in the manifest{limited}", highlight=False)
            self._check_listing(manifest)
            return manifest
        start, done = time.monotonic(), 0

        def progress(items: int) -> None:
            nonlocal done
            done += items
            status.update(f"ingest: {done} images")

        with self.console.status("ingest") as status:
            manifest = ingest(self.output, self.pipeline.config.ingest, self.pipeline.ingest_digest, progress)
        seconds = time.monotonic() - start
        self.console.print(f"ingest: {_ingested(manifest)} in {seconds:.1f} s", highlight=False, soft_wrap=True)
        return manifest

    def _check_listing(self, manifest: dict[str, Any]) -> None:
        """Says so if images came or went since: a person who added some would wait for them in vain."""
        try:
            same = listed_digest(self.pipeline.config.ingest) == manifest["listed"]
        except ConfigError:
            same = False
        if not same:
            self.console.print(
                "! The image set has changed since it was ingested; this run goes on with the images of then. "
                "To take it as it is now, name another --out, or start afresh with --overwrite.",
                style="yellow",
                highlight=False,
            )

    def annotate(self, number: int = 0) -> dict[str, Any]:
        """Every shard whose decisions of a round are missing, through all specialists and filters."""
        round_, shards = self.output.round(number), list(self.output.shards())
        waiting = [shard for shard in shards if not round_.decisions(shard).exists()]
        self._keep_sources(round_)
        if waiting:
            round_.summary.unlink(missing_ok=True)
            this_run = self._annotate(round_, waiting)
        else:
            self.console.print(f"{_stage(round_)}: nothing to do, every image is annotated", highlight=False)
            this_run = read_json(round_.summary)["last_run"] if round_.summary.exists() else {}
        return self._summarise(shards, this_run, number)

    @property
    def next_round(self) -> Round:
        return self.output.round(self.round + 1)

    def reannotate(self, *, planned: bool = False) -> dict[str, Any]:
        """The next round: every image through the specialists of `reannotate`, with the models of this one.

        If it has none yet, they are trained first. What a plan's training differs in is not kept as the folder's own.
        """
        self._complete_round()
        if needs_training(self.pipeline):
            self._complete_models()
        built = again(self.pipeline, self.output, self.round)
        choice = EVERYTHING if self.pipeline.choice.bound >= ALL else self.pipeline.choice
        built = replace(built, earlier=digest_of_rounds(self.output, self.round), choice=choice)
        check_same_round(self.output, built, self.next_round.number)
        for warning in [*warnings(built), *built.warnings]:
            self._warn(warning)
        if not planned:
            self._keep_section("reannotate", "train")
        return replace(self, pipeline=built).annotate(self.next_round.number)

    def _check_rounds(self, stage: str) -> None:
        """Raises ConfigError now for what would be told after hours, and where there is no round to merge."""
        from pipelines.merging import chooser_of

        chooser_of(self.pipeline.config)
        if self.pipeline.config.gate.labels:
            asked_of(self.pipeline.config)
        if stage != "merge":
            needs_training(self.pipeline)  # builds what annotates again
            list(Refining(self).plans(self._rounds))
        elif self.round == 0:
            raise ConfigError("--stage merge needs --round: 1 for what the first reannotate added to round 0")
        elif not is_decided(self.output, self.round):
            raise OutputError(
                f"{self.output.root} has no whole round {self.round} to merge: annotate it with --stage reannotate "
                f"--round {self.round - 1}"
            )

    @property
    def _rounds(self) -> int:
        return len(self.pipeline.config.refine.rounds) if self.rounds is None else self.rounds

    @cached_property
    def labels(self) -> Labels:
        """What people say of some images. Its images are withheld from training."""
        if self.known_labels is not None:
            return self.known_labels
        labels = read_labels(self.output, self.pipeline.config)
        if labels.blank:
            self._warn(
                f"gate.labels: {labels.blank} of {len(labels.records)} labelled images have not one label: each counts "
                "as an image with nothing in it. If they are not labelled yet, take them out of the file"
            )
        if labels.unknown:
            self._warn(f"gate.labels: {labels.unknown} labelled images are not in the set")
        if labels.faults:
            told = ", ".join(f"{kind} {count}" for kind, count in labels.faults.items())
            self._warn(
                f"gate.labels: {sum(labels.faults.values())} labels could not be taken as they are ({told}): where one "
                "is missing, what is right counts as wrong"
            )
        return labels

    @property
    def choice(self) -> Choice:
        """The images of a round: of a plan, or all; those that are labelled are never trained on."""
        chosen = self.pipeline.choice
        return chosen if chosen != EVERYTHING else Choice(self.labels.ids)

    def merge(self) -> dict[str, Any]:
        """What the round adds and what stood before it are put together."""
        from pipelines.merging import Merging  # spaCy takes a second to import

        check_decided_once(self.output, self.round, merged=False)
        check_earlier(self.output, self.round)
        check_accepted(self.output, self.round - 1)
        labels = self._never_learned
        merging = Merging(self.output, self.pipeline.config, self.round, labels, self.console)
        if self.next_round.sources.exists() and merging.waiting:
            raise OutputError(
                f"{self.next_round.folder} stands on how round {self.round} is merged. To merge it in another way, or "
                "by other labels, remove that first"
            )
        summary = merging.run()
        self._keep_section("merge", "gate")
        return summary

    @cached_property
    def _never_learned(self) -> Labels:
        """The labels of images that no model of the rounds before was trained on; others prove nothing."""
        kept = withheld_by(self.output, self.round)
        if kept is None or self.labels.ids <= kept:
            return self.labels
        usable = self.labels.of(kept)
        self._warn(
            f"gate.labels: {len(self.labels.records) - len(usable.records)} of {len(self.labels.records)} labelled "
            "images were trained on, and so neither calibrate nor judge: name the labels before training"
        )
        return usable

    def gate(self) -> dict[str, Any]:
        """Whether the round counts: its manifest."""
        from pipelines.gating import Gating  # SciPy takes a quarter of a second

        labels = self._never_learned
        choice = Choice(labels.ids, bound_of(self.output.round(self.round)))
        return Gating(self.output, self.pipeline.config, self.round, labels, choice, self.console).run()

    def refine(self) -> dict[str, Any]:
        """Rounds as the configuration lists them, in one Ray."""
        from engine.runner import cluster
        from pipelines.training.stage import OBJECT_STORE_BYTES

        self._complete_round()
        known = replace(self, known_labels=self.labels)  # or what is wrong with them would be kept
        self._keep_section("train", "reannotate", "merge", "gate", "refine")  # nothing of what made the annotations
        with cluster(self.pipeline.config.run, OBJECT_STORE_BYTES):
            return Refining(known).run(self._rounds)

    def all(self) -> dict[str, Any]:
        """From images to a page about the last round that was accepted."""
        self.annotate()
        summary = self.refine()
        replace(self, round=accepted(self.output)).report()
        return summary

    def _keep_section(self, *names: str) -> None:
        """Keeps how the configuration in the folder goes on, without a change to what made its annotations."""
        asked = self.pipeline.config
        there = config_there(self.output) or asked
        self._keep(there.model_copy(update={name: getattr(asked, name) for name in names}))

    def filter(self) -> dict[str, Any]:
        """Decides again on every shard that other filters decided on. No specialist runs, no image is opened."""
        round_, shards = self.output.round(0), list(self.output.shards())
        if not is_annotated(self.output):
            self.console.print("filter: not every image is annotated yet, so that comes first", highlight=False)
            self.annotate()
        self._keep_sources(round_)
        for folder in self.output.root.glob("round-*"):  # later rounds count what stands of this one, too
            Round(folder).summary.unlink(missing_ok=True)
        stale = [s for s in shards if shard_digest(round_.decisions(s)) != self.pipeline.filter_digest]
        start = time.monotonic()
        with self.console.status("filter") as status:
            for done, shard in enumerate(stale):
                status.update(f"filter: {done} of {len(stale)} shards")
                decided = [self._decided(record) for record in self._undecided(shard)]
                write_decisions(round_, shard, decided, self.pipeline.filter_digest)
        seconds = time.monotonic() - start
        self.console.print(
            f"filter: decided again on {len(stale)} of {len(shards)} shards in {seconds:.1f} s", highlight=False
        )
        return self._summarise(shards, {"stage": "filter", "seconds": round(seconds, 3)})

    def train(self) -> dict[str, Any]:
        """A Florence-2 on what stands, after annotating what isn't yet."""
        from pipelines.training.stage import Training  # torch and Ray Train take seconds to import

        self._complete_round()
        return Training(self.output, self.pipeline.config, self.round, self.console, self.choice).run()

    def _complete_models(self) -> None:
        """Those of the round, trained as is asked for; or such as somebody put there."""
        round_ = self.output.round(self.round)
        if is_foreign(round_):
            self._warn(
                f"{round_.model()} was not trained here (it has no made_by.json): whether it ever saw an image that it "
                "annotates, nobody knows"
            )
            return
        if is_untrained(round_):
            if self.next_round.sources.exists():
                raise OutputError(
                    f"{self.next_round.folder} was made by a model that is no longer in {round_.folder}. "
                    f"Bring it back, or remove {self.next_round.folder} for another one"
                )
            self.console.print("reannotate: no model is trained on the round yet, so that comes first", highlight=False)
        self.train()

    def _complete_round(self) -> None:
        """The round to learn or to go on from: annotated, if it is the first and isn't yet, and decided on once."""
        if self.round == 0 and not is_decided(self.output):
            self.annotate()
        if not is_decided(self.output, self.round):
            raise OutputError(f"{self.output.root} has no whole round {self.round} (--round): annotate that first")
        check_decided_once(self.output, self.round)
        check_accepted(self.output, self.round)
        if not self.output.round(0).near_duplicates.exists():  # by which folds go: a run was stopped just before
            group_near_duplicates(self.output, 0, list(self.output.shards()))
        check_earlier(self.output, self.round)

    def report(self) -> dict[str, Any]:
        """The page about what is there, after annotating what isn't."""
        from engine.report import write_report

        shards = list(self.output.shards())
        if self.round == 0 and not is_decided(self.output):
            self.annotate()
        check_decided_once(self.output, self.round)
        check_earlier(self.output, self.round)
        config = self.pipeline.config
        with self.console.status("report"):
            page = write_report(
                open_dataset(self.output.root, self.round), config.ingest, self.output.report, config.report.images
            )
        size = page.stat().st_size / 1e6
        self.console.print(Text(f"report: {page} ({size:.1f} MB), to be opened in a browser"), soft_wrap=True)
        summary = self.output.round(self.round).summary
        return dict(read_json(summary)) if summary.exists() else count_round(self.output, self.round, shards)

    def _keep_sources(self, round_: Round) -> None:
        if round_.sources.exists() and is_begun(round_):
            return
        sources = {
            "digest": self.pipeline.annotate_digest,
            "settings": self.pipeline.annotate_settings,
            "filters": self.pipeline.filter_digest,  # by which annotations stood for those who built upon them
            "sources": self.pipeline.sources,
            **({"earlier": self.pipeline.earlier} if self.pipeline.earlier else {}),
        }
        write_json(round_.sources, sources)

    def _undecided(self, shard: ShardId) -> list[Record]:
        """A shard's records without the filters' decisions; the opinions of specialists are no filter's to renew."""
        there = self.output.round(0).decisions(shard).exists()
        records = read_records(self.output, 0, shard, decided=there)
        names = {specialist.name for specialist in self.pipeline.specialists}
        return [
            replace(record, decisions=tuple(decision for decision in record.decisions if decision.by in names))
            for record in records
        ]

    def _decided(self, record: Record) -> Record:
        try:
            return decide(record, self.pipeline.filters)
        except FilterFault as fault:
            raise RunError(
                f"filter {fault.filter_name} failed on {record.item.uri}: {fault}. "
                "The decisions of its shard are as they were."
            ) from fault

    def _annotate(self, round_: Round, waiting: Sequence[ShardId]) -> dict[str, Any]:
        from engine.runner import run_shards  # Ray takes a second to import; --help and filter do without

        counts = self.output.counts()
        total, left = sum(counts.values()), sum(counts[shard] for shard in waiting)
        names = ", ".join(specialist.name for specialist in self.pipeline.specialists) or "no specialist"
        going_on = f", {total - left} are done already" if left < total else ""
        line = f"{_stage(round_)}: {total} images through {names}{going_on}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        shutil.rmtree(round_.folder / "notes", ignore_errors=True)
        start = time.monotonic()
        with RunProgress(self.console, _stage(round_), total, total - left) as progress:
            tally = run_shards(self.pipeline.plan(self.output, round_.number), waiting, progress)
        shutil.rmtree(round_.folder / "notes", ignore_errors=True)
        return {"stage": _stage(round_), **_timings(tally, progress, time.monotonic() - start)}

    def _summarise(self, shards: Sequence[ShardId], this_run: dict[str, Any], number: int = 0) -> dict[str, Any]:
        round_ = self.output.round(number)
        summary = {
            "round": number,
            **count_round(self.output, number, shards),
            **({} if number else {"near_duplicates": group_near_duplicates(self.output, 0, shards)}),
            "digests": {
                "ingest": self.pipeline.ingest_digest,
                "annotate": read_json(round_.sources)["digest"],
                "filter": self.pipeline.filter_digest,
            },
            "last_run": this_run,
        }
        write_json(round_.summary, summary)
        return summary

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.output.root).free / 1e6
        if free < self.pipeline.config.run.min_free_mb:
            raise RunError(
                f"{self.output.root} has {free:.0f} MB of free space, and run.min_free_mb asks for "
                f"{self.pipeline.config.run.min_free_mb}. Make room, or name another --out."
            )


def _stage(round_: Round) -> str:
    return "reannotate" if round_.number else "annotate"


def _timings(tally: Tally, progress: RunProgress, seconds: float) -> dict[str, Any]:
    return {
        "images": tally.items,
        "seconds": round(seconds, 3),
        "seconds_to": {event: round(value, 3) for event, value in progress.seconds_to.items()},
        "images_per_second": round(progress.images_per_second, 3),
        "worker_seconds": {name: round(value, 3) for name, value in tally.seconds.items()},
    }


def _ingested(manifest: dict[str, Any]) -> str:
    parts = [f"{manifest['items']} images"]
    if manifest["given"]:
        given = ", ".join(f"{what} {count}" for what, count in manifest["given"].items())
        parts.append(f"{sum(manifest['given'].values())} annotations came along ({given})")
    if manifest["faults"]:
        faults = ", ".join(f"{kind} {count}" for kind, count in manifest["faults"].items())
        parts.append(f"{sum(manifest['faults'].values())} faults in what came along ({faults})")
    if manifest["duplicates"]:
        parts.append(f"{manifest['duplicates']} exact duplicates")
    if manifest["errors"]:
        errors = ", ".join(f"{kind} {count}" for kind, count in manifest["errors"].items())
        parts.append(f"{sum(manifest['errors'].values())} unreadable ({errors})")
    if manifest["repeated"]:
        parts.append(f"{manifest['repeated']} listed twice")
    if manifest["skipped"]:
        skipped = ", ".join(f"{kind} {count}" for kind, count in manifest["skipped"].items())
        parts.append(f"{sum(manifest['skipped'].values())} files skipped that are no images ({skipped})")
    return ", ".join(parts)
