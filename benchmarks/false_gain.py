"""No false gain: held-out labels may be anything, and nothing that is trained changes by a byte.

    python benchmarks/false_gain.py [--data DIR] [--seeds 3]

Audit, curation, ledger and both reward models are made twice: from the votes, and from the votes with the labels of the held-out rows
permuted among them. Every file that training writes is compared byte for byte. Beside it stands what the same audit would have gained
on paper by cleaning the held-out labels too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import arguments, write_result
from datasets import ukp_strict_single, ukp_votes

from cupel.audit.run import AuditOptions, run_audit
from cupel.evaluate.paired import evaluate
from cupel.learners.reward import RewardModel, train_reward
from cupel.learners.treatments import default_treatment
from cupel.records.corrupt import one_vote_per_pair
from cupel.records.files import sha256_file, write_parquet
from cupel.records.schema import HELDOUT, Votes
from cupel.records.splits import assign


def permuted(votes: Votes, seed: int) -> Votes:
    """The votes with the outcomes of the held-out rows permuted among them."""
    held = np.flatnonzero(votes.split == HELDOUT)
    order = np.random.default_rng([seed, 51]).permutation(held)
    outcome, p, w = votes.outcome.copy(), votes.p.copy(), votes.w.copy()
    outcome[held], p[held], w[held] = votes.outcome[order], votes.p[order], votes.w[order]
    return votes.with_(outcome=outcome, p=p, w=w)


def train_everything(votes: Votes, out: Path, seed: int, cache: Path | None) -> dict[str, str]:
    """SHA-256 of every file that training from an audit writes."""
    audit = run_audit(votes, AuditOptions(seed=seed), cache=cache)
    curated = audit.curate()
    write_parquet(out / "train.parquet", curated.to_table())
    curated.ledger.write(out / "ledger.jsonl")
    train_reward(votes.train, seed=seed, cache=cache).save(out / "reward-plain")
    train_reward(curated.train, treatment=default_treatment(curated.train), seed=seed, cache=cache).save(out / "reward-robust")
    return {str(file.relative_to(out)): sha256_file(file) for file in sorted(out.rglob("*")) if file.is_file()}


def paper_gain(votes: Votes, model: RewardModel) -> dict[str, float]:
    """Accuracy of one and the same model on recorded held-out labels, and on those labels after the model has 'cleaned' them."""
    held = votes.heldout
    margin = model.margin(held)
    before = evaluate(margin, on=held, draws=200).accuracy["votes"]["plain"].estimate
    doubted = (margin * held.sign < 0) & (np.abs(margin) > np.quantile(np.abs(margin), 0.5))
    turned = held.with_(outcome=np.where(doubted, 1 - held.outcome, held.outcome).astype(np.int8))
    after = evaluate(margin, on=turned, draws=200).accuracy["votes"]["plain"].estimate
    return {"recorded": float(before or 0), "cleaned_by_itself": float(after or 0)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=None)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    many = ukp_votes(given.data, consensus=True).votes
    some = np.random.default_rng(0).permutation(int(many.pair.max()) + 1)[:3000]
    sets = {
        "ukp, one vote per strict pair": ukp_strict_single(given.data).votes,
        "ukp, all votes on 3,000 pairs": many.take(np.isin(many.pair, some)),
        "ukp, one vote on 3,000 pairs": one_vote_per_pair(many.take(np.isin(many.pair, some)), 0),
    }
    claims, details = [], {}
    for name, raw in sets.items():
        votes, same, files, moved = assign(raw, seed=0), 0, 0, 0
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            reference = train_everything(votes, place / "as recorded", 0, given.cache)
            details[name] = paper_gain(votes, RewardModel.load(place / "as recorded" / "reward-plain", cache=given.cache))
            for seed in seeds:
                other = permuted(votes, seed)
                moved += int((other.outcome != votes.outcome).sum())
                found = train_everything(other, place / str(seed), 0, given.cache)
                files += len(reference)
                same += sum(found.get(file) == digest for file, digest in reference.items())
        claims.append(
            {"claim": f"{name}: training files identical after permuting held-out labels", "target": f"{files} of {files}",
             "measured": f"{same} of {files} ({moved:,} held-out labels changed)", "n": len(votes), "seeds": seeds,
             "passed": same == files and moved > 0}
        )  # fmt: skip
        print(claims[-1]["claim"], claims[-1]["measured"], details[name], flush=True)
    command = f"python benchmarks/false_gain.py --seeds {given.seeds}"
    write_result("false_gain", claims, n=sum(claim["n"] for claim in claims), seeds=seeds, command=command, details={"paper_gain": details})
    sys.exit(0 if all(claim["passed"] for claim in claims) else 1)


if __name__ == "__main__":
    main()
