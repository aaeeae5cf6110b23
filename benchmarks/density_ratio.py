"""Density ratios of strong-over-weak language models (CDR, card 37): real pairs by n-grams, the gap law, customisation, training on labels.

    python benchmarks/density_ratio.py [--data DIR] [--seeds 5]

A. hh_harmless (1,694 pairs; the card had 2,308): n-gram models of last turns, 500 test pairs, the rest to train. Strong is made from a
   share q of chosen and 1 - q of rejected turns, weak from the reverse. Claims as on the card.
B. Sequences of 6 out of 12 symbols. pi_W: a small network (previous symbol and place to 32 units to 12) by maximum likelihood on 4,000
   sequences of a random chain. r = a sum of symbols' values, of deviation 1 under pi_W. pi_S(t): the exact optimum of
   E[r] - KL / t, whose log-probabilities are then perturbed by normal noise that gives log(pi_S / pi_W) a noise of deviation 1. Accuracy
   of R against r on 4,000 pairs from pi_W must be 1/2 + arctan(t) / pi within .03 (mean over seeds).
C. Two domains that want opposite symbols. Models are n-grams conditioned on a control token (or none), made from 2,000 sequences for each:
   strong from sequences tilted to the domain by exp(r / 2), weak from plain ones; without the token strong saw both domains. 1,000 pairs of
   each domain; routing by domain, none, and the wrong way round.
D. 8 answers from pi_W, 400 times; best and worst by R at t = 1, by the true reward, and by chance are 400 pairs for DPO (beta 0.5, exact
   tables, 300 steps of Adam at .05). Expected true reward of the policy is exact.
C and D were not measured on the card; their claims are its.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

from cupel.annotate.density_ratio import DensityRatio, gap_accuracy
from cupel.annotate.labels import best_and_worst
from cupel.annotate.ngram import NGram, words_of

SYMBOLS, LENGTH = 12, 6
LETTERS = "abcdefghijkl"
TEST = 500


# ---- A: real pairs -------------------------------------------------------------------------------------------------------------------


def real_pairs(data):
    """(chosen, rejected) last turns, both with words and different."""
    table = pq.read_table(data / "hh_harmless/pairs.parquet", columns=["chosen", "rejected"]).to_pylist()
    return [(r["chosen"], r["rejected"]) for r in table if r["chosen"].strip() and r["rejected"].strip() and r["chosen"] != r["rejected"]]


def ngrams(pairs, seed):
    """Accuracies by (order, q, reduction) on the test pairs of a split, and of the strong model alone and of longer-is-better."""
    rng = np.random.default_rng([seed, 37])
    order = rng.permutation(len(pairs))
    test, train = [pairs[i] for i in order[:TEST]], [pairs[i] for i in order[TEST:]]
    vocabulary = NGram.vocabulary([text for pair in train for text in pair])
    chosen, rejected = [c for c, _ in test], [r for _, r in test]
    size = np.array([[len(words_of(c)), len(words_of(r))] for c, r in test])
    out = {"longer": accuracy(size[:, 0] - size[:, 1])}
    blank = [""] * TEST
    draw = rng.random(len(train))
    for ngram in (1, 2):
        for q in (0.5, 0.6, 0.75, 0.9, 1.0):
            taken = draw < q
            strong, weak = (
                NGram([(c if own == t else r) for (c, r), t in zip(train, taken, strict=True)], order=ngram, vocabulary=vocabulary)
                for own in (True, False)
            )
            ratio = DensityRatio(strong, weak)
            one, other = ratio.table(blank, chosen), ratio.table(blank, rejected)
            name = "unigram" if ngram == 1 else "bigram"
            out[f"{name} sum, q {q}"] = accuracy(one.total - other.total)
            out[f"{name} mean, q {q}"] = accuracy(one.mean - other.mean)
            if q == 1.0:
                out[f"{name} strong alone, sum"] = accuracy(one.strong - other.strong)
                out[f"{name} strong alone, mean"] = accuracy(one.strong / one.n_strong - other.strong / other.n_strong)
                out[f"{name} correlation with length, sum"] = ratio.table(blank * 2, chosen + rejected).length_corr()["sum"]
    return out


def accuracy(margin):
    """Share of positive margins, ties half."""
    return float(np.mean(np.where(margin == 0, 0.5, margin > 0)))


# ---- B and D: a small network and its tilts ------------------------------------------------------------------------------------------


class Chain:
    """Sequences of LENGTH symbols with log-probabilities [place, previous symbol (SYMBOLS: none), symbol]."""

    def __init__(self, table):
        self.table = table

    def logprobs(self, prompt, response):
        """Of each symbol of a word in LETTERS."""
        ids = [LETTERS.index(letter) for letter in response]
        return [float(self.table[k, before, now]) for k, (before, now) in enumerate(zip([SYMBOLS, *ids], ids, strict=False))]

    def sample(self, n, rng):
        """Words, n of them."""
        out = np.empty((n, LENGTH), dtype=np.int64)
        before = np.full(n, SYMBOLS)
        for k in range(LENGTH):
            edges = np.exp(self.table[k, before]).cumsum(axis=1)
            before = out[:, k] = np.minimum((rng.random(n)[:, None] * edges[:, -1:] > edges).sum(axis=1), SYMBOLS - 1)
        return ["".join(LETTERS[i] for i in row) for row in out]

    def tilted(self, value, t):
        """The optimum of E[sum of values] - KL / t, exactly: backwards over places."""
        table, ahead = np.empty_like(self.table), np.zeros(SYMBOLS + 1)
        for k in range(LENGTH - 1, -1, -1):
            weighed = self.table[k] + t * value[None, :] + ahead[None, :SYMBOLS]
            total = np.logaddexp.reduce(weighed, axis=1)
            table[k], ahead = weighed - total[:, None], total
        return Chain(table)

    def expected(self, value):
        """E[sum of values], exactly."""
        ahead = np.zeros(SYMBOLS + 1)
        for k in range(LENGTH - 1, -1, -1):
            ahead = (np.exp(self.table[k]) * (value[None, :] + ahead[None, :SYMBOLS])).sum(axis=1)
        return float(ahead[SYMBOLS])


def network(seed):
    """pi_W: a small network trained by maximum likelihood, as a table."""
    import torch

    rng = np.random.default_rng([seed, 371])
    source = np.log(rng.dirichlet(np.full(SYMBOLS, 0.7), size=(1, SYMBOLS + 1)).repeat(LENGTH, axis=0) + 0.01)
    words = Chain(source).sample(4000, rng)
    ids = np.array([[LETTERS.index(letter) for letter in word] for word in words])
    before = np.concatenate([np.full((len(ids), 1), SYMBOLS), ids[:, :-1]], axis=1)
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(SYMBOLS + 1 + LENGTH, 32), torch.nn.Tanh(), torch.nn.Linear(32, SYMBOLS))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    place, last = np.meshgrid(np.arange(LENGTH), np.arange(SYMBOLS + 1), indexing="ij")

    def inputs(previous, at):
        first = torch.nn.functional.one_hot(torch.as_tensor(previous.reshape(-1)), SYMBOLS + 1)
        return torch.cat([first, torch.nn.functional.one_hot(torch.as_tensor(at.reshape(-1)), LENGTH)], dim=1).float()

    x, y = inputs(before, np.tile(np.arange(LENGTH), (len(ids), 1))), torch.as_tensor(ids.reshape(-1))
    for _ in range(15):
        for part in torch.randperm(len(x)).split(512):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            optimiser.step()
    with torch.no_grad():
        table = torch.log_softmax(net(inputs(last, place)).double(), dim=1).numpy()
    return Chain(table.reshape(LENGTH, SYMBOLS + 1, SYMBOLS))


def values_of(words, value):
    """Sum of symbols' values of each word."""
    return np.array([sum(value[LETTERS.index(letter)] for letter in word) for word in words])


