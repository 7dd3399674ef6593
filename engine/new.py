"""Skeletons of third parties' specialists and filters: a package that works, with its test, in a folder of its own."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from string import Template

from engine.components import Group, installed
from engine.errors import ConfigError
from engine.records import ALT, HUMAN, MERGE

KINDS = ("specialist", "filter")
SKELETONS = Path(__file__).with_name("skeletons")
SUFFIX = ".in"  # so that no tool takes a template for code
TAKEN = (HUMAN, ALT, MERGE, "cascade")  # what signs annotations and decisions and is no component


def write(kind: str, name: str, to: Path | None = None) -> tuple[list[Path], list[str]]:
    """Writes the skeleton called `name` into a new or empty folder, ./NAME if `to` is None; gives the files and the
    commands to go on with. ConfigError for a name that can't be one or is taken, and for a folder with something in it.
    """
    if kind not in KINDS:
        raise ConfigError(f"engine new {kind}: expected {' or '.join(KINDS)}")
    module = _checked(kind, name)
    folder = to or Path(name)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigError(
            f"{folder} is there already and not an empty folder; nothing is overwritten. Give another --to"
        )
    commands = _commands(kind, module, folder)
    words = {
        "module": module,
        "distribution": module.replace("_", "-"),
        "Class": _class_of(module),
        "commands": "\n".join(_commands(kind, module, Path("."))),
    }
    return [_write(path, folder, words) for path in sorted((SKELETONS / kind).iterdir())], commands


def _checked(kind: str, name: str) -> str:
    """The module's name. Raises ConfigError with what is wrong with `name`."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", module) or len(module) > 60 or keyword.iskeyword(module):
        raise ConfigError(
            f"{name!r} can't be the name of a component: expected small letters, digits and single _ or -, beginning "
            "with a letter, and no word of Python's, such as bright_spot"
        )
    groups: tuple[Group, ...] = ("specialists", "filters")  # which can't share a name in a pipeline
    for group in groups:
        if module in installed(group):
            raise ConfigError(f"{name!r} is taken: one of the installed {group} is called so; choose another name")
    words = re.findall(r"\w+", (SKELETONS / kind / f"module.py{SUFFIX}").read_text(encoding="utf-8"))
    if module in TAKEN or _class_of(module) in words or find_spec(module) or _is_distribution(module):
        raise ConfigError(f"{name!r} is taken, by a package or the engine itself; choose another name")
    return module


def _class_of(module: str) -> str:
    return "".join(part.capitalize() for part in module.split("_"))


def _is_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _commands(kind: str, module: str, folder: Path) -> list[str]:
    where, setting = shlex.quote(str(folder)), shlex.quote(f"{kind}s.{module}={{}}")
    return [
        f"pip install --editable {where} pytest",
        f"python -m pytest {where}",
        f"engine run --limit 3 --out out-{module} --set {setting}",
    ]


def _write(template: Path, folder: Path, words: Mapping[str, str]) -> Path:
    path = folder / template.name.removesuffix(SUFFIX).replace("module", words["module"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, "x", encoding="utf-8") as file:
        file.write(Template(template.read_text(encoding="utf-8")).substitute(words))
    return path
