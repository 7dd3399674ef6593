"""A cell of the table: a stage and a fault, and what was lost, doubled and done again. As a program it puts the rows
that runs of `tests/chaos` left (`--table FILE`) into the table of a page, in the place of those that it has of the same
cells: docs/faults.md, FILE, ..."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.faults import FAULTS, VICTIM, Case
from chaos.memory import Peaks
from chaos.nodes import raylet_of_several_killed
from chaos.stages import BROKEN, STAGES, Rows, is_same
from chaos.stores import STORE_FAULTS, Remote

ENDS = ("Error:", "Stopped.")
LONGEST = 240  # characters of a message
RUNS = 4  # after a fault, until the stage ends with code 0
ALL_FAULTS = FAULTS | {"raylet of several killed": raylet_of_several_killed} | STORE_FAULTS


@dataclass(frozen=True)
class Undisturbed:
    """The output folder that a stage begins from, what becomes of it if nothing befalls it, what that takes, and what
    is told of it all the same."""

    base: Path
    rows: Rows
    peaks: Peaks
    told: frozenset[str]


@dataclass(frozen=True)
class Cell:
    """`changed` are rows that are there and differ from an undisturbed run's, `quarantined` those that its first whole
    run put aside, and `again` the images, or steps, that were done again. `seconds` are of all its runs."""

    stage: str
    fault: str
    lost: int
    doubled: int
    changed: int
    quarantined: int
    again: int
    seconds: float
    peaks: Peaks
    codes: tuple[int, ...]
    said: str

    def __str__(self) -> str:
        figures = (self.lost, self.doubled, self.changed, self.quarantined, self.again, f"{self.seconds:.0f}")
        codes, said = ", ".join(map(str, self.codes)), self.said.removeprefix("! ") or "-"
        return f"| {self.fault} | {self.stage} | {' | '.join(map(str, figures))} | {self.peaks} | {codes} | {said} |"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Cell:
        said = json.loads(line)
        return cls(**{**said, "peaks": Peaks(**said["peaks"]), "codes": tuple(said["codes"])})


HEAD = """| fault | stage | lost | doubled | changed | quarantined | again | seconds | MB | codes | what it said |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|"""


def cell(stage: str, fault: str, undisturbed: Undisturbed, folder: Path, remote: Remote | None) -> Cell:
    """Lets the fault befall the stage; goes on until it ends, as a person would; and tries again what is aside."""
    case = Case(STAGES[stage], Path(shutil.copytree(undisturbed.base, folder / "out")), folder, remote)
    began = time.monotonic()
    ALL_FAULTS[fault](case)
    for _ in range(RUNS):
        if case.codes and case.codes[-1] == 0:
            break
        case.run()
    assert case.codes[-1] == 0, case.said
    case.fetch()
    aside = case.quarantined() - BROKEN if case.stage.has_quarantine else len(unlearned(case))
    if aside and case.stage.has_quarantine:
        case.retry()
        case.fetch()
    seconds = time.monotonic() - began
    rows, asked = case.stage.rows(case.out), undisturbed.rows
    return Cell(
        stage,
        fault,
        lost=len(asked.keys() - rows.keys()),
        doubled=len(rows.keys() - asked.keys()),
        changed=sum(not is_same(rows[key], asked[key]) for key in rows.keys() & asked.keys()),
        quarantined=aside,
        again=again(case),
        seconds=seconds,
        peaks=case.peaks,
        codes=tuple(case.codes),
        said=anonymous(message([line for line in case.told if line not in undisturbed.told])),
    )


def again(case: Case) -> int:
    """Images that were read more than once, or of a training steps that were done so; but for whom the fault befell."""
    seen = Counter(case.seen.read_text().splitlines()) if case.seen.exists() else Counter()
    steps = {name for name in seen if name.startswith("step ")}
    return sum(seen[name] - 1 for name in steps or seen if Path(name).name != VICTIM[case.stage.name])


def unlearned(case: Case) -> set[str]:
    """What is said of images that a training goes on without."""
    return {line for line in case.told if line.startswith("! not learned")}


def message(told: Sequence[str]) -> str:
    """The last line that says how it ended, or what became of an image; the last one if there is none."""
    ends = [line for line in told if line.startswith(ENDS) or "goes to quarantine" in line]
    return next(reversed(ends or told), "")


def anonymous(said: str) -> str:
    """As it can be shown: without the names of this machine and its folders."""
    said = re.sub(r"\(process \d+ on \S+ since [^)]*\)", "(process ... on ... since ...)", said)
    said = re.sub(r"http://127\.0\.0\.1:\d+/?\S*", "http://...", said)
    said = re.sub(r"/\S*/(?=engine/|specialists/|pipelines/|tests/|pictures/)", "", said).replace("|", "\\|")
    return said if len(said) <= LONGEST else said[: LONGEST - 4] + " ..."


def table(before: str, lines: Iterable[str]) -> str:
    """Of each cell its last row, or the one in the table before, in the order of faults and stages."""
    rows = {key(row): row for row in before.splitlines() if row}
    rows |= {key(row): row for row in (str(Cell.from_json(line)) for line in lines)}
    order = ((fault, stage) for fault in ALL_FAULTS for stage in STAGES)
    return "\n".join([HEAD, *(rows[cell] for cell in order if cell in rows)])


def key(row: str) -> tuple[str, str]:
    _, fault, stage, *_ = (column.strip() for column in row.split("|"))
    return fault, stage


if __name__ == "__main__":
    page, *files = map(Path, sys.argv[1:])
    above, _, rest = page.read_text().partition(HEAD)
    before, _, below = rest.lstrip("\n").partition("\n\n")
    lines = (line for path in files for line in path.read_text().splitlines())
    page.write_text(f"{above}{table(before, lines)}\n\n{below}")
