"""One table over all benchmarks: `python benchmarks/table.py` rewrites benchmarks/README.md, the measured results in README.md, and
docs/survival.md.

All are made from `benchmarks/results/*.json` alone and stand between markers; everything outside the markers is left as it is.
`--check` writes nothing and exits 1 where a table is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import HEADER, HERE, RESULTS, row_cells, show, show_interval
from gaps import gaps
from learning_plot import learning_picture, learning_table

ROOT = HERE.parent

#: What README's first screen shows: (benchmark, words that its claim contains). Claims that fail are shown as failed.
HEADLINES: tuple[tuple[str, str], ...] = (
    ("detection", "AUC, content only, 20 % planted, strict pairs"),
    ("detection", "AUC, graph and content, 20 % planted, strict pairs"),
    ("detection", "wrong labels in the first 100 of the worklist / in 100 at random, 0 % planted, strict pairs"),
    ("bounds", "truth inside the bounds of basis single, all runs"),
    ("bounds", "mean width of the bounds on ukp"),
    ("label_error", "trusted, ukp 20 %, n = 100: the interval covers the truth"),
    ("label_error", "trusted, ukp 20 %, n = 100: mean width"),
    ("cannot_tell", "labels are coin flips, ukp texts"),
    ("cannot_tell", "ukp, 0-30 % planted"),
    ("cannot_tell", "blimp, pairs held out (paradigms seen)"),
    ("robust_training", "adversarial: robust minus tuned plain"),
    ("robust_training", "robust minus itself with annotator ids shuffled"),
    ("robust_training", "20 % symmetric flips"),
    ("recommenders", "test NDCG@20 of our BPR (mf, mean of 3 seeds)"),
    ("recommenders", "our best single model on validation (EASE + order + content) minus EASE"),
    ("survival_interactions", "bpo, false_positives 20 %"),
    ("main_job", "demo from nothing"),
    ("main_job", "from raw text (seconds)"),
)


def load(directory: Path = RESULTS) -> list[dict[str, Any]]:
    """All results, sorted by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]


