"""Damaged files, full disks, folders that cannot be written, another tokenizer: said clearly, and the same command then ends as if nothing
had happened. What a run keeps is compared byte for byte with an undisturbed one."""

from __future__ import annotations

import errno
import json
import os
import resource
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import InputError
from cupel.learners.policy import journal as journal_
from cupel.learners.policy import learner as learner_
from cupel.learners.policy import reading
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.whole import DamageWarning
from cupel.records.files import sha256_file
from cupel.scorers.reference import CacheError, CacheWarning

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
Options = Callable[..., Any]
KEPT = ("model", "records.parquet", "metrics.json", "log.jsonl", ".tokens", ".reference", "checkpoints")
CHANGES: dict[str, Any] = {"save_every": 2, "batch_size": 24}


def kept(out: Path) -> dict[str, str]:
    return {name: sha256_file(out / name) for name in KEPT}


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, votes_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cupel.learners.policy.options import options_of

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    base = {
        "data": str(votes_file), "model": str(tiny), "out": str(out), "learning_rate": 3e-3, "batch_tokens": 256, "max_length": 64,
        "warmup": 0.0, "heldout": 0.2, "device": "cpu", "epochs": 1,
    }  # fmt: skip
    train_policy(options_of({**base, **CHANGES}))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    return out


