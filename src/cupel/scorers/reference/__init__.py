"""The reference as a value: stored log-probabilities, a live snapshot, a moving average, or none."""

from __future__ import annotations

from cupel.scorers.reference.cache import ReferenceCache
from cupel.scorers.reference.key import CacheError, ReferenceKey
from cupel.scorers.reference.values import Cached, Free, Live

__all__ = ["CacheError", "Cached", "Free", "Live", "ReferenceCache", "ReferenceKey"]
