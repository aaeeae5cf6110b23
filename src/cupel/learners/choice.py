"""A model of choices from lists: a utility of each option's features, a softmax over the options of a scene.

    u_j = x_j . theta                                hidden = 0: the conditional logit (McFadden 1974)
    u_j = relu(x_j hidden + bias) . out              hidden = h
    P(j) = exp(u_j) / sum over the scene's options

Trained in full batch by AdamW on one of cupel's list objectives, the softmax loss of the recorded choice unless another is asked for. As
everywhere in cupel a record is a claim with a probability p and a weight w; its alternatives are the other options of the scene:

    w (p loss(recorded) + (1 - p) mean over the others of loss(other)) / number of scenes

Method card 20-usersim calls a model of 32 hidden units the student. Needs torch to train and none to use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.objectives.lists import ListObjective

FORMAT, VERSION = "cupel-choice", 1


@dataclass(frozen=True)
class ChoiceModel:
    """A trained model. weights: theta [d], or hidden [d, h], bias [h] and out [h]; mean, spread [d]: features are standardised by them."""

    weights: dict[str, np.ndarray]
    mean: np.ndarray
    spread: np.ndarray

    def utilities(self, features: np.ndarray) -> np.ndarray:
        """u of options, float64 [...] from features [..., d]; only differences within a scene mean something. InputError for another d."""
        x = np.asarray(features, np.float64)
        if x.shape[-1] != len(self.mean):
            raise InputError(f"the model reads {len(self.mean)} features per option, not {x.shape[-1]}")
        x = (x - self.mean) / self.spread
        if "theta" in self.weights:
            return x @ self.weights["theta"].astype(np.float64)
        hidden = np.maximum(x @ self.weights["hidden"].astype(np.float64) + self.weights["bias"], 0)
        return hidden @ self.weights["out"].astype(np.float64)

    def probabilities(self, features: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """P over the options of each scene, float64 [S, N] from features [S, N, d]; 0 outside the mask."""
        return softmax(self.utilities(features), mask)

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors and config.json; the same model gives the same bytes."""
        from safetensors.numpy import save

        from cupel.records.files import atomic_write, write_json

        place = Path(directory)
        held = {**self.weights, "mean": self.mean, "spread": self.spread}
        with atomic_write(place / "model.safetensors") as path:
            path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in sorted(held.items())}))
        write_json(place / "config.json", {"format": FORMAT, "version": VERSION, "features": len(self.mean)})

    @classmethod
    def load(cls, directory: str | Path) -> ChoiceModel:
        """A model that `save` wrote. InputError for anything else."""
        import json

        from safetensors import SafetensorError
        from safetensors.numpy import load

        place = Path(directory)
        try:
            told = json.loads((place / "config.json").read_text("utf-8"))
            held = load((place / "model.safetensors").read_bytes())
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{place} holds no choice model: {error}") from error
        if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
            raise InputError(f"{place} holds no choice model of version {VERSION}: its config.json says {str(told)[:80]}")
        mean, spread = held.pop("mean"), held.pop("spread")
        return cls(held, mean, spread)


