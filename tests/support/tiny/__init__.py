"""Tiny checkpoints with random weights, made by transformers' own configurations: a function each, which fills a folder
and returns it. What loads them goes the way of released weights."""
