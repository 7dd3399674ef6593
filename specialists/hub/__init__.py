"""Specialists whose weights come from a model hub or a folder, through transformers."""