def strong_of(weak, value, t, rng):
    """pi_S(t) with noise: noise of the table's log-probabilities, scaled so that log(pi_S / pi_W) has noise of deviation 1."""
    clean = weak.tilted(value, t)
    noise = rng.normal(size=clean.table.shape)
    words = weak.sample(2000, rng)
    moved = clean.table + noise
    moved -= np.logaddexp.reduce(moved, axis=2, keepdims=True)
    gap = np.array([sum(Chain(moved - clean.table).logprobs("", word)) for word in words])
    for _ in range(20):  # the deviation is not quite linear in the scale: the rows are normalised again
        noise /= gap.std()
        moved = clean.table + noise
        moved = moved - np.logaddexp.reduce(moved, axis=2, keepdims=True)
        gap = np.array([sum(Chain(moved - clean.table).logprobs("", word)) for word in words])
        if abs(gap.std() - 1) < 0.01:
            break
    return Chain(moved)


def gap_law(seed):
    """Accuracy by t."""
    rng = np.random.default_rng([seed, 372])
    weak = network(seed)
    value = rng.normal(size=SYMBOLS)
    value /= values_of(weak.sample(4000, rng), value).std()
    words = weak.sample(8000, rng)
    truth = values_of(words, value)
    out = {}
    for t in (0.0, 0.25, 0.5, 1.0, 2.0):
        score = DensityRatio(strong_of(weak, value, t, rng), weak, reduce="sum").score([""] * len(words), words)
        gap, right = score[::2] - score[1::2], truth[::2] - truth[1::2]
        decided = right != 0
        out[t] = accuracy((gap * np.sign(right))[decided])
    return out


