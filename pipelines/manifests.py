"""What the manifests of rounds say: which round is the one to use, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.atomic import is_there, names_in, read_json, there
from engine.errors import OutputError
from engine.folds import ALL
from engine.layout import Output, Round


def check_accepted(output: Output, number: int) -> None:
    """Raises OutputError where a round was refused: nothing is built on it."""
    path = output.round(number).manifest
    if is_there(path) and (manifest := read_json(path))["outcome"] == "refused":
        raise OutputError(
            f"round {number} of {output.root} was refused: {manifest['verdict']['reasons'][0]}. Round {number - 1} is "
            f"the one to use; to try again in another way, remove {output.round(number).folder}"
        )


def bound_of(round_: Round) -> int:
    """Below which rank images are in a round; see `engine.folds.Choice`."""
    return int(read_json(round_.choice)["bound"], 16) if is_there(round_.choice) else ALL


def in_models(round_: Round, name: str) -> list[Path]:
    """The files of that name in the round's models: those of folds, and the one of all."""
    model = round_.model()
    folders = [*(model / fold for fold in names_in(model) if fold.startswith("fold-")), model]
    found = there(folder / name for folder in folders)
    return [folder / name for folder in folders if folder / name in found]


def withheld_by(output: Output, number: int) -> frozenset[bytes] | None:
    """The images that none of the models was trained on to which a round goes back; None if none was trained here."""
    kept: frozenset[bytes] | None = None
    for before in range(number):
        for path in in_models(output.round(before), "made_by.json"):
            withheld = frozenset(map(bytes.fromhex, read_json(path).get("withheld", ())))
            kept = withheld if kept is None else kept & withheld
    return kept


def print_verdict(manifest: dict[str, Any], console: Console) -> None:
    """The outcome, why, and the measures before and after."""
    verdict, number = manifest["verdict"], manifest["round"]
    style = {"accepted": "green", "refused": "red", "unverified": "yellow"}[verdict["outcome"]]
    line = Text.assemble(f"round {number}: ", (verdict["outcome"], style))
    if verdict["outcome"] == "refused":
        line.append(f"; round {number - 1} stays the one to use")
    console.print(line)
    for reason in verdict["reasons"]:
        console.print(Text(f"  {reason}"), soft_wrap=True)
    if not verdict["comparisons"]:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (("measure", "left"), ("labelled", "right"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("difference", justify="right")
    for one in verdict["comparisons"]:
        values = ["" if one[key] is None else f"{one[key]:.3f}" for key in ("before", "after")]
        between = one["interval"]
        told = "" if between is None else f"{between['low']:+.3f} to {between['high']:+.3f}"
        table.add_row(Text(one["name"]), str(one["instances"]), *values, told)
    console.print(table)
