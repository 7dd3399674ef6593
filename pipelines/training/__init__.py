"""`engine run --stage train`: a round's standing annotations, prepared by Ray's tasks, train a Florence-2 on Ray Train."""
