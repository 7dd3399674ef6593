"""Rounds one after the other: train, annotate again, merge, and judge; each builds on what was accepted before."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.atomic import is_there, read_json, write_json
from engine.config import Config, RoundPlan, Train, merged
from engine.dataset import Dataset
from engine.errors import OutputError
from engine.folds import ALL, Choice, Folds
from engine.layout import Output
from engine.validation import validated
from pipelines.manifests import print_verdict

if TYPE_CHECKING:
    from pipelines.stages import Stages


@dataclass(frozen=True)
class Refining:
    """The rounds of `refine`. A round that was made before by the same plan is passed over."""

    stages: Stages

    def run(self, rounds: int) -> dict[str, Any]:
        """The manifests of the rounds, the last of which may have been refused: then there are no more."""
        manifests: list[dict[str, Any]] = []
        for number, (plan, config) in enumerate(self.plans(rounds), 1):
            self.stages.console.rule(f"Round {number}", align="left")
            manifests.append(self.round(number, plan, config))
            print_verdict(manifests[-1], self.stages.console)
            if manifests[-1]["outcome"] == "refused":
                break
        return {"rounds": manifests}

    def plans(self, rounds: int) -> Iterator[tuple[RoundPlan, Config]]:
        """Each round's plan, and the configuration that it comes to. ConfigError for what `train` does not take."""
        config = self.stages.pipeline.config
        listed = config.refine.rounds
        for n in range(rounds):
            plan = listed[min(n, len(listed) - 1)]
            where = f"refine.rounds.{min(n, len(listed) - 1)}.train"
            document = merged(config.train.model_dump(exclude_unset=True), plan.train)
            train = validated(Train, document, where=where, prefix=where)
            yield plan, config.model_copy(update={"train": train})

    def round(self, number: int, plan: RoundPlan, config: Config) -> dict[str, Any]:
        output = self.stages.output
        choice = choice_of(output, plan, self.stages.withheld)
        self.check_plan(number, plan, choice)
        pipeline = replace(self.stages.pipeline, config=config, choice=choice)
        stages = replace(self.stages, round=number - 1, pipeline=pipeline, known_labels=self.stages.labels)
        stages.reannotate(planned=True)
        stages = replace(stages, round=number)
        stages.merge()
        return stages.gate()

    def check_plan(self, number: int, plan: RoundPlan, choice: Choice) -> None:
        """Keeps what the round takes. OutputError if it was begun with other images."""
        round_ = self.stages.output.round(number)
        asked = {"images": plan.images, "digest": choice.digest, "bound": f"{choice.bound:033x}"}
        if is_there(round_.choice) and (there := read_json(round_.choice)) != asked:
            begun = f"with {there['images']} images (refine.rounds.{number - 1}), and {plan.images} is asked for"
            if there["images"] == plan.images:
                begun = (
                    "when other images were labelled (gate.labels) or known to be in evaluation sets "
                    f"({self.stages.output.contamination.name}), which are withheld from its training"
                )
            raise OutputError(
                f"{round_.folder} was begun {begun}. To make the round anew, remove it, and what was trained for it: "
                f"{self.stages.output.round(number - 1).model()} and {self.stages.output.round(number - 1).training}"
            )
        write_json(round_.choice, asked)


def choice_of(output: Output, plan: RoundPlan, withheld: frozenset[bytes]) -> Choice:
    """The images that a plan takes: all, or so many at random, beside those that are withheld. Images that look alike
    go together, so that it may be a few more."""
    if plan.images == "all":
        return Choice(withheld)
    folds = Folds(1, Dataset(output).leaders(), Choice(withheld))
    readable = (item for item in Dataset(output).items() if not item.error and not item.duplicate_of)
    ranks = heapq.nsmallest(plan.images, (folds.rank(item) for item in readable if not folds.is_withheld(item)))
    return Choice(withheld, ranks[-1] + 1 if len(ranks) == plan.images else ALL)
