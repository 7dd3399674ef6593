"""Evaluating a set: what stands in each round, and what each source made, held against what somebody says is true.

The truth is any annotated set, or what stands in another output folder; see `engine.truth`.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from engine.atomic import read_json
from engine.config import Config, Ingest
from engine.dataset import Dataset
from engine.errors import ConfigError, OutputError, is_forbidden
from engine.files import is_folder
from engine.flat import Flat, Ints, flatten
from engine.layout import Output, ShardId
from engine.lock import run_lock
from engine.records import HUMAN
from engine.said import Said, equal, gathered, numbers_of
from engine.stats import OBEYED
from engine.storage import read_shard, read_table
from engine.truth import SHOWN, UNREAD, Told, Truth, adopt, annotated, is_output, matched, told_by
from engine.uris import is_url
from engine.versions import digest_of_json
from engine.vocabulary import Vocabulary
from florence2.errors import Florence2Error
from pipelines.evaluation.captions import Captions
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.comparing import compared
from pipelines.evaluation.lines import Ocr
from pipelines.evaluation.listed import listed_classes
from pipelines.evaluation.measured import Judged, Kind, Measured
from pipelines.evaluation.objects import Detection
from pipelines.evaluation.phrases import Grounding, Referring

VERSION = 3  # of what `run` gives, and of what is kept of a truth


@dataclass(frozen=True)
class Images:
    """The images that are looked at: ids of the set in hex, and sizes (height, width)."""

    ids: list[str]
    sizes: list[tuple[int, int]]


KINDS: dict[str, Callable[[Said, Classes, Images], Kind]] = {
    "detection": lambda truth, classes, images: Detection(truth, classes, images.ids, images.sizes),
    "masks": lambda truth, classes, images: Detection(truth, classes, images.ids, images.sizes, masks=True),
    "captions": lambda truth, classes, images: Captions(truth, images.ids),
    "grounding": lambda truth, classes, images: Grounding(truth, classes, images.ids),
    "referring": lambda truth, classes, images: Referring(truth, images.ids),
    "ocr": lambda truth, classes, images: Ocr(truth, images.ids),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: what stands in a round, or what a source made, in one `made_in`, or stands of it."""

    name: str
    round: int
    standing: bool
    said: Said
    source: str | None = None
    made_in: int | None = None
    same_as: str | None = None  # another row, where all of it stands: measuring takes seconds


