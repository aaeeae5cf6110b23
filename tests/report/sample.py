"""A report as an audit of some nine thousand pairs gives it, and a command that writes its page: `python tests/report/sample.py OUT.html`."""
# ruff: noqa: E501  (sentences of the sample stay whole)

import sys
from pathlib import Path

import numpy as np

from cupel.report.html import render

TOPICS = [
    (
        "Is it better to have a good-looking partner or an intelligent one?",
        "You talk to a person for fifty years and look at them for five. Looks fade, wit does not.",
        "beauty is what you see first and nobody ever fell in love with an exam result, so looks, obviously!!!",
    ),
    (
        "Should schools require uniforms?",
        "Uniforms cost my parents more than ordinary clothes would, and nobody felt more equal: phones and shoes told us apart within a week.",
        "Yes, because then nobody is bullied for what they wear. A child who does not have to think about clothes in the morning has one thing less to worry about, and the school looks tidy too.",
    ),
    (
        "Does tap water beat bottled water?",
        "Tap water is tested daily, costs almost nothing and makes no rubbish. Bottled water travels hundreds of kilometres to taste the same.",
        "bottled water is cleaner becuase it is sealed",
    ),
    (
        "Should parents be allowed to choose the sex of their child?",
        "If it becomes normal, some places will have far more boys than girls; that has already happened where it was only half possible.",
        "it is there child so its there choice",
    ),
    (
        "Is the school bus better than walking?",
        "Walking wakes you up, and a kilometre is fifteen minutes.",
        "On the bus I can read, and in winter I arrive dry. Where I live there is also no pavement along half of the way.",
    ),
]


def _pair(i):
    prompt, good, poor = TOPICS[i % len(TOPICS)]
    left, right = (good, poor) if i % 2 else (poor, good)
    reasons = [
        "the other comparisons of both responses say otherwise",
        "the text alone says otherwise",
        "only this annotator chose this side",
    ]
    return {
        "id": f"ukp-{1000 + 37 * i}",
        "prompt": prompt,
        "left": left,
        "right": right,
        "recorded": ["left", "right", "tie"][i % 3 if i % 7 == 0 else i % 2],
        "annotator": f"annotator-{11 + 5 * i}",
        "suspicion": round(6.2 - 0.07 * i, 3),
        "reasons": reasons[: 1 + i % 3],
        "harmful": i == 3,
    }


