"""Real people whom a model has not met: PAL from 5 to 50 of their comparisons against what is simpler.

    python benchmarks/pal_real.py [--data DIR] [--only WORD]

Polis, four conversations: a person is a voter with at least 10 comments agreed with and 10 disagreed with (at most 300 voters of each), a
comparison an agreed comment above a disagreed one. New people's own comments are split in halves, one for the comparisons they are fitted
on and one for the tests. `seen`: the comments are those of the training people, items are one-hot; `unseen`: comments are split first
(60 : 40), nobody's comparisons of the 40 are trained on, features are texts under the static encoder. Food World Cup: cuisines rated
differently by one respondent (15 ratings at least), one-hot. Star Wars: complete rankings of six films, 15 pairs each, one-hot; 10 to fit
on, 5 for tests. In both surveys a person's comparisons to fit on and to test on are of the same items, so that some follow from others by
transitivity, which a free model per person learns by heart. Persona: planted groups, the four religions of `pal.py`, new statements, texts.

People are split at random, 55 : 15 : 30 into training, validation and new. Methods: `majority`, log odds of the items' win shares among
training people (of the unseen comments too, which no other method knows votes on); `K=1`, one ideal point for all; `PAL`, K of 2 and 4
by `choose_k` within the training people; `vectors`, a free ideal point per person; `logistic`, a regression per person alone, on texts
(one-hot for food and films); `shuffled`, PAL with people permuted in training and among the new. Prior or ridge, and one factor on the
margins for calibration, are chosen per method and n on the validation people. Intervals are over new people, paired. Claims were written
before the run; no setting was tuned, and the films alone were looked at first, with K up to 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, write_result
from pal import RELIGIONS, interval, statements, unit

from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import Fitted, fit
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.pal import PAL
from cupel.learners.models.pal_users import choose_k, fit_new_users, mixed_margins
from cupel.learners.models.people import cross_entropy, item_shares, ridge_logistic
from cupel.learners.models.person_vectors import PersonVectors, fit_new_vectors
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry

VOTES = (5, 10, 20, 50)
MOST, KS = 50, (2, 4)
PRIORS, RIDGES, FACTORS = (
    (0.3, 1.0, 3.0, 10.0, 30.0),
    (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0),
)
CONVERSATIONS = (
    "american-assembly.bowling-green", "scoop-hivemind.biodiversity", "scoop-hivemind.taxes", "ssis.land-bank-farmland",
)  # fmt: skip
Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class New:
    """People not trained on: comparisons to fit on, in random order per person, and to test on; the first side is preferred in all."""

    fitted: Comparisons
    rank: np.ndarray
    test: Comparisons
    people: int

    def first(self, n: int) -> Comparisons:
        """The first n comparisons of each."""
        return self.fitted.take(np.flatnonzero(self.rank < n))


@dataclass(frozen=True)
class Study:
    """x: features of PAL and vectors; own: of the regression per person; share: of the majority; by: how choose_k splits."""

    x: np.ndarray
    own: np.ndarray
    share: np.ndarray
    train: Comparisons
    validation: New
    new: New
    by: Any


def trained(x: np.ndarray, data: Comparisons, head: str) -> Fitted:
    """The one recipe of all trained models here."""
    options = HeadOptions(head=head, epochs=20, batch_size=256, learning_rate=0.005, l2=1e-3)
    return fit(x, data, bradley_terry(), identity(), options)


def flat(pairs: Sequence[Pairs]) -> tuple[Comparisons, np.ndarray]:
    """Comparisons of people in order, and each one's rank within its person."""
    who = np.repeat(np.arange(len(pairs)), [len(first) for first, _ in pairs])
    rank = np.concatenate([np.arange(len(first)) for first, _ in pairs])
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return Comparisons.of(first, second, annotator=who), rank


def new_people(fitted: Sequence[Pairs], test: Sequence[Pairs]) -> New:
    """Those who have something to fit on and something to test on."""
    keep = [j for j in range(len(fitted)) if len(fitted[j][0]) and len(test[j][0])]
    data, rank = flat([fitted[j] for j in keep])
    return New(data, rank, flat([test[j] for j in keep])[0], len(keep))


