"""Every format: detected, round trip exact, losses stated, bad rows set aside; and every target that trainers read.

    python benchmarks/formats.py [--blocks 20]

Rows are made from the repository's fixtures (invented texts in the columns of each public format): `--blocks` copies of each with
numbered texts, and faulty rows planted at random places. No outside data: that the columns are those of the published files was looked
up in their cards and in code that reads them, and the files themselves are not read here.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import HERE, arguments, write_result

from cupel.errors import CupelError
from cupel.records import read
from cupel.records.convert import TARGETS, to_rows
from cupel.records.exports import json_rows
from cupel.records.exports.common import TRL_FAMILY
from cupel.records.files import write_lines
from cupel.records.formats import importers
from cupel.records.schema import Votes
from cupel.records.text import messages, render

FIXTURES = HERE.parent / "tests" / "fixtures" / "records"
SEEDS = (0, 1, 2, 3, 4)

#: what people hold -> the importer that reads it
PUBLIC = {
    "TRL preference": "trl", "TRL conversational": "trl_conversational", "TRL implicit prompt": "trl_implicit", "HH-RLHF": "hh",
    "pairs without prompt": "pairs", "votes": "votes", "UltraFeedback": "ultrafeedback", "HelpSteer, HelpSteer2 attributes": "helpsteer",
    "HelpSteer2/3 preferences": "helpsteer_preference", "PRISM": "prism", "Community Alignment": "community_alignment",
    "Chatbot Arena (LMArena)": "arena", "LMSYS arena in columns": "arena_columns", "Search Arena": "search_arena",
    "Music Arena": "music_arena", "WildFeedback, LLaMA-Factory sharegpt": "sharegpt", "LLaMA-Factory alpaca": "alpaca", "SHP": "shp",
    "Argilla": "argilla", "Label Studio": "label_studio", "rankings": "rankings", "ratings": "ratings",
    "ratings, one per row": "ratings_long", "best-worst choices": "best_worst", "KTO unpaired": "kto",
    "RewardBench 2, RM-Bench": "rewardbench",
    "OpenAI preference": "openai_preference", "axolotl": "axolotl", "a pair under two contexts": "reversals",
}  # fmt: skip

#: target -> importer that reads it back
BACK = {"votes": "votes", "trl": "trl", "trl_conversational": "trl_conversational", "trl_implicit": "trl_implicit", "kto": "kto",
        "openrlhf": "trl_implicit", "axolotl": "axolotl", "llama_factory": "sharegpt", "openai": "openai_preference"}  # fmt: skip


def lines(path: Path) -> list[Any]:
    """The JSON values of a file of lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def texts_of(votes: Votes) -> set[str]:
    """The words of the votes: plain texts, contents of messages, and their lines."""
    found: set[str] = set()
    for text in [*votes.prompt_texts(), *votes.response_texts()]:
        said = [m["content"] for m in messages(text) or [] if isinstance(m["content"], str)] or [text]
        for words in said:
            found |= {words, *words.split("\n")}
    return {text for text in found if text}


