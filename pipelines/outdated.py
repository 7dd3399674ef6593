"""What an update would make again, and why: for `engine plan`, and for who is refused to go on without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.atomic import is_there, read_json
from engine.layout import Output
from engine.partitions import MadeBy, closed, decided, made_by, partitions
from engine.protocols import reads_of
from engine.recompute import DECODE
from pipelines.build import Pipeline

OWN, STOPPED, DECODER, FILTERS, VOCABULARY = (
    "its code, weights or parameters changed",
    "an --update was stopped",
    "the decoder of images changed",
    "it goes by what stands, and the filters changed",
    "the vocabulary changed",
)
NEW = "it is new"
FOLLOWING = ("it reads", "it goes by")  # how the reasons of sources begin that follow another change


@dataclass(frozen=True)
class SourceStatus:
    """A source of round 0: why it is made again ("" if it stays), and for how many images."""

    name: str
    why: str = ""
    images: int = 0


@dataclass(frozen=True)
class Outdated:
    """What an update would do. Images that are not annotated yet are no part of it, but in `missing`."""

    sources: tuple[SourceStatus, ...]
    removed: tuple[str, ...]  # sources whose annotations would go
    images: int  # in shards that would be made again
    decided_again: int  # images, by other filters
    missing: int
    shards: int  # that are missing, or would be made again
    later: tuple[str, ...]  # what stands on it, and what to do with that

    @property
    def by_filters_alone(self) -> bool:
        """Whether all is annotated, and nothing changed but filters: they may decide again without any specialist."""
        whys = [source.why for source in self.sources if source.why]
        followed = all(why == FILTERS or why.startswith(FOLLOWING) for why in whys)
        return bool(self.decided_again) and followed and not self.removed and not self.missing

    def told(self) -> str:
        """A sentence: what --update makes again, and what stays."""
        kept = [source.name for source in self.sources if not source.why]
        staying = f"; {_list(kept)} {'stays' if len(kept) == 1 else 'stay'}" if kept and self.images else ""
        images = max(self.images, self.decided_again)
        return " ".join([f"--update {self._what()}, for {images} images{staying}.", *self.later])

    def _what(self) -> str:
        again = [source for source in self.sources if source.why]
        own = [source.name for source in again if not source.why.startswith(FOLLOWING)]
        following = [source.name for source in again if source.why.startswith(FOLLOWING)]
        builds = f"what builds on {'it' if own or self.removed else 'what stands'} ({', '.join(following)})"
        made = [*own, *([builds] if following else [])]
        parts = [f"takes out {_list(self.removed)}"] if self.removed else []
        parts += [f"makes {_list(made)} again"] if made else []
        return " and ".join(parts) or ("decides again" if self.decided_again else "goes through the shards again")


def outdated(output: Output, pipeline: Pipeline) -> Outdated:
    """Costs by the open partitions. Raises OutputError where ingest has not ended."""
    asked = MadeBy(pipeline.annotate_digest, pipeline.filter_digest, pipeline.source_digests)
    images: Counter[str] = Counter()
    again = Counter({"images": 0, "decided": 0, "missing": 0, "shards": 0})
    for there, items, shards in _made(output):
        if there is None:
            again["missing"] += items
            again["shards"] += shards
            continue
        stale = [name for name, digest in asked.sources.items() if there.sources.get(name) != digest]
        images.update(dict.fromkeys(stale, items))
        if there.annotate != asked.annotate or dict(there.sources) != dict(asked.sources):
            again["images"] += items
            again["shards"] += shards
        if there.filter != asked.filter:
            again["decided"] += items
    path = output.round(0).sources
    said = read_json(path) if is_there(path) else {"sources": {}, "filters": ""}
    reasons = _reasons(pipeline, said, images)
    return Outdated(
        tuple(SourceStatus(s.name, reasons[s.name], images[s.name]) for s in pipeline.specialists),
        tuple(name for name in said["sources"] if name not in asked.sources),
        again["images"],
        again["decided"],
        again["missing"],
        again["shards"],
        tuple(standing_on(output)) if again["images"] or again["decided"] else (),
    )


def _made(output: Output) -> Iterator[tuple[MadeBy | None, int, int]]:
    """What made the partitions of round 0, or their shards; None what is not done; with how many images and shards."""
    round_ = output.round(0)
    markers = closed(output, round_)
    for partition in partitions(output):
        if marker := markers.get(partition.number):
            yield marker.made_by, partition.items, len(partition.shards)
            continue
        there = decided(round_, partition)
        for shard in partition.shards:
            yield made_by(round_, shard) if shard in there else None, partition.count([shard]), 1


def _reasons(pipeline: Pipeline, said: Mapping[str, Any], stale: Mapping[str, int]) -> dict[str, str]:
    """Why each source is made again, the nearest cause first."""
    reasons: dict[str, str] = {}
    sources = pipeline.sources
    for specialist in pipeline.specialists:
        name = specialist.name
        changed = [before for before, why in reasons.items() if why]
        if not stale[name]:
            reasons[name] = ""
        elif name not in said["sources"]:
            reasons[name] = NEW
        elif said["sources"][name] != sources[name]:
            reasons[name] = OWN
        elif said.get("updating"):
            reasons[name] = STOPPED
        elif stale[DECODE]:
            reasons[name] = DECODER
        elif reads_of(specialist) == "record" and (changed or (gone := _gone(said, sources))):
            reasons[name] = f"it reads {_list(changed or gone)}"
        elif reads_of(specialist) == "record" and said["filters"] != pipeline.filter_digest:
            reasons[name] = FILTERS
        else:
            reasons[name] = VOCABULARY
    return reasons


def _gone(said: Mapping[str, Any], sources: Mapping[str, Any]) -> list[str]:
    return [name for name in said["sources"] if name not in sources]


def standing_on(output: Output) -> Iterator[str]:
    """What stands on round 0, and what to do with that. It is refused when round 0 is another one."""
    round_, later = output.round(0), output.round(1)
    if is_there(later.sources):
        yield f"{later.folder}, and what follows it, adds to what round 0 was: remove it and annotate again."
    if is_there(round_.model() / "config.json") or is_there(round_.model(0, 2) / "config.json"):
        yield f"{round_.model()} was trained on what round 0 was: remove it, or train elsewhere, to train again."


def _list(names: Any) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
