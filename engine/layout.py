"""Where everything lies in an output folder.

out/
  .engine-lock                                           who runs; its presence says that the folder is ours
  config.yaml                                            the resolved configuration
  images/part-00000/shard-00000.parquet                  the manifest: one row an item
  images/manifest.json                                   what ingest found; written last
  given/part-00000/shard-00000.parquet                   annotations that came along with the images
  downloads/                                             images that were at http(s) URLs
  round-0/annotations/part-00000/shard-00000.parquet     immutable
  round-0/decisions/part-00000/shard-00000.parquet       written last: it says that the shard is done
  round-0/partitions/part-00000.json                     what a partition comes to whose shards are all done
  logs/<run id>.jsonl                                    what happened in a run; on an object store in parts
  round-0/progress.json                                  how it goes, for those who look from elsewhere
  round-0/near_duplicates.parquet                        images that look like another one
  round-0/sources.json, summary.json                     summary.json is written last
  round-0/training/fold-0/                               checkpoints, log.jsonl, TensorBoard, sample answers
  round-0/model/                                         a Florence-2 trained on the round; fold-0/, ... if several
  round-1/                                               what that model adds: annotations/, decisions/, ...
  round-1/merge/                                         what merging adds to that: annotations/, decisions/, ...
  round-1/round.json                                     what the round comes to, and whether it was accepted
  labels/                                                images that people labelled, by which rounds are judged
  evaluation/<digest>/                                   annotated sets that it was evaluated by, as in labels/
  contamination.parquet                                  images that are in evaluation sets, to be kept from models
  export/coco/                                           what stands, for others to read, by format
  report/index.html                                      a page to look at; gallery/, ... beside it if it is large
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.atomic import ASIDE, is_there, names_in, read_json, remedy, remove, remove_all
from engine.errors import OutputError
from engine.places import is_local

LOCK = ".engine-lock"  # the run's lock; a folder that has it was made by the engine


@dataclass(frozen=True, order=True, slots=True)
class ShardId:
    """A shard's place: its partition and its number there."""

    partition: int
    number: int

    def __str__(self) -> str:
        return f"part-{self.partition:05d}/shard-{self.number:05d}"

    @classmethod
    def of(cls, path: Path) -> ShardId:
        """The shard that a file of its is named after."""
        return cls(int(path.parent.name.removeprefix("part-")), int(path.stem.removeprefix("shard-")))


@dataclass(frozen=True)
class Layer:
    """The files of what was added together: annotations and, beside them, decisions."""

    folder: Path

    @property
    def sources(self) -> Path:
        return self.folder / "sources.json"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def progress(self) -> Path:
        """How the stage that makes it goes; see `engine.heartbeat`."""
        return self.folder / "progress.json"

    def closed(self, partition: int) -> Path:
        """Says that all shards of a partition are done; see `engine.partitions`."""
        return self.folder / "partitions" / f"part-{partition:05d}.json"

    def annotations(self, shard: ShardId) -> Path:
        return self.folder / "annotations" / f"{shard}.parquet"

    def decisions(self, shard: ShardId) -> Path:
        return self.folder / "decisions" / f"{shard}.parquet"


@dataclass(frozen=True)
class Round(Layer):
    """The files of one round."""

    @property
    def number(self) -> int:
        return int(self.folder.name.removeprefix("round-"))

    @property
    def merge(self) -> Layer:
        """What merging adds to the round."""
        return Layer(self.folder / "merge")

    @property
    def choice(self) -> Path:
        """Which images the round takes, where those are not all; see `engine.folds.Choice`."""
        return self.folder / "choice.json"

    @property
    def manifest(self) -> Path:
        """What the round was made of, what it comes to, and whether it was accepted; written last."""
        return self.folder / "round.json"

    @property
    def near_duplicates(self) -> Path:
        return self.folder / "near_duplicates.parquet"

    @property
    def training(self) -> Path:
        """What trainings of this round keep: checkpoints, logs and sample answers, a folder a fold."""
        return self.folder / "training"

    def model(self, fold: int = 0, folds: int = 1) -> Path:
        """The model trained on this round; of several, that which was kept from `fold`."""
        return self.folder / "model" if folds == 1 else self.folder / "model" / f"fold-{fold}"