@dataclass(frozen=True)
class Evaluation:
    """Of `dataset` as it is in its round, with all rounds before."""

    dataset: Dataset
    config: Config
    kind: str
    paths: Sequence[str]
    source: str | None = None
    label_map: Vocabulary | None = None

    def run(self) -> dict[str, Any]:
        """All that is told, as JSON. ConfigError for a truth that does not fit."""
        if not all(map(str.strip, self.paths)):
            raise ConfigError("--truth: expected the path of an annotated set or output folder, not an empty one")
        if self.kind not in KINDS:
            raise ConfigError(f"--kind {self.kind}: no such kind; there are {', '.join(KINDS)}")
        rows = list(self.rows())
        try:
            measured = self.measured(rows)
            judged = self.judged(rows, measured)
        except Florence2Error as error:
            raise ConfigError(f"--truth {', '.join(self.paths)}: {error}") from error
        except ConfigError as error:
            raise ConfigError(". ".join([str(error), *_outside(self.truth), *_untaken(self.truth)])) from error
        self._check_classes(measured)
        protocol = next(iter(measured.values())).protocol
        return {
            "version": VERSION,
            "kind": self.kind,
            "round": self.dataset.round,
            "truth": self.about_truth(),
            "rows": [self._told(row, measured[row.name]) for row in rows],
            "never found": self.never_found(),
            "where": self.where(judged, measured),
            "protocol": f"{protocol}. {self._protocol(bool(judged))}",
            "notes": [*self._notes(rows), *self.asked.notes],
        }

    # The truth

    @cached_property
    def truth(self) -> Truth:
        """What is told of images of the set. Ingested once, into a folder of its own."""
        asked = self.config.ingest.model_copy(
            update={
                "images": tuple(self.paths),
                "limit": None,
                "class_folders": False,
                "image_root": None,
                "source": HUMAN,
            }
        )
        output = self.dataset.output
        there = output.evaluation(_digest(output, asked))
        try:
            with run_lock(output.root / "evaluation", reads=True):
                told = told_by(asked, there)
                if annotated(asked).images:
                    adopt(there, asked, output)
        except ConfigError as error:
            raise ConfigError(f"--truth: {error}") from error
        except OSError as error:
            if not is_forbidden(error):
                raise
            raise OutputError(
                f"{there.root} can't be written ({error.strerror}), where what --truth says is kept. "
                f"{self._elsewhere(asked)}"
            ) from error
        truth = matched(output, told)
        if not truth.shards:
            place = f"; the first was looked for at {truth.unread[0].uri}" if truth.unread else ""
            raise ConfigError(
                f"--truth {', '.join(self.paths)}: none of its {truth.listed} images is one of the {output.root} set: "
                "neither by their bytes nor, where those can't be read, by their place or by a file name that only one "
                f"has. {'; '.join(_outside(truth))}{place}"
            )
        return truth

    def _elsewhere(self, asked: Ingest) -> str:
        """What to do where nothing can be kept beside the set. A truth whose images are not beside it is known by the
        names of the set's only there: elsewhere it has to be told where these are."""
        outputs = [path for path in self.paths if is_output(path)]
        folder = next((path for path in self.config.ingest.images if not is_url(path) and is_folder(path)), "FOLDER")
        made = shlex.join(["engine", "import", *annotated(asked).images, "--image-root", folder, "--out", "TRUTH"])
        named = [word for path in ("TRUTH", *outputs) for word in ("--truth", path)]
        command = ["engine", "evaluate", str(self.dataset.output.root), *named, "--kind", self.kind]
        return (
            f"Make a dataset of it elsewhere, which is read where it is: {made}, then {shlex.join(command)}. "
            "--image-root is the folder of the set's images; leave it out where the truth has its own beside it"
        )

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of the images that have truth, by id in hex."""
        return {id_.hex(): number for number, id_ in enumerate(self.truth.shards)}

    @cached_property
    def images(self) -> Images:
        sizes = [(0, 0)] * len(self.numbers)
        for shard in self.shards:
            table = read_table(self.dataset.output.items(shard), ["item_id", "height", "width"])
            for row in table.to_pylist():
                if (number := self.numbers.get(row["item_id"].hex())) is not None:
                    sizes[number] = row["height"], row["width"]
        return Images(list(self.numbers), sizes)

    @cached_property
    def shards(self) -> list[ShardId]:
        return sorted(set(self.truth.shards.values()))

    @cached_property
    def failed(self) -> dict[str, int]:
        """By kind of error the images that have truth, and that the set has in quarantine."""
        there = Told(self.dataset.output, self.dataset.round)
        errors: Counter[str] = Counter()
        for shard in self.shards:
            for image in there.images(shard):
                if image["error"] and image["item_id"].hex() in self.numbers:
                    errors[image["error"]["kind"]] += 1
        return dict(sorted(errors.items()))

    @cached_property
    def asked(self) -> Kind:
        def parts() -> Iterator[tuple[Flat, Ints]]:
            for part in self.truth.parts:
                flat = flatten(part.told.tables(part.shard))
                numbers = np.full(len(flat.images), -1)
                for row, id_ in part.rows.items():
                    numbers[row] = self.numbers[id_.hex()]
                yield flat, numbers

        return KINDS[self.kind](gathered(parts()), self.classes, self.images)

    @cached_property
    def classes(self) -> Classes:
        of_classes = self.kind in ("detection", "masks", "grounding")
        paths = [path for path in self.paths if of_classes and not is_output(path)]
        try:
            listed = listed_classes(paths)
        except ValueError as error:  # of files that were read before
            raise ConfigError(f"--truth {', '.join(paths)}: {error}") from error
        return Classes(self.config.vocabulary, self.label_map, listed)

    # What is held against it

    def rows(self) -> Iterator[Row]:
        """What stands in each round up to the dataset's; and of each source what it made, and what of that stands."""
        number = self.dataset.round
        standing = {n: self.said(n) for n in range(number + 1)}
        made, mains = self.said(number, standing=False), self.asked.mains
        kind = self.asked.region_kind
        of_kind = made if kind is None else made.only("regions", equal(made["regions"]["kind"], kind))
        makers = of_kind.makers(mains)
        sources = sorted({source for source, _ in makers})
        if self.source is None:
            for n, said in standing.items():
                yield Row(f"round {n}, standing", n, True, said)
        elif self.source not in sources:
            raise ConfigError(
                f"--source {self.source}: it made nothing of this kind in the images that have truth; those that did: "
                f"{', '.join(sources) or 'none'}"
            )
        for source, round_ in makers:
            if self.source in (None, source):
                several = sum(name == source for name, _ in makers) > 1
                name = f"{source} (round {round_})" if several else source
                own, stands = (said.by(source, round_, mains) for said in (made, standing[number]))
                yield Row(f"{name}, made", number, False, own, source, round_)
                same_as = f"{name}, made" if stands.is_all_of(own, mains) else None
                yield Row(f"{name}, standing", number, True, stands, source, round_, same_as)

    def said(self, number: int, *, standing: bool = True) -> Said:
        def parts() -> Iterator[tuple[Flat, Ints]]:
            for shard in self.shards:
                flat = flatten(
                    read_shard(self.dataset.output, number, shard, columns=self.asked.reads), standing=standing
                )
                ids = flat.images["item_id"].to_pylist()
                yield flat, np.array([self.numbers.get(id_, -1) for id_ in ids])

        return gathered(parts())

    def judged(self, rows: Sequence[Row], measured: dict[str, Measured]) -> dict[str, Judged]:
        """Of each source what it made, where scores have a threshold from that on: how many boxes it gives below the
        score of its best F1 is a matter of settings, and would count against it."""
        found: dict[str, Judged] = {}
        for row in rows:
            if row.source and not row.standing:
                judged = self.asked.judge(_from(measured[row.name].numbers.get("threshold"), row.said))
                if judged is not None:
                    found[row.name.removesuffix(", made")] = judged
        return found

    def measured(self, rows: Sequence[Row]) -> dict[str, Measured]:
        measured: dict[str, Measured] = {}
        for row in rows:
            same = measured.get(row.same_as or "")
            measured[row.name] = same or self.asked.measure(row.said, standing=row.source is None)
        return measured

    # What is told

    def where(self, judged: dict[str, Judged], measured: dict[str, Measured]) -> dict[str, Any] | None:
        if not judged:
            return None
        how = "better" if self.kind == "captions" else "right"
        numbers = {name: measured[f"{name}, made"].numbers for name in judged}
        thresholds = {name: own["threshold"] for name, own in numbers.items() if "threshold" in own}
        return {"by": self.asked.by, "how": how, "thresholds": thresholds, **compared(self.asked.strata, judged)}

    def never_found(self) -> dict[str, Any] | None:
        """Classes of the truth that nothing in the set has."""
        if not isinstance(self.asked, Detection):
            return None
        share, names = self.asked.never_met()
        return {"share": share, "classes": len(names), "first": names[:10]}

    def about_truth(self) -> dict[str, Any]:
        truth = self.truth
        return {
            "paths": [str(path) for path in self.paths],
            "listed": truth.listed,
            "images": len(truth.shards),
            "matched": dict(truth.how),
            "strangers": {"count": len(truth.strangers), "first": [_name(uri) for uri in truth.strangers[:SHOWN]]},
            "unread": dict(truth.errors),
            "first unread": [asdict(one) for one in truth.unread],
            "faults": dict(truth.faults),
            "first faults": [{"image": one.uri or None, **asdict(one.fault)} for one in truth.untaken],
            "told twice": truth.twice,
        }

    def _told(self, row: Row, measured: Measured) -> dict[str, Any]:
        return {
            "name": row.name,
            "what": "standing" if row.standing else "made",
            "round": row.round,
            "source": row.source,
            "made in round": row.made_in,
            **measured.told(),
        }

    def _protocol(self, judging: bool) -> str:
        of_objects = self.kind in ("detection", "masks")
        classes = f"; {self.classes.protocol}; {self.classes.counted}" if of_objects else ""
        judged = f". Who is right, where: {self.asked.judging}" if judging else ""
        return (
            "A row of what stands is of all sources; of a source it is what it made in one round, and what of that "
            "stands in the last one. Images of the truth are those of the set with the same bytes; where they can't be "
            "read, those at the same place, or of a file name that only one has. Where two images of the truth "
            "are the same one, what the first says counts: those of output folders come before those of annotated "
            "sets, of which COCO's files are the first and Open Images' the second, all in the order of "
            f"--truth{classes}{judged}"
        )

    def _notes(self, rows: Sequence[Row]) -> Iterator[str]:
        truth = self.truth
        yield from _outside(truth)
        yield from _untaken(truth)
        if self.failed:
            yield (
                f"{sum(self.failed.values())} images that have truth are in quarantine in the set "
                f"({_counted(self.failed)}): what is in them counts as not found"
            )
        if truth.twice:
            yield f"{truth.twice} images of the truth have the bytes of another one: what the first one says counts"
        never = self.never_found()
        if never and never["classes"]:
            told = ", ".join(never["first"]) + (", ..." if never["classes"] > len(never["first"]) else "")
            share = f"{never['share']:.1%} of the truth's objects"
            yield f"{share} are of {never['classes']} classes that no row has: {told}"
        if any(row.source == HUMAN for row in rows):
            yield "people's own annotations are part of the set: if the truth came from them, they prove nothing"

    def _check_classes(self, measured: dict[str, Measured]) -> None:
        """Raises ConfigError where rows have labels, and none of them is one of the truth's."""
        labels = sum(one.labels for one in measured.values())
        if not isinstance(self.asked, Detection) or not labels:
            return
        unmapped = sum(sum(one.unmapped.values()) for one in measured.values())
        if unmapped == labels:
            words = sum((one.unmapped for one in measured.values()), start=next(iter(measured.values())).unmapped)
            said = ", ".join(word for word, _ in words.most_common(10))
            raise ConfigError(
                f"--truth {', '.join(self.paths)}: its classes and the set's have no name in common. None of the set's "
                f"labels is a class of the truth (100 % unmapped): {said}. Classes of the truth that the set has not: "
                f"{', '.join(self.asked.categories[:10])}. Say which is which with --label-map: YAML, classes: "
                "{dog: {synonyms: [puppy]}}"
            )


