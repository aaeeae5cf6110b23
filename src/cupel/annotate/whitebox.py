"""A reward whose every part can be read: relevance to the query or to a reference, times a length incentive and a repetition penalty.

Method card 15-r3 ("Regularized Relevance Reward", arXiv:2402.03469, as in the authors' code). For a response y to a prompt x

    OPENENDED     s = LI(y) <E(x), E(y)>
    CONSTRAINED   s = lin(<E(reference), E(y)>)          without length
    s times RP(y)

    LI(y) = tokens / 100        RP(y) = different token triples / token triples, 1 without a triple
    lin(v) = (v - i0) / (i1 - i0) * max_tokens / 100        i0 = 0 in the authors' code

With a floor i0 above 0 the relevance of open questions counts from there as well: LI(y) (<E(x), E(y)> - i0), our extension for encoders
that find everything somewhat alike.

Four switches: length, repetition, relevance, branching. Everything on is taken to be the R^3 of the paper's first version [unverified: the
authors' code is the second version]. The features check each other and nothing else: longer is better for an open question until
relevance falls or triples repeat, and loops of paraphrases pass. The card's i1 = 3.5 belongs to vectors of Contriever; normalised vectors
have i1 = 1.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.records.text import content_text, is_chat, messages

if TYPE_CHECKING:
    import pyarrow as pa

OPEN, CONSTRAINED = "OPENENDED", "CONSTRAINED"
#: a response is cut at the first of these, and stripped
STOPS = ("\n\n\n\n", "\n\n--", "\n\n____")
#: characters of scripts that are written without spaces, each a token: Thai ... Khmer, kana, Han
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKENS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]+")


class AnnotationWarning(UserWarning):
    """Something about the texts that were scored, with how many and which first."""


def tokens_of(text: str) -> list[str]:
    r"""Runs of letters and digits and runs of punctuation (\w+|[^\w\s]+); of scripts without spaces each character is a token.

    >>> tokens_of("can't stop, won't")
    ['can', "'", 't', 'stop', ',', 'won', "'", 't']
    >>> tokens_of("猫が好き ok")
    ['猫', 'が', '好', 'き', 'ok']
    """
    return _TOKENS.findall(text)


@dataclass(frozen=True)
class LengthIncentive:
    """LI(y) = tokens / 100, without an upper end unless `most` tokens count.

    >>> LengthIncentive()(["The cat sat on the mat.", ""]).tolist()
    [0.07, 0.0]
    """

    tokenizer: Callable[[str], Sequence[str]] = tokens_of
    most: int | None = None

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        """float64 [n]."""
        n = np.array([len(self.tokenizer(text)) for text in responses], dtype=np.float64)
        return (n if self.most is None else np.minimum(n, self.most)) / 100


@dataclass(frozen=True)
class RepetitionPenalty:
    """RP(y) = different token triples / token triples in (0, 1], 1 where there is no triple.

    It sees equal triples only: a loop of paraphrases is not repetition to it.

    >>> RepetitionPenalty()(["go go go go go go", "a b", "The cat sat on the mat."]).tolist()
    [0.25, 1.0, 1.0]
    """

    tokenizer: Callable[[str], Sequence[str]] = tokens_of

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        """float64 [n]."""
        return np.array([self._one(list(self.tokenizer(text))) for text in responses], dtype=np.float64)

    @staticmethod
    def _one(tokens: list[str]) -> float:
        triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        return len(set(triples)) / len(triples) if triples else 1.0


class Relevance:
    """Relevance <E(a), E(b)> of two texts under an encoder, float64.

    encoder          a name that `cupel.encode.load_encoder` knows, or an object with `encode(texts) -> [n, dim]`
    relevance_scale  (i0, i1): what irrelevant and identical texts score. None takes (0, 1) where vectors have length 1 and refuses other
                     encoders: measure it with `calibrated`, or state it ((0, 3.5) for Contriever)

    Each different text is encoded once per call. Encoders with a window do not see what lies beyond it, though the length incentive pays
    for it.

    >>> near, far = Relevance("static").between(["A dog runs."] * 2, ["The dog is running.", "Taxes are due."])
    >>> bool(near > far)
    True
    """

    def __init__(self, encoder: Any = "static", relevance_scale: tuple[float, float] | None = None) -> None:
        if isinstance(encoder, str):
            from cupel.encode import load_encoder

            encoder = load_encoder(encoder)
        self.encoder = encoder
        if relevance_scale is None:
            length = float(np.linalg.norm(np.asarray(encoder.encode(["How long is this vector?"]), dtype=np.float64)))
            if abs(length - 1) > 1e-3:
                raise InputError(
                    f"vectors of {getattr(encoder, 'name', type(encoder).__name__)} are not normalised (one has length {length:.3g}), so a "
                    "relevance has no known top. State relevance_scale=(low, high), or use Relevance.calibrated(encoder, texts)"
                )
            relevance_scale = (0.0, 1.0)
        low, high = (float(end) for end in relevance_scale)
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"relevance_scale is (low, high) with low < high, not {relevance_scale!r}")
        self.low, self.high = low, high

    @classmethod
    def calibrated(cls, encoder: Any, texts: Sequence[str], *, prompts: Sequence[str] | None = None) -> Relevance:
        """With high = the median of <E(t), E(t)>, what an exact copy of these texts scores; and with `prompts`, whose answers the texts
        are, low = the mean of <E(prompt), E(answer to another prompt)> (0 without, as in the authors' code).

        >>> Relevance.calibrated("static", ["A dog runs.", "Taxes are due."]).high.__round__(4)
        1.0
        """  # fmt: skip
        found, n = cls(encoder, (0.0, float(np.finfo(np.float64).max))), len(texts)
        low = 0.0
        if prompts is not None:
            if len(prompts) != n or n < 2:
                raise InputError(f"{len(prompts)} prompts and {n} answers: a floor needs one of each, and two at least")
            shifts = sorted({1 + k * (n - 1) // 8 for k in range(8)} & set(range(1, n)))
            asked = [prompts[i] for _ in shifts for i in range(n)]
            low = max(0.0, float(found.between(asked, [texts[(i + k) % n] for k in shifts for i in range(n)]).mean()))
        return cls(found.encoder, (low, float(np.median(found.between(texts, texts)))))

    def between(self, one: Sequence[str], other: Sequence[str]) -> np.ndarray:
        """float64 [n]: <E(one_i), E(other_i)>; a text without a vector (all zeros) is relevant to nothing."""
        place: dict[str, int] = {}
        at = np.array([place.setdefault(text, len(place)) for text in (*one, *other)], dtype=np.int64)
        vectors = np.asarray(self.encoder.encode(list(place)), dtype=np.float64)
        return np.einsum("nd,nd->n", vectors[at[: len(one)]], vectors[at[len(one) :]])


@dataclass(frozen=True)
class Parts:
    """What a white-box reward is made of, one entry per response; switched-off parts are 1 (relevance: NaN).

    score, length (LI), repetition (RP), query_relevance, reference_relevance (NaN where the branch did not ask)   float64 [n]
    constrained, empty, clamped   bool [n]: scored against the reference; without a token; relevance lay below i0 and counts as i0
    """

    score: np.ndarray
    length: np.ndarray
    repetition: np.ndarray
    query_relevance: np.ndarray
    reference_relevance: np.ndarray
    constrained: np.ndarray
    empty: np.ndarray
    clamped: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def table(self) -> pa.Table:
        """The parts as columns."""
        import pyarrow as pa

        return pa.table({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class WhiteBox:
    """The regularised relevance reward of the module's docstring; every switch is a part, and None (or False) takes the part out.

    branching   score constrained questions against their reference. Question types are never guessed: they come with the call, from
                `known` (prompt -> (type, reference)) or from `classify` (prompt -> type)
    max_tokens  what `lin` puts an exact copy on the scale of;  negative  "clamp" relevance at i0, "keep" it (a long irrelevant answer is
                then worse than a short one, and of two irrelevant answers the shorter wins), or "refuse"
    on_missing  a constrained question without a reference: "error", or "open" (scored as open ended, with a warning)
    stops       a response is cut at the first of these, and stripped; add the role prefix of a chat template here

    An empty response scores 0 unless everything is switched off, and is counted in an AnnotationWarning. Is a scorer
    (`score(prompts, responses)`) and a reward function of TRL (`reward(prompts=..., completions=..., qtype=..., reference=...)`).

    >>> reward = WhiteBox(Relevance("static"), branching=False)
    >>> parts = reward.parts(["How do dogs run?"], ["Dogs run on four legs."])
    >>> bool(np.isclose(parts.score[0], parts.length[0] * parts.repetition[0] * parts.query_relevance[0]))
    True
    """

    relevance: Relevance | None
    length: LengthIncentive | None = field(default_factory=LengthIncentive)
    repetition: RepetitionPenalty | None = field(default_factory=RepetitionPenalty)
    branching: bool = True
    max_tokens: int = 512
    negative: Literal["clamp", "keep", "refuse"] = "clamp"
    on_missing: Literal["error", "open"] = "error"
    stops: tuple[str, ...] = STOPS
    known: Mapping[str, tuple[str, str | None]] | None = None
    classify: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        if self.negative not in ("clamp", "keep", "refuse") or self.on_missing not in ("error", "open") or self.max_tokens < 1:
            raise InputError(
                f"negative is clamp, keep or refuse, on_missing error or open, max_tokens at least 1; not {self.negative!r}, "
                f"{self.on_missing!r}, {self.max_tokens!r}"
            )

    @property
    def __name__(self) -> str:
        """What trainers call this reward in their logs."""
        return "whitebox"

    def score(
        self, prompts: Sequence[Any], responses: Sequence[Any], qtype: Sequence[str] | None = None,
        reference: Sequence[str | None] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """float64 [n] reward of each response; it does not depend on which others are scored with it."""
        return self.parts(prompts, responses, qtype, reference).score

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], qtype: Sequence[str] | None = None,
        reference: Sequence[str | None] | None = None, **ignored: Any,
    ) -> list[float]:  # fmt: skip
        """Rewards as TRL asks for them; other columns of the data set are ignored."""
        return self.score(prompts, completions, qtype, reference).tolist()

    def parts(
        self, prompts: Sequence[Any], responses: Sequence[Any], qtype: Sequence[str] | None = None,
        reference: Sequence[str | None] | None = None,
    ) -> Parts:  # fmt: skip
        """The reward and what it is made of. Texts, or chats as TRL hands them over (lists of messages) or as records hold them (JSON).

        Raises InputError for values that are no texts, unknown question types, and constrained questions without a reference.
        """
        n = len(responses)
        if not len(prompts) == n or any(column is not None and len(column) != n for column in (qtype, reference)):
            raise InputError(f"{len(prompts)} prompts for {n} responses, or a qtype or reference column of another length")
        asked = [" ".join(plain(text, "prompt", row).split()) for row, text in enumerate(prompts)]
        said = [cut(plain(text, "response", row), self.stops) for row, text in enumerate(responses)]
        empty = np.array([not text for text in said], dtype=bool)
        _warn(empty, "responses are empty; they score 0")
        one, nothing = np.ones(n), np.full(n, np.nan)
        length = one if self.length is None else _once(self.length, said)
        repetition = one if self.repetition is None else _once(self.repetition, said)
        types, known_as = self._types(prompts, qtype, reference)
        query, against, score, clamped = nothing, nothing, length.copy(), np.zeros(n, dtype=bool)
        if self.relevance is not None:
            query = self.relevance.between(asked, said)
            kept, clamped = self._floor(query, ~types)
            score = length * (kept - self.relevance.low)
            if types.any():
                rows = np.flatnonzero(types)
                against = nothing.copy()
                against[rows] = self.relevance.between([known_as[row] or "" for row in rows], [said[row] for row in rows])
                floored, low = self._floor(against, types)
                score[rows] = self.lin(floored[rows])
                clamped |= low
        score = score * repetition
        if self.relevance is not None or self.length is not None or self.repetition is not None:
            score[empty] = 0.0
        return Parts(score, length, repetition, query, against, types, empty, clamped)

    def lin(self, relevance: np.ndarray) -> np.ndarray:
        """(v - i0) / (i1 - i0) * max_tokens / 100: relevance to a reference on the scale of an answer's length.

        >>> WhiteBox(Relevance("static", (0.0, 3.5))).lin(np.array([1.75, 3.5, 0.7])).round(6).tolist()
        [2.56, 5.12, 1.024]
        """
        if self.relevance is None:
            raise InputError("without relevance there is no scale to put it on")
        low, high = self.relevance.low, self.relevance.high
        return (np.asarray(relevance, dtype=np.float64) - low) / (high - low) * self.max_tokens / 100

    def _floor(self, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(relevance as it counts, which were set to i0) among the given rows."""
        assert self.relevance is not None
        low = rows & (values < self.relevance.low)
        if low.any() and self.negative == "refuse":
            raise InputError(
                f"{int(low.sum()):,} of {int(rows.sum()):,} relevances are negative, or below the floor {self.relevance.low:g} (first: row "
                f"{int(np.argmax(low))}, {values[low][0]:.3f}), and times a length that would reward brevity. Use negative='clamp', or "
                "another encoder"
            )
        return (np.where(low, self.relevance.low, values), low) if self.negative == "clamp" else (values, np.zeros(len(values), dtype=bool))

    def _types(self, prompts: Sequence[Any], qtype: Any, reference: Any) -> tuple[np.ndarray, list[str | None]]:
        """(which rows are scored against their reference, the references)."""
        n = len(prompts)
        if not self.branching or self.relevance is None:
            return np.zeros(n, dtype=bool), [None] * n
        references: list[Any] = [None] * n if reference is None else list(reference)
        if qtype is not None:
            kinds = list(qtype)
        elif self.known is not None:
            absent = [row for row, prompt in enumerate(prompts) if not isinstance(prompt, str) or prompt not in self.known]
            if absent:
                raise InputError(f"{len(absent):,} of {n:,} prompts are not in `known` (first: row {absent[0]}); add them, or give qtype")
            kinds = [self.known[prompt][0] for prompt in prompts]
            references = [self.known[p][1] if r is None else r for p, r in zip(prompts, references, strict=True)]
        elif self.classify is not None:
            kinds = [self.classify(plain(prompt, "prompt", row)) for row, prompt in enumerate(prompts)]
        else:
            raise InputError(
                "branching needs the type of each question, which is not guessed: give qtype (OPENENDED or CONSTRAINED), `known` or "
                "`classify`, or switch it off with branching=False"
            )
        words = [kind.upper() if isinstance(kind, str) else kind for kind in kinds]
        bad = [row for row, word in enumerate(words) if word not in (OPEN, CONSTRAINED)]
        if bad:
            raise InputError(
                f"{len(bad):,} of {n:,} question types are neither {OPEN} nor {CONSTRAINED} (first: row {bad[0]}, {kinds[bad[0]]!r})"
            )
        types = np.array([word == CONSTRAINED for word in words], dtype=bool)
        found = [plain(text, "reference", row) if text is not None else None for row, text in enumerate(references)]
        missing = types & np.array([not (text or "").strip() for text in found], dtype=bool)
        if missing.any() and self.on_missing == "error":
            raise InputError(
                f"{int(missing.sum()):,} of {int(types.sum()):,} constrained questions have no reference (first: row "
                f"{int(np.argmax(missing))}). Give it, call them {OPEN}, or use on_missing='open'"
            )
        _warn(missing, "constrained questions have no reference; they are scored as open ended")
        return types & ~missing, found


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`, stripped.

    >>> cut(" Yes. \\n\\n--\\nsignature", STOPS)
    'Yes.'
    """
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))].strip()


def plain(value: Any, what: str, row: int) -> str:
    """The words of a text or a chat, without roles. InputError for anything else, naming the row."""
    chat = value if is_chat(value) else messages(value) if isinstance(value, str) else None
    if chat is not None:
        return "\n".join(content_text(message["content"]) for message in chat)
    if not isinstance(value, str):
        raise InputError(f"the {what} of row {row} is no text but {type(value).__name__}; leave such rows out")
    return value


def _once(feature: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """A feature of each text, computed once per different text."""
    place: dict[str, int] = {}
    at = np.array([place.setdefault(text, len(place)) for text in texts], dtype=np.int64)
    return feature(list(place))[at]


def _warn(bad: np.ndarray, what: str) -> None:
    if bad.any():
        warnings.warn(f"{int(bad.sum()):,} of {len(bad):,} {what} (first: row {int(np.argmax(bad))})", AnnotationWarning, stacklevel=4)
