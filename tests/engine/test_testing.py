"""The contract kit: components that break one rule each are refused in its words, and good ones are not."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from pydantic import Field
from toys import Brightness

from engine.geometry import encode_mask
from engine.protocols import Sample
from engine.records import (
    AnyAnnotation,
    Decision,
    Mask,
    Parse,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
    cascade,
)
from engine.schema import annotations_to_table, decisions_to_table, items_to_table, records_from_tables
from engine.testing import check_filter, check_specialist, records, samples
from engine.testing.same import Tolerance, difference, seeded
from engine.vocabulary import Vocabulary

Entry = AnyAnnotation | Decision
SAYS = "A thing that shines."


@dataclass
class Thorough:
    """Says something of every kind, by the rules. Those below break one."""

    name: str = "thorough"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    words: tuple[str, ...] = ("a thing",)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None:
        self.ready = True

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        assert self.ready
        return [self.said(sample) for sample in batch]  # generators, which the engine takes too

    def said(self, sample: Sample) -> Iterator[Entry]:
        for entry in self.all_of(sample):
            yield self.changed(entry, sample)

    def changed(self, entry: Any, sample: Sample) -> Any:
        return entry

    def all_of(self, sample: Sample) -> Iterator[Entry]:
        ids, source = sample.record.ids(self.name), self.name
        height, width = sample.image.shape[:2]
        score = float(sample.image.mean()) / 255
        box = (0.0, 0.0, width * self.share, height * self.share)
        region = Region(id=next(ids), source=source, kind="object", box=box, label="thing", scores=Scores(label=score))
        yield region
        quad = (0, 0, width, 0, width, height, 0, height)
        yield replace(region, id=next(ids), kind="proposal", label=None, quad=quad)
        yield Mask(
            id=next(ids),
            source=source,
            region_id=region.id,
            size=(height, width),
            counts=encode_mask(np.ones((height, width), bool)),
        )
        yield RegionText(id=next(ids), source=source, region_id=region.id, text=self.words[0])
        text = Text(id=next(ids), source=source, text=SAYS, detail="brief", derived_from=(region.id,))
        yield text
        yield Triplet(id=next(ids), source=source, text_id=text.id, start=0, stop=7, region_ids=(region.id,))
        for judged in (text, *list(sample.standing.texts)[:1]):
            yield Decision(annotation_id=judged.id, action="keep", by=source, reason="liked", value=score)


@dataclass
class Slight(Thorough):
    """For rules about a whole answer: one region in it."""

    def all_of(self, sample: Sample) -> Iterator[Entry]:
        yield next(super().all_of(sample))


def test_those_that_keep_the_rules_pass() -> None:
    check_specialist(Thorough())
    check_specialist(Thorough(name="other", share=0.5, words=("this", "that")), samples()[:3])
    check_specialist(Slight())
    check_specialist(Brightness())


# What is wrong before anything is annotated.


class NoDataclass:
    name = "thorough"


@dataclass(eq=False)
class Incomparable(Thorough):
    pass


@dataclass
class Nameless:
    share: float = 1.0
    name: ClassVar[str] = "nameless"


@dataclass
class Indescribable(Thorough):
    model: Callable[[int], int] = abs


@dataclass
class Swelling(Thorough):
    label: str = "x"

    def __post_init__(self) -> None:
        self.label += "!"


@dataclass
class Numbered(Thorough):
    number: int = field(init=False)
    count: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Numbered.count += 1
        self.number = Numbered.count


@dataclass
class Locked(Thorough):
    def __post_init__(self) -> None:
        self.lock = threading.Lock()


@dataclass
class Forgetful(Thorough):
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "share": 0.25}


@dataclass
class Heavy(Thorough):
    def __post_init__(self) -> None:
        self.weights = bytes(2_000_000)


class Unlicensed(Thorough):
    licence: ClassVar[str] = " "


class Unversioned(Thorough):
    version: ClassVar[str] = ""


class Lost(Thorough):
    @property
    def version(self) -> str:  # type: ignore[override]
        raise FileNotFoundError("weights.bin is not there")


class Undecided(Thorough):
    @property
    def version(self) -> str:  # type: ignore[override]
        return f"{id(self)}"


class Unloadable(Thorough):
    def setup(self) -> None:
        raise FileNotFoundError("weights.bin is not there")


@pytest.mark.parametrize(
    ("component", "rule", "says"),
    [
        (Thorough, "instance", "Thorough"),
        (NoDataclass(), "dataclass", "NoDataclass"),
        (Incomparable(), "dataclass", "Incomparable"),
        (Nameless(), "name", "nameless"),
        (Thorough(name=""), "name", "''"),
        (Indescribable(), "describable", "Callable|function"),
        (Thorough(share=float("nan")), "describable", "nan|NaN"),
        (Thorough(share=7), "describable", "less than or equal to 1"),
        (Swelling(), "describable", "x!!"),
        (Numbered(), "describable", "another number"),
        (Locked(), "picklable", "lock"),
        (Forgetful(), "picklable", "0.25"),
        (Heavy(), "light", "2000"),
        (Unlicensed(), "licence", "' '"),
        (Unversioned(), "version", "''"),
        (Lost(), "version", "weights.bin is not there"),
        (Undecided(), "version", r"\d+, \d+"),
        (Unloadable(), "setup", "weights.bin is not there"),
    ],
)
def test_what_can_not_be_built_and_sent_is_refused(component: Any, rule: str, says: str) -> None:
    refused(lambda: check_specialist(component), rule, says)


# What is wrong with an answer.


class Afraid(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        assert sample.image.shape[0] > 1, "too small"
        return entry


class Stacking(Thorough):
    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        np.stack([sample.image for sample in batch])
        return super().annotate(batch)


class Infinite(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, scores=Scores(label=float("inf"))) if isinstance(entry, Region) else entry


class Sparing(Thorough):
    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        return [self.said(sample) for sample in batch if sample.image.any()]


class Painting(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        sample.image[0] = 0
        return entry


class Forcing(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        sample.image.setflags(write=True)
        sample.image[0] ^= 1
        return entry


class Assigning(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        sample.record.texts = ()  # type: ignore[misc]
        return entry


class Erasing(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        object.__setattr__(sample.record, "parses", ())
        return entry


class Speaking(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return SAYS if isinstance(entry, Text) else entry


class Anonymous(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, source="somebody") if isinstance(entry, Mask) else entry


class HardWired(Thorough):
    """Right as long as the pipeline calls it by its own name."""

    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, source="thorough") if isinstance(entry, RegionText) else entry


class Own(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, id="region-0")


class FirstRound(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, id=entry.id.replace("1.", "0.", 1))


class Again(Slight):
    def all_of(self, sample: Sample) -> Iterator[Entry]:
        (region,) = super().all_of(sample)
        yield region
        yield region


class Dangling(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, region_id="0.nobody.0") if isinstance(entry, RegionText) else entry


class Sideways(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, size=entry.size[::-1]) if isinstance(entry, Mask) else entry


class Judging(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, action="reject") if isinstance(entry, Decision) else entry


class Quoting(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, by="somebody") if isinstance(entry, Decision) else entry


class Imagining(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, annotation_id="0.nobody.0") if isinstance(entry, Decision) else entry


class Listing(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, derived_from=list(entry.derived_from)) if isinstance(entry, Text) else entry


class Halving(Thorough):
    def all_of(self, sample: Sample) -> Iterator[Entry]:
        *rest, text = (entry for entry in super().all_of(sample) if isinstance(entry, Region | Text))
        yield from (*rest, text)
        counts: Any = {"objects": 1.5, "attributes": 0, "actions": 0, "proper_nouns": 0}
        counts |= {"max_object_complexity": 0, "max_action_complexity": 0}
        counts |= {"object_complexity": 0.0, "action_complexity": 0.0}
        id_ = text.id[:-1] + "9"
        yield Parse(id=id_, source=self.name, text_id=text.id, **counts)


class Outside(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        height, width = sample.image.shape[:2]
        return replace(entry, box=(width + 1, 0, width + 9, height))


class Elsewhere(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        width = sample.image.shape[1]
        return replace(entry, kind="text", quad=(0, -9, width, -9, width, -1, 0, -1))


class InShares(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, box=(0.0, 0.1, 0.9, 1.0))


class Scribbling(Thorough):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, counts=b"04") if isinstance(entry, Mask) else entry


@dataclass
class Wording(Thorough):
    """Says what it is told to."""

    of: str = "text"
    says: Annotated[str, Field()] = ""

    def changed(self, entry: Any, sample: Sample) -> Any:
        if self.of == "label" and isinstance(entry, Region):
            return replace(entry, label=self.says)
        return replace(entry, text=self.says) if self.of == "text" and isinstance(entry, RegionText) else entry


class Halved(Wording):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, text="\ud83d") if isinstance(entry, RegionText) else entry


@dataclass
class Pointing(Thorough):
    start: int = 0
    stop: int = 7
    says: str = SAYS

    def changed(self, entry: Any, sample: Sample) -> Any:
        if isinstance(entry, Text):
            return replace(entry, text=self.says)
        return replace(entry, start=self.start, stop=self.stop) if isinstance(entry, Triplet) else entry


@pytest.mark.parametrize(
    ("component", "rule", "says"),
    [
        (Afraid(), "no exception", r"AssertionError: too small.*pixel.png \(1 x 1, 0 annotations\)"),
        (Stacking(), "no exception", "a batch of 16, each of which is well alone"),
        (Infinite(), "no exception", "'label' must be a finite number"),
        (Sparing(), "one answer a sample", "15"),
        (Painting(), "only appends", "read-only"),
        (Forcing(), "only appends", "another one of"),
        (Assigning(), "only appends", "cannot assign to field"),
        (Erasing(), "only appends", "another one of /contract-kit/annotated scene.png"),
        (Speaking(), "annotations", SAYS),
        (Anonymous(), "signed", "somebody"),
        (HardWired(), "signed", "source 'contract_kit'.*got 'thorough'"),
        (Own(), "fresh ids", "region-0"),
        (FirstRound(), "fresh ids", r"1.thorough.0.*got '0.thorough.0'"),
        (Again(), "references", "0.thorough.0 twice"),
        (Dangling(), "references", "refers to 0.nobody.0"),
        (Sideways(), "references", r"size \(height, width\) \(144, 96\)"),
        (Judging(), "opinions", "reject"),
        (Quoting(), "opinions", "somebody"),
        (Imagining(), "opinions", "0.nobody.0"),
        (Listing(), "storable", r"derived_from=\['0"),
        (Halving(), "storable", "1.5"),
        (Outside(), "boxes", "wholly outside"),
        (Elsewhere(), "boxes", "wholly outside"),
        (InShares(), "boxes", "shares of the image's sides"),
        (Scribbling(), "masks", "no COCO run lengths"),
        (Wording(), "texts", "''"),
        (Wording(says=" \n"), "texts", r"' \\n'"),
        (Wording(of="label"), "texts", "''"),
        (Halved(), "texts", "ud83d"),
        (Pointing(stop=8), "spans", "'A thing '"),
        (Pointing(stop=6), "spans", "'A thin'"),
        (Pointing(start=3), "spans", "'hing'"),
        (Pointing(says="    A thing", stop=3), "spans", "'   '"),
        (Pointing(says="the cafe\u0301", start=4, stop=8), "spans", "'cafe'"),
    ],
)
def test_an_answer_that_can_not_be_meant_is_refused(component: Any, rule: str, says: str) -> None:
    refused(lambda: check_specialist(component), rule, says)


@pytest.mark.parametrize(
    "component",
    [
        Pointing(says="a dog's", start=2, stop=5),
        Pointing(says="一只狗在桌子旁边", start=2, stop=3),
        Pointing(says="the cafe\u0301", start=4, stop=9),
        Pointing(says="cup2 of 3", start=0, stop=3),
        Wording(says="\N{DOG} \0 كلب"),
        Wording(of="label", says="狗"),
    ],
)
def test_spans_and_words_of_any_script_pass(component: Any) -> None:
    check_specialist(component)


# What shows over many samples.


class Silent(Thorough):
    def all_of(self, sample: Sample) -> Iterator[Entry]:
        yield from ()


class Certain(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, scores=Scores(label=1.0))


class Calibrated(Slight):
    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, scores=Scores(label=entry.score, calibrated=entry.score))


class Counting(Slight):
    def setup(self) -> None:
        super().setup()
        self.count = 0

    def changed(self, entry: Any, sample: Sample) -> Any:
        self.count += 1
        return replace(entry, scores=Scores(label=float(self.count)))


@dataclass
class Guessing(Slight):
    library: str = "random"

    def changed(self, entry: Any, sample: Sample) -> Any:
        import torch

        guess = {"random": random.random, "numpy": np.random.random, "torch": lambda: torch.rand(()).item()}
        return replace(entry, scores=Scores(label=float(guess[self.library]())))


class Shuffling(Thorough):
    def all_of(self, sample: Sample) -> Iterator[Entry]:
        whole = [entry for entry in super().all_of(sample) if isinstance(entry, Region)]
        first, second = random.sample(whole, 2)
        yield replace(first, id=whole[0].id)
        yield replace(second, id=whole[1].id)


class Moody(Slight):
    def setup(self) -> None:
        super().setup()
        self.mood = random.random()

    def changed(self, entry: Any, sample: Sample) -> Any:
        return replace(entry, scores=Scores(label=entry.score + self.mood))


class Sorting(Slight):
    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        answers = [list(self.said(sample)) for sample in batch]
        values = sorted((answer[0].scores for answer in answers), key=lambda scores: scores.label)  # type: ignore[union-attr, arg-type, return-value]
        return [[replace(answer[0], scores=value)] for answer, value in zip(answers, values, strict=True)]  # type: ignore[call-arg]


@dataclass
class Leaning(Slight):
    """Its score moves with the batch; by how much is a parameter."""

    by: float = 0.1

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        shift = self.by * len(batch) / 16
        return [
            [replace(entry, scores=Scores(label=entry.scores.label + shift)) for entry in self.said(sample)]  # type: ignore[call-arg, operator, union-attr]
            for sample in batch
        ]


@dataclass
class Drifting(Slight):
    by: float = 0.3

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        shift = 1 - self.by * len(batch) / 16
        return [
            [replace(entry, box=(0.0, 0.0, entry.box[2] - shift, entry.box[3])) for entry in self.said(sample)]  # type: ignore[call-arg, union-attr]
            for sample in batch
        ]


LARGE = [sample for sample in samples() if min(sample.image.shape[:2]) > 2]


@pytest.mark.parametrize(
    ("component", "rule", "says"),
    [
        (Silent(), "something to check", "none over 16 samples"),
        (Certain(), "honest scores", "16 label scores of object regions, all 1.0"),
        (Calibrated(), "calibrated", r"0\.\d"),
        (Counting(), "same twice", "label=1.0"),
        (Guessing(), "global random state", "once Region"),
        (Guessing(library="numpy"), "global random state", "once Region"),
        (Guessing(library="torch"), "global random state", "once Region"),
        (Shuffling(), "global random state", "once Region"),
        (Moody(), "instances", "once Region"),
        (Sorting(), "order kept", "once Region"),
        (Leaning(), "alone as in a batch", "scene.png"),
    ],
)
def test_what_is_invented_or_left_to_chance_is_refused(component: Any, rule: str, says: str) -> None:
    refused(lambda: check_specialist(component), rule, says)


@dataclass
class Backwards(Slight):
    """The answers of a batch from its end."""

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        answers = [list(self.said(sample)) for sample in batch]
        scores = [entry.scores for (entry,) in answers[::-1]]  # type: ignore[union-attr]
        return [[replace(entry, scores=one)] for (entry,), one in zip(answers, scores, strict=True)]  # type: ignore[call-arg]


class Remembering(Slight):
    """Looks at the image before it in the batch."""

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Entry]]:
        shown = [batch[0], *batch[:-1]]
        means = [float(sample.image.mean()) for sample in shown]
        return [
            [replace(entry, scores=Scores(label=mean)) for entry in self.said(sample)]  # type: ignore[call-arg]
            for sample, mean in zip(batch, means, strict=True)
        ]


def test_an_order_that_is_not_kept_is_refused() -> None:
    refused(lambda: check_specialist(Remembering()), "order kept", "once Region")
    refused(lambda: check_specialist(Backwards()), "order kept", "once Region")


def test_a_constant_may_be_the_model_s_own() -> None:
    check_specialist(Certain(), constant_scores=True)
    check_specialist(Certain(), samples()[:4]), "too few to tell"


def test_tolerances_are_for_the_noise_of_a_batch() -> None:
    check_specialist(Leaning(by=5e-4))
    check_specialist(Leaning(by=0.1), score_tolerance=0.2)
    refused(lambda: check_specialist(Drifting(), LARGE), "alone as in a batch", "once Region")
    check_specialist(Drifting(), LARGE, pixel_tolerance=0.5)
    check_specialist(Drifting(by=0.03), LARGE)


def test_samples_of_one_s_own_are_checked_too() -> None:
    class_only = next(sample for sample in samples() if sample.record.texts)
    refused(lambda: check_specialist(Silent(), [class_only]), "something to check", "none over 1 samples")


# The comparison, and what there is to compare.


def test_order_counts_where_it_must_and_references_always_do() -> None:
    tolerance = Tolerance(1e-3, 0.05)
    left, right = (
        Region(id=f"0.a.{n}", source="a", kind="object", box=(9.0 * n, 0, 9.0 * n + 5, 5), label="dog") for n in (0, 1)
    )
    text = Text(id="0.a.2", source="a", text="A dog.", detail="brief", derived_from=("0.a.3",))
    names = Triplet(
        id="0.a.3", source="a", text_id="0.a.2", start=0, stop=5, region_ids=("0.a.0",), derived_from=("0.a.2",)
    )
    answer = [left, right, text, names]  # two of which derive from each other
    renamed = [replace(entry, id=entry.id.replace("a", "b"), source="b") for entry in (left, right)]
    assert difference([left, right], renamed, tolerance, ordered=True) == ""
    assert difference(answer, [right, text, names, left], tolerance, ordered=False) == ""
    assert "once Region" in difference(answer, [right, left, text, names], tolerance, ordered=True)
    other = replace(names, region_ids=("0.a.1",))
    assert difference(answer, [left, right, text, other], tolerance, ordered=False) != ""
    assert "once Region(id='0.a.1'" in difference([left, right], [left], tolerance, ordered=True)
    assert "once Region(id='0.a.1'" in difference([left], [left, right], tolerance, ordered=True)
    assert difference([left], [replace(left, box=(0.04, 0, 5, 5))], tolerance, ordered=True) == ""
    assert difference([left], [replace(left, box=(0.06, 0, 5, 5))], tolerance, ordered=True) != ""
    assert difference([left], [replace(left, label="cat")], tolerance, ordered=True) != ""


def test_masks_may_differ_by_a_pixel_of_an_edge() -> None:
    pixels = np.zeros((20, 30), bool)
    pixels[2:18, 3:27] = True
    masks = []
    for gone in (0, 1, 40):
        part = pixels.copy()
        part[2, 3 : 3 + min(gone, 24)] = False
        part[3, 3 : 3 + max(gone - 24, 0)] = False
        masks.append(Mask(id="0.a.1", source="a", region_id="0.b.0", size=(20, 30), counts=encode_mask(part)))
    whole, nearly, half = masks
    assert difference([whole], [nearly], Tolerance(0, 0), ordered=True) == ""
    assert difference([whole], [half], Tolerance(0, 0), ordered=True) != ""


def test_random_numbers_go_on_as_if_nothing_had_been() -> None:
    import torch

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded(7):
        inside = random.random(), np.random.random(), torch.rand(()).item()
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected
    with seeded(7):
        assert (random.random(), np.random.random(), torch.rand(()).item()) == inside


def test_samples_are_what_a_run_would_hand_on() -> None:
    made, again = samples(), samples()
    assert [sample.record for sample in made] == [sample.record for sample in again]
    assert len({sample.record.item.item_id for sample in made}) == len(made)
    for sample, same in zip(made, again, strict=True):
        assert np.array_equal(sample.image, same.image)
        assert sample.image.shape == (sample.record.item.height, sample.record.item.width, 3)
        assert sample.image.dtype == np.uint8
        assert max(sample.image.shape) <= 300
    sizes = {sample.image.shape[:2] for sample in made}
    assert {(1, 1), (1, 300), (300, 1)} <= sizes
    assert {sample.record.round for sample in made} == {0, 1}
    assert any(sample.record.fallen for sample in made)


def test_records_hold_every_kind_and_can_be_stored() -> None:
    given = [*records(), *(sample.record for sample in samples())]
    for record in given:
        tables = items_to_table([record.item]), annotations_to_table([record]), decisions_to_table([record])
        assert records_from_tables(*tables, round=record.round) == [record]
        cascade(record)
    whole = given[1]
    for some in (whole.texts, whole.parses, whole.regions, whole.region_texts, whole.masks, whole.triplets):
        assert some
    assert {region.kind for region in whole.regions} == {"object", "text", "proposal"}
    assert {text.detail for text in whole.texts} == {"brief", "detailed", "more_detailed"}
    for triplet in whole.triplets:
        text = whole.by_id[triplet.text_id]
        assert isinstance(text, Text)
        assert text.text[triplet.start : triplet.stop].split()[-1] in ("disc", "square", "sign")
        assert triplet.region_ids or text.text[triplet.start : triplet.stop] == "a white sign"


# Filters.


@dataclass(frozen=True)
class Strict:
    """Turns down regions, the larger of two, by the rules. Those below break one."""

    name: str = "strict"
    most: float = 100.0

    def decide(self, record: Record) -> Iterable[Decision]:
        for region in record.standing.regions:
            width = region.box[2] - region.box[0]
            if width > self.most:
                yield self.changed(record.reject(region, self.name, "too_wide", width, self.most), record)

    def changed(self, decision: Decision, record: Record) -> Any:
        return decision


def test_a_filter_by_the_rules_passes() -> None:
    check_filter(Strict())
    check_filter(Strict(name="other", most=0.0), records()[:2])


def test_a_filter_that_decides_nothing_is_not_checked_by_that() -> None:
    lenient = Strict(most=1e9)
    refused(lambda: check_filter(lenient), "something to check", "none over 8 records.*Give parameters")
    refused(lambda: check_filter(Strict(), []), "something to check", "none over 0 records")
    empty, *_ = records()
    wide = Region(id="0.mine.0", source="mine", kind="object", box=(0, 0, 2e9, 5))
    check_filter(lenient, [*records(), empty.append([wide])])


@dataclass
class Melting:
    name: str = "melting"

    def decide(self, record: Record) -> Iterable[Decision]:
        return ()


@dataclass(frozen=True)
class Optimistic(Strict):
    """Takes it for granted that there is something, and that it says something."""

    def decide(self, record: Record) -> Iterable[Decision]:
        longest = max(record.standing.texts, key=lambda text: len(text.text), default=None)
        if longest is not None:
            for text in record.standing.texts:
                if len(longest.text) / len(text.text) > self.most:
                    yield record.reject(text, self.name, "too_short")


@dataclass(frozen=True)
class Sized(Strict):
    def decide(self, record: Record) -> Iterable[Decision]:
        if record.item.width < 4:  # type: ignore[operator]
            yield from super().decide(record)


@dataclass(frozen=True)
class Unsettling(Strict):
    def decide(self, record: Record) -> Iterable[Decision]:
        return [record.reject(region, self.name, "too_wide") for region in record.regions]


@dataclass(frozen=True)
class Chatty(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return f"{decision.annotation_id} is too wide"


@dataclass(frozen=True)
class Signing(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, by="strict")


@dataclass(frozen=True)
class Adding(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, action="add")


@dataclass(frozen=True)
class Explaining(Strict):
    reason: str = "it is too wide"

    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, reason=self.reason)


@dataclass(frozen=True)
class Timeless(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, round=0)


@dataclass(frozen=True)
class Preferring(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, against="0.nobody.0")


@dataclass(frozen=True)
class Exact(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        return replace(decision, value=Fraction(1, 2))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tired(Strict):
    def decide(self, record: Record) -> Iterable[Decision]:
        count = vars(self).get("count", 0)
        object.__setattr__(self, "count", count + 1)
        yield from list(super().decide(record))[count % 2 :]


@dataclass(frozen=True)
class Noting(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        self.last = decision  # type: ignore[misc]
        return decision


@dataclass(frozen=True)
class Deleting(Strict):
    def changed(self, decision: Decision, record: Record) -> Any:
        object.__setattr__(record, "regions", ())
        return decision


@dataclass(frozen=True)
class Dicing(Strict):
    def decide(self, record: Record) -> Iterable[Decision]:
        return [decision for decision in super().decide(record) if random.random() < 0.5]


@dataclass(frozen=True)
class Hiding(Strict):
    """Decides by what is no field, and so is neither in the provenance nor in a worker."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", self.most)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "most": self.most, "limit": 0.0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def decide(self, record: Record) -> Iterable[Decision]:
        wide = (region for region in record.standing.regions if region.box[2] - region.box[0] > vars(self)["limit"])
        return [record.reject(region, self.name, "too_wide") for region in wide]


