"""Steps of training: what is learnt, what stays as it is, and that batches may be cut anywhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from training import PROCESSOR, assert_same_step, batch, examples, farthest, gentle, picture, recipe, tiny, weights

from florence2 import Annotator, Florence2, Florence2Error, Task
from florence2.errors import ConfigError, NonFiniteLoss
from florence2.training import Batch, Lora, Recipe, Row, Trainer
from florence2.training.objective import Smoothing
from florence2.training.recipe import PARTS


def test_eight_images_are_learnt_by_heart() -> None:
    model = tiny()
    trainer = Trainer(model, recipe(steps=200, learning_rate=5e-3, warmup_steps=10))
    everything = batch(*range(8))
    reports = []
    while trainer.done < 200 and not (reports and reports[-1].loss < 0.03):
        reports.append(trainer.step([everything]))
    assert reports[0].loss > 5 and reports[-1].loss < 0.03
    assert reports[-1].losses.keys() == set(Task) and reports[-1].images == 8
    images = [Image.fromarray(picture(n).permute(1, 2, 0).numpy()) for n in range(8)]
    annotator = Annotator(model.eval(), PROCESSOR, num_beams=1, max_new_tokens=64, no_repeat_ngram_size=0)
    answers = annotator.stream(images, [[example.prompt for example in examples(n)] for n in range(8)])
    said = [[answer.text for answer in found] for found in answers]
    assert said == [[example.answer for example in examples(n)] for n in range(8)]


def test_the_loss_is_that_of_the_model() -> None:
    model, one = tiny(), batch(0, 1)
    features = model.encode_image(one.pixel_values)[one.image_of_row]
    loss = model.loss(features, one.input_ids, one.attention_mask, one.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm, expected = math.sqrt(sum(float(g.square().sum()) for g in gradients)), loss.item()
    trainer = Trainer(model, recipe())
    evaluated = trainer.evaluate([one])
    report = trainer.step([one])
    tokens = int((one.labels != -100).sum())
    assert report.loss == pytest.approx(expected, rel=1e-5) and report.grad_norm == pytest.approx(norm, rel=1e-4)
    assert (report.step, report.tokens, report.learning_rate, trainer.done) == (1, tokens, 1e-3, 1)
    assert sum(loss.tokens for loss in report.losses.values()) == tokens
    mean = sum(loss.loss * loss.tokens for loss in report.losses.values()) / tokens
    assert mean == pytest.approx(expected, rel=1e-5)
    assert {k: v.loss for k, v in evaluated.items()} == pytest.approx({k: v.loss for k, v in report.losses.items()})


def test_micro_batches_make_the_same_step() -> None:
    """Of one image and of three, with few rows and many, so that a mean of means would differ."""
    whole, parts = Trainer(tiny(), gentle()), Trainer(tiny(), gentle())
    for _ in range(2):
        one = whole.step([batch(0, 1, 2, 3)])
        two = parts.step([batch(0), batch(1, 2, 3)])
        assert two.loss == pytest.approx(one.loss, rel=1e-6) and two.losses.keys() == one.losses.keys()
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert_same_step(whole, parts)


def test_weights_of_tokens() -> None:
    """A token without weight changes nothing whatever it is called; half the weight is half the loss."""

    def of(last: int, weight: float) -> Batch:
        row = Row("OD", [0, 5, 2], [0, 7, 8, last], [1.0, 1.0, 1.0, weight])
        return Batch.of([picture(0)], [[row]], ["a"], PROCESSOR)

    trainer = Trainer(tiny(), recipe())
    silent = [trainer.evaluate([of(last, 0.0)])["OD"] for last in (9, 10)]
    assert silent[0] == silent[1] and silent[0].tokens == 3
    whole, half = (trainer.evaluate([of(9, weight)])["OD"].loss for weight in (1.0, 0.5))
    assert half == pytest.approx((3 * silent[0].loss + 0.5 * (4 * whole - 3 * silent[0].loss)) / 3.5, rel=1e-5)
    with pytest.raises(Florence2Error, match="step 1: expected answers with tokens to learn"):
        trainer.step([])


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def losses(seed: int) -> list[float]:
        trainer = Trainer(tiny(dropout=0.2), recipe(seed=seed))
        found = []
        for _ in range(2):
            torch.rand(3)
            found.append(trainer.step([batch(0, 1)]).loss)
        return found

    before = torch.get_rng_state()
    trainer = Trainer(model := tiny(dropout=0.2), recipe(learning_rate=0.0))
    torch.set_rng_state(before)
    assert trainer.step([batch(0)]).loss != trainer.step([batch(0)]).loss
    assert torch.get_rng_state().equal(before), "the caller's random numbers are left alone"
    assert model.training and losses(1) == losses(1) != losses(2)


def test_checkpointed_gradients_are_the_same() -> None:
    kept, again = (Trainer(tiny(dropout=0.1), recipe(checkpoint_gradients=on)) for on in (False, True))
    for trainer in (kept, again):
        trainer.step([batch(0, 1)])
    assert farthest(weights(kept.model), weights(again.model)) < 1e-6
    assert abs(kept.evaluate([batch(2)])["OD"].loss - again.evaluate([batch(2)])["OD"].loss) < 1e-4


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_stays(part: Any) -> None:
    model = tiny(dropout=0.1)
    before = weights(model)
    trainer = Trainer(model, recipe(freeze=(part,)))
    for _ in range(2):
        trainer.step([batch(0)])
    after = weights(model)
    frozen = {name for name in before if name.startswith(PARTS[part] + ".")}
    assert frozen and {name for name in before if before[name].equal(after[name])} == frozen
    assert not any(module.training for module in model.get_submodule(PARTS[part]).modules())
    assert model.training


def test_what_an_earlier_training_froze_may_learn() -> None:
    model = tiny()
    Trainer(model, recipe(freeze=("vision",)))
    before = weights(model)
    Trainer(model, recipe()).step([batch(0)])
    assert not any(before[name].equal(value) for name, value in weights(model).items() if name.startswith("vision"))


def test_location_smoothing_is_for_learning_alone() -> None:
    plain, smooth = (Trainer(tiny(), recipe(location_smoothing=rate)) for rate in (0.0, 20.0))
    assert plain.evaluate([batch(0)]) == smooth.evaluate([batch(0)])
    assert plain.step([batch(0)]).loss != smooth.step([batch(0)]).loss


def test_smoothing_is_a_cross_entropy_with_neighbours() -> None:
    logits, first = torch.randn(4, 1100, generator=torch.Generator().manual_seed(0)), 50
    labels = torch.tensor([3, first, first + 500, first + 999])  # a word, both ends, and the middle
    found = logits.logsumexp(1) - Smoothing(first, 20.0)(logits, labels)
    target = torch.zeros(4, 1100)
    target[0, 3] = 1
    for row, label in enumerate((0, 500, 999), start=1):
        near = torch.exp(-0.5 * ((torch.arange(1000) - label) / 20) ** 2)
        target[row, first : first + 1000] = near / near.sum()
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, target, reduction="none"))
    narrow = logits.logsumexp(1) - Smoothing(first, 0.01)(logits, labels)
    torch.testing.assert_close(narrow, nn.functional.cross_entropy(logits, labels, reduction="none"))


def test_decay_is_for_matrices_alone() -> None:
    """Where a gradient is zero, decay alone moves a weight: rows of the embedding that no text has, stay."""
    model = tiny()
    before = weights(model)
    trainer = Trainer(model, recipe(weight_decay=1.0, learning_rate=1e-2))
    decays = {id(p): group["weight_decay"] for group in trainer.optimiser.torch.param_groups for p in group["params"]}
    expected = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert {key for key, decay in decays.items() if decay} == expected and len(decays) == len(before)
    trainer.step([batch(0)])
    positions = "language_model.encoder.embed_positions.weight"
    assert weights(model)[positions][100:].equal(before[positions][100:])


def test_clipping() -> None:
    """AdamW hides the size of a gradient: seen where epsilon is no longer small beside it."""
    free, held = Trainer(tiny(), recipe(clip_norm=math.inf)), Trainer(tiny(), recipe(clip_norm=1e-9))
    before = weights(free.model)
    norms = [trainer.step([batch(0)]).grad_norm for trainer in (free, held)]
    assert norms[0] == norms[1] > 0.1
    assert farthest(before, weights(held.model)) < 0.2 * farthest(before, weights(free.model))


def test_bf16_is_near() -> None:
    exact, half = (Trainer(tiny(), recipe(precision=precision)) for precision in ("fp32", "bf16"))
    losses = [[trainer.step([batch(0, tasks=6)]).loss for _ in range(3)] for trainer in (exact, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and losses[1] != losses[0]
    assert all(value.dtype is torch.float32 for value in weights(half.model).values())
    assert half.evaluate([batch(2, tasks=6)])["OD"].loss == pytest.approx(
        exact.evaluate([batch(2, tasks=6)])["OD"].loss, rel=0.05
    )


def test_weights_in_half_precision_are_refused() -> None:
    with pytest.raises(Florence2Error, match="float32 to train, got"):
        Trainer(tiny().to(torch.bfloat16), recipe())


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_image_with_infinite_pixels(value: float) -> None:
    model = tiny()
    trainer = Trainer(model, recipe())
    trainer.step([batch(0)])
    before, state = weights(model), {k: v.clone() for k, v in trainer.optimiser.state().items()}
    bad = batch(1, 2)
    bad.pixel_values[1, 0, 3, 3] = value
    with pytest.raises(NonFiniteLoss, match=r"step 2: .*image-2") as caught:
        trainer.step([batch(0), bad])
    assert caught.value.suspects == ("image-2",) and caught.value.image_ids == ("image-0", "image-1", "image-2")
    assert all(before[name].equal(value) for name, value in weights(model).items())
    assert all(state[name].equal(value) for name, value in trainer.optimiser.state().items())
    assert trainer.done == 1 and trainer.step([batch(0)]).step == 2, "whoever leaves the image out may go on"


def test_an_infinite_gradient_of_a_finite_loss() -> None:
    model = tiny()
    trainer = Trainer(model, recipe())
    model.multi_modal_projector.image_proj_norm.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(model)
    with pytest.raises(NonFiniteLoss, match="one of the images image-0, image-1") as caught:
        trainer.step([batch(0, 1)])
    assert caught.value.suspects == ()
    assert all(before[name].equal(value) for name, value in weights(model).items())


def test_learning_rates() -> None:
    cosine = Recipe(steps=10, learning_rate=1.0, warmup_steps=2, final_ratio=0.1)
    rates = [cosine.rate(step) for step in range(12)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.55) and rates[10:] == pytest.approx([0.1, 0.1])
    assert rates[2:11] == sorted(rates[2:11], reverse=True)
    assert [Recipe(steps=3, schedule="constant").rate(step) for step in (0, 5)] == [1e-4, 1e-4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps to be int 1"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"schedule": "linear"}, "schedule to be cosine or constant; got 'linear'"),
        ({"precision": "fp16"}, "precision to be fp32 or bf16"),
        ({"freeze": ("head",)}, "freeze"),
        ({"freeze": tuple(PARTS)}, "a part that is left to learn"),
        ({"warmup_steps": 21}, "warmup_steps to be at most 20"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"location_smoothing": -1.0}, "location_smoothing"),
        ({"seed": 0.5}, "seed"),
        ({"lora": 8}, "lora"),
    ],
)
def test_recipes_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(**options)


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}, {"targets": ("x",)}])
def test_adapters_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="lora: expected"):
        Lora(**options)


def test_lists_of_a_yaml() -> None:
    given: Any = {"freeze": ["vision"], "betas": [0.9, 0.95]}
    assert recipe(**given).freeze == ("vision",) and hash(recipe(**given))


def test_a_model_asked_between_steps_goes_on_learning() -> None:
    model: Florence2 = tiny(dropout=0.1)
    trainer = Trainer(model, recipe())
    trainer.step([batch(0)])
    model.eval()
    trainer.step([batch(0)])
    assert model.training
