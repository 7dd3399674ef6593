"""Which of a scene's examples an epoch takes: drawn by weight, so that what there is much of does not rule."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from florence2.errors import ConfigError
from florence2.examples import Example
from florence2.scene import Scene
from florence2.tasks import Task

if TYPE_CHECKING:
    from florence2.targets import Targets

REFERRING = "REFERRING_EXPRESSION_COMPREHENSION"  # grounding with one expression: no task of its own, but a kind
GROUPS: dict[str, tuple[str, ...]] = {
    "captions": (Task.CAPTION, Task.DETAILED_CAPTION, Task.MORE_DETAILED_CAPTION),
    "od": (Task.OD,),
    "grounding": (Task.CAPTION_TO_PHRASE_GROUNDING,),
    "referring": (REFERRING, Task.REFERRING_EXPRESSION_SEGMENTATION, Task.OPEN_VOCABULARY_DETECTION),
    "dense": (Task.DENSE_REGION_CAPTION,),
    "ocr": (Task.OCR, Task.OCR_WITH_REGION),
    "region_to_text": (Task.REGION_TO_CATEGORY, Task.REGION_TO_DESCRIPTION, Task.REGION_TO_OCR),
    "segmentation": (Task.REGION_TO_SEGMENTATION,),
    "proposal": (Task.REGION_PROPOSAL,),
}


@dataclass(frozen=True)
class Mix:
    """Weights, of which only the proportions count. Those of a group are shared by the tasks of it that a scene has.

    `tasks` takes tasks out of their groups and gives each a weight of its own; REFERRING is grounding with a single
    expression, which goes with the group `referring`. ConfigError for a weight below 0, or none above it, and for an
    unknown task.
    """

    captions: float = 30
    od: float = 15
    grounding: float = 15
    referring: float = 10  # and open vocabulary
    dense: float = 10
    ocr: float = 5
    region_to_text: float = 5
    segmentation: float = 5
    proposal: float = 5
    tasks: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [kind for kinds in GROUPS.values() for kind in kinds]
        if unknown := [name for name in self.tasks if name not in known]:
            raise ConfigError(f"mix.tasks: expected some of {', '.join(known)}; got {unknown[0]!r}")
        weights = {**{name: getattr(self, name) for name in GROUPS}, **self.tasks}
        for name, weight in weights.items():
            known_number = isinstance(weight, int | float) and not isinstance(weight, bool) and isfinite(weight)
            if not known_number or weight < 0:
                raise ConfigError(f"mix.{name}: expected a weight of at least 0; got {weight!r}")
        if not any(weights.values()):
            raise ConfigError("mix: expected a weight above 0 for something; all are 0")

    def draw(self, scene: Scene, targets: Targets, count: int, rng: random.Random) -> list[Example]:
        """`count` examples of the scene, none twice; fewer if there are no more. No other examples are built."""
        left = targets.kinds(scene, rng)
        drawn: list[Example] = []
        while len(drawn) < count and (weights := self.weights([kind for kind, makes in left.items() if makes])):
            (kind,) = rng.choices(list(weights), list(weights.values()))
            make = left[kind].pop(rng.randrange(len(left[kind])))
            if example := make():  # None: an outline that can't be written
                drawn.append(example)
        return drawn

    def weights(self, there: list[str]) -> dict[str, float]:
        """Of the kinds that are there, those above 0."""
        found = {kind: self.tasks[kind] for kind in there if kind in self.tasks}
        for group, kinds in GROUPS.items():
            members = [kind for kind in kinds if kind in there and kind not in found]
            found |= {kind: getattr(self, group) / len(members) for kind in members}
        return {kind: weight for kind, weight in found.items() if weight > 0}
