"""What is lost when the main job is killed, starved of disk, robbed of its input or fed nonsense: whole processes, compared byte for byte.

    python benchmarks/hard_knocks.py [--kills 20] [--files 10000] [--rows 1500]

`cupel refine` runs on votes cut from the bundled file. Kills: SIGKILL while the run goes on, into an empty OUT and into one that a kill
left behind in turn, at moments drawn evenly over the measured length of that run left alone; after every kill the same command is run to
its end on a copy, which must hold the bytes of an undisturbed run. The other knocks come through a `sitecustomize` of the child process
(a disk that is full after some flushes, a clock that runs backwards) or from outside (input taken away, cache and stages with flipped
bits, a second run).
Fuzz: files of all formats with bytes changed, cut, doubled or joined, read in this process; rows in must be rows kept plus rows set aside.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import HERE, arguments, write_result

DEMO = HERE.parent / "examples" / "data" / "ukp_votes.parquet"
SITE = """
import os, time
if os.environ.get("KNOCK") == "full":
    left = int(os.environ["KNOCK_AFTER"])
    real = os.fsync
    def fsync(handle):
        global left
        left -= 1
        if left < 0:
            raise OSError(28, os.strerror(28))
        real(handle)
    os.fsync = fsync
if os.environ.get("KNOCK") == "clock":
    now = 2e9
    def back():
        global now
        now -= 600.0
        return now
    time.time = time.monotonic = time.perf_counter = back
