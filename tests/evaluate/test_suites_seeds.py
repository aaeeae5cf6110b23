"""Runs of several training seeds in suites: means over seeds, intervals that hold what seeds add, pairing seed by seed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import stdtrit

from cupel.errors import InputError
from cupel.evaluate.crossed import added_by_seeds
from cupel.evaluate.named import named_runs
from cupel.evaluate.suites import get_suite, read_suite
from cupel.evaluate.suites.items import score_requests
from cupel.evaluate.suites.scores import evaluate_suite, write_requests
from cupel.evaluate.suites.summary import summarise

SUBSETS = ("a", "b", "c")


def rows(prompts: int, subsets=SUBSETS) -> list[dict[str, str]]:
    return [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no", "subset": subsets[i % len(subsets)]} for i in range(prompts)]


def scores(right: np.ndarray, asked) -> np.ndarray:
    """Scores [seeds, requests] under which item i is right where right[seed, i]."""
    out = np.zeros((len(right), len(asked)))
    for i, (yes, no) in enumerate(zip(asked.right, asked.wrong, strict=True)):
        out[:, yes[0]], out[:, no[0]] = right[:, i], 1 - right[:, i]
    return out


def drawn(rng: np.random.Generator, prompts: int, seeds: int, skill: float, base: np.ndarray | None = None) -> np.ndarray:
    """Right or wrong [seeds, prompts]: prompts have a difficulty (shared by runs), seeds a skill, and one in each subset."""
    difficulty = rng.normal(0, 1, prompts) if base is None else base
    own = rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.4, (seeds, len(SUBSETS)))[:, np.arange(prompts) % len(SUBSETS)]
    return (rng.random((seeds, prompts)) < 1 / (1 + np.exp(-(skill + own - difficulty)))).astype(float)


def test_one_seed_is_the_run_itself() -> None:
    data = rows(60)
    asked = score_requests(read_suite("pairs-by-subset", data))
    rng = np.random.default_rng(0)
    one, two = rng.random((2, len(asked)))
    plain = evaluate_suite("pairs-by-subset", data, {"one": one, "two": two}, draws=200)[0].to_json()
    listed = evaluate_suite("pairs-by-subset", data, {"one": [one], "two": two[None]}, draws=200)[0].to_json()
    assert json.dumps(listed) == json.dumps(plain)
    assert plain["training_seeds"] == {"one": 1, "two": 1}
    # the same seed five times: nothing is added, nothing is averaged away
    same = evaluate_suite("pairs-by-subset", data, {"one": [one] * 5, "two": [two] * 5}, draws=200)[0].to_json()
    assert json.dumps(same["rows"]) == json.dumps(plain["rows"])
    assert same["training_seeds"] == {"one": 5, "two": 5}


def test_tables_show_the_mean_over_seeds() -> None:
    data = rows(90)
    items = read_suite("pairs-by-subset", data)
    asked = score_requests(items)
    right = drawn(np.random.default_rng(1), 90, 4, 0.5)
    found = evaluate_suite("pairs-by-subset", data, {"run": scores(right, asked)}, draws=200)[0]
    assert found.rows[0].accuracy["run"].estimate == pytest.approx(right.mean())
    for k, name in enumerate(SUBSETS):
        assert found.row(name).accuracy["run"].estimate == pytest.approx(right[:, k::3].mean())
    single = [evaluate_suite("pairs-by-subset", data, {"run": one}, draws=50)[0] for one in scores(right, asked)]
    assert found.rows[0].accuracy["run"].estimate == pytest.approx(np.mean([one.rows[0].accuracy["run"].estimate for one in single]))
    assert found.tied["run"] == 0


def slow_interval(one: np.ndarray, two: np.ndarray | None) -> tuple[float, float]:
    """Two-way analysis of variance within subsets, item by item: right or wrong [seeds, prompts] of a run, minus those of another."""
    tables = [one] if two is None else [one - two] if len(one) == len(two) else [one, -two]
    over = sum(table.mean(axis=0) for table in tables)
    n = one.shape[1]
    between = sum(sum((over[i] - over[k::3].mean()) ** 2 for i in range(k, n, 3)) * (n / 3) / (n / 3 - 1) for k in range(3)) / n**2
    total, error = between, between**2 / (n - 3)
    for table in tables:
        seeds = len(table)
        means = np.array([row.mean() for row in table])
        noise = 0.0
        for k in range(3):
            part = table[:, k::3]
            rest = sum(
                (part[s, g] - part[s].mean() - part[:, g].mean() + part.mean()) ** 2 for s in range(seeds) for g in range(part.shape[1])
            )
            noise += rest / ((part.shape[1] - 1) * (seeds - 1)) * part.shape[1]
        carried = means.var(ddof=1) / seeds
        total += max(0.0, carried - noise / n**2 / seeds)
        error += carried**2 / (seeds - 1)
    half = np.sqrt(total) * stdtrit(total**2 / error, 0.975)
    middle = float(over.mean())
    return middle - half, middle + half


def test_the_interval_is_that_of_a_slow_analysis_of_variance() -> None:
    """Up to the draws; levels, paired differences, and unpaired ones of runs with different numbers of seeds."""
    data = rows(150)
    asked = score_requests(read_suite("pairs-by-subset", data))
    rng = np.random.default_rng(2)
    difficulty = rng.normal(0, 1, 150)
    runs = {name: drawn(rng, 150, seeds, skill, difficulty) for name, seeds, skill in (("a", 5, 0.4), ("b", 5, 0.8), ("c", 3, 0.6))}
    found = evaluate_suite("pairs-by-subset", data, {k: scores(right, asked) for k, right in runs.items()}, draws=4000)[0].rows[0]
    pairs = [
        *((runs[k], None, share) for k, share in found.accuracy.items()),
        *((runs[k], runs["a"], s) for k, s in found.difference.items()),
    ]
    for one, two, share in pairs:
        low, high = slow_interval(one, two)
        assert (share.low, share.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
        assert high - low > 0.08


def test_a_whole_subset_that_a_seed_moves_is_the_seeds_doing() -> None:
    """Seeds that are good at one subset and bad at the other: that is what another seed may do, not noise of prompts."""
    cells = np.random.default_rng(0).normal(size=(60, 4))
    stratum = np.arange(60) % 2
    moved = cells + np.array([2.0, -2, 2, -2]) * np.where(stratum, 1.2, -0.8)[:, None]
    assert added_by_seeds(cells, np.zeros(60)) == pytest.approx(added_by_seeds(cells), abs=1e-15)
    assert added_by_seeds(moved, stratum) > added_by_seeds(moved) + 0.02


def test_what_a_seed_does_to_both_runs_cancels() -> None:
    data = rows(120)
    asked = score_requests(read_suite("pairs-by-subset", data))
    rng = np.random.default_rng(3)
    right = (rng.random((4, 120)) < np.array([0.3, 0.5, 0.7, 0.9])[:, None]).astype(float)  # seeds differ much
    better = right.copy()
    better[:, ::10] = 1.0
    paired = evaluate_suite("pairs-by-subset", data, {"a": scores(right, asked), "b": scores(better, asked)}, draws=500)[0].rows[0]
    apart = evaluate_suite("pairs-by-subset", data, {"a": scores(right, asked), "b": scores(better[:3], asked)}, draws=500)[0].rows[0]
    assert paired.difference["b"].low > 0
    width = [one.difference["b"].high - one.difference["b"].low for one in (paired, apart)]
    assert width[0] < 0.3 * width[1]
    assert paired.accuracy["a"].high - paired.accuracy["a"].low > 0.4  # four seeds from .3 to .9


def test_seeds_that_differ_where_prompts_do_not() -> None:
    """One seed has every prompt right, the other none: one half, and no idea of it."""
    data = rows(30)
    asked = score_requests(read_suite("pairs-by-subset", data))
    share = (
        evaluate_suite("pairs-by-subset", data, {"a": scores(np.array([[1.0] * 30, [0.0] * 30]), asked)}, draws=100)[0]
        .rows[0]
        .accuracy["a"]
    )
    assert (share.estimate, share.low, share.high) == (0.5, 0.0, 1.0)


def test_intervals_over_prompts_and_seeds_cover() -> None:
    """New prompts and new seeds: the level of a run and a difference of two. Taking five seeds for one covers far less."""
    suite, repeats, prompts, seeds = get_suite("pairs-by-subset"), 40, 60, 5
    items = read_suite("pairs-by-subset", rows(prompts))
    asked = score_requests(items)
    skill = np.random.default_rng(4).normal(size=400_000) * np.sqrt(1 + 0.3**2 + 0.4**2)
    truth = [float(np.mean(1 / (1 + np.exp(-(own + skill))))) for own in (0.3, 0.6)]
    level = gap = naive = 0
    for repeat in range(repeats):
        rng = np.random.default_rng([5, repeat])
        difficulty = rng.normal(0, 1, prompts)
        one, two = (drawn(rng, prompts, seeds, own, difficulty) for own in (0.3, 0.6))
        found = summarise(suite, items, asked, {"a": scores(one, asked), "b": scores(two, asked)}, seed=repeat, draws=200).rows[0]
        level += found.accuracy["a"].low <= truth[0] <= found.accuracy["a"].high
        share, over = found.difference["b"], (two - one).mean(axis=0)
        gap += share.low <= truth[1] - truth[0] <= share.high
        naive += abs(over.mean() - truth[1] + truth[0]) <= 2 * over.std(ddof=1) / np.sqrt(prompts)
    assert min(level, gap) >= 34  # 95 % of 40 is 38, three standard errors less is 34
    assert naive < gap - 5


def test_words_say_how_many() -> None:
    data = rows(30)
    asked = score_requests(read_suite("pairs-by-subset", data))
    right = drawn(np.random.default_rng(6), 30, 3, 0.5)
    result = evaluate_suite("pairs-by-subset", data, {"a": scores(right, asked), "b": scores(right, asked)[0]}, draws=100)[0]
    assert "a: the mean over 3 training seeds." in result.lines()
    assert not any(line.startswith("b: the mean") for line in result.lines())


def test_requests_hold_a_column_for_each_seed(tmp_path) -> None:
    import pyarrow.parquet as pq

    data = rows(4)
    _, asked, found = evaluate_suite("pairs-by-subset", data, {"a": [np.zeros(8), np.ones(8)], "b": np.zeros(8)}, draws=10)
    write_requests(tmp_path / "requests.parquet", asked, found)
    assert pq.read_table(tmp_path / "requests.parquet").column_names[3:] == ["score_a[1]", "score_a[2]", "score_b"]


@pytest.mark.parametrize(
    ("several", "said"),
    [
        ([], "no model, file or array"), ([np.zeros(8), np.zeros(7)], r"1 of 2 training seeds.*first: seed 2 of shape \(7,\)"),
        (np.zeros((2, 7)), "8 scores are needed"), (np.zeros((0, 8)), "8 scores are needed"),
        ([np.zeros(8), np.full(8, np.nan)], "8 of 16 scores are not finite"),
    ],
)  # fmt: skip
def test_bad_seeds_are_refused(several, said) -> None:
    with pytest.raises(InputError, match=said):
        evaluate_suite("pairs-by-subset", rows(4), {"a": several})


def test_names_of_runs(tmp_path) -> None:
    for name in ("one/seed-0", "one/seed-1/model", "two", "odd=a,b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "one" / "notes").mkdir()
    (tmp_path / "empty").mkdir()
    place = {name: tmp_path / name for name in ("one", "two", "odd=a,b", "empty")}
    assert named_runs([place["one"], place["two"]]) == {
        "one": [place["one"] / "seed-0", place["one"] / "seed-1" / "model"],
        "two": [place["two"]],
    }
    assert named_runs([place["odd=a,b"]]) == {"odd=a,b": [place["odd=a,b"]]}
    assert named_runs([place["empty"]]) == {"empty": [place["empty"]]}  # whoever loads it says that it holds no model
    both = named_runs([f"all={place['one']},{place['two']}", f"two={place['two']}"])
    assert [len(paths) for paths in both.values()] == [3, 1]
    assert list(named_runs(["a/m", "b/m", "n=c/m"])) == ["a/m", "b/m", "n"]
    for wrong, said in (
        (["a", "a"], "named twice"),
        (["n=a,a"], "n holds a twice"),
        (["n="], "leaves a path out"),
        (["n=a,,b"], "leaves a path"),
    ):
        with pytest.raises(InputError, match=said):
            named_runs(wrong)
