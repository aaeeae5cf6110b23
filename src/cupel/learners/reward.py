"""The first reward model: a linear head on frozen embeddings and surface facts, trained on (p, w).

Votes on one pair are summed exactly before the fit (the loss is linear in p): P = sum w p / sum w and W = sum w give the same loss and
gradient up to a constant. The ridge has the least log loss in cross-validation by group of the training rows; nothing else is looked at.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import EncoderError, InputError
from cupel.learners.sides import RawSides, Scaling, raw_sides, raw_texts
from cupel.learners.threads import one_blas_thread
from cupel.learners.treatments import Posterior, check_treatment, conservative, one_coin_posterior, unbiased
from cupel.records.schema import BOTH_BAD, SKIP, Votes

if TYPE_CHECKING:
    from cupel.encode import Encoder
    from cupel.votes.linear_head import LinearHead

FORMAT = "cupel-linear-reward"
#: the format of heads by minibatches, `cupel.learners.heads`
HEADS = "cupel-head"
#: the format of preference models by minibatches
PREFERENCES = "cupel-preference"
VERSION = 1
#: rounds of EM: margins, posterior, head
ROUNDS = 2
#: below this flip rate `em` leaves the targets alone: a tuned linear head loses less to the flips than the correction costs
#: (benchmarks/robust_training.py: -0.3 points on ukp as it is, +1.4 at 40 % flips)
WORTH_CORRECTING = 0.15
FOLDS = 5


@dataclass(frozen=True)
class RewardModel:
    """A linear reward: score(prompt, response) = features . theta; only differences within a prompt mean something.

    theta    float64 [d]; scaling: of the d features; encoder_name, encoder_hash: the only vectors it can read
    info     how it was trained: treatment, seed, ridge, cross-validated loss, rows, and what EM estimated
    """

    theta: np.ndarray
    scaling: Scaling
    encoder_name: str
    encoder_hash: str
    info: Mapping[str, Any] = field(default_factory=dict)
    cache: Path | None = field(default=None, compare=False, repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def encoder(self) -> Encoder:
        """The encoder whose vectors the model reads; EncoderError where it is not the one it was trained with."""
        if "encoder" not in self._loaded:
            self._loaded["encoder"] = matching_encoder(self.encoder_name, self.encoder_hash)
        return self._loaded["encoder"]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Reward of each (prompt, response), float64 [n]; a score does not depend on what is scored with it. Chat lists may be JSON."""
        from cupel.records.text import render

        return self._reward(*raw_texts([render(text) for text in prompts], responses, self.encoder, cache=self.cache))

    def margin(self, votes: Votes, *, sides: RawSides | None = None) -> np.ndarray:
        """score(first) - score(second) of each comparison, float64 [n]; `sides` saves encoding when several models read the same."""
        sides = self.sides(votes) if sides is None else sides
        reward = self._reward(sides.embedding, sides.facts)
        return reward[sides.first] - reward[sides.second]

    def sides(self, votes: Votes) -> RawSides:
        """The unscaled features of the comparisons' sides: the same for every model with this encoder."""
        return raw_sides(votes, self.encoder, cache=self.cache)

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors and config.json into `directory`; the same model gives the same bytes. InputError on a full disk."""
        from safetensors.numpy import save

        from cupel.records.files import atomic_write, write_json

        place = Path(directory)
        tensors = {
            "theta": self.theta, "centre": self.scaling.centre, "norm": np.array([self.scaling.norm]), "mean": self.scaling.mean,
            "spread": self.scaling.spread,
        }  # fmt: skip
        data = save({name: np.ascontiguousarray(value, dtype=np.float64) for name, value in sorted(tensors.items())})
        with atomic_write(place / "model.safetensors") as temporary:
            temporary.write_bytes(data)
        config = {
            "format": FORMAT, "version": VERSION, "encoder": {"name": self.encoder_name, "hash": self.encoder_hash},
            "features": list(self.scaling.names), "info": dict(self.info),
        }  # fmt: skip
        write_json(place / "config.json", config)
        return place

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> RewardModel:
        """The model that `save` wrote. InputError for another folder, EncoderError where its encoder is missing or has changed."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        place = Path(directory)
        try:
            config = json.loads((place / "config.json").read_text("utf-8"))
            tensors = load_file(place / "model.safetensors")
            if config.get("format") != FORMAT or config.get("version") != VERSION:
                raise InputError(
                    f"{place} holds {config.get('format')!r} version {config.get('version')!r}; this cupel reads {FORMAT} version "
                    f"{VERSION}. Train it again."
                )
            scaling = Scaling(tensors["centre"], float(tensors["norm"][0]), tensors["mean"], tensors["spread"])
            name, digest = config["encoder"]["name"], config["encoder"]["hash"]
            theta, info = tensors["theta"], config["info"]
        except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
            raise InputError(f"{place} is not a reward model that cupel wrote ({error}); give a folder made by train reward") from error
        if len(theta) != len(scaling.names):
            raise InputError(
                f"{place}: {len(theta)} coefficients for {len(scaling.names)} features; the model is not whole, train it again"
            )
        encoder = matching_encoder(name, digest, device)
        return cls(theta, scaling, name, digest, info, Path(cache) if cache else None, {"encoder": encoder})

    def _reward(self, embedding: np.ndarray, facts: np.ndarray) -> np.ndarray:
        # a row's own sum, in a fixed order: a matrix product may round differently with the number of rows
        return (self.scaling.apply(embedding, facts) * self.theta).sum(axis=1)