def trained(pairs, weak):
    """DPO from pi_W on (chosen, rejected) words, exact tables."""
    import torch

    from cupel.objectives.names import parse
    from cupel.objectives.types import Side

    objective = parse("dpo:beta=0.5")
    base = torch.tensor(weak.table)
    ids = torch.tensor([[[LETTERS.index(letter) for letter in word] for word in pair] for pair in pairs])
    before = torch.cat([torch.full((*ids.shape[:2], 1), SYMBOLS), ids[:, :, :-1]], dim=2)
    place = torch.arange(LENGTH)
    logits = base.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.05)
    reference = base[place, before, ids].sum(dim=2)
    for _ in range(300):
        optimiser.zero_grad()
        logp = torch.log_softmax(logits, dim=2)[place, before, ids].sum(dim=2)
        sides = [Side(logp=logp[:, k], reference_logp=reference[:, k]) for k in (0, 1)]
        objective.loss(*sides, {}).mean().backward()
        optimiser.step()
    return Chain(torch.log_softmax(logits, dim=2).detach().numpy())


class Known:
    """The true reward, or chance, as a scorer."""

    def __init__(self, give):
        self.give = give

    def score(self, prompts, responses):
        """Of each response."""
        return self.give(responses)


def end_to_end(seed):
    """Gain in expected true reward over pi_W, by who labelled."""
    rng = np.random.default_rng([seed, 373])
    weak = network(seed)
    value = rng.normal(size=SYMBOLS)
    value /= values_of(weak.sample(4000, rng), value).std()
    words = weak.sample(3200, rng)
    candidates = [words[i : i + 8] for i in range(0, len(words), 8)]
    prompts = [str(i) for i in range(len(candidates))]
    who = {
        "density ratio": DensityRatio(strong_of(weak, value, 1.0, rng), weak, reduce="sum"),
        "oracle": Known(lambda responses: values_of(responses, value)), "chance": Known(lambda responses: rng.normal(size=len(responses))),
    }  # fmt: skip
    start, out = weak.expected(value), {}
    for name, scorer in who.items():
        rows = best_and_worst(scorer, prompts, candidates)
        out[name] = trained([(row["chosen"], row["rejected"]) for row in rows], weak).expected(value) - start
    return out


# ---- C: customisation ----------------------------------------------------------------------------------------------------------------


class Controlled:
    """N-grams by the control token that a prompt begins with; "" where it has none."""

    def __init__(self, models):
        self.models = models

    def logprobs(self, prompt, response):
        """Of each symbol, and of the end."""
        control = prompt.split(">")[0] + ">" if prompt.startswith("<") else ""
        return self.models[control].logprobs("", response)


