"""Preference models from votes to folders and back: any model that is found, under plain training, EM and the unbiased target."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import cupel
from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins, scores
from cupel.learners.heads.options import HeadOptions
from cupel.learners.heads.preference import PreferenceReward
from cupel.learners.heads.train import train_head
from cupel.learners.models.names import available, build, reads_of, settings_of
from cupel.learners.models.types import PreferenceModel, Shape
from cupel.learners.reward import load_reward
from cupel.noise.names import parse as parse_treatment
from cupel.objectives.reward import bradley_terry

GOOD, BAD = ["because", "therefore", "evidence", "shows", "reason", "study"], ["lol", "whatever", "stupid", "idk", "nope", "meh"]
FILL = ["the", "city", "should", "build", "more", "parks", "and", "roads", "for", "people", "who", "walk"]
MODELS = sorted(available())
WIDTH, SIDES, N = 6, 60, 400


def data(seed=0):
    """Comparisons whose first coordinate decides for everybody, beside prompts, people and contexts that a model may look at."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SIDES, WIDTH)).astype(np.float32)
    x[:, 1] = 1 + 0.01 * x[:, 1]  # a form of two vectors holds a scalar only beside a constant
    first = rng.integers(0, SIDES, N)
    second = (first + rng.integers(1, SIDES, N)) % SIDES
    first, second = np.where(x[first, 0] > x[second, 0], (first, second), (second, first))
    return x, Comparisons.of(
        first, second, annotator=rng.integers(0, 5, N), annotators=tuple("abcde"), group=rng.integers(0, 20, N),
        prompt=rng.integers(0, 20, N), prompts=rng.normal(size=(20, WIDTH)), context=rng.integers(0, 3, N),
        contexts=rng.normal(size=(3, WIDTH)), columns=tuple(f"column {k}" for k in range(WIDTH)),
    )  # fmt: skip


def run(name, treatment, epochs=15, seed=0):
    x, table = data()
    options = HeadOptions(head=name, epochs=epochs, batch_size=100, learning_rate=0.06, l2=1e-4, seed=seed, heldout=0.0)
    return x, table, fit(x, table, bradley_terry(), parse_treatment(treatment), options)


