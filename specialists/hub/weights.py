"""A model's files: where they are, under which licence, what they are a version of, and how they are loaded.

From a folder, or from a hub, each file once a machine: workers that want the same wait for the first. Code that comes
with weights is never run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from engine import plain_yaml
from engine.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

SAFE, PICKLES = "*.safetensors", "pytorch_model*.bin"
# Configurations, tokenizers and their vocabularies, chat templates, and the card with the licence.
AROUND = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")
READ = ("*.json", "*.txt", "*.model", "*.jinja", SAFE, PICKLES)
UNSTATED = "not stated"
# Of a licence that may: also those for research alone, by the names that cards have for them.
NON_COMMERCIAL = re.compile(
    r"\bnc\b|non-?commercial|research|academic|\bfair\b|\bopt-175b\b|\b(?:mrl|mnpl|amlr|nscl)", re.IGNORECASE
)


@dataclass(frozen=True)
class Weights:
    """The files of `model`, a folder or a hub's id, for whoever has the section `where` in the configuration.

    `known` has the licences of the usual models, so that one can be turned down before gigabytes are fetched.
    """

    where: str
    model: str
    known: Mapping[str, str]
    accept_licence: bool = False
    families: tuple[str, ...] = ()  # by their configuration's model_type; none: any

    @cached_property
    def folder(self) -> Path:
        """The folder with the files, fetched if need be. ConfigError says what is wrong, and the command that helps."""
        from florence2.errors import CheckpointError  # PyTorch comes along
        from florence2.hub import is_id, resolve

        if self.model in self.known:
            self.check_licence(self.known[self.model])
        if not self.model:
            raise ConfigError(f"{self.where}: `model` is empty; expected a folder or a hub's id (owner/name)")
        try:
            folder = resolve(self.model, (*AROUND, SAFE))
            if not any(folder.glob(SAFE)):
                folder = resolve(self.model, (*AROUND, PICKLES))
        except CheckpointError as error:
            by_hand = f". To fetch it by hand: {self.command}" if is_id(self.model) else ""
            raise ConfigError(f"{self.where}: {error}{by_hand}") from error
        for needed in ("config.json", SAFE):
            if not any(folder.glob(needed)) and not (needed == SAFE and any(folder.glob(PICKLES))):
                raise ConfigError(f"{self.where}: {self.model} has no {needed} in {folder}: it is no model's folder")
        self.check_licence(self.known.get(self.model) or licence_in(folder))
        self._check_family(folder)
        return folder

    @property
    def licence(self) -> str:
        return self.known.get(self.model) or licence_in(self.folder)

    @property
    def command(self) -> str:
        """What a person types to have the files."""
        return f"hf download {self.model}"

    def missing(self) -> str | None:
        """A sentence for a person if the model's files are not all here. Nothing is fetched.

        Raises ConfigError for what no fetching helps: a licence that is not accepted, a folder that is not there.
        """
        from florence2.hub import here, is_id

        folder = here(self.model)
        self.check_licence(self.known.get(self.model) or (licence_in(folder) if folder else UNSTATED))
        if folder is None and not is_id(self.model):
            return str(self.folder)  # raises: it is no folder, and no hub's id
        if folder is not None and (folder / "config.json").exists() and _whole(folder):
            self._check_family(folder)
            return None
        if os.path.isdir(self.model):
            raise ConfigError(f"{self.where}: {self.model} is no model's folder: config.json or weights are not there")
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        fetches = "and HF_HUB_OFFLINE is set: online," if offline else "the run fetches it, or"
        return f"{self.model} is not on this machine; {fetches} {self.command}"

    def files(self) -> Iterator[tuple[Path, int]]:
        """What is read of them, each with its time of change (ns)."""
        for path in sorted({path for pattern in READ for path in self.folder.glob(pattern)}):
            yield path, path.stat().st_mtime_ns

    def load(self, kind: Any, precision: Precision) -> Any:
        """The model, for inference, on the GPU where there is one; `kind` is one of transformers' classes.

        One in a process: specialists that name the same share it. Attention is PyTorch's own (SDPA) where transformers
        has the model with it. ConfigError if the files are another kind of model's: what a model has and the files have
        not would be random numbers.
        """
        folder, files = self.folder, tuple(self.files())
        try:
            return _loaded(folder, kind, precision, files)
        except Exception as error:  # each library has its own for files that are not what they seem
            raise ConfigError(f"{self.where}: {self.model} can't be loaded as {kind.__name__}: {error}") from error

    def processor(self, kind: Any, **options: Any) -> Any:
        """What turns images and words into the model's inputs; `kind` is one of transformers' classes."""
        try:
            return kind.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(f"{self.where}: {self.model} has no usable {kind.__name__}: {error}") from error

    def _check_family(self, folder: Path) -> None:
        """Another family may load as well, and would fail on every image."""
        try:
            family = json.loads((folder / "config.json").read_bytes()).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{self.where}: {self.model} can't be loaded: config.json: {error}") from error
        if self.families and family not in self.families:
            raise ConfigError(
                f"{self.where}: {self.model} is of the family {family}; expected one of {', '.join(self.families)}"
            )

    def check_licence(self, licence: str) -> None:
        if NON_COMMERCIAL.search(licence) and not self.accept_licence:
            raise ConfigError(
                f"{self.where}: {self.model} is licensed under {licence}, which may forbid commercial use. If "
                f"yours is allowed, say so: {self.where}.accept_licence=true"
            )


@lru_cache(maxsize=32)
def _loaded(folder: Path, kind: Any, precision: Precision, files: tuple[tuple[Path, int], ...]) -> Any:
    """Raises ValueError for tensors that the files don't have; `files` with their times of change: they may differ."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, found = kind.from_pretrained(
        folder,
        dtype=dtype_of(precision),
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    missing = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if missing:
        raise ValueError(
            f"it lacks {len(missing)} of the tensors of {type(model).__name__} ({', '.join(missing[:3])}, ...): it is "
            "another kind of model"
        )
    return model.eval().requires_grad_(False).to(device)


def absolute(model: str) -> str:
    """A folder's path in full; a hub's id as it is."""
    folder = os.path.abspath(os.path.expanduser(model))
    return folder if model and os.path.isdir(folder) else model


def licence_in(folder: Path) -> str:
    """The licence that a model's card states in its front matter, word for word."""
    card = folder / "README.md"
    if not card.is_file():
        return UNSTATED
    with card.open(errors="replace") as file:
        text = file.read(100_000)
    matter = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    try:
        stated = plain_yaml.parse(matter[1]) if matter else None
    except ValueError:
        return UNSTATED
    if not isinstance(stated, dict):
        return UNSTATED
    words = stated.get("license_name") if stated.get("license") in (None, "other") else stated.get("license")
    listed = words if isinstance(words, list) else [words]
    return ", ".join(word for word in listed if isinstance(word, str))[:200] or UNSTATED


def _whole(folder: Path) -> bool:
    """Whether the weights are there, of those that are in parts all."""
    for index in sorted(folder.glob("*.safetensors.index.json")) or folder.glob("*.index.json"):
        try:
            parts = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return all((folder / str(part)).exists() for part in parts)
    return any(True for pattern in (SAFE, PICKLES) for _ in folder.glob(pattern))


def dtype_of(precision: Precision) -> Any:
    import torch

    if precision == "auto":
        is_able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if is_able else torch.float32
    return getattr(torch, precision)
