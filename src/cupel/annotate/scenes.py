"""Scenes from a log of interactions: what a person had met before, the options that lay before them, and which of them was chosen.

Method card 20-usersim (arXiv:2508.18142, as in the authors' code), with two differences. History and scores see only what happened
strictly before the choice; and the chosen item stands at a uniform position among all, where the authors' builder never puts it last, so
that a model gains by avoiding the last option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cupel.annotate.exposure import Occasion, Scorer, check_exposure, interleave, top_list
from cupel.curate.rationale_pairs import LETTERS
from cupel.errors import InputError
from cupel.interactions.log import Log, by_user


@dataclass(frozen=True)
class Memory:
    """What is known of a person at one time.

    user     index; items int32 [h], met strictly before, oldest first; value float32 [h] (ratings) and time int64 [h] where known
    now      time of the choice; None where unknown
    profile  anything said of the person in words
    """

    user: int
    items: np.ndarray
    value: np.ndarray | None = None
    time: np.ndarray | None = None
    now: int | None = None
    profile: str = ""


@dataclass(frozen=True)
class Scenes:
    """Choices with their options, [S] scenes.

    log       the interactions; `event` int64 [S]: the row of the log that is each choice
    exposure  int32 [S, widest]: items by index, -1 beyond a scene's options; chosen int64 [S]: the position of the recorded choice
    history   event rows of the log strictly before the choice, oldest first, one array per scene
    profiles  a text per user index; empty where there are none
    notes     what the builder counted
    """

    log: Log
    event: np.ndarray
    exposure: np.ndarray
    chosen: np.ndarray
    history: tuple[np.ndarray, ...]
    profiles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for s in range(len(self)):
            check_exposure(self.options(s), int(self.exposure[s, self.chosen[s]]), f"scene {s}")

    def __len__(self) -> int:
        return len(self.event)

    @property
    def user(self) -> np.ndarray:
        """User index of each scene, int32 [S]."""
        return self.log.user[self.event]

    @property
    def sizes(self) -> np.ndarray:
        """Options of each scene, int64 [S]."""
        return (self.exposure >= 0).sum(axis=1)

    def options(self, s: int) -> np.ndarray:
        """Items of one scene's exposure, in order."""
        return self.exposure[s][self.exposure[s] >= 0]

    def memory(self, s: int) -> Memory:
        """What is known of the person of one scene."""
        rows, log, user = self.history[s], self.log, int(self.user[s])
        return Memory(
            user, log.item[rows], None if log.value is None else log.value[rows], None if log.time is None else log.time[rows],
            None if log.time is None else int(log.time[self.event[s]]), self.profiles[user] if self.profiles else "",
        )  # fmt: skip

    def take(self, rows: np.ndarray) -> Scenes:
        """Those scenes (indices)."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        history = tuple(self.history[int(s)] for s in rows)
        return replace(self, event=self.event[rows], exposure=self.exposure[rows], chosen=self.chosen[rows], history=history)

    def recorded_as(self, chosen: np.ndarray) -> Scenes:
        """The same scenes with other positions recorded as chosen, for tests with planted misclicks."""
        return replace(self, chosen=np.asarray(chosen, np.int64))


def misclicks(scenes: Scenes, share: float, *, seed: int) -> np.ndarray:
    """Positions recorded as chosen when that share of clicks goes to a uniform other option: int64 [S]; the truth stays in `scenes`.

    InputError for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"a share of misclicks lies between 0 and 1, not {share!r}")
    rng = np.random.default_rng([seed, 22])
    wrong = rng.random(len(scenes)) < share
    other = (scenes.chosen + 1 + np.floor(rng.random(len(scenes)) * (scenes.sizes - 1)).astype(np.int64)) % scenes.sizes
    return np.where(wrong, other, scenes.chosen)


def first_seen(log: Log) -> np.ndarray:
    """Time of each item's first event, int64 [I], the largest number for items without events: a stand-in for dates of release.

    InputError where the log has no times.
    """
    if log.time is None:
        raise InputError('the log has no times, so nothing says when an item came to be: give dates of release, or released="none"')
    first = np.full(log.shape[1], np.iinfo(np.int64).max)
    np.minimum.at(first, log.item, log.time)
    return first


