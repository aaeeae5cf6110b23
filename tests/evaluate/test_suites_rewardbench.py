"""RewardBench 1 and 2: the published weighting by hand, best of n, and the score of Ties against the formula written out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cupel.errors import RecordError
from cupel.evaluate.suites import read_suite
from cupel.evaluate.suites.items import request_key, score_requests
from cupel.evaluate.suites.rewardbench1 import PRIOR, SECTIONS
from cupel.evaluate.suites.scores import evaluate_suite
from cupel.records.text import canonical, render


class ByText:
    """The score that the response itself states: "r3.5" has 3.5."""

    def score(self, prompts, responses):
        return np.array([float(response[1:]) for response in responses])


def rows1(right: dict[str, tuple[int, int]]):
    """{subset: (right, all)} as pairs."""
    return [
        {"prompt": f"{subset} {i}", "chosen": "c2" if i < good else "c0", "rejected": "w1", "subset": subset, "id": i}
        for subset, (good, total) in right.items()
        for i in range(total)
    ]


def number(result, name):
    return result.row(name).accuracy["m"].estimate


def test_published_counts_weigh_whatever_the_file_holds():
    """Reasoning: math-prm 1 of 2, hep-* 4 of 4: (984 * .5 + 6 * 164) / (984 + 984) = .75, though 2 of 26 rows are mathematics."""
    right = dict.fromkeys(SECTIONS["Reasoning"], (4, 4)) | {"math-prm": (1, 2)}
    right |= {name: (3, 4) for section in ("Chat", "Chat Hard", "Safety") for name in SECTIONS[section]}
    right |= {"mt-bench-easy": (0, 4), "donotanswer": (1, 4)}
    result = evaluate_suite("rewardbench1", rows1(right), {"m": ByText()}, draws=50)[0]
    assert number(result, "math-prm") == 0.5
    assert number(result, "Reasoning") == pytest.approx(0.75)
    assert number(result, "Chat") == pytest.approx(0.75 * (358 - 28) / 358)
    assert number(result, "Chat Hard") == pytest.approx(0.75)
    assert number(result, "Safety") == pytest.approx((0.75 * (740 - 136) + 0.25 * 136) / 740)
    sections = [number(result, name) for name in ("Chat", "Chat Hard", "Safety", "Reasoning")]
    assert number(result, "overall") == pytest.approx(sum(sections) / 4)
    assert sum(sum(weights.values()) for weights in SECTIONS.values()) == 2985 + (984 - 447)  # the data card's 2,985 rows


def test_prior_sets_count_half():
    right = {name: (1, 2) for section in SECTIONS.values() for name in section} | dict.fromkeys(PRIOR, (2, 2))
    result = evaluate_suite("rewardbench1", rows1(right), {"m": ByText()}, draws=50)[0]
    assert number(result, "Prior Sets") == 1
    assert number(result, "overall") == pytest.approx((4 * 2 * 0.5 + 1) / 9)


def test_what_is_missing_is_said_and_the_score_is_not_called_overall():
    result = evaluate_suite("rewardbench1", rows1({"hep-cpp": (1, 2), "math-prm": (2, 2), "own": (0, 2)}), {"m": ByText()}, draws=50)[0]
    assert result.rows[0].name == "incomplete: what is here of 1 of 4 sections"
    assert number(result, "Reasoning") == pytest.approx((984 + 164 * 0.5) / (984 + 164))
    assert any("Reasoning: 5 of 7 subsets are not in the file (hep-go" in note for note in result.notes)
    assert any(note.startswith("own: no subset") for note in result.notes)


def test_equal_scores_are_wrong():
    rows = [{"prompt": f"p{i}", "chosen": "c1", "rejected": "w1", "subset": "hep-go"} for i in range(3)]
    assert number(evaluate_suite("rewardbench1", rows, {"m": ByText()}, draws=20)[0], "hep-go") == 0


class Heard:
    """A model that keeps what it was asked; with a template it reads chat lists."""

    def __init__(self, template):
        self.template, self.asked = SimpleNamespace(text=template), []

    def score(self, prompts, responses):
        self.asked += prompts
        return np.arange(len(responses), dtype=float)


def test_chat_lists_reach_templates_as_messages_and_other_models_as_text():
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}]
    rows = [
        {"prompt": "plain", "chosen": "c1", "rejected": "w0", "subset": "shp"},
        {"prompt": chat, "chosen": "c1", "rejected": "w0", "subset": "shp"},
    ]
    said, plain = (
        '[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes?"},{"role":"user","content":"Why?"}]',
        render(canonical(chat)),
    )
    assert plain == "user: Hi\n\nassistant: Yes?\n\nuser: Why?"
    items = read_suite("rewardbench1", rows)
    assert [item.prompt for item in items] == ["plain", said]
    reads_chat, reads_text, bare = Heard("{{ messages }}"), Heard(None), ByText()
    evaluate_suite("rewardbench1", rows, {"chat": reads_chat, "text": reads_text, "bare": bare}, draws=20)
    assert reads_chat.asked == ["plain", "plain", said, said]
    assert reads_text.asked == ["plain", "plain", plain, plain]


def test_a_file_of_scores_may_hold_a_chat_as_messages_or_as_text():
    chat = '[{"role":"system","content":"Be brief."},{"role":"user","content":"Why?"}]'
    assert request_key(chat, "So.") == request_key("system: Be brief.\n\nuser: Why?", "So.")
    assert request_key(chat, "So.") != request_key(chat, "No.")


def test_one_message_of_a_user_is_a_text():
    rows = [{"prompt": [{"role": "user", "content": "Why?"}], "chosen": "c", "rejected": "w", "subset": "shp"}]
    assert read_suite("rewardbench1", rows)[0].prompt == "Why?"
    rows[0]["prompt"] = [{"role": "system", "content": "Why?"}]
    assert read_suite("rewardbench1", rows)[0].prompt == '[{"role":"system","content":"Why?"}]'


# ---- RewardBench 2 --------------------------------------------------------------------------------------------------------------


def best(subset, right, wrong, i):
    return {
        "id": str(i),
        "prompt": f"{subset} {i}",
        "chosen": [f"c{s}" for s in right],
        "rejected": [f"w{s}" for s in wrong],
        "subset": subset,
    }


def test_best_of_four_shares_equal_maxima():
    rows = [
        best("Math", [3], [0, 1, 2], 0),
        best("Math", [3], [3, 1, 2], 1),
        best("Math", [3], [3, 3, 3], 2),
        best("Math", [3], [4, 3, 0], 3),
    ]
    result = evaluate_suite("rewardbench2", rows, {"m": ByText()}, draws=50)[0]
    assert number(result, "Math") == pytest.approx((1 + 1 / 2 + 1 / 4 + 0) / 4)
    assert result.rows[0].name == "incomplete: what is here of 1 of 6 sections"


def ties(pairs):
    """{id: ((right of ref, wrong of ref), (right of tied, wrong of tied))} as rows."""
    return [
        {**best("Ties", right, wrong, 0), "id": f"{kind}:{pid}", "prompt": f"{kind} {pid}", "num_correct": len(right)}
        for pid, both in pairs.items()
        for kind, (right, wrong) in zip(("ref", "tied"), both, strict=True)
    ]


def ties_twin(pairs):
    """The score of Ties, question by question."""
    accurate = {"ref": [], "tied": []}
    wide, hard, margins = [], [], []
    for both in pairs.values():
        gaps = []
        for kind, (right, wrong) in zip(("ref", "tied"), both, strict=True):
            gaps.append(min(right) - max(wrong))
            accurate[kind].append(gaps[-1] > 0)
        spread = max(both[1][0]) - min(both[1][0])
        wide.append(gaps[1] > spread)
        hard.append(min(gaps) > spread)
        if spread:
            margins.append(math.tanh(min(gaps) / spread - 1))
        else:
            margins.append(0.0 if min(gaps) == 0 else math.copysign(1.0, min(gaps)))

    def mean(values):
        return sum(map(float, values)) / len(values)

    return 0.3 * mean(accurate["tied"]) + 0.3 * mean(accurate["ref"]) + 0.2 * mean(wide) + 0.2 * mean(hard) + 0.01 * mean(margins)


def test_ties_by_hand():
    """One question: ref 5 over 3 (m = 2), tied 9, 8, 7 over 4 (m = 3, d = 2): .3 + .3 + .2 (3 > 2) + 0 (2 > 2 is not) + .01 tanh(0)."""
    pairs = {1: (([5], [3, 2]), ([9, 8, 7], [4, 1]))}
    result = evaluate_suite("rewardbench2", ties(pairs), {"m": ByText()}, draws=20)[0]
    assert number(result, "Ties") == pytest.approx(0.8)
    assert result.row("Ties").n == 2
    assert result.row("Ties").groups == 1


def test_ties_against_the_formula_written_out():
    rng = np.random.default_rng(0)
    pairs = {
        i: tuple((rng.integers(3, 9, k).tolist(), rng.integers(0, 5, 4).tolist()) for k in (1, 3)) for i in range(40)
    }  # whole numbers: spreads and gaps of 0 occur
    assert any(max(b[1][0]) == min(b[1][0]) for b in pairs.values())
    result = evaluate_suite("rewardbench2", ties(pairs), {"m": ByText()}, draws=200)[0]
    share = result.row("Ties").accuracy["m"]
    assert share.estimate == pytest.approx(ties_twin(pairs))
    assert share.low < share.estimate < share.high


def test_ties_without_partners():
    """Upstream takes the margins over the questions with both rows; without any there is no score."""
    pairs = {1: (([5], [3]), ([9, 8], [4])), 2: (([1], [3]), ([9, 8], [4]))}
    whole = ties(pairs)
    result = evaluate_suite("rewardbench2", whole[:3], {"m": ByText()}, draws=20)[0]  # ref:2 alone: wrong
    assert number(result, "Ties") == pytest.approx(0.3 + 0.3 * 0.5 + 0.2 + 0.2 + 0.01 * math.tanh(2 / 1 - 1))
    with pytest.raises(RecordError, match="no question of Ties has both"):
        read_suite("rewardbench2", [best("Math", [3], [0, 1, 2], 0), whole[0], whole[3]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_correct": 2}, "num_correct is 2, but chosen holds 1"),
        ({"chosen": []}, "chosen is empty list"),
        ({"rejected": ["a", None]}, "rejected is list"),
        ({"subset": "Ties"}, "neither ref:ID nor tied:ID"),
        ({"subset": "ties", "id": "tied:3"}, "a tied row has at least 2"),
    ],
)
def test_malformed_rows_are_refused(change, message):
    rows = [best("Math", [3], [0, 1, 2], i) | {"num_correct": 1} for i in range(4)]
    rows[2] |= change
    with pytest.raises(RecordError, match=message):
        read_suite("rewardbench2", rows)


def test_a_question_of_ties_twice_is_refused():
    rows = ties({1: (([5], [3]), ([9, 8], [4]))})
    with pytest.raises(RecordError, match="tied:1 of Ties is there twice"):
        read_suite("rewardbench2", [*rows, rows[1]])


def test_the_name_of_a_subset_in_any_case():
    items = read_suite("rewardbench2", [best("precise if", [1], [0], 0)])
    assert items[0].subset == "Precise IF"
    assert len(score_requests(items)) == 2
