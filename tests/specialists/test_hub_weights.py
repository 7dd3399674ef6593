"""Where weights come from, under which licence, and what is turned down; batches that memory does not hold."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hub import hub
from tiny.contrastives import siglip
from tiny.detectors import conditional_detr, rt_detr_v2
from transformers import AutoModel

from engine.errors import ConfigError
from specialists.hub.detector import Detr
from specialists.hub.specialist import Batches
from specialists.hub.weights import Weights, licence_in

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rt_detr_v2(tmp_path / "model")


def test_a_folder_is_named_in_full_and_its_files_are_the_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    built = Detr(model="model")
    assert built.model == str(folder), "workers run in another folder"
    before = built.version
    assert before == pickle.loads(pickle.dumps(built)).version
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    os.utime(config, ns=(1, 1))
    assert built.version != before


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", "specialists.d: `model` is empty"),
        ("./nowhere", "specialists.d: ./nowhere: no such folder"),
        ("nobody", "specialists.d: nobody: no such folder"),
    ],
)
def test_no_such_model(model: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = Detr(name="d", model=model).version
    assert words in str(caught.value)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no \*\.safetensors"):
        Detr(model=str(folder)).setup()


def test_another_kind_of_model_is_no_detector(folder: Path, tmp_path: Path) -> None:
    """Its missing tensors would be random numbers, and its boxes noise with scores."""
    other = conditional_detr(tmp_path / "other")
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ConfigError, match=r"lacks \d+ of the tensors of RTDetrV2ForObjectDetection"):
        Detr(model=str(folder)).setup()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ConfigError, match="is of the family bert; expected one of rt_detr, "):
        Detr(model=str(folder)).setup()
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be loaded"):
        Detr(model=str(folder)).setup()


class Trap:
    def __reduce__(self) -> object:
        return os.system, ("touch trapped",)


def test_code_in_a_checkpoint_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"can.t be loaded"):
        Detr(model=str(folder)).setup()
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\nlicense: [mit, bsd-3-clause]\n---", "mit, bsd-3-clause"),
        ("---\nlicense: other\nlicense_name: sam-license\n---\n", "sam-license"),
        ("# A model\nlicense: mit", "not stated"),
        ("---\nlicense: !!python/object:os.system x\n---\n", "not stated"),
        ("---\n- a\n---\n", "not stated"),
        ("---\nlicense: {a: b}\n---\n", "not stated"),
        (None, "not stated"),
    ],
)
def test_the_licence_is_what_the_card_states(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence


def test_a_licence_that_may_forbid_commercial_use_has_to_be_accepted(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(ConfigError) as caught:
        _ = Detr(name="d", model=str(folder)).version
    assert "licensed under cc-by-nc-4.0" in str(caught.value)
    assert "specialists.d.accept_licence=true" in str(caught.value)
    accepted = Detr(model=str(folder), accept_licence=True)
    assert accepted.version
    assert accepted.licence == "cc-by-nc-4.0"


def test_a_known_licence_is_looked_at_before_anything_is_fetched() -> None:
    with hub() as server:
        with pytest.raises(ConfigError, match="may forbid commercial use"):
            _ = Weights("d", "someone/tiny", {"someone/tiny": "CC BY-NC 4.0"}).folder
        assert not server.asked


FETCH = """
import sys
from specialists.hub.weights import Weights
from engine.errors import ConfigError
try:
    print(sorted(path.name for path, _ in Weights("d", sys.argv[1], {}).files()))
except ConfigError as error:
    print(error)
"""


def fetching(cache: Path, model: str, **environment: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    path = {"PYTHONPATH": str(ROOT), "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, model], env=kept | path | environment, stdout=subprocess.PIPE, text=True
    )


def test_workers_of_a_machine_fetch_a_file_once_and_errors_name_the_command(folder: Path, tmp_path: Path) -> None:
    with hub() as server:
        server.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"training.pt": b"not asked for"}
        at, cache = f"http://127.0.0.1:{server.server_port}", tmp_path / "cache"
        both = [fetching(cache, "someone/tiny", HF_ENDPOINT=at) for _ in range(2)]
        said = [one.communicate(timeout=120)[0] for one in both]
        assert said[0] == said[1] == "['config.json', 'model.safetensors', 'preprocessor_config.json']\n"
        fetched = [path for path in server.got if path.endswith("model.safetensors")]
        assert len(fetched) == 1
        assert not any("training.pt" in path for path in server.got)
        gated = fetching(cache, "some/secret", HF_ENDPOINT=at).communicate(timeout=120)[0]
    assert "hf auth login" in gated
    assert "hf download some/secret" in gated
    offline = fetching(cache, "some/other", HF_HUB_OFFLINE="1").communicate(timeout=120)[0]
    assert "HF_HUB_OFFLINE is set" in offline
    assert "hf download some/other" in offline


def test_attention_is_pytorchs_own(tmp_path: Path) -> None:
    model = Weights("d", str(siglip(tmp_path)), {}).load(AutoModel, "auto")
    assert model.vision_model.config._attn_implementation == "sdpa"
    assert model.dtype == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    assert Weights("d", str(tmp_path), {}).load(AutoModel, "bfloat16").dtype == torch.bfloat16


def test_specialists_that_name_the_same_model_share_it(folder: Path) -> None:
    one, other, third = Detr(model=str(folder)), Detr(name="b", model=str(folder)), Detr(model=str(folder))
    one.setup()
    other.setup()
    assert one._model is other._model
    os.utime(folder / "model.safetensors", ns=(1, 1))
    third.setup()
    assert third._model is not one._model, "the files may be others"


def test_as_many_go_through_together_as_memory_holds() -> None:
    sizes: list[int] = []

    def run(some: Sequence[int]) -> list[int]:
        sizes.append(len(some))
        torch.empty(len(some) - 3 if len(some) > 3 else 0, 2**50, dtype=torch.uint8)  # a pebibyte for each beyond three
        return [2 * one for one in some]

    batches = Batches(10)
    assert batches.run(run, range(9)) == [2 * n for n in range(9)]
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    sizes.clear()
    assert batches.run(run, range(4)) == [0, 2, 4, 6]
    assert sizes == [2, 2], "it is remembered"


def test_what_one_alone_has_no_memory_for_is_raised_and_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def large(some: Sequence[int]) -> list[int]:
        tried.append(len(some))
        torch.empty(2**50, dtype=torch.uint8)
        return []

    with pytest.raises(RuntimeError, match="allocate memory"):
        Batches(4).run(large, [1, 2, 3, 4])
    assert tried == [4, 2, 1]

    def wrong(some: Sequence[int]) -> list[int]:
        tried.append(0)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4).run(wrong, [1, 2])
    assert tried[3:] == [0]
    with pytest.raises(ValueError, match="1 answers for 2 inputs"):
        Batches(4).run(lambda some: [1], [1, 2])