@dataclass(frozen=True)
class Output:
    """An output folder. Nothing is created before something is written."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "images" / "manifest.json"

    def items(self, shard: ShardId) -> Path:
        return self.root / "images" / f"{shard}.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def given(self, shard: ShardId) -> Path:
        return self.root / "given" / f"{shard}.parquet"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def labels(self) -> Output:
        """Images that people labelled, by which rounds are judged: a manifest of its own, and what came along."""
        return Output(self.root / "labels")

    def evaluation(self, digest: str) -> Output:
        """Annotated sets that it was evaluated by: a manifest of their own, and what came along."""
        return Output(self.root / "evaluation" / digest)

    @property
    def contamination(self) -> Path:
        """Images that are in evaluation sets; see `engine.contamination`."""
        return self.root / "contamination.parquet"

    def round(self, number: int) -> Round:
        return Round(self.root / f"round-{number}")

    def rounds(self) -> list[Round]:
        """Those that are there, in order. What else has such a name, as a copy that somebody made, is not ours."""
        names = (re.fullmatch("round-(0|[1-9][0-9]*)", name) for name in names_in(self.root))
        return [self.round(number) for number in sorted(int(name[1]) for name in names if name)]

    def layers(self, number: int, shard: ShardId, *, merged: bool = True) -> list[tuple[int, Layer]]:
        """What makes up a shard in a round, in order, each with its round's number; with what merging added to the
        last one only if `merged`."""
        layers: list[tuple[int, Layer]] = []
        for before in range(number + 1):
            round_ = self.round(before)
            layers.append((before, round_))
            if is_there(round_.merge.decisions(shard)) and (merged or before < number):
                layers.append((before, round_.merge))
        return layers

    def shards(self) -> Iterator[ShardId]:
        """The shards of the manifest, in order. Raises OutputError where ingest has not ended."""
        if not is_there(self.manifest):
            raise OutputError(f"{self.root} has no manifest: nothing was ingested there, or ingest did not end")
        for number, partition in enumerate(read_json(self.manifest)["partitions"]):
            yield from (ShardId(number, shard) for shard in range(partition["shards"]))

    def counts(self) -> dict[ShardId, int]:
        """How many items each shard of the manifest holds."""
        counts = {}
        for number, partition in enumerate(read_json(self.manifest)["partitions"]):
            size = partition["shard_size"]
            for shard in range(partition["shards"]):
                counts[ShardId(number, shard)] = min(size, partition["items"] - shard * size)
        return counts

    def forget(self, shard: ShardId) -> None:
        """Removes what was made of a shard's items, in all rounds: they are about to be others."""
        for round_ in self.rounds():
            for layer in (round_, round_.merge):
                marker = layer.closed(shard.partition)
                for path in (marker, layer.summary, layer.decisions(shard), layer.annotations(shard)):
                    remove(path)
            remove(round_.near_duplicates)
            remove(round_.manifest)

    def check_ours(self) -> None:
        """Raises OutputError if it is anything but new, empty, or a folder that the engine made."""
        try:
            str(self.root).encode()  # Arrow opens no other
            there = names_in(self.root)
        except (OSError, UnicodeEncodeError) as error:
            name = os.fsencode(self.root).decode(errors="replace")
            raise OutputError(f"{name} can't be an output folder: {error}. Name another with --out.") from error
        if there and LOCK not in there:
            raise OutputError(
                f"{self.root} holds files that are no run's output ({', '.join(there[:3])}"
                f"{', ...' if len(there) > 3 else ''}). Name a new or empty folder with --out."
            )

    @property
    def has_lost_manifest(self) -> bool:
        """Whether manifest.json is gone, and not only unwritten yet: a killed ingest leaves no round."""
        if is_there(self.manifest):
            return False
        made = ("annotations", "decisions", "partitions")
        return any(names_in(round_.folder / name) for round_ in self.rounds() for name in made)

    def check_manifest(self) -> None:
        """Raises OutputError if it was lost. An ingest anew might cut the set in another way, and would remove what was
        made of it."""
        if not self.has_lost_manifest:
            return
        images = self.manifest.parent
        with_shards = any(name.startswith("part-") for name in names_in(images))
        way_out = remedy(self.manifest) if with_shards else f"So are all shards: bring back {images} from a copy."
        raise OutputError(
            f"{self.manifest} is missing, and what was made of its images is there. {way_out} "
            "Or start afresh with --overwrite."
        )

    def clear(self) -> None:
        """Removes what the engine wrote, and nothing else. Links are removed, not followed."""
        self.check_ours()
        images = self.root / "images"
        written = [
            self.config,
            self.manifest,
            *(images / name for name in names_in(images) if re.fullmatch("part-[0-9]{5,}", name)),
            *(round_.folder for round_ in self.rounds()),
        ]
        written += [self.root / "export", self.root / "given", self.downloads, self.report.parent, self.labels.root]
        written += [self.root / "evaluation", self.root / "logs", self.contamination]
        for path in written:
            remove_all(path)

    def sweep(self) -> None:
        """As `sweep`, of all that is in it."""
        sweep(self.root)


def sweep(root: Path) -> None:
    """Removes the files below `root` that killed runs left half-written. Only for whoever holds its lock. On a store
    parts of a large file that were sent and never put together are no file: its own rules remove them."""
    if not is_local(root):
        return
    for folder, _, names in os.walk(root):
        for name in names:
            if ASIDE.fullmatch(name):
                (Path(folder) / name).unlink(missing_ok=True)
