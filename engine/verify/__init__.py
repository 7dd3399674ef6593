"""Whether an output folder is sound: every file, every id, every reference; and what repairs what is not.

Shard by shard, so that memory is bounded by one. What is known of all items at once, their ids, goes to a temporary
file (`engine.spill`).
"""

from engine.verify.findings import Finding, Verdict
from engine.verify.repair import Repair, carry_out, planned
from engine.verify.whole import Looking, check_there, verified

__all__ = ["Finding", "Looking", "Repair", "Verdict", "carry_out", "check_there", "planned", "verified"]
