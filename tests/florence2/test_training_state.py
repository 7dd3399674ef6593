"""A training on disk: going on as if nothing had been, models that anybody loads, and what is refused or survived."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from florence import SENTENCES
from PIL import Image
from safetensors.torch import load_file, save_file
from training import PROCESSOR, TINY, batch, examples, farthest, picture, recipe, rows, tiny, weights
from transformers import Florence2ForConditionalGeneration

from florence2 import Annotator, Florence2, Processor, Tokens
from florence2.errors import CheckpointError, ConfigError
from florence2.training import Batch, Lora, Trainer, latest
from florence2.training import state as module

LORA = Lora(rank=4, alpha=64, dropout=0.1)


def trainer(**options: Any) -> Trainer:
    return Trainer(tiny(dropout=0.1), recipe(**options), processor=PROCESSOR)


def same(left: Florence2, right: Florence2) -> bool:
    other = weights(right)
    return all(other[name].equal(value) for name, value in weights(left).items())


def train(trainer: Trainer, *steps: int) -> None:
    for step in steps:
        trainer.step([batch(step, tasks=4), batch(step + 1, tasks=3)])


@pytest.mark.parametrize("options", [{}, {"lora": LORA}, {"freeze": ("encoder",), "schedule": "cosine"}])
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path, options: dict[str, Any]) -> None:
    straight, first = trainer(**options), trainer(**options)
    train(straight, *range(6))
    train(first, *range(3))
    first.save(tmp_path / "state", {"image": 77, "file": "é"})
    second = trainer(**options)
    assert second.restore(tmp_path / "state") == {"image": 77, "file": "é"}
    assert second.done == 3 and same(first.model, second.model)
    train(second, *range(3, 6))
    assert same(straight.model, second.model)


def test_before_the_first_step(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    first.save(tmp_path / "state")
    assert second.restore(tmp_path / "state") == {} and second.done == 0
    train(first, 0), train(second, 0)
    assert same(first.model, second.model)


def ask(model: Florence2) -> list[str]:
    annotator = Annotator(model.eval(), PROCESSOR, num_beams=1, max_new_tokens=20)
    image = Image.fromarray(picture(0).permute(1, 2, 0).numpy())
    (answers,) = annotator.stream([image], [example.prompt for example in examples(0)[:8]])
    return [answer.text for answer in answers]


def test_transformers_reads_it_and_answers_the_same(tmp_path: Path) -> None:
    trained = trainer(learning_rate=5e-3)
    train(trained, *[0] * 15)
    trained.save(tmp_path / "state")
    theirs = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "state")
    one = Batch.of([picture(0)], [rows(0)[:8]], ["a"], PROCESSOR)
    loaded = Florence2.from_pretrained(tmp_path / "state")
    assert ask(loaded) == ask(trained.model) and len(set(ask(loaded))) > 2
    processor = Processor.from_pretrained(tmp_path / "state")
    for r in range(len(one)):
        prompt = one.input_ids[r][one.attention_mask[r] == 1]
        image = torch.full((PROCESSOR.image_tokens,), TINY.image_token_id)
        ids = theirs.generate(
            input_ids=torch.cat([image, prompt])[None], pixel_values=one.pixel_values, num_beams=1, max_length=20
        )
        assert processor.decode(ids[0]) in ask(loaded)


def test_a_vocabulary_without_image(tmp_path: Path) -> None:
    """Microsoft's: saving appends rows for transformers, which going on leaves out again."""

    def made() -> Trainer:
        config = replace(TINY, text=replace(TINY.text, vocab_size=1500), image_token_id=None)
        torch.manual_seed(0)
        return Trainer(Florence2(config), recipe(), processor=PROCESSOR)

    first, second = made(), made()
    train(first, 0)
    first.save(tmp_path / "state")
    second.restore(tmp_path / "state")
    train(first, 1), train(second, 1)
    assert same(first.model, second.model)
    assert len(Florence2.from_pretrained(tmp_path / "state").language_model.shared.weight) > 1500


# --- adapters --------------------------------------------------------------------------------------------------------


