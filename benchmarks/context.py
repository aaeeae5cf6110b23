"""Context-aware preference (card 16) on persona statements: reversals, unseen contexts as texts, the two error terms, adversarial contexts.

    python benchmarks/context.py [--data DIR] [--seeds 5]

Reversals: a row is an agree- and a disagree-statement of one persona; that persona prefers the first, its opposite the second. Pairs of
opposites: risk-averse and risk-seeking; politically-liberal and anti-immigration (the data has no politically-conservative, and this is
the nearest kind). First 400 statements of each kind train, last 100 test; contexts are one-hot; one record per row, contexts balanced.
`context` is the head context:dim=32, `blind` the same head without contexts; Adam 5e-3, batches of 200, at least 150 steps.
Unseen texts: 60 personas, first 80 agree-statements; context text "A person described as: NAME"; an agree-statement of the context's
persona against one of another; 3,000 pairs, 80 full-batch steps, l2 1e-3; 12 personas never seen. Vectors are those of the encoder inside
cupel (the card's numbers are MiniLM's).
Error terms: users of one of the four kinds judge pairs of any of the four personas; q is .95 / .05 on pairs of their own and the opposite
persona and 1/2 on others; half of 4,000 training records hide the context; a test user's context is inferred from k labelled pairs.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

from cupel.encode import load_encoder
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.context import ContextReward, gap
from cupel.learners.models.types import PreferenceModel, Shape
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry
from cupel.votes.contexts import decompose_error, posterior

KINDS = ("politically-liberal", "anti-immigration", "risk-averse", "risk-seeking")  # 0 against 1, 2 against 3
TRAIN_ROWS = (100, 300, 1000, 2000)
KNOWN, TEXTS, UNSEEN = (8, 24, 48), 60, 12
SHOTS = (0, 1, 2, 5, 10)
SURE = 0.95


def statements(data: Path) -> dict[str, dict[bool, list[str]]]:
    """Statements of each persona, those that match it and those that do not, in the order of the file."""
    table = pq.read_table(data / "persona" / "statements.parquet", columns=["persona", "statement", "matches_persona"])
    found: dict[str, dict[bool, list[str]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["persona"], {True: [], False: []})[row["matches_persona"]].append(row["statement"])
    return found


class Reversals:
    """Vectors of the four personas' statements, and rows drawn from their training or test part."""

    def __init__(self, texts: dict[str, dict[bool, list[str]]]) -> None:
        encoder = load_encoder("static")
        parts = [np.asarray(encoder.encode(texts[kind][match][:500]), np.float32) for kind in KINDS for match in (True, False)]
        self.x = np.concatenate(parts)
        self.contexts = np.concatenate([np.eye(4), np.zeros((1, 4))]).astype(np.float32)

    def rows(self, rng: np.random.Generator, n: int, test: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(persona, agree-statement, disagree-statement) of n rows, personas balanced."""
        kind = rng.permutation(np.arange(n) % 4)
        low, high = (400, 500) if test else (0, 400)
        agree, disagree = (1000 * kind + 500 * k + rng.integers(low, high, n) for k in (0, 1))
        return kind, agree, disagree

    def records(self, rng: np.random.Generator, n: int, test: bool) -> Comparisons:
        """One record per row: the row's persona or its opposite judges, and the statement it prefers stands first or second."""
        kind, agree, disagree = self.rows(rng, n, test)
        turn, swap = rng.permutation(np.arange(n) // 4 % 2) > 0, rng.random(n) < 0.5
        context = np.where(turn, kind ^ 1, kind)
        first, second = np.where(swap, disagree, agree), np.where(swap, agree, disagree)
        return Comparisons.of(first, second, (turn == swap).astype(float), context=context, contexts=self.contexts)

    def both(self, rng: np.random.Generator, n: int) -> tuple[Comparisons, np.ndarray]:
        """Test rows, each under both of its contexts, and which row a record is of."""
        kind, agree, disagree = (np.repeat(part, 2) for part in self.rows(rng, n, test=True))
        turn = np.tile([False, True], n)
        data = Comparisons.of(agree, disagree, (~turn).astype(float), context=np.where(turn, kind ^ 1, kind), contexts=self.contexts)
        return data, np.repeat(np.arange(n), 2)


def trained(
    x: np.ndarray, data: Comparisons, head: str, seed: int, *, batch: int = 200, steps: int = 150, l2: float = 1e-4
) -> PreferenceModel:
    """A head after at least that many steps of Adam at 5e-3, and at least 15 passes where batches are smaller than the data."""
    size = min(batch, len(data))
    epochs = max(-(-steps * size // len(data)), 15 if size < len(data) else 1)
    options = HeadOptions(head=head, epochs=epochs, batch_size=size, learning_rate=5e-3, l2=l2, seed=seed)
    return fit(x, data, bradley_terry(), identity(), options).models[0]


def right(model: PreferenceModel, x: np.ndarray, data: Comparisons) -> float:
    """Accuracy, ties one half."""
    return float(((np.sign(margins([model], x, data)[0] * (2 * data.p - 1)) + 1) / 2).mean())


def moved(data: Comparisons, context: np.ndarray) -> Comparisons:
    """The same records under other contexts."""
    return Comparisons.of(data.first, data.second, data.p, context=context, contexts=data.contexts)


def reversal(bench: Reversals, seed: int) -> dict[str, float]:
    """Accuracies of the blind and the contextual head, by training rows."""
    rng = np.random.default_rng([seed, 16])
    train, test, (pairs, row) = bench.records(rng, max(TRAIN_ROWS), False), bench.records(rng, 1000, True), bench.both(rng, 1000)
    found: dict[str, float] = {}
    none = np.full(len(train), 4)
    blind = trained(bench.x, moved(train, none), "context:dim=32", seed)
    found["blind"] = right(blind, bench.x, moved(test, np.full(len(test), 4)))
    for n in TRAIN_ROWS:
        model = trained(bench.x, train.take(np.arange(n)), "context:dim=32", seed)
        assert pairs.context is not None
        report = gap(model, bench.x, pairs, opposed=pairs.context ^ 1, row=row, seed=seed)
        assert report.wrong is not None
        assert report.reversal is not None
        assert report.shuffled is not None
        found |= {f"right {n}": report.right.estimate, f"wrong {n}": report.wrong.estimate, f"reversal {n}": report.reversal.estimate,
                  f"shuffled {n}": report.shuffled.estimate}  # fmt: skip
    film = trained(bench.x, train, "context:dim=32,mode=film", seed)
    found["film 2000"] = right(film, bench.x, pairs)
    return found


# ---- contexts as texts ------------------------------------------------------------------------------------------------------------


class Texts:
    """Personas as texts: vectors of their agree-statements [120 each], of their descriptions and of the negated ones."""

    def __init__(self, texts: dict[str, dict[bool, list[str]]], seed: int) -> None:
        encoder, rng = load_encoder("static"), np.random.default_rng([seed, 17])
        enough = [name for name in sorted(texts) if len(texts[name][True]) >= 120]
        self.names = [enough[k] for k in rng.permutation(len(enough))[:TEXTS]]
        self.said = [text for name in self.names for text in texts[name][True][:120]]
        self.x = np.asarray(encoder.encode(self.said), np.float32)
        plain = [name.replace("-", " ") for name in self.names]
        about = [f"A person described as: {name}" for name in plain] + [f"A person who is not described as: {name}" for name in plain]
        self.contexts = np.concatenate([np.asarray(encoder.encode(about), np.float32), np.zeros((1, self.x.shape[1]), np.float32)])
        self.words = [set(re.findall(r"[a-z]{4,}", name.lower())) for name in plain]

    def pairs(self, rng: np.random.Generator, of: np.ndarray, n: int, low: int, high: int) -> Comparisons:
        """Agree-statements low..high of a persona in `of` against those of another of them, under the first one's description."""
        own = of[rng.integers(0, len(of), n)]
        other = of[(np.searchsorted(of, own) + rng.integers(1, len(of), n)) % len(of)]
        good, bad = own * 120 + rng.integers(low, high, n), other * 120 + rng.integers(low, high, n)
        swap = rng.random(n) < 0.5
        first, second = np.where(swap, bad, good), np.where(swap, good, bad)
        return Comparisons.of(first, second, (~swap).astype(float), context=own, contexts=self.contexts)

    def overlap(self, data: Comparisons) -> np.ndarray:
        """Whether the preferred statement shares a word of four letters or more with its context's name."""
        assert data.context is not None
        good = np.where(data.p > 0.5, data.first, data.second)
        return np.array(
            [bool(self.words[c] & set(re.findall(r"[a-z]{4,}", self.said[g].lower()))) for g, c in zip(good, data.context, strict=True)]
        )


HEADS = {"trained": "context:dim=48,allow_empty=true", "residual": "context:dim=48,residual=true,allow_empty=true"}


def unseen(texts: dict[str, dict[bool, list[str]]], seed: int) -> dict[str, float]:
    """Accuracies on personas seen and never seen, by how many were seen; zero-shot cosine; adversarial contexts."""
    bench, rng = Texts(texts, seed), np.random.default_rng([seed, 18])
    new = np.arange(TEXTS - UNSEEN, TEXTS)
    test = bench.pairs(rng, new, 2000, 0, 80)
    assert test.context is not None
    shape = Shape(bench.x.shape[1], context=bench.x.shape[1])
    zero = ContextReward(shape, mode="cosine")
    found = {"zero-shot": right(zero, bench.x, test)}
    for known in KNOWN:
        old = np.arange(known)
        train, seen = bench.pairs(rng, old, 3000, 0, 80), bench.pairs(rng, old, 2000, 80, 120)
        found[f"zero-shot seen {known}"] = right(zero, bench.x, seen)
        for name, head in HEADS.items():
            model = trained(bench.x, train, head, seed, batch=3000, steps=80, l2=1e-3)
            found |= {f"{name} {known}": right(model, bench.x, test), f"{name} seen {known}": right(model, bench.x, seen)}
    other = new[(test.context - new[0] + rng.integers(1, UNSEEN, len(test))) % UNSEEN]
    shared = bench.overlap(test)
    for name, one in (("zero-shot", zero), ("residual", model)):  # the residual head of all known personas is the last one trained
        found |= {
            f"{name}, no context": right(one, bench.x, moved(test, np.full(len(test), 2 * TEXTS))),
            f"{name}, context of another persona": right(one, bench.x, moved(test, other)),
            f"{name}, negated context": right(one, bench.x, moved(test, test.context + TEXTS)),
            f"{name}, no word shared": right(one, bench.x, test.take(np.flatnonzero(~shared))),
            f"{name}, a word shared": right(one, bench.x, test.take(np.flatnonzero(shared))),
        }
    return found | {"pairs with a word shared": float(shared.mean())}


# ---- two error terms --------------------------------------------------------------------------------------------------------------


def truth(kind: np.ndarray) -> np.ndarray:
    """q_z that the agree-statement of a row of each persona is preferred, [n, 4]."""
    z = np.arange(4)
    return np.where(kind[:, None] == z, SURE, np.where((kind[:, None] ^ 1) == z, 1 - SURE, 0.5))


def terms(bench: Reversals, seed: int) -> dict[str, list[float]]:
    """Mean error, both terms and accuracy by labelled pairs k of a user; the largest excess of the error over its bound."""
    rng = np.random.default_rng([seed, 19])
    kind, agree, disagree = bench.rows(rng, 4000, False)
    user = rng.integers(0, 4, 4000)
    label = rng.random(4000) < truth(kind)[np.arange(4000), user]
    hidden = rng.random(4000) < 0.5
    data = Comparisons.of(agree, disagree, label.astype(float), context=np.where(hidden, 4, user), contexts=bench.contexts)
    model = trained(bench.x, data, "context:dim=32", seed, l2=1e-3)

    def judged(kind: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Margins of rows under each context, [n, 4]."""
        flat = Comparisons.of(np.repeat(one, 4), np.repeat(two, 4), context=np.tile(np.arange(4), len(one)), contexts=bench.contexts)
        return margins([model], bench.x, flat)[0].reshape(-1, 4)

    people, each = 600, 4
    taste = rng.integers(0, 4, people)
    past, ask = bench.rows(rng, people * max(SHOTS), True), bench.rows(rng, people * each, True)
    owner, asker = np.repeat(np.arange(people), max(SHOTS)), np.repeat(np.arange(people), each)
    liked = rng.random(len(owner)) < truth(past[0])[np.arange(len(owner)), taste[owner]]
    history = judged(*past) * np.where(liked, 1, -1)[:, None]
    q, qhat = truth(ask[0]), 1 / (1 + np.exp(-judged(*ask)))
    p = np.eye(4)[taste[asker]]
    own = np.isin(ask[0] ^ taste[asker], (0, 1))  # pairs on which the user's context says something
    out: dict[str, list[float]] = {"error": [], "inference": [], "judgement": [], "accuracy": [], "excess": []}
    order = np.tile(np.arange(max(SHOTS)), people)
    for k in SHOTS:
        used = order < k
        phat = posterior(np.full(4, 0.25), history[used], owner[used], units=people)[asker]
        found = decompose_error(p, phat, q, qhat)
        said = (phat * qhat).sum(axis=1) > 0.5
        out["accuracy"].append(float((said == ((p * q).sum(axis=1) > 0.5))[own].mean()))
        out["excess"].append(float((found.error - found.bound).max()))
        for name in ("error", "inference", "judgement"):
            out[name].append(float(getattr(found, name).mean()))
    return out


# ---- claims -----------------------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> list[float] | None:
    """95 % interval of the mean over seeds (Student's t)."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return [round(float(values.mean()) - half, 4), round(float(values.mean()) + half, 4)]


def main() -> None:
    """Run everything and write benchmarks/results/context.json."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    seeds, texts, began = list(range(args.seeds)), statements(args.data), time.process_time()
    bench = Reversals(texts)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, run in (
        ("reversals", lambda s: reversal(bench, s)),
        ("texts", lambda s: unseen(texts, s)),
        ("terms", lambda s: terms(bench, s)),
    ):
        found = [run(seed) for seed in seeds]
        parts[name] = {key: np.array([one[key] for one in found]) for key in found[0]}  # type: ignore[index]
        for key, value in parts[name].items():
            print(f"{name:10} {key:40} {np.round(value.mean(axis=0), 4).tolist()}", flush=True)
    rows, words, error = parts["reversals"], parts["texts"], parts["terms"]
    better = np.maximum(words["zero-shot"], words["trained 48"])
    steps = np.diff(error["inference"], axis=1)

    def claim(text: str, target: str, values: np.ndarray, passed: bool) -> dict[str, object]:
        return {
            "claim": text,
            "target": target,
            "measured": round(float(values.mean()), 4),
            "interval": interval(values),
            "passed": bool(passed),
        }

    claims = [
        claim("blind head on reversals, accuracy", ".45 to .55", rows["blind"], 0.45 <= rows["blind"].mean() <= 0.55),
        claim("contextual head, 1,000 rows, accuracy", ">= .90", rows["right 1000"], rows["right 1000"].mean() >= 0.9),
        claim("contextual head, 2,000 rows, opposed context forced", "<= .10", rows["wrong 2000"], rows["wrong 2000"].mean() <= 0.1),
        claim("unseen contexts: 48 known personas minus 8, trained head", ">= .08", words["trained 48"] - words["trained 8"],
              (words["trained 48"] - words["trained 8"]).mean() >= 0.08),
        claim("unseen contexts: zero-shot cosine minus trained head of 48", "> 0", words["zero-shot"] - words["trained 48"],
              (words["zero-shot"] - words["trained 48"]).mean() > 0),
        claim("seen contexts, unseen statements, 48 personas: trained head minus zero-shot", "> 0",
              words["trained seen 48"] - words["zero-shot seen 48"], (words["trained seen 48"] - words["zero-shot seen 48"]).mean() > 0),
        claim("unseen contexts: residual head of 48 minus the better of the two", ">= 0", words["residual 48"] - better,
              (words["residual 48"] - better).mean() >= 0),
        claim("residual head under the context of another persona, accuracy", ".40 to .60", words["residual, context of another persona"],
              0.4 <= words["residual, context of another persona"].mean() <= 0.6),
        claim("largest excess of the error over its bound, all pairs and k", "<= 1e-9", error["excess"].max(axis=1),
              error["excess"].max() <= 1e-9),
        claim("inference term from 0 to 10 labelled pairs: largest step up, mean over seeds", "<= 0", steps.max(axis=1),
              steps.mean(axis=0).max() <= 0),
    ]  # fmt: skip

    def both(part: dict[str, np.ndarray]) -> dict[str, object]:
        return {key: {"mean": np.round(x.mean(axis=0), 4).tolist(), "seeds": np.round(x, 4).tolist()} for key, x in part.items()}

    details = {
        **{name: both(part) for name, part in parts.items()},
        "shots": SHOTS, "kinds": KINDS, "cpu_seconds": round(time.process_time() - began, 1),
        "encoder": "static (inside cupel), 256 components; the card measured all-MiniLM-L6-v2",
        "substituted": "anti-immigration for politically-conservative, which the data does not have",
    }  # fmt: skip
    write_result("context", claims, n=max(TRAIN_ROWS), seeds=seeds, command="python benchmarks/context.py", details=details)


if __name__ == "__main__":
    main()
