"""Processor time and peak memory of the checks and of the audit at 10^4, 10^5 and 10^6 comparisons, and their exponents.

    python benchmarks/scaling_audit.py [--data DIR] [--sizes 10000 100000 1000000] [--layout pairs] [--profile NAME] [--streamed]

Comparisons are made of real words: every text is cut together from runs of six to fourteen words of public texts (arguments, worked
solutions, dialogues, reviews), in the lengths of the bundled debates, so that words and punctuation are real and no text is a near-copy
of another; nine of ten end in a full stop and one of ten has paragraphs. `pairs` gives each comparison two responses of its own and four
comparisons a prompt (2 n different responses: the hardest case); `fours` gives each prompt four responses, compared each with each (2/3 n).
The longer side wins more often than not, 10 % of labels are turned round.

"Embeddings given": the vectors of all texts lie in the cache, and the audit reads them from there. Each measurement is a fresh process
with one thread of linear algebra; reading the file is not part of it. Processor seconds are those of the kernel (user and system, all
threads), memory is the largest resident set less the bytes of the vectors. "From raw text" is the same with an empty cache, against
`encoder.encode` of the same texts in a process of its own.

`--streamed`: memory of the checks and of curation (with suspicions drawn at random, and the files written) on votes that lie in a
spool and on the same votes in memory, and whether findings, ledger and tables are the same. Beside the largest resident set, which counts
the pages of the spool that happen to be cached, stands the largest private part of it (`RssAnon`, looked at 50 times a second).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import HERE, arguments, write_result

DEMO = HERE.parent / "examples" / "data" / "ukp_votes.parquet"
SOURCES = ("gsm8k_solutions/solutions", "hh_harmless/pairs", "opinpref/pairs", "ukp_convarg/ranking", "text/permissive")
DIM_BYTES = 4


# ---- the data -------------------------------------------------------------------------------------------------------------------


def corpus(data: Path) -> tuple[list[str], np.ndarray]:
    """(words of the public texts end to end, lengths in words of the bundled arguments)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts: dict[str, None] = {}
    for name in SOURCES:
        path = data / f"{name}.parquet"
        if path.is_file():
            table = pq.read_table(path)
            for column in table.column_names:
                if pa.types.is_large_string(table[column].type) or pa.types.is_string(table[column].type):
                    values = table[column].unique().to_pylist()
                    texts.update(dict.fromkeys(v for v in values if v and v.count(" ") >= 20 and not v.startswith(("{", "["))))
    demo = pq.read_table(DEMO)
    arguments_ = [t for c in ("response_a", "response_b") for t in demo[c].unique().to_pylist()]
    texts.update(dict.fromkeys(arguments_))
    lengths = np.array([len(t.split()) for t in arguments_])
    return [word for text in texts for word in text.split()], lengths


def made_texts(words: list[str], lengths: np.ndarray, n: int, rng: np.random.Generator) -> list[str]:
    """n texts of runs of 6 to 14 words; lengths drawn from `lengths`."""
    wanted = rng.choice(lengths, size=n)
    pieces = np.maximum(1, np.round(wanted / 10)).astype(int)
    runs = np.maximum(3, np.minimum(rng.integers(6, 15, size=int(pieces.sum())), np.repeat(wanted, pieces)))
    starts = rng.integers(0, len(words) - 16, size=len(runs))
    ends = np.cumsum(pieces)
    breaks, stops = rng.random(n) < 0.1, rng.random(n) < 0.9
    out = []
    at = 0
    for end, broken, stopped in zip(ends.tolist(), breaks.tolist(), stops.tolist(), strict=True):
        parts = [" ".join(words[s : s + r]) for s, r in zip(starts[at:end].tolist(), runs[at:end].tolist(), strict=True)]
        text = ("\n" if broken else " ").join(parts)
        out.append(text + "." if stopped and text[-1].isalnum() else text)
        at = end
    return out


