"""The pages around the data: templates, style sheet, script, and the policy that lets a browser run nothing else.

What is shown comes from files that nobody vouches for: names, captions, labels. Jinja escapes all of it, the policy
allows one script and one style sheet by their hashes, and no data goes into either. Pages load nothing but pictures
that lie beside them, and a page alone not even that.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.report.disputes import CLOSE, SAME_PLACE, round_of
from engine.report.gallery import page_name
from engine.report.pictures import Picture
from engine.untrusted import printable

HERE = Path(__file__).parent
KINDS = (
    ("object", "objects", True),
    ("text", "texts in the image", True),
    ("mask", "masks", True),
    ("proposal", "proposals", False),
)
DISPUTED_FIRST = (
    "The most disputed first. Disputed are, proposals aside, objects that independent sources call differently at one "
    f"place (IoU of {SAME_PLACE:g} and more), what fell by less than {CLOSE:.0%} of a threshold, and what stood in one "
    "round and was overruled in a later one."
)
# Marks that turn the direction of a text, where no element can isolate it.
TURNING = dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


@dataclass(frozen=True)
class Switch:
    """A checkbox, which hides what is of the class that the style sheet has for its id."""

    id: str
    name: str
    on: bool


@dataclass(frozen=True)
class Group:
    """Switches of one sort; `before` are how many there are before them."""

    name: str
    before: int
    switches: tuple[Switch, ...]


@dataclass(frozen=True)
class Look:
    """What all pages of a report share. `sources` are by key, with a `number`, and whether something of theirs is
    `drawn`; pictures are inside the page, or files `beside` it."""

    root: Path
    round: int
    sources: Mapping[str, Mapping[str, Any]]
    beside: bool
    total: int

    @cached_property
    def switches(self) -> tuple[Group, ...]:
        drawn = [(name, about["number"]) for name, about in self.sources.items() if about["drawn"]]
        several, rounds = self.round > 0, range(self.round + 1)
        groups = {
            "Kinds": [Switch(f"show-{id_}", name, on) for id_, name, on in KINDS],
            "Fallen": [Switch(f"fell-{n}", f"in round {n}" if several else "what fell", False) for n in rounds],
            "By": [Switch(f"source-{number}", name, True) for name, number in drawn],
            "Made in": [Switch(f"round-{n}", f"round {n}", True) for n in rounds] if several else [],
        }
        made: list[Group] = []
        for name, switches in groups.items():
            if switches:
                made.append(Group(name, sum(len(group.switches) for group in made), tuple(switches)))
        return tuple(made)

    @cached_property
    def _shared(self) -> dict[str, Any]:
        style, script = self._style, (HERE / "report.js").read_text()
        return {
            "style": Markup(style),
            "script": Markup(script),
            "policy": _policy(style, script, self.beside),
            "switches": self.switches,
            "sources": self.sources,
            "last": self.round,
            "round": self.round,
            "root": self.root,
            "total": self.total,
            "page_name": page_name,
            "disputed_first": DISPUTED_FIRST,
            "prefix": "",
        }

    @cached_property
    def _style(self) -> str:
        """The style sheet, with a rule for each switch. In it sources are numbers: their names are data."""
        ids = [switch.id for group in self.switches for switch in group.switches]
        rules = [f"html:has(#{id_}:not(:checked)) .{id_.removeprefix('show-')} {{ display: none; }}" for id_ in ids]
        return "\n".join([(HERE / "report.css").read_text(), *rules, ""])

    def page(self, template: str, **data: Any) -> str:
        return _environment().get_template(f"{template}.html.jinja").render(self._shared | data)

    def card(self, picture: Picture, prefix: str = "") -> str:
        """The card of a picture, on a page from which one gets by `prefix` to the folder that pictures are beside."""
        return (
            _environment().get_template("card.html.jinja").render(self._shared | {"picture": picture, "prefix": prefix})
        )


def visible(value: Any) -> Any:
    """A value as the page shows it: characters that HTML has no place for are replaced, one by one."""
    if isinstance(value, Markup) or not isinstance(value, str | Path):
        return value
    return printable(str(value))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,}",
        "measured": _measured,
        "beside": _beside,
        "score": _score,
        "mean": _mean,
        "loss": _loss,
        "percent": lambda value: f"{value:.2f}%",
        "round_of": round_of,
        "straight": lambda text: text.translate(TURNING),
    }
    return environment


def _measured(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _beside(value: float | None, threshold: float | None) -> str:
    """A value, with as many digits as tell it from what it is held against."""
    if value is None or threshold is None or value == threshold:
        return _measured(value)
    told = (f"{value:.{digits}g}" for digits in range(3, 8))
    return next((one for one in told if one != _measured(threshold)), f"{value:.8g}")


def _score(value: float | None) -> str:
    return _measured(value) if value is None or abs(value) > 99 else f"{value:.2f}"


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _loss(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.1 <= abs(value) < 10_000 or value == 0 else f"{value:.3g}"


def _policy(style: str, script: str, beside: bool) -> str:
    """Style attributes are allowed: those of the page hold numbers alone."""
    pictures = "data: 'self'" if beside else "data:"
    return (
        f"default-src 'none'; img-src {pictures}; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(script)}; style-src 'unsafe-inline'; style-src-elem {_hash(style)}"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
