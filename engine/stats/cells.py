"""Rows of the paper's tables as words, for whoever shows them; "-" is where there is nothing."""

from __future__ import annotations

from engine.stats.published import FLD, MEASURES
from engine.stats.tables import COMPOSED, OWN, OWN_WRITTEN, PUBLISHED, Annotations, Semantics, Size

KINDS = {"text": "texts", "region_text": "region-text", "triplet": "triplets"}
THINGS = {"object": "objects", "text": "text regions", "proposal": "proposals"}  # regions by kind
SIZES = ("images", "annotations", "an image")
ANNOTATIONS = ("images", "texts", "tokens", "regions", "regions\neach", "tokens\na region")
SEMANTICS = ("texts", *(name.replace("_", "\n") for name in MEASURES))


def size_cells(row: Size) -> tuple[str, ...]:
    """The name, and SIZES."""
    shown = number if row.name in (OWN, OWN_WRITTEN) else short
    return row.name, shown(row.images), shown(row.annotations), mean(row.annotations_each)


def annotation_cells(row: Annotations) -> tuple[str, ...]:
    """Of what it is, and ANNOTATIONS."""
    shown = short if row.origin == PUBLISHED else number
    of = named(row.of, row.origin, "derived" if row.kind == "triplet" else COMPOSED)
    counts = shown(row.images), shown(row.texts), mean(row.tokens), shown(row.regions)
    return of, *counts, mean(row.regions_each), mean(row.region_tokens)


def semantics_cells(row: Semantics) -> tuple[str, ...]:
    """Of what it is, and SEMANTICS."""
    return named(row.detail, row.origin), number(row.texts), *(mean(getattr(row, name)) for name in MEASURES)


def named(of: str, origin: str, composed: str = COMPOSED) -> str:
    of = of.replace("_", " ")
    return {PUBLISHED: f"{of}, {FLD}", COMPOSED: f"{of}, {composed}"}.get(origin, of)


def number(value: int | None) -> str:
    return f"{value:,}" if value else "-"


def short(value: int | None) -> str:
    """As the paper prints it: 235M, 5B."""
    if value is None:
        return "-"
    return f"{value // 10**9}B" if value % 10**9 == 0 else f"{value / 10**6:,g}M"


def mean(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
