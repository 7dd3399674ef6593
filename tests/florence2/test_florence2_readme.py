"""What florence2/README.md shows works as it stands there, in a folder that has what its words name."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from florence import small_tokens
from PIL import Image

from florence2 import Florence2, Florence2Config, Processor
from florence2.__main__ import main

PACKAGE = Path(__file__).parents[2] / "florence2"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model where a hub's id leads to: a folder of that name comes first."""
    torch.manual_seed(0)
    config = Florence2Config.preset("nano", small_tokens().size)
    config = replace(config, text=replace(config.text, init_std=0.1, max_position_embeddings=80))
    Florence2(config).save_pretrained(tmp_path / "microsoft/Florence-2-base")
    Processor.for_model(config, small_tokens(), (96, 96)).save_pretrained(tmp_path / "microsoft/Florence-2-base")
    for name, photo in (("photo.jpg", "chelsea.png"), ("other.jpg", "coffee.png")):
        Image.open(photos / photo).convert("RGB").resize((112, 84)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_runs_after_those_before_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    losses: list[float] = []
    loss = Florence2.loss

    def watched(*arguments: Any) -> torch.Tensor:
        value = loss(*arguments)
        losses.append(value.item())
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Florence2, "loss", watched)
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("CAPTION", "OD", "OPEN_VOCABULARY_DETECTION", "REGION_TO_CATEGORY"))
    assert "tensor([-" in printed  # log-likelihoods
    assert [names[f"c{n}"].shape[2:] for n in (2, 3, 4, 5)] == [(24, 24), (12, 12), (6, 6), (6, 6)]
    assert len(losses) == 20
    assert losses[-1] < 0.8 * losses[0]
    tuned = Florence2.from_pretrained(here / "mine")
    untuned = Florence2.from_pretrained("microsoft/Florence-2-base").state_dict()
    assert not torch.equal(tuned.state_dict()["language_model.shared.weight"], untuned["language_model.shared.weight"])
    assert Processor.from_pretrained(here / "mine").tokens.loc_start == small_tokens().loc_start
    assert names["model"].config.text.vocab_size >= names["tokens"].size
    assert names["processor"].image_tokens == 37


def test_the_command_line_does_what_it_says(here: Path) -> None:
    (block,) = blocks("sh")
    python, *words = shlex.split(block)
    assert [python, *words[:2]] == ["python", "-m", "florence2"]
    assert main(words[2:]) == 0
    assert Image.open(here / "seen.png").width == 1024


def test_the_table_names_every_file_and_only_what_is_there() -> None:
    rows = [row.split("|")[1:4] for row in README.splitlines() if re.match(r"\| `\w+\.py`", row)]
    named = [name for files, _, _ in rows for name in re.findall(r"`(\w+)\.py`", files)]
    assert sorted(named) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
    for files, _, unusual in rows:
        modules = [import_module(f"florence2.{name}") for name in re.findall(r"`(\w+)\.py`", files)]
        for name in re.findall(r"\(`(\w+)`\)", unusual):
            assert any(hasattr(module, name) for module in modules), f"{files}: {name}"


def test_what_a_copied_folder_needs() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {requirement.split(";")[0] for requirement in project["dependencies"]}
    (sentence,) = re.findall(r"It needs Python (>= [\d.]+), (.*?), and nothing else", README, re.DOTALL)
    needed = [name.replace(" ", "") for name in re.split(r",\s+|\s+and\s+", sentence[1])]
    assert sentence[0].replace(" ", "") == project["requires-python"]
    assert len(needed) == 6 and set(needed) <= allowed


def test_the_size_of_the_model_from_scratch() -> None:
    with torch.device("meta"):
        model = Florence2(Florence2Config.preset("nano", 3000))
    assert "a model of six million parameters" in README
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == 6
