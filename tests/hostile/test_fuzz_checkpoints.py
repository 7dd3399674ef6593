"""Checkpoints of strangers: a model, or an error of ours, before memory is taken for what isn't there; no code runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from limits import deadline, memory_of
from mutations import ODD, mutated, mutated_json
from training import tiny

from florence2.checkpoint import CONFIG, INDEX, PICKLE, SAFE, read_config, write
from florence2.errors import Florence2Error
from florence2.model import Florence2

pytestmark = pytest.mark.usefixtures("one_thread")
SECONDS = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = tiny()
    write(model.state_dict(), model.config, folder)
    return folder


def header_of(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    return dict(json.loads(data[8 : 8 + length]))


def with_header(data: bytes, header: bytes, length: int | None = None) -> bytes:
    (before,) = struct.unpack("<Q", data[:8])
    return struct.pack("<Q", len(header) if length is None else length) + header + data[8 + before :]


def loads(folder: Path) -> bool:
    """Whether there is a model; what else there is must be an error of ours."""
    with deadline(SECONDS):
        try:
            Florence2.from_pretrained(folder)
        except Florence2Error as error:
            assert len(str(error)) < 5000
            return False
    return True


def beside(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    for name in (CONFIG, SAFE):
        shutil.copy(whole / name, folder / name)
    return folder


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_header(whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = beside(whole, tmp_path_factory)
    content = (whole / SAFE).read_bytes()
    header = json.dumps(header_of(content)).encode()
    if data.draw(st.booleans()):
        content = with_header(content, data.draw(mutated_json(header)))
    else:
        content = data.draw(mutated(content[:4000])) + content[4000:]
    (folder / SAFE).write_bytes(content)
    loads(folder)


LIES: dict[str, dict[str, Any]] = {
    "a shape whose product overflows": {"shape": [2**32, 2**32, 2**32]},
    "a shape of a terabyte": {"shape": [2**38], "dtype": "F32"},
    "another dtype": {"dtype": "F64"},
    "no dtype": {"dtype": "F33"},
    "places behind the end": {"data_offsets": [2**40, 2**40 + 4]},
    "places that overlap": {"data_offsets": [0, 4]},
    "places in the wrong order": {"data_offsets": [8, 0]},
    "places before the beginning": {"data_offsets": [-8, 0]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(whole: Path, tmp_path_factory: pytest.TempPathFactory, lie: str) -> None:
    folder, content = beside(whole, tmp_path_factory), (whole / SAFE).read_bytes()
    header = header_of(content)
    header[sorted(header.keys() - {"__metadata__"})[3]] |= LIES[lie]
    (folder / SAFE).write_bytes(with_header(content, json.dumps(header).encode()))
    megabytes, told = memory_of(loads_not, folder)
    assert (told, megabytes < 100) == ("done", True)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_another_length(whole: Path, tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder, content = beside(whole, tmp_path_factory), (whole / SAFE).read_bytes()
    (folder / SAFE).write_bytes(struct.pack("<Q", length) + content[8:])
    megabytes, told = memory_of(loads_not, folder)
    assert (told, megabytes < 100) == ("done", True)


def loads_not(folder: Path) -> None:
    assert not loads(folder)


HUGE = {"vocab_size": 2**20, "d_model": 2**20, "encoder_ffn_dim": 2**20, "decoder_ffn_dim": 2**20}


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_configuration_of_a_model(whole: Path, tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = beside(whole, tmp_path_factory)
    (folder / CONFIG).write_bytes(data.draw(mutated_json((whole / CONFIG).read_bytes())))
    loads(folder)


@pytest.mark.parametrize("sizes", [HUGE, {"encoder_layers": 256, **HUGE}, {"d_model": 10**30}, {"vocab_size": 2**62}])
def test_absurd_sizes_take_no_memory(whole: Path, tmp_path_factory: Any, sizes: dict[str, int]) -> None:
    folder = beside(whole, tmp_path_factory)
    config = json.loads((folder / CONFIG).read_bytes())
    config["text_config"] |= sizes
    (folder / CONFIG).write_text(json.dumps(config))
    megabytes, told = memory_of(loads_not, folder)
    assert (told, megabytes < 300) == ("done", True)


@given(name=st.sampled_from(ODD))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@example(name="../model.safetensors")
@example(name="/etc/passwd")
def test_an_index_leads_nowhere_else(whole: Path, tmp_path_factory: Any, name: Any) -> None:
    folder = tmp_path_factory.mktemp("index") / "inside"
    folder.mkdir()
    shutil.copy(whole / CONFIG, folder / CONFIG)
    shutil.copy(whole / SAFE, folder.parent / SAFE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.language_model.shared.weight": name}}))
    loads_not(folder)


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_runs_nothing(whole: Path, tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    shutil.copy(whole / CONFIG, tmp_path / CONFIG)
    (tmp_path / PICKLE).write_bytes(pickle.dumps({"a": Code(ran)}, protocol))
    loads_not(tmp_path)
    file = io.BytesIO()
    torch.save({"a": Code(ran)}, file)
    (tmp_path / PICKLE).write_bytes(file.getvalue())
    loads_not(tmp_path)
    assert read_config(tmp_path) and not ran.exists()
