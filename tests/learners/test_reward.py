"""The reward model: reads (p, w), known truths come back, treatments do what they say, files and scores are exact."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest

import cupel
from cupel.errors import EncoderError, InputError
from cupel.learners.reward import RewardModel, train_reward
from cupel.records.corrupt import corrupt_annotators, flip_symmetric
from cupel.records.schema import HELDOUT

GOOD = ["because", "therefore", "evidence", "shows", "reason", "study", "data", "clearly", "supports"]
BAD = ["lol", "whatever", "stupid", "idk", "nope", "dumb", "ur", "gonna", "meh"]
FILL = ["the", "city", "should", "build", "more", "parks", "and", "roads", "for", "people", "who", "walk", "every", "day"]


def text(rng, quality):
    """Twelve words of which about a share `quality` is from GOOD."""
    words = [*rng.choice(FILL, 6), *(rng.choice(GOOD if rng.random() < quality else BAD) for _ in range(6))]
    return " ".join(rng.permutation(words))


def make(n=240, per_prompt=4, seed=0, votes_per_pair=1):
    """Votes whose truth (first is better) is known, and that truth."""
    rng = np.random.default_rng(seed)
    rows, truth = [], []
    for i in range(n):
        a, b = rng.random(2)
        one, two = text(rng, a), text(rng, b)
        for _ in range(votes_per_pair):
            rows.append(
                {
                    "prompt": f"topic {i // per_prompt}",
                    "response_a": one,
                    "response_b": two,
                    "vote": "a" if a > b else "b",
                    "annotator": "k",
                }
            )
            truth.append(a > b)
    return cupel.read(rows, seed=1), np.array(truth)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data():
    return make()


def accuracy(model, votes, truth):
    return float(np.mean((model.margin(votes) > 0) == truth))


def test_learns_a_known_truth_on_heldout_prompts(data, cache):
    votes, truth = data
    model = train_reward(votes.train, cache=cache)
    assert accuracy(model, votes.heldout, truth[votes.split == HELDOUT]) > 0.8
    assert model.info["ridge"] > 0
    assert model.info["converged"]


def test_same_seed_same_bytes_and_round_trip(data, cache, tmp_path):
    votes, _ = data
    for name in ("one", "two"):
        model = train_reward(votes.train, seed=3, treatment="em", cache=cache)
        model.save(tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    loaded = RewardModel.load(tmp_path / "one", cache=cache)
    assert np.array_equal(loaded.margin(votes), model.margin(votes))
    loaded.save(tmp_path / "three")
    assert (tmp_path / "three" / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()


def test_scores_do_not_depend_on_what_is_scored_with_them(data, cache):
    votes, _ = data
    model = train_reward(votes.train, cache=cache)
    prompts = [votes.prompts[int(i)].as_py() for i in votes.prompt[:60]]
    responses = [votes.responses[int(i)].as_py() for i in votes.first[:60]]
    together = model.score(prompts, responses)
    alone = np.concatenate([model.score([p], [r]) for p, r in zip(prompts, responses, strict=True)])
    assert np.array_equal(together, alone)
    second = model.score(prompts, [votes.responses[int(i)].as_py() for i in votes.second[:60]])
    assert np.array_equal(together - second, model.margin(votes)[:60])


def test_weights_of_zero_are_rows_left_out_and_p_is_what_is_learned(data, cache):
    votes, _ = data
    train = votes.train
    keep = np.arange(len(train)) % 2 == 0
    weighted = train_reward(train.with_(w=keep * 1.0), cache=cache)
    left_out = train_reward(train.take(keep), cache=cache)
    assert np.array_equal(weighted.theta, left_out.theta)
    turned = train_reward(train.with_(p=1 - train.p), cache=cache)
    assert np.allclose(turned.theta, -train_reward(train, cache=cache).theta, atol=1e-4)


def test_repeated_votes_sum_exactly(cache):
    votes, _ = make(120, votes_per_pair=3)
    once = np.arange(len(votes)) % 3 == 0
    train = votes.with_(p=np.where(np.arange(len(votes)) % 3 == 2, 1 - votes.p, votes.p))  # two of three for the truth
    share = votes.take(once).with_(p=np.where(votes.take(once).p == 1, 2 / 3, 1 / 3), w=np.full(int(once.sum()), 3.0))
    one, two = train_reward(train, cache=cache), train_reward(share, cache=cache)
    assert np.allclose(one.theta, two.theta, atol=1e-5)


def test_scaling_sees_only_the_rows_it_is_given(data, cache):
    votes, _ = data
    rows = np.flatnonzero(votes.split == 0)
    kept = votes.take(rows)  # shares the text tables with the held-out texts
    changed = votes.response_texts()
    for i in np.setdiff1d(np.arange(len(changed)), np.union1d(kept.first, kept.second)):
        changed[i] = "something else entirely " * 50
    import pyarrow as pa

    other = kept.with_(responses=pa.array(changed, kept.responses.type))
    assert np.array_equal(train_reward(kept, cache=cache).theta, train_reward(other, cache=cache).theta)


def test_permuting_heldout_labels_leaves_the_model_byte_identical(data, cache, tmp_path):
    votes, _ = data
    held = np.flatnonzero(votes.split == HELDOUT)
    outcome, p = votes.outcome.copy(), votes.p.copy()
    order = np.random.default_rng(0).permutation(held)
    outcome[held], p[held] = votes.outcome[order], votes.p[order]
    permuted = votes.with_(outcome=outcome, p=p)
    assert not np.array_equal(permuted.outcome, votes.outcome)
    for treatment in ("none", "em"):
        one = train_reward(votes.train, treatment=treatment, cache=cache).save(tmp_path / f"{treatment}1")
        two = train_reward(permuted.train, treatment=treatment, cache=cache).save(tmp_path / f"{treatment}2")
        for file in ("model.safetensors", "config.json"):
            assert (one / file).read_bytes() == (two / file).read_bytes()


def test_em_per_annotator_finds_the_bad_ones_and_helps(cache):
    votes, truth = make(700, seed=5)
    bad, _ = corrupt_annotators(votes, 10, random=0.2, adversarial=0.3, seed=2)
    held = votes.split == HELDOUT
    plain = train_reward(bad.train, cache=cache)
    robust = train_reward(bad.train, treatment="em-annotator", cache=cache)
    found = {row["annotator"]: row["reliability"] for row in robust.info["annotators"]}
    planted = bad.meta["planted_annotators"]
    assert all(found[name] < 0.4 for name in planted["adversarial"])
    assert all(0.25 < found[name] < 0.75 for name in planted["random"])
    assert all(found[name] > 0.7 for name in set(found) - set(planted["adversarial"]) - set(planted["random"]))
    assert accuracy(robust, votes.take(held), truth[held]) > accuracy(plain, votes.take(held), truth[held]) + 0.04


def test_global_em_estimates_the_flip_rate(cache):
    votes, _ = make(900, seed=6)
    rates = []
    for rate in (0.0, 0.25):
        noisy, _ = flip_symmetric(votes, rate, seed=1)
        info = train_reward(noisy, treatment="em", cache=cache).info
        assert info["em_converged"]
        rates.append(info["flip_rate"])
    assert 0.15 < rates[1] - rates[0] < 0.3


def test_em_leaves_the_targets_alone_where_there_is_little_to_correct(cache):
    votes, _ = make(600, seed=6)
    clean = train_reward(votes, treatment="em", cache=cache)
    assert clean.info["applied"] is False
    assert np.array_equal(clean.theta, train_reward(votes, cache=cache).theta)
    noisy, _ = flip_symmetric(votes, 0.35, seed=1)
    robust = train_reward(noisy, treatment="em", cache=cache)
    assert robust.info["applied"] is True
    assert not np.array_equal(robust.theta, train_reward(noisy, cache=cache).theta)


def test_refusals(data, cache, tmp_path):
    votes, _ = data
    with pytest.raises(InputError, match="no treatment 'magic'"):
        train_reward(votes, treatment="magic")
    with pytest.raises(InputError, match="needs a known flip rate"):
        train_reward(votes, treatment="unbiased")
    with pytest.raises(InputError, match="nothing to learn from"):
        train_reward(votes.with_(w=np.zeros(len(votes))))
    with pytest.raises(InputError, match="correct the noise twice"):
        train_reward(votes.with_(meta={"target": "consensus"}), treatment="em")
    with pytest.raises(InputError, match="not a reward model"):
        RewardModel.load(tmp_path)
    place = train_reward(votes.train, cache=cache).save(tmp_path / "m")
    config = json.loads((place / "config.json").read_text())
    config["encoder"]["hash"] = "0" * 64
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="train the model again"):
        RewardModel.load(place)


def test_linear_algebra_has_one_thread_while_training(data, cache, monkeypatch):
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info, threadpool_limits

    from cupel.votes import linear_head

    found = []
    real = linear_head.fit_tuned

    def watched(*args, **options):
        found.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return real(*args, **options)

    monkeypatch.setattr(linear_head, "fit_tuned", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        train_reward(data[0].train, treatment="em", cache=cache)
    assert len(found) >= 2
    assert set(found) == {1}


def test_a_full_disk_is_said_in_our_words_and_the_old_model_stays(data, cache, tmp_path, monkeypatch):
    model = train_reward(data[0].train, cache=cache)
    model.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*model\.safetensors: No space left on device\..*--out"):
        model.save(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
