"""Small real components for tests of the machinery: quick, deterministic, and troublesome over chosen images."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from engine.errors import RunError
from engine.protocols import Reads, Sample
from engine.records import AnyAnnotation, Decision, Record, Region, Scores, Text


@dataclass
class Brightness:
    """One region over the whole image, scored by its mean brightness."""

    name: str = "brightness"
    troubles: dict[str, str] = field(default_factory=dict)  # file name -> what happens on it
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None:
        self.ready = True

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        assert self.ready
        for sample in batch:
            self._trouble(Path(sample.record.item.uri))
        return [self._regions(sample) for sample in batch]

    def _regions(self, sample: Sample) -> list[AnyAnnotation]:
        height, width = sample.image.shape[:2]
        score = float(sample.image.mean()) / 255
        ids = sample.record.ids(self.name)
        box = (0.0, 0.0, float(width), float(height))
        label: Any = {"surrogate": "\ud800", "number": 7}.get(self._troubles_of(sample), "thing")
        return [Region(id=next(ids), source=self.name, kind="object", box=box, label=label, scores=Scores(label=score))]

    def _troubles_of(self, sample: Sample) -> str:
        return self.troubles.get(Path(sample.record.item.uri).name, "")

    def _trouble(self, path: Path) -> None:
        match self.troubles.get(path.name):
            case "raise":
                raise ValueError(f"can't bear {path.name}")
            case "stop":
                raise RunError("the budget is spent")
            case "sleep":
                time.sleep(600)
            case "hang":  # native code that holds the interpreter's lock: no Python thread could end this
                ctypes.PyDLL(None).sleep(600)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(0)
            case "kill once" if not path.with_suffix(".killed").exists():
                path.with_suffix(".killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Unloadable:
    """Weights that aren't there, or whose loading ends the process."""

    name: str = "unloadable"
    how: str = "raise"
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None:
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FileNotFoundError("weights.bin is not there")

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        raise AssertionError("never reached")


@dataclass(frozen=True)
class Dark:
    """Turns down what is darker than a threshold."""

    name: str = "dark"
    threshold: float = 0.5

    def decide(self, record: Record) -> Iterable[Decision]:
        for region in record.standing.regions:
            score = region.scores.label
            if score is not None and score < self.threshold:
                yield Decision(
                    annotation_id=region.id,
                    action="reject",
                    by=self.name,
                    reason="too_dark",
                    value=score,
                    threshold=self.threshold,
                )


@dataclass(frozen=True)
class Broken:
    """A filter that raises."""

    name: str = "broken"

    def decide(self, record: Record) -> Iterable[Decision]:
        raise ZeroDivisionError("it had to happen")


@dataclass
class Looker:
    """Reads the image alone. One region, scored by its brightness times `gain`. It writes down in `diary` which images
    it was asked about, and that it was loaded; it can't bear those for which a file "<name>.bad" lies beside that."""

    name: str = "looker"
    diary: str = ""
    gain: float = 1.0
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"
    reads: ClassVar[Reads] = "image"

    def setup(self) -> None:
        self.ready = True
        noted(self.diary, self.name, "loaded")

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        assert self.ready
        for sample in batch:
            noted(self.diary, self.name, Path(sample.record.item.uri).name)
            if Path(self.diary).with_name(f"{Path(sample.record.item.uri).name}.bad").exists():
                raise ValueError("can't bear it")
        return [[self._region(sample)] for sample in batch]

    def _region(self, sample: Sample) -> Region:
        height, width = sample.image.shape[:2]
        score = min(self.gain * float(sample.image.mean()) / 255, 1.0)
        box = (0.0, 0.0, float(width), float(height))
        id_ = next(sample.record.ids(self.name))
        return Region(id=id_, source=self.name, kind="object", box=box, label="thing", scores=Scores(label=score))


@dataclass
class Teller:
    """Reads the record. A text about what stands, made from it, and an opinion of each region that does. Diary as
    above."""

    name: str = "teller"
    diary: str = ""
    word: str = "things"
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None:
        self.ready = True
        noted(self.diary, self.name, "loaded")

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation | Decision]]:
        assert self.ready
        for sample in batch:
            noted(self.diary, self.name, Path(sample.record.item.uri).name)
        return [list(self._said(sample)) for sample in batch]

    def _said(self, sample: Sample) -> Iterable[AnyAnnotation | Decision]:
        regions = sample.standing.regions
        made_from = tuple(region.id for region in regions)
        text = f"{len(regions)} {self.word} of {sum(r.scores.label or 0 for r in regions):.4f}"
        id_ = next(sample.record.ids(self.name))
        yield Text(id=id_, source=self.name, derived_from=made_from, text=text, detail="brief")
        for region in regions:
            yield Decision(annotation_id=region.id, action="keep", by=self.name, reason="liked", value=0.5)


def noted(diary: str, *words: str) -> None:
    with open(diary, "a") as file:
        file.write(" ".join(words) + "\n")
