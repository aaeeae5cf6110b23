"""Users whose events come too fast, too evenly or in too great number for a person."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, percent
from cupel.audit.interactions.context import Context, found, in_seconds
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log
from cupel.interactions.order import order

NAME = "bot_like_users"
SCOPE: Scope = "row"
#: events within BURST seconds; users with fewer events than LEAST are not looked at for evenness
FAST, BURST, LEAST = 100, 60, 30
#: gaps whose standard deviation is below this share of their mean are even
EVEN = 0.1
#: many: above MANY events, and this many robust standard deviations above the middle of ln(events)
MANY, FAR = 200, 5.0


def check(log: Log, context: Context) -> Finding:
    """Events of users who look like programs, by any of three signs.

    fast: 100 events or more within some 60 seconds. even: 30 events or more, and gaps between consecutive times whose standard deviation
    is below a tenth of their mean. many: more than 200 events, and ln(events) more than 5 robust standard deviations (1.4826 times the
    median distance, at least 0.5) above the median user. fast and even need times in seconds, and are not used where more than half of
    the users long enough show them: then the clock is coarse or made up, which `details` says. Thresholds are conventions; shared
    accounts, libraries and importers look the same. Severity: warning from 1 % of the events on, else info.
    """
    counts = log.counts("user")
    signs = {"many": _many(counts), "fast": np.zeros(len(counts), dtype=bool), "even": np.zeros(len(counts), dtype=bool)}
    details: dict[str, object] = {}
    if not in_seconds(log):
        details["clock"] = "no times in seconds: rate and evenness were not looked at"
    else:
        turn = order(np.asarray(log.time), log.user)
        user, time = log.user[turn], np.asarray(log.time)[turn]
        for name, (shown, looked) in {"fast": _fast(user, time, counts), "even": _even(user, time, counts)}.items():
            if shown.sum() * 2 > looked.sum() and looked.sum() >= 10:
                details["clock"] = f"{int(shown.sum()):,} of {int(looked.sum()):,} users are {name}: the clock is coarse or made up"
            else:
                signs[name] = shown
    bots = signs["many"] | signs["fast"] | signs["even"]
    details |= {name: int(shown.sum()) for name, shown in signs.items()}
    users = int((counts > 0).sum())
    if not bots.any():
        return clean(NAME, SCOPE, len(log), f"none of {users:,} users is too fast, too even or too busy for a person", details)
    rows = bots[log.user]
    share = percent(rows.sum() / len(log))
    named = ", ".join(f"{name} {int(shown.sum()):,}" for name, shown in signs.items() if shown.any())
    busiest = np.flatnonzero(bots)[np.argsort(-counts[bots], kind="stable")]
    return found(
        log, rows, name=NAME, scope=SCOPE, severity=by_share(int(rows.sum()), len(log), warning=0.01),
        examples=tuple(log.users[busiest[:10]].tolist()),
        message=f"{int(bots.sum()):,} of {users:,} users look like programs ({named}); {int(rows.sum()):,} events ({share}) are theirs",
        remedy="look at the users named; leave their events out, or give them less weight", details=details,
    )  # fmt: skip


def _many(counts: np.ndarray) -> np.ndarray:
    busy = counts > 0
    if busy.sum() < 10:
        return np.zeros(len(counts), dtype=bool)
    logs = np.log(np.maximum(counts, 1))
    middle = np.median(logs[busy])
    spread = max(1.4826 * float(np.median(np.abs(logs[busy] - middle))), 0.5)
    return busy & (counts > MANY) & (logs > middle + FAR * spread)


def _fast(user: np.ndarray, time: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shown = np.zeros(len(counts), dtype=bool)
    if len(user) >= FAST:
        within = (user[FAST - 1 :] == user[: -FAST + 1]) & (time[FAST - 1 :] - time[: -FAST + 1] < BURST)
        shown[user[FAST - 1 :][within]] = True
    return shown, counts >= FAST


def _even(user: np.ndarray, time: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = user[1:] == user[:-1]
    gap, who = np.diff(time)[inside].astype(np.float64), user[1:][inside]
    n = np.maximum(np.bincount(who, minlength=len(counts)), 1)
    mean = np.bincount(who, gap, minlength=len(counts)) / n
    spread = np.sqrt(np.bincount(who, (gap - mean[who]) ** 2, minlength=len(counts)) / n)
    return (counts >= LEAST) & (mean > 0) & (spread < EVEN * mean), counts >= LEAST
