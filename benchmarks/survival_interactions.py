"""Which treatment of noise survives which errors of clicks: the survival table on MovieLens (`cupel compare` on interactions).

python benchmarks/survival_interactions.py [--data DIR] [--seeds 0 1 2 3 4] [--work DIR]

0, 10, 20 and 40 % false positives (pairs that never happened) and missing positives (likes not recorded) are planted into training
and validation; BPO plain and under treatments, `l2` tuned on the corrupt validation for every cell alike; NDCG@20 per user on events
left as they are, differences from tuned plain training with intervals over users and seeds. Finished blocks are kept in --work.

A first run let `l2` be .001 or .01: every cell chose .01, the edge, and the surrogate then seemed to gain 1.1 to 2.7 points. A larger `l2`
gives plain training about half of that as well. The values were changed for that reason, after looking. Seeds 3 and 4 were added, and their
blocks computed later, when intervals learned to count what three seeds do not tell.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from common import HERE, arguments, versions, write_result
from recsys_data import standard

from cupel.compare.interactions import InteractionOptions, cases_of, compare_log
from cupel.stages import Stages

RATES = [0.1, 0.2, 0.4]
TREATMENTS = (
    "identity", "missed:rate=0.5,form=surrogate", "missed:rate=0.3,form=exact", "missed:rate=0.3,form=nonnegative",
    "em:flip=0.1,by=annotator", "unbiased:flip=0.1", "tempered:power=0.7", "trimmed:share=0.1",
)  # fmt: skip


def main() -> None:
    """Run what is missing, judge, write."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "survival_interactions")
    given = parser.parse_args()
    log = standard(given.data).kept
    options = InteractionOptions(
        objectives=("bpo",), treatments=TREATMENTS, seeds=tuple(given.seeds), cases=cases_of(["none", "false_positives", "missing"], RATES),
        ridges=(1e-2, 2e-2, 5e-2), epochs=40, batch_size=4096, learning_rate=1e-2,
    )  # fmt: skip
    given.work.mkdir(parents=True, exist_ok=True)
    found = compare_log(
        "MovieLens latest-small", log, options, stages=Stages(given.work), key={"log": "standard"},
        progress=lambda stage, done, total: print(stage, done, total, flush=True),
    )  # fmt: skip
    claims = []
    for case in (case.label for case in options.cases):
        for objective in options.objectives:
            base = found.baseline(objective, case)
            best = max((c for c in found.cells if (c.objective, c.case) == (objective, case)), key=lambda c: c.gain)
            pick = next(c for c in found.recommendations if (c.objective, c.case) == (objective, case))
            claims.append(
                {
                    "claim": f"{objective}, {case}: what noisy validation recommends against tuned plain, NDCG@20 in points",
                    "target": "lower end > -0.5", "measured": 100 * pick.gain, "interval": [100 * pick.low, 100 * pick.high],
                    "passed": 100 * pick.low > -0.5,
                }
            )  # fmt: skip
            said = f"plain {base.tuned_plain:.4f} clean {base.clean:.4f} best {best.treatment} {100 * best.gain:+.2f}"
            print(f"{objective:14s} {case:32s} {said}")
    others = [c for c in found.cells if c.treatment != "identity"]
    sure = [c for c in others if c.all_low > 0]
    claims.append(
        {
            "claim": "cells of a treatment that beat tuned plain training with all intervals at once", "target": "at least one",
            "measured": f"{len(sure)} of {len(others)}", "passed": bool(sure),
        }
    )  # fmt: skip
    write_result(
        "survival_interactions", claims, n=f"{len(log):,} events, {log.shape[0]} users", seeds=given.seeds,
        command="python benchmarks/survival_interactions.py",
        details={"table": found.to_json(), "options": asdict(options), "versions": versions()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
