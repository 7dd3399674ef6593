"""Whether a round is better than the one before."""
