"""What the engine itself costs as sets grow, without any model: see `docs/scale.md`."""
