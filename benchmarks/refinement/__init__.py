"""Whether refinement makes labels better: the real stages on a world whose whole truth is known."""
