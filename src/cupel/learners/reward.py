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

from cupel.errors import InputError
from cupel.learners.familiar import Familiar, Unlike, unlike
from cupel.learners.folders import Folder, matching_encoder, read_folder, write_folder
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
    familiar where the training sides lay, where there were enough of them
    """

    theta: np.ndarray
    scaling: Scaling
    encoder_name: str
    encoder_hash: str
    info: Mapping[str, Any] = field(default_factory=dict)
    familiar: Familiar | None = field(default=None, compare=False, repr=False)
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
        first, second = self.side_scores(votes, sides=sides)
        return first - second

    def side_scores(self, votes: Votes, *, sides: RawSides | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score of the first and of the second side of each comparison, float64 [n] each."""
        sides = self.sides(votes) if sides is None else sides
        reward = self._reward(sides.embedding, sides.facts)
        return reward[sides.first], reward[sides.second]

    def sides(self, votes: Votes) -> RawSides:
        """The unscaled features of the comparisons' sides: the same for every model with this encoder."""
        return raw_sides(votes, self.encoder, cache=self.cache)

    def unlike(self, votes: Votes, *, sides: RawSides | None = None) -> Unlike | None:
        """Which sides of the comparisons lie further from the training sides than 99 % of those do; None where the folder does not say."""
        if self.familiar is None:
            return None
        sides = self.sides(votes) if sides is None else sides
        return unlike(self.familiar, self.scaling.apply(sides.embedding, sides.facts), sides.first, sides.second)

    def far(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray | None:
        """Whether each (prompt, response) lies further from the training sides than 99 % of those do, bool [n]; None as `unlike`."""
        if self.familiar is None:
            return None
        return self.familiar.beyond(self.scaling.apply(*raw_texts(prompts, responses, self.encoder, cache=self.cache)))

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors and config.json into `directory`; the same model gives the same bytes. InputError on a full disk."""
        return write_folder(
            directory, format=FORMAT, version=VERSION, scaling=self.scaling, encoder=(self.encoder_name, self.encoder_hash),
            familiar=self.familiar, tensors={"theta": np.asarray(self.theta, np.float64)}, config={"info": dict(self.info)},
        )  # fmt: skip

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> RewardModel:
        """The model that `save` wrote. InputError for another folder, EncoderError where its encoder is missing or has changed."""

        def make(folder: Folder) -> RewardModel:
            theta = folder.tensors["theta"]
            if len(theta) != len(folder.scaling.names):
                features = len(folder.scaling.names)
                raise InputError(f"{directory}: {len(theta)} coefficients for {features} features; the model is not whole, train it again")
            return cls(theta, cache=Path(cache) if cache else None, **folder.parts)

        return read_folder(directory, make, format=FORMAT, version=VERSION, kind="reward model", device=device)

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


def _train(votes: Votes, sides: RawSides, loaded: Encoder, name: str, flip: float | None, seed: int, cache: Path | None) -> RewardModel:
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
    familiar = Familiar.of(table, sides.first, sides.second, votes, seed=seed)
    return RewardModel(head.theta_, scaling, loaded.name, loaded.hash, info, familiar, cache, {"encoder": loaded})


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
