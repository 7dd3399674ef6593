"""Checkpoints of Florence-2: read in the three forms that exist, written in one.

form                  weights                                           names
Microsoft, 2024       pytorch_model.bin                                 vision_tower.convs.0.proj.weight, ...
Microsoft, 2025       model.safetensors, without lm_head                the same
native, transformers  model.safetensors, or shards and their index      model.vision_tower.convs.0.conv.weight, ...

Our names are the native ones without `model.`, with language_model.shared.weight alone for the embedding, which is the
head, too. The names tell the forms apart: no native name matches a pattern of Microsoft's. Checkpoints come from
strangers: a pickle is read for its tensors and never executed, an index names files of its own folder only, nothing is
loaded in part.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from florence2.config import Florence2Config
from florence2.errors import CheckpointError
from florence2.hub import resolve

CONFIG, GENERATION = "config.json", "generation_config.json"
SAFE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

SHARED = "language_model.shared.weight"
COPIES = {
    "language_model.encoder.embed_tokens.weight",
    "language_model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
    "lm_head.weight",
}
BIAS = "language_model.final_logits_bias"  # Microsoft's, a buffer of zeros
SINUSOIDS = "multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"  # a buffer that a model can compute
PROJECTION = "image_projection"  # Microsoft's, [C, d]: a matrix to multiply with; native a linear layer's [d, C]

# Microsoft's names -> native -> ours [modeling_florence2.py of microsoft/Florence-2-large; transformers' converter]
BLOCK = r"^(vision_tower\.blocks\.\d+\.\d+\.\w+_block)\."
RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^language_model\.model\.", "language_model."),
        (r"^image_projection$", "multi_modal_projector.image_projection.weight"),
        (r"^image_proj_norm\.", "multi_modal_projector.image_proj_norm."),
        (r"^image_pos_embed\.", "multi_modal_projector.image_position_embed."),
        (r"^visual_temporal_embed\.", "multi_modal_projector.visual_temporal_embed."),
        (r"^(vision_tower\.convs\.\d+)\.proj\.", r"\1.conv."),
        (BLOCK + r"(conv[12])\.fn\.dw\.", r"\1.\2."),
        (BLOCK + r"(?:window|channel)_attn\.norm\.", r"\1.norm1."),
        (BLOCK + r"(window_attn|channel_attn)\.fn\.", r"\1.\2."),
        (BLOCK + r"ffn\.norm\.", r"\1.norm2."),
        (BLOCK + r"ffn\.fn\.net\.", r"\1.ffn."),
        (r"^model\.(?=vision_tower\.|multi_modal_projector\.|language_model\.)", ""),
    )
)
Tensors = list[tuple[str, Tensor]]  # of a file, under the file's names


def locate(source: str | Path) -> Path:
    """The folder of a checkpoint, or a copy of the hub's: its pickle is fetched only where there is nothing better."""
    folder = resolve(source, (CONFIG, SAFE, INDEX, "model-*.safetensors"))
    return folder if (folder / SAFE).exists() or (folder / INDEX).exists() else resolve(source, (CONFIG, PICKLE))


def read_config(folder: Path) -> Florence2Config:
    """Of config.json, transformers' or Microsoft's. CheckpointError if it is absent, broken, or another model's."""
    path = folder / CONFIG
    data = read_json(path)
    try:
        return Florence2Config.from_dict(data)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not the configuration of a Florence-2: {error}") from error


def load_into(model: nn.Module, folder: Path) -> None:
    """Gives the model the checkpoint's tensors, on the CPU, in the dtypes of the file; no second copy is in memory.

    A model made under `torch.device("meta")` has needed neither memory nor a random start until then. CheckpointError
    if a tensor is missing, surplus or of another shape; the model is as it was before.
    """
    state = read_state(folder)
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in COPIES}
    if SINUSOIDS in expected.keys() - state.keys() and not expected[SINUSOIDS].is_meta:
        del expected[SINUSOIDS]  # computed already
    check(state, expected, folder)
    model.load_state_dict({name: state[name].contiguous() for name in expected}, strict=False, assign=True)


