"""What a repair removes the next run makes again, as if nothing had happened."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Call, command, files, run

from engine.errors import OutputError
from engine.layout import Output, ShardId
from engine.lock import run_lock
from engine.verify import Verdict, verified


@pytest.fixture
def damaged(undisturbed: Path, tmp_path: Path) -> Output:
    """A copy of the undisturbed run that was damaged in six ways, each of another shard."""
    output = Output(Path(shutil.copytree(undisturbed, tmp_path / "damaged")))
    round_ = output.round(0)
    for path in (round_.annotations(ShardId(0, 0)), output.items(ShardId(0, 6))):
        data = bytearray(path.read_bytes())
        data[(len(data) - int.from_bytes(data[-8:-4], "little")) // 2] ^= 16
        path.write_bytes(data)
    round_.decisions(ShardId(0, 1)).unlink()
    one, other = (round_.annotations(ShardId(0, number)) for number in (2, 3))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    cut = round_.decisions(ShardId(0, 4))
    cut.write_bytes(cut.read_bytes()[:100])
    (round_.folder / f".sources.json.aside-{'a' * 32}").write_text("{")
    shutil.copy(round_.decisions(ShardId(0, 5)), round_.decisions(ShardId(0, 99)))
    return output


def same(out: Path) -> dict[str, bytes]:
    """Every file that says something of the images: how and when it went is the run's own."""
    return {name: data for name, data in files(out).items() if "progress.json" not in name and "logs/" not in name}


def test_a_sound_output_is_said_to_be(call: Call, undisturbed: Path) -> None:
    code, said = call("verify", str(undisturbed), "--images", "all")
    assert (code, "It is sound." in said) == (0, True), said


def test_no_dataset_is_wrong_usage(call: Call, tmp_path: Path) -> None:
    assert call("verify", str(tmp_path))[0] == 2
    assert call("status", str(tmp_path))[0] == 2


def test_a_repair_is_only_said_until_it_is_asked_for(call: Call, damaged: Output) -> None:
    before = files(damaged.root)
    code, said = call("verify", str(damaged.root), "--repair")
    assert code == 1
    for words in ("damaged", "other_images", "leftover", "beyond", "To be removed:", "--repair --yes"):
        assert words in said, said
    assert files(damaged.root) == before
    code, said = call("verify", str(damaged.root), "--yes")
    assert (code, "--repair" in said) == (2, True)


def test_a_repair_is_planned_and_done_under_the_lock(
    call: Call, damaged: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a run could make anew what is then removed."""
    asked = []

    def verified_alone(output: Output, **options: Any) -> Verdict:
        with pytest.raises(OutputError, match="in use"), run_lock(output.root):
            pass
        asked.append(options["writing"])
        return verified(output, **options)

    before = files(damaged.root)
    with run_lock(damaged.root):
        code, said = call("verify", str(damaged.root), "--repair", "--yes")
    assert (code, "in use by another run" in said) == (2, True), said
    assert files(damaged.root) == before
    assert call("verify", str(tmp_path / "nothing"), "--repair", "--yes")[0] == 2
    assert not (tmp_path / "nothing").exists()
    monkeypatch.setattr("engine.cli.verify.verified", verified_alone)
    code, said = call("verify", str(damaged.root), "--repair", "--yes")
    assert (code, asked, "Removed:" in said) == (1, [False], True), said


@pytest.mark.parametrize("kind", ["damaged", "missing"])
def test_a_manifest_is_written_anew(call: Call, undisturbed: Path, tmp_path: Path, kind: str) -> None:
    output = Output(Path(shutil.copytree(undisturbed, tmp_path / "damaged")))
    output.manifest.write_text("{")
    if kind == "missing":
        output.manifest.unlink()
    for arguments in (("run", "--out", str(output.root)), ("show", str(output.root), "00 coffee.png")):
        code, said = call(*arguments)
        told = (f"{output.manifest} is {kind}" in said, f"engine verify {output.root} --repair --yes" in said)
        assert (code, *told) == (2, True, True), said
    code, said = call("verify", str(output.root), "--repair")
    told = (said.startswith(f"{kind} 1"), "To be written anew:" in said, "lost" in said)
    assert (code, *told) == (1, True, True, False), said
    assert call("verify", str(output.root), "--repair", "--yes")[0] == 1
    assert files(output.root) == files(undisturbed)


def test_after_a_manifest_all_else_is_looked_at(call: Call, undisturbed: Path, tmp_path: Path) -> None:
    output = Output(Path(shutil.copytree(undisturbed, tmp_path / "damaged")))
    output.manifest.write_text("{")
    (path := output.items(ShardId(0, 7))).write_bytes(path.read_bytes()[:99])
    repair = ("verify", str(output.root), "--repair", "--yes")
    code, said = call(*repair)
    assert (code, f"To look at all else: engine verify {output.root}" in said) == (1, True), said
    code, said = call(*repair)
    told = (said.startswith("damaged 1"), f"To make it again: engine run --out {output.root}" in said)
    assert (code, *told, path.exists()) == (1, True, True, False), said


@pytest.mark.parametrize("manifest", ["{", None], ids=["damaged", "gone"])
def test_why_a_manifest_can_not_be_written_anew_is_said(
    call: Call, undisturbed: Path, tmp_path: Path, manifest: str | None
) -> None:
    """And what to do, which works."""
    output = Output(Path(shutil.copytree(undisturbed, tmp_path / "damaged")))
    output.manifest.write_text(manifest) if manifest else output.manifest.unlink()
    for path in output.items(ShardId(0, 0)).parent.iterdir():
        path.write_bytes(path.read_bytes()[:99])
    before = files(output.root)
    for more in ((), ("--yes",)):
        code, said = call("verify", str(output.root), "--repair", *more)
        told = ("nothing that a repair could remove" in said, "would be lost" in said, "no shard that is whole" in said)
        assert (code, *told, "engine run --overwrite" in said) == (1, True, True, True, True), said
        assert "To make it again" not in said
    assert files(output.root) == before


@pytest.mark.slow
def test_after_repair_a_run_makes_the_same_again(call: Call, damaged: Output, undisturbed: Path) -> None:
    code, _ = call("verify", str(damaged.root), "--repair", "--yes")
    assert code == 1
    again = run(*command(damaged.root))
    assert again.returncode == 0, again.stdout
    assert same(damaged.root) == same(undisturbed)
    code, said = call("verify", str(damaged.root))
    assert code == 0, said
