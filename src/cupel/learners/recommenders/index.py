"""Serving: the best items of users from a saved index of vectors, searched exactly in blocks; or from any recommender's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, by_user
from cupel.learners.recommenders.types import Factors, Recommender, top

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "cupel-index 1"
FILE = "index.safetensors"
#: columns of the first block of a search: they set the limit that the others have to exceed
FIRST = 512


@dataclass(frozen=True)
class Index:
    """Vectors whose products are scores: <user_u, item_i> + bias_i, with ids and what each user has had.

    user float32 [U, d], item [I, d], bias [I]; users, items str: ids by index; seen: items by user that are left out when asked
    """

    user: Tensor
    item: Tensor
    bias: Tensor
    users: np.ndarray
    items: np.ndarray
    seen: Rows

    def __post_init__(self) -> None:
        (n_users, d), (n_items, e) = self.user.shape, self.item.shape
        if d != e or self.bias.shape != (n_items,) or len(self.users) != n_users or len(self.items) != n_items or len(self.seen) != n_users:
            raise InputError(
                f"an index has vectors of one width, a number per item and ids for both, not users {tuple(self.user.shape)}, items "
                f"{tuple(self.item.shape)}, numbers {tuple(self.bias.shape)}, {len(self.users):,} and {len(self.items):,} ids"
            )
        for name, table in (("user", self.user), ("item", self.item), ("bias", self.bias[:, None])):
            bad = ~torch.isfinite(table).all(dim=1)
            if bool(bad.any()):
                raise InputError(f"{int(bad.sum()):,} vectors ({name}) are not finite (first: {int(bad.to(torch.int8).argmax())})")

    @classmethod
    def of(cls, model: Recommender, log: Log) -> Index:
        """The index of a model of vectors; InputError for a model that has none (`recommend` serves those)."""
        if not isinstance(model, Factors):
            raise InputError(f"{model.name} has no vectors of users and items, so no index: ask `recommend` with its folder")
        with torch.no_grad():
            u, v, b = (x.detach().to("cpu", torch.float32).contiguous() for x in model.eval().vectors())
        return cls(u, v, b, log.users, log.items, by_user(log, order="item"))

    def save(self, folder: str | Path) -> Path:
        """Write index.safetensors and ids.json into a folder (a recommender's own, or another); the same index gives the same bytes."""
        from safetensors.numpy import save

        from cupel.records.files import atomic_write, write_json

        place = Path(folder)
        tensors = {name: getattr(self, name).cpu().numpy() for name in ("bias", "item", "user")}
        tensors |= {"seen_item": self.seen.item.astype(np.int32), "seen_start": self.seen.start.astype(np.int64)}
        data = save(tensors, metadata={"format": FORMAT})  # one key: several come in any order
        with atomic_write(place / FILE) as temporary:
            temporary.write_bytes(data)
        write_json(place / "ids.json", {"users": self.users.tolist(), "items": self.items.tolist()})
        return place / FILE

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Index:
        """What `save` wrote. InputError for another folder."""
        from safetensors import SafetensorError, safe_open

        place = Path(folder)
        try:
            with safe_open(place / FILE, "pt", device=device) as file:  # type: ignore[no-untyped-call]
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise InputError(f"{place / FILE} is not an index that cupel wrote")
                held = {name: file.get_tensor(name) for name in ("user", "item", "bias", "seen_item", "seen_start")}
            ids = json.loads((place / "ids.json").read_text("utf-8"))
            item, start = held["seen_item"].cpu().numpy(), held["seen_start"].cpu().numpy()
            names = (np.array(ids["users"], dtype=str), np.array(ids["items"], dtype=str))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{place} holds no index ({error}); make one with Index.of(model, log).save({str(place)!r})") from error
        return cls(held["user"], held["item"], held["bias"], *names, Rows(start, item, np.arange(len(item))))

    @torch.no_grad()
    def search(
        self, users: Sequence[int] | np.ndarray, k: int, *, seen: Rows | None = None, batch: int = 1024, block: int = 8192,
        engine: Literal["torch", "faiss"] = "torch",
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(items int64 [B, k], scores float32 [B, k]) with the highest scores, best first; -1 and -inf where none is left.

        Exact: every score is computed. batch users meet block items at a time, so memory is batch * block numbers whatever U and I. Equal
        scores are ordered by the permutation of items that `top` uses. seen: items by user to leave out.
        engine "faiss": a flat inner-product index of the package faiss, if it is installed; equal scores come as it has them, and for
        users with items to leave out it is asked for that many more.
        """
        asked = np.asarray(users, dtype=np.int64)
        if k < 1 or batch < 1 or block < 1:
            raise InputError(f"k, batch and block are at least 1, not {k}, {batch}, {block}")
        if len(asked) and (asked.min() < 0 or asked.max() >= len(self.users)):
            raise InputError(f"user {int(asked.max())} is outside the {len(self.users):,} there are")
        if engine == "faiss":
            return _faiss(self, asked, k, seen, batch)
        turn = torch.from_numpy(np.argsort(np.random.default_rng([0, 11]).permutation(len(self.items))))
        place = torch.empty_like(turn)
        place[turn] = torch.arange(len(turn))
        order = turn.to(self.item.device)
        table, own = self.item[order].T.contiguous(), self.bias[order]
        items, scores = np.full((len(asked), k), -1, np.int64), np.full((len(asked), k), -np.inf, np.float32)
        for at in range(0, len(asked), batch):
            part = asked[at : at + batch]
            hidden = _hidden(part, seen, place.numpy())
            value, column = _scan(self.user[torch.from_numpy(part).to(self.user.device)], table, own, hidden, k, block)
            kept = value.shape[1]
            found = torch.where(value == -torch.inf, -1, order[column.clamp(min=0)])
            items[at : at + batch, :kept], scores[at : at + batch, :kept] = found.cpu().numpy(), value.cpu().numpy()
        return items, scores


def _hidden(part: np.ndarray, seen: Rows | None, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) to leave out, by column."""
    if seen is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows = np.repeat(np.arange(len(part)), seen.counts[part])
    columns = place[np.concatenate([*seen.lists(part), np.zeros(0, np.int32)]).astype(np.int64)]
    turn = np.argsort(columns, kind="stable")
    return rows[turn], columns[turn]


def _scan(query: Tensor, table: Tensor, own: Tensor, hidden: tuple[np.ndarray, np.ndarray], k: int, block: int) -> tuple[Tensor, Tensor]:
    """The k highest of query @ table + own in each row with their columns, equal ones in the order of columns, a block at a time.

    After the first block only what exceeds a row's k-th highest so far is looked at: with columns in random order that is k / j of a row in
    block j, so the cost is that of the products and one comparison each.
    """
    rows, columns = hidden
    value, column = query.new_full((len(query), 0), 0.0), torch.zeros((len(query), 0), dtype=torch.int64, device=query.device)
    width = table.shape[1]
    high = 0
    while high < width:
        low, high = high, min(high + (block if high else min(block, FIRST)), width)
        found = torch.addmm(own[low:high], query, table[:, low:high])
        a, b = np.searchsorted(columns, [low, high])
        if b > a:
            at = tuple(torch.from_numpy(x).to(found.device) for x in (rows[a:b], columns[a:b] - low))
            found.index_put_(at, found.new_tensor(-torch.inf))
        if low == 0:
            value, column = _first(found, min(k, width))
            continue
        row, above = (found > value[:, -1:]).nonzero(as_tuple=True)
        if len(row):
            value, column = _merge(value, column, row, above + low, found[row, above], min(k, width))
    return value, column


def _first(found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row; rows with equal scores are sorted in full, so that the first of them come first. Padded with -inf."""
    more = min(k + 1, found.shape[1])
    value, column = torch.topk(found, more, dim=1)
    tied = (value[:, 1:] == value[:, :-1]).any(dim=1)
    if bool(tied.any()):
        ordered = torch.sort(found[tied], dim=1, descending=True, stable=True)
        value[tied], column[tied] = ordered.values[:, :more], ordered.indices[:, :more]
    short = k - found.shape[1]
    if short > 0:
        return torch.nn.functional.pad(value, (0, short), value=-torch.inf), torch.nn.functional.pad(column, (0, short), value=-1)
    return value[:, :k].contiguous(), column[:, :k].contiguous()


def _merge(value: Tensor, column: Tensor, row: Tensor, new: Tensor, score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of what was and what is new (row by row, columns ascending); of equal ones the earlier column first."""
    count = torch.bincount(row, minlength=len(value))
    changed = count.nonzero()[:, 0]
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    line = (count > 0).cumsum(0)[row] - 1
    wide = int(count.max())
    fresh, where = value.new_full((len(changed), wide), -torch.inf), column.new_full((len(changed), wide), -1)
    fresh[line, slot], where[line, slot] = score, new
    ordered = torch.sort(torch.cat([value[changed], fresh], dim=1), dim=1, descending=True, stable=True)
    kept = torch.cat([column[changed], where], dim=1).gather(1, ordered.indices[:, :k])
    value[changed], column[changed] = ordered.values[:, :k], kept
    return value, column


def _faiss(index: Index, users: np.ndarray, k: int, seen: Rows | None, batch: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        faiss: Any = import_module("faiss")
    except ImportError as error:
        raise InputError("engine faiss needs faiss (pip install 'cupel[faiss]'); without it engine torch gives the same") from error
    table = np.ascontiguousarray(np.hstack([index.item.cpu().numpy(), index.bias.cpu().numpy()[:, None]]), np.float32)
    flat: Any = faiss.IndexFlatIP(table.shape[1])
    flat.add(table)
    items, scores = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    for at in range(0, len(users), batch):
        part = users[at : at + batch]
        query = np.hstack([index.user[torch.from_numpy(part)].cpu().numpy(), np.ones((len(part), 1), np.float32)])
        more = 0 if seen is None else int(seen.counts[part].max(initial=0))
        value, found = flat.search(np.ascontiguousarray(query, np.float32), min(k + more, len(table)))
        for row, u in enumerate(part):
            kept = found[row] >= 0 if seen is None else (found[row] >= 0) & ~np.isin(found[row], seen.of(int(u)))
            best = np.flatnonzero(kept)[:k]
            items[at + row, : len(best)], scores[at + row, : len(best)] = found[row][best], value[row][best]
    return items, scores


def ranked_with_scores(
    model: Recommender, users: np.ndarray, k: int, seen: Rows | None = None, batch: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """(items int64 [B, k], scores float32 [B, k]) of any recommender: `top`, and the scores of what it gave; -1 and -inf where it ends."""
    items = top(model, users, k, seen=seen, batch=batch)
    scores = np.full(items.shape, -np.inf, dtype=np.float32)
    with torch.no_grad():
        for at in range(0, len(users), batch):
            asked = torch.from_numpy(np.asarray(users[at : at + batch], np.int64)).to(model.device())
            part = torch.from_numpy(items[at : at + batch])
            found = model.scores(asked).float().cpu().gather(1, part.clamp(min=0))
            scores[at : at + batch] = torch.where(part < 0, -torch.inf, found).numpy()
    return items, scores


def recommend(
    folder: str | Path, users: Sequence[str] | None = None, *, k: int = 10, exclude_seen: bool = True, device: str = "cpu"
) -> pa.Table:
    """The k best items of each user as a table of user, item (ids), rank (from 1) and score, users in the order asked (None: all).

    folder: an index (searched in blocks), or a recommender of any kind. exclude_seen: leave out what the user had in training.
    InputError for users that are not known, with how many and the first.
    """
    from cupel.learners.recommenders.saved import load

    place = Path(folder)
    model: Recommender | None = None
    if (place / FILE).is_file():
        held = Index.load(place, device=device)
        known, items, seen = held.users, held.items, held.seen
    else:
        model, what, _ = load(place, device=device)
        held, known, items, seen = None, what.log.users, what.log.items, by_user(what.log, order="item")
    asked = np.arange(len(known)) if users is None else _found(users, known)
    left_out = seen if exclude_seen else None
    if held is not None:
        best, scores = held.search(asked, k, seen=left_out)
    else:
        assert model is not None
        best, scores = ranked_with_scores(model, asked, k, left_out)
    return table(known[asked], items, best, scores)


def table(users: np.ndarray, items: np.ndarray, best: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Lists as rows of user, item, rank, score: users str [B], items str [I] (ids), best int [B, k], scores [B, k]; places that are -1 go.

    >>> table(np.array(["a"]), np.array(["x", "y"]), np.array([[1, -1]]), np.array([[0.5, -np.inf]])).to_pylist()
    [{'user': 'a', 'item': 'y', 'rank': 1, 'score': 0.5}]
    """
    import pyarrow as pa

    row, place = np.nonzero(best >= 0)
    return pa.table(
        {
            "user": pa.array(users[row].astype(object), pa.string()), "item": pa.array(items[best[row, place]].astype(object), pa.string()),
            "rank": pa.array(place + 1, pa.int32()), "score": pa.array(scores[row, place], pa.float32()),
        }
    )  # fmt: skip


def _found(asked: Sequence[str], known: np.ndarray) -> np.ndarray:
    place = {str(name): k for k, name in enumerate(known)}
    unknown = [name for name in asked if str(name) not in place]
    if unknown:
        raise InputError(
            f"{len(unknown):,} of {len(asked):,} users are not known to the recommender (first: {unknown[0]!r}); leave them out"
        )
    return np.array([place[str(name)] for name in asked], dtype=np.int64)
