"""The train stage on the driver: what there is to learn, where to start, one Ray Train run a fold, and its progress."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.atomic import is_there, names_in, read_json, write_json
from engine.config import Config
from engine.copies import located, near, room_for
from engine.dataset import Dataset
from engine.errors import ConfigError, OutputError, RunError
from engine.folds import EVERYTHING, Choice, Folds
from engine.layout import Output, Round
from engine.places import is_remote_uri, place
from engine.records import ALT, HUMAN
from engine.runner import cluster
from engine.versions import digest_of_json
from florence2.checkpoint import locate, read_config
from florence2.errors import Florence2Error
from florence2.processor import Processor
from florence2.tasks import Task
from pipelines.reannotate import digest_of_rounds
from pipelines.training.census import Census, census
from pipelines.training.checkpoints import MADE_BY
from pipelines.training.crew import Crew, crew_of
from pipelines.training.fit import fit
from pipelines.training.progress import Follower
from pipelines.training.scratch import RELEASED_SIDE, SIDE, scratch
from pipelines.training.settings import PREVIOUS, Settings, settings_of
from pipelines.training.stream import Source
from pipelines.training.worker import Job

OBJECT_STORE_BYTES = 2**29  # of a Ray of our own: images that are ready to be learned
BEGUN = "begun.json"
MODEL = (MADE_BY, "config.json", "model.safetensors")
COMPOSER = "specialists.composer:Composer"  # whose captions are made of regions; see `Phase.composed`


@dataclass(frozen=True)
class Training:
    """The trainings of one round, a model for each fold."""

    output: Output
    config: Config
    round_number: int
    console: Console
    choice: Choice = EVERYTHING

    @cached_property
    def leaders(self) -> dict[bytes, bytes]:
        return Dataset(self.output).leaders()

    @property
    def round(self) -> Round:
        return self.output.round(self.round_number)

    @cached_property
    def made_of(self) -> list[tuple[str, str]]:
        """The sources of the round and those before it, and the specialists that they were."""
        rounds = [self.output.round(number) for number in range(self.round_number + 1)]
        there = (source for round_ in rounds for source in read_json(round_.sources)["sources"].items())
        return [(name, made_by["specialist"]) for name, made_by in there]

    def run(self) -> dict[str, Any]:
        """Trains what is not trained yet, and returns the summary. Raises ConfigError, OutputError or RunError."""
        settings = settings_of(self.config, [name for name, made_by in self.made_of if made_by == COMPOSER])
        made_by = self.made_by(settings)
        if self.is_done(made_by):
            self.say(f"train: nothing to do, {self.round.folder / 'model'} was trained by this configuration")
            return self.summary(settings)
        settings = settings.at(self.start_size(settings))
        waiting = [fold for fold in range(settings.train.folds) if not self.is_trained(fold, made_by)]
        with cluster(self.config.run, OBJECT_STORE_BYTES):
            self._train(settings, made_by, waiting, crew_of(settings))
        return self.summary(settings)

    def say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def made_by(self, settings: Settings) -> dict[str, Any]:
        """What the models of this round depend on."""
        groups = sorted((image.hex(), first.hex()) for image, first in self.leaders.items())  # which go together
        chosen = [self.choice.digest] if self.choice.digest else []
        labels = digest_of_json([digest_of_rounds(self.output, self.round_number), groups, *chosen])
        start = settings.train.start
        if start == PREVIOUS:
            start = digest_of_json([read_json(path) for path in self.previous(settings)])
        return {
            "digest": digest_of_json([settings.digest, labels, start]),
            "labels": labels,
            "settings": settings.train.model_dump(mode="json"),
            "round": self.round_number,
            "folds": settings.train.folds,
            **({"withheld": sorted(map(bytes.hex, self.choice.withheld))} if self.choice.withheld else {}),
        }

    def previous(self, settings: Settings) -> Iterator[Path]:
        """What says how the models of the round before were made."""
        if self.round_number == 0:
            raise ConfigError("train.start: previous is the model of the round before, and round 0 has none before it")
        for fold in range(settings.train.folds):
            path = self.output.round(self.round_number - 1).model(fold, settings.train.folds) / MADE_BY
            if not is_there(path):
                raise OutputError(f"train.start: previous, and there is no {path.parent}: train that round first")
            yield path

    def is_done(self, made_by: dict[str, Any]) -> bool:
        """Whether the models of all folds are there. Where they started need not be there any more."""
        models = [self.round.model(fold, made_by["folds"]) for fold in range(made_by["folds"])]
        return all(_is_whole(model) and read_json(model / MADE_BY)["digest"] == made_by["digest"] for model in models)

    def is_trained(self, fold: int, made_by: dict[str, Any]) -> bool:
        """Whether the fold's model is there. Raises OutputError if it, or one half trained, is of another kind."""
        folds = made_by["folds"]
        target, begun = self.round.model(fold, folds), self.round.training / f"fold-{fold}" / BEGUN
        for path in (target / MADE_BY, begun):
            if is_there(path) and (there := read_json(path))["digest"] != made_by["digest"]:
                raise OutputError(_other(self.round, path.parent, there, made_by))
        if is_there(target / "config.json") and not is_there(target / MADE_BY):
            raise OutputError(f"{target} holds a model that was not trained here. Move it away, to have one trained")
        return _is_whole(target)

    def _train(self, settings: Settings, made_by: dict[str, Any], waiting: list[int], crew: Crew) -> None:
        with room_for(self.round.training):
            near(self.round.training).mkdir(parents=True, exist_ok=True)
        folds = Folds(settings.train.folds, self.leaders, self.choice)
        held_out, item_seconds = settings.train.held_out, self.config.run.item_seconds
        source = Source(self.output, self.round_number, self.config.ingest, folds, None, held_out, item_seconds)
        with self.console.status("train: counting what there is to learn"):
            shards = list(self.output.shards())
            counted = census(source, settings.phases, shards, settings.from_scratch, self.config.run)
        self.check(counted, settings)
        for fold in waiting:
            write_json(self.round.training / f"fold-{fold}" / BEGUN, made_by)
        source = replace(source, seen={name: frozenset(labels) for name, labels in counted.seen.items()})
        start = self.start(settings, counted)
        for fold in waiting:
            folder = self.round.training / f"fold-{fold}"
            kept_from = fold if folds.count > 1 else None
            job = Job(
                settings,
                replace(source, fold=kept_from),
                start or str(self.output.round(self.round_number - 1).model(fold, folds.count)),
                folder,
                self.round.model(fold, folds.count),
                made_by | {"fold": fold},
                {phase.name: counted.picks(phase, kept_from, settings.train.seed) for phase in settings.phases},
                tuple(counted.held_out[: settings.train.judged_on]),
                crew.threads,
                data_share=0.5 / crew.workers,
                run=uuid.uuid4().hex,
            )
            name = "train" if folds.count == 1 else f"train fold {fold}"
            steps = sum(phase.recipe.steps for phase in settings.phases)
            fit(job, crew, Follower(self.console, name, folder, job.run, steps))

    def check(self, counted: Census, settings: Settings) -> None:
        """Says what will be learned and what can't be. RunError if nothing can."""
        for warning in self.unknown_sources(settings):
            self.say(f"! {warning}", "yellow")
        for fault in counted.faults:
            self.say(f"! left out: {fault}", "yellow")
        for phase in settings.phases:
            there: Mapping[str, int] = counted.examples.get(phase.name, {})
            told = ", ".join(f"{task} {there[task]}" for task in Task if there.get(task))
            which = f", phase {phase.name}" if len(settings.phases) > 1 else ""
            if not told:
                held_out = f" ({len(counted.held_out)} images are held out)" if counted.held_out else ""
                raise RunError(
                    f"nothing stands in {self.round.folder} that can be learned{which}: no annotation for any task"
                    f"{held_out}. Annotate first, or look at what the filters turned down: engine report"
                )
            self.say(f"train: {counted.learned(phase)} images, {len(counted.held_out)} held out{which}: {told}")
            for fold in range(settings.train.folds if settings.train.folds > 1 else 0):
                if not counted.learned(phase, fold):
                    raise RunError(
                        f"the model that is kept from fold {fold} would have no image to learn from{which}: all of "
                        "them are in that fold. Take more images, or train.folds: 1"
                    )
            if missing := counted.nothing_for(phase):
                self.say(f"! nothing stands for {', '.join(missing)}: not learned{which}", "yellow")

    def unknown_sources(self, settings: Settings) -> Iterator[str]:
        """What may be meant, and is more likely misspelt."""
        known = {HUMAN, ALT, self.config.ingest.source, *(name for name, _ in self.made_of)}
        for phase in settings.phases:
            asked = phase.config
            for name in {*asked.exclude, *(asked.texts_from or ()), *asked.exhaustive} - known:
                yield f"train: no source of the round is called {name!r}; there are {', '.join(sorted(known))}"

    def start(self, settings: Settings, counted: Census) -> str:
        """The folder or hub id where the model starts; "" for that of the round before, which has one a fold."""
        if settings.train.start == PREVIOUS:
            return ""
        if settings.from_scratch:
            return str(scratch(settings, counted, self.round.training / "start"))
        return settings.train.start

    def start_size(self, settings: Settings) -> tuple[int, int]:
        """Height and width at which the start sees images. ConfigError now for a checkpoint that is none, and not in a
        worker."""
        if settings.from_scratch:
            side = SIDE.get(settings.train.start, RELEASED_SIDE)
            return side, side
        start = settings.train.start
        if start == PREVIOUS:
            start = str(next(iter(self.previous(settings))).parent)
        try:
            # Before all that is there is fetched.
            if is_remote_uri(start) and not is_there(place(start) / "config.json"):
                raise ConfigError(f"train.start: {start} is no model's folder: it has no config.json")
            here = located(start)
            read_config(locate(here))
            return Processor.from_pretrained(here).size
        except (FileNotFoundError, Florence2Error) as error:
            raise ConfigError(f"train.start: {error}") from error

    def summary(self, settings: Settings) -> dict[str, Any]:
        folds = settings.train.folds
        models = [self.round.model(fold, folds) for fold in range(folds)]
        return {"models": [str(model) for model in models], "made_by": [read_json(m / MADE_BY) for m in models]}


def _is_whole(model: Path) -> bool:
    return set(MODEL) <= set(names_in(model))


def _other(round_: Round, what: Path, there: dict[str, Any], asked: dict[str, Any]) -> str:
    """Another configuration's model lies where this one's would: what differs, and what to do."""
    lines = [
        f"  train.{key}: {there['settings'].get(key)} there, {value} asked for"
        for key, value in asked["settings"].items()
        if there["settings"].get(key) != value
    ]
    anew = f"To train anew, remove {round_.model()} and {round_.training}"
    if not lines:
        return (
            f"{what} was trained by the same settings, but the round's labels have changed since (--stage filter?), "
            f"gate.labels, what engine decontaminate found, or the model that it starts from. {anew}; to keep it, "
            "decide as before."
        )
    joined = "\n".join(lines)
    return f"{what} was trained by another configuration:\n{joined}\n{anew}; to keep it, name another --out."
