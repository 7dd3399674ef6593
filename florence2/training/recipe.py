"""How to train: what shapes the learning curve, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from florence2.config import fits
from florence2.errors import ConfigError
from florence2.training.lora import Lora

Part = Literal["vision", "projector", "encoder", "decoder", "embeddings"]
PARTS: dict[str, str] = {
    "vision": "vision_tower",
    "projector": "multi_modal_projector",
    "encoder": "language_model.encoder",
    "decoder": "language_model.decoder",
    "embeddings": "language_model.shared",  # of both sides, and the head
}
MOST = 10**12  # of steps: more is a mistake


@dataclass(frozen=True)
class Recipe:
    """ConfigError for what can't be. The defaults are for fine-tuning; from scratch a rate ten times as high is usual.

    warmup_steps: the rate rises from 0 in a line; then a cosine takes it to final_ratio of itself at `steps`, or it
        stays ("constant").
    clip_norm: of all gradients together; larger ones are scaled down to it. inf: never.
    precision: "bf16" computes in it where autocast deems it safe; weights and optimiser stay float32. For GPUs: a CPU
        without instructions for it takes 13 times as long (nano, measured).
    freeze: parts that stay as they are, without dropout; with `lora` they get no adapter, either.
    checkpoint_gradients: activations are computed again instead of kept.
    location_smoothing: in bins, the deviation of what counts as right around a location; from scratch about 20. The
        loss then has a floor: the entropy of that, 4.4 nats at 20.
    """

    steps: int
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_ratio: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    freeze: tuple[Part, ...] = ()
    lora: Lora | None = None
    checkpoint_gradients: bool = False
    location_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("freeze", "betas"):  # lists, in a YAML
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        below_one = math.nextafter(1, 0)
        whole = {"steps": (1, MOST), "warmup_steps": (0, MOST), "seed": (0, 2**63)}
        real = {
            "learning_rate": (0, 100),
            "weight_decay": (0, 100),
            "final_ratio": (0, 1),
            "clip_norm": (1e-12, math.inf),
            "location_smoothing": (0, 1000),
        }
        for kind, ranges in ((int, whole), (float, real)):
            for name, (least, most) in ranges.items():
                expect(fits(getattr(self, name), kind, least, most), self, name, f"{kind.__name__} {least} to {most}")
        betas = isinstance(self.betas, tuple) and len(self.betas) == 2
        expect(betas and all(fits(b, float, 0, below_one) for b in self.betas), self, "betas", "two of 0 to below 1")
        expect(self.schedule in ("cosine", "constant"), self, "schedule", "cosine or constant")
        expect(self.precision in ("fp32", "bf16"), self, "precision", "fp32 or bf16")
        expect(isinstance(self.checkpoint_gradients, bool), self, "checkpoint_gradients", "true or false")
        expect(self.lora is None or isinstance(self.lora, Lora), self, "lora", "a Lora or None")
        expect(
            isinstance(self.freeze, tuple) and set(self.freeze) <= set(get_args(Part)), self, "freeze", f"{[*PARTS]}"
        )
        expect(set(self.freeze) < set(PARTS), self, "freeze", "a part that is left to learn")
        expect(self.warmup_steps <= self.steps, self, "warmup_steps", f"at most {self.steps}, the steps")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        share = self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share

    @property
    def curve(self) -> dict[str, Any]:
        """What the learning curve depends on, as JSON has it: what may not change when a training goes on."""
        data: dict[str, Any] = asdict(self) | {"freeze": sorted(self.freeze), "betas": list(self.betas)}
        del data["checkpoint_gradients"]  # the same numbers, computed twice
        if self.schedule == "constant":
            del data["steps"]  # only says when it ends
        if self.lora is not None:
            data["lora"] = asdict(self.lora) | {"targets": sorted(self.lora.targets)}
        return data


def expect(holds: bool, recipe: Recipe, name: str, expected: str) -> None:
    if not holds:
        raise ConfigError(f"recipe: expected {name} to be {expected}; got {getattr(recipe, name)!r:.100}")
