"""The page around the data: template, style sheet, script, and the policy that lets a browser run nothing else.

What is shown comes from files that nobody vouches for: names, captions, labels. Jinja escapes all of it, the policy
allows one script and one style sheet by their hashes and loads nothing, and no data goes into either.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.untrusted import printable

HERE = Path(__file__).parent


def render(toggles: int, **data: Any) -> str:
    """The page with `data`, in which the checkboxes source-0, source-1, ... hide what is of class source-0, ..."""
    style, script = _style(toggles), (HERE / "report.js").read_text()
    template = _environment().get_template("report.html.jinja")
    page: str = template.render(style=Markup(style), script=Markup(script), policy=_policy(style, script), **data)
    return page


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
        "score": _score,
        "mean": _mean,
        "loss": _loss,
    }
    return environment


def _measured(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _score(value: float | None) -> str:
    return _measured(value) if value is None or abs(value) > 99 else f"{value:.2f}"


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _loss(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.1 <= abs(value) < 10_000 or value == 0 else f"{value:.3g}"


def _style(toggles: int) -> str:
    """The style sheet, with a rule for each source. In it sources are numbers: their names are data."""
    rules = [f"html:has(#source-{n}:not(:checked)) .source-{n} {{ display: none; }}" for n in range(toggles)]
    return "\n".join([(HERE / "report.css").read_text(), *rules, ""])


def _policy(style: str, script: str) -> str:
    """Style attributes are allowed: those of the page hold numbers alone."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(script)}; style-src 'unsafe-inline'; style-src-elem {_hash(style)}"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
