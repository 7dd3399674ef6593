"""LoRA: beside frozen weights, small matrices that learn; peft puts them in.

Source: Hu et al., LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from florence2.config import fits
from florence2.errors import ConfigError

LINEAR = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "qkv", "proj", "image_projection")
ADAPTER = "default"  # peft's name for it
MARK = ".lora_"  # in the names of an adapter's parameters


@dataclass(frozen=True)
class Lora:
    """Adapters of `rank` at the linear layers of these names, scaled by alpha / rank; ConfigError for what can't be."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        if isinstance(self.targets, list):
            object.__setattr__(self, "targets", tuple(self.targets))
        if not (fits(self.rank, int, 1, 2**16) and fits(self.alpha, int, 1, 2**20)):
            raise ConfigError(
                f"lora: expected a rank of 1 or more and an alpha of 1 or more, got {self.rank}, {self.alpha}"
            )
        if not fits(self.dropout, float, 0, math.nextafter(1, 0)):
            raise ConfigError(f"lora: expected a dropout from 0 to below 1, got {self.dropout!r}")
        if not isinstance(self.targets, tuple) or not self.targets or not set(self.targets) <= set(LINEAR):
            raise ConfigError(f"lora: expected targets, some of {', '.join(LINEAR)}; got {self.targets!r:.200}")


def adapt(model: nn.Module, lora: Lora, frozen: Collection[str]) -> None:
    """Puts adapters into the model, outside modules with the names `frozen`; nothing else learns from then on.

    ConfigError if no layer is left for one.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets and not within(name, frozen)
    ]
    if not layers:
        raise ConfigError(
            f"lora: expected layers of {', '.join(lora.targets)} outside the frozen parts; there are none"
        )
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers)
    inject_adapter_in_model(config, model, ADAPTER)


def within(name: str, parts: Collection[str]) -> bool:
    """Whether a module or parameter lies in one of these modules."""
    return any(name == part or name.startswith(part + ".") for part in parts)


def adapters(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' parameters; empty without adapters."""
    return {name: value.detach() for name, value in model.named_parameters() if MARK in name}


def base(model: nn.Module) -> dict[str, Tensor]:
    """The weights without their adapters, under the names of a model that has none. Not copied."""
    state = {name: value for name, value in model.state_dict().items() if MARK not in name}
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights with their adapters added in, under the names of a model that has none; the model stays as it is."""
    state = base(model)
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = state[f"{name}.weight"]
            state[f"{name}.weight"] = weight + module.get_delta_weight(ADAPTER).to(weight.dtype)
    return state