def load_reward(directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> Any:
    """The reward model of a folder, whatever it is: a linear head that `train_reward` saved, heads or preference models of
    `cupel.learners.heads`, or a transformer with one output.

    All have score(prompts, responses) and margin(votes). InputError for folders that hold none, and where the extra that a transformer
    or a preference model needs is not installed.
    """
    from cupel.encode.cache import default_cache_dir

    try:
        config = json.loads((Path(directory) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        config = {}
    adapter = (Path(directory) / "adapter_config.json").is_file()
    config = config if isinstance(config, dict) else {}
    if config.get("format") == HEADS:
        from cupel.learners.heads.model import HeadReward

        return HeadReward.load(directory, cache=cache, device=device)
    if config.get("format") == PREFERENCES:
        missing = [name for name in ("torch", "jaxtyping") if importlib.util.find_spec(name) is None]
        if missing:
            needs = " and ".join(missing)
            raise InputError(f"{directory} is a preference model, which needs {needs}: python -m pip install 'cupel[train]'")
        from cupel.learners.heads.preference import PreferenceReward

        return PreferenceReward.load(directory, cache=cache, device=device)
    architectures = config.get("architectures") or ()
    if config.get("format") != FORMAT and architectures and not any("ForSequenceClassification" in str(name) for name in architectures):
        raise InputError(f"{directory} is a {architectures[0]}, not a reward model: train one with cupel train reward --model {directory}")
    if not adapter and not any(str(name).endswith("ForSequenceClassification") for name in architectures):
        return RewardModel.load(directory, cache=cache, device=device)
    missing = [name for name in ("torch", "transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{directory} is a transformer, which needs {' and '.join(missing)}: python -m pip install 'cupel[train]'")
    from cupel.learners.policy.rewards import TransformerReward

    return TransformerReward.load(directory, cache=Path(cache) if cache else default_cache_dir() / "scores", device=device)


def train_reward(
    votes: Votes,
    *,
    encoder: str = "static",
    treatment: str = "none",
    flip: float | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    vectors: tuple[np.ndarray, np.ndarray] | None = None,
    device: str = "cpu",
    allow_download: bool = False,
    sides: RawSides | None = None,
) -> RewardModel:
    """A linear reward head on frozen embeddings, reading (p, w) of every row of `votes`; give it the training split only.

    treatment  none          (p, w) as they are
               em            p <- posterior under one flip rate for all votes, margins cross-fitted (RE-PO, arXiv:2509.24159, likelihood
                             form); where that rate is below 15 % the targets stay as they are and `info["applied"]` is False
               em-annotator  p <- posterior under a reliability per annotator with a Beta prior; votes on a pair are combined
               conservative, unbiased   closed forms with a known rate `flip`
    seed       of the folds; the same seed gives the same bytes
    vectors    (prompt vectors, response vectors) aligned with the text tables of `votes`, to encode nothing
    sides      what `raw_sides` gave for these votes, to compute nothing twice
    InputError where no row has a preference and a weight above 0, or for an unknown treatment.
    """
    from cupel.encode import load_encoder

    name = check_treatment(treatment, flip)
    if name.startswith("em") and votes.meta.get("target") == "consensus":
        raise InputError(
            f"treatment {name} on data whose p is already a consensus of its votes would correct the noise twice. "
            "Use treatment none, or curate without consensus."
        )
    loaded = load_encoder(encoder, device=device, allow_download=allow_download)
    use = (votes.w > 0) & (votes.outcome != BOTH_BAD) & (votes.outcome != SKIP)
    if not (use & (votes.p != 0.5)).any():
        raise InputError(f"none of the {len(votes):,} rows has a preference and a weight above 0: there is nothing to learn from")
    if not use.all():
        votes, sides = votes.take(use), None if sides is None else _take(sides, use)
    sides = raw_sides(votes, loaded, cache=cache, vectors=vectors) if sides is None else sides
    with one_blas_thread():
        return _train(votes, sides, loaded, name, flip, seed, Path(cache) if cache else None)


def _train(
    votes: Votes, sides: RawSides, loaded: Encoder, name: str, flip: float | None, seed: int, cache: Path | None
) -> RewardModel:
    from cupel.votes.linear_head import fit_tuned

    used = np.union1d(sides.first, sides.second)
    scaling = Scaling.fit(RawSides(sides.embedding[used], sides.facts[used], sides.length[used], sides.first, sides.second))
    table = scaling.apply(sides.embedding, sides.facts)
    rows = _Pairs.of(votes)
    first, second = table[sides.first[rows.at]], table[sides.second[rows.at]]  # [m, d], in the orientation of the pair's first row
    group, by = _fold_groups(votes, rows.at)
    p = rows.p
    if name in ("conservative", "unbiased"):
        assert flip is not None
        p = (conservative if name == "conservative" else unbiased)(p, flip)
    head = fit_tuned(first, second, p, rows.w, group, seed=seed, folds=FOLDS)
    info: dict[str, Any] = {
        "treatment": name, "seed": seed, "n_votes": len(votes), "n_pairs": len(rows.at), "folds_by": by, "n_groups": len(np.unique(group)),
    }  # fmt: skip
    if flip is not None:
        info["flip"] = flip
    found: Posterior | None = None
    if name.startswith("em"):
        treated, found = _em(head, rows, votes, first, second, group, seed, per_annotator=name == "em-annotator")
        info["applied"] = name == "em-annotator" or found.flip_rate >= WORTH_CORRECTING
        head = treated if info["applied"] else head
    result = head.result_
    info.update(
        ridge=result.ridge, converged=result.converged, cv_loss=min(result.cv_loss) if result.cv_loss else None, tuned_on=result.tuned_on
    )
    if found is not None:
        info.update(_em_info(found, votes, head.margin(first, second), rows))
    return RewardModel(head.theta_, scaling, loaded.name, loaded.hash, info, cache, {"encoder": loaded})


# ---- pairs and folds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Votes summed per unordered pair: `at` [m] row of the first vote of each pair, `pair` [n] pair of each vote, p and w [m];
    `vote_p` [n] is each vote's p in the orientation of its pair's first row."""  # fmt: skip

    at: np.ndarray
    pair: np.ndarray
    p: np.ndarray
    w: np.ndarray
    vote_p: np.ndarray

    @classmethod
    def of(cls, votes: Votes) -> _Pairs:
        _, at, pair = np.unique(votes.pair, return_index=True, return_inverse=True)
        pair = pair.reshape(-1)
        same = votes.first == votes.first[at][pair]
        vote_p = np.where(same, votes.p, 1 - votes.p)
        w = np.bincount(pair, weights=votes.w)
        return cls(at, pair, np.bincount(pair, weights=votes.w * vote_p) / w, w, vote_p)


def _fold_groups(votes: Votes, at: np.ndarray) -> tuple[np.ndarray, str]:
    """What folds keep together: the groups, or prompts or pairs where there are fewer than 5 of them."""
    for by, label in (("group", votes.group), ("prompt", votes.prompt)):
        chosen = np.unique(label[at], return_inverse=True)[1].reshape(-1)
        if chosen.max() + 1 >= FOLDS:
            return chosen, by
    return np.arange(len(at)), "pair"


def _take(sides: RawSides, rows: np.ndarray) -> RawSides:
    return RawSides(sides.embedding, sides.facts, sides.length, sides.first[rows], sides.second[rows])


# ---- EM -------------------------------------------------------------------------------------------------------------------------


def _em(
    head: LinearHead,
    rows: _Pairs,
    votes: Votes,
    first: np.ndarray,
    second: np.ndarray,
    group: np.ndarray,
    seed: int,
    *,
    per_annotator: bool,
) -> tuple[LinearHead, Posterior]:
    """The head on posteriors after ROUNDS rounds, and the last posterior. A tie keeps its share of the pair's target at one half."""
    from cupel.votes.linear_head import fit_tuned, out_of_fold

    count = len(votes.annotators)
    who = np.where(votes.annotator < 0, count, votes.annotator) if per_annotator else np.zeros(len(votes), dtype=np.int64)
    decided = np.bincount(rows.pair, weights=votes.w * np.abs(2 * rows.vote_p - 1)) / rows.w  # [m] share of weight that says a side
    weight = rows.w / np.bincount(rows.pair)  # one unit per truth, times the mean weight of its votes
    found = None
    target, target_weight = rows.p, rows.w
    for _ in range(ROUNDS):
        margin = out_of_fold(first, second, target, target_weight, group, seed=seed, folds=FOLDS, ridges=(head.result_.ridge,)).margin
        found = one_coin_posterior(margin, rows.pair, rows.vote_p, votes.w, who, count + 1 if per_annotator else 1)
        target, target_weight = decided * found.p + (1 - decided) / 2, weight
        head = fit_tuned(first, second, target, target_weight, group, seed=seed, folds=FOLDS)
    assert found is not None
    return head, found


def _em_info(found: Posterior, votes: Votes, margin: np.ndarray, rows: _Pairs) -> dict[str, Any]:
    """What EM estimated, out of fold, beside the same rate from the head's own training margins (a memorisation warning)."""
    inside = one_coin_posterior(margin, rows.pair, rows.vote_p, votes.w, np.zeros(len(votes), dtype=np.int64), 1)
    info: dict[str, Any] = {
        "flip_rate": found.flip_rate, "flip_rate_in_sample": inside.flip_rate, "slope": found.slope, "em_converged": found.converged,
    }  # fmt: skip
    if len(found.reliability) > 1:
        seen = np.flatnonzero(found.votes[: len(votes.annotators)] > 0)
        often = seen[np.lexsort((seen, -found.votes[seen]))][:100]
        info["annotators"] = [
            {"annotator": votes.annotators[i], "votes": float(found.votes[i]), "reliability": float(found.reliability[i])} for i in often
        ]
        info["n_annotators"] = len(seen)
    return info


def matching_encoder(name: str, digest: str, device: str = "cpu") -> Encoder:
    """The encoder of that name; EncoderError where it is not the one of that hash."""
    from cupel.encode import load_encoder

    encoder = load_encoder(name, device=device)
    if encoder.hash != digest:
        raise EncoderError(
            f"the reward model was trained with encoder {name} {digest[:12]}..., but {name} is now {encoder.hash[:12]}...: its scores "
            "would mean nothing. Restore that encoder, or train the model again."
        )
    return encoder
