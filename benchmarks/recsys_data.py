"""The standard recommender data of the benchmarks: MovieLens latest-small, ratings of 4 and more, 5-core, split per user, checked.

MovieLens is for research only and not redistributed: it is read from `--data DIR` (`DIR/recsys/ml-latest-small`) and nothing of it is
kept. `python benchmarks/recsys_data.py` prints what was asserted. Other benchmarks call `standard(DIR)` and `user_texts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import arguments

from cupel.interactions.filters import at_least, k_core
from cupel.interactions.log import Log, Split, by_user
from cupel.interactions.reading import read_log
from cupel.interactions.splits import random_split

SHAPE, PAIRS = (601, 1955), 41_227
PARTS = (32_945, 4_141, 4_141)
#: sum of the MovieLens ids of the test rows
CHECKSUM = 66_669_470


@dataclass(frozen=True)
class Standard:
    """All ratings; the positives in the core; their split; and per item of the core its title and genres (texts: `kept.texts`)."""

    ratings: Log
    kept: Log
    split: Split
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


def standard(data: Path) -> Standard:
    """The standard split; AssertionError where a count or the checksum is another."""
    ratings = read_log(data / "recsys" / "ml-latest-small", format="movielens")
    kept = k_core(at_least(ratings, 4), users=5, items=5)
    assert (*kept.shape, len(kept)) == (*SHAPE, PAIRS), (kept.shape, len(kept))
    split = random_split(kept, test=0.1, validation=0.1, seed=0)
    parts = (len(split.train), len(split.validation), len(split.test))
    assert parts == PARTS, parts
    found = int(kept.items.astype(np.int64)[split.test.item].sum())
    assert found == CHECKSUM, found
    assert kept.texts is not None
    return Standard(ratings, kept, split, *zip(*map(title_and_genres, kept.texts), strict=True))


def title_and_genres(text: str) -> tuple[str, tuple[str, ...]]:
    """What `item_text` was made of.

    >>> title_and_genres("Heat (1995). Genres: Crime, Drama. Tags: heist.")
    ('Heat (1995)', ('Crime', 'Drama'))
    """
    head = text.split(". Tags: ")[0].removesuffix(".")
    title, _, genres = head.partition(". Genres: ")
    return title, tuple(genres.split(", ")) if genres else ()


def user_texts(data: Standard, seed: int = 0, titles: int = 6) -> tuple[str, ...]:
    """A line about each user from training alone: "A viewer who enjoys {genres} films such as {titles}." (card 34).

    At most 4 genres: those with a share above .05 in training, by that share over max(share in the catalogue, .02); 6 random titles.
    """
    names = sorted({g for kinds in data.genres for g in kinds})
    has = np.array([[name in kinds for name in names] for kinds in data.genres], dtype=float)
    catalogue = has.sum(0) / has.sum()
    rng = np.random.default_rng([seed, 34])
    rows = by_user(data.split.train, order="item")
    out = []
    for u in range(len(rows)):
        items = rows.of(u)
        counts = has[items].sum(0)
        share = counts / max(counts.sum(), 1)
        lift = np.where(share > 0.05, share / np.maximum(catalogue, 0.02), 0)
        best = [names[g] for g in np.argsort(-lift, kind="stable")[:4] if lift[g] > 0]
        some = rng.permutation(items)[:titles]
        out.append(f"A viewer who enjoys {', '.join(best)} films such as {', '.join(data.titles[i] for i in some)}.")
    return tuple(out)


if __name__ == "__main__":
    found = standard(arguments(__doc__).parse_args().data)
    print(*found.ratings.notes, *found.kept.notes[len(found.ratings.notes) :], found.split.how, sep="\n")
    print(f"{found.kept.shape}, {len(found.kept):,} pairs, checksum {CHECKSUM:,}: as they should be.")
    print(found.kept.texts[0] if found.kept.texts else "", user_texts(found)[0], sep="\n")


def paired(a: np.ndarray, b: np.ndarray) -> list[float]:
    """95 % interval of the mean of a - b, bootstrap over users."""
    rng = np.random.default_rng(0)
    difference = a - b
    draws = difference[rng.integers(len(difference), size=(4000, len(difference)))].mean(axis=1)
    return [round(float(x), 5) for x in np.quantile(draws, [0.025, 0.975])]


def relative(a: np.ndarray, b: np.ndarray) -> list[float]:
    """95 % interval of mean a / mean b - 1 of values [S, U], training seeds and users drawn together; a seed trains both."""
    rng = np.random.default_rng(0)
    seeds, users = a.shape
    found = []
    for _ in range(2000):
        drawn = (np.bincount(rng.integers(count, size=count), minlength=count) for count in (seeds, users))
        weight = np.outer(*drawn)
        found.append((a * weight).sum() / (b * weight).sum() - 1)
    return [round(float(x), 4) for x in np.quantile(found, [0.025, 0.975])]
