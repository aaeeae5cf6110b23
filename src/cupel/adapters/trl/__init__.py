"""TRL's trainers with any objective and any treatment of noise: `from cupel.adapters.trl import DPOTrainer, RewardTrainer`.

Needs `cupel[trl]`. The trainers are subclasses of TRL's, with two more arguments, `objective` and `treatment`, and with the columns
`weight`, `p`, `annotator`, `group` and `id` of a data set honoured. Loaded when first named, so that the package costs nothing.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.adapters.trl.dpo import DPOTrainer
    from cupel.adapters.trl.reward import RewardTrainer

__all__ = ["DPOTrainer", "RewardTrainer"]

_NEEDED = ("torch", "jaxtyping", "transformers", "datasets", "trl")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(f'{__name__} needs {", ".join(missing)}. Run: pip install "cupel[trl]"')
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{'dpo' if name == 'DPOTrainer' else 'reward'}"), name)


def __dir__() -> list[str]:
    return __all__