def product(rng: np.random.Generator, liked: np.ndarray, left: np.ndarray, most: int) -> Pairs:
    """At most `most` different pairs of a liked and a left item, at random."""
    at = rng.permutation(len(liked) * len(left))[:most]
    return (liked[at // len(left)], left[at % len(left)]) if len(at) else (np.zeros(0, int), np.zeros(0, int))


def rated(rng: np.random.Generator, items: np.ndarray, rating: np.ndarray, most: int) -> Pairs:
    """At most `most` pairs of items that one person rated differently, the better first."""
    one, two = np.triu_indices(len(items), 1)
    at = rng.permutation(np.flatnonzero(rating[one] != rating[two]))[:most]
    up = rating[one[at]] > rating[two[at]]
    return np.where(up, items[one[at]], items[two[at]]), np.where(up, items[two[at]], items[one[at]])


def split(rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and new people."""
    order = rng.permutation(people)
    a, b = round(0.55 * people), round(0.7 * people)
    return order[:a], order[a:b], order[b:]


def study(x: np.ndarray, own: np.ndarray, train: list[Pairs], rest: tuple[New, New], by: str, known: list[Pairs] | None = None) -> Study:
    """The parts put together; the majority counts `known`, by default what is trained on."""
    data, votes = flat(train)[0], flat(train if known is None else known)[0]
    share = item_shares(votes.first, votes.second, votes.p, votes.w, len(x))
    return Study(x, own, share, data, *rest, by)


def polis(folder: Path, conversation: str, unseen: bool) -> Study:
    """A conversation's voters; see the file's docstring."""
    import pyarrow.parquet as pq

    comments, votes = (pq.read_table(folder / "polis" / f"{name}.parquet").to_pandas() for name in ("comments", "votes"))
    comments = comments[comments.conversation == conversation].sort_values("comment_id")
    votes = votes[(votes.conversation == conversation) & votes.comment_id.isin(comments.comment_id)]
    items = np.searchsorted(comments.comment_id.to_numpy(), votes.comment_id.to_numpy())
    names, who = np.unique(votes.participant.to_numpy(), return_inverse=True)
    vote = votes.vote.to_numpy()
    sides = [[items[(who == u) & (vote == word)] for word in ("agree", "disagree")] for u in range(len(names))]
    sides = [pair for pair in sides if min(map(len, pair)) >= 10]
    rng = np.random.default_rng([16, len(names)])
    sides = [sides[u] for u in rng.permutation(len(sides))[:300]]
    held = rng.random(len(comments)) < (0.4 if unseen else 0.0)
    learn, validate, new = split(rng, len(sides))

    def parts(u: int) -> tuple[Pairs, Pairs]:
        if unseen:
            liked, left = sides[u]
            return tuple(product(rng, liked[held[liked] == out], left[held[left] == out], MOST) for out in (False, True))  # pyright: ignore
        halves = [np.array_split(rng.permutation(side), 2) for side in sides[u]]
        return product(rng, halves[0][0], halves[1][0], MOST), product(rng, halves[0][1], halves[1][1], MOST)

    text = unit(comments.text.tolist())
    rest = [new_people(*zip(*(parts(u) for u in group), strict=True)) for group in (validate, new)]
    train = [product(rng, liked[~held[liked]], left[~held[left]], 60) for liked, left in (sides[u] for u in learn)]
    known = [product(rng, sides[u][0], sides[u][1], 200) for u in learn] if unseen else None
    train = [pair for pair in train if len(pair[0])]
    x = text if unseen else np.eye(len(comments), dtype=np.float32)
    return study(x, text, train, (rest[0], rest[1]), "item" if unseen else "comparison", known)


def food(folder: Path) -> Study:
    """Respondents with 15 ratings or more."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "surveys" / "food_world_cup_ratings.parquet").to_pandas()
    item = np.unique(table.cuisine.to_numpy(), return_inverse=True)[1]
    who, rating = np.unique(table.respondent.to_numpy(), return_inverse=True)[1], table.rating.to_numpy()
    people = [(item[who == u], rating[who == u]) for u in range(who.max() + 1) if (who == u).sum() >= 15]
    rng = np.random.default_rng(17)
    learn, validate, new = split(rng, len(people))

    def parts(u: int) -> tuple[Pairs, Pairs]:
        first, second = rated(rng, people[u][0], people[u][1], 2 * MOST)
        half = min(MOST, len(first) * 2 // 3)
        return (first[:half], second[:half]), (first[half:], second[half:])

    one_hot = np.eye(item.max() + 1, dtype=np.float32)
    rest = [new_people(*zip(*(parts(u) for u in group), strict=True)) for group in (validate, new)]
    return study(one_hot, one_hot, [rated(rng, people[u][0], people[u][1], 60) for u in learn], (rest[0], rest[1]), "comparison")


def films(folder: Path) -> Study:
    """Respondents' complete rankings of six films."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "surveys" / "star_wars_rankings.parquet").to_pandas()
    ranks = table[[f"rank_{j}" for j in range(1, 7)]].to_numpy()
    rng = np.random.default_rng(18)
    learn, validate, new = split(rng, len(ranks))
    every = [rated(rng, np.arange(6), -row, 15) for row in ranks]
    one_hot = np.eye(6, dtype=np.float32)
    parts = (slice(10), slice(10, None))
    rest = [new_people(*([(every[u][0][p], every[u][1][p]) for u in group] for p in parts)) for group in (validate, new)]
    return study(one_hot, one_hot, [every[u] for u in learn], (rest[0], rest[1]), "comparison")


def persona(folder: Path) -> Study:
    """Planted: four groups, statements of the own group above others', new people on statements that nobody was trained on."""
    texts = statements(folder)
    agreed = [[t for t, yes in zip(*texts[name], strict=True) if yes] for name in RELIGIONS]
    x = unit([text for group in agreed for text in group])
    start = np.cumsum([0, *map(len, agreed)])
    group = np.repeat(np.arange(len(agreed)), [len(one) for one in agreed])
    last = np.arange(len(x)) >= start[group + 1] - 100
    rng = np.random.default_rng(19)
    learn, validate, new = split(rng, 120)

    def drawn(u: int, out: bool, n: int) -> Pairs:
        return rng.choice(np.flatnonzero((group == u % 4) & (last == out)), n), rng.choice(
            np.flatnonzero((group != u % 4) & (last == out)), n
        )

    rest = [new_people([drawn(u, False, MOST) for u in some], [drawn(u, True, MOST) for u in some]) for some in (validate, new)]
    return study(x, x, [drawn(u, False, 30) for u in learn], (rest[0], rest[1]), "item")


def measured(one: Study) -> tuple[dict[str, dict[int, np.ndarray]], dict[str, Any]]:
    """Per method and n: [new people, 2] mean log loss and accuracy; and what was chosen."""
    rng = np.random.default_rng(20)
    tried_k = (1, *KS)
    picked = choose_k(one.x, one.train, lambda x, data, k: trained(x, data, f"pal:prototypes={k}"), tried_k, by=one.by, splits=1)
    k = min(KS, key=lambda k: picked.loss[k])
    mixed = Comparisons.of(one.train.first, one.train.second, annotator=rng.permutation(one.train.annotator))
    models: dict[str, Any] = {
        "K=1": trained(one.x, one.train, "pal:prototypes=1").models[0],
        "PAL": trained(one.x, one.train, f"pal:prototypes={k}").models[0],
        "shuffled": trained(one.x, mixed, f"pal:prototypes={k}").models[0],
        "vectors": trained(one.x, one.train, "person_vectors").models[0],
    }  # fmt: skip
    odds = np.log(one.share / (1 - one.share))

    def majority(new: New, some: Comparisons, _: float) -> np.ndarray:
        return odds[new.test.first] - odds[new.test.second]

    def pal(name: str) -> Callable[[New, Comparisons, float], np.ndarray]:
        model: PAL = models[name]

        def margin(new: New, some: Comparisons, prior: float) -> np.ndarray:
            if name == "shuffled":
                some = Comparisons.of(some.first, some.second, annotator=np.random.default_rng(21).permutation(some.annotator))
            named = Comparisons.of(some.first, some.second, annotator=some.annotator, annotators=tuple(map(str, range(new.people))))
            return mixed_margins(model, one.x, new.test, fit_new_users(model, one.x, named, prior=prior).weights)

        return margin

    def vectors(new: New, some: Comparisons, ridge: float) -> np.ndarray:
        model: PersonVectors = models["vectors"]
        named = Comparisons.of(some.first, some.second, annotator=some.annotator, annotators=tuple(map(str, range(new.people))))
        z = one.x @ model.map.weight.numpy().T  # pyright: ignore
        ideal = (model.centre.numpy() + fit_new_vectors(model, one.x, named, ridge=ridge).values)[new.test.annotator]
        return ((z[new.test.second] - ideal) ** 2).sum(axis=1) - ((z[new.test.first] - ideal) ** 2).sum(axis=1)

    def logistic(new: New, some: Comparisons, ridge: float) -> np.ndarray:
        b = ridge_logistic(one.own[some.first] - one.own[some.second], some.p, some.w, some.annotator, new.people, ridge=ridge).values
        return ((one.own[new.test.first] - one.own[new.test.second]) * b[new.test.annotator]).sum(axis=1)

    methods: dict[str, tuple[Callable[[New, Comparisons, float], np.ndarray], tuple[float, ...]]] = {
        "majority": (majority, (0.0,)), "K=1": (pal("K=1"), (1.0,)), "PAL": (pal("PAL"), PRIORS), "vectors": (vectors, RIDGES),
        "logistic": (logistic, RIDGES), "shuffled": (pal("shuffled"), PRIORS),
    }  # fmt: skip
    found: dict[str, dict[int, np.ndarray]] = {}
    chosen: dict[str, Any] = {"K": k, "held-out loss by K": picked.loss, "train": len(one.train), "new people": one.new.people}
    for name, (method, grid) in methods.items():
        found[name] = {}
        for n in VOTES:
            tried = {value: method(one.validation, one.validation.first(n), value) for value in grid}
            score = {(v, f): float(cross_entropy(f * m, 1.0).mean()) for v, m in tried.items() for f in FACTORS}  # pyright: ignore
            value, factor = min(score, key=lambda at: score[at])
            m = factor * method(one.new, one.new.first(n), value)
            both = np.stack([cross_entropy(m, np.ones(len(m))), np.where(m == 0, 0.5, m > 0)])
            count = np.bincount(one.new.test.annotator, minlength=one.new.people)
            found[name][n] = np.stack([np.bincount(one.new.test.annotator, row, one.new.people) / count for row in both], axis=1)
            chosen[f"{name} n={n}"] = [value, factor]
    return found, chosen


def main() -> None:
    """Measure all data sets and write benchmarks/results/pal_real.json."""
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="data sets with this word in their name; nothing is written")
    given = parser.parse_args()
    began = time.process_time()
    sets: dict[str, list[Callable[[], Study]]] = {
        "polis, seen comments": [lambda c=c: polis(given.data, c, False) for c in CONVERSATIONS],
        "polis, unseen comments": [lambda c=c: polis(given.data, c, True) for c in CONVERSATIONS],
        "food": [lambda: food(given.data)], "films": [lambda: films(given.data)], "persona": [lambda: persona(given.data)],
    }  # fmt: skip
    tables: dict[str, Any] = {}
    people: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name, made in sets.items():
        if given.only not in name:
            continue
        parts = [measured(make()) for make in made]
        people[name] = {m: {n: np.concatenate([found[m][n] for found, _ in parts]) for n in VOTES} for m in parts[0][0]}
        tables[name] = {
            "chosen": [chosen for _, chosen in parts],
            "cells": {m: {n: np.round(x.mean(axis=0), 4).tolist() for n, x in row.items()} for m, row in people[name].items()},
        }  # fmt: skip
        print(name, [chosen["K"] for _, chosen in parts], len(people[name]["PAL"][5]), "new people: log loss, accuracy")
        for method, row in tables[name]["cells"].items():
            print(f"  {method:10}", row, flush=True)
    if given.only:
        return
    claims = []
    for name, other, n, what in CLAIMS:
        column = 0 if what == "log loss" else 1
        gain = people[name]["PAL"][n][:, column] - people[name][other][n][:, column]
        low, high = interval(gain) or [np.nan, np.nan]
        passed = high < 0 if what == "log loss" else low > 0
        text = f"{name}: {what} of PAL minus {other} from {n} comparisons"
        claims.append({
            "claim": text, "target": "< 0" if what == "log loss" else "> 0", "measured": round(float(gain.mean()), 4),
            "interval": [low, high], "n": len(gain), "passed": bool(passed),
        })  # fmt: skip
    for name, found in people.items():
        gain = found["shuffled"][20][:, 1] - found["K=1"][20][:, 1]
        claims.append({
            "claim": f"{name}: accuracy of PAL on shuffled people minus K=1 from 20 comparisons", "target": "<= 0.01",
            "measured": round(float(gain.mean()), 4), "interval": interval(gain), "n": len(gain), "passed": bool(gain.mean() <= 0.01),
        })  # fmt: skip
    details = {"sets": tables, "cpu_seconds": round(time.process_time() - began, 1)}
    write_result("pal_real", claims, n=sum(len(found["PAL"][5]) for found in people.values()), seeds=[0],
                 command="python benchmarks/pal_real.py", details=details)  # fmt: skip


#: data set, method that PAL is compared with, comparisons per new person, what is compared
CLAIMS = [
    ("polis, seen comments", "majority", 20, "accuracy"), ("polis, seen comments", "K=1", 20, "log loss"),
    ("polis, seen comments", "vectors", 5, "log loss"), ("polis, seen comments", "logistic", 20, "log loss"),
    ("polis, unseen comments", "majority", 20, "accuracy"), ("polis, unseen comments", "K=1", 20, "log loss"),
    ("polis, unseen comments", "vectors", 5, "log loss"), ("polis, unseen comments", "logistic", 20, "log loss"),
    ("food", "majority", 20, "accuracy"), ("food", "K=1", 20, "log loss"), ("food", "vectors", 5, "log loss"),
    ("food", "logistic", 5, "log loss"),
    ("films", "majority", 10, "accuracy"), ("films", "K=1", 10, "log loss"), ("films", "vectors", 5, "log loss"),
    ("films", "logistic", 5, "log loss"),
    ("persona", "majority", 5, "accuracy"), ("persona", "K=1", 5, "log loss"), ("persona", "vectors", 5, "log loss"),
    ("persona", "logistic", 20, "log loss"),
]  # fmt: skip

if __name__ == "__main__":
    main()
