"""Small made-up logs that every test of recommenders may use."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.interactions.log import Log, Split


@pytest.fixture(scope="session")
def tastes() -> Split:
    """60 users of two tastes, 40 items: users take items of their own half nine times in ten; 12 events each, 8 to train on."""
    rng = np.random.default_rng(3)
    user, item, time = [], [], []
    for u in range(60):
        own = np.arange(20) + 20 * (u % 2)
        other = np.arange(20) + 20 * (1 - u % 2)
        taken = np.concatenate([rng.choice(own, 11, replace=False), rng.choice(other, 1)])
        for t, i in enumerate(rng.permutation(taken)):
            user.append(u)
            item.append(int(i))
            time.append(t)
    at = np.array(time)
    log = Log(np.arange(60).astype(str), np.arange(40).astype(str), np.array(user, np.int32), np.array(item, np.int32), time=at)
    return Split(log.take(at < 8), log.take((at >= 8) & (at < 10)), log.take(at >= 10), "by place in the sequence: 8, 2 and 2 events")
