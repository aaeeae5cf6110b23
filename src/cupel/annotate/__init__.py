"""Where labels come from without annotators: a relevance reward in the open, and the density ratio of two language models.

Names are imported when they are first used; the base installation needs no torch for any but `CausalLM`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "CausalLM": "language_models",
    "DensityRatio": "density_ratio",
    "Labels": "labels",
    "LengthIncentive": "whitebox",
    "NGram": "ngram",
    "Relevance": "whitebox",
    "RepetitionPenalty": "whitebox",
    "Stored": "density_ratio",
    "WhiteBox": "whitebox",
    "alignment_gap_sweep": "density_ratio",
    "append_votes": "labels",
    "calibrate": "labels",
    "contradictions": "probes",
    "criterion": "criteria",
    "label_pairs": "labels",
    "length_relevance_probe": "probes",
    "monotonicity": "probes",
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
