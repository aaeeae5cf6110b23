"""Whether people who disagree differ in taste, or in how reliable they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context, Shared
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import Votes

NAME = "taste_or_error"
SCOPE: Scope = "dataset"
COST = 2

#: fewer votes cannot show a spread of taste of 1 (docs/plural.md); more than the second are cut to those of the busiest people
_LEAST, _MOST = 1500, 20_000
#: votes of one person that are looked at
_PER_PERSON = 2000
_FOLDS = 4
_LISTED = 10
#: gain of reliability, as a share of the loss without it, from which it is worth saying
_WORTH = 0.005


def check(votes: Votes, context: Context) -> Finding:
    """Held-out log loss of three models of the votes: one margin for all, reliability per person, taste per person.

    `cupel.votes.plural` fits them on folds of pairs (decided votes of named annotators; sides are responses under their prompt; a
    liking for length can also be a taste) and compares them on the votes of people with 10 or more; intervals at 95 % allow for votes
    of one person, and of one prompt, to go together. Finding "people differ" when taste beats reliability by an interval above 0 and
    does not where people are exchanged; finding "people err" when reliability beats one margin by an interval above 0 and by .5 % of
    its loss, and taste adds nothing that the votes show. Clean when neither adds anything and a taste that moves log-odds by 1
    (standard deviation over votes) would have been seen with 80 % power, measured by planting it. Not applicable, with the reason,
    where these votes cannot tell: nobody named, fewer than 1,500 votes, sides that do not come again, an interval that holds 0.

    Cost is bounded: above 20,000 votes those of the busiest people are taken, at most 2,000 of each, drawn by the seed. Severity:
    warning when people differ and taste turns the common answer in 5 % of votes or more (a convention), else info.
    """
    if not (votes.annotator >= 0).any():
        return not_applicable(NAME, SCOPE, "cannot tell taste from error: annotators are not named")
    use = (votes.annotator >= 0) & (votes.sign != 0)
    if int(use.sum()) < _LEAST:
        why = f"cannot tell taste from error: {int(use.sum()):,} decided votes of named annotators, and {_LEAST:,} are needed"
        return not_applicable(NAME, SCOPE, why, int(use.sum()))
    from cupel.votes.ballots import ballots
    from cupel.votes.plural import plural_or_noise, shared_sides

    shared = context.shared(votes)
    rows = _sample(votes, np.flatnonzero(use & shared.decided), context.seed)
    if len(rows) < _LEAST:
        why = f"cannot tell taste from error: {len(rows):,} votes between different sides, and {_LEAST:,} are needed"
        return not_applicable(NAME, SCOPE, why, len(rows))
    first, second, length = _items(shared, rows)
    who, person = np.unique(votes.annotator[rows], return_inverse=True)
    cast = ballots(first, second, votes.sign[rows] > 0, person.reshape(-1), ordered=votes.order_known, traits=length[:, None])
    again = shared_sides(cast)
    # where sides do not come again only a liking for length can be seen: that there is no taste cannot be said, whatever the power
    told = plural_or_noise(cast, dense(shared.cluster[rows]), folds=_FOLDS, seed=context.seed, power=1 if again >= 0.5 else 0)
    if told.fit is None or told.noise_gain is None or told.taste_gain is None:
        return not_applicable(NAME, SCOPE, f"cannot tell taste from error: {told.reason}", told.judged)
    gains = {"reliability": told.noise_gain, "taste": told.taste_gain, "taste_where_people_are_exchanged": told.control_gain}
    details: dict[str, Any] = {
        "verdict": told.verdict,
        "reason": told.reason,
        "people": told.people,
        "held_out_log_loss": {name: round(value, 6) for name, value in told.loss.items()},
        "gain": {name: None if g is None else [_number(x) for x in (g.estimate, g.low, g.high)] for name, g in gains.items()},
        "exchanged_within": told.exchanged_within,
        "spread_of_taste": round(told.spread, 4),
        "spread_of_common_margin": round(told.margin, 4),
        "turned": round(told.turned, 6),
        "largest_share_of_one_person": round(told.largest, 4),
        "smallest_spread_seen": None if told.detectable is None else _number(told.detectable),
        "sides_that_come_again": round(again, 4),
        "votes_looked_at": len(rows),
    }
    numbers = (
        f"{_gain('reliability', told.noise_gain)}; {_gain('taste', told.taste_gain)} "
        f"({told.judged:,} held-out votes of {told.people:,} people)"
    )
    limits = "" if again >= 0.5 else "; sides do not come again here, so of tastes only a liking for length could be seen"
    if len(rows) < int((use & shared.decided).sum()):
        limits += f"; the busiest people's {len(rows):,} votes were looked at"
    if told.verdict == "people_differ":
        own = told.per_vote["noise"] - told.per_vote["plural"]
        details["annotators"] = _table(own, who[cast.person[told.rows]], shared)
        return found(
            votes, np.zeros(0, dtype=np.int64), name=NAME, scope=SCOPE, severity="warning" if told.turned >= 0.05 else "info",
            message=f"people differ: {told.reason}. {numbers}; taste turns the common answer in {percent(told.turned)} of votes{limits}",
            remedy="train a model that reads who votes: cupel train reward FILE --head pal:prototypes=2 (a few kinds of people) or --head "
            "person_vectors (a taste each), held against --head scalar on held-out votes, as texts need not tell a taste; or say whose "
            "preference one reward is. Do not relabel the minority as errors",
            count=told.people, n=told.judged, details=details,
        )  # fmt: skip
    if told.verdict == "people_err" and told.noise_gain.estimate >= _WORTH * told.loss["scalar"]:
        return found(
            votes, np.zeros(0, dtype=np.int64), name=NAME, scope=SCOPE, severity="info",
            message=f"people err: {told.reason}. {numbers}{limits}",
            remedy="cupel train reward FILE --treatment em-annotator (one rate of error per annotator)",
            count=told.people, n=told.judged, details=details,
        )  # fmt: skip
    if told.verdict == "cannot_tell":
        return not_applicable(NAME, SCOPE, f"cannot tell taste from error: {told.reason}. {numbers}{limits}", told.judged)
    return clean(NAME, SCOPE, told.judged, f"{told.reason}. {numbers}{limits}", details)


def _sample(votes: Votes, rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows, or at most about `_MOST` of the people who voted most, at most `_PER_PERSON` each; ascending."""
    if len(rows) <= _MOST:
        return rows
    rng = np.random.default_rng([seed, 41])
    who = votes.annotator[rows]
    order = np.lexsort((rng.random(len(rows)), who))
    place = np.arange(len(rows)) - np.searchsorted(who[order], who[order])
    rows = rows[order[place < _PER_PERSON]]
    count = np.bincount(votes.annotator[rows])
    busiest = np.argsort(-count, kind="stable")
    chosen = busiest[: max(1, int(np.searchsorted(np.cumsum(count[busiest]), _MOST, side="right")))]
    return np.sort(rows[np.isin(votes.annotator[rows], chosen)])


