"""What a README tells of an export: how much there is, who made it, and under which licences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from engine.atomic import read_json, write_json
from engine.export.format import Part, Whole
from engine.untrusted import printable

NAME = "card.json"
TABLES = ("texts", "regions", "region_texts", "masks", "triplets")
UNSAID = "not said"


@dataclass
class Card:
    """Images by licence and by the set that they are from, and annotations by source and table."""

    licences: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)
    made: dict[str, Counter[str]] = field(default_factory=dict)


def note(part: Part) -> None:
    """Counts what is in a part, when it is written: its images that are gone don't count."""
    lost = [one.row for one in part.lost]
    images = _without(part.flat.images, lost)
    made: dict[str, dict[str, int]] = {}
    for name in TABLES:
        for source, count in _counts(_without(part.flat[name], lost)["source"]).items():
            made.setdefault(source, {})[name] = count
    told = {"licences": _counts(images["licence"]), "datasets": _counts(images["dataset"]), "made": made}
    write_json(part.fragment(NAME), told)


def card_of(whole: Whole) -> Card:
    card = Card()
    for path in whole.fragments(NAME):
        part = read_json(path)
        card.licences.update(part["licences"])
        card.datasets.update(part["datasets"])
        for source, counts in part["made"].items():
            card.made.setdefault(source, Counter()).update(counts)
    return card


def readme(whole: Whole, use: str) -> str:
    """The README: counts, how to `use` it, sources and licences."""
    setting, card = whole.setting, card_of(whole)
    columns = [name for name in ("images", *TABLES) if any(name in counts for counts in whole.totals.values())]
    counts = [[split, *(f"{of.get(name, 0):,}" for name in columns)] for split, of in whole.totals.items()]
    sources = [_source(name, of, setting.sources.get(name, {})) for name, of in sorted(card.made.items())]
    return (
        "\n\n".join(
            [
                f"# {inline(setting.dataset)}",
                f"Round {setting.round}, exported by florence-engine. Coordinates are pixels of the upright image.",
                table(["split", *(name.replace("_", " ") for name in columns)], counts),
                use.strip(),
                "## Sources\nWho made which annotations, and under which licence the makers themselves are.",
                table(["source", "made by", "version", "licence", "annotations"], sources),
                "## Licences\nOf the images, as their sets have them; what came along may have others.",
                table(["licence", "images"], [[name, f"{count:,}"] for name, count in card.licences.most_common()]),
                table(["set", "images"], [[name, f"{count:,}"] for name, count in card.datasets.most_common()]),
            ]
        )
        + "\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whatever its cells say."""
    lines = [list(head), ["---"] * len(head), *([inline(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def inline(text: str) -> str:
    """A text in a line of Markdown as it is: names of sets and licences are anybody's."""
    line = " ".join(printable(text).split())[:200]
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", line)


def _source(name: str, counts: Mapping[str, int], made_by: Mapping[str, Any]) -> list[str]:
    told = ", ".join(f"{counts[table]:,} {table.replace('_', ' ')}" for table in TABLES if table in counts)
    return [name, *(str(made_by.get(key) or "") for key in ("specialist", "version", "licence")), told]


def _without(table: Any, lost: Sequence[int]) -> Any:
    return table.filter(~np.isin(table["row"].to_numpy(), lost)) if lost else table


def _counts(column: Any) -> dict[str, int]:
    counts = pc.value_counts(column)
    return {one["values"] or UNSAID: one["counts"] for one in counts.to_pylist()}
