"""Specialists that ask a language model, with or without the image: one from a hub, or behind a server."""
