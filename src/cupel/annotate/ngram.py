"""Small smoothed n-gram language models: an exact, quick source of token log-probabilities that needs nothing but numpy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cupel.annotate.whitebox import plain
from cupel.errors import InputError

END = "\0end"
_START = "\0start"
_WORDS = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks.

    >>> words_of("Don't go!")
    ['don', "'", 't', 'go', '!']
    """
    return _WORDS.findall(text.lower())


class NGram:
    """Unigram or bigram model of responses, smoothed; the prompt is not read.

        p(w)     = (c(w) + prior_mass / V) / (N + prior_mass)            order 1: Dirichlet, uniform over the vocabulary
        p(w | v) = (c(v, w) + backoff_mass p(w)) / (c(v) + backoff_mass)  order 2: backs off to p(w); the first word follows a start

    over lower-cased words, punctuation marks and an end symbol, so that every response has one token more than words. Words outside the
    vocabulary are one further word. Two models whose ratio is taken need one vocabulary: `NGram.vocabulary(texts)`.
    Settings of method card 37-cdr: prior_mass 2000, backoff_mass 5.

    >>> model = NGram(["a b", "a"], prior_mass=4.0)   # vocabulary a, b, end, unknown; counts 2, 1, 2
    >>> np.exp(model.logprobs("", "a")).round(4).tolist()
    [0.3333, 0.3333]
    """

    def __init__(
        self, texts: Sequence[str], *, order: int = 1, prior_mass: float = 2000.0, backoff_mass: float = 5.0,
        vocabulary: Iterable[str] | None = None, tokenizer: Callable[[str], list[str]] = words_of,
    ) -> None:  # fmt: skip
        if order not in (1, 2) or not prior_mass > 0 or not backoff_mass > 0:
            raise InputError(f"order is 1 or 2 and both masses are above 0, not {order!r}, {prior_mass!r}, {backoff_mass!r}")
        self.order, self.prior_mass, self.backoff_mass, self.tokenizer = order, prior_mass, backoff_mass, tokenizer
        self.known = frozenset(self.vocabulary(texts, tokenizer) if vocabulary is None else vocabulary)
        size = len(self.known) + 2  # and the end, and the unknown word
        count: Counter[str] = Counter()
        self._pair: Counter[tuple[str, str]] = Counter()
        self._before: Counter[str] = Counter()
        for text in texts:
            words = self._words(text)
            count.update(words)
            if order == 2:
                self._pair.update(zip([_START, *words], words, strict=False))
                self._before.update([_START, *words[:-1]])
        total = sum(count.values()) + prior_mass
        self._floor = prior_mass / size / total
        self._p = {word: (n + prior_mass / size) / total for word, n in count.items()}

    @staticmethod
    def vocabulary(texts: Iterable[str], tokenizer: Callable[[str], list[str]] = words_of) -> frozenset[str]:
        """All words of some texts."""
        return frozenset(word for text in texts for word in tokenizer(plain(text, "text", 0)))

    def _words(self, text: str) -> list[str]:
        return [word if word in self.known else "\0unknown" for word in self.tokenizer(plain(text, "text", 0))] + [END]

    def logprobs(self, prompt: str, response: str) -> list[float]:
        """Log-probability of each word of the response, and of its end."""
        words = self._words(response)
        single = [self._p.get(word, self._floor) for word in words]
        if self.order == 1:
            return np.log(single).tolist()
        before = [_START, *words[:-1]]
        mass = self.backoff_mass
        return [
            float(np.log((self._pair[v, w] + mass * p) / (self._before[v] + mass))) for v, w, p in zip(before, words, single, strict=True)
        ]
