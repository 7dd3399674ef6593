"""What the cells of the table share; the table itself is printed at the end (`make chaos` has all of it)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.faults import Case
from chaos.stages import STAGES, images, is_same
from chaos.stores import OUT, Remote
from chaos.table import HEAD, Cell, Undisturbed
from s3 import Bucket, Proxy, Server, environment, faulty, s3_server

CELLS: list[Cell] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="file that gains a line of JSON for each cell")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CELLS:
        terminalreporter.write_line("\n".join([HEAD, *map(str, CELLS)]))


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Callable[[Cell], None]:
    """Takes what came of a cell."""

    def tell(cell: Cell) -> None:
        CELLS.append(cell)
        if path := request.config.getoption("--table", None):
            with path.open("a") as file:
                file.write(cell.to_json() + "\n")

    return tell


@dataclass(frozen=True)
class Store:
    server: Server
    proxy: Proxy
    pictures: str

    def holding(self, out: Path) -> Remote:
        """A bucket of its own with this output folder."""
        bucket = self.server.bucket()
        bucket.upload(out, OUT)
        return Remote(bucket, self.proxy)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return images(tmp_path_factory.mktemp("pictures") / "images", photos)


@pytest.fixture(scope="session")
def store(pictures: Path) -> Iterator[Store]:
    """With the images, too, on it."""
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
        bucket: Bucket = server.bucket()
        bucket.upload(pictures, "images")
        yield Store(server, proxy, f"{bucket.uri}/images")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Callable[[str, bool], Undisturbed]:
    """A stage, if nothing befalls it; or if one of its images is a file that can't be read."""
    made: dict[tuple[str, bool], Undisturbed] = {}
    bases: dict[str, Path] = {}

    def of(name: str, without_one: bool = False) -> Undisturbed:
        if name not in bases:
            bases[name] = STAGES[name].base(tmp_path_factory.mktemp(name), str(pictures))
        if (name, without_one) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-undisturbed")
            made[name, without_one] = observed(name, bases[name], folder, trouble="unreadable" if without_one else "")
        return made[name, without_one]

    return of


@pytest.fixture(scope="session")
def undisturbed_there(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Callable[[str], Undisturbed]:
    """The same of images on the store: the rows are of a run on this machine, and the memory of one there."""
    made: dict[str, Undisturbed] = {}

    def of(name: str) -> Undisturbed:
        if name not in made:
            base = STAGES[name].base(tmp_path_factory.mktemp(f"{name}-store"), store.pictures)
            here = observed(name, base, tmp_path_factory.mktemp(f"{name}-here"))
            there = observed(name, base, tmp_path_factory.mktemp(f"{name}-there"), store.holding(base))
            assert there.rows.keys() == here.rows.keys()
            assert all(is_same(there.rows[key], row) for key, row in here.rows.items())
            made[name] = there
        return made[name]

    return of


def observed(name: str, base: Path, folder: Path, remote: Remote | None = None, trouble: str = "") -> Undisturbed:
    case = Case(STAGES[name], Path(shutil.copytree(base, folder / "out")), folder, remote)
    if trouble:
        case.trouble(trouble)
    assert case.run() == 0, case.said
    case.fetch()
    return Undisturbed(base, case.stage.rows(case.out), case.peaks, frozenset(case.told))
