"""What others wrote is shown on terminals, and never obeyed by them."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from command import ENGINE, run
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from engine.cli.terminal import Terminal

# A title, a clipboard, a colour in 8-bit controls, a line over another one, the other direction, half a character.
HOSTILE = "a\x1b]0;owned\x07b\x1b]52;c;bHM=\x07\x9b31mc\x08\rd\u202eelif\u2066\ud800\x7f"
OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?=\x1b)")  # styles and the cursor, as Rich writes them
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def obeyed(written: str) -> list[str]:
    return OBEYED.findall(OWN.sub("", written))


def test_whatever_is_printed_and_however() -> None:
    file = StringIO()
    console = Terminal(file=file, force_terminal=True, width=100)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, style="red")
    for thing in (HOSTILE, Text(HOSTILE), Text.assemble(("Error: ", "bold red"), HOSTILE), table):
        console.print(thing, markup=False, soft_wrap=True)
    console.out(HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        console.print_exception()
    with Progress(console=console) as progress:
        progress.update(progress.add_task(escape(HOSTILE), total=2), advance=1)
        progress.console.print(f"! {HOSTILE}", markup=False)
    assert file.getvalue().count("owned") >= 8
    assert obeyed(file.getvalue()) == []


def test_errors_of_the_command_line(tmp_path: Path) -> None:
    content = r'{ingest: {"\e]0;owned\a": 1, images: ["\e[2J", 1]}, "\e[2J\u202e": 1, run: {workers: "\x9b31m"}}'
    (tmp_path / "c.yaml").write_text(content)
    result = run(ENGINE, "run", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out"), "--dry-run")
    assert result.returncode == 2, result.stdout
    assert "owned" in result.stdout
    assert obeyed(result.stdout) == []
