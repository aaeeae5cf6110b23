"""TRL's trainers under cupel: plain training is TRL's; weights, p, annotators, steps and checkpoints do what they say.

Tiny models from a configuration and a tokenizer made here; nothing is downloaded. Run against another TRL by putting it on PYTHONPATH.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed: pip install cupel[trl]"),
    pytest.mark.filterwarnings("ignore"),  # TRL's and transformers' own
]

GOOD, BAD = ["good", "fine", "nice", "clear", "sharp"], ["bad", "poor", "ugly", "dull", "less"]
WORDS = ["<pad>", "<eos>", "<unk>", "say", "it", "more", "that", "this", *GOOD, *BAD]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # TRL asks nobody then


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("<eos>", "isolated")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def model(kind: str = "dpo", seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32,
        pad_token_id=0, eos_token_id=1, bos_token_id=1, num_labels=1 if kind == "reward" else 2, initializer_range=0.5,
    )  # fmt: skip
    return (LlamaForSequenceClassification if kind == "reward" else LlamaForCausalLM)(config)


def rows(n: int = 12) -> list[dict[str, Any]]:
    return [
        {"prompt": "say it", "chosen": f" {GOOD[i % 5]}" * (1 + i % 3), "rejected": f" {BAD[i * 2 % 5]}" * (1 + i % 2)} for i in range(n)
    ]  # fmt: skip


def trained(
    tmp_path: Path, data: list[dict[str, Any]], kind: str = "dpo", *, trl: bool = False, resume: Any = None, base: Any = None,
    options: dict[str, Any] | None = None, made: dict[str, Any] | None = None, eval_data: Any = None, run: bool = True,
) -> Any:  # fmt: skip
    """A trainer that has trained: TRL's own with `trl`, else ours; `options` are of the config, `made` of the trainer."""
    import trl as upstream
    from datasets import Dataset

    from cupel.adapters import trl as ours

    settings = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 0.1, "optim": "sgd",
        "bf16": False, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "gradient_checkpointing": False, "use_cpu": True,
        "report_to": [], "seed": 3, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, **(options or {}),
    }  # fmt: skip
    base = model(kind) if base is None else base
    made = dict(made or {})
    if kind == "dpo" and "peft_config" not in made:
        made["ref_model"] = model(kind, seed=1)
    home = upstream if trl else ours
    trainer = (home.DPOTrainer if kind == "dpo" else home.RewardTrainer)(
        model=base, args=(upstream.DPOConfig if kind == "dpo" else upstream.RewardConfig)(**settings),
        train_dataset=Dataset.from_list(data), eval_dataset=None if eval_data is None else Dataset.from_list(eval_data),
        processing_class=tokenizer(), **made,
    )  # fmt: skip
    if run:
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def moved(trainer: Any) -> torch.Tensor:
    """All trained parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def same(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    """Equal parameters, relative to how far training has moved them."""
    x, y = moved(a), moved(b)
    kind = "reward" if hasattr(a.model, "score") else "dpo"
    start = torch.cat([p.detach().flatten() for p in model(kind).parameters()])
    assert start.shape == x.shape
    assert (x - start).norm() > 1e-3, "nothing was learned"
    assert (x - y).norm() <= tolerance * (x - start).norm() + 1e-7 * x.norm()


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_plain_training_is_trls(kind: str, tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **({"beta": 0.3} if kind == "dpo" else {})}
    data = rows()
    if kind == "reward":
        data = [{**row, "margin": 0.25 * (i % 3)} for i, row in enumerate(data)]
        options["center_rewards_coefficient"] = 0.05
    theirs = trained(tmp_path, data, kind, trl=True, options=options)
    ours = trained(tmp_path, data, kind, options=options)
    same(theirs, ours)
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), rel=1e-6, abs=1e-6)
    for name in set(theirs.state.log_history[0]) - {"loss", "grad_norm"}:
        assert logged(ours, name) == pytest.approx(logged(theirs, name), rel=1e-5), name


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "apo_zero", "exo_pair"])
def test_loss_and_gradient_of_a_batch_are_trls(loss_type: str, tmp_path: Path) -> None:
    options = {"loss_type": loss_type, "beta": 0.3, "label_smoothing": 0.01 if loss_type == "exo_pair" else 0.0}
    found = []
    for trl in (True, False):
        trainer = trained(tmp_path, rows(7), trl=trl, options={**options, "per_device_train_batch_size": 7}, run=False)
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    (loss, gradient), (our_loss, our_gradient) = found
    assert our_loss == pytest.approx(loss, rel=1e-6)
    assert (our_gradient - gradient).norm() <= 1e-6 * gradient.norm()


def test_sums_over_the_step_not_means_of_means(tmp_path: Path) -> None:
    whole = trained(tmp_path, rows(5), options={"per_device_train_batch_size": 5})
    parts = trained(tmp_path, rows(5), options={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3})
    same(whole, parts, 1e-5)
    theirs = trained(tmp_path, rows(5), trl=True, options={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3})
    assert (moved(theirs) - moved(whole)).norm() > 1e-2 * (moved(whole) - moved(trained(tmp_path, rows(5), run=False))).norm()


def test_a_row_of_weight_nothing_has_no_influence(tmp_path: Path) -> None:
    data = [{**row, "weight": 0.0 if i == 2 else 1.0} for i, row in enumerate(rows(6))]
    other = [{**row, "chosen": " that this", "rejected": " more"} if i == 2 else row for i, row in enumerate(data)]
    found = trained(tmp_path, data)
    same(found, trained(tmp_path, other), 1e-5)
    heavier = trained(tmp_path, [{**row, "weight": 1.0} for row in data])
    assert (moved(heavier) - moved(found)).norm() > 1e-3


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_p_of_nothing_is_the_other_label(kind: str, tmp_path: Path) -> None:
    said = [{**row, "p": 0.0 if i % 3 == 0 else 1.0} for i, row in enumerate(rows())]
    swapped = [{**r, "p": 1.0, "chosen": r["rejected"], "rejected": r["chosen"]} if r["p"] == 0 else r for r in said]
    ours = trained(tmp_path, said, kind)
    same(ours, trained(tmp_path, swapped, kind), 1e-5)
    assert logged(ours, "cupel/p")[0] < 1


@pytest.mark.parametrize("treatment", ["small_loss:drop=0.25,ramp=0", "em:flip=0.2,share=0.3,warmup=0 + trimmed:share=0.25"])
def test_micro_batches_are_one_step(treatment: str, tmp_path: Path) -> None:
    """Tokens, statistics of the step, and a treatment that ranks it."""
    from cupel.objectives import beta_dpo, kto_pair, length_desensitised

    objective = length_desensitised(beta_dpo(0.5)) if treatment.startswith("small") else kto_pair(0.5)
    data = [{**row, "weight": 1 + i % 2} for i, row in enumerate(rows(8))]
    made = {"objective": objective, "treatment": treatment}
    whole = trained(tmp_path, data, made=made, options={"per_device_train_batch_size": 8, "num_train_epochs": 3})
    parts = trained(
        tmp_path, data, made=made,
        options={"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "num_train_epochs": 3},
    )  # fmt: skip
    same(whole, parts, 1e-4)
    assert logged(parts, "cupel/w") == pytest.approx(logged(whole, "cupel/w"), rel=1e-5)


def test_the_reference_runs_once_for_each_comparison(tmp_path: Path) -> None:
    made = {"objective": "sigmoid:beta=0.5", "treatment": "small_loss:drop=0.25,ramp=0"}
    for objective, expected in (("sigmoid:beta=0.5", 4), ("simpo", 0)):
        trainer = trained(
            tmp_path, rows(8), made={**made, "objective": objective}, run=False,
            options={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        )  # fmt: skip
        calls: list[int] = []
        trainer.ref_model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        assert len(calls) == expected, objective


def test_em_finds_the_annotator_who_contradicts(tmp_path: Path) -> None:
    data = [{**row, "annotator": ["ann", "bob", "cem"][i // 6 % 3], "group": None} for i, row in enumerate(rows(72))]
    data = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} if r["annotator"] == "cem" else r for r in data]
    trainer = trained(
        tmp_path, data, "reward", made={"treatment": "em:flip=0.2,by=annotator,share=0.3,warmup=4"},
        options={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_train_epochs": 8, "learning_rate": 0.3},
    )  # fmt: skip
    assert trainer.data_spec.annotators == ("ann", "bob", "cem")
    ann, bob, cem = trainer.treatment_state["reliability@annotator"].tolist()
    assert ann > 0.8
    assert bob > 0.8
    assert cem < 0.4
    assert logged(trainer, "cupel/flip_rate")[-1] == pytest.approx(1 - (ann + bob + cem) / 3, abs=5e-3)


def test_a_resumed_run_ends_as_the_whole_one(tmp_path: Path) -> None:
    from cupel.noise.state import state_digest

    data = [{**row, "annotator": "ab"[i % 2], "id": f"row {i}"} for i, row in enumerate(rows(16))]
    made = {"objective": "beta_dpo:beta=0.5", "treatment": "em:flip=0.2,by=annotator,schedule=full,warmup=0"}
    options: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2, "save_steps": 3}
    options |= {"save_strategy": "steps"}
    whole = trained(tmp_path / "a", data, made=made, options=options)
    checkpoint = tmp_path / "a" / "checkpoint-3"
    assert (checkpoint / "cupel_treatment.safetensors").is_file()
    resumed = trained(tmp_path / "b", data, made=made, options=options, resume=str(checkpoint))
    assert state_digest(resumed.treatment_state) == state_digest(whole.treatment_state)
    assert torch.equal(moved(resumed), moved(whole))
    started = trained(tmp_path / "c", data, made=made, options=options, run=False)
    assert state_digest(started.treatment_state) != state_digest(whole.treatment_state)
    (checkpoint / "cupel_treatment.safetensors").unlink()
    from cupel.errors import InputError

    with pytest.raises(InputError, match="no state of a treatment"):
        trained(tmp_path / "d", data, made=made, options=options, resume=str(checkpoint))


def test_an_evaluation_takes_the_labels_as_the_data_state_them(tmp_path: Path) -> None:
    held_out = [{**row, "p": 0.25, "weight": 2.0, "annotator": "nobody"} for row in rows(3)]
    trainer = trained(tmp_path, rows(6), eval_data=held_out, made={"objective": "sigmoid:beta=0.5", "treatment": "unbiased:flip=0.2"})
    steps, state = trainer.state.global_step, trainer.treatment_state
    found = trainer.evaluate()
    assert found["eval_loss"] > 0
    again = trainer.evaluate(trainer.eval_dataset.select_columns(["prompt", "chosen", "rejected", "p", "weight"]))
    assert again == {**found, **_times(again)}
    last = trainer.state.log_history[-1]
    assert (last["eval_cupel/p"], last["eval_cupel/w"]) == (0.25, 2.0)
    assert "eval_rewards/margins" in last
    plain = trainer.evaluate(trainer.eval_dataset.select_columns(["prompt", "chosen", "rejected"]))
    assert plain["eval_loss"] != pytest.approx(found["eval_loss"])
    assert (steps, state) == (trainer.state.global_step, trainer.treatment_state)


def _times(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.endswith(("runtime", "per_second"))}


def test_precomputed_references_and_adapters(tmp_path: Path) -> None:
    live = trained(tmp_path, rows())
    same(live, trained(tmp_path, rows(), options={"precompute_ref_log_probs": True}), 1e-5)
    peft = pytest.importorskip("peft")
    found = []
    for trl in (True, False):
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=True)
        found.append(moved(trained(tmp_path, rows(), trl=trl, made={"peft_config": config})))
    assert (found[0] - found[1]).norm() <= 1e-6 * found[0].norm()


def test_all_tokens_of_both_models(tmp_path: Path) -> None:
    """wpo and ld_dpo read what TRL computes for each token; ld_dpo at alpha 1 is DPO. Weights of wpo are small: large steps."""
    plain = trained(tmp_path, rows(6), made={"objective": "sigmoid:beta=0.1"})
    same(plain, trained(tmp_path, rows(6), made={"objective": "ld_dpo:alpha=1,beta=0.1"}), 1e-4)
    options = {"use_weighting": True, "learning_rate": 10.0}
    weighted = trained(tmp_path, rows(6), made={"objective": "wpo"}, options=options)
    same(trained(tmp_path, rows(6), trl=True, options=options), weighted, 1e-5)


@pytest.mark.parametrize(
    ("kind", "made", "options", "extra", "message"),
    [
        ("dpo", {"objective": "sigmod"}, {}, {}, "did you mean sigmoid"),
        ("dpo", {"objective": "tdpo"}, {}, {}, "needs divergence"),
        ("dpo", {"objective": "bradley_terry"}, {}, {}, "needs score"),
        ("reward", {"objective": "sigmoid"}, {}, {}, "needs logp, reference"),
        ("reward", {"objective": "bradley_terry:rated=1"}, {}, {}, "add a column 'margin'"),
        ("reward", {"objective": "thurstone"}, {}, {"margin": 1.0}, "does not read the column 'margin'"),
        ("reward", {}, {}, {"margin": -1.0}, "12 of 12 rows"),
        ("dpo", {"objective": "ld_dpo"}, {"precompute_ref_log_probs": True}, {}, "precompute_ref_log_probs=False"),
        ("dpo", {"objective": "wpo"}, {}, {}, "use_weighting=True"),
        ("dpo", {"objective": "gpo"}, {}, {"chosen_rating": 1.0, "rejected_rating": 0.0}, "needs rating.*cupel train policy reads them"),
        ("dpo", {"objective": "ipo"}, {"loss_type": "hinge"}, {}, "loss_type=.*would have no effect"),
        ("dpo", {"objective": "ipo:beta=0.2"}, {"beta": 0.5}, {}, "has beta=0.2"),
        ("dpo", {}, {"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0, 1.0]}, {}, "weighted_sum"),
        ("dpo", {}, {"loss_type": "robust"}, {}, "the treatment `unbiased`"),
        ("dpo", {}, {"ld_alpha": 0.5}, {}, "ld_dpo"),
        ("dpo", {"objective": "aot"}, {"gradient_accumulation_steps": 2}, {}, "2 micro-batches"),
        ("dpo", {"objective": "aot"}, {}, {"p": 0.5}, "cannot be swapped"),
        ("dpo", {"objective": "aot", "treatment": "em"}, {}, {}, "changes p"),
        ("dpo", {"treatment": "em:by=annotator"}, {}, {}, "add a column 'annotator'"),
        ("dpo", {"treatment": "peer_review:drop=0.2,ramp=0"}, {}, {}, "second model"),
        ("dpo", {"treatment": "emm"}, {}, {}, "did you mean em"),
        ("dpo", {}, {}, {"weight": -1.0}, "12 of 12 rows .first: row 0"),
        ("dpo", {}, {}, {"p": 1.5}, "not a probability"),
        ("dpo", {}, {}, {"id": "one"}, "11 of 12 rows .first: row 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_at_construction(
    kind: str, made: dict[str, Any], options: dict[str, Any], extra: dict[str, Any], message: str, tmp_path: Path
) -> None:
    from cupel.errors import InputError

    with pytest.raises(InputError, match=message):
        trained(tmp_path, [{**row, **extra} for row in rows()], kind, made=made, options=options, run=False)


@pytest.mark.parametrize("method", ["compute_loss", "compute_ref_log_probs", "_set_signature_columns_if_needed", "get_batch_samples"])
def test_a_hook_that_is_gone_is_named(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl

    from cupel.errors import InputError

    def changed(self: Any) -> None:
        """Takes nothing."""

    if method.startswith("_"):
        for parent in trl.DPOTrainer.__mro__:
            if method in vars(parent):
                monkeypatch.delattr(parent, method)
        expected = "is not there"
    else:
        monkeypatch.setattr(trl.DPOTrainer, method, changed)
        expected = "has no argument"
    with pytest.raises(InputError, match=rf"DPOTrainer\.{method} of TRL [\d.]+ .*{expected}.*1\.15\.0 and 1\.16\.0"):
        trained(tmp_path, rows(), run=False)


def test_an_attribute_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl

    from cupel.errors import InputError

    original = trl.DPOTrainer.__init__

    def without(self: Any, *positional: Any, **named: Any) -> None:
        original(self, *positional, **named)
        del self.precompute_ref_logps

    without.__signature__ = __import__("inspect").signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(trl.DPOTrainer, "__init__", without)
    with pytest.raises(InputError, match="precompute_ref_logps of TRL"):
        trained(tmp_path, rows(), run=False)


def test_what_is_given_is_left_as_it_was(tmp_path: Path) -> None:
    from datasets import Dataset

    data = Dataset.from_list([{**row, "weight": 1.0} for row in rows(4)])
    before = copy.copy(data.column_names)
    trained(tmp_path, data.to_list())
    assert data.column_names == before


def test_without_trl_the_way_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupel.adapters.trl as adapter
    from cupel.errors import InputError

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find(name, *rest))
    with pytest.raises(InputError, match=r'needs trl\. Run: pip install "cupel\[trl\]"'):
        _ = adapter.RewardTrainer


def test_a_stream_is_refused() -> None:
    from datasets import Dataset

    from cupel.adapters.trl import DPOTrainer
    from cupel.errors import InputError

    with pytest.raises(InputError, match="from_generator"):
        DPOTrainer(model=model(), train_dataset=Dataset.from_list(rows()).to_iterable_dataset())


def _rank(rank: int, port: int, tmp_path: Path, data: list[dict[str, Any]], made: dict[str, Any], options: dict[str, Any]) -> None:
    """One of two processes, forked from the test; rank 0 leaves its parameters and its state in a file."""
    import os

    from accelerate.state import AcceleratorState, GradientState, PartialState
    from safetensors.torch import save_file

    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    trainer = trained(tmp_path, data, made=made, options=options)
    if rank == 0:
        assert trainer.accelerator.num_processes == 2
        save_file({"moved": moved(trainer), **trainer.treatment_state}, tmp_path / "result.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    import multiprocessing
    import socket

    from safetensors.torch import load_file

    data = [{**row, "annotator": "ab"[i % 2], "weight": 1 + i % 3} for i, row in enumerate(rows(16))]
    made = {"objective": "beta_dpo:beta=0.5", "treatment": "em:by=annotator,share=0.3,warmup=0 + small_loss:drop=0.25,ramp=0"}
    options = {"gradient_accumulation_steps": 2, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2}
    one = trained(tmp_path, data, made=made, options=options)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = (port, tmp_path, data, made, {**options, "per_device_train_batch_size": 2})
    ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
        if rank.is_alive():
            rank.terminate()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    found = load_file(tmp_path / "result.safetensors")
    assert (found.pop("moved") - moved(one)).norm() <= 1e-6 * moved(one).norm()
    assert {name: value.tolist() for name, value in found.items()} == {
        name: pytest.approx(value.tolist(), rel=1e-5) for name, value in one.treatment_state.items()
    }
