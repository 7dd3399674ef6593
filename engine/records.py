"""The annotation data model: what is known of one image, and who said so.

Specialists append annotations, filters and merges append decisions, nothing is edited or removed.
The dataclasses mirror the Arrow columns of `engine.schema` one to one. Coordinates are pixels of the upright
image (EXIF orientation applied), x to the right, y down, boxes as (x0, y0, x1, y1) with x1, y1 exclusive edges.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from engine.errors import RecordError

Detail = Literal["brief", "detailed", "more_detailed"]
Kind = Literal["object", "text", "proposal"]
Action = Literal["reject", "supersede", "keep", "add"]
Box: TypeAlias = tuple[float, float, float, float]
Quad: TypeAlias = tuple[float, float, float, float, float, float, float, float]

DETAILS: tuple[Detail, ...] = get_args(Detail)
KINDS: tuple[Kind, ...] = get_args(Kind)
ACTIONS: tuple[Action, ...] = get_args(Action)
# The sources of what comes along with images: what people annotated, and the texts that web pages have beside them.
HUMAN, ALT = "human", "alt"
# The source of what merging makes.
MERGE = "merge"
# The reasons of opinions: log p per token of an annotation, given its image, and given a blank one in its place.
VERIFIED, VERIFIED_BLANK = "verified", "verified_blank"
# Of a text that a grounder has looked at: the share of its phrases that it found.
GROUNDED = "grounded"


def digest16(data: bytes) -> bytes:
    """The 16-byte BLAKE2b hash that ids are made of."""
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item is in quarantine: the stage it failed in, a word to group by, and a sentence for a person."""

    stage: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One input of the image set, read or not. `width`, `height` are upright; `content_id` is null when unread."""

    item_id: bytes
    uri: str
    content_id: bytes | None = None
    duplicate_of: bytes | None = None
    width: int | None = None
    height: int | None = None
    dataset: str | None = None
    licence: str | None = None
    labels: tuple[str, ...] = ()
    error: ItemError | None = None

    @staticmethod
    def id_of(uri: str) -> bytes:
        return digest16(uri.encode())


@dataclass(frozen=True, slots=True)
class Scores:
    """What a source says of its own certainty; null where it says nothing. Not comparable between sources."""

    label: float | None = None
    phrase: float | None = None
    box: float | None = None
    mask: float | None = None
    calibrated: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise RecordError(f"score {name!r} must be a finite number or None, not {value!r}")


NO_SCORES = Scores()


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What every annotation has. `id` is unique within its image over all rounds; `derived_from` are such ids."""

    id: str
    source: str
    derived_from: tuple[str, ...] = ()
    scores: Scores = NO_SCORES


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Annotation):
    """A text about the whole image, at one of three granularities."""

    text: str
    detail: Detail

    def __post_init__(self) -> None:
        _one_of("detail", self.detail, DETAILS, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region(Annotation):
    """A part of the image. Coordinates are kept as float32, so that they come back from Arrow unchanged.

    `raw_label` is the category in the source's own word, `label` the vocabulary's; `text` is what a region of kind
    "text" says. `quad` holds four corners clockwise, from the text's own top left where the source knows it:
    (x0, y0, ..., x3, y3). A `crowd` is many things in one box (COCO's iscrowd, Open Images' IsGroupOf).
    """

    kind: Kind
    box: Box
    quad: Quad | None = None
    raw_label: str | None = None
    label: str | None = None
    text: str | None = None
    crowd: bool = False

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS, self.id)
        object.__setattr__(self, "box", _float32(self.box, 4, "box", self.id))
        x0, y0, x1, y1 = self.box
        if x1 < x0 or y1 < y0:
            raise RecordError(f"region {self.id}: a box is (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, not {self.box}")
        if self.quad is not None:
            object.__setattr__(self, "quad", _float32(self.quad, 8, "quad", self.id))

    @property
    def score(self) -> float | None:
        """What tells regions of one kind and source apart: a proposal has no label to be sure of, only a box."""
        return self.scores.box if self.kind == "proposal" else self.scores.label


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionText(Annotation):
    """A phrase or sentence about a region; a region may have several, from several sources."""

    region_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Annotation):
    """A region's pixels, exactly: COCO compressed run-length `counts` over `size` (height, width) of the image."""

    region_id: str
    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Triplet(Annotation):
    """A phrase, the characters [start, stop) of a text, and the regions that it names."""

    text_id: str
    start: int
    stop: int
    region_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise RecordError(f"triplet {self.id}: a span is 0 <= start < stop, not [{self.start}, {self.stop})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A noun phrase: the characters [start, stop) of a text, and what its words say of the thing.

    `head` is its noun's lemma, `modifiers` the lemmas of its adjectives and compounds in their order, `count` how many
    it speaks of ("a", "this" 1; "two" 2; a bare plural None). The expression [expression_start, expression_stop) is
    the phrase with all that depends on it ("a dog" in "a dog on a leash"), as GrIT expands chunks (Kosmos-2, 2.1).
    """

    start: int
    stop: int
    head: str
    modifiers: tuple[str, ...] = ()
    count: int | None = None
    expression_start: int
    expression_stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.expression_start <= self.start < self.stop <= self.expression_stop:
            raise RecordError(
                f"phrase {self.head!r}: its span [{self.start}, {self.stop}) must not be empty and lie in its "
                f"expression [{self.expression_start}, {self.expression_stop})"
            )

    def names(self, text: str) -> tuple[str, ...]:
        """What the thing may be called, the longest first: "red cell phone", "cell phone", "phone"; as lemmas and as it
        stands in the text, since "people" is a lemma, and that of "glasses" is "glass"."""
        *before, last = text[self.start : self.stop].casefold().split() or [self.head]
        names: list[str] = []
        for length in range(len(self.modifiers), -1, -1):
            names.append(" ".join([*self.modifiers[len(self.modifiers) - length :], self.head]))
            names.append(" ".join([*before[len(before) - length :], last]))
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parse(Annotation):
    """What a dependency parse of a text gives: counts of its tokens, complexities, and its noun phrases in order.

    A token's degree is the number of its children that are no punctuation, and 1 more if it is not the root: its degree
    in the tree taken as an undirected graph (Florence-2, section 4.2). A complexity is the mean degree of the objects
    (actions), 0 where there are none; `max_...` the largest.
    """

    text_id: str
    objects: int
    attributes: int
    actions: int
    proper_nouns: int
    object_complexity: float
    action_complexity: float
    max_object_complexity: int
    max_action_complexity: int
    phrases: tuple[Phrase, ...] = ()


AnyAnnotation: TypeAlias = Text | Parse | Region | RegionText | Mask | Triplet


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a filter or a merge rule (`by`) says of an annotation, and the value that it measured.

    `threshold` is what the value was held against, `against` the annotation that was preferred, where there is one.
    """

    annotation_id: str
    action: Action
    by: str
    reason: str
    value: float | None = None
    threshold: float | None = None
    against: str | None = None
    round: int = 0

    def __post_init__(self) -> None:
        _one_of("action", self.action, ACTIONS, self.annotation_id)
        for value in (self.value, self.threshold):
            if value is not None and not math.isfinite(value):
                raise RecordError(f"{self.by}: a measured value or threshold must be finite or None, not {value!r}")


@dataclass(frozen=True)
class Record:
    """All that is known of one item. `error` is set when annotating it failed; it then has no annotations.

    `perceptual_hash` is of what the image looks like, 64 bits: see `engine.near`.
    """

    item: Item
    texts: tuple[Text, ...] = ()
    parses: tuple[Parse, ...] = ()
    regions: tuple[Region, ...] = ()
    region_texts: tuple[RegionText, ...] = ()
    masks: tuple[Mask, ...] = ()
    triplets: tuple[Triplet, ...] = ()
    decisions: tuple[Decision, ...] = ()
    error: ItemError | None = None
    perceptual_hash: bytes | None = None
    round: int = 0

    def annotations(self) -> Iterator[AnyAnnotation]:
        yield from self.texts
        yield from self.parses
        yield from self.regions
        yield from self.region_texts
        yield from self.masks
        yield from self.triplets

    def ids(self, source: str) -> Iterator[str]:
        """Fresh annotation ids for `source`, "round.source.number", going on after those that it already has."""
        number = sum(1 for annotation in self.annotations() if annotation.source == source)
        while True:
            yield f"{self.round}.{source}.{number}"
            number += 1

    def append(self, annotations: Iterable[AnyAnnotation]) -> Record:
        """This record and `annotations`. Raises RecordError for an id that repeats or a reference to nothing."""
        new = tuple(annotations)
        result = dataclasses.replace(
            self,
            texts=self.texts + tuple(a for a in new if isinstance(a, Text)),
            parses=self.parses + tuple(a for a in new if isinstance(a, Parse)),
            regions=self.regions + tuple(a for a in new if isinstance(a, Region)),
            region_texts=self.region_texts + tuple(a for a in new if isinstance(a, RegionText)),
            masks=self.masks + tuple(a for a in new if isinstance(a, Mask)),
            triplets=self.triplets + tuple(a for a in new if isinstance(a, Triplet)),
        )
        _check_ids(new, self)
        _check_references(new, result)
        return result

    def decide(self, decisions: Iterable[Decision]) -> Record:
        """This record and `decisions`. Raises RecordError for a decision about an annotation that isn't there."""
        new = tuple(decisions)
        for decision in new:
            if decision.annotation_id not in self.by_id:
                raise RecordError(f"{decision.by} decided on annotation {decision.annotation_id}, which isn't there")
        return dataclasses.replace(self, decisions=self.decisions + new) if new else self

    def reject(
        self,
        annotation: AnyAnnotation,
        by: str,
        reason: str,
        value: float | None = None,
        threshold: float | None = None,
        against: str | None = None,
    ) -> Decision:
        """The decision, of this record's round, by which an annotation falls. It is not taken yet: see `decide`."""
        return Decision(
            annotation_id=annotation.id,
            action="reject",
            by=by,
            reason=reason,
            value=value,
            threshold=threshold,
            against=against,
            round=self.round,
        )

    @cached_property
    def by_id(self) -> dict[str, AnyAnnotation]:
        return {annotation.id: annotation for annotation in self.annotations()}

    @cached_property
    def fallen(self) -> frozenset[str]:
        """Ids of the annotations that a decision rejects or supersedes."""
        return frozenset(d.annotation_id for d in self.decisions if d.action in ("reject", "supersede"))

    @cached_property
    def standing(self) -> Record:
        """This record with only the annotations that stand; the decisions are kept."""
        if not self.fallen:
            return self
        return dataclasses.replace(
            self,
            texts=tuple(a for a in self.texts if a.id not in self.fallen),
            parses=tuple(a for a in self.parses if a.id not in self.fallen),
            regions=tuple(a for a in self.regions if a.id not in self.fallen),
            region_texts=tuple(a for a in self.region_texts if a.id not in self.fallen),
            masks=tuple(a for a in self.masks if a.id not in self.fallen),
            triplets=tuple(a for a in self.triplets if a.id not in self.fallen),
        )


def cascade(record: Record) -> list[Decision]:
    """Decisions for what can't stand alone: a mask and a region text fall with their region, a parse and a triplet with
    their text, a triplet also when none of its regions stands, and a text that was made from regions when one of them
    was rejected: it speaks of something that isn't there."""
    if not record.fallen:
        return []
    stands, fallen = record.standing, set(record.fallen)
    gone = {region.id for region in record.regions} & {
        d.annotation_id for d in record.decisions if d.action == "reject"
    }
    made: list[Decision] = []

    def reject(annotation: AnyAnnotation, reason: str, cause: str | None = None) -> None:
        fallen.add(annotation.id)
        made.append(record.reject(annotation, "cascade", reason, against=cause))

    of_regions: tuple[Mask | RegionText, ...] = (*stands.masks, *stands.region_texts)
    for of_region in of_regions:
        if of_region.region_id in fallen:
            reject(of_region, "region_fell", of_region.region_id)
    for text in stands.texts:
        if cause := next((id_ for id_ in text.derived_from if id_ in gone), None):
            reject(text, "region_fell", cause)
    of_texts: tuple[Parse | Triplet, ...] = (*stands.parses, *stands.triplets)
    for of_text in of_texts:
        if of_text.text_id in fallen:
            reject(of_text, "text_fell", of_text.text_id)
        elif isinstance(of_text, Triplet) and of_text.region_ids and fallen.issuperset(of_text.region_ids):
            reject(of_text, "regions_fell")
    return made


def _one_of(field: str, value: str, allowed: tuple[str, ...], annotation_id: str) -> None:
    if value not in allowed:
        raise RecordError(f"annotation {annotation_id}: {field} must be one of {', '.join(allowed)}, not {value!r}")


def _float32(values: tuple[float, ...], length: int, field: str, annotation_id: str) -> tuple[float, ...]:
    if len(values) != length or not all(map(math.isfinite, values)):
        raise RecordError(f"region {annotation_id}: {field} must be {length} finite numbers, not {values!r}")
    return tuple(array("f", values))


def _check_ids(new: tuple[AnyAnnotation, ...], before: Record) -> None:
    seen = set(before.by_id)
    for annotation in new:
        if annotation.id in seen:
            raise RecordError(f"{annotation.source} gave annotation id {annotation.id} twice; take ids from record.ids")
        seen.add(annotation.id)


def _check_references(new: tuple[AnyAnnotation, ...], after: Record) -> None:
    regions = {region.id for region in after.regions}
    texts = {text.id: text for text in after.texts}
    for annotation in new:
        missing = set(annotation.derived_from).difference(after.by_id)
        if isinstance(annotation, Mask | RegionText):
            missing |= {annotation.region_id} - regions
        if isinstance(annotation, Mask):
            _check_mask_size(annotation, after.item)
        elif isinstance(annotation, Triplet):
            missing |= set(annotation.region_ids) - regions
            missing |= _check_span(annotation, annotation.start, annotation.stop, texts)
        elif isinstance(annotation, Parse):
            for phrase in annotation.phrases:
                missing |= _check_span(annotation, phrase.expression_start, phrase.expression_stop, texts)
            missing |= {annotation.text_id} - texts.keys()
        if missing:
            raise RecordError(f"annotation {annotation.id} refers to {', '.join(sorted(missing))}, which isn't there")


def _check_span(annotation: Triplet | Parse, start: int, stop: int, texts: dict[str, Text]) -> set[str]:
    """The id of the annotation's text if that isn't there. Raises RecordError for a span that ends behind it."""
    text = texts.get(annotation.text_id)
    if text is None:
        return {annotation.text_id}
    if stop > len(text.text):
        raise RecordError(
            f"annotation {annotation.id}: span [{start}, {stop}) ends behind its text, which has "
            f"{len(text.text)} characters"
        )
    return set()


def _check_mask_size(mask: Mask, item: Item) -> None:
    if item.height is not None and mask.size != (item.height, item.width):
        raise RecordError(f"mask {mask.id} has size (height, width) {mask.size}, its image {(item.height, item.width)}")
