"""Filters: one file a family. A record goes in, decisions with their measured values come out."""
