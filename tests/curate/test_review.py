"""The blind sheet, its way back, and what a spreadsheet or a person may do to it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cupel
from cupel.curate.cells import FORMULA, guard, unguard
from cupel.curate.review import KEY_NAME, read_reviewed, review_sheet
from cupel.errors import InputError
from cupel.records.schema import HELDOUT


@pytest.fixture
def votes():
    rows = [{"prompt": f"q{i}", "response_a": f"=cmd|{i}", "response_b": f'@b{i}, "x"\nline', "vote": "ab"[i % 2]} for i in range(400)]
    return cupel.read(rows, seed=3)


@pytest.fixture
def suspicion(votes):
    return np.random.default_rng(1).normal(size=len(votes))


def filled(path, answer):
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["answer"] = answer(row)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_sheet_is_blind_and_has_its_parts(votes, suspicion, tmp_path):
    apart = np.flatnonzero(votes.split == HELDOUT)
    sheet = review_sheet(votes, suspicion, n=100, seed=5, disagreement=apart)
    assert sheet.parts == {"random": 53, "worklist": 27, "disagreement": 20}
    path = sheet.to_csv(tmp_path / "review.csv")
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["sheet_id", "prompt", "left", "right", "answer", "note"]
    assert len({row["sheet_id"] for row in rows}) == 100
    ids = set(votes.ids.to_pylist())
    assert not ids & {cell for row in rows for cell in row.values()}
    assert not any(cell.startswith(FORMULA) for row in rows for cell in row.values())
    key = json.loads((tmp_path / KEY_NAME).read_text())
    assert set(key["rows"][rows[0]["sheet_id"]]) == {"id", "part", "stratum", "left"}  # no recorded vote
    left = [entry["left"] for entry in key["rows"].values()]
    assert 25 < left.count("first") < 75


def test_random_part_covers_the_strata_and_no_heldout_row_but_the_disagreements(votes, suspicion):
    sheet = review_sheet(votes, suspicion, n=90, seed=0)
    entries = sheet.key["rows"].values()
    where = {name: i for i, name in enumerate(votes.ids.to_pylist())}
    random = [entry for entry in entries if entry["part"] == "random"]
    assert np.bincount([entry["stratum"] for entry in random]).tolist() == [10] * 6
    assert all(votes.split[where[entry["id"]]] == 0 for entry in entries)
    worst = suspicion[[where[e["id"]] for e in entries if e["part"] == "worklist"]].min()
    shown = {where[e["id"]] for e in entries}
    rest = [i for i in range(len(votes)) if i not in shown and votes.split[i] == 0]
    assert suspicion[rest].max() <= worst


def test_same_seed_same_bytes_other_seed_other_sheet(votes, suspicion, tmp_path):
    one = review_sheet(votes, suspicion, seed=1).to_csv(tmp_path / "1" / "r.csv")
    two = review_sheet(votes, suspicion, seed=1).to_csv(tmp_path / "2" / "r.csv")
    three = review_sheet(votes, suspicion, seed=2).to_csv(tmp_path / "3" / "r.csv")
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()


def test_a_truthful_person_maps_back_to_the_recorded_sides(votes, suspicion, tmp_path):
    path = review_sheet(votes, suspicion, n=60, seed=2).to_csv(tmp_path / "review.csv")
    # the person prefers the side that starts with the guarded "@": response_b, whatever side it is shown on
    filled(path, lambda row: "left" if unguard(row["left"]).startswith("@") else "RIGHT ")
    answers = read_reviewed(path)
    assert set(answers.outcome) == {"b"}
    agrees = answers.agrees(votes)
    rows = answers.rows(votes)
    assert np.array_equal(agrees == 1, votes.sign[rows] == -1)
    assert answers.blank == answers.unsure == 0
    assert answers.sizes.sum() == (votes.split == 0).sum()


def test_blank_and_unsure_are_counted_not_guessed(votes, suspicion, tmp_path):
    path = review_sheet(votes, suspicion, n=30, seed=2).to_csv(tmp_path / "review.csv")
    given_answers = iter(["", "unsure", "tie", *["left"] * 27])
    filled(path, lambda row: next(given_answers))
    answers = read_reviewed(path)
    assert (answers.blank, answers.unsure) == (1, 1)
    assert np.isnan(answers.agrees(votes)).sum() == 2
    assert answers.to_json()["answered"] == 28
    assert answers.signs()[2] == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("left", "links"), "none of left, right, tie, unsure"),
        (lambda text: text.replace("\np", "\nq", 1), "is not in the key"),
        (lambda text: text + text.split("\n", 1)[1], "stands there twice"),
        (lambda text: text.replace("answer", "antwort"), "no column answer"),
        (lambda text: text.replace("left\n", "\n"), "is answered"),
        (lambda text: "", "holds no rows"),
    ],
)
def test_damaged_sheets_are_refused_with_their_reason(tmp_path, damage, message):
    rows = [{"prompt": f"q{i}", "response_a": f"x{i}", "response_b": f"y{i}", "vote": "a"} for i in range(50)]
    votes = cupel.read(rows)
    sheet = review_sheet(votes, np.arange(50.0), n=10)
    text = "sheet_id,answer\n" + "".join(f"{row['sheet_id']},left\n" for row in sheet.rows)
    path = tmp_path / "review.csv"
    path.write_text(damage(text))
    with pytest.raises(InputError, match=message):
        read_reviewed(path, sheet.key)


def test_missing_key_says_which_file(tmp_path):
    path = tmp_path / "review.csv"
    path.write_text("sheet_id,answer\np1,left\n")
    with pytest.raises(InputError, match=KEY_NAME):
        read_reviewed(path)


def test_answers_for_other_data_are_refused(votes, suspicion, tmp_path):
    path = review_sheet(votes, suspicion, n=10).to_csv(tmp_path / "review.csv")
    filled(path, lambda row: "left")
    with pytest.raises(InputError, match="not in the data"):
        read_reviewed(path).agrees(votes.take(np.arange(3)))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_plain_files_need_a_part(votes, tmp_path, form):
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = votes.ids.to_pylist()[:4]
    rows = [{"id": name, "label": label, "part": "random"} for name, label in zip(ids, ["a", "b", "tie", "a"], strict=True)]
    path = tmp_path / f"trusted.{form}"

    def write(table):
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(table), path)
        elif form == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
        else:
            path.write_text(",".join(table[0]) + "\n" + "".join(",".join(row.values()) + "\n" for row in table))

    write(rows)
    answers = read_reviewed(path)
    assert answers.outcome == ("a", "b", "tie", "a")
    assert set(answers.stratum.tolist()) == {0}
    write([{k: v for k, v in row.items() if k != "part"} for row in rows])
    with pytest.raises(InputError, match="part says how the rows were chosen"):
        read_reviewed(path)


@given(st.text(alphabet="'= +-@\ta\n\r", max_size=8) | st.text(max_size=20))
def test_guard_is_inert_and_has_an_inverse(text):
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(FORMULA)


def test_nothing_to_check_and_heldout_positions(votes, suspicion):
    with pytest.raises(InputError, match="nothing can be checked"):
        review_sheet(votes.heldout, suspicion[votes.split == HELDOUT])
    with pytest.raises(InputError, match="held-out rows"):
        review_sheet(votes, suspicion, disagreement=np.flatnonzero(votes.split == 0)[:3])
