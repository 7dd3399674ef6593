"""A record's annotations that stand become a scene, of which florence2 makes what it learns.

Everything in a scene comes from annotations that the caller lets in: what a source made that is shut out, and what was
derived from that, is not there. What people annotated always is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from engine.errors import RecordError
from engine.records import HUMAN, MERGE, AnyAnnotation, Box, Quad, Record, Region, Text, Triplet
from engine.vocabulary import Vocabulary
from florence2.scene import Caption, Line, Mask, Phrase, Scene, Thing

Span = tuple[int, int]


def scene_of(
    record: Record,
    *,
    vocabulary: Vocabulary | None = None,
    sources: Collection[str] | None = None,
    exclude_sources: Collection[str] = (),
    text_sources: Collection[str] | None = None,
    exhaustive_sources: Mapping[str, Collection[str]] | None = None,
) -> Scene:
    """The scene of what stands in `record` and is of `sources` (None: all) and not of `exclude_sources`; captions and
    texts of regions of `text_sources` alone (None: all).

    Labels are the record's canonical ones; with a vocabulary they are its words for the raw labels. A thing's texts
    come people's first, then by their calibrated score. Of several masks a person's counts, or else the latest.

    `exhaustive_sources` are the classes of which a source marks every instance. In the scene such a class is exhaustive
    if the source marked anything in this image, and if none of its regions of the class was turned down, but in favour
    of a better one. RecordError for a record without a size: its image was not read.
    """
    return View(record, vocabulary, sources, exclude_sources, text_sources, exhaustive_sources or {}).scene()


@dataclass(frozen=True)
class View:
    """A record as the caller wants it seen. Fields as the arguments of `scene_of`."""

    record: Record
    vocabulary: Vocabulary | None = None
    sources: Collection[str] | None = None
    exclude_sources: Collection[str] = ()
    text_sources: Collection[str] | None = None
    exhaustive_sources: Mapping[str, Collection[str]] = field(default_factory=dict)

    def scene(self) -> Scene:
        item, texts = self.record.item, self.record.standing.texts
        if not (item.width and item.height):
            raise RecordError(
                f"{item.uri}: expected a record with the size of its image, which wasn't read; leave it out"
            )
        lines = [r for r in self.regions if r.kind == "text" and not r.crowd and r.text and r.text.strip()]
        return Scene(
            size=(item.width, item.height),
            captions=tuple(
                Caption(t.text, t.detail, self.phrases(t)) for t in texts if self.admits(t.id) and self.speaks(t.source)
            ),
            things=tuple(map(self.thing, self.objects)),
            lines=tuple(Line(one.quad or corners(one.box), one.text or "", (one.id,)) for one in lines),
            exhaustive=frozenset(self.exhaustive()),
        )

    # What is let in

    def admits(self, annotation_id: str) -> bool:
        return annotation_id not in self.shut

    def admits_source(self, source: str) -> bool:
        named = (self.sources is None or source in self.sources) and source not in self.exclude_sources
        return named or source == HUMAN

    def speaks(self, source: str) -> bool:
        return self.text_sources is None or source in self.text_sources

    @cached_property
    def shut(self) -> frozenset[str]:
        """Ids of the annotations that are not let in, fallen ones among them."""
        others = [annotation for annotation in self.record.annotations() if annotation.source != HUMAN]
        shut = {annotation.id for annotation in others if not self.admits_source(annotation.source)}
        while derived := {a.id for a in others if _follows(a, shut)} - shut:
            shut |= derived
        return frozenset(shut)

    @cached_property
    def regions(self) -> list[Region]:
        return [region for region in self.record.standing.regions if self.admits(region.id)]

    # Things

    @cached_property
    def objects(self) -> list[Region]:
        """Proposals among them; the things of the scene, in their order."""
        return [region for region in self.regions if region.kind != "text"]

    def thing(self, region: Region) -> Thing:
        stands = self.record.standing
        told = [
            t
            for t in stands.region_texts
            if t.region_id == region.id and self.admits(t.id) and self.speaks(t.source) and t.text.strip()
        ]
        told.sort(key=lambda text: (text.source != HUMAN, -(text.scores.calibrated or 0)))
        masks = [mask for mask in stands.masks if mask.region_id == region.id and self.admits(mask.id)]
        mask = max(enumerate(masks), key=lambda entry: (entry[1].source == HUMAN, entry[0]))[1] if masks else None
        return Thing(
            box=region.box,
            label=self.label(region) if region.kind == "object" else None,
            texts=tuple(dict.fromkeys(text.text.strip() for text in told)),
            mask=Mask(mask.size, mask.counts) if mask else None,
            crowd=region.crowd,
        )

    def label(self, region: Region) -> str | None:
        if self.vocabulary and (word := region.raw_label or region.label):
            return self.vocabulary.canonical(word)
        return region.label or region.raw_label

    def exhaustive(self) -> Iterator[str]:
        for source, classes in self.exhaustive_sources.items():
            marked = [r for r in self.record.regions if r.source == source and r.kind == "object"]
            if marked and self.admits_source(source):
                known = {self.vocabulary.canonical(name) if self.vocabulary else name for name in classes}
                yield from known - {self.label(region) for region in marked if self.number(region.id) is None}

    # Phrases

    def phrases(self, text: Text) -> tuple[Phrase, ...]:
        """What the text names, in its order: by triplets, with the expressions that a parse has for them.

        A triplet of an expression whose phrase is linked to the same things says nothing of its own. Where an
        expression's own triplet fell, its phrase stands alone. A phrase of which no thing is known has none.
        """
        named: dict[Span, tuple[int, ...]] = {}
        for triplet in self.record.standing.triplets:
            if triplet.text_id == text.id and self.admits(triplet.id) and (things := self.named(triplet)):
                span = triplet.start, triplet.stop
                named[span] = tuple(dict.fromkeys((*named.get(span, ()), *things)))
        grown = {span: self.expression(text, span) for span in named}
        folded = {grown[span] for span in named if grown[span] != span and named.get(grown[span]) == named[span]}
        linked = [Phrase(*span, named[span], *grown[span]) for span in named if span not in folded]
        found = linked + [Phrase(*span, (), *self.expression(text, span)) for span in self.unlinked(text, named)]
        return tuple(sorted(found, key=lambda phrase: (phrase.start, phrase.stop)))

    def unlinked(self, text: Text, named: Collection[Span]) -> set[Span]:
        """What a parse or a triplet has as a phrase, and no linked one has any of."""
        stands = self.record.standing
        parsed = {(p.start, p.stop) for parse in stands.parses if parse.text_id == text.id for p in parse.phrases}
        spans = parsed | {(t.start, t.stop) for t in stands.triplets if t.text_id == text.id}
        return {(a, b) for a, b in spans if not any(max(a, start) < min(b, stop) for start, stop in named)}

    def named(self, triplet: Triplet) -> tuple[int, ...]:
        """The things of a triplet; none if of several only one is left, as "two dogs" are not one."""
        things = [number for id_ in triplet.region_ids if (number := self.number(id_)) is not None]
        return tuple(things) if len(things) > 1 or len(triplet.region_ids) == 1 else ()

    def expression(self, text: Text, span: Span) -> Span:
        """What a phrase grows to by a parse of its text; the phrase itself if there is none, or if that fell."""
        for parse in self.record.standing.parses:
            for phrase in parse.phrases if parse.text_id == text.id and self.admits(parse.id) else ():
                grown = phrase.expression_start, phrase.expression_stop
                if (phrase.start, phrase.stop) == span and (text.id, *grown) not in self.fallen_spans:
                    return grown
        return span

    @cached_property
    def fallen_spans(self) -> frozenset[tuple[str, int, int]]:
        """Of triplets that fell, without one that stands in their place."""
        stand = {(t.text_id, t.start, t.stop) for t in self.record.standing.triplets}
        return frozenset((t.text_id, t.start, t.stop) for t in self.record.triplets) - stand

    def number(self, region_id: str) -> int | None:
        """Of the thing that a region is, or that one of the same label is that was preferred to it."""
        label, seen = self.labels.get(region_id), set()
        while region_id not in self.numbers and region_id not in seen:
            seen.add(region_id)
            region_id = self.preferred.get(region_id, region_id)
        return self.numbers.get(region_id) if self.labels.get(region_id) == label else None

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {region.id: number for number, region in enumerate(self.objects)}

    @cached_property
    def labels(self) -> dict[str, str | None]:
        return {region.id: self.label(region) for region in self.record.regions}

    @cached_property
    def preferred(self) -> dict[str, str]:
        """To each region that fell the one that was preferred to it."""
        fallen = [d for d in self.record.decisions if d.action in ("reject", "supersede")]
        return {d.annotation_id: d.against for d in fallen if d.against}


def _follows(annotation: AnyAnnotation, shut: Collection[str]) -> bool:
    """Whether it is shut out along with what it derives from. A region that was fused is the work of all its parents:
    it goes when the last one does."""
    parents = set(annotation.derived_from)
    if isinstance(annotation, Region) and annotation.source == MERGE:
        return bool(parents) and parents.issubset(shut)
    return not parents.isdisjoint(shut)


def corners(box: Box) -> Quad:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y0, x1, y1, x0, y1
