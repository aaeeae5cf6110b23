"""What a recommender is: a scorer of (user, item), whatever it is made of; and the tables of vectors that many are.

Training is a comparison like any other: the user is its annotator, the item that was taken its group, and the model gives each item a
`Side`. So every objective of scores and every treatment of noise applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, by_user
from cupel.objectives.types import Need, Side


@dataclass(frozen=True)
class Known:
    """What a recommender may look at when it is prepared: the training log, and vectors of what is said about items and users.

    item_vectors float32 [I, d], user_vectors float32 [U, d]; None where there are none. A row of zeros says: nothing is known.
    event_vectors float32 [n, d]: what the user said before each event of the log (a wish), for models that are told; what is said after
                 the whole log is in user_vectors; event_texts [n] and user_texts [U] are the same in words, "" for nothing
    event_p      float64 [n]: the probability that the taken item was liked, as training should see it; None: 1. A negative number unlearns
                 the event with so much weight (negative data): loss p keep + (1 - p) flip
    item_codes   int64 [I, C]: a semantic id of each item, for models that generate them; None: they make their own of item_vectors
    """

    log: Log
    item_vectors: np.ndarray | None = None
    user_vectors: np.ndarray | None = None
    event_vectors: np.ndarray | None = None
    event_texts: tuple[str, ...] | None = None
    user_texts: tuple[str, ...] | None = None
    event_p: np.ndarray | None = None
    item_codes: np.ndarray | None = None

    @property
    def rows(self) -> Rows:
        """Events of each user in the order of time."""
        return by_user(self.log)


class Recommender(nn.Module):
    """A scorer of (user, item). A model subclasses this, or `Factors`, and sets `MODEL` at the end of its file.

    name      under which recipes ask for it
    kind      "solved": `solve` computes everything at once; "trained": the loop of `fit` moves its parameters
    batches   what a step draws: "events" of the training log in random order, or all events of "users" (sequences)
    gives     what its sides carry

    The constructor is `(users, items, *, settings..., seed=0)` with numbers of users and items and settings that are numbers, words or
    booleans: folders store these and the state, and nothing else builds a model again.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["solved", "trained"]] = "trained"
    batches: ClassVar[Literal["events", "users"]] = "events"
    gives: ClassVar[frozenset[Need]] = frozenset({"score"})

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.n_users, self.n_items = users, items

    def prepare(self, known: Known) -> None:
        """Structures from the training log that are not learned (graphs, histories, text), as buffers that are not saved.

        Called before training and before a saved state is loaded: with the same log it must make the same structures.
        """

    def solve(self, known: Known) -> None:
        """Everything at once, for models of kind "solved": fills buffers that are saved."""
        raise NotImplementedError

    def sides(self, user: Tensor, items: Tensor, event: Tensor) -> Side:
        """The items of each of B records as sides of B * K responses: row b, column k is response b * K + k.

        user int64 [B]; items int64 [B, K]; event int64 [B], the row of the training log each record is about (which is the one thing
        that a sequence model may not look at, nor at what came after it).
        """
        return Side(score=self.score(user, items, event).reshape(-1))

    def score(self, user: Tensor, items: Tensor, event: Tensor) -> Tensor:
        """Scores [B, K] of the items for the users in training; `sides` explains."""
        raise NotImplementedError

    def scores(self, user: Tensor) -> Tensor:
        """Scores of all items for those users, float [B, I], after all of their training log."""
        raise NotImplementedError

    def extra(self, user: Tensor, items: Tensor, generator: torch.Generator) -> Tensor | None:
        """What is minimised beside the objective (agreement of views, alignment with text), a scalar; None where there is nothing.

        The term itself is a function of `cupel.objectives.contrastive`; the model only says of what.
        """
        return None

    def penalty(self, user: Tensor, items: Tensor) -> Tensor | None:
        """Squared size of what the step touches, to be multiplied by `l2`: a scalar; None leaves it to `weight_decay`."""
        return None

    def begin_step(self, generator: torch.Generator) -> None:
        """Called before the sides of each training step: what is drawn anew per step (edges left out, masks)."""

    def device(self) -> torch.device:
        """Where the model lies."""
        found = next(iter(self.parameters()), None)
        return (found if found is not None else next(iter(self.buffers()))).device


