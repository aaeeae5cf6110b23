"""Texts to vectors: the embedded static encoder, model2vec folders, the transformers backend, and the cache on disk.

Importing this package loads neither model2vec nor torch; `load_encoder` imports what the encoder it is asked for needs.
"""

from cupel.encode.base import Encoder, Progress
from cupel.encode.cache import default_cache_dir, encode_cached
from cupel.encode.describe import Description, describe
from cupel.encode.load import load_encoder

__all__ = ["Description", "Encoder", "Progress", "default_cache_dir", "describe", "encode_cached", "load_encoder"]
