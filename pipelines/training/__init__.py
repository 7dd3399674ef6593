"""`engine run --stage train`: a round's standing annotations, streamed by Ray Data, train a Florence-2 on Ray Train."""
