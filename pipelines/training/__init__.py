"""`engine run --stage train`: a round's standing annotations train a Florence-2 on Ray Train, fed by tasks of Ray."""