def check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Path) -> None:
    """CheckpointError unless both have the same names with the same shapes."""
    if not (state.keys() & expected.keys()) - {SHARED}:
        found = some(state.keys() - {SHARED}) or "none"
        raise CheckpointError(f"{folder}: a checkpoint of another architecture; its tensors: {found}")
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys() - {SINUSOIDS}
    if missing or surplus:
        kinds = (("missing", missing), ("surplus", surplus))
        found = "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds if names)
        raise CheckpointError(
            f"{folder}: expected {len(expected)} tensors; {found}. "
            f"The weights are not whole, or {CONFIG} is not their own: download or copy both again"
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder}: {name}: expected shape {list(tensor.shape)}, got {list(state[name].shape)}: "
                f"made with another configuration than {CONFIG} says"
            )


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors in our names, whichever form is there, in the dtypes of the file.

    Files are read, not mapped and copied: base (fp32) needs 0.9 GB so, not 1.9, and less than half the time; and a
    mapped file that somebody cuts short kills the process. CheckpointError if there are no weights, if a file is
    damaged, or has what our model can't hold: untied embeddings, a bias on the logits, numbers other than float32,
    float16 and bfloat16.
    """
    for name, read in FORMS.items():
        if (path := folder / name).exists():
            return ours(read(path), path)
    raise CheckpointError(
        f"{folder}: expected weights, one of {', '.join(FORMS)}; none is there: is it a model's folder?"
    )


def ours(tensors: Iterable[tuple[str, Tensor]], path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, tensor in tensors:
        name = our_name(key)
        if tensor.dtype not in FLOATS or tensor.layout is not torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{path}: {shown(key)}: expected float32, float16 or bfloat16, got {tensor.type()}: "
                "take a checkpoint that is not quantised"
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():  # could be without end
            raise CheckpointError(f"{path}: {shown(key)} repeats the numbers that it has: take it from another source")
        if name == BIAS:
            if tensor.count_nonzero():
                raise CheckpointError(f"{path}: {shown(key)} is not zero, and our head has no bias: it can't be loaded")
            continue
        if key == PROJECTION:
            tensor = tensor.transpose(0, -1)
        if name in state and not torch.equal(state[name], tensor):
            raise CheckpointError(
                f"{path}: {shown(key)} differs from another tensor for {name}: expected one matrix for embeddings and "
                "head, and one tensor a name; untied weights can't be held"
            )
        state.setdefault(name, tensor)
    return state


def our_name(key: str) -> str:
    for pattern, name in RENAMED:
        key = pattern.sub(name, key)
    return SHARED if key in COPIES else key


def safetensors(path: Path) -> Tensors:
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt", backend="pread") as file:
            return [(key, file.get_tensor(key)) for key in file.keys()]  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        reason = shown(str(error))
        raise CheckpointError(f"{path}: not a whole safetensors file ({reason}): download or copy it again") from error


def shards(path: Path) -> Tensors:
    """Of an index {"weight_map": {tensor: file}}. The hub's cache has links: names are checked, not their targets."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{path}: expected a weight_map from tensors to files: download or copy it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if name != Path(name).name or not name.endswith(".safetensors") or len(name) > 255:
            raise CheckpointError(f"{path}: expected names of safetensors files in its own folder, got {shown(name)}")
        if not (path.parent / name).is_file():
            raise CheckpointError(f"{path}: {shown(name)}, one of {len(names)} files, is not there: download it, too")
    return [pair for name in names for pair in safetensors(path.parent / name)]


