"""What the configuration says of training, checked and in the words of those who do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from engine.components import parameters_of
from engine.config import Config, Parameters, Phase, Train, merged
from engine.errors import ConfigError
from engine.validation import validated
from engine.versions import digest_of_json
from florence2.augment import Augment
from florence2.config import PRESETS, Florence2Config
from florence2.errors import Florence2Error
from florence2.targets import Mix, Targets
from florence2.training.trainer import Recipe

PREVIOUS = "previous"
# Over the recipe's own defaults, which are for fine-tuning: what makes small models learn soon (docs/training.md).
SCRATCH: Parameters = {
    "learning_rate": 2e-3,
    "betas": (0.9, 0.98),
    "weight_decay": 0.05,
    "location_smoothing": 20.0,
}
WARM_UP = 0.1  # of the steps, unless the recipe says how many
SECTIONS: Mapping[str, type[Any]] = {"recipe": Recipe, "mix": Mix, "targets": Targets, "augment": Augment}
# Where the default depends on more than the section: what it is.
USUAL: Mapping[str, Mapping[str, str]] = {
    "recipe": {
        **{name: f"{value} from nano and pico, {getattr(Recipe, name)} otherwise" for name, value in SCRATCH.items()},
        "warmup_steps": f"{WARM_UP} of the steps",
        "seed": "train.seed",
    },
    "targets": {"model_size": "the longer side of the images that the model sees"},
}
Made = TypeVar("Made")


@dataclass(frozen=True)
class ReadyPhase:
    """A phase of training, ready to run."""

    name: str
    config: Phase
    recipe: Recipe
    mix: Mix
    targets: Targets
    augment: Augment
    exhaustive: Mapping[str, frozenset[str] | None]  # source -> classes by the vocabulary; None: all that it has
    exclude: tuple[str, ...]  # sources that are not learned, composers among them where their captions are not

    def at(self, size: tuple[int, int]) -> ReadyPhase:
        """With the size (height, width) of the start, where the phase names none; targets go by it."""
        size = self.config.size or size
        given = "model_size" in self.config.targets
        targets = self.targets if given else replace(self.targets, model_size=max(size))
        return replace(self, config=self.config.model_copy(update={"size": size}), targets=targets)


@dataclass(frozen=True)
class Settings:
    """A training: where it starts, and its phases in order."""

    train: Train
    phases: tuple[ReadyPhase, ...]

    def at(self, size: tuple[int, int]) -> Settings:
        """With the size of the start; see `ReadyPhase.at`."""
        return replace(self, phases=tuple(phase.at(size) for phase in self.phases))

    @property
    def from_scratch(self) -> bool:
        return self.train.start in PRESETS

    @property
    def preset(self) -> Florence2Config:
        return PRESETS[self.train.start]

    @property
    def digest(self) -> str:
        """Of all that the model depends on; how often it is saved and looked at changes nothing."""
        how = {"checkpoint_steps", "samples", "judged_on", "workers", "images_at_once"}
        return digest_of_json([self.train.model_dump(mode="json", exclude=how)])


def settings_of(config: Config, composers: Sequence[str] = ()) -> Settings:
    """`composers` are the sources whose captions were made of regions; see `Phase.composed`. Raises ConfigError, which
    names the path of each value at fault."""
    train = config.train
    named: Mapping[str, Parameters | None] = train.phases or {"all": {}}
    common = train.model_dump(include=set(Phase.model_fields), exclude_unset=True)
    kept = [(name, changes) for name, changes in named.items() if changes is not None]
    if not kept:
        raise ConfigError("train.phases: every phase is null; leave train.phases out for a single one")
    return Settings(train, tuple(_ready(config, name, common, changes, composers) for name, changes in kept))


def _ready(config: Config, name: str, common: Parameters, changes: Parameters, composers: Sequence[str]) -> ReadyPhase:
    train = config.train
    where = f"train.phases.{name}" if train.phases else "train"
    phase = validated(Phase, merged(common, changes), where=where, prefix=where)
    composed = train.start in PRESETS if phase.composed is None else phase.composed
    return ReadyPhase(
        name,
        phase,
        made(Recipe, _recipe(train, phase), f"{where}.recipe"),
        made(Mix, phase.mix, f"{where}.mix"),
        made(Targets, phase.targets, f"{where}.targets"),
        made(Augment, phase.augment, f"{where}.augment"),
        {
            source: None if classes == "all" else frozenset(map(config.vocabulary.canonical, classes))
            for source, classes in phase.exhaustive.items()
        },
        phase.exclude if composed else (*phase.exclude, *composers),
    )


def _recipe(train: Train, phase: Phase) -> Parameters:
    if "steps" in phase.recipe:
        raise ConfigError("train.recipe.steps: how many steps is said by train.steps, or a phase's")
    usual = SCRATCH if train.start in ("nano", "pico") else {}
    warm_up = int(phase.steps * WARM_UP)
    return {"seed": train.seed, "warmup_steps": warm_up, **usual, **phase.recipe, "steps": phase.steps}


def add_schema(definitions: dict[str, Any]) -> None:
    """Puts into the JSON schema of `Train` what `SECTIONS` may say, and into its phases what a phase may."""
    phase = Phase.model_json_schema()
    for name, kind in SECTIONS.items():
        parameters = parameters_of(kind).model_json_schema()
        definitions.update(parameters.pop("$defs", {}))
        if kind is Recipe:
            del parameters["properties"]["steps"], parameters["required"]  # see `_recipe`
        for parameter, usual in USUAL.get(name, {}).items():
            parameters["properties"][parameter].pop("default")
            parameters["properties"][parameter]["description"] = f"default: {usual}"
        for section in (definitions["Train"], phase):
            section["properties"][name].update(parameters, description=section["properties"][name]["description"])
    definitions["Phase"] = phase
    definitions["Train"]["properties"]["phases"]["additionalProperties"]["anyOf"][0] = {"$ref": "#/$defs/Phase"}


def made(kind: type[Made], values: Parameters, where: str) -> Made:
    """A dataclass of parameters from a section of the YAML. Raises ConfigError."""
    checked = validated(parameters_of(kind), values, where=where, prefix=where)
    given: dict[str, Any] = {name: getattr(checked, name) for name in checked.model_fields_set}
    assert given.keys() <= {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**given)
    except Florence2Error as error:
        raise ConfigError(f"{where}: {error}") from error
