"""Where the training sides of a transformer reward lay: its hidden states at the last tokens, before the head, summed up beside the model.

    FOLDER / familiar / arrays.safetensors   the arrays of `Familiar`; what is no array stands in cupel.json. In a folder of its own, where
                                             tools that load every safetensors file beside a model do not look

The states are those of the weights that are kept. Nothing is kept of runs with images or with sharded parameters, and of models whose score
is more than a linear layer on one state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cupel.learners.familiar import Familiar
from cupel.learners.policy.batch import Data
from cupel.records.files import to_json
from cupel.scorers.groups import Groups
from cupel.scorers.reward import RewardScores

if TYPE_CHECKING:
    from cupel.learners.policy.rewards import TransformerReward

PLACE, ARRAYS = "familiar", "arrays.safetensors"
#: training sides that are looked at: enough for a 99th percentile, few beside those of an epoch
MOST = 2000


def training_familiar(reward: TransformerReward, data: Data, seed: int) -> Familiar | None:
    """From the sides of the training comparisons, at most 2,000 drawn by the seed; halves by groups, or prompts. None as `Familiar.fit`,
    with images, and where the model gives no states."""
    if data.inputs is not None:
        return None
    found = []
    for source, (tokens, rows) in enumerate(zip(data.tokens, data.rows, strict=True)):
        group = np.full(len(tokens.response_ends), -1, np.int64)
        named = np.zeros(len(group), bool)
        own = data.group[data.source == source]
        for side in (rows.first, rows.second):
            there = side >= 0
            named[side[there]], group[side[there]] = True, own[there]
        used = np.flatnonzero(named & (tokens.response_lengths > 0))
        found.append(np.stack([np.full(len(used), source), used, group[used], tokens.response_prompt[used]], axis=1))
    sides = np.concatenate(found)
    if len(sides) > MOST:
        sides = sides[np.sort(np.random.default_rng([seed, 97]).choice(len(sides), MOST, replace=False))]
    rows = []
    for source, response, _, prompt in sides.tolist():
        tokens = data.tokens[source]
        rows.append((tokens.prompt(prompt).tolist(), tokens.response(response).tolist()))
    states = reward.states(rows)
    prompts = np.unique(sides[:, [0, 3]], axis=0, return_inverse=True)[1].reshape(-1)
    return None if states is None else Familiar.fit(states, sides[:, 2], prompts, seed=seed)


def keep(folder: Path, familiar: Familiar | None) -> None:
    """Write the summary into the folder of a reward model, whose cupel.json is there."""
    if familiar is None:
        return
    from safetensors.numpy import save_file

    (folder / PLACE).mkdir()
    save_file(familiar.tensors(), folder / PLACE / ARRAYS)
    told = json.loads((folder / "cupel.json").read_text("utf-8"))
    (folder / "cupel.json").write_text(to_json({**told, "familiar": familiar.recorded()}), "utf-8")


def kept(folder: Path, told: Mapping[str, Any]) -> Familiar | None:
    """The summary that a folder holds; None where it holds none. InputError for another version or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from cupel.errors import InputError

    if told.get("familiar") is None:
        return None
    try:
        return Familiar.read(told, load_file(folder / PLACE / ARRAYS))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the summary of its training texts in {folder / PLACE} is damaged ({' '.join(str(error).split())[:200]}): restore the folder, "
            f"or take familiar out of cupel.json to do without"
        ) from error


def digest(familiar: Familiar) -> str:
    """16 hexadecimal digits that name a summary."""
    import hashlib

    text = b"".join(np.ascontiguousarray(value).tobytes() for _, value in sorted(familiar.tensors().items()))
    return hashlib.sha256(text).hexdigest()[:16]


class Watched(nn.Module):
    """A scorer that remembers how far what it scores lies from the training sides, so that one pass gives both. `memo`: by `key`."""

    def __init__(self, scorer: nn.Module, familiar: Familiar) -> None:
        super().__init__()
        self.scorer, self.familiar, self.memo = scorer, familiar, dict[bytes, float]()

    @property
    def model(self) -> Any:
        """The transformer."""
        return self.scorer.model

    def forward(self, groups: Groups, needs: Iterable[str] = ("score",)) -> RewardScores:
        """Scores of the responses of `groups`."""
        found: RewardScores = self.scorer(groups)
        assert found.state is not None
        self.memo |= zip(_keys(groups), self.familiar.distance(as_array(found.state)).tolist(), strict=True)
        return found


class Distances(nn.Module):
    """A scorer whose score is the distance from the training sides, remembered where `watched` has scored them."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self.watched = watched

    @property
    def model(self) -> Any:
        """The transformer."""
        return self.watched.model

    def forward(self, groups: Groups, needs: Iterable[str] = ("score",)) -> RewardScores:
        """Distances of the responses of `groups`."""
        keys = _keys(groups)
        if any(name not in self.watched.memo for name in keys):
            self.watched(groups)
        values = torch.tensor([self.watched.memo[name] for name in keys], dtype=torch.float32)
        return RewardScores(values, torch.tensor(groups.response_lengths))


def key(prompt: Iterable[int], response: Iterable[int]) -> bytes:
    """What names a row of tokens."""
    parts = [np.array(list(ids), np.int64) for ids in (prompt, response)]
    return len(parts[0]).to_bytes(8, "little") + b"".join(part.tobytes() for part in parts)


def _keys(groups: Groups) -> list[bytes]:
    prompts = groups.prompt_ids.cpu().split(list(groups.prompt_lengths))
    responses = groups.response_ids.cpu().split(list(groups.response_lengths))
    return [key(prompts[g].tolist(), ids.tolist()) for g, ids in zip(groups.prompt_index, responses, strict=True)]


def as_array(state: Tensor) -> np.ndarray:
    """float32 [n, H]."""
    return state.float().cpu().numpy()