def build_scenes(
    log: Log, scorers: Sequence[Scorer], *, choices: int | tuple[int, int] = (2, 12), events: np.ndarray | None = None, least: int = 3,
    history: int = 10, per_user: int | None = None, released: np.ndarray | Literal["known", "none"] = "known",
    profiles: Sequence[str] = (), seed: int = 0,
) -> Scenes:  # fmt: skip
    """Scenes of a log's events, with `choices` options each (a number, or a range to draw from).

    log       the whole log, later events included: an item that its user ever met is never a distractor of theirs
    events    rows that become scenes (indices or a mask), all by default; leave choices that are no likes out here
    least     earlier events that a user needs; history: how many of the latest ones are remembered. Earlier is a smaller time, or without
              times an earlier row
    per_user  scenes of one user at most, drawn at random
    released  times [I] before which an item is no distractor; "known" takes the log's own, or where it has none the item's first event;
              "none" switches the guard off, and a log without times has none
    Each list is cut to the max(32, 3 * most options) best allowed items before the lists are interleaved. Every event has draws of its own,
    of seed and row. InputError for fewer than 2 or more than 26 options, unknown rows, and where no event makes a scene.

    >>> from cupel.annotate.exposure import Random
    >>> log = Log.of(["a"] * 4 + ["b"] * 4, [1, 2, 3, 4, 3, 4, 5, 6])
    >>> scenes = build_scenes(log, [Random(6)], choices=3)
    >>> len(scenes), sorted(log.items[scenes.options(0)].tolist()), scenes.memory(0).items.tolist()
    (2, ['4', '5', '6'], [0, 1, 2])
    """
    low, high = (choices, choices) if isinstance(choices, int) else choices
    if not 2 <= low <= high <= len(LETTERS):
        raise InputError(f"scenes have {low} to {high} options; 2 to {len(LETTERS)} are possible, labels being single letters")
    if not scorers:
        raise InputError("no scorer: give at least one, such as cupel.annotate.exposure.Random(number of items)")
    if per_user is not None and per_user < 1:
        raise InputError(f"per_user={per_user} leaves no scene; give 1 at least, or None for all")
    asked = _rows(events, len(log))
    since = _release(log, released)
    rows = by_user(log)
    timeless = np.zeros(len(log), np.int64)
    made: list[tuple[int, np.ndarray, int, np.ndarray]] = []
    few = capped = short = 0
    wanted = np.zeros(len(log), bool)
    wanted[asked] = True
    for user in np.unique(log.user[asked]).tolist():
        mine = rows.event[rows.start[user] : rows.start[user + 1]]
        if log.time is None:
            before = np.arange(len(mine))
        else:
            before = np.searchsorted(log.time[mine], log.time[mine], side="left")
        at = np.flatnonzero(wanted[mine])
        ready = at[before[at] >= least]
        few += len(at) - len(ready)
        if per_user is not None and len(ready) > per_user:
            capped += len(ready) - per_user
            ready = np.sort(np.random.default_rng([seed, 23, user]).permutation(ready)[:per_user])
        unmet = np.ones(log.shape[1], bool)
        unmet[log.item[mine]] = False
        for n in ready.tolist():
            event, earlier = int(mine[n]), mine[: before[n]]
            now = timeless[event] if log.time is None else log.time[event]
            allowed = unmet if since is None else unmet & (since <= now)
            found = _exposure(log, event, log.item[earlier], allowed, scorers, low, high, np.random.default_rng([seed, 24, event]))
            if found is None:
                short += 1
            else:
                made.append((event, *found, earlier[max(len(earlier) - history, 0) :]))
    if not made:
        raise InputError(
            f"none of {len(asked):,} events makes a scene: {few:,} have fewer than {least} events before them (least=), {short:,} have "
            f"fewer than {low - 1} items left that their user never met"
        )
    made.sort(key=lambda one: one[0])
    exposure = np.full((len(made), max(len(options) for _, options, _, _ in made)), -1, np.int32)
    for s, (_, options, _, _) in enumerate(made):
        exposure[s, : len(options)] = options
    notes = (
        f"{len(made):,} scenes of {len(asked):,} events; {few:,} have fewer than {least} events before them, {capped:,} are beyond "
        f"{per_user} of one user, {short:,} have too few items that the user never met.",
        "Distractors may be younger than the choice: nothing says when items came to be." if since is None else "No distractor is younger.",
    )
    event, chosen = (np.array([one[n] for one in made], np.int64) for n in (0, 2))
    return Scenes(log, event, exposure, chosen, tuple(one[3] for one in made), tuple(profiles), notes)


def _exposure(
    log: Log, event: int, earlier: np.ndarray, allowed: np.ndarray, scorers: Sequence[Scorer], low: int, high: int, rng: np.random.Generator
) -> tuple[np.ndarray, int] | None:
    """(items in order, position of the chosen one); None where too few are left."""
    item = int(log.item[event])
    occasion = Occasion(int(log.user[event]), item, earlier, rng)
    most = max(32, 3 * high)
    lists = []
    for scorer in scorers:
        scores = np.asarray(scorer(occasion))
        if scores.shape != allowed.shape:
            raise InputError(f"{type(scorer).__name__} scores {scores.shape} items of {allowed.shape}: one score per item of the log")
        lists.append(top_list(scores, allowed, most))
    merged = interleave(lists, rng)
    others = merged[: int(rng.integers(low - 1, high))]  # low - 1 to high - 1 of them
    if len(others) < low - 1:
        return None
    at = int(rng.integers(0, len(others) + 1))  # uniform over all slots, the last included
    return np.insert(others, at, item), at


def _rows(events: np.ndarray | None, n: int) -> np.ndarray:
    if events is None:
        return np.arange(n)
    rows = np.asarray(events)
    if rows.dtype == bool:
        if len(rows) != n:
            raise InputError(f"a mask of {len(rows):,} events for a log of {n:,}")
        return np.flatnonzero(rows)
    bad = (rows < 0) | (rows >= n)
    if bad.any():
        raise InputError(f"{int(bad.sum()):,} of {len(rows):,} events are no rows of a log of {n:,} (first: {rows[bad][0]})")
    return np.unique(rows)


def _release(log: Log, released: np.ndarray | Literal["known", "none"]) -> np.ndarray | None:
    if isinstance(released, str):
        if released not in ("known", "none"):
            raise InputError(f'released is "known", "none" or times of all items, not {released!r}')
        if released == "none" or log.time is None:
            return None
        return first_seen(log) if log.released is None else log.released
    if log.time is None:
        raise InputError("dates of release say nothing about a log without times")
    if len(released) != log.shape[1]:
        raise InputError(f"{len(released):,} dates of release for {log.shape[1]:,} items: one each")
    return np.asarray(released)
