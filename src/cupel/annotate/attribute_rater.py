"""Ratings of attributes predicted from texts: ridge regressions on frozen vectors, fitted to rated responses, kept as a reward's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cupel.errors import InputError
from cupel.learners.heads.margins import wide
from cupel.learners.heads.model import BLOCK, scaled
from cupel.learners.heads.preference import PreferenceReward
from cupel.learners.models.attributes import HELPSTEER, AttributeReward
from cupel.learners.models.ratings import fit_ratings
from cupel.learners.sides import RawSides, Scaling, raw_texts


@dataclass(frozen=True)
class AttributeRater:
    """Predicted ratings of responses, as `steering_rows` asks for them. Made by `load` of a folder, or by `fit` to rated responses.

    reward  the folder's reward, its heads `attributes`; its scores are goodness
    """

    reward: PreferenceReward

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return self._heads[0].attributes

    @property
    def r2(self) -> dict[str, float]:
        """R^2 of each attribute on responses that the fit did not see; NaN where it is undefined."""
        return dict(zip(self.names, self._heads[0].r2.tolist(), strict=True))

    @property
    def digest(self) -> str:
        """What names the model: SHA-256 of its numbers."""
        import hashlib

        digest = hashlib.sha256(f"{self.reward.encoder_hash} {self.reward.text}".encode())
        for array in (self.reward.scaling.centre, self.reward.scaling.mean, self.reward.scaling.spread):
            digest.update(np.asarray(array, np.float64).tobytes())
        for head in self._heads:
            for _, value in sorted(head.state_dict().items()):
                digest.update(value.double().numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """float64 [n, A] predicted ratings, unclipped; the mean over the folder's heads where there are several."""
        x = scaled(self.reward.scaling, *raw_texts(prompts, responses, self.reward.encoder, cache=self.reward.cache)).astype(np.float64)
        rows = torch.from_numpy(x)
        with torch.no_grad():
            found = [
                torch.cat([head.represent(rows[at : at + BLOCK]) for at in range(0, len(rows), BLOCK)]).numpy()
                for head in map(wide, self._heads)
            ]
        return np.mean(found, axis=0)

    @property
    def _heads(self) -> tuple[Any, ...]:
        return self.reward.models

    def save(self, directory: str | Path) -> Path:
        """Write the folder, which `load` and `cupel.learners.reward.load_reward` read. InputError on a full disk."""
        return self.reward.save(directory)

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> AttributeRater:
        """The rater of a reward's folder. InputError where it holds no attributes, or attributes that were not fitted to ratings: what
        comparisons teach is goodness, and its parts are no ratings."""
        from cupel.learners.reward import load_reward

        found = load_reward(directory, cache=cache, device=device)
        heads = found.models if isinstance(found, PreferenceReward) else ()
        r2 = [model.r2 for model in heads if isinstance(model, AttributeReward)]
        if not heads or len(r2) < len(heads):
            raise InputError(f"{directory} holds no attributes on frozen vectors: fit them with AttributeRater.fit, and save them")
        if all(bool(values.isnan().all()) for values in r2):
            raise InputError(
                f"the attributes in {directory} were not fitted to ratings, or on no held-out ratings: from comparisons only goodness is "
                f"known, and its parts are no ratings. Fit them with AttributeRater.fit, or give a function of your own"
            )
        return cls(found)

    @classmethod
    def fit(
        cls, prompts: Sequence[str], responses: Sequence[str], ratings: Any, *, names: Sequence[str] = HELPSTEER, encoder: str = "static",
        cache: str | Path | None = None, device: str = "cpu", seed: int = 0, **settings: Any,
    ) -> AttributeRater:  # fmt: skip
        """Fitted to ratings [n, A] (NaN or -100: missing) by `fit_ratings`, whose other settings are passed on (l2, low, high, goal, ...).

        R^2 is measured on prompts that the fit did not see. InputError as `fit_ratings`.

        >>> texts = [f"{word} answer {n}" for n in range(30) for word in ("kind", "rude")]
        >>> rater = AttributeRater.fit([f"q{n // 2}" for n in range(60)], texts, [[4.0], [0.0]] * 30, names=["kindness"], l2=0.1)
        >>> bool(rater(["q"], ["a kind answer"])[0, 0] > 2)
        True
        """
        from cupel.encode import load_encoder

        loaded = load_encoder(encoder, device=device)
        embedding, facts = raw_texts(prompts, responses, loaded, cache=cache)
        none = np.zeros(0, np.int64)
        scaling = Scaling.fit(RawSides(embedding, facts, np.ones(len(facts)), none, none))
        group = np.unique(np.array(prompts, dtype=object), return_inverse=True)[1]
        x, stated = scaled(scaling, embedding, facts), np.asarray(ratings, np.float64)
        model = fit_ratings(x, stated, names=names, group=group, seed=seed, **settings)
        goal = "/".join(repr(float(weight)) for weight in model.goal)
        info = {"fitted": "ratings", "n_ratings": len(facts), "seed": seed}
        reward = PreferenceReward(
            (model.requires_grad_(False),), f"attributes:attributes={'/'.join(names)},goal={goal}", scaling, loaded.name, loaded.hash,
            info=info, cache=Path(cache) if cache else None, _loaded={"encoder": loaded},
        )  # fmt: skip
        return cls(reward)
