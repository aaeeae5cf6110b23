"""SASRec: looks back only, does not depend on padding or company, learns a rule that popularity cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.models.sasrec import SASRec
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Known, top
from cupel.noise.fixed import identity
from cupel.objectives.pointwise import bpo
from cupel.objectives.reward import bradley_terry
from cupel.objectives.types import Objective


def log_of(sizes: list[int], items: int, seed: int = 0) -> Log:
    """Users with so many events each, in a shuffled file."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(sizes)), sizes)
    time = np.concatenate([np.arange(n) for n in sizes])
    item = rng.integers(0, items, len(user))
    turn = rng.permutation(len(user))
    ids = np.arange(max(len(sizes), items)).astype(str)
    return Log(ids[: len(sizes)], ids[:items], user[turn].astype(np.int32), item[turn].astype(np.int32), time=time[turn])


def model_of(log: Log, **settings: int) -> SASRec:
    model = SASRec(*log.shape, dim=8, std=0.5, seed=1, **settings).eval()
    model.prepare(Known(log))
    return model


def slow_score(model: SASRec, items: list[int]) -> torch.Tensor:
    """Scores of all items after a history, one sequence by itself, the window cut by the definition."""
    whole = [model.n_items, *items]
    window = torch.tensor([whole[-model.length :]])
    state = model.states(window, torch.ones_like(window, dtype=torch.bool))[0, -1]
    return model.item[: model.n_items] @ state


def test_scores_are_of_the_history_strictly_before_the_event() -> None:
    log = log_of([3, 1, 5, 0, 4], 7)
    model, rows = model_of(log, length=10), by_user(log)
    every = torch.arange(7).expand(len(log), -1)
    found = model.score(torch.from_numpy(log.user.astype(np.int64)), every, torch.arange(len(log)))
    for u in range(5):
        history = rows.of(u).tolist()
        for place, event in enumerate(rows.event[rows.start[u] : rows.start[u + 1]]):
            torch.testing.assert_close(found[event], slow_score(model, history[:place]))
        torch.testing.assert_close(model.scores(torch.tensor([u]))[0], slow_score(model, history))


def test_long_histories_are_read_in_windows_from_the_end() -> None:
    log = log_of([11, 4], 6)
    model, rows = model_of(log, length=4), by_user(log)
    for u in range(2):
        whole = [6, *rows.of(u).tolist()]
        torch.testing.assert_close(model.scores(torch.tensor([u]))[0], slow_score(model, whole[1:]))
        n = len(whole)
        for place, event in enumerate(rows.event[rows.start[u] : rows.start[u + 1]]):
            begin = max(0, n - ((n - 1 - place) // 4 + 1) * 4)
            window = torch.tensor([whole[begin : place + 1]])
            assert 1 <= window.shape[1] <= 4
            state = model.states(window, torch.ones_like(window, dtype=torch.bool))[0, -1]
            found = model.score(torch.tensor([u]), torch.arange(6)[None], torch.tensor([int(event)]))
            torch.testing.assert_close(found[0], model.item[:6] @ state)


def test_padding_side_and_company_change_nothing() -> None:
    log = log_of([3, 9, 5], 7)
    model = model_of(log, length=12)
    items = torch.tensor([[7, 1, 2, 3]])
    left = torch.cat([torch.full((1, 5), 4), items], dim=1)
    right = torch.cat([items, torch.full((1, 5), 4)], dim=1)
    mask = torch.ones(1, 4, dtype=torch.bool)
    plain = model.states(items, mask)[0]
    empty = torch.zeros(1, 5, dtype=torch.bool)
    torch.testing.assert_close(model.states(left, torch.cat([empty, mask], 1))[0, 5:], plain)
    torch.testing.assert_close(model.states(right, torch.cat([mask, empty], 1))[0, :4], plain)
    together = model.scores(torch.arange(3))
    for u in range(3):
        torch.testing.assert_close(together[u], model.scores(torch.tensor([u]))[0])


def test_the_future_is_not_seen() -> None:
    log = log_of([6], 9)
    changed = Log(log.users, log.items, log.user, np.where(log.time >= 3, (log.item + 1) % 9, log.item).astype(np.int32), time=log.time)
    assert log.time is not None
    events = torch.from_numpy(np.flatnonzero(log.time <= 3))
    every, user = torch.arange(9).expand(len(events), -1), torch.zeros(len(events), dtype=torch.int64)
    one, two = model_of(log), model_of(changed)
    torch.testing.assert_close(one.score(user, every, events), two.score(user, every, events))
    last = torch.from_numpy(np.flatnonzero(log.time == 5))
    assert not torch.allclose(one.score(user[:1], every[:1], last), two.score(user[:1], every[:1], last))


@pytest.mark.parametrize("objective", [bpo(), bradley_terry()], ids=["bpo", "bradley_terry"])
def test_it_learns_what_follows_what(objective: Objective) -> None:
    """Item i + 1 follows item i around a ring of 12: every item is equally popular, the order alone says what comes next."""
    rng = np.random.default_rng(0)
    begin = rng.integers(0, 12, 60)
    item = (begin[:, None] + np.arange(6)) % 12
    log = Log.of(np.repeat(np.arange(60), 6), item.reshape(-1), time=np.tile(np.arange(6), 60))
    names = log.items.astype(int)
    turned = Log(log.users, log.items, log.user, log.item, time=log.time)
    options = RecommenderOptions(model="sasrec:dim=16,length=8,dropout=0.1", epochs=25, batch_size=15, learning_rate=0.01, seed=3)
    found = fit(Known(turned), objective, identity(), options)
    best = top(found.model, np.arange(60), 1, seen=by_user(log))[:, 0]
    wanted = (begin + 6) % 12
    assert np.mean(names[best] == wanted) > 0.9
    again = fit(Known(turned), objective, identity(), options)
    for name, x in found.model.state_dict().items():
        assert torch.equal(x, again.model.state_dict()[name])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        SASRec(2, 3, length=0)
    with pytest.raises(InputError, match="heads"):
        SASRec(2, 3, dim=9, heads=2)
    with pytest.raises(InputError, match="dropout"):
        SASRec(2, 3, dropout=1.0)
