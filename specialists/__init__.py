"""Specialists: one file a role. An image and what is known of it so far go in, new annotations come out."""