def interrupted(options: Any, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> None:
    """A run that is interrupted in its fourth step, one after its first checkpoint."""
    with monkeypatch.context() as patch:
        real = learner_._Run._step

        def step(self: Any, rows: Any, number: int, epoch: int) -> Any:
            if number == after:
                raise KeyboardInterrupt
            return real(self, rows, number, epoch)

        patch.setattr(learner_._Run, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train_policy(options)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


# ---- damaged files ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_shard_of_the_reference_is_computed_again(
    damage: Callable[[Path], None], run_options: Options, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = run_options(**CHANGES)
    interrupted(options, monkeypatch)
    shard = min((Path(options.out) / ".reference").rglob("*.safetensors"))
    damage(shard)
    with pytest.warns(CacheWarning, match=rf"1 of 2 shards in .* damaged \(first: {shard.name}, its checksum .* computed again"):
        train_policy(options)
    shard.with_suffix(".damaged").unlink()
    assert kept(Path(options.out)) == kept(undisturbed)


def test_a_store_whose_description_is_damaged_is_not_believed(run_options: Options, tmp_path: Path) -> None:
    options = run_options(steps=1, cache=str(tmp_path / "cache"))
    train_policy(options)
    (facts,) = (tmp_path / "cache").rglob("reference.json")
    facts.write_text(facts.read_text()[:40])
    with pytest.raises(CacheError, match=rf"reference.json cannot be read .*Delete {facts.parent} to compute the scores again"):
        train_policy(options, force=True)
    shutil.rmtree(facts.parent)
    train_policy(options, force=True)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("responses.i32", flip), ("counted.u8", Path.unlink), ("tokens.json", cut), ("tokens.json", Path.unlink)],
)
def test_damaged_tokens_are_made_again(
    name: str, damage: Callable[[Path], None], run_options: Options, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = run_options(**CHANGES)
    interrupted(options, monkeypatch)
    damage(next(iter(sorted((Path(options.out) / ".tokens").rglob(name)))))
    if (name, damage) == ("tokens.json", Path.unlink):  # as a run leaves it that is killed while it tokenises
        train_policy(options)
    else:
        with pytest.warns(DamageWarning, match=rf"1 of \d+ files in .* damaged \(first: {name}.* made again"):
            train_policy(options)
    assert kept(Path(options.out)) == kept(undisturbed)


# ---- full disks -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".tokens", ".reference", "checkpoints/.step-00000004", ".model.tmp", "metrics"])
def test_a_full_disk_is_said_wherever_it_fills_up(
    place: str, run_options: Options, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell the names of open files")
    options = run_options(**CHANGES)
    real, refused = os.fsync, []

    def full(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}").removeprefix(str(Path(options.out).resolve()) + "/").removeprefix(".")
        if name.startswith(place.removeprefix(".")):
            refused.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"cannot write .*No space left on device.*run the same command again") as said:
            train_policy(options)
    assert said.value.exit_code == 2
    assert len(refused) == 1
    assert not [path for path in Path(options.out).rglob("*") if path.name.endswith(".tmp")]
    train_policy(options)
    assert kept(Path(options.out)) == kept(undisturbed)


def test_a_full_disk_is_said_where_the_log_is_written(run_options: Options, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    options = run_options(**CHANGES)
    real = journal_.append_line

    def full(path: Path, line: str) -> None:
        real("/dev/full" if path.name == "log.jsonl" and json.loads(line)["step"] == 3 else path, line)

    with monkeypatch.context() as patch:
        patch.setattr(journal_, "append_line", full)
        with pytest.raises(InputError, match=r"cannot write .*No space left on device.*run the same command again"):
            train_policy(options)
    train_policy(options)
    assert kept(Path(options.out)) == kept(undisturbed)


@pytest.mark.parametrize("when", ["_save", "_finish"])
def test_a_file_that_the_system_cuts_short(when: str, run_options: Options, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is real: transformers and safetensors meet it in the middle of a write and say so in their own words."""
    options = run_options(**CHANGES)
    size = (undisturbed / "model" / "model.safetensors").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = getattr(learner_._Run, when)

    def short(self: Any, *arguments: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, limits[1]))
        try:
            return real(self, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(learner_._Run, when, short)
        with pytest.raises(InputError, match=r"cannot write the (checkpoint|model) .*File too large.*Earlier checkpoints are untouched"):
            train_policy(options)
    assert not list(Path(options.out).rglob(".*.tmp"))
    train_policy(options)
    assert kept(Path(options.out)) == kept(undisturbed)


# ---- folders that cannot be written ------------------------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(run_options: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write into .*file/out: Not a directory. Choose another place with --out"):
        train_policy(run_options(out=str(tmp_path / "file" / "out")))
    with pytest.raises(InputError, match=r"the reference cache .*file/cache.* cannot be made: Not a directory. Choose another .*cache="):
        train_policy(run_options(cache=str(tmp_path / "file" / "cache"), steps=1))
    assert (tmp_path / "file").read_text() == "in the way"
    assert train_policy(run_options(steps=1)).steps == 1


# ---- another tokenizer ------------------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_changes_between_two_sittings(
    run_options: Options, tiny: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    options = run_options(**CHANGES, model=str(model))
    interrupted(options, monkeypatch)
    before = (model / "tokenizer.json").read_text("utf-8")
    changed = json.loads(before)
    words = changed["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]
    (model / "tokenizer.json").write_text(json.dumps(changed), "utf-8")
    with pytest.raises(InputError, match=r"other options or data \(the data or the model have changed\). Choose another place"):
        train_policy(options)
    (model / "tokenizer.json").write_text(before, "utf-8")
    out = train_policy(options).out
    assert sha256_file(out / "model" / "model.safetensors") == sha256_file(undisturbed / "model" / "model.safetensors")


# ---- large files ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_files_read_in_batches_end_in_the_same_bytes(
    kind: str, run_options: Options, undisturbed: Path, votes_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = votes_file
    if kind == "parquet":
        import pyarrow.json
        import pyarrow.parquet

        data = tmp_path / "votes.parquet"
        pyarrow.parquet.write_table(pyarrow.json.read_json(votes_file), data)
    streamed = []
    real = reading.read
    monkeypatch.setattr(reading, "read", lambda *a, **k: streamed.append(votes := real(*a, **k)) or votes)
    monkeypatch.setattr(reading, "STREAM_ABOVE", 0)
    options = run_options(**CHANGES, data=str(data))
    train_policy(options)
    out = Path(options.out)
    assert [votes.spool is not None for votes in streamed] == [True]
    assert not list(out.glob("cupel-spool-*"))
    names = KEPT if kind == "jsonl" else [name for name in KEPT if name != "checkpoints"]  # a checkpoint names its data
    assert {name: sha256_file(out / name) for name in names} == {name: sha256_file(undisturbed / name) for name in names}
    assert sorted(p.name for p in (out / ".tokens").iterdir()) == sorted(p.name for p in (undisturbed / ".tokens").iterdir())


def test_what_cannot_be_read_in_batches_is_read_at_once(run_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = helpers["comparisons"](40)
    data = tmp_path / "votes.json"
    data.write_text(json.dumps({"data": rows}))
    monkeypatch.setattr(reading, "STREAM_ABOVE", 0)
    assert train_policy(run_options(data=str(data), steps=1)).metrics["n_comparisons"] >= 30
