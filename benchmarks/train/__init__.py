"""What nano learns from scratch in a given time on the procedural world, and what a step costs beside transformers'."""
