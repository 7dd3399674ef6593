"""The paper's tables 1 to 3 for a dataset, beside FLD-5B's figures. None is what there is nothing to count of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.records import DETAILS
from engine.stats.columns import mean
from engine.stats.published import BRIEFS, DATASETS, MEASURES, PHRASES, SEMANTICS, TEXTS, TRIPLETS, Figures
from engine.stats.regions import RegionCounts
from engine.stats.texts import TextCounts

# What figures are of: what somebody wrote or a model saw, what was put together from regions, or what is published.
WRITTEN, COMPOSED, PUBLISHED = "written", "composed", "published"
OWN, OWN_WRITTEN = "this dataset", "this dataset, without what is composed"
ORIGINS = ((WRITTEN, False), (COMPOSED, True))


@dataclass(frozen=True)
class Size:
    """A row of table 1."""

    name: str
    images: int
    annotations: int
    annotations_each: float | None


@dataclass(frozen=True)
class Annotations:
    """A row of table 2. `kind` is text, region_text or triplet; `of` a detail, or phrase or brief."""

    kind: str
    of: str
    origin: str
    images: int | None
    texts: int | None
    tokens: float | None
    regions: int | None
    regions_each: float | None
    region_tokens: float | None


@dataclass(frozen=True)
class Semantics:
    """A row of table 3: means over the texts with a parse, of which there are `texts`."""

    detail: str
    origin: str
    texts: int | None
    objects: float | None
    attributes: float | None
    actions: float | None
    proper_nouns: float | None
    object_complexity: float | None
    action_complexity: float | None


def size_rows(images: int, rows: tuple[Annotations, ...]) -> Iterator[Size]:
    """Of this dataset, of it without what is composed, and of those that the paper lists."""
    own = [row for row in rows if row.origin != PUBLISHED]
    written = [row for row in own if row.origin != COMPOSED]
    for name, counted in ((OWN, own), (OWN_WRITTEN, written)):
        yield _size(name, images, sum(map(number_of, counted)))
    for published in DATASETS:
        yield _size(*published)


def number_of(row: Annotations) -> int:
    """How many annotations a row counts, as they add up to FLD-5B's 5B: see NOTES."""
    counts = {"text": row.texts, "region_text": row.texts, "triplet": row.regions}
    return counts[row.kind] or 0


def annotation_rows(texts: TextCounts, regions: RegionCounts) -> Iterator[Annotations]:
    for detail in DETAILS:
        for origin, composed in ORIGINS:
            sums = texts.texts[detail, composed]
            figures = Figures(sums["images"], sums["count"], mean(sums["words"], sums["count"]))
            yield Annotations("text", detail, origin, *figures)
        yield Annotations("text", detail, PUBLISHED, *TEXTS[detail])
    yield from _of_regions(regions)
    for detail in DETAILS:
        for origin, composed in ORIGINS:
            yield Annotations("triplet", detail, origin, *_triplets(texts, detail, composed))
        yield Annotations("triplet", detail, PUBLISHED, *TRIPLETS[detail])


def _of_regions(regions: RegionCounts) -> Iterator[Annotations]:
    sums = regions.phrases[()]
    yield Annotations(
        "region_text", "phrase", WRITTEN, *_told(sums["images"], sums["count"], sums["count"], sums["words"])
    )
    yield Annotations("region_text", "phrase", PUBLISHED, *PHRASES)
    for origin, composed in ORIGINS:
        sums, told = regions.briefs[(composed,)], regions.told[(composed,)]["count"]
        yield Annotations("region_text", "brief", origin, *_told(sums["images"], sums["count"], told, sums["words"]))
    yield Annotations("region_text", "brief", PUBLISHED, *BRIEFS)


def _told(images: int, texts: int, regions: int, words: float) -> Figures:
    return Figures(images, texts, None, regions, mean(regions, images), mean(words, texts))


def _triplets(texts: TextCounts, detail: str, composed: bool) -> Figures:
    linked, sums = texts.linked[detail, composed], texts.triplets[detail, composed]
    tokens, each = mean(linked["words"], linked["count"]), mean(sums["pairs"], linked["count"])
    return Figures(linked["images"], linked["count"], tokens, sums["pairs"], each, mean(sums["words"], sums["pairs"]))


def semantics_rows(texts: TextCounts) -> Iterator[Semantics]:
    for detail in DETAILS:
        for origin, composed in ORIGINS:
            sums = texts.parses[detail, composed]
            means = (mean(sums[name], sums["count"]) for name in MEASURES)
            yield Semantics(detail, origin, sums["count"], *means)
        yield Semantics(detail, PUBLISHED, None, *SEMANTICS[detail])


def _size(name: str, images: int, annotations: int) -> Size:
    return Size(name, images, annotations, mean(annotations, images))
