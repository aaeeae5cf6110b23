"""The white-box relevance reward: every oracle of its method card, its bad inputs, and the probes that go with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.annotate.probes import contradictions, length_relevance_probe, monotonicity, ranks
from cupel.annotate.whitebox import (
    AnnotationWarning,
    LengthIncentive,
    Relevance,
    RepetitionPenalty,
    WhiteBox,
    tokens_of,
)
from cupel.errors import InputError
from cupel.records import read


class Planted:
    """An encoder with a vector for each text, not normalised unless `unit`."""

    name = "planted"

    def __init__(self, vectors: dict[str, Sequence[float]], dim: int = 2) -> None:
        self.vectors, self.dim = vectors, dim

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.vectors.get(text, [0.0] * self.dim) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)


PROMPTS = ["How do dogs run?", "When are taxes due?", "Why is the sky blue?", "How is bread made?"]
ANSWERS = [
    "Dogs run on four legs, and greyhounds run the fastest of all dogs.", "Taxes are due in April.",
    "The sky is blue because air scatters blue light more than red light.", "Bread is made from flour, water, salt and yeast.",
]  # fmt: skip


@pytest.fixture(scope="module")
def static() -> Relevance:
    return Relevance("static")


# ---- the card's oracles ----------------------------------------------------------------------------------------------------------


def test_features_of_known_texts() -> None:
    """Oracle 1."""
    length, repetition = LengthIncentive(), RepetitionPenalty()
    assert length(["The cat sat on the mat.", "go go go go go go"]).tolist() == [0.07, 0.06]
    assert repetition(["The cat sat on the mat.", "go go go go go go", "a b"]).tolist() == [1.0, 0.25, 1.0]
    assert tokens_of("can't stop, won't") == ["can", "'", "t", "stop", ",", "won", "'", "t"]


def test_product_and_reference_branch() -> None:
    """Oracle 2: LI .8, RP .9, QR .6 give .432; RAR .9 gives 1.316571."""
    words = [f"w{i}" for i in range(80)]
    repeats = iter(words)
    text = " ".join(next(repeats) for _ in range(80))
    encoder = Planted({"q": [0.6, 0.0], text: [1.0, 0.0], "ref": [0.9, 0.0]})
    fixed = type("Fixed", (RepetitionPenalty,), {"__call__": lambda self, responses: np.full(len(responses), 0.9)})()
    reward = WhiteBox(Relevance(encoder, (0.0, 3.5)), repetition=fixed)
    found = reward.parts(["q"], [text], ["OPENENDED"])
    assert found.length[0] == 0.8
    assert found.score[0] == pytest.approx(0.432, abs=1e-7)
    plain = WhiteBox(Relevance(encoder, (0.0, 3.5)))
    assert plain.score(["q"], [text], ["constrained"], ["ref"])[0] == pytest.approx(1.316571, abs=1e-6)
    assert plain.lin(np.array([1.75, 3.5, 0.7])) == pytest.approx([2.56, 5.12, 1.024])


def test_switches(static: Relevance) -> None:
    """Oracle 3: nothing left is the constant 1; length alone ranks by tokens; without relevance the prompt has no influence."""
    off = WhiteBox(None, length=None, repetition=None)
    assert off.score(PROMPTS, ANSWERS).tolist() == [1.0] * 4
    length = WhiteBox(None, repetition=None).score(PROMPTS, ANSWERS)
    assert np.argsort(length).tolist() == np.argsort([len(tokens_of(text)) for text in ANSWERS]).tolist()
    without = WhiteBox(None)
    assert without.score(PROMPTS, ANSWERS).tolist() == without.score(PROMPTS[::-1], ANSWERS).tolist()
    with_it = WhiteBox(static, branching=False)
    assert with_it.score(PROMPTS, ANSWERS).tolist() != with_it.score(PROMPTS[::-1], ANSWERS).tolist()
    only = WhiteBox(static, length=None, repetition=None, branching=False)
    assert only.score(PROMPTS, ANSWERS) == pytest.approx(static.between(PROMPTS, ANSWERS))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=9))
def test_repetition_of_a_copy(words: list[str]) -> None:
    """Oracle 4: text with distinct triples, appended to itself, has RP = (n - 2 + s) / (2n - 2), s new triples at the seam."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(triples)) < len(triples):
        return
    n, twice = len(words), [*words, *words]
    seam = {tuple(twice[n - 2 : n + 1]), tuple(twice[n - 1 : n + 2])} - set(triples)
    assert RepetitionPenalty()([" ".join(twice)])[0] == pytest.approx((n - 2 + len(seam)) / (2 * n - 2))


