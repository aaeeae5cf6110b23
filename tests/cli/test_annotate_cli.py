"""`cupel annotate`: what is written, what is refused, and that the file is read back with its new annotator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cupel.cli import run
from cupel.records import read

TOPICS = ["dogs", "taxes", "bread", "the sky", "trains", "rivers"]


def rows(n: int = 48) -> list[dict[str, Any]]:
    """Pairs of a kind and a rude answer, the kind one preferred by most people."""
    out = []
    for i in range(n):
        topic = TOPICS[i % len(TOPICS)]
        kind, rude = f"Thank you for asking about {topic}, case {i}.", f"Go away with your stupid {topic}, case {i}."
        first = i % 2 == 0
        right = i % 6 != 5
        out.append({
            "prompt": f"Tell me about {topic} ({i}).", "response_a": kind if first else rude, "response_b": rude if first else kind,
            "vote": "a" if first == right else "b", "annotator": f"p{i % 3}", "kind": "OPENENDED" if i % 4 else "CONSTRAINED",
            "truth": kind, "domain": "safety" if i % 2 else "chat",
            "s_a": [-1.0, -1.0] if first else [-2.0, -3.0], "s_b": [-2.0, -3.0] if first else [-1.0, -1.0],
            "w_a": [-2.0, -1.5], "w_b": [-2.0, -1.5],
        })  # fmt: skip
    return out


def write(path: Path, data: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in data), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "votes.jsonl", rows())


COLUMNS = ["--with", "density-ratio", "--strong", "columns:s", "--weak", "columns:w"]


def test_help_names_both_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["annotate", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("density-ratio", "relevance", "--strong", "--qtype", "--json", "--dry-run"))


def test_stored_log_probabilities(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.parquet"
    assert run(["annotate", str(file), *COLUMNS, "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["annotator"], said["n_pairs"], said["n_votes"], said["n_written"]) == ("density-ratio", 48, 48, 96)
    assert said["labels"] == {"first": 24, "second": 24, "tie": 0}
    assert said["agreement"]["estimate"] == pytest.approx(5 / 6)
    assert said["agreement"]["low"] < 5 / 6 < said["agreement"]["high"]
    assert said["calibration"] is None
    beside = json.loads((tmp_path / "new.json").read_text("utf-8"))
    assert beside == {key: value for key, value in said.items() if key != "words"}
    votes = read(out, heldout=0)
    assert len(votes) == 96
    assert "density-ratio" in votes.annotators
    new = votes.take(votes.annotator == votes.annotators.index("density-ratio"))
    assert (new.sign[::2] == 1).all()
    assert (new.sign[1::2] == -1).all()
    table = pq.read_table(out)
    assert table["annotation_margin"].to_pylist()[:48] == [None] * 48
    assert table["annotation_margin"].to_pylist()[48] == pytest.approx(0.75 + 0.75)
    assert table["truth"].to_pylist()[48] is None  # what a person's row says stays with that row
    parts = pq.read_table(tmp_path / "new.scores.parquet")
    assert parts.num_rows == 96
    assert {"prompt", "response", "strong", "weak", "total", "mean"} <= set(parts.column_names)


def test_the_same_command_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(["annotate", str(file), *COLUMNS, "--out", str(tmp_path / f"{name}.parquet"), "--quiet"]) == 0
    for suffix in (".parquet", ".json", ".scores.parquet"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_calibrated_probabilities_are_read_back(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.parquet"
    assert run(["annotate", str(file), *COLUMNS, "--out", str(out), "--calibrate", "temperature", "--only-new", "--quiet"]) == 0
    votes = read(out, heldout=0)
    assert len(votes) == 48
    assert votes.p[0] == pytest.approx(5 / 6, abs=1e-3)
    assert votes.p[1] == pytest.approx(1 / 6, abs=1e-3)
    assert json.loads((tmp_path / "new.json").read_text())["calibration"]["n"] == 48


def test_ngrams_on_pairs_without_votes(tmp_path: Path) -> None:
    bare = write(tmp_path / "pairs.jsonl", [{k: row[k] for k in ("prompt", "response_a", "response_b")} for row in rows(12)])
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("Thank you for asking.\n" * 30, "utf-8")
    bad.write_text("Go away, stupid.\n" * 30, "utf-8")
    out = tmp_path / "new.parquet"
    models = ["--strong", f"ngram:{good}", "--weak", f"bigram:{bad}"]
    assert run(["annotate", str(bare), "--with", "density-ratio", *models, "--out", str(out), "--quiet", "--name", "kindness"]) == 0
    votes = read(out, heldout=0)
    assert votes.annotators == ("kindness",)
    assert len(votes) == 12
    chosen = [votes.responses[int(a if s > 0 else b)].as_py() for a, b, s in zip(votes.first, votes.second, votes.sign, strict=True)]
    assert all(text.startswith("Thank") for text in chosen)
    assert json.loads((tmp_path / "new.json").read_text())["agreement"] is None


def test_relevance_with_types_and_references(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.parquet"
    options = ["--with", "relevance", "--qtype", "kind", "--reference", "truth", "--out", str(out), "--json"]
    assert run(["annotate", str(file), *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["constrained"] == 24  # two responses to each of twelve constrained prompts
    assert said["switches"] == dict.fromkeys(("length", "repetition", "relevance", "branching"), True)
    assert set(said["contradictions"]) == {"count", "at_least", "ids"}
    parts = pq.read_table(tmp_path / "new.scores.parquet").to_pylist()
    exact = [row for row in parts if row["constrained"] and row["response"].startswith("Thank")]
    assert len(exact) == 12
    assert all(row["score"] == pytest.approx(5.12, abs=1e-4) for row in exact)
    assert run(["annotate", str(file), "--with", "relevance", "--without", "branching", "--out", str(tmp_path / "b.parquet")]) == 0
    for scale, low in (("0.25:1", 0.25), ("measured", None)):
        out, options = tmp_path / "c.parquet", ["--with", "relevance", "--without", "branching", "--relevance-scale", scale, "--force"]
        assert run(["annotate", str(file), *options, "--out", str(out)]) == 0
        found = json.loads((tmp_path / "c.json").read_text("utf-8"))["scale"]
        assert found[1] == pytest.approx(1.0)
        assert found[0] == low if low else found[0] > 0


def test_a_dry_run_counts_and_writes_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run(["annotate", str(file), *COLUMNS, "--out", str(tmp_path / "x.parquet"), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_votes"], said["n_pairs"], said["n_responses"]) == (48, 48, 96)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_existing_file_is_kept_unless_forced(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.parquet"
    out.write_bytes(b"mine")
    assert run(["annotate", str(file), *COLUMNS, "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert run(["annotate", str(file), *COLUMNS, "--out", str(out), "--force", "--quiet"]) == 0
    assert out.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--with", "relevances"], "--with"),
        (["--with", "density-ratio", "--strong", "columns:s"], "needs two models"),
        (["--with", "relevance"], "--qtype COLUMN"),
        (["--with", "relevance", "--qtype", "kid"], "no column 'kid'"),
        (["--with", "relevance", "--qtype", "kind"], "constrained questions have no reference"),
        (["--with", "relevance", "--without", "lengths"], "the switches are"),
        (["--with", "relevance", "--without", "branching", "--relevance-scale", "top"], "LOW:HIGH"),
        (["--with", "relevance", "--without", "branching", "--strong", "m"], "--strong does not go with"),
        ([*COLUMNS, "--qtype", "kind"], "--qtype does not go with"),
        ([*COLUMNS, "--flip", "0.1"], "give --calibrate"),
        ([*COLUMNS, "--name", "p0"], "annotator 'p0' already"),
        ([*COLUMNS, "--reduce", "median"], "one of mean, sum"),
        ([*COLUMNS, "--route", "domain"], "--criteria FILE"),
        ([*COLUMNS, "--criteria", "nothing.json"], "cannot be read as JSON"),
        (["--with", "density-ratio", "--strong", "columns:s", "--weak", "columns:s"], "zero gap"),
        (["--with", "density-ratio", "--strong", "columns:zz", "--weak", "columns:w"], "no column 'zz_a'"),
        (["--with", "density-ratio", "--strong", "ngram:none.txt", "--weak", "columns:w"], "cannot be read"),
        (["--with", "relevance", "--without", "branching", "--out", "plain"], "is a Parquet file"),
    ],
)
def test_what_is_refused_says_why_and_writes_nothing(
    options: list[str], words: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in options else ["--out", str(tmp_path / "x.parquet")]
    assert run(["annotate", str(file), *options, *out]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["votes.jsonl"]


def test_two_transformers_with_criteria_by_column(file: Path, tmp_path: Path) -> None:
    """The same numbers as the objects of Python, with a template of each domain before the prompts."""
    pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from cupel.annotate.criteria import criterion
    from cupel.annotate.density_ratio import DensityRatio
    from cupel.annotate.language_models import CausalLM

    words = ["<unk>", "</s>", "Thank", "you", "Go", "away", "stupid", "Tell", "about", "safe", "Be", "."]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    for seed, name in enumerate(("strong", "weak")):
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=len(words), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    spec = {"safety": {"instruction": "Be safe."}, "chat": {"instruction": "", "exemplars": [{"prompt": "Tell", "response": "Thank you."}]}}
    (tmp_path / "criteria.json").write_text(json.dumps(spec), "utf-8")
    options = ["--strong", str(tmp_path / "strong"), "--weak", str(tmp_path / "weak"), "--criteria", str(tmp_path / "criteria.json")]
    out = tmp_path / "new.parquet"
    assert run(["annotate", str(file), "--with", "density-ratio", *options, "--route", "domain", "--out", str(out), "--quiet"]) == 0
    template = {"safety": criterion("Be safe.", chat=False), "chat": criterion("", [("Tell", "Thank you.")], chat=False)}
    domain = {row["prompt"]: row["domain"] for row in rows()}
    ratio = DensityRatio(
        CausalLM.load(tmp_path / "strong"), CausalLM.load(tmp_path / "weak"), template=template, router=lambda prompt: domain[prompt]
    )
    parts = pq.read_table(tmp_path / "new.scores.parquet").to_pylist()
    expected = ratio.score([row["prompt"] for row in parts], [row["response"] for row in parts])
    assert [row["score"] for row in parts] == pytest.approx(expected.tolist(), abs=1e-5)
    assert run(["annotate", str(file), "--with", "density-ratio", *options, "--out", str(tmp_path / "y.parquet")]) == 2  # no route
