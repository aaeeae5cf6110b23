"""Interactions: who met which item, how and when; files of them, filters and splits. No torch, and nothing here judges a model."""