def test_repetition_ignores_new_triples() -> None:
    """Oracle 4: appending text whose triples are all new leaves no repetition where there was none."""
    assert RepetitionPenalty()(["a b c d", "a b c d e f g h i"]).tolist() == [1.0, 1.0]


def test_length_counts_in_the_open_branch_alone() -> None:
    """Oracle 5: at equal RP and QR > 0 the open reward rises with length; the constrained one does not contain it."""
    texts = [" ".join(f"w{i}" for i in range(n)) for n in (3, 10, 40)]
    encoder = Planted({"q": [1.0, 0.0], "ref": [1.0, 0.0], **{text: [0.5, 0.0] for text in texts}})
    reward = WhiteBox(Relevance(encoder, (0.0, 1.0)))
    open_ended = reward.score(["q"] * 3, texts, ["OPENENDED"] * 3)
    assert (np.diff(open_ended) > 0).all()
    assert np.ptp(reward.score(["q"] * 3, texts, ["CONSTRAINED"] * 3, ["ref"] * 3)) == 0


def test_a_score_does_not_depend_on_the_batch(static: Relevance) -> None:
    """Oracle 6, to the last bit with the embedded encoder."""
    reward = WhiteBox(static)
    kinds = ["OPENENDED", "CONSTRAINED"] * 2
    together = reward.score(PROMPTS, ANSWERS, kinds, ANSWERS[::-1])
    alone = [
        float(reward.score(p, a, k, r)[0])
        for p, a, k, r in zip(*([[x] for x in xs] for xs in (PROMPTS, ANSWERS, kinds, ANSWERS[::-1])), strict=True)
    ]
    assert together.tolist() == alone


