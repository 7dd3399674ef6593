"""A picture that kills whoever prepares it, as a broken decoder does."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from engine.records import Record
from pipelines.training.picks import Pick
from pipelines.training.stream import Preparation, Prepared, Unprepared


@dataclass(frozen=True)
class Deadly(Preparation):
    """Dies of the image `victim`, or hangs over it in native code."""

    victim: bytes = b""
    hangs: bool = False

    def prepared(self, record: Record, pick: Pick) -> Prepared | Unprepared | None:
        if record.item.item_id == self.victim:
            if self.hangs:
                ctypes.PyDLL(None).sleep(600)
            os._exit(1)
        return super().prepared(record, pick)
