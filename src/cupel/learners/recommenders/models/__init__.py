"""Recommenders, one per file; a file sets `MODEL` and is found by the model's name."""
