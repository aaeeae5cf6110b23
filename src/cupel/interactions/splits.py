"""A log cut into training, validation and test: at random per user, by each user's last events, by a date, or with a test of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log, Split
from cupel.interactions.order import among, distinct, order

#: what is done with held-out pairs that training knows as well
Overlap = Literal["error", "drop", "keep"]


def random_split(log: Log, *, test: float = 0.1, validation: float = 0.1, seed: int = 0, overlap: Overlap = "error") -> Split:
    """A share of each user's events at random: max(1, round(share n)) for the test, as many by their share for validation.

    The rule by which recommenders are compared here: rows in the order (user, time, item); one generator; users in the order of their
    index; p = rng.permutation(rows of the user); the first n_test are the test, the next n_validation validation, the rest training.
    Users of fewer than 3 events stay in training whole. Parts come in the order (user, time, item).

    overlap: pairs held out that occur in training (a log with repeats): InputError, or left out of what is held out, or kept; the count
    is said. InputError where shares leave nothing for training.

    >>> split = random_split(Log.of(["a"] * 10, list(range(10))))
    >>> len(split.train), len(split.validation), len(split.test)
    (8, 1, 1)
    """
    _shares(test, validation)
    log = _with_events(log)
    ordered = log.take(_turn(log))
    start = np.concatenate([[0], np.cumsum(ordered.counts("user"))])
    part = np.zeros(len(log), dtype=np.int8)
    rng = np.random.default_rng(seed)
    short = 0
    for u in range(len(log.users)):
        n = int(start[u + 1] - start[u])
        if n < 3:
            short += n > 0
            continue
        p = rng.permutation(np.arange(start[u], start[u + 1]))
        n_test = max(1, round(test * n)) if test else 0
        n_validation = max(1, round(validation * n)) if validation else 0
        part[p[:n_test]] = 2
        part[p[n_test : n_test + n_validation]] = 1
    notes = [f"{short:,} users have fewer than 3 events: all of theirs are in training."] if short else []
    how = f"per user at random, {test:g} for the test and {validation:g} for validation (at least one event each), seed {seed}"
    return _cut(ordered.noted(*notes), part, how, overlap)


def leave_one_out(log: Log, *, validation: bool = True, shortest: int = 3, overlap: Overlap = "error") -> Split:
    """Each user's last event for the test, the last but one for validation, the rest for training.

    Last in the order (time, item, place in the file), so equal times do not depend on how the file is sorted; how many users' last two
    events have one time is said. Users of fewer than `shortest` events (at least 2, with validation 3) are left out whole, and counted.
    InputError without times, or where no user has enough events. overlap: as in `random_split`.

    >>> split = leave_one_out(Log.of(["a"] * 3 + ["b"], [5, 6, 7, 5], time=np.array([3, 1, 2, 9])))
    >>> split.test.items[split.test.item].tolist(), split.train.items[split.train.item].tolist()
    (['5'], ['6'])
    >>> split.test.notes
    ('1 of 2 users have fewer than 3 events: left out.',)
    """
    least = 3 if validation else 2
    if shortest < least:
        raise InputError(f"a user needs {least} events to give one to each part: shortest is {shortest}")
    time = _times(log, "whose last event is which")
    log = _with_events(log)
    ordered = log.take(_turn(log))
    counts = ordered.counts("user")
    start = np.concatenate([[0], np.cumsum(counts)])
    long = counts >= shortest
    if not long.any():
        raise InputError(f"none of the {int((counts > 0).sum()):,} users has {shortest} events: set shortest lower, or use random_split")
    part = np.zeros(len(log), dtype=np.int8)
    last = start[1:][long] - 1
    part[last] = 2
    if validation:
        part[last - 1] = 1
    part[~long[ordered.user]] = -1
    notes = []
    short = int(((counts > 0) & ~long).sum())
    if short:
        notes.append(f"{short:,} of {int((counts > 0).sum()):,} users have fewer than {shortest} events: left out.")
    time = ordered.time if ordered.time is not None else time
    ties = int((time[last] == time[last - 1]).sum())
    if ties:
        notes.append(f"The last two events of {ties:,} users have one time: the larger item index counts as later.")
    how = "each user's last event for the test" + (", the last but one for validation" if validation else "")
    return _cut(ordered.noted(*notes), part, how, overlap)


def temporal(
    log: Log, *, test: float = 0.1, validation: float = 0.1, at: tuple[int, int] | None = None, overlap: Overlap = "error"
) -> Split:
    """Events before a moment for training, after it for validation, after a later one for the test: the same moments for all users.

    The moments are such that the last `test` of the events are the test and the `validation` before them validation; events of one time
    are never parted, so the shares are met up to those. at: the two moments themselves (validation from, test from). Test events of
    users and items that training does not know are kept and counted. InputError without times, or where a part is empty.

    >>> split = temporal(Log.of(list("abababab"), list(range(8)), time=np.arange(8)), test=0.25, validation=0.25)
    >>> split.train.time.tolist(), split.validation.time.tolist(), split.test.time.tolist()
    ([0, 1, 2, 3], [4, 5], [6, 7])
    """
    time = _times(log, "which events come later")
    log = _with_events(log)
    if at is None:
        _shares(test, validation)
        sorted_time = np.sort(time)
        n = len(time)
        cuts = [round((1 - test - validation) * n), round((1 - test) * n)]
        first, second = (int(sorted_time[cut]) if cut < n else int(sorted_time[-1]) + 1 for cut in cuts)
    else:
        first, second = at
    part = (time >= first).astype(np.int8) + (time >= second).astype(np.int8)
    sizes = np.bincount(part, minlength=3)
    wanted = [True, at is not None or validation > 0, at is not None or test > 0]
    for size, name, asked in zip(sizes, ("training", "validation", "test"), wanted, strict=True):
        if asked and size == 0:
            raise InputError(
                f"no event is left for {name}: validation begins at time {first}, the test at {second}, and events lie between "
                f"{int(time.min())} and {int(time.max())}. Give other shares or moments"
            )
    train = part == 0
    notes = []
    for kind, index, ids in (("user", log.user, log.users), ("item", log.item, log.items)):
        known = np.bincount(index[train], minlength=len(ids)) > 0
        new = int((~known[index[part == 2]]).sum())
        if new:
            notes.append(f"{new:,} of {int(sizes[2]):,} test events are of {kind}s without an event in training.")
    return _cut(log.noted(*notes), part, f"validation from time {first}, test from time {second}", overlap)


def uniform_test(log: Log, test: Log, *, validation: float = 0.1, seed: int = 0, overlap: Overlap = "error") -> Split:
    """Training on what users chose, test on a log of its own, as where items were drawn at random (Coat, Yahoo! R3).

    Ids are matched by name; those that only the test knows are put behind the others. Validation is a share of the chosen events per
    user, drawn as in `random_split`, so it is as selected as training is. overlap: as in `random_split`, here between the two logs.

    >>> split = uniform_test(Log.of(["a"] * 10, list(range(10))), Log.of(["a", "b"], [10, 3]))
    >>> len(split.train), len(split.validation), split.test.users[split.test.user].tolist(), split.train.shape
    (9, 1, ['a', 'b'], (2, 11))
    """
    users, of_user = _joined(log.users, test.users)
    items, of_item = _joined(log.items, test.items)
    texts, released = _joined_facts(log, test, len(items), of_item)
    chosen = replace(log, users=users, items=items, texts=texts, released=released)
    asked = replace(
        test, users=users, items=items, texts=texts, released=released,
        user=of_user[test.user].astype(np.int32), item=of_item[test.item].astype(np.int32),
    )  # fmt: skip
    inner = random_split(chosen, test=0.0, validation=validation, seed=seed, overlap=overlap)
    how = f"the test is a log of its own; {validation:g} of each user's other events for validation, seed {seed}"
    return checked(Split(inner.train, inner.validation, asked, how), overlap)


def checked(split: Split, overlap: Overlap = "error") -> Split:
    """The split, its held-out pairs compared with training, its users counted: InputError, or notes, as `overlap` says.

    Also said, in the notes of training: users that have every item there is in training (nothing can be drawn that they did not take).
    """
    if overlap not in ("error", "drop", "keep"):
        raise InputError(f'pairs held out that training knows are an "error", or one says "drop" or "keep", not {overlap!r}')
    known = distinct(split.train.pairs())
    parts = {"validation": split.validation, "test": split.test}
    for name, part in parts.items():
        again = among(part.pairs(), known)
        count = int(again.sum())
        if not count:
            continue
        first = int(np.argmax(again))
        which = f"user {part.users[part.user[first]]}, item {part.items[part.item[first]]}"
        if overlap == "error":
            raise InputError(
                f"{count:,} of {len(part):,} {name} events are of pairs that also occur in training (first: {which}). A log with repeats: "
                'keep one event per pair (deduplicated), or split with overlap="drop" (leave them out) or overlap="keep"'
            )
        said = f"{count:,} of {len(part):,} {name} events are of pairs that also occur in training (first: {which}): "
        parts[name] = part.noted(said + "kept.") if overlap == "keep" else part.take(~again, said + "left out.")
    train = split.train
    users, items = train.shape
    full = int((np.bincount((known // items).astype(np.int64), minlength=users) == items).sum()) if items else 0
    if full:
        train = train.noted(f"{full:,} users have all {items:,} items in training: there is none that they did not take.")
    return Split(train, parts["validation"], parts["test"], split.how)


def _cut(log: Log, part: np.ndarray, how: str, overlap: Overlap) -> Split:
    train, validation, test = (log.take(np.flatnonzero(part == k)) for k in range(3))
    return checked(Split(train, validation, test, how), overlap)


def _turn(log: Log) -> np.ndarray:
    """Rows in the order (user, time, item, place in the file)."""
    return order(log.item, log.user) if log.time is None else order(log.item, log.time, log.user)


def _with_events(log: Log) -> Log:
    if not len(log):
        raise InputError("a log without events cannot be split")
    empty = int((log.counts("user") == 0).sum())
    return log.noted(f"{empty:,} of {len(log.users):,} users have no event: they are in no part.") if empty else log


def _times(log: Log, what: str) -> np.ndarray:
    if log.time is None:
        raise InputError(
            f"events have no time, so it is unknown {what}: name the column with map={{'time': 'COLUMN'}}, or use random_split"
        )
    return log.time


def _shares(test: float, validation: float) -> None:
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise InputError(f"test and validation are shares that leave something for training, not {test} and {validation}")


def _joined(ids: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids with those that only `more` has behind them, and the index of each of `more` among them."""
    joined = np.concatenate([ids, more[~np.isin(more, ids)]])
    order = np.argsort(joined, kind="stable")
    return joined, order[np.searchsorted(joined[order], more)]


def _joined_facts(log: Log, test: Log, n: int, of_item: np.ndarray) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Texts and release times of the joined items: the first log's, else the other's."""
    texts = released = None
    if log.texts is not None or test.texts is not None:
        said = [""] * n
        for i, text in zip(of_item, test.texts or (), strict=False):
            said[i] = text
        said[: len(log.items)] = [a or b for a, b in zip(log.texts or ("",) * len(log.items), said, strict=False)]
        texts = tuple(said)
    if log.released is not None:
        released = np.full(n, np.iinfo(np.int64).min)  # what only the test knows, and it states no date: older than all events
        if test.released is not None:
            released[of_item] = test.released
        released[: len(log.items)] = log.released
    return texts, released