def full_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One section per benchmark: its command, and a row for each claim."""
    parts = [summary(results)]
    for result in results:
        table = _markdown(HEADER, [row_cells(row) for row in result["claims"]])
        lines = [f"### {result['name']}", "", f"`{result['command']}`", "", *table]
        stated = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
        machine = result["machine"]
        lines += ["", f"{machine['cores']} cores, {machine['system']} {machine['processor']}; {stated}."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """How many claims hold, by benchmark, and each that does not."""
    if not results:
        return "No benchmark has been run yet."
    rows = []
    for result in results:
        failed = [row["claim"] for row in result["claims"] if not row["passed"]]
        rows.append([result["name"], f"{len(result['claims']) - len(failed)} of {len(result['claims'])}", "; ".join(failed) or "-"])
    return "\n".join(_markdown(["benchmark", "claims that hold", "claims that fail"], rows))


def gap_table(results: Sequence[Mapping[str, Any]]) -> str:
    """What the fast paths could at best reach, and what was measured."""
    return "\n".join(_markdown(["", "bound", "measured", "apart by", "what bounds it", "benchmark"], gaps(results)))


def headline_table(results: Sequence[Mapping[str, Any]], headlines: Sequence[tuple[str, str]] = HEADLINES) -> str:
    """The claims of `headlines` as one table, and the count of all; raises LookupError where a headline matches no single claim."""
    by_name = {result["name"]: result for result in results}
    rows = []
    for name, words in headlines:
        found = [row for row in by_name.get(name, {"claims": []})["claims"] if words in row["claim"]]
        if len(found) != 1:
            raise LookupError(f"headline {words!r} of {name}: {len(found)} claims contain these words, one must")
        row = found[0]
        mark = "pass" if row["passed"] else "**fail**"
        interval = "" if row["interval"] is None else f" {show_interval(row['interval'])}"
        rows.append([row["claim"], row["target"], show(row["measured"]) + interval, show(row["n"]), mark])
    table = "\n".join(_markdown(["claim", "target", "measured", "n", ""], rows)) + "\n\n" if rows else ""
    claims = [row for result in results for row in result["claims"]]
    held = sum(row["passed"] for row in claims)
    where = "All of them, with seeds, intervals and commands: [benchmarks](benchmarks/README.md)."
    return f"{table}{held} of {len(claims)} claims hold. {where}"


#: the sets of the survival table and what README calls them: noise tied to annotators and texts, and symmetric flips
BY_CAUSE = {"blimp_annotators": "blimp", "ukp_single_annotators": "ukp"}
SYMMETRIC = {"blimp": "blimp", "gsm8k": "gsm8k", "ukp_single": "ukp single", "ukp_votes": "ukp all votes"}


def survival_tables(results: Sequence[Mapping[str, Any]], objective: str = "sigmoid:beta=1") -> str:
    """README's survival tables: tuned plain training and what each treatment adds to it, with one objective."""
    found = next((result["details"] for result in results if result["name"] == "survival"), {})
    parts = []
    for sets in (BY_CAUSE, SYMMETRIC):
        columns: dict[str, dict[str, str]] = {}
        for name in (name for name in sets if name in found):
            for case, cells in _grid(found[name]["markdown"], objective).items():
                if sets is BY_CAUSE or case in ("symmetric 0 %", "symmetric 20 %", "symmetric 40 %"):
                    columns[f"{sets[name]}: {_brief(case)}"] = cells
        if not columns:
            continue
        rows = list(dict.fromkeys(row for cells in columns.values() for row in cells))
        table = [[_named(row), *(cells.get(row, "") for cells in columns.values())] for row in rows]
        parts.append("\n".join(_markdown(["", *columns], table)))
    cells = [case for name in SYMMETRIC if name in found for cases in found[name]["summary"].values() for case in cases.values()]
    if cells:
        n, better, worse = (sum(case[key] for case in cells) for key in ("objectives", "surely_better", "surely_worse"))
        parts.append(
            f"Of all {n:,} cells under symmetric flips (every objective, treatment, rate and set), {better} are better than tuned plain "
            f"training with all intervals at once and {worse} worse."
        )
    return "\n\n".join(parts) or "The survival table has not been measured yet."


def clicks_table(results: Sequence[Mapping[str, Any]]) -> str:
    """README's survival table of clicks: tuned plain training and what each treatment adds to it."""
    found = next((result["details"]["table"] for result in results if result["name"] == "survival_interactions"), None)
    if found is None:
        return "The survival table of clicks has not been measured yet."
    cases = list(dict.fromkeys(cell["case"] for cell in found["cells"]))
    columns = [case.replace("_", " ").replace(" by=uniform", "").replace("none", "as they are") for case in cases]
    plain = {entry["case"]: entry for entry in found["baselines"]}
    rows = [["tuned plain", *(f"{plain[case]['tuned_plain']:.3f}" for case in cases)]]
    rows.append(["plain on the log as it was", *(f"{plain[case]['clean']:.3f}" for case in cases)])
    for name in dict.fromkeys(cell["treatment"] for cell in found["cells"] if cell["treatment"] != "identity"):
        cells = {cell["case"]: cell for cell in found["cells"] if cell["treatment"] == name}
        said = {case: f"{100 * cell['gain']:+.1f}" for case, cell in cells.items()}
        sure = {case for case, cell in cells.items() if cell["all_low"] > 0 or cell["all_high"] < 0}
        rows.append([f"`{name}`", *(f"**{said[case]}**" if case in sure else said[case] for case in cases)])
    picked = {entry["case"]: entry for entry in found["recommendations"]}
    rows.append(["recommended by noisy validation", *(f"{100 * picked[case]['gain']:+.1f}" for case in cases)])
    return "\n".join(_markdown(["", *columns], rows))


