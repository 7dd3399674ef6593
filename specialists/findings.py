"""What a Florence-2 answered about one image, and the annotations that this comes to.

Answers are taken as they come: what says nothing, has no area or names nothing is left out. An answer that was cut
loses its last piece, which may be half of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from engine.geometry import area, clip, quad_box
from engine.protocols import Sample
from engine.records import HUMAN, AnyAnnotation, Box, Detail, Mask, Quad, Region, RegionText, Scores, Text, Triplet
from engine.segmentation import Unusable, run_lengths
from florence2 import Annotation, Answer, Prompt, Task, Tokens, ask
from florence2.codec import pieces_of_ids, plain, unforged
from specialists.union import Sighting, Thing, nearest, union

if TYPE_CHECKING:
    from specialists.florence import Florence

CAPTIONS: dict[Task, Detail] = {
    Task.CAPTION: "brief",
    Task.DETAILED_CAPTION: "detailed",
    Task.MORE_DETAILED_CAPTION: "more_detailed",
}
WHOLE_SENTENCES = re.compile(r".*[.!?](?=\s)", re.DOTALL)


class Findings:
    """Hears answers, says what to ask next, and in the end gives annotations."""

    def __init__(self, sample: Sample, settings: Florence, tokens: Tokens) -> None:
        self.sample, self.settings, self.tokens = sample, settings, tokens
        height, width = sample.image.shape[:2]
        self.size = (width, height)
        self.captions: list[tuple[Detail, str, float]] = []  # the last: how likely the wording is
        self.sightings: list[Sighting] = []
        self.lines: list[Annotation] = []
        self.queries: dict[str, str] = {}  # words -> label that was asked for by them
        self.phrases: dict[str, list[Annotation]] = {}  # caption, as it was asked for -> boxes with their phrases
        self.rings: dict[str, list[Sequence[float]]] = {}  # prompt -> outlines
        self.descriptions: dict[str, tuple[str, float]] = {}  # prompt -> what it says of the region, and how likely
        self.names: dict[str, tuple[str, float]] = {}  # prompt -> what it calls the region, and how likely

    def hear(self, answer: Answer) -> None:
        task = answer.task
        found = answer.annotations if answer.complete else answer.annotations[:-1]
        if task in CAPTIONS:
            if text := self._caption(answer):
                self.captions.append((CAPTIONS[task], text, answer.score))
        elif task in (Task.OD, Task.OPEN_VOCABULARY_DETECTION):
            self._see(found, labelled=True)
        elif task in (Task.DENSE_REGION_CAPTION, Task.REGION_PROPOSAL):
            self._see(found)
        elif task is Task.OCR_WITH_REGION:
            read = (one for one in found if one.quad and one.label and self._is_sure(one))
            self.lines += [one for one in read if area(quad_box(_quad(one)))]
        elif task is Task.CAPTION_TO_PHRASE_GROUNDING:
            self.phrases[answer.prompt.labels[0]] = list(found)
            self._see(found, said=False)
        elif task is Task.REGION_TO_SEGMENTATION:
            self.rings[answer.prompt.text] = [ring for one in found for ring in one.polygons or ()]
        elif task is Task.REGION_TO_DESCRIPTION:
            self.descriptions[answer.prompt.text] = (self._caption(answer), answer.score)
        elif task is Task.REGION_TO_CATEGORY and answer.complete:
            self.names[answer.prompt.text] = (self._words_of(answer), answer.score)

    def questions(self) -> list[Prompt]:
        """What is asked for what is known by now: each class by itself, and the phrases of each caption."""
        prompts = []
        if "OPEN_VOCABULARY_DETECTION" in self.settings.tasks:
            self.queries = {words: label for label in self._classes() if (words := self._words_for(label))}
            prompts += [ask(Task.OPEN_VOCABULARY_DETECTION, [words]) for words in self.queries]
        if "CAPTION_TO_PHRASE_GROUNDING" in self.settings.tasks:
            texts = [text for _, text, _ in self.captions] + [text.text for text in self._told()]
            asked = dict.fromkeys(unforged(text) for text in texts)
            prompts += [ask(Task.CAPTION_TO_PHRASE_GROUNDING, text) for text in asked if text]
        if "REGION_TO_DESCRIPTION" in self.settings.tasks:
            prompts += dict.fromkeys(self._description(region) for region in self._found())
        return prompts

    def categories(self) -> list[Prompt]:
        """Of each object that stands by now. In a first round nobody would choose among the names."""
        if not self.settings.rename or self.sample.record.round == 0:
            return []
        return list(dict.fromkeys(self._category(region) for region in self._nameable()))

    def outlines(self) -> list[Prompt]:
        if "REGION_TO_SEGMENTATION" not in self.settings.tasks:
            return []
        masked = {mask.region_id for mask in self.sample.standing.masks}
        boxes = [thing.box for thing in self.things if thing.label is not None]
        boxes += [region.box for region in self._found() if region.id not in masked]
        return list(dict.fromkeys(self._outline(box) for box in boxes))

    @cached_property
    def things(self) -> list[Thing]:
        """What was seen, each once, objects first; of each kind as many as are wanted, the surest."""
        found = union(self.sightings, self.settings.iou, self.settings.iou_unlabelled)
        objects = [thing for thing in found if thing.label is not None]
        objects.sort(key=lambda thing: -(thing.label_score or 0.0))
        proposals = [thing for thing in found if thing.label is None]
        return objects[: self.settings.max_objects] + proposals[: self.settings.max_proposals]

    def annotations(self) -> Iterator[AnyAnnotation]:
        ids, name = self.sample.record.ids(self.settings.name), self.settings.name
        texts = [
            Text(id=next(ids), source=name, text=text, detail=detail, scores=Scores(phrase=score))
            for detail, text, score in self.captions
        ]
        regions = [self._region(thing, next(ids)) for thing in self.things]
        yield from texts
        yield from regions
        yield from self._renamed(ids)
        yield from (self._line(line, next(ids)) for line in self.lines)
        for thing, region in zip(self.things, regions, strict=True):
            yield from self._of_thing(thing, region, ids)
        for region in self._found():
            yield from self._of_found(region, ids)
        for text in [*texts, *self._told()]:
            yield from self._triplets(text, regions, ids)

    # What was heard

    def _words_of(self, answer: Answer) -> str:
        return " ".join(plain(pieces_of_ids(answer.token_ids, self.tokens)).split())

    def _caption(self, answer: Answer) -> str:
        text = self._words_of(answer)
        if answer.complete:
            return text
        whole = WHOLE_SENTENCES.match(text)
        return whole[0] if whole else ""

    def _see(self, found: Iterable[Annotation], labelled: bool = False, said: bool = True) -> None:
        """Sightings of what has an area and is sure enough. `said`: the words are the thing's, not a caption's."""
        noise = self.settings.vocabulary.canonical(self.settings.noise)
        for one in found:
            label = self._label_of(one.label) if labelled and one.label else None
            box = _box_around(one)
            if area(box) and self._is_sure(one, labelled) and noise != self.settings.vocabulary.canonical(one.label):
                words = one.label if said else ""
                self.sightings.append(Sighting(box, words, label, one.label_score if said else None, one.score))

    def _label_of(self, words: str) -> str:
        return self.queries.get(words) or self.settings.vocabulary.canonical(words)

    def _is_sure(self, one: Annotation, labelled: bool = True) -> bool:
        lowest = self.settings.min_score if labelled else 0.0
        return (one.label_score is None or one.label_score >= lowest) and (
            one.score is None or one.score >= self.settings.min_box_score
        )

    # What is asked

    def _classes(self) -> list[str]:
        """The classes that stand, that were found, and, where there are few, all of the vocabulary's."""
        vocabulary, most = self.settings.vocabulary, self.settings.max_queries
        labels = [r.label for r in self.sample.standing.regions if r.kind == "object" and r.label]
        labels += [label for one in self.sightings if (label := one.label or self._class_in(one.said))]
        if len(vocabulary.classes) <= most:
            labels += vocabulary.classes
        never = {*vocabulary.ignore, vocabulary.canonical(self.settings.noise)}
        return [label for label in dict.fromkeys(labels) if label not in never][:most]

    def _class_in(self, description: str) -> str | None:
        """The class that a description ends with: "dog" of "a brown dog". Only the vocabulary's are known by that."""
        words, vocabulary = description.split(), self.settings.vocabulary
        ends = (" ".join(words[n:]) for n in range(len(words)))
        return next((vocabulary.canonical(end) for end in ends if vocabulary.knows(end)), None)

    def _words_for(self, label: str) -> str:
        """How a class is asked for; nothing that the model would take for structure."""
        entry = self.settings.vocabulary.classes.get(label)
        return unforged((entry.prompt if entry else None) or label)

    def _told(self) -> Sequence[Text]:
        """The texts of others that are asked about."""
        return self.sample.standing.texts if self.settings.standing else ()

    def _found(self) -> list[Region]:
        """The objects of others that are asked about; the largest so many."""
        if not self.settings.standing:
            return []
        objects = [r for r in self.sample.standing.regions if r.kind == "object" and area(clip(r.box, *self.size))]
        return sorted(objects, key=lambda region: -area(clip(region.box, *self.size)))[: self.settings.max_objects]

    def _nameable(self) -> Iterator[Region]:
        """The objects that stand, with a label and an area; not those that people named."""
        for region in self.sample.standing.regions:
            is_object = region.kind == "object" and region.source != HUMAN and not region.crowd
            if is_object and region.label and area(clip(region.box, *self.size)):
                yield region

    def _category(self, region: Region) -> Prompt:
        return ask(Task.REGION_TO_CATEGORY, clip(region.box, *self.size), self.size)

    def _outline(self, box: Box) -> Prompt:
        return ask(Task.REGION_TO_SEGMENTATION, clip(box, *self.size), self.size)

    def _description(self, region: Region) -> Prompt:
        return ask(Task.REGION_TO_DESCRIPTION, clip(region.box, *self.size), self.size)

    # What it comes to

    def _region(self, thing: Thing, id_: str) -> Region:
        named = thing.named
        return Region(
            id=id_,
            source=self.settings.name,
            kind="object" if named else "proposal",
            box=thing.box,
            raw_label=named.said if named else None,
            label=thing.label,
            scores=Scores(label=thing.label_score, box=thing.box_score),
        )

    def _renamed(self, ids: Iterator[str]) -> Iterator[Region]:
        """A region in the place of each that it would call otherwise, if it is sure enough of that."""
        vocabulary, name = self.settings.vocabulary, self.settings.name
        for region in self._nameable() if self.names else ():
            words, score = self.names.get(self._category(region).text, ("", 0.0))
            label = vocabulary.canonical(words) if words else ""
            never = {"", region.label, *vocabulary.ignore, vocabulary.canonical(self.settings.noise)}
            if label not in never and score >= self.settings.min_score:
                scores = Scores(label=score)
                yield Region(
                    id=next(ids),
                    source=name,
                    derived_from=(region.id,),
                    kind="object",
                    box=region.box,
                    raw_label=words,
                    label=label,
                    scores=scores,
                )

    def _line(self, line: Annotation, id_: str) -> Region:
        quad = _quad(line)
        scores = Scores(label=line.label_score, box=line.score)
        name = self.settings.name
        return Region(id=id_, source=name, kind="text", box=quad_box(quad), quad=quad, text=line.label, scores=scores)

    def _of_thing(self, thing: Thing, region: Region, ids: Iterator[str]) -> Iterator[RegionText | Mask]:
        for one in thing.described:
            yield self._said_of(region, one.said, one.said_score, next(ids))
        if thing.label is not None:
            yield from self._mask(region, ids)

    def _of_found(self, region: Region, ids: Iterator[str]) -> Iterator[RegionText | Mask]:
        """What was asked of a region that stood."""
        text, score = self.descriptions.get(self._description(region).text, ("", None))
        if text:
            yield self._said_of(region, text, score, next(ids))
        if all(mask.region_id != region.id for mask in self.sample.standing.masks):
            yield from self._mask(region, ids)

    def _said_of(self, region: Region, text: str, score: float | None, id_: str) -> RegionText:
        made_by, made_from = self.settings.name, (region.id,)
        return RegionText(
            id=id_, source=made_by, derived_from=made_from, region_id=region.id, text=text, scores=Scores(phrase=score)
        )

    def _mask(self, region: Region, ids: Iterator[str]) -> Iterator[Mask]:
        rings = self.rings.get(self._outline(region.box).text) if self.rings else None
        size = (self.size[1], self.size[0])
        try:
            counts = run_lengths(rings, size) if rings else None
        except Unusable:  # an outline without a pixel
            counts = None
        if counts:
            made_by, made_from = self.settings.name, (region.id,)
            yield Mask(
                id=next(ids), source=made_by, derived_from=made_from, region_id=region.id, size=size, counts=counts
            )

    def _triplets(self, text: Text, regions: Sequence[Region], ids: Iterator[str]) -> Iterator[Triplet]:
        """Phrases that the text has, word for word, in its order, with the regions that they were located at."""
        behind = 0
        of_thing = {id(thing): region for thing, region in zip(self.things, regions, strict=True)}
        for phrase, group in groupby(self.phrases.get(unforged(text.text), ()), key=lambda one: one.label):
            span = span_of(phrase, text.text, behind)
            found = [(one, nearest(_box_around(one), self.things, self.settings.iou_unlabelled)) for one in group]
            located = [(one, of_thing[id(thing)]) for one, thing in found if thing]
            if span and located:
                behind = span[1]
                boxes = [one.score for one, _ in located if one.score is not None]
                yield Triplet(
                    id=next(ids),
                    source=self.settings.name,
                    derived_from=(text.id,),
                    text_id=text.id,
                    start=span[0],
                    stop=span[1],
                    region_ids=tuple(dict.fromkeys(region.id for _, region in located)),
                    scores=Scores(phrase=located[0][0].label_score, box=min(boxes, default=None)),
                )


def span_of(phrase: str, text: str, behind: int) -> tuple[int, int] | None:
    """Where a text has a phrase as whole words: the next place from `behind` on, or else the first."""
    if not phrase:
        return None
    pattern = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")
    match = pattern.search(text, behind) or pattern.search(text)
    return match.span() if match else None


def _quad(one: Annotation) -> Quad:
    x0, y0, x1, y1, x2, y2, x3, y3 = one.quad or (0.0,) * 8
    return x0, y0, x1, y1, x2, y2, x3, y3


def _box_around(one: Annotation) -> Box:
    """Its box, or that around its polygons."""
    if one.box is not None:
        return one.box
    xs = [x for ring in one.polygons or () for x in ring[0::2]] or [0.0]
    ys = [y for ring in one.polygons or () for y in ring[1::2]] or [0.0]
    return min(xs), min(ys), max(xs), max(ys)
