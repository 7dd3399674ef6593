"""Two processes that train together (gloo) and one that has all of the batch: the same step."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from training import assert_same_step, batch, gentle, recipe, tiny, weights

from florence2.errors import NonFiniteLoss
from florence2.training import Recipe, StepReport, Trainer

SHARES = (  # of two ranks, for each of three steps: their micro-batches
    ([[0], [1, 2]], [[3]]),
    ([], [[0, 1], [4]]),  # the first has nothing to do
    ([[5]], [[6]]),
)
FROZEN = Recipe(steps=9, freeze=("vision", "embeddings"))


def steps(trainer: Trainer, share: list[list[list[int]]]) -> list[StepReport]:
    return [trainer.step([batch(*numbers, tasks=6 + numbers[0]) for numbers in micro]) for micro in share]


def work(rank: int, folder: str, paths: list[str]) -> None:
    """One of two processes: what `one_process` does, and what a sound process does when the other meets an infinity."""
    sys.path[:] = paths
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", where, timedelta(seconds=60), world_size=2, rank=rank)
    trainer = Trainer(tiny(seed=rank), gentle())  # other weights: those of rank 0 count
    reports = steps(trainer, [share[rank] for share in SHARES])
    evaluated = trainer.evaluate([batch(7)] if rank else [])
    before = weights(trainer.model)
    bad = batch(4 + rank)
    if rank:
        bad.pixel_values[0, 0, 0, 0] = float("inf")
    try:
        trainer.step([bad])
        error = None
    except NonFiniteLoss as caught:
        error = caught
    unchanged = all(before[name].equal(value) for name, value in weights(trainer.model).items())
    frozen = Trainer(tiny(), FROZEN).step([batch(rank)]).loss
    dropped = Trainer(tiny(dropout=0.2), recipe()).step([batch(0)]).loss  # each with dice of its own
    found = (weights(trainer.model), trainer.optimiser.state(), reports, evaluated, error, unchanged, frozen, dropped)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_make_the_steps_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path), sys.path), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    alone = Trainer(tiny(seed=0), gentle())
    expected = steps(alone, [[numbers for part in share for numbers in part] for share in SHARES])
    both = Trainer(tiny(seed=0), gentle())
    for model_weights, state, *_ in ranks:
        both.model.load_state_dict(model_weights, strict=False)
        both.optimiser.load(state)
        assert_same_step(alone, both)
    assert all(ranks[0][0][name].equal(value) for name, value in ranks[1][0].items())

    for _, _, reports, evaluated, error, unchanged, frozen, _ in ranks:
        for report, whole in zip(reports, expected, strict=True):
            assert abs(report.loss - whole.loss) < 1e-5 * whole.loss
            assert (report.tokens, report.images, report.losses.keys()) == (
                whole.tokens,
                whole.images,
                whole.losses.keys(),
            )
        assert evaluated["OD"].tokens == alone.evaluate([batch(7)])["OD"].tokens
        assert abs(evaluated["OD"].loss - alone.evaluate([batch(7)])["OD"].loss) < 1e-4
        assert isinstance(error, NonFiniteLoss) and error.image_ids == ("image-4", "image-5")
        assert error.suspects == ("image-5",) and unchanged
        assert abs(frozen - Trainer(tiny(), FROZEN).step([batch(0, 1)]).loss) < 1e-4
    assert ranks[0][-1] == ranks[1][-1] != Trainer(tiny(dropout=0.2), recipe()).step([batch(0)]).loss
