"""Stages of a run, what can befall them, and what is then asserted: `tests/chaos` and the table in docs/faults.md."""