def to_json(told: dict[str, Any]) -> str:
    """With characters that terminals obey written as JSON's own escapes."""
    document = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _digest(output: Output, asked: Ingest) -> str:
    """Of where the truth is, how it is read and kept, and the set that it is of."""
    settings, manifest = asked.model_dump(mode="json", exclude={"http"}), read_json(output.manifest)
    return digest_of_json([VERSION, settings, manifest["listed"], manifest["errors"]])


def _from(threshold: float | None, made: Said) -> Said:
    """What a source made with a score of its own that reaches the threshold; without one all of it."""
    if threshold is None:
        return made
    return made.only("regions", numbers_of(made["regions"]["label_score"]) >= threshold)


def _outside(truth: Truth) -> Iterator[str]:
    """Which images of the truth are none of the set's, and why."""
    if truth.strangers:
        yield f"{len(truth.strangers)} images of the truth are not in the set: {_first(truth.strangers)}"
    if unread := sum(truth.errors.values()):
        first = ", ".join(f"{_name(one.uri)[:100]} ({one.kind})" for one in truth.unread)
        yield (
            f"{unread} images of the truth could not be read, nor known by place or name, or are in quarantine there "
            f"({_counted(truth.errors)}): {first}{', ...' if unread > len(truth.unread) else ''}"
        )


def _untaken(truth: Truth) -> Iterator[str]:
    """Which annotations of the truth don't fit, and why."""
    faults = {kind: count for kind, count in truth.faults.items() if kind != UNREAD}
    if not faults:
        return
    first = []
    for one in truth.untaken:
        image = f" ({_name(one.uri)[:100]})" if one.uri else ""
        first.append(f"{one.fault.where[:100]}{image}: {one.fault.kind}: {one.fault.message[:200]}")
    more = "; ..." if sum(faults.values()) > len(first) else ""
    yield (
        f"{sum(faults.values())} annotations of the truth could not be taken as they are ({_counted(faults)}): where "
        f"one is missing, what is right counts as wrong. The first: {'; '.join(first)}{more}"
    )


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items())


def _name(uri: str) -> str:
    return uri.rpartition("/")[2] or uri


def _first(uris: Sequence[str]) -> str:
    told = ", ".join(_name(uri)[:100] for uri in uris[:SHOWN])
    return told + (", ..." if len(uris) > SHOWN else "")
