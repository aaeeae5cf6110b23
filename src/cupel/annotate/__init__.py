"""What stands in for annotators: relevance rewards in the open, density ratios of language models, simulated users, wishes in words.

Names are imported when they are first used. All can be imported without torch; `CausalLM`, and what asks one, runs on it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Accuracy": "simulator",
    "CausalLM": "language_models",
    "Collaborative": "exposure",
    "Content": "exposure",
    "DensityRatio": "density_ratio",
    "Labels": "labels",
    "LanguageSimulator": "language_simulator",
    "LengthIncentive": "whitebox",
    "Matched": "preferences",
    "Memory": "scenes",
    "NGram": "ngram",
    "Random": "exposure",
    "Relevance": "whitebox",
    "RepetitionPenalty": "whitebox",
    "SceneText": "scene_text",
    "Scenes": "scenes",
    "ScoringSimulator": "simulator",
    "Simulator": "simulator",
    "Stored": "density_ratio",
    "WhiteBox": "whitebox",
    "Wishes": "preferences",
    "alignment_gap_sweep": "density_ratio",
    "append_votes": "labels",
    "build_scenes": "scenes",
    "by_language_model": "preferences",
    "by_template": "preferences",
    "calibrate": "labels",
    "compare_simulators": "simulator",
    "contradictions": "probes",
    "criterion": "criteria",
    "distributions": "simulator",
    "evaluate_simulator": "simulator",
    "inverted": "preferences",
    "label_pairs": "labels",
    "length_relevance_probe": "probes",
    "matched": "preferences",
    "misclicks": "scenes",
    "monotonicity": "probes",
    "rationale_rows": "language_simulator",
    "sign_of": "preferences",
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
