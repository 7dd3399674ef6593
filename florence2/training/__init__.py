"""Training: from scratch, from released weights or from an earlier model. Examples in, a better model out."""