def survival_page(results: Sequence[Mapping[str, Any]]) -> str:
    """Every cell of every set, with every objective."""
    found = next((result["details"] for result in results if result["name"] == "survival"), {})
    texts = [found[name]["markdown"].replace("\n## ", "\n### ").replace("# Survival table: ", "## ", 1).strip() for name in sorted(found)]
    return "\n\n".join(texts) or "The survival table has not been measured yet."


def _grid(markdown: str, objective: str) -> dict[str, dict[str, str]]:
    """Cells by column and row of the section of one objective."""
    section = markdown.split(f"## {objective}\n", 1)[1].split("\n## ", 1)[0]
    lines = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in section.splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in section.strip().splitlines()[0].split("|")[2:-1]]
    return {column: {cells[0].strip("` "): cells[n + 1] for cells in lines[2:]} for n, column in enumerate(header)}


def _brief(case: str) -> str:
    if case.startswith("annotators"):
        return "annotators, names shuffled" if "shuffled" in case else "annotators"
    return case.replace("symmetric ", "")


def _named(row: str) -> str:
    words = {
        "clean": "plain on clean labels", "em:flip=0.2,by=annotator,schedule=full,warmup=0": "`em:by=annotator`",
        "em:flip=0.2,share=0.5,warmup=0": "`em`", "trimmed:share=0.2": "`trimmed`", "peer_review:drop=0.2,ramp=0": "`peer_review`",
        "distributionally_robust:temperature=1": "`distributionally_robust`", "tempered:power=0.7": "`tempered`",
        "conservative:flip=0.2": "`conservative`", "unbiased:flip=0.2": "`unbiased`",
    }  # fmt: skip
    return words.get(row, row)


def learning_block(results: Sequence[Mapping[str, Any]]) -> str:
    """README's table of the learning benchmark, and what it rests on; "" where it has no result."""
    result = next((entry for entry in results if entry["name"] == "policy_learning"), None)
    if result is None:
        return ""
    seen, unseen = learning_table(result), learning_table(result, "unseen")
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    words = [
        f"Per cent of {result['details']['n_seen']:,} new pairs of the same 44 paradigms that the model ranks as the grammar does, with "
        f"the 95 % interval over paradigms and seeds ({seeds}):",
        "", *_markdown(seen[0], seen[1:]), "",
        f"{result['details']['n_unseen']:,} pairs of 11 paradigms of which it saw none:", "", *_markdown(unseen[0], unseen[1:]), "",
        f"`{result['command']}` makes all of it; {len(result['details']['not_finished'])} of its columns are not finished.",
    ]  # fmt: skip
    return "\n".join(words)


def replace_block(text: str, marker: str, content: str) -> str:
    """`text` with what stands between `<!-- marker -->` and `<!-- /marker -->` replaced; ValueError without both markers."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the markers {begin} and {end} must each occur once")
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def pages(results: Sequence[Mapping[str, Any]]) -> dict[Path, str]:
    """The files as they should be."""
    wanted = {
        HERE / "README.md": {"gaps": gap_table(results), "results": full_table(results)},
        ROOT / "README.md": {
            "claims": headline_table(results), "survival": survival_tables(results), "clicks": clicks_table(results),
            "learning": learning_block(results),
        },
        ROOT / "docs" / "survival.md": {"survival": survival_page(results)},
    }
    found = {}
    for path, blocks in wanted.items():
        text = path.read_text(encoding="utf-8")
        for marker, block in blocks.items():
            text = replace_block(text, marker, block)
        found[path] = text
    for result in results:
        if result["name"] == "policy_learning":
            found[ROOT / "docs" / "_static" / "learning.svg"] = learning_picture(result)
    return found


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *(line(row) for row in rows)]


def main() -> int:
    """Rewrite the tables, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is out of date")
    args = parser.parse_args()
    wanted = pages(load())
    stale = {path: text for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        if args.check:
            print(f"{path.relative_to(ROOT)} is not what benchmarks/results says; run: python benchmarks/table.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
