"""The density ratio of two language models: every oracle of its method card, its bad inputs, its labels as votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cupel.annotate.criteria import criteria_from, criterion
from cupel.annotate.density_ratio import DensityRatio, Stored, alignment_gap_sweep, gap_accuracy
from cupel.annotate.labels import MARGIN, append_votes, best_and_worst, calibrate, label_pairs
from cupel.annotate.ngram import NGram
from cupel.errors import InputError
from cupel.records import read
from cupel.records.convert import to_rows
from cupel.records.schema import HELDOUT, TRAIN

STRONG, WEAK = [-1.2, -0.4, -2.0], [-1.5, -0.9, -1.8]


class Table:
    """Log-probabilities by response, whatever the prompt; `shift` is added to the first token for each character of the prompt."""

    def __init__(self, values: dict[str, Sequence[float]], shift: float = 0.0) -> None:
        self.values, self.shift = values, shift

    def logprobs(self, prompt: str, response: str) -> list[float]:
        values = list(self.values[response])
        return [values[0] + self.shift * len(prompt), *values[1:]] if values else []


def pair(response: str = "y") -> tuple[Table, Table]:
    return Table({response: STRONG}), Table({response: WEAK})


# ---- the card's oracles --------------------------------------------------------------------------------------------------------------


def test_sum_and_mean() -> None:
    """Oracle 1."""
    found = DensityRatio(*pair()).table(["x"], ["y"])
    assert found.total[0] == pytest.approx(0.6)
    assert found.mean[0] == pytest.approx(0.2)
    assert DensityRatio(*pair(), reduce="sum").score(["x"], ["y"])[0] == pytest.approx(0.6)


def test_regularised_optimum_is_its_own_reward() -> None:
    """Oracle 2: log(pi_S / pi_0) = r / beta - log Z for the KL-regularised optimum, and the ranking is right."""
    start, reward, beta = np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, -1.0]), 0.5
    best = start * np.exp(reward / beta)
    log_z = np.log(best.sum())
    best /= best.sum()
    assert best == pytest.approx([0.918672, 0.074597, 0.006730], abs=1e-6)
    names = ["a", "b", "c"]
    strong, weak = (Table({name: [float(np.log(p))] for name, p in zip(names, policy, strict=True)}) for policy in (best, start))
    score = DensityRatio(strong, weak).score(["x"] * 3, names)
    assert score == pytest.approx([0.608321, -1.391679, -3.391679], abs=1e-6)
    assert score == pytest.approx(reward / beta - log_z)
    assert np.argsort(-score).tolist() == [0, 1, 2]


def test_exchange_and_constants_of_the_prompt() -> None:
    """Oracle 3."""
    strong, weak = Table({"y": STRONG, "z": [-3.0]}), Table({"y": WEAK, "z": [-1.0]})
    prompts, responses = ["x", "longer x"] * 2, ["y", "y", "z", "z"]
    score = DensityRatio(strong, weak, reduce="sum").score(prompts, responses)
    assert DensityRatio(weak, strong, reduce="sum").score(prompts, responses) == pytest.approx(-score)
    assert DensityRatio(strong, strong, on_zero="allow").score(prompts, responses).tolist() == [0.0] * 4
    shifted = Table(strong.values, shift=-0.1)
    moved = DensityRatio(shifted, weak, reduce="sum").score(prompts, responses)
    assert moved[:2] - moved[2:] == pytest.approx(score[:2] - score[2:])
    assert not np.allclose(moved, score)


def test_sum_of_log_ratios_is_the_log_of_the_ratio() -> None:
    """Oracle 4: with one tokenizer, over tokens or over sequences, in float64."""
    rng = np.random.default_rng(0)
    strong, weak = (-rng.exponential(size=40) for _ in range(2))
    found = DensityRatio(Table({"y": strong.tolist()}), Table({"y": weak.tolist()}), reduce="sum").score(["x"], ["y"])[0]
    assert found == pytest.approx(float(np.log(np.prod(np.exp(strong)) / np.prod(np.exp(weak)))), abs=1e-10)
    assert found == pytest.approx(float((strong - weak).sum()), abs=1e-10)


def test_gap_law() -> None:
    """Oracle 5: accuracy 1/2 + arctan(t) / pi where the log-ratio is t q + e."""
    expected = {0: 0.5, 0.25: 0.577979, 0.5: 0.647584, 1: 0.75, 2: 0.852416}
    rng = np.random.default_rng(1)
    for t, value in expected.items():
        assert gap_accuracy(t) == pytest.approx(value, abs=1e-6)
        quality, noise = rng.normal(size=(2, 2, 200_000))
        ratio = t * quality + noise
        assert ((ratio[0] > ratio[1]) == (quality[0] > quality[1])).mean() == pytest.approx(value, abs=0.006)


def test_a_token_both_models_expect_alike() -> None:
    """Oracle 7: it leaves the sum and shrinks the mean."""
    strong, weak = Table({"y": STRONG, "y.": [*STRONG, -0.7]}), Table({"y": WEAK, "y.": [*WEAK, -0.7]})
    found = DensityRatio(strong, weak).table(["x", "x"], ["y", "y."])
    assert found.total[0] == pytest.approx(found.total[1])
    assert found.mean[1] == pytest.approx(found.mean[0] * 3 / 4)


# (oracle 6, the implicit reward of DPO, is in test_annotate_models.py: it needs torch)

# ---- bad input -----------------------------------------------------------------------------------------------------------------------


def test_identical_models_have_no_gap() -> None:
    with pytest.raises(InputError, match=r"zero gap.*2 responses"):
        DensityRatio(Table({"y": STRONG, "z": [-1]}), Table({"y": STRONG, "z": [-1]})).score(["x", "x"], ["y", "z"])


def test_empty_responses_score_nothing_and_are_flagged() -> None:
    found = DensityRatio(*pair()).table(["x", "x"], ["", "y"])
    assert found.score[0] == 0.0
    assert found.empty.tolist() == [True, False]
    assert found.n_strong.tolist() == [0, 3]


@pytest.mark.parametrize("bad", [[-1.0, float("nan")], [float("-inf")], [0.5], []])
def test_densities_that_are_none(bad: list[float]) -> None:
    with pytest.raises(InputError, match=r"1 of 2 .*weak model.*b \(row 1\)"):
        DensityRatio(Table({"y": STRONG, "z": [-1]}), Table({"y": WEAK, "z": bad})).table(["x", "x"], ["y", "z"], names=["a", "b"])


def test_other_tokens_are_compared_by_sums_only() -> None:
    strong, weak = Table({"y": [-1.0, -1.0]}), Table({"y": [-0.5, -0.5, -2.0]})
    found = DensityRatio(strong, weak).table(["x"], ["y"])
    assert (found.total[0], found.mean[0], found.n_strong[0], found.n_weak[0]) == (1.0, 0.5, 2, 3)
    with pytest.raises(InputError, match="same tokens on both sides"):
        DensityRatio(strong, weak, clip=1.0).score(["x"], ["y"])


def test_clipping_and_what_it_changes() -> None:
    strong, weak = Table({"y": [-9.0, -1.0], "z": [-1.0, -1.0]}), Table({"y": [-1.0, -2.0], "z": [-1.0, -1.2]})
    found = DensityRatio(strong, weak, clip=0.5, reduce="sum").table(["x", "x"], ["y", "z"])
    assert found.total == pytest.approx([-0.5 + 0.5, 0.2])
    assert found.clipped.tolist() == [2, 0]
    strong.values["v"], weak.values["v"] = [-1.0, -1.0], [-1.0, -1.1]
    rows = [{"prompt": "x", "response_a": a, "response_b": b, "vote": "a"} for a, b in (("y", "z"), ("z", "v"))]
    sure = DensityRatio(Table({**strong.values, "y": [-6.0, -1.0]}), Table({**weak.values, "y": [-1.0, -9.0]}), reduce="sum", clip=0.1)
    assert sure.annotate(read(rows, heldout=0)).changed == 1.0  # +3 against +.2 becomes 0 against +.1, and +.2 against +.1 a tie
    assert DensityRatio(strong, weak).annotate(read(rows, heldout=0)).changed == 0.0


def test_stored_sums_and_lists() -> None:
    strong, weak = Stored(["x", "x"], ["y", "z"], [-3.6, -1.0]), Stored(["x", "x"], ["y", "z"], [-4.2, -2.0])
    assert DensityRatio(strong, weak, reduce="sum").score(["x", "x"], ["y", "z"]) == pytest.approx([0.6, 1.0])
    with pytest.raises(InputError, match=r"2 of 2 .*no number of tokens"):
        DensityRatio(strong, weak).score(["x", "x"], ["y", "z"])
    with pytest.raises(InputError, match="no log-probabilities are stored"):
        strong.logprobs("x", "other")
    with pytest.raises(InputError, match="row 1 has other"):
        Stored(["x", "x"], ["y", "y"], [[-1.0], [-2.0]])
    with pytest.raises(InputError, match="give one of each"):
        Stored(["x"], ["y", "z"], [[-1.0]])


def test_options_are_checked() -> None:
    for wrong in ({"reduce": "median"}, {"template_on": "weak"}, {"clip": 0.0}, {"on_zero": "no"}):
        with pytest.raises(InputError):
            DensityRatio(*pair(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="response of row 0 is no text"):
        DensityRatio(*pair()).score(["x"], [None])
    with pytest.raises(InputError, match="1 prompts for 2"):
        DensityRatio(*pair()).score(["x"], ["y", "y"])


# ---- criteria ------------------------------------------------------------------------------------------------------------------------


class Seen:
    """Notes the prompts it is asked about."""

    def __init__(self, value: float) -> None:
        self.value, self.prompts = value, list[str]()

    def logprobs(self, prompt: str, response: str) -> list[float]:
        self.prompts.append(prompt)
        return [self.value]


def test_templates_by_domain() -> None:
    domains = criteria_from({"safety": {"instruction": "Be safe."}, "maths": {"instruction": "Show work."}}, chat=False)
    strong, weak = Seen(-1.0), Seen(-2.0)
    ratio = DensityRatio(strong, weak, template=domains, router=lambda prompt: "maths" if "+" in prompt else "safety")
    ratio.score(["1+1?", "Hi"], ["2", "Hello"])
    assert strong.prompts == weak.prompts == ["Show work.\n\n1+1?", "Be safe.\n\nHi"]
    strong, weak = Seen(-1.0), Seen(-2.0)
    DensityRatio(strong, weak, template=domains["safety"], template_on="strong").score(["Hi"], ["Hello"])
    assert (strong.prompts, weak.prompts) == (["Be safe.\n\nHi"], ["Hi"])
    with pytest.raises(InputError, match="no router"):
        DensityRatio(strong, weak, template=domains)
    with pytest.raises(InputError, match=r"1 of 1 prompts .*'chat'.*maths, safety"):
        DensityRatio(strong, weak, template=domains, router=lambda prompt: "chat").score(["x"], ["y"])
    with pytest.raises(InputError, match="no template"):
        DensityRatio(strong, weak, router=lambda prompt: "chat").score(["x"], ["y"])


def test_criteria_in_chats() -> None:
    made = criterion("Be safe.", [("Hi", "Hello")])('[{"role":"system","content":"You help."},{"role":"user","content":"Why?"}]')
    assert made == (
        '[{"role":"system","content":"Be safe.\\n\\nYou help."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},'
        '{"role":"user","content":"Why?"}]'
    )
    with pytest.raises(InputError, match="plain text"):
        criterion("Be safe.", chat=False)('[{"role":"user","content":"Why?"}]')
    for wrong in ({}, {"a": {"exemplars": []}}, {"a": {"instruction": "x", "exemplars": [{"prompt": "p"}]}}, ["a"]):
        with pytest.raises(InputError):
            criteria_from(wrong)


# ---- n-grams ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_ngrams_are_distributions(order: int) -> None:
    """The slow twin: probabilities by counting, and over the vocabulary they sum to 1."""
    texts = ["a b b", "b a", "c"]
    model = NGram(texts, order=order, prior_mass=3.0, backoff_mass=2.0)
    from collections import Counter

    tokens = [[*text.split(), "END"] for text in texts]
    count = Counter(word for row in tokens for word in row)
    size, total = 5, sum(count.values())

    def single(word: str) -> float:
        return (count[word] + 3.0 / size) / (total + 3.0)

    def slow(words: list[str]) -> list[float]:
        row, before, out = [*words, "END"], "START", []
        follows = Counter((v, w) for one in tokens for v, w in zip(["START", *one], one, strict=False))
        for word in row:
            seen = sum(n for (v, _), n in follows.items() if v == before)
            out.append(single(word) if order == 1 else (follows[before, word] + 2.0 * single(word)) / (seen + 2.0))
            before = word
        return out

    assert np.exp(model.logprobs("ignored", "b c a")) == pytest.approx(slow(["b", "c", "a"]))
    assert sum(np.exp(model.logprobs("", word)[0]) for word in ("a", "b", "c", "zebra", "")) == pytest.approx(1.0)


def test_ngrams_refuse() -> None:
    for wrong in ({"order": 3}, {"prior_mass": 0.0}, {"backoff_mass": -1.0}):
        with pytest.raises(InputError):
            NGram(["a"], **wrong)


# ---- labels and votes --------------------------------------------------------------------------------------------------------------------


def crowd(n: int = 200, seed: int = 0, people: int = 3) -> tuple[list[dict[str, Any]], np.ndarray, dict[str, float]]:
    """Votes of people who are right 80 % of the time, the truth of each pair, and a quality of each response that is right 90 %."""
    rng = np.random.default_rng(seed)
    first_better = rng.random(n) < 0.5
    rows, quality = [], {}
    for i in range(n):
        told = first_better[i] if rng.random() < 0.9 else not first_better[i]
        gap = rng.exponential()
        quality |= {f"a{i}": gap if told else 0.0, f"b{i}": 0.0 if told else gap}
        for person in range(people):
            right = rng.random() < 0.8
            vote = "a" if first_better[i] == right else "b"
            # half of the votes see the sides exchanged
            sides = (f"a{i}", f"b{i}") if person % 2 == 0 else (f"b{i}", f"a{i}")
            vote = vote if person % 2 == 0 else {"a": "b", "b": "a"}[vote]
            rows.append({
                "prompt": f"p{i}", "response_a": sides[0], "response_b": sides[1], "vote": vote, "annotator": f"person{person}",
                "reason": "because", "seconds": 3.0,
            })  # fmt: skip
    return rows, first_better, quality


def ratio_of(quality: dict[str, float]) -> DensityRatio:
    strong = Table({name: [-10.0 + value] for name, value in quality.items()})
    return DensityRatio(strong, Table({name: [-10.0] for name in quality}))


def test_labels_of_distinct_pairs() -> None:
    rows, _, quality = crowd()
    votes = read(rows, heldout=0)
    ratio = ratio_of(quality)
    labels = ratio.annotate(votes)
    assert len(labels) == 200
    first = [votes.responses[int(i)].as_py() for i in votes.first[labels.row]]
    assert all((quality[text] > 0) == (sign > 0) for text, sign in zip(first, labels.sign, strict=True))
    assert labels.confidence == pytest.approx(np.abs(labels.margin))
    assert labels.margins["mean"] == pytest.approx(labels.margins["sum"])  # one token each
    same = label_pairs(ratio, votes)
    assert same.margin.tolist() == labels.margin.tolist()
    assert (ratio.annotate(votes, tie=1e9).sign == 0).all()


def test_one_more_annotator_with_a_flip_rate_of_its_own() -> None:
    """Appended votes are read by the annotator models, which recover how often the ratio is wrong."""
    from cupel.votes.annotators import one_coin, vote_table

    rows, truth, quality = crowd(n=600)
    votes = read(rows, heldout=0.2, seed=0)
    both = append_votes(votes, ratio_of(quality).annotate(votes), "density-ratio")
    assert len(both) == len(votes) + 600
    assert both.annotators[-1] == "density-ratio"
    assert len(set(both.ids.to_pylist())) == len(both)
    new = both.take(np.arange(len(votes), len(both)))
    assert set(new.p.tolist()) == {0.0, 1.0}
    table = vote_table(both.pair, both.annotator, (both.pair_sign > 0).astype(np.int64), keep="all")
    fit = one_coin(table)
    assert fit.accuracy[-1] == pytest.approx(0.9, abs=0.04)
    assert fit.accuracy[:3] == pytest.approx([0.8] * 3, abs=0.05)
    # held-out pairs stay held out
    split = {int(pair): int(split) for pair, split in zip(both.pair[: len(votes)], votes.split, strict=True)}
    assert all(split[int(pair)] == value for pair, value in zip(both.pair[len(votes) :], new.split, strict=True))
    assert {TRAIN, HELDOUT} == set(new.split.tolist())
    # the file: other people's reasons are not copied, the margin is there, and it is read back
    out, _ = to_rows(both, "votes")
    last = out.slice(len(votes)).to_pylist()[0]
    assert (last["reason"], last["seconds"], last["annotator"]) == (None, None, "density-ratio")
    assert last[MARGIN] == pytest.approx(float(ratio_of(quality).annotate(votes).margin[0]))
    again = read(out, heldout=0)
    assert again.sign.tolist() == both.sign.tolist()
    with pytest.raises(InputError, match="annotator 'density-ratio' already"):
        append_votes(both, ratio_of(quality).annotate(votes), "density-ratio")
    assert truth.shape == (600,)


def test_the_em_treatment_weighs_the_new_annotator() -> None:
    """The treatments read annotators by index: reliabilities by annotator exist for the appended one."""
    torch = pytest.importorskip("torch")
    from cupel.noise.em import fit_reliability

    rows, truth, quality = crowd(n=400)
    votes = read(rows, heldout=0)
    both = append_votes(votes, ratio_of(quality).annotate(votes), "density-ratio")
    name = {f"p{i}": truth[i] for i in range(400)}
    better = np.array([name[prompt] for prompt in (both.prompts[int(i)].as_py() for i in both.prompt)])
    is_a = np.array([both.responses[int(i)].as_py().startswith("a") for i in both.first])
    z = np.where(better == is_a, 4.0, -4.0)  # log-odds of a good model that the first side is better
    fit = fit_reliability(torch.tensor(z), torch.tensor(both.annotator).long(), torch.full((4,), 0.7), p=torch.tensor(both.p))
    assert float(fit.reliability[3]) == pytest.approx(0.92, abs=0.05)
    assert float(fit.reliability[3]) > float(fit.reliability[:3].max())


def test_a_margin_becomes_a_probability_on_votes_only() -> None:
    rows, _, quality = crowd(n=300)
    votes = read(rows, heldout=0.2, seed=1)
    labels = ratio_of(quality).annotate(votes)
    found = calibrate(labels, votes)
    assert found.n == int((votes.split == TRAIN).sum())
    p = found.probability(labels.margin)
    both = append_votes(votes, labels, "density-ratio", p=p)
    assert both.p[len(votes) :] == pytest.approx(p)
    turned = votes.with_(outcome=np.where(votes.split == HELDOUT, 1 - votes.outcome, votes.outcome).astype(np.int8))
    assert calibrate(labels, turned) == found  # held-out labels have no influence
    few = votes.take(np.arange(10))
    with pytest.raises(InputError, match="needs 20"):
        calibrate(ratio_of(quality).annotate(few), few)
    with pytest.raises(InputError, match="p holds"):
        append_votes(votes, labels, "x", p=np.full(len(labels), 2.0))


def test_best_and_worst_candidates() -> None:
    ratio = ratio_of({"a": 1.0, "b": 0.5, "c": -1.0, "d": 0.0, "e": 0.0})
    rows = best_and_worst(ratio, ["p", "q", "r"], [["a", "b", "c"], ["d", "e"], []])
    assert rows == [{"prompt": "p", "chosen": "a", "rejected": "c", "margin": pytest.approx(2.0)}]
    with pytest.raises(InputError, match="give one to each"):
        best_and_worst(ratio, ["p"], [])


def test_length_is_always_told() -> None:
    strong = Table({"a b c": [-1.0] * 3, "a": [-1.0], "a b": [-1.0] * 2})
    weak = Table({"a b c": [-2.0] * 3, "a": [-1.5], "a b": [-2.0] * 2})
    rows = [{"prompt": "p", "response_a": a, "response_b": b, "vote": "a"} for a, b in (("a b c", "a"), ("a", "a b"))]
    labels = DensityRatio(strong, weak, reduce="sum").annotate(read(rows, heldout=0))
    assert labels.prefers_longer == 1.0
    assert labels.length_corr["sum"] == pytest.approx(float(np.corrcoef([3, 0.5, 2], [3, 1, 2])[0, 1]))
    assert set(labels.length_corr) == {"sum", "mean"}


def test_sweep_over_gaps() -> None:
    rng = np.random.default_rng(3)
    quality = {f"{side}{i}": float(rng.normal()) for i in range(150) for side in "ab"}
    rows = [
        {"prompt": f"p{i}", "response_a": f"a{i}", "response_b": f"b{i}", "vote": "a" if quality[f"a{i}"] > quality[f"b{i}"] else "b"}
        for i in range(150)
    ]
    weak = Table({name: [-20.0] for name in quality})
    pairs, gaps = {"none": (weak, weak)}, {"none": 0.0}
    for gap in (0.5, 1.0, 2.0):
        noise = np.random.default_rng(int(10 * gap))
        pairs[f"gap {gap}"] = (Table({n: [-20.0 + gap * q + float(noise.normal())] for n, q in quality.items()}), weak)
        gaps[f"gap {gap}"] = gap
    found = alignment_gap_sweep(pairs, gaps, read(rows, heldout=0))
    reached = [row["accuracy"].estimate for row in found.rows]
    assert [row["gap"] for row in found.rows] == [0.0, 0.5, 1.0, 2.0]
    assert reached[0] == 0.5
    assert reached == sorted(reached)
    assert found.rises is not None
    assert found.rises.spearman == 1.0
    with pytest.raises(InputError, match="other"):
        alignment_gap_sweep(pairs, {**gaps, "other": 1.0}, read(rows, heldout=0))
