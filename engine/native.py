"""What native libraries may do in a worker. Imported before any of them is loaded: they read the environment then."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.29 and later calls home otherwise


def native_threads() -> int:
    """Threads: OMP_NUM_THREADS, which Ray sets to the CPUs of a worker unless the user has; without it, every core."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) else os.cpu_count() or 1