class Factors(Recommender):
    """A recommender whose score is the product of two vectors, plus a number for the item: subclasses say how vectors come about.

    `user` and `item` are the learned vectors; `tables` may pass them through a graph. Score: <U_u, V_i> + b_i.

    rowwise  whether the score of (u, i) reads only row u and row i of the learned vectors
    """

    rowwise: ClassVar[bool] = False

    def __init__(self, users: int, items: int, *, dim: int, bias: bool, std: float, seed: int) -> None:
        super().__init__(users, items)
        if dim < 1:
            raise InputError(f"{self.name}: dim is a number of at least 1, not {dim}")
        draw = torch.Generator().manual_seed(seed)
        self.user = nn.Parameter(torch.randn(users, dim, generator=draw) * std)
        self.item = nn.Parameter(torch.randn(items, dim, generator=draw) * std)
        self.bias = nn.Parameter(torch.zeros(items)) if bias else None

    def tables(self, user: Tensor | None = None, item: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors of all users [U, d] and items [I, d], from the learned ones or from those given in their place."""
        return self.user if user is None else user, self.item if item is None else item

    def score(self, user: Tensor, items: Tensor, event: Tensor) -> Tensor:
        """Scores [B, K] from the tables."""
        u, v = self.tables()
        return self.products(u[user], v[items], None if self.bias is None else self.bias[items])

    @staticmethod
    def products(u: Tensor, v: Tensor, b: Tensor | None) -> Tensor:
        """Scores [B, K] from vectors of users [B, d] and items [B, K, d] and the items' numbers [B, K]."""
        found = (v @ u[:, :, None])[:, :, 0]
        return found if b is None else found + b

    def scores(self, user: Tensor) -> Tensor:
        """Scores [B, I] from the tables."""
        u, v = self.tables()
        return self.finished(u[user] @ v.T)

    def finished(self, products: Tensor) -> Tensor:
        """Scores from products of vectors: with the items' own numbers."""
        return products if self.bias is None else products + self.bias

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(users [U, d], items [I, d], bias [I]) whose products are the scores: what an index serves."""
        u, v = self.tables()
        return u, v, torch.zeros(self.n_items, device=v.device) if self.bias is None else self.bias

    def penalty(self, user: Tensor, items: Tensor) -> Tensor | None:
        """Mean over records of the squared norms of the learned vectors they touch: |u|^2 + sum_k |v_k|^2."""
        return (self.user[user].square().sum() + self.item[items].square().sum()) / len(user)


@torch.no_grad()
def top(model: Recommender, users: Sequence[int] | np.ndarray, k: int, *, seen: Rows | None = None, batch: int = 256) -> np.ndarray:
    """The k items each of those users scores highest, best first, int64 [B, k]; items of `seen` are left out, -1 where none is left.

    All items are scored, `batch` users at a time: memory is batch * I numbers. Equal scores are ordered by a fixed permutation of items.
    """
    order = torch.from_numpy(np.random.default_rng([0, 11]).permutation(model.n_items))
    turn = torch.argsort(order).to(model.device())  # items in the order in which ties are broken
    asked = np.asarray(users, dtype=np.int64)
    was, out = model.training, []
    model.eval()
    for at in range(0, len(asked), batch):
        part = asked[at : at + batch]
        found = model.scores(torch.from_numpy(part).to(model.device()))
        if seen is not None:
            rows = np.repeat(np.arange(len(part)), seen.counts[part])
            hidden = np.concatenate([*seen.lists(part), np.zeros(0, np.int32)]).astype(np.int64)
            at_seen = tuple(torch.from_numpy(x).to(found.device) for x in (rows, hidden))
            found = found.index_put(at_seen, found.new_tensor(-torch.inf))
        out.append(_best(found, k, turn).cpu().numpy())
    model.train(was)
    return np.concatenate(out) if out else np.zeros((0, k), np.int64)


def _best(found: Tensor, k: int, turn: Tensor) -> Tensor:
    """The k highest of each row, ties in the order of `turn`; -1 where only -inf is left."""
    k = min(k, found.shape[1])
    more = min(k + 1, found.shape[1])
    value, item = torch.topk(found, more, dim=1)
    tied = ((value[:, 1:] == value[:, :-1]) & (value[:, 1:] > -torch.inf)).any(dim=1)
    if bool(tied.any()):  # a stable sort is asked for only where it decides
        rows = found[tied][:, turn]
        item[tied] = turn[torch.sort(rows, dim=1, descending=True, stable=True).indices[:, :more]]
        value[tied] = torch.gather(found[tied], 1, item[tied])
    return torch.where(value[:, :k] == -torch.inf, -1, item[:, :k])
