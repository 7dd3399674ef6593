"""AdamW over the parameters that learn, and its state under their names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from florence2.errors import CheckpointError
from florence2.training.recipe import Recipe

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdamW:
    """Only matrices of linear layers and convolutions decay.

    Norms and biases do not: they shift and scale, and nothing over-fits by them. Embeddings do not: most rows are in no
    batch, get no gradient, and would fade by decay alone.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        matrices = {m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decaying = [(name, p) for name, p in learning.items() if p in matrices]
        others = [(name, p) for name, p in learning.items() if p not in matrices]
        self.parameters = dict(decaying + others)
        groups = [
            {"params": [p for _, p in named], "weight_decay": decay}
            for named, decay in ((decaying, recipe.weight_decay), (others, 0.0))
            if named
        ]
        self.torch = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)

    def step(self, rate: float) -> None:
        for group in self.torch.param_groups:
            group["lr"] = rate
        self.torch.step()

    def clear(self) -> None:
        self.torch.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """`<moment>:<parameter>` -> tensor; empty before the first step."""
        held = self.torch.state
        return {f"{m}:{name}": held[p][m] for name, p in self.parameters.items() if p in held for m in MOMENTS}

    def check(self, state: Mapping[str, Tensor]) -> None:
        """CheckpointError unless it is a state of these parameters."""
        shapes = {f"{m}:{n}": (() if m == "step" else p.shape) for n, p in self.parameters.items() for m in MOMENTS}
        if not state:
            return
        if wrong := sorted(state.keys() ^ shapes.keys()):
            raise CheckpointError(
                f"expected the moments of {len(self.parameters)} parameters; {len(wrong)} are missing "
                f"or surplus, as {wrong[0]!r:.120}"
            )
        for name, shape in shapes.items():
            if state[name].shape != shape or state[name].dtype is not torch.float32:
                got = f"{state[name].dtype} {list(state[name].shape)}"
                raise CheckpointError(f"{name}: expected float32 {list(shape)}, got {got}")

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes a state that `check` has let pass."""
        by_place = {
            place: {moment: state[f"{moment}:{name}"] for moment in MOMENTS}
            for place, name in enumerate(self.parameters)
            if state
        }
        self.torch.load_state_dict(self.torch.state_dict() | {"state": by_place})