def numbered(value: Any, texts: set[str], mark: str) -> Any:
    """A copy in which every text of the data carries a mark."""
    if isinstance(value, dict):
        return {key: numbered(item, texts, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [numbered(item, texts, mark) for item in value]
    return f"{value} {mark}" if isinstance(value, str) and value in texts else value


def planted(name: str, blocks: int, seed: int) -> tuple[list[Any], dict[int, str]]:
    """(rows, line -> reason expected): copies of the fixture with faulty rows at random places."""
    rng = np.random.default_rng([seed, 61])
    good = lines(FIXTURES / f"{name}.jsonl")
    faults = [item for item in lines(FIXTURES / f"{name}.bad.jsonl") if item["reason"] != "duplicate_id"]
    texts = texts_of(read(good, heldout=0))
    made: list[tuple[Any, str]] = []
    for block in range(blocks):
        rows = [(numbered(copy.deepcopy(row), texts, f"[{block}]"), "") for row in good]
        item = faults[int(rng.integers(len(faults)))]
        asked = {value for key, value in item["row"].items() if key in ("prompt", "instruction") and isinstance(value, str) and value}
        bad = numbered(copy.deepcopy(item["row"]), asked, f"[bad {block}]")
        rows.insert(int(rng.integers(len(rows) + 1)), (bad, item["reason"]))
        for row, _ in rows:
            if "id" in row:
                row["id"] = f"{row['id']}-{block}-{rows.index((row, _))}"
        made += rows
    return [row for row, _ in made], {line: why for line, (_, why) in enumerate(made, start=1) if why}


def same(one: Votes, two: Votes) -> bool:
    """Whether two readings hold the same comparisons, texts, people, models and numbers."""
    arrays = ("outcome", "p", "w", "prompt", "first", "second", "annotator", "model_first", "model_second", "strength", "seconds")
    equal = all(np.array_equal(getattr(one, name), getattr(two, name), equal_nan=getattr(one, name).dtype.kind == "f") for name in arrays)
    tables = one.prompts.equals(two.prompts) and one.responses.equals(two.responses) and one.ids.equals(two.ids)
    return equal and tables and one.annotators == two.annotators and one.models == two.models


def preferences(votes: Votes) -> list[tuple[str, str, str]]:
    """(prompt, preferred, other) in words of every decided vote."""
    prompts, texts = [render(t) for t in votes.prompt_texts()], [render(t) for t in votes.response_texts()]
    rows = zip(votes.prompt.tolist(), votes.first.tolist(), votes.second.tolist(), votes.sign.tolist(), strict=True)
    return [(prompts[i], texts[a if s > 0 else b], texts[b if s > 0 else a]) for i, a, b, s in rows if s]


def one_format(name: str, blocks: int, place: Path) -> dict[str, Any]:
    """The four answers for one format, over all seeds; each True only where it held every time."""
    answers = dict.fromkeys(("detected", "round_trip", "losses_stated", "bad_rows_set_aside", "as_it_came"), True)
    counts = {"rows": 0, "comparisons": 0, "planted": 0, "set_aside_rightly": 0}
    module = importers()[name]
    for seed in SEEDS:
        rows, expected = planted(name, blocks, seed)
        path = place / f"{name}-{seed}.jsonl"
        write_lines(path, rows)
        votes = read(path, heldout=0, max_bad=1)
        said = str(votes.meta["detection"])
        answers["detected"] &= votes.source_format == name and said.startswith(f"format {name}: ")
        found = {q.line: q.reason for q in votes.quarantine}
        right = sum(found.get(line) == why for line, why in expected.items())
        whole = votes.meta["n_rows"] == len(rows) == votes.meta["n_rows_kept"] + len(votes.quarantine)
        answers["bad_rows_set_aside"] &= found == expected and whole
        for suffix in ("parquet", "jsonl"):
            table, _ = to_rows(votes, "votes")
            target = place / f"{name}-{seed}-votes.{suffix}"
            pq.write_table(table, target) if suffix == "parquet" else write_lines(target, json_rows(table, "votes"))
            answers["round_trip"] &= same(votes, read(target, heldout=0))
        if name in TRL_FAMILY:
            answers["as_it_came"] &= to_rows(votes, "trl")[0].equals(votes.source)
        loses = hasattr(module, "LOSSES")
        stated = any(module.LOSSES in loss for loss in votes.meta["losses"]) if loses else not votes.meta["losses"]
        answers["losses_stated"] &= stated and (loses or len(votes) == votes.meta["n_rows_kept"])
        counts["rows"] += len(rows)
        counts["comparisons"] += len(votes)
        counts["planted"] += len(expected)
        counts["set_aside_rightly"] += right
    return {**answers, **counts, "lost": getattr(module, "LOSSES", "")}


def one_target(name: str, to: str) -> str:
    """What becomes of a fixture in a target: "exact", "WRONG", or what is lost and said."""
    votes = read(FIXTURES / f"{name}.jsonl", heldout=0)
    try:
        table, losses = to_rows(votes, to)
    except CupelError as error:
        return "refused, said" if "no row is left" in str(error) else "WRONG"
    back = read(json_rows(table, to), heldout=0)
    as_it_came = to == "trl" and name in TRL_FAMILY
    if back.source_format != (name if as_it_came else BACK[to]):
        return "WRONG"
    undecided = int((votes.sign == 0).sum())
    if to != "votes" and undecided and not any("express no preference" in loss for loss in losses):
        return "WRONG"
    if any("left out" in loss for loss in losses):
        return "rows left out, said"
    if any("ids that tie" in loss for loss in losses):
        return "ids of tool calls lost, said"
    return "exact" if preferences(back) == preferences(votes) else "WRONG"


def containers(place: Path) -> dict[str, bool]:
    """Folders as `datasets` and the hub lay them out, each read as the rows that went in."""
    table = pa.Table.from_pylist(lines(FIXTURES / "trl.jsonl"))
    expected = read(table, heldout=0)

    def stream(folder: Path) -> None:
        folder.mkdir(parents=True)
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}))

    stream(place / "saved")
    stream(place / "dictionary" / "train")
    (place / "dictionary" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (place / "hub" / "data").mkdir(parents=True)
    pq.write_table(table, place / "hub" / "data" / "train-00000-of-00001.parquet")
    (place / "hub" / "README.md").write_text("---\nlicense: mit\n---\n")
    (place / "configs" / "rows").mkdir(parents=True)
    write_lines(place / "configs" / "rows" / "a.jsonl", table.to_pylist())
    (place / "configs" / "README.md").write_text("---\nconfigs:\n- config_name: rows\n  data_files: rows/*.jsonl\n---\n")
    return {name: same(expected, read(place / name, heldout=0)) for name in ("saved", "dictionary", "hub", "configs")}


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown."""
    head = ("format", "importer", "detected", "round trip exact", "losses stated", "bad rows set aside")
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for public, found in table.items():
        marks = ["yes" if found[key] else "NO" for key in ("detected", "round_trip", "losses_stated", "bad_rows_set_aside")]
        rows.append(f"| {public} | `{found['importer']}` | {' | '.join(marks)} |")
    return "\n".join(rows)


def main() -> None:
    parser = arguments(__doc__, data=False)
    parser.add_argument("--blocks", type=int, default=20, help="copies of each fixture")
    options = parser.parse_args()
    assert set(PUBLIC.values()) == set(importers()), "PUBLIC must name every importer"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table = {public: {"importer": name, **one_format(name, options.blocks, place)} for public, name in PUBLIC.items()}
        folders = containers(place)
    targets = {name: {to: one_target(name, to) for to in TARGETS} for name in sorted(importers())}
    cells = [cell for row in targets.values() for cell in row.values()]
    n, found = len(table), list(table.values())
    rows = sum(row["rows"] for row in found)
    loses = [row for row in found if row["lost"]]
    family = [row for row in found if row["importer"] in TRL_FAMILY]
    bad, right = sum(row["planted"] for row in found), sum(row["set_aside_rightly"] for row in found)

    def count(claim: str, key: str, of: list[dict[str, Any]], size: Any) -> dict[str, Any]:
        held = sum(bool(row[key]) for row in of)
        return {"claim": claim, "target": f"{len(of)} of {len(of)} formats", "measured": held, "n": size, "passed": held == len(of)}

    claims = [
        count("every format is recognised from its columns, with the reason said", "detected", found, rows),
        count("reading, writing as votes (Parquet and JSON Lines) and reading again gives the same votes", "round_trip", found, rows),
        count("a TRL table goes out as it came: columns, order, types", "as_it_came", family, sum(row["rows"] for row in family)),
        count("what pairs cannot hold of a format is said, and nothing is said where nothing is lost", "losses_stated", found, rows),
        count("planted faulty rows, and no others, are set aside; rows in = kept + set aside", "bad_rows_set_aside", found,
              bad),
        {"claim": "faulty rows with the right line and reason", "target": "all", "measured": right / bad, "n": bad, "passed": right == bad},
        {"claim": "folders of save_to_disk and of the hub read as the rows that went in", "target": "4 of 4",
         "measured": sum(folders.values()), "n": len(folders), "seeds": [], "passed": all(folders.values())},
        {"claim": "every format to every target and back: the same preferences, or rows left out or refused with the reason said",
         "target": "no wrong cell", "measured": cells.count("WRONG"), "n": len(cells), "seeds": [], "passed": "WRONG" not in cells},
    ]  # fmt: skip
    details = {"table": table, "markdown": markdown(table), "targets": targets, "containers": folders, "formats_that_lose": len(loses)}
    write_result("formats", claims, n=n, seeds=SEEDS, command=f"python benchmarks/formats.py --blocks {options.blocks}", details=details)
    print(details["markdown"])


if __name__ == "__main__":
    main()