def write_data(path: Path, data: Path, n: int, layout: str, seed: int) -> None:
    """A file of n comparisons: prompt, two responses, vote, annotator."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    words, lengths = corpus(data)
    if layout == "pairs":
        n_responses, prompt = 2 * n, np.arange(n) // 4
        a, b = 2 * np.arange(n), 2 * np.arange(n) + 1
    else:
        groups = -(-n // 6)
        i, j = np.triu_indices(4, 1)
        n_responses, prompt = 4 * groups, np.repeat(np.arange(groups), 6)[:n]
        a, b = (
            (np.repeat(4 * np.arange(groups), 6) + np.tile(i, groups))[:n],
            (np.repeat(4 * np.arange(groups), 6) + np.tile(j, groups))[:n],
        )
    responses = np.array(made_texts(words, lengths, n_responses, rng), dtype=object)
    prompts = np.array(made_texts(words, np.array([8, 12, 20, 30]), int(prompt.max()) + 1, rng), dtype=object)
    size = np.array([len(t) for t in responses])
    quality = np.log(np.maximum(size, 1)) + rng.normal(scale=0.5, size=n_responses)
    swap = rng.random(n) < 0.5
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    won = (quality[a] > quality[b]) ^ (rng.random(n) < 0.1)
    table = pa.table(
        {
            "prompt": pa.array(prompts[prompt], pa.large_string()),
            "response_a": pa.array(responses[a], pa.large_string()),
            "response_b": pa.array(responses[b], pa.large_string()),
            "vote": np.where(won, "a", "b"),
            "annotator": [f"person {k}" for k in rng.integers(0, 300, size=n)],
        }
    )
    pq.write_table(table, path)


# ---- one measurement, in a process of its own --------------------------------------------------------------------------------------


def processor() -> float:
    """Processor seconds of this process and of the children it waited for, user and system."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak() -> float:
    """Largest resident set of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def load_votes(folder: Path):
    """The votes as the stage `read` keeps them."""
    from cupel.records.store import load

    return load(folder / "votes")


def child(kind: str, folder: Path, profile: str | None) -> dict:
    """Measure one thing in this process."""
    from cupel.encode import load_encoder

    votes = load_votes(folder)
    vectors = (len(votes.prompts) + len(votes.responses)) * 256 * DIM_BYTES
    before, began = processor(), time.perf_counter()
    base = peak()
    stages: dict[str, float] = {}
    if kind == "encode":
        encoder = load_encoder("static")
        before, began = processor(), time.perf_counter()
        encoder.encode(votes.prompt_texts())
        encoder.encode(votes.response_texts())
    elif kind == "checks":
        from cupel.audit.checks import Context, all_checks

        context = Context()
        for name, module in all_checks().items():
            at = processor()
            module.check(votes, context)
            stages[name] = round(processor() - at, 3)
    elif kind in ("audit", "raw"):
        from cupel.audit.run import AuditOptions, run_audit
        from cupel.stages import Stages

        cache = folder / ("cache" if kind == "audit" else "empty")
        marks: list[tuple[str, float]] = []
        watch = Stages(
            None, on_start=lambda name: marks.append((name, processor())),
            on_done=lambda name, reused: stages.__setitem__(name, round(processor() - marks[-1][1], 2)),
        )  # fmt: skip
        if profile:
            import cProfile

            with cProfile.Profile() as found:
                result = run_audit(votes, AuditOptions(), cache=cache, stages=watch)
                at = processor()
                result.save(folder / "out")
            found.dump_stats(profile)
        else:
            result = run_audit(votes, AuditOptions(), cache=cache, stages=watch)
            at = processor()
            result.save(folder / "out")
        stages["report"] = round(processor() - at, 2)
        stages["verdict"] = result.verdict.code  # type: ignore[assignment]
    return {
        "cpu": processor() - before, "wall": time.perf_counter() - began, "peak": peak(), "before": base, "vectors": vectors,
        "n": len(votes), "prompts": len(votes.prompts), "responses": len(votes.responses), "characters": votes.responses.nbytes,
        "stages": stages,
    }  # fmt: skip


def streamed_child(folder: Path, way: str) -> dict:
    """Checks and curation of votes from a spool ("disk") or from a file read at once ("memory"), in this process."""
    import hashlib
    import threading

    from cupel.audit.checks import run_checks
    from cupel.curate.policy import curate
    from cupel.records import read
    from cupel.records.stream.spool import open_spool
    from cupel.report.assemble import save_curated

    most, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            most[0] = max(most[0], next(float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")))

    votes = open_spool(folder / "spool") if way == "disk" else read(folder / "data.parquet", max_bad=0.05, stream=False)
    thread = threading.Thread(target=watch)
    thread.start()
    began = processor()
    findings = run_checks(votes)
    after_checks, anonymous_checks = peak(), most[0]
    curated = curate(votes, np.random.default_rng(0).normal(size=len(votes)), findings=findings)
    save_curated(curated, folder / f"curated-{way}")
    over.set()
    thread.join()
    files = [folder / f"curated-{way}" / name for name in ("train.parquet", "heldout.parquet", "ledger.jsonl")]
    told = json.dumps([[f.to_json(), f.rows.tolist()] for f in findings], sort_keys=True, default=str).encode()
    return {
        "n": len(votes), "cpu": processor() - began, "peak_checks": after_checks, "peak": peak(), "anonymous_checks": anonymous_checks,
        "anonymous": most[0], "same": hashlib.sha256(told + b"".join(file.read_bytes() for file in files)).hexdigest(),
    }  # fmt: skip


def streamed(options: argparse.Namespace) -> None:
    """Measure both ways at all sizes and write the claims."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        for n in options.sizes:
            folder = root / f"{options.layout}-{n}"
            if not (folder / "votes" / "comparisons.parquet").is_file():
                prepare(folder, options.data, n, options.layout, options.seed)
            if not (folder / "spool" / "spool.json").is_file():
                measure("spool", folder)
            for way in ("disk", "memory"):
                found = {"way": way, **measure(f"streamed-{way}", folder)}
                rows.append(found)
                print(n, way, {k: round(v / 2**30, 3) for k, v in found.items() if k.startswith(("peak", "anonymous"))},
                      round(found["cpu"], 1), found["same"][:8], file=sys.stderr)  # fmt: skip
    disk = [row for row in rows if row["way"] == "disk"]
    per_row = (disk[-1]["anonymous"] - disk[-2]["anonymous"]) / (disk[-1]["n"] - disk[-2]["n"]) if len(disk) > 1 else float("nan")
    seven = (disk[-1]["anonymous"] + per_row * (10**7 - disk[-1]["n"])) / 2**30
    same = all(a["same"] == b["same"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    n = options.sizes[-1]
    claims = [
        {"claim": "findings, ledger and curated files of streamed votes are those of votes in memory", "target": "byte for byte",
         "measured": same, "n": n, "passed": same},
        {"claim": f"private memory of checks and curation of {n:,} streamed comparisons (GiB)", "target": "under 2",
         "measured": round(disk[-1]["anonymous"] / 2**30, 2), "n": n, "passed": disk[-1]["anonymous"] < 2 * 2**30},
        {"claim": "the same at 10,000,000, extrapolated from the two largest sizes, not measured (GiB)", "target": "under 24",
         "measured": round(seven, 2), "n": n, "passed": seven < 24},
    ]  # fmt: skip
    sized = " ".join(str(n) for n in options.sizes)
    command = f"python benchmarks/scaling_audit.py --data DIR --sizes {sized} --layout {options.layout} --streamed"
    details = {"layout": options.layout, "bytes_per_row": round(per_row, 1), "load": list(os.getloadavg()), "runs": rows}
    write_result("scaling_audit_streamed", claims, n=n, seeds=[options.seed], command=command, details=details)


def measure(kind: str, folder: Path, profile: str | None = None, threads: int = 1) -> dict:
    """One fresh process."""
    environment = {**os.environ, **{name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}}
    environment["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    command = [sys.executable, __file__, "--child", kind, "--folder", str(folder), *(["--profile", profile] if profile else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def prepare(folder: Path, data: Path, n: int, layout: str, seed: int) -> None:
    """The file, its votes and a warm cache, in processes of their own so that this one stays small."""
    command = [sys.executable, __file__, "--child", "prepare", "--folder", str(folder), "--data", str(data), "--sizes", str(n)]
    subprocess.run([*command, "--layout", layout, "--seed", str(seed)], check=True)


def prepare_here(folder: Path, data: Path, n: int, layout: str, seed: int) -> None:
    """What `prepare` runs."""
    from cupel.encode import encode_cached, load_encoder
    from cupel.records import read
    from cupel.records.store import save
    from cupel.records.text import render

    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / "data.parquet", data, n, layout, seed)
    votes = read(folder / "data.parquet", max_bad=0.05)
    save(votes.with_(source=None), folder / "votes")
    encoder = load_encoder("static")
    encode_cached(encoder, [render(text) for text in votes.prompt_texts()], folder / "cache")
    encode_cached(encoder, votes.response_texts(), folder / "cache")


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope between the two largest sizes on a log-log scale: small sizes are dominated by what does not grow."""
    return float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2])) if len(sizes) > 1 else float("nan")


def main() -> None:
    """Measure and write the claims."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--layout", choices=("pairs", "fours"), default="pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", help="write the profile of the audit here (cProfile); no result is written")
    parser.add_argument("--keep", type=Path, help="folder that keeps the made data between runs")
    parser.add_argument("--no-raw", action="store_true", help="leave out the runs from raw text")
    parser.add_argument("--each-check", action="store_true", help="also time each check, in a process of its own")
    parser.add_argument("--streamed", action="store_true", help="memory of checks and curation on streamed votes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "prepare":
        return prepare_here(options.folder, options.data, options.sizes[0], options.layout, options.seed)
    if options.child == "spool":
        from cupel.records import read

        votes = read(options.folder / "data.parquet", max_bad=0.05, stream=True, spool=options.folder / "spool")
        print(json.dumps({"n": len(votes)}))
        return None
    if options.child and options.child.startswith("streamed-"):
        print(json.dumps(streamed_child(options.folder, options.child.removeprefix("streamed-"))))
        return None
    if options.child:
        print(json.dumps(child(options.child, options.folder, options.profile)))
        return None
    if options.streamed:
        return streamed(options)
    found: dict[str, list[dict]] = {"checks": [], "audit": [], "encode": [], "raw": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        for n in options.sizes:
            folder = root / f"{options.layout}-{n}"
            if not (folder / "votes" / "comparisons.parquet").is_file():
                prepare(folder, options.data, n, options.layout, options.seed)
            kinds = (["checks"] if options.each_check else []) + ["audit"] + ([] if options.no_raw else ["encode", "raw"])
            for kind in kinds:
                row = measure(kind, folder, options.profile if kind == "audit" else None)
                found[kind].append(row)
                beyond = (row["peak"] - (row["vectors"] if kind != "checks" else 0)) / 2**30
                print(f"{n:>9,} {kind:<7} {row['cpu']:8.1f} CPU s {row['wall']:8.1f} s  {beyond:6.2f} GiB", row["stages"], file=sys.stderr)
    if options.profile:
        return None
    write(options, found)
    return None


def write(options: argparse.Namespace, found: dict[str, list[dict]]) -> None:
    """The claims of the measurements."""
    sizes, claims = options.sizes, []
    cpu = {kind: [row["cpu"] for row in rows] for kind, rows in found.items()}
    cpu["checks"] = [row["stages"]["checks"] for row in found["audit"]]
    beyond = [(row["peak"] - row["vectors"]) / 2**30 for row in found["audit"]]
    n, last = sizes[-1], cpu["audit"][-1]
    for kind in ("checks", "audit") if len(sizes) > 1 else ():
        slope, said = exponent(sizes, cpu[kind]), f"{sizes[-2]:,} to {n:,} comparisons"
        claims.append({"claim": f"exponent of the processor time of the {kind}, {said}", "target": "at most 1.05",
                       "measured": round(slope, 3), "n": n, "passed": slope <= 1.05})  # fmt: skip
    claims.append({"claim": f"audit of {n:,} comparisons, embeddings given (processor seconds)", "target": "under 60 at 1,000,000",
                   "measured": round(last, 1), "n": n, "passed": last < 60 and n >= 10**6})  # fmt: skip
    claims.append({"claim": "its peak memory beyond the embeddings (GiB)", "target": "under 2", "measured": round(beyond[-1], 2),
                   "n": n, "passed": beyond[-1] < 2})  # fmt: skip
    if cpu["raw"]:
        ratio = [raw / alone for raw, alone in zip(cpu["raw"], cpu["encode"], strict=True)]
        claims.append({"claim": "audit from raw text over encoding alone (processor time)", "target": "at most 1.5",
                       "measured": round(ratio[-1], 2), "n": sizes[-1], "passed": ratio[-1] <= 1.5})  # fmt: skip
    rows = {
        kind: [
            {"n": row["n"], "cpu": round(row["cpu"], 2), "wall": round(row["wall"], 2), "peak_gib": round(row["peak"] / 2**30, 3),
             "vectors_gib": round(row["vectors"] / 2**30, 3), "responses": row["responses"], "characters": row["characters"],
             "stages": row["stages"]} for row in part
        ] for kind, part in found.items()
    }  # fmt: skip
    bound = [
        {"n": row["n"], "texts": row["responses"] + row["prompts"],
         "texts_per_cpu_second": round((row["responses"] + row["prompts"]) / row["cpu"]),
         "megabytes_per_cpu_second": round(row["characters"] / 1e6 / row["cpu"], 2),
         "audit_over_encoding": round(audit["cpu"] / row["cpu"], 2)}
        for row, audit in zip(found["encode"], found["audit"], strict=False)
    ]  # fmt: skip
    for row in bound:
        print(f"{row['n']:>9,} encoding: {row['texts_per_cpu_second']:,} texts per processor second and thread; the audit with given "
              f"embeddings takes {row['audit_over_encoding']} times as long", file=sys.stderr)  # fmt: skip
    sized = " ".join(str(n) for n in sizes)
    name = "scaling_audit" if options.layout == "pairs" else f"scaling_audit_{options.layout}"
    command = f"python benchmarks/scaling_audit.py --data DIR --sizes {sized} --layout {options.layout}"
    details = {"layout": options.layout, "load": list(os.getloadavg()), "encoding": bound, "runs": rows}
    write_result(name, claims, n=sizes[-1], seeds=[options.seed], command=command, details=details)


if __name__ == "__main__":
    main()
