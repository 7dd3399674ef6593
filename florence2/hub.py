"""A model's folder, on this machine or from a Hugging Face hub (HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE hold here)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from florence2.errors import CheckpointError


def resolve(source: str | Path, filenames: Sequence[str]) -> Path:
    """The folder `source`, or else a copy of the hub's repository of that id ("microsoft/Florence-2-base").

    `filenames` are names or globs: of a repository nothing else is fetched, and at least one has to be there.
    What looks like a path ("./x", "/x", "~/x", a Path) is never looked up at a hub. CheckpointError says what is wrong.
    """
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        folder = Path(path)
    elif os.path.exists(path):
        raise CheckpointError(f"{source}: expected a folder, got a file; give the folder that it is in")
    elif isinstance(source, str) and is_id(source):
        folder = fetched(source, filenames)
    else:
        raise CheckpointError(
            f"{source!s:.200}: no such folder; expected one with {', '.join(filenames)}, or a hub's id (owner/name)"
        )
    if not any(True for name in filenames for _ in folder.glob(name)):
        raise CheckpointError(f"{source}: expected one of {', '.join(filenames)} in {folder}; none is there")
    return folder


def here(source: str | Path) -> Path | None:
    """The folder `source`, or the copy of a hub's repository that this machine has, whole or not; no hub is asked."""
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return Path(path)
    if not (isinstance(source, str) and is_id(source)) or os.path.exists(path):
        return None
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def is_id(source: str) -> bool:
    """An owner and a name; no path, and so nothing that a hub should hear of by a slip of the pen."""
    owner, _, name = source.partition("/")
    return bool(owner and name) and "/" not in name and owner[0] not in ".~"


def fetched(id: str, filenames: Sequence[str]) -> Path:
    wanted = f"{id}: looked for {', '.join(filenames)} at the hub, as there is no folder of this name"
    try:
        return Path(snapshot_download(id, allow_patterns=list(filenames)))
    except HFValidationError as error:
        raise CheckpointError(f"{wanted}; it can't be an id: {error}") from error
    except GatedRepoError as error:
        raise CheckpointError(
            f"{wanted}; access has to be asked for on its page, and then a token given (HF_TOKEN, or `hf auth login`)"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{wanted}; the hub knows no such id, or it is private: check the spelling, or give a token (HF_TOKEN)"
        ) from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if isinstance(error.__cause__, OfflineModeIsEnabled) else "the hub is not reached"
        raise CheckpointError(
            f"{wanted}; {why}, and the cache has no whole copy: fetch it once while online, or give a folder's path "
            f"({error.__cause__ or error})"
        ) from error
    except Exception as error:  # whatever the client's HTTP library has: a proxy, a broken download, a full disk
        raise CheckpointError(f"{wanted}; fetching failed ({type(error).__name__}: {error}); try again") from error
