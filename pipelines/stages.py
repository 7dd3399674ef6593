"""The compositions behind `engine run --stage ...`: a stage runs what it needs first, and goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import yaml
from rich.console import Console

from engine.atomic import is_there, read_json, remove, write_text
from engine.config import Config, Run
from engine.contamination import contaminated
from engine.dataset import accepted
from engine.errors import ConfigError, OutputError, RunError, unwritable
from engine.folds import ALL, EVERYTHING, Choice
from engine.ingest import listing_of
from engine.labels import Labels, asked_of, read_labels
from engine.layout import Output, Round
from engine.lock import run_lock
from engine.partitions import partitions, stale_by
from engine.places import is_local
from engine.summary import grouped
from pipelines.annotating import Annotating
from pipelines.build import Pipeline
from pipelines.closing import count_closed
from pipelines.compatible import (
    check_compatible,
    check_decided_once,
    check_nothing_stands_on,
    check_same_round,
    config_there,
    is_annotated,
    is_begun,
    is_decided,
    is_decided_in_part,
    last_round,
)
from pipelines.deciding import Deciding
from pipelines.ingesting import ingested, restored
from pipelines.manifests import bound_of, check_accepted, withheld_by
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
from pipelines.refining import Refining, choice_of
from pipelines.reporting import report_round
from pipelines.retrying import Retrying

# In the order of the loop.
STAGES = ("ingest", "annotate", "filter", "train", "reannotate", "merge", "export", "report", "refine", "all")
UPDATES = ("ingest", "annotate", "filter", "all")
OF_ROUND = ("train", "reannotate", "merge", "export", "report")


@dataclass(frozen=True)
class Stages:
    """The stages over one output folder. `run` is the way in: it checks, locks, and then composes them."""

    pipeline: Pipeline
    output: Output
    console: Console
    round: int = 0  # that is trained on, that reannotate starts from, merge merges, and report shows
    rounds: int | None = None  # of refine; none: those that the configuration lists
    known_labels: Labels | None = None  # where they were read already

    def run(self, stage: str, *, overwrite: bool = False, update: bool = False) -> dict[str, Any]:
        """Runs `stage` and returns its summary. Raises OutputError where the folder holds something else: with `update`
        what depends on what changed is made again instead, and images that came since are taken in."""
        self.output.check_ours()
        if not overwrite:
            self.output.check_manifest()
        if self.round and stage not in OF_ROUND:
            raise ConfigError(f"--round is for {', '.join(OF_ROUND)}; --stage {stage} begins with round 0")
        if update and stage not in UPDATES:
            raise ConfigError(f"--update is for {', '.join(UPDATES)}: it brings round 0 up to date")
        if stage in ("merge", "refine", "all"):
            self._check_rounds(stage)
        if overwrite and (self.round or stage in ("reannotate", "merge")):
            raise ConfigError(
                "--overwrite would remove all rounds, and their models, too. Remove what is to be made anew instead: "
                f"{self.output.round(max(self.round, 1)).folder}"
            )
        if overwrite and update:
            raise ConfigError("--overwrite makes all anew, and --update only what changed: name one of them")
        if stage == "reannotate":
            round_ = self.output.round(self.round)
            if not needs_training(self.pipeline) or not is_unfinished(round_, self.pipeline.config):
                again(self.pipeline, self.output, self.round)  # or the models are others, and nothing is begun
        if overwrite or not is_there(self.output.manifest):
            next(iter(listing_of(self.pipeline.config.ingest)))  # before anything is written or lost
        with self._held(overwrite):
            check_compatible(self.output, self.pipeline, stage, update=update)
            restored(self.pipeline, self.output, self.console)
            for warning in self.pipeline.warnings:
                self._warn(warning)
            return self._update(stage) if update else self._run(stage)

    @contextmanager
    def _held(self, overwrite: bool = False) -> Iterator[None]:
        """The output folder, for this run alone."""
        try:
            with run_lock(self.output.root):
                self._check_space()
                if overwrite:
                    self.output.clear()
                self.output.sweep()
                yield
        except OSError as error:
            if why := unwritable(error, self.output.root):
                raise RunError(why) from error
            raise

    def _run(self, stage: str) -> dict[str, Any]:
        """config.yaml says what made the files: it is there before they are. How to run, and other filters than those
        that decided, are kept only once they have proven good: what is wrong with them would come back with every run
        that goes on."""
        there, asked = config_there(self.output), self.pipeline.config
        decided = is_decided_in_part(self.output)
        if there is None or not decided:
            self._keep(asked.model_copy(update={"run": there.run if there else Run()}))
        if stage in ("export", "report") and is_decided(self.output, self.round):
            return self.export() if stage == "export" else self.report()
        manifest = self.ingest()
        run = {
            "ingest": lambda: manifest,
            "annotate": self.annotate,
            "filter": self.filter,
            "train": self.train,
            "reannotate": self.reannotate,
            "merge": lambda: {**self.merge(), **self.gate()},
            "export": self.export,
            "report": self.report,
            "refine": self.refine,
            "all": self.all,
        }
        summary = run[stage]()
        if stage in ("annotate", "filter", "train") or not decided:
            self._keep(asked)
        return summary

    def _update(self, stage: str) -> dict[str, Any]:
        """Round 0 as it would be if all of it were made now; then what `stage` asks for. Whoever goes on with an update
        that was stopped finds what it was for in config.yaml."""
        there, asked = config_there(self.output), self.pipeline.config
        self._keep(asked.model_copy(update={"run": there.run if there else Run()}))
        summary = ingested(self.pipeline, self.output, self.console, update=True)
        if stage != "ingest":
            summary = self._brought_up_to_date()
        self._keep(asked)
        return self.all() if stage == "all" else summary

    def _brought_up_to_date(self) -> dict[str, Any]:
        annotating = self._annotating()
        if not is_begun(self.output):
            return annotating.run()
        last = annotating.update()
        if stale_by(self.output, annotating.round, self.pipeline.filter_digest):
            self._decide()
        annotating.updated()
        return annotating.summarise(last)

    def retry_failed(self, number: int | None = None) -> dict[str, Any]:
        """Images in quarantine once more, of round `number` or the last that is there; all others stay as they are. The
        round's summary says under "retried" how many were tried, and how many of them are saved."""
        self.output.check_ours()
        self.output.check_manifest()
        if not is_there(self.output.manifest):
            raise OutputError(f"{self.output.root} has no manifest: nothing was ingested there, or ingest did not end")
        number = last_round(self.output) if number is None else number
        pipeline = self._pipeline_of(number)
        with self._held():
            check_compatible(self.output, self.pipeline, "reannotate" if number else "annotate")
            restored(self.pipeline, self.output, self.console)
            if number:
                check_same_round(self.output, pipeline, number)
            annotating = Annotating(pipeline, self.output, self.console, number)
            if annotating.is_annotated and not is_decided(self.output, number):
                annotating.run()  # what an earlier one began, and was stopped over
            check_decided_once(self.output, number, merged=False)
            check_nothing_stands_on(self.output, number)
            return Retrying(annotating).run()

    def _warn(self, warning: str) -> None:
        self.console.print(f"! {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _keep(self, config: Config) -> None:
        document = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text(self.output.config, document)

    def _pipeline_of(self, number: int) -> Pipeline:
        """That which made a round, if the configuration is the same."""
        if number == 0:
            return self.pipeline
        if not is_there(self.output.round(number).choice):
            return self._adding_to(number - 1)
        *_, (plan, config) = Refining(self).plans(number)
        planned = replace(self.pipeline, config=config, choice=choice_of(self.output, plan, self.withheld))
        return replace(self, pipeline=planned)._adding_to(number - 1)

    def ingest(self) -> dict[str, Any]:
        """The manifest, made if it is missing."""
        return ingested(self.pipeline, self.output, self.console)

    def annotate(self, number: int = 0) -> dict[str, Any]:
        """Every shard whose decisions of a round are missing, through all specialists and filters."""
        return self._annotating(number).run()

    def _annotating(self, number: int = 0) -> Annotating:
        return Annotating(self.pipeline, self.output, self.console, number)

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
        built = self._adding_to(self.round)
        check_same_round(self.output, built, self.next_round.number)
        for warning in [*warnings(built), *built.warnings]:
            self._warn(warning)
        if not planned:
            self._keep_section("reannotate", "train")
        return replace(self, pipeline=built).annotate(self.next_round.number)

    def _adding_to(self, number: int) -> Pipeline:
        """The pipeline whose results are the round after `number`."""
        built = again(self.pipeline, self.output, number)
        choice = EVERYTHING if self.pipeline.choice.bound >= ALL else self.pipeline.choice
        return replace(built, earlier=digest_of_rounds(self.output, number), choice=choice)

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
        """The images of a round: of a plan, or all."""
        chosen = self.pipeline.choice
        return chosen if chosen != EVERYTHING else Choice(self.withheld)

    @property
    def withheld(self) -> frozenset[bytes]:
        """Images that no model is trained on: those that are labelled, and those that are in evaluation sets."""
        return self.labels.ids | contaminated(self.output)

    def merge(self) -> dict[str, Any]:
        """What the round adds and what stood before it are put together."""
        from pipelines.merging import Merging  # spaCy takes a second to import

        check_decided_once(self.output, self.round, merged=False)
        check_earlier(self.output, self.round)
        check_accepted(self.output, self.round - 1)
        labels = self._never_learned
        merging = Merging(self.output, self.pipeline.config, self.round, labels, self.console)
        if is_there(self.next_round.sources) and merging.left:
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
        annotating = self._annotating()
        if not is_annotated(self.output):
            self.console.print("filter: not every image is annotated yet, so that comes first", highlight=False)
            self.annotate()
        annotating.keep_sources()
        return annotating.summarise({"stage": "filter", "seconds": self._decide()})

    def _decide(self) -> float:
        for number in range(last_round(self.output) + 1):  # later rounds count what stands of this one, too
            remove(self.output.round(number).summary)
        deciding = Deciding(self.pipeline, self.output, self.console)
        seconds, shards = deciding.run(), sum(len(partition.shards) for partition in partitions(self.output))
        line = f"filter: decided again on {deciding.again} of {shards} shards in {seconds:.1f} s"
        self.console.print(line, highlight=False)
        return round(seconds, 3)

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
            if is_there(self.next_round.sources):
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
        grouped(self.output, self.output.shards())  # by which folds go
        check_earlier(self.output, self.round)

    def export(self) -> dict[str, Any]:
        """What stands in a round, for others to read; after annotating what isn't yet."""
        from pipelines.exporting import export_round

        if self.round == 0 and not is_decided(self.output):
            self.annotate()
        return export_round(self.output, self.round, self.pipeline.config, self.console)

    def report(self) -> dict[str, Any]:
        """The pages about what is there, after annotating what isn't."""
        if self.round == 0 and not is_decided(self.output):
            self.annotate()
        report_round(self.output, self.round, self.pipeline.config, self.console)
        summary = self.output.round(self.round).summary
        return dict(read_json(summary)) if is_there(summary) else count_closed(self.output, self.round)

    def _check_space(self) -> None:
        if not is_local(self.output.root):
            return
        free = shutil.disk_usage(self.output.root).free / 1e6
        if free < self.pipeline.config.run.min_free_mb:
            raise RunError(
                f"{self.output.root} has {free:.0f} MB of free space, and run.min_free_mb asks for "
                f"{self.pipeline.config.run.min_free_mb}. Make room, or name another folder."
            )