"""


class Bench:
    """A folder with the input, and commands run in it."""

    def __init__(self, root: Path, rows: int) -> None:
        import pyarrow.parquet as pq

        self.root = root
        self.file = root / "votes.jsonl"
        table = pq.read_table(DEMO)
        chosen = table.slice(0, rows).to_pylist()
        self.file.write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
        (root / "site").mkdir()
        (root / "site" / "sitecustomize.py").write_text(SITE)

    def environment(self, **knock: str) -> dict[str, str]:
        """The child's environment: a cache of its own, one thread, and the knock."""
        paths = os.pathsep.join(p for p in (str(self.root / "site"), os.environ.get("PYTHONPATH")) if p)
        return {**os.environ, "CUPEL_CACHE": str(self.root / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **knock}

    def command(self, out: Path) -> list[str]:
        """`cupel refine` into `out`."""
        return [sys.executable, "-m", "cupel", "refine", str(self.file), "--map", "group=topic", "--out", str(out), "--no-progress"]

    def run(self, out: Path, **knock: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        return subprocess.run(self.command(out), env=self.environment(**knock), capture_output=True, text=True, check=False)

    def start(self, out: Path, **knock: str) -> subprocess.Popen[str]:
        """The command, left running."""
        return subprocess.Popen(
            self.command(out), env=self.environment(**knock), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves in OUT, without its stages and lock."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and not p.relative_to(out).parts[0].startswith("."))
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def clear(done: subprocess.CompletedProcess[str]) -> bool:
    """Ended with exit code 2 and words, not with a traceback."""
    return done.returncode == 2 and "Traceback" not in done.stderr and "Error" in done.stderr


def strike(bench: Bench, out: Path, seconds: float, rng: random.Random) -> bool:
    """SIGKILL a run into OUT at a moment drawn evenly from its expected length; whether it was still running."""
    process = bench.start(out)
    try:
        process.communicate(timeout=rng.uniform(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


def kills(bench: Bench, expected: dict[str, str], seconds: float, n: int, seed: int) -> dict[str, Any]:
    """n kills that each interrupted a run; how many of the runs that resumed after them gave the expected bytes.

    They come in twos: one strikes a run into an empty OUT, the other a run that resumes after it, each at a moment drawn evenly from the
    measured length of the same run left alone. A blow that falls after the end is not counted and drawn again.
    """
    rng = random.Random(seed)
    same = missed = 0
    stages: list[int] = []
    lengths: list[float] = []
    for k in range(n):
        out, before = bench.root / f"killed-{k // 2}", bench.root / "before"
        if k % 2 == 0:
            expected_seconds = seconds
        while True:
            shutil.rmtree(before, ignore_errors=True)
            if out.exists():
                shutil.copytree(out, before)
            if strike(bench, out, expected_seconds, rng):
                break
            missed += 1
            shutil.rmtree(out, ignore_errors=True)
            if before.exists():
                before.rename(out)
        stages.append(len([p for p in (out / ".stages").glob("*") if not p.name.startswith(".")]))
        resumed = bench.root / "resumed"
        shutil.rmtree(resumed, ignore_errors=True)
        if out.exists():
            shutil.copytree(out, resumed)
        began = time.perf_counter()
        done = bench.run(resumed)
        expected_seconds = time.perf_counter() - began
        lengths.append(round(expected_seconds, 2))
        same += done.returncode == 0 and digests(resumed) == expected
    return {"kills": n, "identical": same, "blows_after_the_end": missed, "finished_stages_at_the_blow": stages, "resumed_seconds": lengths}


def knocks(bench: Bench, expected: dict[str, str]) -> dict[str, bool]:
    """Each knock: did it end as it should, and did the next run give the expected bytes?"""
    found: dict[str, bool] = {}
    for after in (0, 7, 25, 60):
        out = bench.root / f"full-{after}"
        done = bench.run(out, KNOCK="full", KNOCK_AFTER=str(after))
        again = bench.run(out)
        found[f"disk full after {after} flushes"] = (
            clear(done) and "No space left" in done.stderr and digests(out) == expected and not again.returncode
        )
    blocked = bench.root / "blocked"
    blocked.write_text("a file")
    found["OUT below a file"] = clear(bench.run(blocked / "out"))
    out, aside = bench.root / "robbed", bench.root / "aside"
    process = bench.start(out)
    while not (out / ".stages").is_dir() or not any(p.name.startswith("checks") for p in (out / ".stages").iterdir()):
        time.sleep(0.02)
    bench.file.rename(aside)
    words = process.communicate()[1]
    calm = process.returncode == 0 or (process.returncode == 2 and "Traceback" not in words)
    aside.rename(bench.file)
    found["input vanishes in the middle"] = calm and bench.run(out).returncode == 0 and digests(out) == expected
    for path in sorted((out / ".stages").rglob("*")) + sorted((bench.root / "cache").rglob("*.safetensors")):
        if path.is_file() and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    done = bench.run(out)
    found["a flipped bit in every kept stage and every cache file"] = done.returncode == 0 and digests(out) == expected
    out = bench.root / "two"
    first = bench.start(out)
    while not (out / ".stages").is_dir():
        time.sleep(0.02)
    second = bench.run(out)
    first.communicate()
    found["two runs on one OUT"] = (
        clear(second) and f"another cupel process (id {first.pid})" in second.stderr and first.returncode == 0 and digests(out) == expected
    )
    out = bench.root / "clock"
    done = bench.run(out, KNOCK="clock")
    found["a clock that runs backwards"] = done.returncode == 0 and digests(out) == expected
    out = bench.root / "threads"
    done = bench.run(out, OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="3", RAYON_NUM_THREADS="3")
    found["three threads where there was one"] = done.returncode == 0 and digests(out) == expected
    return found


# ---- fuzz ---------------------------------------------------------------------------------------------------------------------------


def seeds_of(rows: list[dict]) -> dict[str, bytes]:
    """Small files of the formats and containers, by name."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    votes = [
        {"prompt": r["prompt"], "response_a": r["response_a"][:80], "response_b": r["response_b"][:80], "vote": r["vote"]} for r in rows
    ]
    pairs = [{"prompt": v["prompt"], "chosen": v["response_a"], "rejected": v["response_b"]} for v in votes]
    chat = [{k: [{"role": "user" if k == "prompt" else "assistant", "content": t}] for k, t in p.items()} for p in pairs]
    hh = [{k: f"\n\nHuman: {p['prompt']}\n\nAssistant: {p[k]}" for k in ("chosen", "rejected")} for p in pairs]
    said = {
        k: [[{"role": "user", "content": "q"}, {"role": "assistant", "content": v[k]}] for v in votes] for k in ("response_a", "response_b")
    }
    arena = [
        {"model_a": "m", "model_b": "n", "winner": "tie", "conversation_a": a, "conversation_b": b}
        for a, b in zip(said["response_a"], said["response_b"], strict=True)
    ]
    files: dict[str, bytes] = {}
    for name, content in {"votes": votes, "pairs": pairs, "chat": chat, "hh": hh, "arena": arena}.items():
        lines = "".join(json.dumps(row) + "\n" for row in content).encode()
        files[f"{name}.jsonl"], files[f"{name}.json"] = lines, json.dumps(content).encode()
        files[f"{name}.jsonl.gz"] = gzip.compress(lines, mtime=0)
        table = pa.Table.from_pylist(content)
        for suffix, write in (("parquet", pq.write_table), ("arrow", lambda t, b: feather.write_feather(t, b, compression="uncompressed"))):
            buffer = io.BytesIO()
            write(table, buffer)
            files[f"{name}.{suffix}"] = buffer.getvalue()
    for name, content in {"votes": votes, "pairs": pairs}.items():
        buffer = io.BytesIO()
        pc.write_csv(pa.Table.from_pylist(content), buffer)
        files[f"{name}.csv"] = buffer.getvalue()
        files[f"{name}.tsv"] = buffer.getvalue().replace(b",", b"\t")
    return files


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes with one to six changes, mostly one or two."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 2, 6])):
        at = rng.randrange(len(found) + 1) if found else 0
        kind = rng.randrange(7)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + rng.randint(1, 40)] = b""
        elif kind == 2:
            found[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        elif kind == 3:
            found[at:at] = rng.choice(
                [b'"', b"\n", b"{", b"}", b"[", b"\\", b"\\ud800", b"\x00", b"\xff\xfe", b"NaN", b"1e999", b"null", b'{"a":']
            )
        elif kind == 4:
            found[at:at] = found[: rng.randint(0, 60)]
        elif kind == 5:
            found = found[:at]
        else:
            found[at:] = other[at:]
    return bytes(found)


def rows_in(path: Path, data: bytes) -> int | None:
    """How many rows a line-based file has, where that is plain: JSON Lines that decode."""
    if not path.name.endswith(".jsonl"):
        return None
    try:
        return sum(bool(line.strip()) for line in data.decode("utf-8").split("\n"))
    except UnicodeDecodeError:
        return None


def fuzz(n: int, folder: Path, seed: int) -> dict[str, object]:
    """Read n damaged files; what came of them, and the first that ended in an error which is not ours."""
    import pyarrow.parquet as pq

    from cupel.errors import CupelError
    from cupel.records import read

    files = seeds_of(pq.read_table(DEMO).slice(0, 8).to_pylist())
    names, rng = sorted(files), random.Random(seed)
    ends: Counter[str] = Counter()
    bad: list[str] = []
    for k in range(n):
        name = names[k % len(names)]
        data = mutated(files[name], files[rng.choice(names)], rng)
        path = folder / f"f.{name.split('.', 1)[1]}"
        path.write_bytes(data)
        try:
            votes = read(path, max_bad=1.0)
        except CupelError as error:
            ends["refused"] += 1
            if error.exit_code != 2 or not str(error).strip():
                bad.append(f"{k} {name}: refused without words or as our fault: {error!r}")
            continue
        except Exception as error:  # what this benchmark looks for
            ends["fault"] += 1
            bad.append(f"{k} {name}: {type(error).__name__}: {error}")
            continue
        ends["read"] += 1
        lines = [*votes.line.tolist(), *(q.line for q in votes.quarantine)]
        total = len(votes) + len(votes.quarantine)
        expected = rows_in(path, data)
        if len(set(lines)) != total or (expected is not None and total != expected):
            ends["lost rows"] += 1
            bad.append(f"{k} {name}: {len(votes)} kept + {len(votes.quarantine)} set aside, {len(set(lines))} lines, {expected} expected")
    return {"files": n, **ends, "faults": bad[:20], "n_faults": len(bad)}


def main() -> None:
    """Knock, and write the claims."""
    parser = arguments(__doc__, data=False)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    say: Callable[..., None] = lambda *words: print(*words, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        fuzzed = fuzz(options.files, Path(folder), options.seed)
        say("fuzz", {k: v for k, v in fuzzed.items() if k != "faults"}, fuzzed["faults"])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.rows)
        whole = bench.run(bench.root / "whole")  # fills the cache, which later runs share
        began = time.perf_counter()
        whole = bench.run(bench.root / "again")
        seconds = time.perf_counter() - began
        if whole.returncode:
            raise SystemExit(whole.stderr[-3000:])
        expected = digests(bench.root / "whole")
        if digests(bench.root / "again") != expected:
            raise SystemExit("two undisturbed runs differ")
        say(f"undisturbed: {seconds:.1f} s, {len(expected)} files")
        struck = kills(bench, expected, seconds, options.kills, options.seed)
        say("kills", struck)
        knocked = knocks(bench, expected)
        say("knocks", knocked)
    claims = [
        {"claim": f"runs that end in the bytes of an undisturbed run, resumed after {struck['kills']} kills that each interrupted one",
         "target": "all", "measured": [struck["identical"], struck["kills"]], "n": struck["kills"],
         "passed": struck["identical"] == struck["kills"]},
        {"claim": "knocks that end in exit code 2 and words, or in the right bytes, and lose nothing", "target": "all",
         "measured": [sum(knocked.values()), len(knocked)], "n": len(knocked), "passed": all(knocked.values())},
        {"claim": "damaged files that end in a fault of ours or lose a row", "target": "0", "measured": fuzzed["n_faults"],
         "n": options.files, "passed": fuzzed["n_faults"] == 0},
    ]  # fmt: skip
    command = f"python benchmarks/hard_knocks.py --kills {options.kills} --files {options.files} --rows {options.rows}"
    details = {"kills": struck, "knocks": knocked, "fuzz": fuzzed}
    write_result("hard_knocks", claims, n=None, seeds=[options.seed], command=command, details=details)


if __name__ == "__main__":
    main()
