"""Language models as simulated users: labels by a slow twin, tokens that are no labels, sampling, guesses, rows that trainers read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cupel.annotate.exposure import Random  # noqa: E402
from cupel.annotate.language_models import CausalLM  # noqa: E402
from cupel.annotate.language_simulator import LanguageSimulator, label_probs, label_tokens, rationale_rows, write_rationales  # noqa: E402
from cupel.annotate.scene_text import SceneText  # noqa: E402
from cupel.annotate.scenes import Scenes, build_scenes  # noqa: E402
from cupel.annotate.simulator import evaluate_simulator  # noqa: E402
from cupel.curate.rationale_pairs import answer  # noqa: E402
from cupel.errors import InputError  # noqa: E402
from cupel.interactions.log import Log  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "Behavior", ":", "[", "]", ".", *"ABCDEF", "likes", "drama", "crime", "war", "Which", "option"]


def tokenizer(words: list[str] = WORDS) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def model(seed: int = 0, window: int = 256, size: int = len(WORDS)) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=window, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return CausalLM(model(), tokenizer(), batch_tokens=64)


def some_scenes(n: int = 60) -> Scenes:
    rng = np.random.default_rng(0)
    texts = tuple(f"{['drama', 'crime', 'war'][i % 3]}" for i in range(12))
    log = Log.of([*rng.integers(0, 8, n), *range(12)], [*rng.integers(0, 12, n), *range(12)], texts=texts)
    return build_scenes(log, [Random(12)], choices=(2, 4), history=2, events=np.arange(n))


def test_label_distributions_against_the_models_own_logits(lm: CausalLM) -> None:
    prompts, texts, sizes = (
        ["Which option ?", "likes war .", "Which option ?"],
        [["likes drama .", ""], ["crime", "war likes"], ["", "war"]],
        [3, 5, 2],
    )
    found, guessed = label_probs(lm, prompts, texts, sizes)
    assert not guessed.any()
    words, net = lm.template.tokenizer, lm.scorer.model
    for s, prompt in enumerate(prompts):
        assert found[s].shape == (2, sizes[s])
        for k in range(2):
            ids = words(f"{prompt} {texts[s][k]} Behavior : [")["input_ids"]
            with torch.no_grad():
                logits = net(input_ids=torch.tensor([ids])).logits[0, -1].double()
            wanted = torch.softmax(logits[[words.convert_tokens_to_ids(x) for x in "ABCDE"[: sizes[s]]]], dim=0)
            assert found[s][k] == pytest.approx(wanted.numpy(), abs=1e-5)


def test_labels_that_are_not_single_tokens_are_named() -> None:
    missing = [word for word in WORDS if word not in ("C", "E")]
    other = CausalLM(model(size=len(missing)), tokenizer(missing))
    assert len(label_tokens(other, 2)[1]) == 2
    with pytest.raises(InputError, match="one and the same: C, E"):
        label_tokens(other, 6)  # both become the unknown token, which is no label of its own


def test_labels_that_are_two_tokens_are_named() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    # C splits in two: what stands behind it moves by one place
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    from tokenizers import normalizers

    made.normalizer = normalizers.Replace("[C]", "[C .]")
    words = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    with pytest.raises(InputError, match=r"these are not: C$"):
        label_tokens(CausalLM(model(), words), 5)


def test_rationales_belong_to_prompt_and_seed_not_to_the_batch(lm: CausalLM) -> None:
    prompts = ["Which option ?", "likes war . Which option ?", "drama"]
    one = write_rationales(lm, prompts, 3, tokens=6, seed=1, batch=16)
    assert one == write_rationales(lm, prompts, 3, tokens=6, seed=1, batch=2)
    assert one[2] == write_rationales(lm, prompts[2:], 3, tokens=6, seed=1)[0]
    assert one != write_rationales(lm, prompts, 3, tokens=6, seed=2)
    assert len({text for row in one for text in row}) > 3
    assert not any(re.search(r"Behavior\s*:", text) for row in one for text in row)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 0.6)])
def test_sampled_tokens_follow_the_nucleus(lm: CausalLM, temperature: float, top_p: float) -> None:
    from cupel.annotate.language_simulator import _sample

    ids = lm.template.prompt("Which option ?")
    with torch.no_grad():
        p = torch.softmax(lm.scorer.model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature, dim=0).numpy()
    kept: list[int] = []
    for token in np.argsort(-p):
        if p[kept].sum() >= top_p:
            break
        kept.append(int(token))
    wanted = np.zeros(len(p))
    wanted[kept] = p[kept] / p[kept].sum()
    made = _sample(lm.scorer.model, lm.template.tokenizer, [ids] * 1500, list(range(1500)), temperature, top_p, 1)
    for n, word in enumerate(WORDS[4:], 4):
        assert np.mean([text == word for text in made]) == pytest.approx(wanted[n], abs=0.045)


def test_a_simulator_directly_and_with_rationales(lm: CausalLM) -> None:
    scenes = some_scenes()
    text = SceneText(scenes.log.texts or ())
    for mode in ("direct", "rationale"):
        simulator = LanguageSimulator(lm, text, mode=mode, rationales=2, tokens=4)
        told = evaluate_simulator(simulator, scenes)
        assert told.guessed == 0
        assert 0 < told.expected.low < told.expected.estimate < told.expected.high < 1
        one = simulator.simulate(scenes.memory(3), scenes.options(3))
        assert one == pytest.approx(simulator.simulate_scenes(scenes)[3], abs=1e-5)


def test_what_is_too_long_is_guessed_and_counted() -> None:
    scenes = some_scenes()
    lm = CausalLM(model(), tokenizer())
    text = SceneText(scenes.log.texts or ())
    lengths = np.array([len(lm.template.prompt(p)) for p in text.prompts(scenes, "direct")]) + 4
    limit = int(np.median(lengths))
    simulator = LanguageSimulator(lm, text, mode="direct", longest=limit)
    told = evaluate_simulator(simulator, scenes)
    assert simulator.guessed.tolist() == (lengths > limit).tolist()
    assert 0 < told.guessed == int((lengths > limit).sum()) < len(scenes)
    first = int(np.argmax(simulator.guessed))
    rows = simulator.simulate_scenes(scenes)
    assert rows[first] == pytest.approx(np.full(len(rows[first]), 1 / len(rows[first])))


def test_where_a_rationale_has_no_room_nothing_is_read_without_one() -> None:
    scenes = some_scenes()
    lm, text = CausalLM(model(), tokenizer()), SceneText(scenes.log.texts or ())
    lengths = np.array([len(lm.template.prompt(p)) for p in text.prompts(scenes)])
    lm.max_length = int(np.median(lengths)) + 20
    simulator = LanguageSimulator(lm, text, tokens=20)
    assert evaluate_simulator(simulator, scenes).guessed == (lengths + 20 > lm.max_length).sum() > 0


def test_rows_for_imitation_and_preference(lm: CausalLM) -> None:
    from cupel.records.reading import read

    scenes = some_scenes()
    text = SceneText(scenes.log.texts or ())
    weak = CausalLM(model(1), tokenizer(), batch_tokens=64)
    rows, found = rationale_rows(scenes, text, lm, weak, lm, k=3, budget=20, tokens=4)
    assert len(found.scenes) == 20
    assert 5 < len(rows) <= 20
    prompts = text.prompts(scenes)
    for row, s in zip(rows, found.pairs.scene.tolist(), strict=True):
        assert row["prompt"] == prompts[s]
        assert row["chosen"].endswith(answer("", int(scenes.chosen[s])))
        assert not row["rejected"].endswith(answer("", int(scenes.chosen[s])))
    assert len(read(rows, heldout=0)) == len(rows)
    short = CausalLM(model(window=40), tokenizer())
    with pytest.raises(InputError, match="longer than the predictor reads"):
        rationale_rows(scenes, text, short, short, short, k=1, tokens=2)


def test_bad_settings(lm: CausalLM) -> None:
    with pytest.raises(InputError, match="1 of each at least"):
        write_rationales(lm, ["x"], 0)
    with pytest.raises(InputError, match="top_p"):
        write_rationales(lm, ["x"], 1, top_p=0.0)


def test_from_scenes_to_a_trained_simulator_and_back(lm: CausalLM, tmp_path: Path) -> None:
    """Rows on disk are read unchanged by imitation and then by DPO from its model, and what DPO leaves simulates."""
    import json

    from cupel.learners.policy.learner import train_policy
    from cupel.learners.policy.options import options_of

    scenes = some_scenes(90)
    text = SceneText(scenes.log.texts or ())
    start = tmp_path / "start"
    lm.scorer.model.save_pretrained(start)
    lm.template.tokenizer.save_pretrained(start)
    rows, _ = rationale_rows(scenes, text, lm, CausalLM(model(1), tokenizer(), batch_tokens=512), lm, k=2, tokens=4)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told = {"data": str(file), "batch_tokens": 1024, "batch_size": 16, "heldout": 0.2, "device": "cpu", "warmup": 0.0, "epochs": 1}
    sft = {"kind": "sft", "objective": "sft", "model": str(start), "learning_rate": 3e-3, "out": str(tmp_path / "sft")}
    train_policy(options_of({**told, **sft}))
    dpo = {"objective": "sigmoid:beta=0.1", "model": str(tmp_path / "sft/model"), "learning_rate": 1e-3, "out": str(tmp_path / "dpo")}
    train_policy(options_of({**told, **dpo}))
    trained = CausalLM.load(tmp_path / "dpo/model")
    told_of = evaluate_simulator(LanguageSimulator(trained, text, rationales=1, tokens=4), scenes)
    assert told_of.guessed == 0
    before, after = (np.mean([np.mean(one.logprobs(row["prompt"], row["chosen"])) for row in rows[:20]]) for one in (lm, trained))
    assert after > before + 0.2