def test_adapters_learn_alone_and_are_saved_merged(tmp_path: Path) -> None:
    start, trained = tiny(dropout=0.1), trainer(lora=LORA, learning_rate=1e-2)
    assert ask(start) == ask(trained.model), "an adapter starts at zero"
    train(trained, *range(5))
    plain = weights(start)
    for name, value in weights(trained.model).items():
        assert ".lora_" in name or plain[name.replace(".base_layer", "")].equal(value), name
    trained.save(tmp_path / "state")
    merged, one = Florence2.from_pretrained(tmp_path / "state"), batch(0)
    assert weights(merged).keys() == plain.keys() and farthest(weights(merged), plain) > 0.01
    inputs = one.pixel_values[one.image_of_row], one.input_ids, one.attention_mask, one.labels.clamp(min=0)
    trained.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(trained.model(*inputs), merged(*inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trained.model(*inputs), merged(*inputs), rtol=1e-4, atol=1e-4)
    assert ask(merged) == ask(trained.model) != ask(start)


def test_an_adapter_is_more_than_a_weight() -> None:
    """Where a CPU works in tiles it takes the weights of layers themselves: not those of layers with an adapter."""
    trained = trainer(lora=Lora(rank=4, alpha=64, targets=("fc1", "fc2")), learning_rate=1e-2)
    train(trained, *range(3))
    mlp = trained.model.vision_tower.blocks[0][0].channel_block.ffn.eval()
    x = torch.randn(300, 256, 16)
    with torch.no_grad():
        tiled = mlp(x)
    torch.testing.assert_close(tiled, mlp(x), rtol=1e-5, atol=1e-5)


def test_frozen_parts_get_no_adapter() -> None:
    names = [name for name, _ in trainer(lora=LORA, freeze=("vision", "decoder")).model.named_parameters()]
    adapted = {name.split(".lora_")[0] for name in names if ".lora_" in name}
    assert adapted and all(name.startswith(("multi_modal", "language_model.encoder")) for name in adapted)
    with pytest.raises(ConfigError, match="layers of qkv outside the frozen parts; there are none"):
        trainer(lora=Lora(targets=("qkv",)), freeze=("vision",))
    with pytest.raises(ConfigError, match="without adapters"):
        Trainer(trainer(lora=LORA).model, recipe(lora=LORA))


def test_adapters_go_on_from_the_weights_they_started_on(tmp_path: Path) -> None:
    trainer(lora=LORA).save(tmp_path / "state")
    other = Trainer(tiny(seed=1, dropout=0.1), recipe(lora=LORA), processor=PROCESSOR)
    with pytest.raises(CheckpointError, match=r"another start: .*; adapters go on from the weights"):
        other.restore(tmp_path / "state")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "state"
    made = trainer()
    train(made, 0)
    made.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    target = tmp_path / "state"
    target.mkdir()
    for path in saved.iterdir():
        os.link(path, target / path.name)
    return target


def refused(folder: Path, words: str, other: Trainer | None = None) -> None:
    """And nothing of it was taken."""
    other = other or trainer()
    before = weights(other.model)
    with pytest.raises(CheckpointError, match=words) as caught:
        other.restore(folder)
    assert str(folder) in str(caught.value)
    assert other.done == 0 and other.optimiser.state() == {}
    assert all(before[name].equal(value) for name, value in weights(other.model).items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 2e-3}, "another recipe: learning_rate was 0.001 and is 0.002; go on with the recipe"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"freeze": ("vision",)}, "freeze"),
        ({"lora": LORA}, "lora"),
        ({"schedule": "cosine"}, "schedule was 'constant' and is 'cosine'"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_another_recipe(saved: Path, options: dict[str, Any], words: str) -> None:
    refused(saved, words, trainer(**options))


def test_what_may_change(saved: Path) -> None:
    longer = trainer(steps=500, checkpoint_gradients=True)
    longer.restore(saved)
    assert longer.done == 1
    Trainer(tiny(dropout=0.1), recipe()).restore(saved)  # without a processor: its tokenizer is not looked at


def test_the_end_of_a_cosine_is_part_of_its_curve(tmp_path: Path) -> None:
    trainer(schedule="cosine").save(tmp_path / "state")
    refused(tmp_path / "state", "steps was 20 and is 30", trainer(schedule="cosine", steps=30))


def test_another_configuration(saved: Path) -> None:
    other = Trainer(tiny(dropout=0.1, decoder_layers=2), recipe())
    refused(saved, "another config: decoder_layers was 1 and is 2; give the model of this", other)


def test_another_tokenizer(saved: Path) -> None:
    tokens = Tokens.train([*SENTENCES, "zebra zebra zebra"], 1500)
    processor = replace(PROCESSOR, tokens=tokens)
    refused(saved, "another tokenizer", Trainer(tiny(dropout=0.1), recipe(), processor=processor))


@pytest.mark.parametrize("name", ["training.json", "model.safetensors", "optimiser.safetensors"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_cut_short(folder: Path, name: str, share: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    refused(folder, name)


@pytest.mark.parametrize("name", ["training.json", "model.safetensors", "optimiser.safetensors"])
def test_a_file_that_is_gone(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"format": None}, {"step": -1}, {"step": "1"}, {"extra": []}, {"recipe": None}]
)
def test_another_description(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "training.json"
    data = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(data | change))
    refused(folder, "training.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, value: {}, "1 are missing or surplus"),
        (lambda name, value: {name: value[:1]}, "expected float32"),
        (lambda name, value: {name: value.double()}, "expected float32"),
        (lambda name, value: {name: value, "x": value.clone()}, "1 are missing or surplus, as 'x'"),
    ],
)
def test_another_optimiser(folder: Path, change: Callable[..., Any], words: str) -> None:
    path = folder / "optimiser.safetensors"
    state = load_file(path)
    path.unlink()
    name = "exp_avg:vision_tower.convs.0.conv.weight"
    save_file({key: value for key, value in state.items() if key != name} | change(name, state[name]), path)
    refused(folder, words)


# --- what is survived ------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_replaces_the_one_before(tmp_path: Path) -> None:
    made = trainer()
    for step in range(2):
        made.save(tmp_path / "state", {"at": step})
    assert names(tmp_path) == ["state"] and trainer().restore(tmp_path / "state") == {"at": 1}


def fill(made: Trainer, folder: Path, limit: int) -> None:
    """Saves where no file may be larger than `limit`, in a process of its own; exits with 0 for an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        made.save(folder, {"at": "too much"})
    except OSError as error:
        os._exit(0 if str(folder) in str(error) else 2)
    os._exit(1)


@pytest.mark.parametrize("limit", [1000, 1_500_000, 4_000_000])
def test_a_full_disk_leaves_the_old_one(folder: Path, limit: int) -> None:
    """At the configuration, amid the weights, and amid the optimiser, whose file is twice as large."""
    size = (folder / "model.safetensors").stat().st_size
    assert 1_500_000 < size < 4_000_000 < (folder / "optimiser.safetensors").stat().st_size
    made = trainer()
    made.restore(folder)
    process = multiprocessing.get_context("fork").Process(target=fill, args=(made, folder, limit))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert names(folder.parent) == ["state"] and trainer().restore(folder) == {}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_between_the_renames(folder: Path, renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment there is a whole one; and the next save clears up."""
    real, done = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(target)
        return real(self, target)

    made = trainer()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(module.shutil, "rmtree", lambda *args, **options: None)  # a killed process clears nothing
        if renames < 2:
            with pytest.raises(Killed):
                made.save(folder, {"at": 2})
        else:
            made.save(folder, {"at": 2})
    found = latest(folder)
    assert found is not None and trainer().restore(found) == ({} if renames == 0 else {"at": 2})
    made.save(folder, {"at": 3})
    assert names(folder.parent) == ["state"] and trainer().restore(folder) == {"at": 3}


def test_nothing_there(tmp_path: Path) -> None:
    assert latest(tmp_path / "state") is None
    refused(tmp_path / "state", "training.json")


def test_what_json_does_not_know(folder: Path) -> None:
    with pytest.raises(TypeError):
        trainer().save(folder, {"at": object()})
    assert trainer().restore(folder) == {}
