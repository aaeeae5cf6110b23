"""Preferences in words, approximated from what people took, by templates over attributes or by a language model; likes and dislikes apart.

Card 40-mender (Preference discerning, arXiv:2412.08604). Only what lies before an event may be used for it; the one thing that looks at
the event itself is the matched preference, and it says so (`uses_target`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError

#: how a negative wish begins, and what stands there in its inversion; the first that fits is used
INVERSIONS = (("avoid", "find"), ("exclude", "search for"), ("no ", "search for "))
_NEGATIVE = re.compile(r"^\s*(avoid|exclude|no |not |never|without|skip|don't|do not|stay away|dislike|hate)", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s*")
#: share in the catalogue below which an attribute counts as this common: rare ones would always be over-represented
COMMON = 0.02


@dataclass(frozen=True)
class Wishes:
    """What one person is taken to want at one time. texts, and for each 1 (wanted) or -1 (to be avoided)."""

    texts: tuple[str, ...]
    sign: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Matched:
    """The wishes that fit an event best: texts, and indices into those they were chosen from.

    inverted    whether a negative wish was turned round, for want of a positive one
    uses_target the event's own item chose them: the user who states what is wanted. Gains with such a wish are an upper bound
    """

    texts: tuple[str, ...]
    index: tuple[int, ...]
    inverted: bool = False
    uses_target: bool = True


def sign_of(text: str, classify: Callable[[str], float] | None = None) -> int:
    """1 for a wish, -1 for something to be avoided: by how the text begins, or by the sign of `classify` (a sentiment in [-1, 1]).

    The published split is by a RoBERTa sentiment classifier; a sentiment of exactly 0 is a wish.

    >>> sign_of("Find war films"), sign_of("Avoid war films")
    (1, -1)
    """
    if classify is not None:
        return -1 if classify(text) < 0 else 1
    return -1 if _NEGATIVE.match(text) else 1


def inverted(text: str) -> str | None:
    """The wish that a negative one becomes by rule ("avoid" -> "find", "exclude" -> "search for", "no " -> "search for "), or None.

    >>> inverted("Avoid war films"), inverted("no war films"), inverted("Find war films")
    ('Find war films', 'search for war films', None)
    """
    for negative, positive in INVERSIONS:
        found = re.search(rf"\b{negative}", text, re.IGNORECASE)
        if found:
            new = positive.capitalize() if found.group()[0].isupper() else positive
            return text[: found.start()] + new + text[found.end() :]
    return None


def over_represented(has: np.ndarray, taken: np.ndarray, most: int) -> list[int]:
    """The attributes that are most frequent among the taken items in comparison with all: by share / max(share of all, .02).

    has bool [I, A]; taken int [n], items. At most `most`, only those that occur; ties in the order of the columns.

    >>> over_represented(np.array([[1, 0], [1, 1], [1, 0]], bool), np.array([1]), 2)
    [1, 0]
    """
    mine = has[taken].sum(axis=0) / max(len(taken), 1)
    lift = np.where(mine > 0, mine / np.maximum(has.mean(axis=0), COMMON), 0)
    return [int(a) for a in np.argsort(-lift, kind="stable")[:most] if lift[a] > 0]


def by_template(
    names: Sequence[str], has: np.ndarray, liked: np.ndarray, disliked: np.ndarray, *, likes: int = 4, avoids: int = 1,
    find: str = "Find {} movies", avoid: str = "Avoid {} movies",
) -> Wishes:  # fmt: skip
    """Wishes about attributes (genres, cuisines, brands): those over-represented in what was liked, those frequent in what was not.

    names [A], has bool [I, A]; liked, disliked int [n]: items from before the event. Avoided are the most frequent attributes of the
    disliked that are not among the liked ones; where nothing was disliked, nothing is avoided. InputError where shapes do not agree.

    >>> has = np.array([[1, 0], [0, 1]], bool)
    >>> by_template(["war", "comedy"], has, np.array([1]), np.array([0])).texts
    ('Find comedy movies', 'Avoid war movies')
    """
    if has.ndim != 2 or has.shape[1] != len(names):
        raise InputError(f"{len(names):,} names for attributes of shape {has.shape}: one name per column")
    good = over_represented(has, liked, likes)
    count = has[disliked].sum(axis=0).astype(float)
    count[good] = 0
    bad = [int(a) for a in np.argsort(-count, kind="stable")[:avoids] if count[a] > 0]
    texts = [find.format(names[a]) for a in good] + [avoid.format(names[a]) for a in bad]
    return Wishes(tuple(texts), (1,) * len(good) + (-1,) * len(bad))


def request(titles: Sequence[str], reviews: Sequence[str], n: int = 5, last: int = 5) -> str:
    """What a language model is asked: up to n search instructions from the last (item, review) pairs. Our own words for the card's request.

    InputError where there are not as many reviews as titles, or none.
    """
    if len(titles) != len(reviews) or not titles:
        raise InputError(f"{len(titles):,} titles with {len(reviews):,} reviews: at least one, and one review to each")
    lines = [f"- {title}: {review}" for title, review in zip(titles[-last:], reviews[-last:], strict=True)]
    return (
        f"A person took these items, the latest last, and said of them:\n{chr(10).join(lines)}\n"
        f"Write {n} short search instructions for this person, one per line: what to look for, what they dislike, what to avoid. "
        f"Name no brands and no products."
    )


def by_language_model(
    ask: Callable[[str], str], titles: Sequence[str], reviews: Sequence[str], *, n: int = 5, classify: Callable[[str], float] | None = None
) -> Wishes:
    """Exactly n wishes that a language model writes from what came before the event. `ask` maps a request to the model's answer.

    Bullets and numbers before a line are taken off, repeats left out, lines beyond n dropped. InputError where fewer than n remain.

    >>> by_language_model(lambda request: "1. Find war films\\n2. Avoid gore", ["Heat"], ["good"], n=2).sign
    (1, -1)
    """
    answer = ask(request(titles, reviews, n))
    lines = list(dict.fromkeys(line for line in (_BULLET.sub("", row).strip() for row in answer.splitlines()) if line))
    if len(lines) < n:
        raise InputError(f"{n} wishes were asked for and {len(lines)} came: {answer[:200]!r}; ask again, or for fewer")
    return Wishes(tuple(lines[:n]), tuple(sign_of(text, classify) for text in lines[:n]))


def matched(wishes: Wishes, vectors: np.ndarray, target: np.ndarray) -> Matched:
    """The positive wish closest to the item that is taken next (largest cosine); without a positive one all inversions, then all wishes.

    vectors float [n, d] of the wishes, target float [d] of the next item. The published rule: it looks at the target in training and in
    evaluation alike, `uses_target` says so. InputError where there are no wishes, or another number of vectors.

    >>> matched(Wishes(("Find a", "Find b"), (1, 1)), np.eye(2), np.array([0.1, 1.0])).texts
    ('Find b',)
    """
    if not len(wishes) or len(vectors) != len(wishes):
        raise InputError(f"{len(wishes):,} wishes with {len(vectors):,} vectors: at least one, and a vector to each")
    positive = [n for n, sign in enumerate(wishes.sign) if sign > 0]
    if positive:
        size = np.linalg.norm(vectors[positive], axis=1)
        close = vectors[positive] @ target / np.where(size > 0, size, 1)
        best = positive[int(np.argmax(close))]
        return Matched((wishes.texts[best],), (best,))
    turned = [(n, text) for n, text in enumerate(map(inverted, wishes.texts)) if text is not None]
    if turned:
        return Matched(tuple(text for _, text in turned), tuple(n for n, _ in turned), inverted=True)
    return Matched(wishes.texts, tuple(range(len(wishes))))