def test_spearman() -> None:
    """Oracle 7, and average ranks for ties."""
    assert monotonicity([1, 2, 3, 4], [1, 3, 2, 4]).spearman == pytest.approx(0.8)
    assert ranks(np.array([2.0, 1.0, 2.0, 3.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    from scipy.stats import spearmanr

    x, y = [1, 2, 2, 3, 5, 4], [2, 2, 1, 5, 5, 5]
    assert monotonicity(x, y).spearman == pytest.approx(float(spearmanr(x, y).statistic))


# ---- monotonicity ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=6))
def test_exact_p_values_are_those_of_all_orders(pairs: list[tuple[int, int]]) -> None:
    """The distribution by subsets against the slow twin that tries every order, ties included."""
    x, y = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    found = monotonicity(x.tolist(), y.tolist(), draws=10)
    a, b = ranks(x), ranks(y)
    rhos = np.array([np.corrcoef(a, b[list(order)])[0, 1] for order in itertools.permutations(range(len(x)))])
    assert found.p_value == pytest.approx(float((np.abs(rhos) >= abs(found.spearman) - 1e-9).mean()))
    assert found.p_rising == pytest.approx(float((rhos >= found.spearman - 1e-9).mean()))


def test_ten_checkpoints_are_counted_exactly_and_more_are_drawn() -> None:
    rising = monotonicity(list(range(10)), [0, 1, 2, 3, 4, 5, 6, 8, 7, 9])
    assert rising.exact
    assert rising.p_rising == pytest.approx(10 / 3628800)  # itself and the nine exchanges of neighbours
    assert rising.low <= rising.spearman <= rising.high
    assert not rising.hacked
    many = monotonicity(list(range(20)), list(range(20))[::-1])
    assert not many.exact
    assert many.hacked
    assert many.p_value == 1 / 10000
    assert monotonicity(list(range(20)), list(range(20))[::-1]) == many


@pytest.mark.parametrize(
    ("proxy", "gold", "word"),
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 3], [1, 2], "one length"),
        ([1, np.nan, 3], [1, 2, 3], "finite"),
        ([1, 1, 1], [1, 2, 3], "proxy"),
    ],
)
def test_monotonicity_refuses(proxy: list[float], gold: list[float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        monotonicity(proxy, gold)


# ---- the probe of length against relevance -------------------------------------------------------------------------------------------


def test_probe_knows_length_from_relevance(static: Relevance) -> None:
    answers = ["Dogs run.", "Taxes are due in April of every year, and late payment costs interest.", *ANSWERS[2:]]
    length = length_relevance_probe(WhiteBox(None, repetition=None), PROMPTS, answers)
    assert length.accuracy.estimate == 0.0
    assert length.pairs == 3
    relevance = length_relevance_probe(WhiteBox(static, length=None, repetition=None, branching=False), PROMPTS, answers)
    assert relevance.accuracy.estimate == 1.0
    columns = {"qtype": ["CONSTRAINED"] * 4, "reference": answers}
    assert length_relevance_probe(WhiteBox(static), PROMPTS, answers, columns=columns).accuracy.estimate == 1.0
    with pytest.raises(InputError, match="lower `ratio`"):
        length_relevance_probe(WhiteBox(None), PROMPTS, ["same size"] * 4)


def test_contradicted_votes(static: Relevance) -> None:
    rows = [
        {"prompt": p, "response_a": a, "response_b": b, "vote": v}
        for p, a, b, v in zip(PROMPTS, ANSWERS, ANSWERS[1:] + ANSWERS[:1], ["a", "b", "a", "tie"], strict=True)
    ]
    found = contradictions(read(rows, heldout=0), static)
    assert found.rows.tolist() == [1]
    assert np.isnan(found.margin[3])
    assert found.margin[1] < -0.2 < 0.2 < found.margin[0]
    with pytest.raises(InputError, match="above 0"):
        contradictions(read(rows, heldout=0), static, at_least=0)


# ---- bad input and options -------------------------------------------------------------------------------------------------------------


def test_missing_reference_names_the_row_or_is_open(static: Relevance) -> None:
    kinds, references = ["OPENENDED", "CONSTRAINED"], [None, None]
    with pytest.raises(InputError, match=r"1 of 1 .*row 1"):
        WhiteBox(static).score(PROMPTS[:2], ANSWERS[:2], kinds, references)
    lenient = WhiteBox(static, on_missing="open")
    with pytest.warns(AnnotationWarning, match="no reference"):
        found = lenient.parts(PROMPTS[:2], ANSWERS[:2], kinds, references)
    assert not found.constrained.any()


def test_types_are_never_guessed(static: Relevance) -> None:
    with pytest.raises(InputError, match="not guessed"):
        WhiteBox(static).score(PROMPTS, ANSWERS)
    with pytest.raises(InputError, match=r"1 of 4 question types .*row 2, 'maybe'"):
        WhiteBox(static).score(PROMPTS, ANSWERS, ["OPENENDED", "openended", "maybe", "OPENENDED"])
    asked = WhiteBox(static, classify=lambda prompt: "CONSTRAINED" if "taxes" in prompt else "OPENENDED")
    assert asked.parts(PROMPTS, ANSWERS, reference=ANSWERS).constrained.tolist() == [False, True, False, False]
    known = WhiteBox(static, known={prompt: ("CONSTRAINED", answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)})
    assert known.score(PROMPTS, ANSWERS) == pytest.approx(5.12, abs=1e-5)
    with pytest.raises(InputError, match="not in `known`"):
        known.score(["Who?"], ["I."])


def test_empty_and_wrong_values(static: Relevance) -> None:
    reward = WhiteBox(static, branching=False)
    with pytest.warns(AnnotationWarning, match=r"2 of 3 responses are empty.*row 1"):
        found = reward.parts(PROMPTS[:3], [ANSWERS[0], "", "\n\n--\nsignature"])
    assert (found.score[1:] == 0).all()
    assert (found.length[1:] == 0).all()
    assert (found.repetition[1:] == 1).all()
    with pytest.raises(InputError, match=r"response of row 1 is no text but int"):
        reward.score(PROMPTS[:2], ["x", 3])
    with pytest.raises(InputError, match="2 prompts for 1"):
        reward.score(PROMPTS[:2], ["x"])
    with pytest.raises(InputError, match="max_tokens"):
        WhiteBox(static, max_tokens=0)


def test_negative_relevance_does_not_reward_brevity_unless_kept() -> None:
    short, long = "no", "no no, never at all, whatever you ask"
    encoder = Planted({"q": [1.0, 0.0], short: [-0.5, 0.0], long: [-0.5, 0.0]})
    relevance = Relevance(encoder, (0.0, 1.0))
    clamped = WhiteBox(relevance, branching=False).parts(["q", "q"], [short, long])
    assert clamped.score.tolist() == [0.0, 0.0]
    assert clamped.clamped.all()
    kept = WhiteBox(relevance, branching=False, negative="keep").score(["q", "q"], [short, long])
    assert kept[0] > kept[1]
    with pytest.raises(InputError, match="2 of 2 relevances are negative"):
        WhiteBox(relevance, branching=False, negative="refuse").score(["q", "q"], [short, long])


def test_scale_of_an_encoder() -> None:
    encoder = Planted({"How long is this vector?": [3.0, 4.0], "a": [2.0, 0.0], "b": [0.0, 1.0], "c": [0.0, 2.0]})
    with pytest.raises(InputError, match="not normalised"):
        Relevance(encoder)
    found = Relevance.calibrated(encoder, ["a", "b", "c"])
    assert found.high == 4.0
    assert WhiteBox(found).score(["q"], ["a"], ["CONSTRAINED"], ["a"])[0] == pytest.approx(5.12)
    pair = Planted({"p": [1.0, 0.0], "q": [0.0, 1.0], "a": [1.0, 0.5], "b": [0.25, 1.0]})
    floored = Relevance.calibrated(pair, ["a", "b"], prompts=["p", "q"])
    assert (floored.low, floored.high) == (pytest.approx(0.375), pytest.approx((1.25 + 1.0625) / 2))
    parts = WhiteBox(floored, branching=False).parts(["p", "p"], ["a", "b"])
    assert parts.score == pytest.approx([0.01 * (1 - 0.375), 0.0])  # b lies below the floor
    assert parts.clamped.tolist() == [False, True]
    with pytest.raises(InputError, match="two at least"):
        Relevance.calibrated(pair, ["a"], prompts=["p"])
    with pytest.raises(InputError, match="low < high"):
        Relevance(encoder, (1.0, 1.0))
    assert Relevance("static").high == 1.0


def test_tokenizers_and_caps() -> None:
    assert LengthIncentive()(["猫が好きです"]).tolist() == [0.06]
    assert LengthIncentive(tokenizer=str.split)(["can't stop"]).tolist() == [0.02]
    assert LengthIncentive(most=3)(["a b c d e"]).tolist() == [0.03]
    assert RepetitionPenalty()(["猫猫猫猫猫猫"]).tolist() == [0.25]


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=40))
def test_tokens_of_spaced_scripts_are_those_of_the_published_pattern(text: str) -> None:
    import re

    assert tokens_of(text) == re.findall(r"\w+|[^\w\s]+", text)


def test_as_a_reward_function_of_a_trainer(static: Relevance) -> None:
    """TRL calls it with keyword columns and, for chats, lists of messages; what it does not know it ignores."""
    reward: Any = WhiteBox(static)
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    said = [[{"role": "assistant", "content": answer}] for answer in ANSWERS]
    kinds = ["OPENENDED"] * 4
    found = reward(prompts=chats, completions=said, completion_ids=[[1]] * 4, qtype=kinds, reference=[None] * 4, trainer_state=None)
    assert found == reward.score(PROMPTS, ANSWERS, kinds).tolist()
    assert all(type(value) is float for value in found)
    assert reward.__name__ == "whitebox"


def test_parts_are_always_there(static: Relevance) -> None:
    found = WhiteBox(static).parts(PROMPTS, ANSWERS, ["CONSTRAINED", "OPENENDED"] * 2, ANSWERS)
    table = found.table()
    assert table.num_rows == len(found) == 4
    assert {"score", "length", "repetition", "query_relevance", "reference_relevance", "constrained", "empty", "clamped"} == set(
        table.column_names
    )
    rows = ~found.constrained
    assert found.score[rows] == pytest.approx((found.length * found.repetition * found.query_relevance)[rows])