def pickled(path: Path) -> Tensors:
    refuse_pointer(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path}: a pickle that asks for {shown(asked[1])}, not for tensors alone: nothing of it was executed. "
                "Take the checkpoint as safetensors"
            ) from error
        reason = shown((str(error) or repr(error)).splitlines()[0])
        raise CheckpointError(f"{path}: not a whole PyTorch file ({reason}): download or copy it again") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        held = f"a dict with {some(map(str, state))}" if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected a dict of names and tensors alone, got {held}")
    return [(key, tensor.detach()) for key, tensor in state.items()]


FORMS: dict[str, Callable[[Path], Tensors]] = {SAFE: safetensors, INDEX: shards, PICKLE: pickled}


def read_json(path: Path) -> dict[str, Any]:
    refuse_pointer(path)
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}): download or copy it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def refuse_pointer(path: Path) -> None:
    """CheckpointError if there is no such file, or git-lfs has left its note in the file's place."""
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file of a Florence-2: {error.strerror}") from error
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: git-lfs's pointer to the file, not the file: run `git lfs pull` in its repository"
        )


def write(model_state: Mapping[str, Tensor], config: Florence2Config, folder: Path) -> None:
    """Native form: config.json, model.safetensors, generation_config.json. transformers' from_pretrained takes it.

    A model without <image> (Microsoft's) gets it: see `with_image_token`. All is written aside, to the disk, and
    renamed at the end: what fails or is killed leaves the old files whole (killed, it leaves its folder .unfinished-*,
    too). CheckpointError if it can't be written.
    """
    state, config = with_image_token(ours(model_state.items(), folder), config)
    native = {f"model.{name}": tensor.detach().contiguous() for name, tensor in state.items()}
    dtype = str(state[SHARED].dtype).removeprefix("torch.")
    settings = {CONFIG: config.to_dict() | {"dtype": dtype}, GENERATION: generation(config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unfinished-", dir=folder) as aside:
            save_file(native, Path(aside, SAFE), metadata={"format": "pt"})
            for name, data in settings.items():
                Path(aside, name).write_text(json.dumps(data, indent=2) + "\n")
            Path(aside, SAFE).chmod(Path(aside, CONFIG).stat().st_mode)  # safetensors lets nobody else read it
            written = sorted(Path(aside).iterdir())
            for path in written:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())  # or the name might outlive a power cut, and the content not
            for path in written:
                os.replace(path, folder / path.name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}: could not be written ({error}); what was there before is whole") from error


def with_image_token(state: dict[str, Tensor], config: Florence2Config) -> tuple[dict[str, Tensor], Florence2Config]:
    """transformers marks the image's place in a prompt with a token, and looks it up: without a row for it that fails.

    So <image> follows the vocabulary, and rows up to a multiple of 64, as in the checkpoints that transformers has
    converted. New rows are the mean of the others: their logits are the mean logit, and never the highest.
    """
    if config.image_token_id is not None:
        return state, config
    padded, shared = config.with_vocabulary(config.text.vocab_size), state[SHARED].detach()
    mean = shared.float().mean(dim=0).to(shared.dtype)
    rows = torch.cat([shared, mean.expand(padded.text.vocab_size - len(shared), -1)])
    return state | {SHARED: rows}, padded


def generation(config: Florence2Config) -> dict[str, Any]:
    """How Microsoft's models are to be asked; without forced BOS they write <s> without end."""
    text = config.text
    return {
        "bos_token_id": text.bos_token_id,
        "pad_token_id": text.pad_token_id,
        "eos_token_id": text.eos_token_id,
        "decoder_start_token_id": text.decoder_start_token_id,
        "forced_bos_token_id": text.bos_token_id,
        "forced_eos_token_id": text.eos_token_id,
        "num_beams": 3,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    }


def some(names: Iterable[str]) -> str:
    """The first few, in order."""
    ordered = sorted(names)
    return ", ".join(map(shown, ordered[:3])) + (", ..." if len(ordered) > 3 else "")


def shown(name: str) -> str:
    """A stranger's words, fit for a terminal: not too many, no control characters."""
    return name if name.isprintable() and len(name) <= 120 else repr(name[:120])
