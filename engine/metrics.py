"""What a worker did, for Prometheus: Ray gathers it on each node, beside its own figures."""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge, Histogram

from engine.annotate import Tally

SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


class Meters:
    """Those of one worker; Ray adds its id and its node's."""

    def __init__(self, stage: str, pool: str, specialists: tuple[str, ...]) -> None:
        tags = {"stage": stage, "pool": pool}
        self.specialists = specialists
        self.images = Counter("engine_images", "Images through a pool.", ("stage", "pool"))
        self.annotations = Counter("engine_annotations", "Annotations made.", ("stage", "pool"))
        self.shards = Counter("engine_shards", "Shards through a pool.", ("stage", "pool"))
        self.failures = Counter("engine_failures", "Images that went to quarantine.", ("stage", "pool", "at", "kind"))
        self.seconds = Histogram(
            "engine_seconds", "Seconds an image, by batches.", SECONDS, ("stage", "pool", "specialist")
        )
        self.ratio = Gauge("engine_pool_ratio", "Share of a worker's time inside its models.", ("stage", "pool"))
        for meter in (self.images, self.annotations, self.shards, self.failures, self.seconds, self.ratio):
            meter.set_default_tags(tags)
        self.began, self.busy = time.monotonic(), 0.0

    def count(self, tally: Tally) -> None:
        """A report, of several images."""
        if not tally.passed:
            return
        self.images.inc(tally.passed)
        if tally.annotations:
            self.annotations.inc(tally.annotations)
        for failure in tally.failures.newest:
            self.failures.inc(1, {"at": failure.stage, "kind": failure.kind})
        for specialist in self.specialists:
            if seconds := tally.seconds.get(specialist, 0.0):
                self.seconds.observe(seconds / tally.passed, {"specialist": specialist})
                self.busy += seconds
        self.ratio.set(self.busy / max(time.monotonic() - self.began, 1e-9))

    def shard(self) -> None:
        self.shards.inc()