@dataclass(frozen=True)
class Barred(Strict):
    def __post_init__(self) -> None:
        object.__setattr__(self, "lock", threading.Lock())


@pytest.mark.parametrize(
    ("component", "rule", "says"),
    [
        (Strict, "instance", "Strict"),
        (Melting(), "frozen", "Melting"),
        (Strict(most=float("inf")), "describable", "JSON"),
        (Barred(), "picklable", "lock"),
        (Hiding(), "picklable", "too_wide"),
        (Optimistic(), "no exception", "ZeroDivisionError.*empty.png"),
        (Sized(), "no exception", "TypeError.*unread.png"),
        (Unsettling(), "standing", "one about 0.kit_detector.0"),
        (Chatty(), "decisions", "is too wide"),
        (replace(Signing(), name="wide"), "signed", "got 'strict'"),
        (Signing(), "signed", "'contract_kit'.*got 'strict'"),
        (Adding(), "actions", "add"),
        (Explaining(), "reasons", "it is too wide"),
        (Explaining(reason=""), "reasons", "got ''"),
        (Timeless(), "rounds", "round, 1; got 0"),
        (Preferring(), "against", "0.nobody.0"),
        (Exact(), "storable", "Fraction"),
        (Tired(), "pure", "once Decision.*once Decision"),
        (Noting(), "pure", "last"),
        (Deleting(), "pure", "another one"),
        (Dicing(), "global random state", "too_wide"),
    ],
)
def test_a_filter_that_breaks_a_rule_is_refused(component: Any, rule: str, says: str) -> None:
    refused(lambda: check_filter(component), rule, says)


def refused(check: Callable[[], None], rule: str, says: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check()
    message = str(raised.value)
    assert re.match(rf"{rule}: expected .+; got .*\. [A-Z].*\.$", message, re.DOTALL), message
    assert re.search(says, message, re.DOTALL), message
    message.encode()  # it can be printed
