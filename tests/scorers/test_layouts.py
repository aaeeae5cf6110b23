"""Every layout gives the log-probabilities and the gradients of the model's own logits, row by row."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

from cupel.objectives import sigmoid
from cupel.scorers import Groups, LayoutWarning, Scorer, ScorerError
from cupel.scorers import scorer as scorer_module
from cupel.scorers.cost import Rates
from cupel.scorers.layouts import index, kv, mask, padded, segments
from cupel.scorers.layouts.index import places

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "granite"]
#: peft asks transformers for a name that transformers deprecates
PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
LAYOUTS = ["segments", "kv", "mask", "padded"]


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def checkpointed(model: Any) -> None:
    if hasattr(model, "activation_checkpointing_enable"):  # the name since transformers 5.2x
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def dpo(logp: torch.Tensor, groups: Groups) -> torch.Tensor:
    first, second = logp[groups.first], logp[groups.second]
    return -torch.nn.functional.logsigmoid(0.3 * (first - second)).sum()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_plain_logits(family: str, model: Any, ragged: Groups, slow: Any) -> None:
    """fp32 within 2e-5 of the plain path; no farther from fp64 than the plain path is (a factor for luck in rounding)."""
    net = model(family)
    exact = copy.deepcopy(net).double()
    truth = gradient(exact, dpo(slow(exact, ragged), ragged))
    expected = slow(net, ragged)
    plain = gradient(net, dpo(expected, ragged))
    for layout in LAYOUTS:
        net.config._attn_implementation = net.config._attn_implementation.removeprefix(segments.NAME)
        scorer = Scorer(net, layout)
        assert scorer.layouts == (layout,)
        scores = scorer(ragged)
        assert scorer.last_layout == layout
        torch.testing.assert_close(scores.logp, expected, atol=2e-4, rtol=1e-5)
        own = gradient(net, dpo(scores.logp, ragged))
        assert apart(own, plain) < 2e-5, layout
        assert apart(own, truth) < 2 * apart(plain, truth) + 1e-7, layout


def test_fp64_is_exact_to_rounding(model: Any, ragged: Groups, slow: Any) -> None:
    net = model("gpt2").double()  # other families take norms or rotations in float32
    truth = gradient(net, dpo(slow(net, ragged), ragged))
    for layout in LAYOUTS:
        own = gradient(net, dpo(Scorer(net, layout)(ragged).logp, ragged))
        assert apart(own, truth) < 1e-12


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_do_not_depend_on_the_batch(layout: str, model: Any, ragged: Groups) -> None:
    """Each response alone with its prompt, and all responses in another order, score as in the batch."""
    scorer = Scorer(model("mistral"), layout)
    with torch.no_grad():
        together = scorer(ragged).logp
    prompts = [ids.tolist() for ids in ragged.prompt_ids.split(list(ragged.prompt_lengths))]
    responses = [ids.tolist() for ids in ragged.response_ids.split(list(ragged.response_lengths))]
    with torch.no_grad():
        for n, ids in enumerate(responses):
            alone = scorer(Groups.of([prompts[ragged.prompt_index[n]]], [(0, ids)])).logp
            assert abs(float(alone[0] - together[n])) < 1e-5 * max(1, abs(float(together[n])))
        turned = Groups.of(
            prompts[::-1], [(len(prompts) - 1 - ragged.prompt_index[n], responses[n]) for n in reversed(range(len(responses)))]
        )
        torch.testing.assert_close(scorer(turned).logp.flip(0), together, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt2"])
def test_padding_side_changes_nothing(family: str, model: Any, ragged: Groups) -> None:
    scorer = Scorer(model(family), "padded")
    with torch.no_grad():
        parts = scorer_module.anatomy(scorer.model)
        right = padded.hidden(parts, ragged, places(ragged), prompt=True, side="right")
        left = padded.hidden(parts, ragged, places(ragged), prompt=True, side="left")
    torch.testing.assert_close(left.response, right.response, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left.prompt, right.prompt, atol=1e-5, rtol=1e-5)


def test_wrong_windows_are_found(model: Any, monkeypatch: Any, ragged: Groups) -> None:
    """The traps: a mask without windows, which transformers takes in silence; the scorer falls back to plain rows and says so once."""
    right = index.causal_masks

    def without_windows(anatomy: Any, *args: Any) -> Any:
        return right(anatomy._replace(windows=dict.fromkeys(anatomy.windows)), *args)

    monkeypatch.setattr(mask, "causal_masks", without_windows)
    monkeypatch.setattr(kv, "causal_masks", without_windows)
    net = model("gemma3")
    for layout in ("mask", "kv"):
        with pytest.warns(
            LayoutWarning, match=rf"layout '{layout}' is not used: hidden states differ by .* of their length, 0.001"
        ) as seen:
            scorer = Scorer(net, layout)
        assert len(seen) == 1
        assert scorer.layouts == ("padded",)
        assert scorer.differences[layout] > 0.05
        scorer(ragged)
        assert scorer.last_layout == "padded"
    with pytest.warns(LayoutWarning) as seen:
        scorer = Scorer(net)
    assert len(seen) == 2
    assert scorer.layouts == ("segments", "padded")


def test_boolean_masks_are_found_under_eager_attention(model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(index, "float_mask", lambda allowed, dtype: allowed)
    with pytest.warns(LayoutWarning, match="mask"):
        scorer = Scorer(model("llama", attn_implementation="eager"), "mask")
    assert scorer.layouts == ("padded",)


def test_a_layout_that_raises_is_not_used(model: Any, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("unexpected keyword argument")

    broken.__module__ = segments.__name__
    monkeypatch.setitem(scorer_module._HIDDEN, "segments", broken)
    net = model("llama")
    with pytest.warns(LayoutWarning, match="TypeError: unexpected keyword"):
        scorer = Scorer(net)
    assert "segments" not in scorer.layouts
    assert net.config._attn_implementation == "sdpa"


def test_a_head_that_does_more_is_refused(model: Any) -> None:
    net = model("llama")
    own = net.forward
    net.forward = lambda **inputs: _shifted(own(**inputs))
    with pytest.raises(ScorerError, match="its head does more"):
        Scorer(net)


def _shifted(out: Any) -> Any:
    out.logits = out.logits * 1.5
    return out


def test_recurrent_models_stand_in_plain_rows(model: Any, slow: Any, ragged: Groups) -> None:
    net = model("mamba")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayoutWarning)
        scorer = Scorer(net)
    assert scorer.layouts == ("padded",)
    assert "linear_attention" in scorer.reason
    torch.testing.assert_close(scorer(ragged).logp, slow(net, ragged), atol=1e-4, rtol=1e-5)
    with pytest.warns(LayoutWarning, match="linear_attention"):
        assert Scorer(net, "mask").layouts == ("padded",)


@pytest.mark.parametrize("layout", ["auto", "segments", "mask"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradient_checkpointing_changes_nothing(layout: str, family: str, model: Any, ragged: Groups, slow: Any) -> None:
    net = model(family).train()
    plain = gradient(net, dpo(slow(net, ragged), ragged))
    checkpointed(net)
    scorer = Scorer(net, layout)
    assert apart(gradient(net, dpo(scorer(ragged).logp, ragged)), plain) < 2e-5
    assert scorer.last_layout != "kv"


def test_kv_is_refused_under_checkpointing(model: Any, ragged: Groups) -> None:
    net = model("llama").train()
    scorer = Scorer(net, "kv")
    checkpointed(net)
    with pytest.raises(ScorerError, match=r"loses the prompt .* gradient checkpointing is on"):
        scorer(ragged)
    with torch.no_grad():  # nothing is computed again without a gradient
        scorer(ragged)


def test_generation_is_untouched(model: Any) -> None:
    net = model("llama").eval()
    prompt = torch.tensor([[1, 5, 9, 33]])
    before = net.generate(prompt, max_new_tokens=6, do_sample=False)
    Scorer(net)
    assert net.config._attn_implementation == "cupel_sdpa"
    assert torch.equal(net.generate(prompt, max_new_tokens=6, do_sample=False), before)
    assert "cupel" not in str(net.config.to_dict())


@PEFT
@pytest.mark.parametrize("layout", ["auto", *LAYOUTS])
def test_lora(layout: str, model: Any, ragged: Groups, slow: Any) -> None:
    from peft import LoraConfig, get_peft_model

    net = get_peft_model(model("qwen3"), LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False))
    plain = gradient(net, dpo(slow(net, ragged), ragged))
    own = gradient(net, dpo(Scorer(net, layout)(ragged).logp, ragged))
    assert apart(own, plain) < 2e-5


@PEFT
def test_adapters_on_the_head(model: Any, ragged: Groups, slow: Any) -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    with pytest.raises(ScorerError, match="target_modules"):
        Scorer(get_peft_model(model("llama"), LoraConfig(r=2, target_modules=["q_proj", "lm_head"])))
    with pytest.raises(ScorerError, match="learns a prompt"):
        Scorer(get_peft_model(model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)))
    net = get_peft_model(model("llama"), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False))
    plain = gradient(net, dpo(slow(net, ragged), ragged))
    assert apart(gradient(net, dpo(Scorer(net)(ragged).logp, ragged)), plain) < 2e-5


def test_votes_of_ten_annotators_cost_one_forward(model: Any) -> None:
    """The number of tokens that reach the body does not depend on the number of comparisons."""
    seen = []
    net = model("llama")
    scorer = Scorer(net, "segments")
    net.model.embed_tokens.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].numel()))
    pair = ([1, 4, 5, 6], [7, 8, 2], [9, 2])
    for votes in (1, 10):
        groups = Groups.from_pairs([pair] * votes)
        scores = scorer(groups)
        first, second = (scores.side(i, reference=scores) for i in (groups.first, groups.second))
        assert sigmoid(0.1).loss(first, second, {}).shape == (votes,)
    assert seen == [3 + 3 + 2] * 2


def test_choice_by_cost(model: Any, batch: Any) -> None:
    """Cheapest by its own count; never the layout that computes a prompt for every response where one that shares it is allowed."""
    scorer = Scorer(model("llama"))
    assert scorer.choose(batch([(40, [10] * 4)])).layout != "padded"
    scorer = Scorer(model("llama"), "mask")
    scorer.rates = Rates(token=1.0, pair=1.0, call=0.0, whole_pass=0.0)
    choice = scorer.choose(batch([(40, [10, 10]), (20, [5, 5]), (21, [4, 5])]))
    assert choice.rows == [[0], [2, 1]] or choice.rows == [[0], [1, 2]]
    assert choice.cost == 2 * (59 + 59**2)


def test_longest_shortens_the_check_and_is_kept(model: Any, batch: Any) -> None:
    scorer = Scorer(model("mistral"), longest=10)
    with pytest.raises(ScorerError, match=r"1 of 2 responses have, with their prompt, more than longest=10 tokens \(first: response 1"):
        scorer(batch([(5, [5, 6])]))


def test_autocast_runs_everywhere(model: Any, ragged: Groups, slow: Any) -> None:
    for family in ("llama", "gemma3"):
        for layout in LAYOUTS:
            net = model(family)
            scorer = Scorer(net, layout)
            expected = slow(net, ragged).detach()
            with torch.autocast("cpu", torch.bfloat16):
                scores = scorer(ragged)
            assert scores.logp.dtype == torch.float32
            assert float(((scores.logp.detach() - expected).abs() / expected.abs()).max()) < 0.1
            scores.logp.sum().backward()


def test_tokens_that_do_not_count_are_read_and_not_scored(model: Any) -> None:
    from cupel.errors import RecordError

    net = model("llama")
    prompts, responses = [[1, 5, 9, 4]], [(0, [7, 8, 3, 2]), (0, [6, 2])]
    plain = Groups.of(prompts, responses, [(0, 1)])
    marked = Groups.of(prompts, responses, [(0, 1)], counted=[[True, False, False, True], None])
    for layout in LAYOUTS:
        scorer = Scorer(net, layout)
        every, some = scorer(plain, needs=("logp", "tokens")), scorer(marked, needs=("logp", "tokens"))
        assert torch.allclose(some.token_logp, every.token_logp[torch.tensor([0, 3, 4, 5])], atol=1e-6)
        assert torch.allclose(some.logp, torch.stack([every.token_logp[[0, 3]].sum(), every.token_logp[4:].sum()]), atol=1e-6)
        assert some.n_tokens.tolist() == [2, 2]
        assert some.side(marked.first).mask is not None
    with pytest.raises(RecordError, match="1 of 2 responses have no token that counts"):
        Groups.of(prompts, responses, counted=[[False] * 4, None])


def test_stored_scores_know_which_tokens_count(model: Any, tmp_path: Any) -> None:
    from cupel.scorers.reference import ReferenceCache, ReferenceKey

    scorer = Scorer(model("llama"))
    prompt, response, marks = [1, 5, 9, 4], [7, 8, 3, 2], [True, False, False, True]
    cache = ReferenceCache.under(tmp_path, ReferenceKey.of(scorer.model), "token")
    assert cache.fill(scorer, [(prompt, response), (prompt, response, marks), (prompt, response, [True] * 4)]) == 2
    groups = Groups.of([prompt], [(0, response)], counted=[marks])
    with torch.no_grad():
        assert torch.allclose(cache.scores(groups).logp, scorer(groups).logp, atol=1e-5)
    assert cache.scores(groups).n_tokens.tolist() == [2]
