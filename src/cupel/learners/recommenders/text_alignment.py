"""RLMRec: what is said about users and items, aligned with the vectors a recommender learns of them.

Ren et al. 2024, arXiv:2310.15950, eq. 2-18, as in the official code (card 34-rlmrec). Nothing of it is needed to recommend.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.objectives.contrastive import info_nce, masked_info_nce

KINDS = ("con", "gen")


class TextAlignment(nn.Module):
    """The term that ties tables of vectors [U, d], [I, d] to frozen vectors of text [U, s], [I, s].

    con   weight / B x (InfoNCE(e_u, S_u, pool: S of all users) + for each column of items InfoNCE(e_i, S_i, pool: S_i of the batch)),
          S = map(text), map: s -> d. The asymmetry of the pools, and duplicates in the second, are the official code's
    gen   weight x mean over masked nodes of the masked InfoNCE of map(e) and the text, map: d -> s, where the node's learned vector was
          replaced by one learned [MASK] vector before the model computed e

    map: Linear to (in + out) // 2, LeakyReLU(.01), Linear; weights Xavier-uniform, biases 0 (the code leaves torch's own).
    A row of zeros says that nothing is known: it is neither anchor nor in a pool, and is not masked. `missing` counts such users and items.

    distinct  con: each item counts once in a batch's pool, which keeps popular items from being their own negatives
    pool      con: so many other users drawn for a step beside the batch's own; 0: all (the official code)

    InputError for settings that make no sense, other numbers of rows than users and items, widths that differ, values that are not
    finite (with the ids), and where nothing at all is known.
    """

    text_user: Tensor
    text_item: Tensor
    use_user: Tensor
    use_item: Tensor

    def __init__(
        self, users: np.ndarray, items: np.ndarray, dim: int, *, kind: str = "con", weight: float = 0.01, temperature: float = 0.2,
        mask_ratio: float = 0.1, distinct: bool = False, pool: int = 0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_settings(kind, weight, temperature, mask_ratio, pool)
        if users.shape[1] != items.shape[1]:
            raise InputError(f"vectors of text are of one encoder: users have {users.shape[1]} numbers, items {items.shape[1]}")
        self.kind, self.weight, self.temperature, self.mask_ratio = kind, weight, temperature, mask_ratio
        self.distinct, self.pool = distinct, pool
        for name, x in (("text_user", users), ("text_item", items)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(x, np.float32)), persistent=False)
        for name, x in (("use_user", self.text_user), ("use_item", self.text_item)):
            self.register_buffer(name, x.abs().sum(1) > 0, persistent=False)
        self.missing = int((~self.use_user).sum()), int((~self.use_item).sum())
        if self.missing == (len(users), len(items)):
            raise InputError("no user and no item has a vector of text: there is nothing to align with")
        #: masks and the map are drawn here, so that no draw of the model beside it moves
        self.draws = torch.Generator().manual_seed(seed + 34)
        wide = users.shape[1]
        self.map = mapping(wide, dim, self.draws) if kind == "con" else mapping(dim, wide, self.draws)
        if kind == "gen":
            self.token = nn.Parameter(torch.zeros(dim))

    def contrast(self, user_table: Tensor, item_table: Tensor, user: Tensor, items: Tensor) -> Tensor:
        """The term of a step that names those users [B] and items [B, K], a scalar."""
        if len(user) == 1:
            warnings.warn("a step of one record has no other items to tell its own apart from: their alignment is 0", stacklevel=2)
        total = user_table.new_zeros(())
        at, inside = self._pool_of(user)
        total = total + self._told_apart(user_table, user, self.use_user, at, self.map(self.text_user[at]), inside)
        for column in items.unbind(1):
            each, back = torch.unique(column, return_inverse=True)
            said, known = self.map(self.text_item[each]), self.use_item[each]
            pool = (said, known) if self.distinct else (said[back], known[back])
            total = total + self._told_apart(item_table, column, self.use_item, each, said, pool[1], pool[0])
        return self.weight * total / len(user)

    def _told_apart(
        self, table: Tensor, rows: Tensor, use: Tensor, at: Tensor, said: Tensor, counted: Tensor, pool: Tensor | None = None
    ) -> Tensor:
        """The sum of InfoNCE over `rows` of a table; `said` is the text of the nodes `at` (sorted), and the pool unless one is given.

        Rows that are the same node have the same value: it is computed once and taken as often as the node occurs.
        """
        each, times = torch.unique(rows, return_counts=True)
        known = use[each]
        if not bool(known.any()):
            return table.new_zeros(())
        y = said[torch.searchsorted(at, each)]
        every, whole = bool(known.all()), bool(counted.all())
        found = info_nce(
            table[each],
            y,
            said if pool is None else pool,
            self.temperature,
            use=None if every else known,
            pool_use=None if whole else counted,
        )
        return (found * times).sum()

    def mask(self) -> tuple[Tensor, Tensor]:
        """Users and items whose vectors are replaced in a step: max(1, floor(mask_ratio x nodes with text)) of these, drawn anew."""
        nodes = torch.cat([self.use_user, self.use_item]).nonzero()[:, 0].cpu()
        n = max(1, int(self.mask_ratio * len(nodes)))
        drawn = nodes[torch.randperm(len(nodes), generator=self.draws)[:n]].to(self.text_user.device)
        users = len(self.use_user)
        return drawn[drawn < users], drawn[drawn >= users] - users

    def masked(self, user: Tensor, item: Tensor, drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The learned vectors with the [MASK] vector in the drawn rows, whose own then get no gradient."""
        out = []
        for x, rows in zip((user, item), drawn, strict=True):
            hidden = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
            hidden[rows] = True
            out.append(torch.where(hidden, self.token, x))
        return out[0], out[1]

    def rebuilt(self, user_table: Tensor, item_table: Tensor, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """The term of a step whose tables were computed from `masked` vectors, a scalar."""
        e = torch.cat([user_table[drawn[0]], item_table[drawn[1]]])
        said = torch.cat([self.text_user[drawn[0]], self.text_item[drawn[1]]])
        return self.weight * masked_info_nce(self.map(e), said, self.temperature).mean()

    def _pool_of(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Users of the pool (sorted), and which of them count."""
        n = len(self.use_user)
        if not 0 < self.pool < n:
            at = torch.arange(n, device=user.device)
        else:
            at = torch.unique(torch.cat([user, torch.randint(n, (self.pool,), generator=self.draws).to(user.device)]))
        return at, self.use_user[at]


def mapping(wide: int, out: int, draws: torch.Generator) -> nn.Sequential:
    """Two layers, Xavier-uniform.

    >>> [tuple(x.shape) for x in mapping(8, 2, torch.Generator()).parameters()]
    [(5, 8), (5,), (2, 5), (2,)]
    """
    middle = (wide + out) // 2
    layers = [cast("nn.Linear", nn.utils.skip_init(nn.Linear, *shape)) for shape in ((wide, middle), (middle, out))]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=draws)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.LeakyReLU(0.01), layers[1])


def check_settings(kind: str, weight: float, temperature: float, mask_ratio: float, pool: int) -> None:
    """InputError for settings of an alignment that make no sense."""
    if kind not in KINDS or not (weight >= 0 and temperature > 0 and 0 <= mask_ratio < 1 and pool >= 0):
        raise InputError(
            f"an alignment is con or gen, its weight and pool at least 0, its temperature positive and mask_ratio in [0, 1), "
            f"not {kind!r}, {weight!r}, {pool!r}, {temperature!r} and {mask_ratio!r}"
        )


def check_vectors(x: np.ndarray | None, ids: Sequence[str], what: str, width: int) -> np.ndarray:
    """Vectors of text, one row per id; None becomes rows of zeros of that width. InputError for other counts and for values not finite."""
    if x is None:
        return np.zeros((len(ids), width), np.float32)
    if x.ndim != 2 or len(x) != len(ids):
        raise InputError(f"{len(ids):,} {what} need as many vectors of text; given: {' x '.join(map(str, x.shape))}")
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(wrong):
        some = ", ".join(str(ids[i]) for i in wrong[:5])
        raise InputError(
            f"vectors of text of {len(wrong):,} of {len(ids):,} {what} are not finite numbers (first: {some}): encode them again"
        )
    return x


def shuffled(x: np.ndarray, seed: int) -> np.ndarray:
    """The rows that are not 0 in another order among themselves: the control for any gain that is said to come from text.

    >>> shuffled(np.array([[1.0], [0.0], [2.0]]), 1).tolist()
    [[2.0], [0.0], [1.0]]
    """
    rows = np.flatnonzero(np.abs(x).sum(axis=1) > 0)
    out = x.copy()
    out[rows] = x[np.random.default_rng([seed, 34]).permutation(rows)]
    return out
