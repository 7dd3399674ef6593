"""The state of a training: a folder that is a whole model for everybody, and for a trainer the place to go on from.

config.json, model.safetensors, generation_config.json   the model; adapters are added into its weights
tokenizer.json, preprocessor_config.json, ...            the processor's files, where the trainer has one
optimiser.safetensors                                    `exp_avg:<parameter>`, `exp_avg_sq:...`, `step:...`
adapter.safetensors                                      with LoRA: the adapters alone
training.json                                            format, step, recipe, config, digests, what the driver adds

A folder is written aside, as `.<name>.new`, and its training.json last: with it a folder is whole. Then the old one
becomes `.<name>.old`, the new one takes its name, and the old one goes. `latest` finds what a kill between has left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from florence2.checkpoint import SHARED, read_json, read_state, safetensors, some, write
from florence2.config import fits
from florence2.errors import CheckpointError
from florence2.training.lora import adapters, merged

if TYPE_CHECKING:
    from florence2.training.trainer import Trainer

FORMAT = 1
OPTIMISER, ADAPTER, TRAINING = "optimiser.safetensors", "adapter.safetensors", "training.json"
State = dict[str, Tensor]


def latest(folder: str | Path) -> Path | None:
    """The folder itself, if it is there; else what a kill amid a save has left of it, whole; None if there is none."""
    folder = Path(folder)
    return next((path for path in (folder, *beside(folder)) if (path / TRAINING).exists()), None)


def beside(folder: Path) -> tuple[Path, Path]:
    """Where the new one is written, and where the old one waits."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def save(trainer: Trainer, folder: Path, extra: dict[str, Any]) -> None:
    """OSError if it can't be written, as with a full disk; what was there before is whole then."""
    training = json.dumps(described(trainer) | {"extra": extra}, indent=2) + "\n"  # before the disk is touched
    with renamed(folder) as aside, disk_errors(folder):
        write(merged(trainer.model), trainer.model.config, aside)
        if trainer.processor is not None:
            trainer.processor.save_pretrained(aside)
        save_file({name: tensor.cpu() for name, tensor in trainer.optimiser.state().items()}, aside / OPTIMISER)
        if trainer.recipe.lora is not None:
            save_file({name: tensor.cpu() for name, tensor in adapters(trainer.model).items()}, aside / ADAPTER)
        for path in aside.iterdir():
            flush(path)
        (aside / TRAINING).write_text(training)
        flush(aside / TRAINING)
        flush(aside)


@contextmanager
def renamed(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `folder` at the end, and is gone if that fails."""
    new, old = beside(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (left := latest(folder)) not in (None, folder):
        left.rename(folder)
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the libraries make of a failed write, as OSError again."""
    try:
        yield
    except (CheckpointError, SafetensorError) as error:
        number = next((e.errno for e in (error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        if number is None and (said := re.search(r"os error (\d+)", str(error))):  # safetensors has it in words alone
            number = int(said[1])
        raise OSError(number, f"could not be written ({error}); what was there before is whole", str(folder)) from error


def flush(path: Path) -> None:
    """To the disk, lest a name outlive a power cut, and its content not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def described(trainer: Trainer) -> dict[str, Any]:
    """What must be the same to go on, and the step; as JSON gives it back."""
    described = {
        "format": FORMAT,
        "step": trainer.done,
        "recipe": trainer.recipe.curve,
        "config": trainer.model.config.to_dict(),
        "tokenizer": trainer.processor and digest_of_tokens(trainer),
        "start": trainer.start,
    }
    return dict(json.loads(json.dumps(described)))


def digest_of_tokens(trainer: Trainer) -> str:
    assert trainer.processor is not None
    return sha256(trainer.processor.tokens.with_image().to_json().encode()).hexdigest()


def digest(state: Mapping[str, Tensor]) -> str:
    """Of names and numbers."""
    total = sha256()
    for name in sorted(state):
        total.update(name.encode() + b"\0")
        total.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def restore(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """All is read and checked before anything changes."""
    path = folder / TRAINING
    training = read_json(path)
    compare(training, described(trainer), path)
    state = adapter_of(trainer, folder) if trainer.recipe.lora else weights_of(trainer, folder)
    optimiser = dict(safetensors(folder / OPTIMISER))
    try:
        trainer.optimiser.check(optimiser)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / OPTIMISER}: {error}") from error
    trainer.model.load_state_dict(state, strict=False)
    trainer.optimiser.load(optimiser)
    trainer.done = training["step"]
    return dict(training["extra"])


WAYS_OUT = {
    "recipe": "go on with the recipe that it was started with, or start anew from its weights",
    "config": "give the model of this configuration",
    "tokenizer": "take the tokenizer that lies beside it",
    "start": "adapters go on from the weights that they were started on: give those",
}


def compare(training: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    """CheckpointError, naming what differs, unless the trainer can go on from this state."""
    if training.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {training.get('format')!r:.80}")
    if not fits(training.get("step"), int, 0, 2**60) or not isinstance(training.get("extra"), dict):
        raise CheckpointError(f"{path}: expected a step and what the driver added; it is damaged")
    for name, way_out in WAYS_OUT.items():
        theirs, ours = training.get(name), own[name]
        if name == "tokenizer" and ours is None:
            continue
        if theirs != ours:
            raise CheckpointError(f"{path}: another {name}: {difference(theirs, ours)}; {way_out}")


def difference(theirs: Any, ours: Any, where: str = "") -> str:
    """The first few entries that differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
        return ", ".join(difference(theirs.get(name), ours.get(name), name) for name in names[:3])
    return f"{where} was {theirs!r:.80} and is {ours!r:.80}".strip()


def weights_of(trainer: Trainer, folder: Path) -> State:
    """The model's; without the rows that saving appends to a vocabulary without <image>."""
    expected, found = trainer.model.state_dict(), read_state(folder)
    if SHARED in found:
        found[SHARED] = found[SHARED][: len(expected[SHARED])]
    return checked(found, expected, folder)


def adapter_of(trainer: Trainer, folder: Path) -> State:
    return checked(dict(safetensors(folder / ADAPTER)), adapters(trainer.model), folder / ADAPTER)


def checked(found: State, expected: Mapping[str, Tensor], path: Path) -> State:
    if wrong := found.keys() ^ expected.keys():
        raise CheckpointError(f"{path}: expected {len(expected)} tensors; missing or surplus: {some(wrong)}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype is not tensor.dtype:
            got = f"{found[name].dtype} {list(found[name].shape)}"
            raise CheckpointError(f"{path}: {name}: expected {tensor.dtype} {list(tensor.shape)}, got {got}")
    return found
