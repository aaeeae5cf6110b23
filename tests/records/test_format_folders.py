"""Folders: what `datasets` saves to disk, hub repositories, splits side by side; broken ones are one clear error."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cupel.errors import RecordError
from cupel.records import read
from cupel.records.schema import HELDOUT, TRAIN


def rows(start, n):
    return [{"prompt": f"p{i}", "chosen": f"x{i}", "rejected": f"y{i}"} for i in range(start, start + n)]


def table(start, n):
    return pa.Table.from_pylist(rows(start, n))


def stream(path, data):
    """An Arrow stream file, as `Dataset.save_to_disk` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)


def saved(place, parts, split=None):
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for i, part in enumerate(parts):
        names.append(f"data-{i:05d}-of-{len(parts):05d}.arrow")
        stream(place / names[-1], part)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": split}))
    (place / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return place


def test_a_saved_data_set_is_read_file_by_file_and_caches_are_not(tmp_path):
    place = saved(tmp_path / "set", [table(0, 3), table(3, 2)])
    stream(place / "cache-0123456789abcdef.arrow", table(90, 5))
    votes = read(place, heldout=0)
    assert votes.prompt_texts() == [f"p{i}" for i in range(5)]
    assert votes.line.tolist() == [1, 2, 3, 4, 5]


def test_splits_of_a_saved_dictionary_are_read_together_and_named(tmp_path):
    saved(tmp_path / "train", [table(0, 4)], "train")
    saved(tmp_path / "test", [table(4, 2)], "test")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    votes = read(tmp_path, heldout=0)
    assert votes.source is not None
    assert votes.source["split"].to_pylist() == ["train"] * 4 + ["test"] * 2
    assert (votes.split == -1).all()  # a split column is not believed by itself
    assert any("--map split=split" in note for note in votes.meta["notes"])
    kept = read(tmp_path, map={"split": "split"})
    assert kept.split.tolist() == [TRAIN] * 4 + [HELDOUT] * 2
    np.testing.assert_array_equal(kept.line, np.arange(1, 7))
    one = read(tmp_path / "test", heldout=0)
    assert one.source is not None
    assert one.prompt_texts() == ["p4", "p5"]
    assert "split" not in one.source.column_names


def test_a_hub_repository_is_read_by_its_shards(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(table(0, 2), tmp_path / "data" / "train-00000-of-00002.parquet")
    pq.write_table(table(2, 2), tmp_path / "data" / "train-00001-of-00002.parquet")
    pq.write_table(table(4, 1), tmp_path / "data" / "validation-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("# A card without front matter\n")
    votes = read(tmp_path, heldout=0)
    assert votes.source is not None
    assert votes.source["split"].to_pylist() == ["train"] * 4 + ["validation"]


def test_the_readme_of_a_hub_repository_says_which_files_belong_together(tmp_path):
    for name, start in (("one", 0), ("two", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(start, 2)))
    head = "---\nlicense: cc-by-4.0\nconfigs:\n"
    entry = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/*.jsonl\n"
    (tmp_path / "README.md").write_text(head + entry.format("one") + "---\n# Card\n")
    assert read(tmp_path, heldout=0).prompt_texts() == ["p0", "p1"]
    (tmp_path / "README.md").write_text(head + entry.format("one") + entry.format("two") + "---\n")
    with pytest.raises(RecordError, match=r"holds 2 data sets \(one, two\).*one/\*.jsonl"):
        read(tmp_path)
    default = entry.format("two") + "  default: true\n"
    (tmp_path / "README.md").write_text(head + entry.format("one") + default + "---\n")
    assert read(tmp_path, heldout=0).prompt_texts() == ["p10", "p11"]
    for path in ("../secret.jsonl", "/etc/passwd"):
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {path}\n---\n")
        with pytest.raises(RecordError, match="outside its folder"):
            read(tmp_path)
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: none/*.csv\n---\n")
    with pytest.raises(RecordError, match=r"not there \(none/\*.csv\)"):
        read(tmp_path)
    (tmp_path / "README.md").write_text("---\n: [broken\n---\n")
    with pytest.raises(RecordError, match="holds 2 folders with data"):
        read(tmp_path)


def test_text_files_named_by_their_splits(tmp_path):
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(0, 2)))
    lines = [json.dumps(row) for row in rows(2, 300)]
    lines[1] = "{broken"
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    votes = read(tmp_path, heldout=0)
    assert len(votes) == 301
    assert [(q.line, q.reason) for q in votes.quarantine] == [(4, "invalid_json")]
    assert len({*votes.line.tolist(), 4}) == votes.meta["n_rows"] == 302
    assert any("counted from 3" in note for note in votes.meta["notes"])


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("{", "cannot read"),
        ('{"_data_files": 3}', "does not list the data files"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow"),
        ('{"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [{"filename": "i.arrow"}]}', "flatten_indices"),
    ],
)
def test_a_broken_saved_data_set_is_one_clear_error(tmp_path, state, words):
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(RecordError, match=words):
        read(tmp_path)


def test_splits_of_different_columns_and_folders_without_data(tmp_path):
    with pytest.raises(RecordError, match=r"without .parquet"):
        read(tmp_path)
    pq.write_table(pa.table({"prompt": ["p"], "chosen": ["x"], "rejected": ["y"]}), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"prompt": [[1.5]], "chosen": ["x"], "rejected": ["y"]}), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(RecordError, match="do not have the same columns"):
        read(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": []}')
    with pytest.raises(RecordError, match="names no splits"):
        read(tmp_path)


def test_a_split_column_of_the_data_is_not_overwritten(tmp_path):
    for name, start in (("train", 0), ("test", 2)):
        data = table(start, 2).append_column("split", pa.array(["odd", "even"]))
        pq.write_table(data, tmp_path / f"{name}-00000-of-00001.parquet")
    votes = read(tmp_path, heldout=0)
    assert votes.source is not None
    assert votes.source["split"].to_pylist() == ["odd", "even"] * 2
    assert votes.source["dataset_split"].to_pylist() == ["test", "test", "train", "train"]
