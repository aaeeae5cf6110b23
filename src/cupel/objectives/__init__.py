"""Preference objectives: pure functions of two sides (or of a list), made by factories.

Names are imported when they are first used, so that the table of names costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cupel.objectives.names import LISTS, PAIRS

_WHERE = {
    **PAIRS,
    **LISTS,
    **dict.fromkeys(("Side", "Objective", "Context", "Need"), "types"),
    **dict.fromkeys(("RankedList", "ListObjective"), "lists"),
    **dict.fromkeys(("by_name", "list_by_name", "available", "available_lists"), "names"),
    **dict.fromkeys(("weighted_sum", "likelihood", "with_sft", "with_target", "with_online_kl", "online_kl"), "combine"),
    **dict.fromkeys(("length_desensitised", "policy_weighted"), "token"),
    **dict.fromkeys(("rao_kupper_tie", "davidson_tie"), "reward"),
    "under_divergence": "f_divergence",
    "joint": "across",
    "general_score": "preference",
    "typicality": "batch",
    **dict.fromkeys(("rating_probabilities", "attribute_log_probability", "steer_list", "steer_weights", "effective_size"), "steering"),
    **dict.fromkeys(("info_nce", "masked_info_nce"), "contrastive"),
    "check_values": "reading",
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
