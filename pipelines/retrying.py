"""Images in quarantine, once more: those that ingest could not read, and those that failed in a round."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.ingest import Retried, retry
from engine.layout import ShardId
from engine.partitions import closed, partitions, reopen_from
from engine.storage import read_table, shard_digests
from pipelines.annotating import Annotating

Rows = Mapping[ShardId, frozenset[int]]
AT_ONCE = 250_000  # images, at 3 kB each; for each so many ingest goes through its list and all its shards once more


@dataclass(frozen=True)
class Retrying:
    """Of a round that is whole and made by one pipeline, `annotating`'s."""

    annotating: Annotating

    def run(self) -> dict[str, Any]:
        """The round's summary. "retried" has how many images were tried again, and how many of them are saved."""
        annotating = self.annotating
        before = annotating.quarantined()
        unreadable = others = 0
        for failed in self.batches() if annotating.number == 0 else ():
            again = self.read_again(failed)
            unreadable += again.tried - again.unlisted - _count(again.read)
            others += _count(again.replaced)
        tried = unreadable + annotating.failures()
        summary = annotating.retry(self.sources())
        saved = before - annotating.quarantined()
        if others:
            line = f"! {others} files are others by now; what came along with them, as human labels, is as it is listed"
            annotating.console.print(line, style="yellow", highlight=False, soft_wrap=True)
        annotating.console.print(f"retry-failed: {tried} images tried again, {saved} saved", highlight=False)
        return {**summary, "retried": {"tried": tried, "saved": saved}}

    def read_again(self, failed: Rows) -> Retried:
        """Those that ingest could not read, and those of which nothing was made, whose files may be others by now. What
        came along with them may be new: so that their partitions are open."""
        output = self.annotating.output
        for number in {shard.partition for shard in failed}:
            reopen_from(output, 0, number)
        return retry(output, self.annotating.pipeline.config.ingest, failed)

    def batches(self) -> Iterator[Rows]:
        """What has failed, so much of it at a time that memory holds it, whole shards at least."""
        held: dict[ShardId, frozenset[int]] = {}
        images = 0
        for shard, rows in self.failed():
            held[shard] = rows
            images += len(rows)
            if images >= AT_ONCE:
                yield held
                held, images = {}, 0
        if held:
            yield held

    def failed(self) -> Iterator[tuple[ShardId, frozenset[int]]]:
        """The shards that have images in quarantine, and the rows of these."""
        output, round_ = self.annotating.output, self.annotating.round
        markers = closed(output, round_)
        for partition in partitions(output):
            if partition.number in markers and not markers[partition.number].quarantined:
                continue
            for shard in partition.shards:
                errors = read_table(round_.annotations(shard), ["error"]).column("error").is_valid().to_pylist()
                if any(errors):
                    yield shard, frozenset(row for row, failed in enumerate(errors) if failed)

    def sources(self) -> dict[str, str]:
        """The digests of the sources that made the round: by others nothing would be replayed."""
        first = next(self.annotating.output.shards())
        return shard_digests(self.annotating.round.annotations(first))[1]


def _count(rows: Mapping[ShardId, Collection[int]]) -> int:
    return sum(map(len, rows.values()))