def softmax(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """exp(v) / sum over the last axis, float64, 0 outside the mask.

    >>> softmax(np.array([[0.0, 0.0, 9.0]]), np.array([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    v = np.asarray(values, np.float64)
    v = v if mask is None else np.where(mask, v, -np.inf)
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def fit_choice(
    features: np.ndarray, chosen: np.ndarray, *, mask: np.ndarray | None = None, p: np.ndarray | None = None, w: np.ndarray | None = None,
    hidden: int = 32, epochs: int = 150, learning_rate: float = 3e-3, decay: float = 0.01, standardise: bool = True,
    objective: ListObjective | None = None, seed: int = 0, device: str = "cpu",
) -> ChoiceModel:  # fmt: skip
    """A `ChoiceModel` of recorded choices.

    features  float [S, N, d] of each option; mask bool [S, N]: which there are; chosen int [S]: the recorded one
    p, w      float [S]: probability that the record is right (1), and its weight (1)
    decay     of AdamW; standardise: features to mean 0 and spread 1 over the options trained on
    objective of lists, `cupel.objectives.listwise.softmax_dpo()` by default; seed: of the first weights
    InputError for features that are not finite, no scene, a choice that is no option, p outside [0, 1], negative or no weight.

    >>> x = np.array([[[0.0], [1.0]], [[1.0], [0.0]]] * 20)
    >>> found = fit_choice(x, np.array([1, 0] * 20), hidden=0, learning_rate=0.1).probabilities(x[:1])
    >>> bool(found[0, 1] > 0.95)
    True
    """
    import torch

    from cupel.objectives.lists import RankedList
    from cupel.objectives.listwise import softmax_dpo

    x = np.asarray(features, np.float32)
    there = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    _check(x, there, np.asarray(chosen), p, w, hidden, epochs)
    s, n, d = x.shape
    mean, spread = np.zeros(d), np.ones(d)
    if standardise:
        held = x[there].astype(np.float64)
        mean, spread = held.mean(axis=0), held.std(axis=0)
        spread[spread < 1e-12] = 1.0
    inputs = torch.tensor(np.where(there[:, :, None], (x - mean) / spread, 0), dtype=torch.float32, device=device)
    real = torch.tensor(there, device=device)
    shares = _shares(there, np.asarray(chosen), p, w)
    generator = torch.Generator().manual_seed(seed)

    def start(*shape: int, fan: int) -> Any:
        made = (torch.rand(*shape, generator=generator) * 2 - 1) / fan**0.5
        return made.to(device).requires_grad_(True)

    weights = {"theta": start(d, fan=d)} if hidden == 0 else {}
    if hidden:
        weights = {"hidden": start(d, hidden, fan=d), "bias": start(hidden, fan=d), "out": start(hidden, fan=hidden)}
    asked = objective or softmax_dpo()
    of, best = np.nonzero(shares)  # one list per scene and option that may have been the choice
    scene = torch.tensor(of, device=device)
    places = torch.full((len(of), n), 2, dtype=torch.int64)
    places[torch.arange(len(of)), torch.tensor(best)] = 1
    places, lists = places.to(device), real[scene]
    share = torch.tensor(shares[of, best] / s, dtype=torch.float32, device=device)
    optimiser = torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=decay)
    loss = torch.zeros(())
    for _ in range(epochs):
        utility = inputs @ weights["theta"] if hidden == 0 else torch.relu(inputs @ weights["hidden"] + weights["bias"]) @ weights["out"]
        loss = (share * asked.loss(RankedList(utility[scene], mask=lists, position=places))).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not bool(torch.isfinite(loss)):
        raise InputError("training diverged: lower the learning rate")
    return ChoiceModel({name: value.detach().cpu().numpy() for name, value in weights.items()}, mean, spread)


def _shares(there: np.ndarray, chosen: np.ndarray, p: np.ndarray | None, w: np.ndarray | None) -> np.ndarray:
    """What part of a scene's loss goes to each option as the choice: w p at the recorded one, w (1 - p) over the others."""
    s = len(there)
    right = np.ones(s) if p is None else np.asarray(p, np.float64)
    weight = np.ones(s) if w is None else np.asarray(w, np.float64)
    shares = np.where(there, ((1 - right) / (there.sum(axis=1) - 1))[:, None], 0.0)
    shares[np.arange(s), chosen] = right
    return shares * weight[:, None]


def _check(
    x: np.ndarray, there: np.ndarray, chosen: np.ndarray, p: np.ndarray | None, w: np.ndarray | None, hidden: int, epochs: int
) -> None:  # fmt: skip
    if x.ndim != 3 or there.shape != x.shape[:2] or chosen.shape != x.shape[:1]:
        raise InputError(
            f"features {x.shape} are [scenes, options, features], the mask {there.shape} and choices {chosen.shape} go with them"
        )
    if not len(x):
        raise InputError("no scene to learn from")
    if hidden < 0 or epochs < 1:
        raise InputError(f"{hidden} hidden units and {epochs} epochs: at least 0 and 1 are possible")
    bad = np.flatnonzero(~np.isfinite(x[there]).all(axis=1))
    if len(bad):
        raise InputError(f"{len(bad):,} options have features that are not finite (first: scene {np.nonzero(there)[0][bad[0]]})")
    few = np.flatnonzero(there.sum(axis=1) < 2)
    if len(few):
        raise InputError(f"{len(few):,} scenes have fewer than 2 options (first: scene {few[0]})")
    inside = (chosen >= 0) & (chosen < there.shape[1])
    inside[inside] = there[np.flatnonzero(inside), chosen[inside]]
    if not inside.all():
        raise InputError(f"{int((~inside).sum()):,} recorded choices are no option of their scene (first: scene {np.argmin(inside)})")
    for name, value, most in (("p", p, 1.0), ("w", w, np.inf)):
        if value is not None and (np.shape(value) != chosen.shape or not ((np.asarray(value) >= 0) & (np.asarray(value) <= most)).all()):
            raise InputError(f"{name} is one number per scene, {'between 0 and 1' if name == 'p' else 'at least 0'}")
    if w is not None and not np.any(np.asarray(w) > 0):
        raise InputError("all weights are 0: nothing would be learned")