def customised(seed):
    """Accuracy on pairs of two domains with opposite wishes: routed, unrouted, routed the wrong way round."""
    rng = np.random.default_rng([seed, 374])
    weak = network(seed)
    value = rng.normal(size=SYMBOLS)
    value /= values_of(weak.sample(4000, rng), value).std()
    sign = {"<one>": 1.0, "<two>": -1.0}

    def model(words):
        return NGram(words, prior_mass=50, vocabulary=LETTERS, tokenizer=list)

    tilted = {control: weak.tilted(value, s / 2).sample(2000, rng) for control, s in sign.items()}
    strong = Controlled({control: model(words) for control, words in tilted.items()} | {"": model(tilted["<one>"] + tilted["<two>"])})
    base = Controlled({control: model(weak.sample(2000, rng)) for control in ("<one>", "<two>", "")})
    words = weak.sample(4000, rng)
    domains = ["<one>"] * 2000 + ["<two>"] * 2000
    prompts = [f"{domain[1:-1]} {i // 2}" for i, domain in enumerate(domains)]
    wish = np.array([sign[domain] for domain in domains]) * values_of(words, value)
    other = {"<one>": "<two>", "<two>": "<one>"}
    template = {control: (lambda prompt, control=control: f"{control} {prompt}") for control in sign}
    routers = {"routed": lambda p: f"<{p.split()[0]}>", "wrong": lambda p: other[f"<{p.split()[0]}>"]}
    out = {}
    for name in ("routed", "unrouted", "wrong"):
        chosen = {"template": template, "router": routers[name]} if name in routers else {}
        score = DensityRatio(strong, base, **chosen).score(prompts, words)
        gap, right = score[::2] - score[1::2], wish[::2] - wish[1::2]
        out[name] = accuracy((gap * np.sign(right))[right != 0])
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    began = time.process_time()
    pairs = real_pairs(given.data)
    parts = {name: [] for name in "ABCD"}
    for seed in seeds:
        for name, made in (("A", ngrams(pairs, seed)), ("B", gap_law(seed)), ("C", customised(seed)), ("D", end_to_end(seed))):
            parts[name].append(made)
            print(seed, name, {key: round(value, 3) for key, value in made.items()}, flush=True)
    table = {name: {str(key): [one[key] for one in rows] for key in rows[0]} for name, rows in parts.items()}
    a, b, c, d = (table[name] for name in "ABCD")

    def claim(text, target, values, passed, n):
        values = np.asarray(values)
        return {
            "claim": text, "target": target, "measured": float(values.mean()), "interval": [float(values.min()), float(values.max())],
            "passed": bool(passed), "n": n,
        }  # fmt: skip

    rise = np.subtract(a["unigram sum, q 1.0"], a["unigram sum, q 0.5"])
    means = [np.mean(a[f"unigram sum, q {q}"]) for q in (0.5, 0.6, 0.75, 0.9, 1.0)]
    over = np.subtract(a["unigram mean, q 1.0"], a["unigram strong alone, sum"])
    half = np.abs(np.mean(a["unigram sum, q 0.5"]) - 0.5)
    off = [abs(np.mean(b[str(t)]) - gap_accuracy(t)) for t in (0.0, 0.25, 0.5, 1.0, 2.0)]
    routed, wrong = np.subtract(c["routed"], c["unrouted"]), np.subtract(c["wrong"], c["unrouted"])
    recovered = np.divide(d["density ratio"], d["oracle"])
    claims = [
        claim("A: accuracy at q = 1 minus q = 0.5, unigram sum", ">= 0.04", rise, rise.mean() >= 0.04, TEST),
        claim("A: accuracy rises with the gap: largest fall from one q to the next", "<= 0.01", max(0.0, -np.diff(means).min()),
              -np.diff(means).min() <= 0.01, TEST),
        claim("A: mean ratio minus the strong model alone (sum)", ">= 0", over, over.mean() >= 0, TEST),
        claim("A: distance of q = 0.5 from one half", "<= 0.03", half, half <= 0.03, TEST),
        claim("B: largest distance from 1/2 + arctan(t)/pi over five t", "<= 0.03", max(off), max(off) <= 0.03, 4000),
        claim("C: accuracy routed minus unrouted", ">= 0.10", routed, routed.mean() >= 0.1, 2000),
        claim("C: accuracy with wrong routing minus unrouted", "< 0", wrong, wrong.mean() < 0, 2000),
        claim("D: share of the oracle's gain with labels of the ratio, t = 1", ">= 0.50", recovered, recovered.mean() >= 0.5, 400),
        claim("D: gain with labels by chance over the oracle's", "< 0.25", np.divide(d["chance"], d["oracle"]),
              np.divide(d["chance"], d["oracle"]).mean() < 0.25, 400),
    ]  # fmt: skip
    details = {
        "tables": table, "pairs": len(pairs), "interval": "lowest and highest seed", "cpu_seconds": round(time.process_time() - began, 1),
        "law": {str(t): gap_accuracy(t) for t in (0.0, 0.25, 0.5, 1.0, 2.0)},
    }  # fmt: skip
    write_result("density_ratio", claims, n=len(pairs), seeds=seeds, command="python benchmarks/density_ratio.py", details=details)


if __name__ == "__main__":
    main()