@pytest.mark.parametrize("treatment", ["identity", "em:flip=0.1,by=annotator", "unbiased:flip=0.1"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_under_every_treatment_unchanged(name, treatment):
    x, table, found = run(name, treatment)
    margin = margins(found.models, x, table)[0]
    assert np.isfinite(margin).all()
    assert (margin > 0).mean() > 0.85
    swapped = Comparisons.of(
        table.second, table.first, annotator=table.annotator, annotators=table.annotators, prompt=table.prompt, prompts=table.prompts,
        context=table.context, contexts=table.contexts,
    )  # fmt: skip
    np.testing.assert_allclose(margins(found.models, x, swapped)[0], -margin, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_flip_of_the_label_is_a_swap_of_the_sides(name):
    """keep of (i, j) is flip of (j, i), which is all that a treatment needs."""
    from cupel.learners.heads.margins import Reader, shape_of

    x, table = data()
    model = build(name, shape_of(x, table), 0)
    given = Reader(table, model)(np.arange(50))
    z = model.represent(torch.from_numpy(x))
    first, second = model.sides(z[table.first[:50]], z[table.second[:50]], given)
    again = model.sides(z[table.second[:50]], z[table.first[:50]], given)
    loss = bradley_terry().loss
    torch.testing.assert_close(loss(second, first, {}), loss(*again, {}))
    assert {"score", *model.gives} <= {"score", "embedding", "gate"}
    assert first.score is not None


@pytest.mark.parametrize("name", MODELS)
def test_margins_do_not_depend_on_what_else_is_compared(name):
    x, table, found = run(name, "identity", epochs=2)
    whole = margins(found.models, x, table)[0]
    for rows in (np.array([7]), np.array([3, 7, 399])):
        np.testing.assert_allclose(margins(found.models, x, table.take(rows))[0], whole[rows], atol=1e-12)
    if type(found.models[0]).score is not PreferenceModel.score:
        one, two = (scores(found.models, x, table, side)[0] for side in (table.first, table.second))
        np.testing.assert_allclose(one - two, whole, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_alone_decides(name):
    first, again, other = (run(name, "identity", epochs=1, seed=seed)[2].weights[0] for seed in (0, 0, 1))
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_explanations_are_json_with_tables_of_equal_columns(name):
    found = run(name, "identity", epochs=2)[2].models[0].explain(tuple("abcde"), ("x", "y", "z")).recorded()
    json.dumps(found, allow_nan=False)
    for table in found["tables"].values():
        assert len({len(column) for column in table.values()}) == 1


def rows(n=160, seed=0):
    rng = np.random.default_rng(seed)

    def text(quality):
        return " ".join(rng.permutation([*rng.choice(FILL, 6), *(rng.choice(GOOD if rng.random() < quality else BAD) for _ in range(5))]))

    out = []
    for k in range(n):
        a, b = rng.permutation([0.3 * rng.random(), 1 - 0.3 * rng.random()]).tolist()
        context = ["serious", "playful", None][k % 3]
        vote = "a" if (a > b) != (context == "playful") else "b"
        found = {"prompt": f"topic {k // 4}", "response_a": text(a), "response_b": text(b), "vote": vote, "annotator": "xyz"[k % 3]}
        out.append({**found, "context": context, "extra": json.dumps({"good_a": a, "good_b": b, "late_a": k % 3, "late_b": k % 2})})
    return out


@pytest.fixture(scope="module")
def votes():
    return cupel.read(rows(), seed=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "scalar"])
def test_folders_give_the_same_margins_back(name, votes, cache, tmp_path):
    found = train_head(votes, HeadOptions(head=name, epochs=2, batch_size=32, members=2), cache=cache)
    assert isinstance(found.model, PreferenceReward)
    found.save(tmp_path / "a")
    found.save(tmp_path / "b")
    for file in ("model.safetensors", "config.json", "explanation.json", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    again = load_reward(tmp_path / "a", cache=cache)
    np.testing.assert_array_equal(again.margins(votes), found.model.margins(votes))
    np.testing.assert_allclose(load_reward(tmp_path / "a" / "member-1", cache=cache).margin(votes), found.model.margins(votes)[1])
    assert again.explain().recorded() == found.model.explain().recorded()
    texts = [votes.response_texts()[k] for k in range(4)]
    if again.known.features:
        with pytest.raises(InputError, match="texts alone have none"):
            again.matrix("topic 1", texts)
        return
    matrix = again.matrix("topic 1", texts)
    np.testing.assert_allclose(matrix, -matrix.T, atol=1e-12)
    if again.scores(votes) is None:
        with pytest.raises(InputError, match="no score"):
            again.score(["topic 1"] * 4, texts)
    else:
        one = again.score(["topic 1"] * 4, texts)
        np.testing.assert_allclose(one[:, None] - one[None], matrix, atol=1e-9)
        first, second = again.scores(votes)
        np.testing.assert_allclose(first - second, again.margin(votes), atol=1e-9)


def test_named_columns_take_the_place_of_embeddings(votes, cache, tmp_path):
    for head in ("scalar", "person_vectors"):
        found = train_head(votes, HeadOptions(head=head, features="late/good", epochs=30, learning_rate=0.1), cache=cache)
        assert found.model.models[0].shape.names == ("late", "good")
        again = load_reward(found.save(tmp_path / head), cache=cache)
        np.testing.assert_array_equal(again.margin(votes), found.model.margin(votes))
        serious = np.array([value != "playful" for value in votes.source["context"].to_pylist()])
        assert ((again.margin(votes) * votes.sign)[serious] > 0).mean() > 0.6
    with pytest.raises(InputError, match="no numeric column"):
        train_head(votes, HeadOptions(features="god"), cache=cache)


def test_score_writes_margins_of_the_rows_own_people_and_contexts(votes, cache, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    from cupel.tasks import score_file

    monkeypatch.setenv("CUPEL_CACHE", str(cache))
    source = tmp_path / "votes.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    name = "context" if "context" in MODELS else "scalar"
    train_head(votes, HeadOptions(head=name, epochs=2), cache=cache).save(tmp_path / "model")
    score_file(tmp_path / "model", str(source), tmp_path / "scored.parquet")
    table = pq.read_table(tmp_path / "scored.parquet")
    model = load_reward(tmp_path / "model")
    np.testing.assert_allclose(np.array(table["margin"]), model.margin(cupel.read(str(source))) * cupel.read(str(source)).sign, atol=1e-9)


def test_a_folder_that_is_no_model_is_named(tmp_path, votes, cache):
    name = next(name for name in MODELS if name != "scalar")
    place = train_head(votes, HeadOptions(head=name, epochs=1), cache=cache).save(tmp_path / "m")
    config = json.loads((place / "config.json").read_text())
    for broken in ({**config, "version": 99}, {**config, "head": "nothing"}, {**config, "shape": {"width": 3}}):
        (place / "config.json").write_text(json.dumps(broken))
        with pytest.raises(InputError):
            PreferenceReward.load(place)


def test_texts_that_name_no_model_are_refused():
    with pytest.raises(InputError, match="did you mean scalar"):
        settings_of("scalarr")
    with pytest.raises(InputError, match="its arguments are hidden"):
        settings_of("scalar:hiden=3")
    with pytest.raises(InputError, match="is a number"):
        settings_of("scalar:hidden=many")
    assert reads_of("scalar:hidden=3") == frozenset()
    with pytest.raises(InputError, match="belongs to the head `scalar`"):
        HeadOptions(head=next(name for name in MODELS if name != "scalar"), hidden=3)


def test_what_a_model_reads_must_be_there():
    class Reads(PreferenceModel):
        name, reads = "reads", frozenset({"person"})

    with pytest.raises(InputError, match="reads the person"):
        Reads(Shape(width=2))
