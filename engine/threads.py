"""How many threads native libraries may use: one place, so that workers side by side don't fight over the cores."""

from __future__ import annotations

import os


def native_threads() -> int:
    """OMP_NUM_THREADS, which Ray sets to the CPUs of a worker unless the user has; without it, every core."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) else os.cpu_count() or 1
