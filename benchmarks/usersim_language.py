"""Language models from nothing as simulated users: imitation, then DPO, on scenes in words (method card 20-usersim, reproduction C).

    python benchmarks/usersim_language.py [--data DIR] [--seeds 3] [--work DIR]

The card wants one H200 and less than 25 minutes. There is no GPU here: models, texts and the number of passes are cut until one CPU core
does it in about 16 minutes (finished cells are kept in --work, a second call goes on), and what that leaves is what is measured.
World, scenes (5 options from 2,649 validation positives), 30 % misclicks and rationales are those of `usersim.py`: K = 10 strong ones, a
genre of an option that EASE and text like, and K = 10 weak ones, a genre of the catalogue, read by its stand-in predictor. Rejection is
cupel's `select` with reject="strong" on these. A rationale says "because I like {genre}", the answer is cupel's ("Behavior: [A]").
Titles would make the vocabulary larger than the data: an item is its first genre, its decade and one of 8 words for how popular it is in
training; a person is two genres, a decade and such a word, by training positives; one earlier item is remembered. The words are split
by white space (52 tokens), the prompts are `SceneText`'s with short templates.
Two decoders (GPT-2's form: learned positions; hidden size 64 and 80, two layers, about .07 and .11 million weights) start from random
weights, are trained with the policy learner by imitation (`kind: sft`) of prompt -> rationale and label, and go on with DPO from that
model. Imitation sees each scene 14 times with its options in another order, which the letters follow, DPO once. Accuracy: the share of
clean test scenes (2 per user at most) whose most likely label, by the probabilities of the label tokens after one rationale that the
model itself writes, is the true click.
Conditions: all scenes; a random part of them, as many as rejection leaves; those that rejection leaves. Scenes that no strong rationale
explains have no chosen rationale in `select`'s pairs. In "all" and "random" they get what is nearest: the strong rationale that makes the
record most likely as chosen, the strong one of lowest entropy (with the option it leads to) as rejected.

Claims, written down before the first full run: (i) DPO after imitation is no less accurate than imitation alone, on the scenes that
rejection leaves, for both models (the estimate is at least 0); (ii) after DPO, rejection is more accurate than a random part of the
same size, and than all scenes, for both models (the interval lies above 0); (iii) rejection keeps at least .03 less noise than random, as
in reproduction A; (iv) all models are better than chance, .2, or the rest says nothing. Differences are paired by seed and test scene,
intervals resample users.

Settings were tried on seed 77 alone, which does not count. What was found there, on scenes after rejection: models first have to learn to
connect a letter with its option, and stay at .2 until they have. Two layers of 64 gave .24 after imitation with 6 orders, of 32 (8 orders)
.19, of 48 (14) .22, one layer of 64 (14) .23, two layers of 80 (14) .40. Learning rates of DPO: 3e-4 took .03 from the first of these
models, 5e-5 took .013 from the last, 2e-5 (two orders) .005. Models of this size, rotary or with learned positions, that were to read
"because I like {genre}" as the label of an option of that genre did not leave chance in about 100,000 labels: so the stand-in predictor
reads the rationales, and no language model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, write_result
from usersim import NOISE, OPTIONS, K, World, one_of, softmax, z

from cupel.annotate.scene_text import SceneText
from cupel.annotate.scenes import Scenes, misclicks
from cupel.curate.rationale_pairs import Pairs, pair_rows, select
from cupel.curate.rationales import entropy, padded, sample_behaviours
from cupel.votes.intervals import cluster_bootstrap

FAME = ("unknown", "obscure", "rare", "known", "familiar", "liked", "popular", "famous")
#: hidden size, width of the middle, layers, heads
SIZES = {"small": (64, 128, 2, 4), "large": (80, 160, 2, 4)}
CONDITIONS = ("all", "random", "rejection")
#: orders of the options in which a scene is shown, and the learner's options, to both stages
SFT = {"orders": 14, "batch_size": 64, "learning_rate": 3e-3}
DPO = {"orders": 1, "batch_size": 32, "learning_rate": 2e-5, "objective": "sigmoid:beta=0.1"}
RATIONALES, TOKENS, WINDOW = 1, 6, 64
TEMPLATES = {"scene": "$options\n$profile\n$history", "rationale": "$scene\nwhy", "direct": "$scene\nwhich"}


class Words:
    """Scenes of the world as short texts, and the tokenizer of their words."""

    def __init__(self, world: World, work: Path) -> None:
        texts = world.log.texts or ()
        found = sorted({g for text in texts for g in text.rpartition(")")[2].split()})
        self.genres = [g.lower().replace("-", "") for g in found]
        if len(self.genres) != world.genres.shape[1]:
            raise ValueError(f"{len(self.genres)} genres in the texts and {world.genres.shape[1]} first ones: they cannot be named")
        year = np.array([int((re.findall(r"\((\d{4})", text) or ["1995"])[-1]) for text in texts])
        self.decade = np.maximum(year // 10 * 10, 1930)
        edges = np.linspace(world.popular.min(), world.popular.max(), len(FAME) + 1)[1:-1]
        self.fame = np.searchsorted(edges, world.popular)
        kind = world.genres.argmax(axis=1)
        self.items = [self._words([g], d, f) for g, d, f in zip(kind, self.decade, self.fame, strict=True)]
        train = world.part == 0
        best = np.argsort(-world.profile, axis=1, kind="stable")[:, :2]
        self.profiles = []
        for u in range(world.log.shape[0]):
            mine = world.log.item[train & (world.log.user == u)]
            usual = np.bincount(self.decade[mine] // 10).argmax() * 10
            self.profiles.append(self._words(best[u], int(usual), int(np.median(self.fame[mine]))))
        work.mkdir(parents=True, exist_ok=True)
        for name, text in TEMPLATES.items():
            (work / f"{name}.txt").write_text(text + "\n", "utf-8")
        self.text = SceneText(self.items, files={name: work / f"{name}.txt" for name in TEMPLATES}, rating="")

    def _words(self, kinds: Sequence[int] | np.ndarray, decade: int, fame: int) -> str:
        return " ".join([*(self.genres[g] for g in kinds), f"{decade}s", FAME[fame]])

    def of(self, scenes: Scenes) -> Scenes:
        """The scenes as they are put into words: without times, one item remembered, something said of everybody."""
        history = tuple(rows[-1:] for rows in scenes.history)
        return replace(scenes, log=replace(scenes.log, time=None), history=history, profiles=tuple(self.profiles))

    def tokenizer(self) -> Any:
        """Words apart at white space; dots, dashes and brackets are no words."""
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        fixed = ["<pad>", "<s>", "</s>", "<unk>", *"ABCDE", "Behavior:", "why", "which", "because", "I", "like", "(nothing)"]
        said = sorted({word for text in [*self.items, *self.profiles, *self.genres] for word in text.split()})
        made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*fixed, *said])}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[.\-\[\]\s]"), "removed")
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def because(genre: str) -> str:
    """A rationale."""
    return f"because I like {genre}"


def start_model(size: str, words: Words, seed: int, place: Path) -> Path:
    """A model with random weights and its tokenizer, as a folder."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    hidden, middle, layers, heads = SIZES[size]
    tokenizer = words.tokenizer()
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=hidden, n_inner=middle, n_layer=layers, n_head=heads, n_positions=WINDOW, bos_token_id=1,
            eos_token_id=2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.08, use_cache=False,
        )
    )  # fmt: skip
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def rationales(world: World, scenes: Scenes, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Genres that the strong and the weak source name, [S, K] each: the draws of `World.sources`, which keeps distributions only."""
    rng = np.random.default_rng([seed, 26])
    content = world.content(scenes)
    liked = softmax(2 * z(np.take_along_axis(world.ease[scenes.user], scenes.exposure.astype(np.int64), axis=1)) + content)
    has, s, rows = world.genres[scenes.exposure], len(scenes), np.arange(len(scenes))[:, None]
    pick = (liked.cumsum(axis=1)[:, None] <= rng.random((s, K, 1))).sum(axis=2).clip(0, OPTIONS - 1)
    strong = one_of(has[rows, pick], world.genres.sum(axis=0), rng)
    weak = rng.choice(world.genres.shape[1], size=(s, K), p=world.genres.sum(axis=0) / world.genres.sum())
    for genres, told in zip((strong, weak), world.sources(scenes, seed), strict=True):
        again = softmax(0.5 * content[:, None] + 2 * np.swapaxes(np.take_along_axis(has, genres[:, None], axis=2), 1, 2))
        if not np.allclose(again, told):
            raise ValueError("these are not the rationales that the predictor of usersim.py has read")
    return strong, weak


def joined(one: Pairs, other: Pairs) -> Pairs:
    """Pairs of both, by scene."""
    names = ("scene", "chosen", "rejected", "weak", "behaviour")
    order = np.argsort(np.concatenate([one.scene, other.scene]), kind="stable")
    return Pairs(*(np.concatenate([getattr(one, name), getattr(other, name)])[order] for name in names))


def conditions(world: World, scenes: Scenes, recorded: np.ndarray, seed: int) -> dict[str, Pairs]:
    """The pairs of each condition; one per scene but for scenes in which every rationale leads to the record."""
    strong, weak = world.sources(scenes, seed)
    left = select(strong, weak, recorded, by="random", reject="strong", seed=seed)
    read = padded(strong, name="strong")
    did = sample_behaviours(read, seed=seed)  # as select draws
    lost = np.flatnonzero((did != recorded[:, None]).all(axis=1))
    if set(lost.tolist()) != set(np.flatnonzero(~left.explained).tolist()):
        raise ValueError("the scenes without a matching rationale are not those that select leaves out")
    likely = strong[lost, :, recorded[lost]].argmax(axis=1)
    sure = entropy(strong[lost]).argmin(axis=1)
    rest = Pairs(lost, likely, sure, np.zeros(len(lost), bool), did[lost, sure])
    every = joined(left.pairs, rest)
    drawn = np.random.default_rng([seed, 41]).permutation(len(every.scene))[: len(left.pairs.scene)]
    return {"all": every, "random": every.of(every.scene[drawn]), "rejection": left.pairs}


def rows_of(
    words: Words, scenes: Scenes, recorded: np.ndarray, pairs: Pairs, texts: Sequence[Sequence[Sequence[str]]], orders: int, seed: int
) -> list[dict[str, str]]:
    """Rows to train on, each pair `orders` times with the options in random orders."""
    rng, rows = np.random.default_rng([seed, 42]), []
    for _ in range(orders):
        place = np.argsort(rng.random(scenes.exposure.shape), axis=1)  # place[s, new] = old
        new = np.argsort(place, axis=1)  # of each old position
        click = new[np.arange(len(scenes)), recorded]
        shown = replace(scenes, exposure=np.take_along_axis(scenes.exposure, place, axis=1), chosen=click)
        moved = replace(pairs, behaviour=new[pairs.scene, pairs.behaviour])
        rows += pair_rows(moved, words.text.prompts(shown), texts[0], texts[1], click, groups=scenes.user.tolist())
    return rows


def train(rows: Sequence[dict[str, str]], model: Path, out: Path, *, seed: int, kind: str, **more: Any) -> Path:
    """One run of the policy learner over rows; the folder of its model."""
    from cupel.learners.policy.learner import train_policy
    from cupel.learners.policy.options import options_of

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told = {"data": str(out / "rows.jsonl"), "heldout": 0.0, "device": "cpu", "max_length": WINDOW, "kind": kind, "seed": seed}
    told |= {"model": str(model), "out": str(out), "warmup": 0.1, "schedule": "cosine", "epochs": 1, **more}
    train_policy(options_of(told))
    return out / "model"


def hits(words: Words, model: Path, test: Scenes, seed: int) -> list[int]:
    """1 for each test scene whose most likely label is the click."""
    from cupel.annotate.language_models import CausalLM
    from cupel.annotate.language_simulator import LanguageSimulator
    from cupel.annotate.simulator import distributions

    simulator = LanguageSimulator(CausalLM.load(model), words.text, rationales=RATIONALES, tokens=TOKENS, seed=seed)
    found = distributions(simulator, test)
    if simulator.guessed.any():
        raise ValueError(f"{int(simulator.guessed.sum())} scenes are longer than the model reads")
    return (found.argmax(axis=1) == test.chosen).astype(int).tolist()


def run(world: World, words: Words, seed: int, work: Path) -> dict[str, Any]:
    """All cells of a seed: noise kept, scenes, and hits per size, condition and stage. Finished cells are read from `work`."""
    scenes, test = (words.of(world.scenes(which, each, seed)) for which, each in ((1, 8), (2, 2)))
    recorded = misclicks(scenes, NOISE, seed=seed)
    wrong = recorded != scenes.chosen
    texts = [[[because(words.genres[g]) for g in row] for row in source] for source in rationales(world, scenes, seed)]
    parts = conditions(world, scenes, recorded, seed)
    out: dict[str, Any] = {"users": test.user.tolist(), "scenes": {}, "noise": {}, "hits": {}, "cpu_seconds": 0.0}
    fame = np.asarray(world.popular)[test.exposure]
    out["popular"] = (fame.argmax(axis=1) == test.chosen).astype(int).tolist()
    for name, pairs in parts.items():
        out["scenes"][name], out["noise"][name] = len(pairs.scene), float(wrong[pairs.scene].mean())
        for size in SIZES:
            named = json.dumps([seed, size, name, SIZES[size], SFT, DPO, RATIONALES, TOKENS, TEMPLATES, NOISE, words.items])
            file = work / f"{seed}-{size}-{name}-{hashlib.sha256(named.encode()).hexdigest()[:12]}.json"
            if not file.is_file():
                began = time.process_time()
                place = work / f"run-{seed}-{size}-{name}"
                model, found = start_model(size, words, seed, place / "start"), {}
                for stage, kind, settings in (("sft", "sft", SFT), ("dpo", "policy", DPO)):
                    told = dict(settings)
                    rows = rows_of(words, scenes, recorded, pairs, texts, int(told.pop("orders")), 10 * seed + len(found))
                    model = train(rows, model, place / stage, seed=seed, kind=kind, **told)
                    found[stage] = hits(words, model, test, seed)
                shutil.rmtree(place)
                file.write_text(json.dumps({"hits": found, "cpu_seconds": time.process_time() - began}), "utf-8")
                said = {stage: round(float(np.mean(one)), 4) for stage, one in found.items()}
                print(f"seed {seed} {size} {name}: {said}, {time.process_time() - began:.0f} CPU-s", flush=True)
            cell = json.loads(file.read_text("utf-8"))
            out["hits"][size, name] = cell["hits"]
            out["cpu_seconds"] += cell["cpu_seconds"]
    return out


def main() -> None:
    """Run every seed and write benchmarks/results/usersim_language.json."""
    import torch

    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed; the development seed is 77, and nothing is written then")
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "usersim_language", help="directory of finished cells")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = list(range(options.first, options.first + options.seeds))
    world = World(options.data / "recsys" / "ml-latest-small")
    words = Words(world, options.work)
    found = [run(world, words, seed, options.work) for seed in seeds]
    users = np.concatenate([one["users"] for one in found])

    def of(size: str, name: str, stage: str) -> np.ndarray:
        return np.concatenate([one["hits"][size, name][stage] for one in found]).astype(float)

    def claim(text: str, target: str, values: np.ndarray, passed: Any) -> dict[str, Any]:
        told = cluster_bootstrap(values, users, seed=0)
        ends = [round(float(told.low), 4), round(float(told.high), 4)]
        return {"claim": text, "target": target, "measured": round(told.estimate, 4), "interval": ends, "passed": bool(passed(told))}

    claims = []
    for size in SIZES:
        gain = of(size, "rejection", "dpo") - of(size, "rejection", "sft")
        text = f"{size} model, after rejection: accuracy of DPO less that of imitation"
        claims.append(claim(text, ">= 0", gain, lambda i: i.estimate >= 0))
        for other, why in (("random", "random scenes, as many"), ("all", "all scenes")):
            more = of(size, "rejection", "dpo") - of(size, other, "dpo")
            claims.append(claim(f"{size} model, DPO: accuracy after rejection less that of {why}", "above 0", more, lambda i: i.low > 0))
        worst = min(((name, stage) for name in CONDITIONS for stage in ("sft", "dpo")), key=lambda one: of(size, *one).mean())
        text = f"{size} model: accuracy of the worst of its six runs ({worst[0]}, {worst[1]}) less chance"
        claims.append(claim(text, "above 0", of(size, *worst) - 1 / OPTIONS, lambda i: i.low > 0))
    less = np.array([one["noise"]["random"] - one["noise"]["rejection"] for one in found])
    claims.append(
        {
            "claim": "rejection against random: misclicks kept", "target": ">= 0.03 less", "measured": round(float(less.mean()), 4),
            "interval": [round(float(less.min()), 4), round(float(less.max()), 4)], "passed": bool(less.mean() >= 0.03),
        }
    )  # fmt: skip
    table: dict[str, Any] = {}
    for name in CONDITIONS:
        row: dict[str, Any] = {key: round(float(np.mean([one[key][name] for one in found])), 4) for key in ("scenes", "noise")}
        for size in SIZES:
            for stage in ("sft", "dpo"):
                each = [float(np.mean(one["hits"][size, name][stage])) for one in found]
                spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
                row[f"{size} {stage}"] = {"mean": round(float(np.mean(each)), 4), "spread": round(spread, 4)}
        table[name] = row
        print(name, row)
    popular = float(np.mean(np.concatenate([one["popular"] for one in found])))
    print("most popular option", popular)
    if options.first:
        print(json.dumps(claims, indent=1))
        return
    details = {
        "table": table, "most popular option": round(popular, 4), "chance": 1 / OPTIONS, "test scenes": len(users),
        "interval of misclicks kept": "smallest and largest of the seeds", "imitation": SFT, "dpo": DPO,
        "parameters": {size: parameters(words, size, options.work) for size in SIZES},
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in found), 1),
    }  # fmt: skip
    command = "python benchmarks/usersim_language.py --data DIR"
    write_result("usersim_language", claims, n=len(users), seeds=seeds, command=command, details=details)


def parameters(words: Words, size: str, work: Path) -> int:
    """Weights of a model."""
    from transformers import AutoModelForCausalLM

    place = start_model(size, words, 0, work / "count")
    count = sum(one.numel() for one in AutoModelForCausalLM.from_pretrained(place).parameters())
    shutil.rmtree(place)
    return count


if __name__ == "__main__":
    main()