def _items(shared: Shared, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second) [rows] numbers of (prompt, response), equal after normalising, and the log length of each item."""
    n, prompt = len(rows), shared.prompt_id[shared.prompt[rows]]
    text = np.concatenate([shared.first[rows], shared.second[rows]])
    item = dense(np.tile(prompt, 2), shared.response_id[text])
    length = np.zeros(int(item.max()) + 1)
    length[item] = np.log1p(shared.chars[text])
    return item[:n], item[n:], length


def _table(own: np.ndarray, annotator: np.ndarray, shared: Shared) -> list[dict[str, Any]]:
    """The people whose votes taste tells most of: pseudonym, votes, nats per vote."""
    total, n = np.bincount(annotator, weights=own), np.bincount(annotator)
    order = sorted(np.flatnonzero(n).tolist(), key=lambda a: (-total[a], shared.names[a]))[:_LISTED]
    return [{"annotator": shared.names[a], "votes": int(n[a]), "gain": _number(total[a] / n[a])} for a in order]


def _gain(name: str, gain: Any) -> str:
    return f"{name} gains {gain.estimate:.4f} nats a vote (95 % {gain.low:.4f} to {gain.high:.4f})"


def _number(x: float) -> float | None:
    return round(float(x), 6) if np.isfinite(x) else None