def sample():
    rng = np.random.default_rng(0)
    edges = np.linspace(-6, 7, 27)
    suspicion, planted = rng.normal(-1.4, 1.6, 9394), rng.normal(1.3, 1.7, 1800)
    length_edges = np.arange(0, 1001, 50)
    chosen, rejected = rng.gamma(3.4, 85, 9394), rng.gamma(2.4, 80, 9394)
    agreement = np.sort(np.append(rng.beta(16, 5, 48), [0.31, 0.49]))
    votes = rng.integers(20, 400, 50)
    half = 1.96 * np.sqrt(agreement * (1 - agreement) / votes)
    return {
        "title": "Audit of votes.jsonl",
        "verdict": {
            "code": "train_curated",
            "sentence": "Train on the curated rows: about 12 of 100 labels are wrong, the audit sees most of them, and curation repairs the clearest.",
            "actions": [
                {
                    "text": "Look at the 100 pairs that are worth checking again; it takes about 40 minutes.",
                    "command": "cupel review out --n 100",
                },
                {
                    "text": "Feed the answers back. Nothing is encoded again.",
                    "command": "cupel audit votes.jsonl --out out --trusted out/review.csv",
                },
                {
                    "text": "Train on `train.parquet`: 31 pairs with nothing to choose are gone and 1,127 doubtful ones weigh less.",
                    "command": "cupel train reward out/train.parquet --seed 0 --out out/reward",
                },
            ],
            "would_change": [
                "check again before training, if more than 25 of 100 checked labels were wrong",
                "train on all rows as they are, if fewer than 3 of 100 checked labels were wrong",
            ],
        },
        "numbers": [
            {
                "label": "Labels that are wrong",
                "value": "12.4 %",
                "n": 100,
                "low": 0.083,
                "high": 0.171,
                "source": "trusted sample",
                "note": "What people who voted once got wrong, by 100 checked pairs.",
            },
            {
                "label": "Planted errors caught",
                "value": "46 of 100",
                "n": 9394,
                "low": None,
                "high": None,
                "source": "errors planted in 20 % of rows",
                "note": "In the worst 10 % of rows, where 50 would fit; at random 10.",
            },
            {
                "label": "Robust against plain",
                "value": "+0.2 points",
                "n": 1893,
                "low": -0.006,
                "high": 0.01,
                "source": "held-out prompts, 5 seeds",
                "note": "No gain can be shown: the interval holds zero.",
            },
        ],
        "flip_rate": {
            "basis": "trusted",
            "estimate": 0.124,
            "low": 0.083,
            "high": 0.171,
            "n": 100,
            "assumptions": [
                "the checked pairs were drawn by the stratified plan of `cupel review`, none was skipped because it was hard",
                "the trusted answers are right",
                "pairs of one prompt may share their errors: the interval is drawn over prompts",
            ],
            "details": {"strata": 5, "checked": 100, "wrong_among_checked": 38, "uniform_interval_width": 0.131},
        },
        "power": {
            "auc": 0.912,
            "auc_low": 0.904,
            "auc_high": 0.92,
            "planted_rate": 0.2,
            "caught_at": {"0.05": 0.236, "0.10": 0.462, "0.20": 0.713},
            "precision_at": {"0.05": 0.94, "0.10": 0.92, "0.20": 0.71},
            "verdict": "can_see",
            "length_biased": {"0.05": 0.19, "0.10": 0.38, "0.20": 0.61},
            "n": 9394,
        },
        "findings": [
            {
                "name": "contradictory_labels",
                "scope": "row",
                "status": "finding",
                "severity": "warning",
                "count": 412,
                "n": 9394,
                "message": "The same two responses were compared more than once and the votes disagree.",
                "examples": ["ukp-1037", "ukp-1148", "ukp-1185", "ukp-2001", "ukp-2012", "ukp-2188"],
                "remedy": "Keep them: `cupel curate` down-weights both votes and sends the closest to review.",
                "details": {"pairs": 206, "largest_group": 5},
            },
            {
                "name": "length_only_labels",
                "scope": "dataset",
                "status": "finding",
                "severity": "warning",
                "count": 6106,
                "n": 9394,
                "message": "The longer side wins 65.0 % of the time. A model that only counts characters would be right as often.",
                "examples": [],
                "remedy": "Read accuracy where the shorter side wins before believing any reward model.",
                "details": {"longer_wins": 0.65, "low": 0.641, "high": 0.66},
            },
            {
                "name": "identical_sides",
                "scope": "row",
                "status": "finding",
                "severity": "error",
                "count": 31,
                "n": 9394,
                "message": "Both sides are equal after white space and case are normalised: there is nothing to choose.",
                "examples": ["ukp-4410", "ukp-4411"],
                "remedy": "Drop them: `cupel curate` does so by default.",
                "details": {},
            },
            {
                "name": "concentration",
                "scope": "dataset",
                "status": "finding",
                "severity": "info",
                "count": 38,
                "n": 3788,
                "message": "1 % of the annotators cast 21 % of the votes.",
                "examples": ["annotator-11"],
                "remedy": "",
                "details": {"share": 0.21},
            },
            *(
                {"name": name, "scope": "row", "status": "clean", "severity": "info", "count": 0, "n": 9394}
                for name in [
                    "empty_sides",
                    "exact_duplicates",
                    "near_duplicates",
                    "cycles",
                    "format_only_labels",
                    "agreement",
                    "refusals",
                    "language_mismatch",
                    "special_tokens",
                    "cut_off_endings",
                    "personal_data",
                ]
            ),
            {
                "name": "position_bias",
                "scope": "dataset",
                "status": "not_applicable",
                "message": "the order in which the sides were shown is not recorded",
            },
            {
                "name": "contamination",
                "scope": "dataset",
                "status": "not_applicable",
                "message": "no file was given with `--against`",
            },
            {"name": "too_fast", "scope": "row", "status": "not_applicable", "message": "no answer times are recorded"},
        ],
        "curation": {
            "counts": {"keep": 8124, "reweight": 1127, "flip": 12, "drop": 31, "review": 100},
            "precision": {"flip": {"estimate": 0.93, "low": 0.78, "high": 0.99}, "reweight": 0.61},
            "ledger_entries": 1270,
        },
        "worklist": [_pair(i) for i in range(50)],
        "training": {
            "rows": [
                {
                    "model": "plain",
                    "accuracy": 0.741,
                    "low": 0.722,
                    "high": 0.76,
                    "n": 1893,
                    "seeds": 5,
                    "shorter_wins": 0.536,
                    "regularisation": 0.01,
                },
                {
                    "model": "robust (em)",
                    "accuracy": 0.743,
                    "low": 0.724,
                    "high": 0.762,
                    "n": 1893,
                    "seeds": 5,
                    "shorter_wins": 0.571,
                    "regularisation": 0.01,
                },
                {
                    "model": "length only",
                    "accuracy": 0.648,
                    "low": 0.627,
                    "high": 0.669,
                    "n": 1893,
                    "seeds": 1,
                    "shorter_wins": 0.0,
                    "regularisation": None,
                },
            ],
            "differences": [
                {"name": "robust − plain", "difference": 0.002, "low": -0.006, "high": 0.01},
                {"name": "plain − length only", "difference": 0.093, "low": 0.071, "high": 0.116},
            ],
            "reading": "Robust training is not worse than plain training here, and no gain can be shown: with errors as even as these, clean labels would not gain either.",
        },
        "annotators": [
            {
                "name": f"annotator-{11 + 5 * i}",
                "n": int(votes[i]),
                "agreement": float(agreement[i]),
                "low": max(float(agreement[i] - half[i]), 0),
                "high": min(float(agreement[i] + half[i]), 1),
            }
            for i in range(50)
        ],
        "lengths": {
            "edges": length_edges.tolist(),
            "chosen": np.histogram(chosen, length_edges)[0].tolist(),
            "rejected": np.histogram(rejected, length_edges)[0].tolist(),
            "unit": "characters",
        },
        "suspicion_hist": {
            "edges": edges.tolist(),
            "counts": np.histogram(suspicion, edges)[0].tolist(),
            "planted_counts": np.histogram(planted, edges)[0].tolist(),
        },
        "reliability": {
            "predicted": [0.35, 0.55, 0.75, 0.86, 0.97],
            "observed": [0.4, 0.5, 0.79, 0.88, 0.965],
            "low": [0.2, 0.35, 0.65, 0.78, 0.92],
            "high": [0.61, 0.66, 0.89, 0.95, 0.99],
            "n": [20, 20, 20, 20, 20],
        },
        "quarantine": {
            "n": 7,
            "reasons": {"empty side": 4, "label outside the vocabulary": 2, "duplicated id": 1},
            "first": [
                {"line": 118, "reason": "empty side", "detail": "`rejected` is empty"},
                {"line": 2044, "reason": "label outside the vocabulary", "detail": "'bothh'"},
            ],
        },
        "method": [
            "Held-out prompts were set aside before anything looked at a label. Prompts and responses were encoded apart by the embedded static encoder; suspicion of a row comes from a model that was fitted on other groups of prompts only, and from the other comparisons of the same two responses.",
            "Errors were planted by swapping the sides of known rows; the audit was run again on them. Intervals are bootstrapped over prompts.",
        ],
        "limits": [
            "Suspicion is evidence, not proof: a rare but honest taste is suspect too.",
            "Static vectors cannot see word order.",
        ],
        "run": {
            "command": "cupel refine votes.jsonl --out out --seed 0 --trusted out/review.csv",
            "seed": 0,
            "encoder": "static",
            "encoder_hash": "9f2c41d07a6be35488e1",
            "input_name": "votes.jsonl",
            "input_sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
            "versions": {"cupel": "0.1.0", "numpy": "2.2.1", "scipy": "1.15.0", "scikit-learn": "1.6.0"},
        },
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(sample(), redact="--redact" in sys.argv), encoding="utf-8")
