"""Density ratios of transformers: their own templates, positions, the end token, the cache, and the implicit reward of DPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cupel.annotate.density_ratio import DensityRatio  # noqa: E402
from cupel.annotate.language_models import CausalLM  # noqa: E402
from cupel.errors import InputError  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "user", "assistant", ":", ";", *"abcdefgh"]
CHAT = "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ;' }}{{ ' ' }}{% endfor %}{% if add_generation_prompt %}assistant :{{ ' ' }}{% endif %}"  # noqa: E501
SHORT = "{% for m in messages %}{{ m['content'] + ' ;' }}{{ ' ' }}{% endfor %}"


def tokenizer(template: str | None = None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    found.chat_template = template
    return found


def model(seed: int = 0, layers: int = 2, window: int = 48) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=window, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


def slow(model: Any, prompt: list[int], response: list[int]) -> list[float]:
    """The twin: the model's own logits over the whole text, the log-probability of each token of the response."""
    ids = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logp = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].double(), dim=-1)
    return [float(logp[len(prompt) + n - 1, token]) for n, token in enumerate(response)]


def test_tokens_and_positions_by_hand() -> None:
    net, words = model(), tokenizer()
    lm = CausalLM(net, words)
    ids = {word: n for n, word in enumerate(WORDS)}
    prompt, response = [ids["a"], ids["b"]], [ids["c"], ids["d"], ids["e"], ids["</s>"]]
    assert lm.logprobs("a b", "c d e") == pytest.approx(slow(net, prompt, response), abs=1e-5)


def test_each_model_has_its_own_template_and_span() -> None:
    """The span of the response begins where this model's own prompt ends, whatever the other's template adds."""
    net = model()
    long, short = CausalLM(net, tokenizer(CHAT)), CausalLM(net, tokenizer(SHORT))
    ids = {word: n for n, word in enumerate(WORDS)}
    assert long.logprobs("a b", "c") == pytest.approx(
        slow(net, [ids[w] for w in ["user", ":", "a", "b", ";", "assistant", ":"]], [ids["c"], ids[";"]]), abs=1e-5
    )
    assert short.logprobs("a b", "c") == pytest.approx(slow(net, [ids[w] for w in ["a", "b", ";"]], [ids["c"], ids[";"]]), abs=1e-5)
    assert long.digest != short.digest
    with pytest.raises(InputError, match="same tokens"):
        DensityRatio(long, short, clip=1.0).score(["a b"], ["c"])


def certain(unsure: str, p: float) -> Any:
    """A model without layers that is certain of the next word in a b c d e ..., but gives `unsure` after b only probability p."""
    net = model(layers=0)
    size, big = len(WORDS), 60.0
    ids = {word: n for n, word in enumerate(WORDS)}
    with torch.no_grad():
        from torch import nn

        net.model.embed_tokens = nn.Embedding(size, size)
        net.model.embed_tokens.weight.copy_(torch.eye(size))
        net.model.norm.weight = nn.Parameter(torch.ones(size))
        net.lm_head = nn.Linear(size, size, bias=False)
        table = torch.full((size, size), -big)
        for one, other in zip("abcdefg", "bcdefgh", strict=True):
            table[ids[one], ids[other]] = big
        table[ids["h"], ids["</s>"]] = big
        table[ids["b"]] = -big
        table[ids["b"], ids[unsure]], table[ids["b"], ids["h"]] = float(np.log(p)), float(np.log(1 - p))
        net.lm_head.weight.copy_(table.T / size**0.5)  # the last norm makes a one-hot vector sqrt(size) long
    net.config.hidden_size = net.config.head_dim = size
    return net


def test_no_token_is_missed_at_the_seam() -> None:
    """Off by one: a model that is certain of everything but the response's first token gives all of R through it."""
    sure, less = CausalLM(certain("c", 0.5), tokenizer(), layout="padded"), CausalLM(certain("c", 0.125), tokenizer(), layout="padded")
    found = sure.logprobs("a b", "c d e f g h")
    assert found[0] == pytest.approx(np.log(0.5), abs=1e-4)
    assert found[1:] == pytest.approx([0.0] * 6, abs=1e-4)
    table = DensityRatio(sure, less, reduce="sum").table(["a b"], ["c d e f g h"])
    assert table.total[0] == pytest.approx(np.log(4), abs=1e-4)
    assert table.n_strong[0] == 7  # the end token counts
    # what the models think of the prompt's own tokens does not count
    assert sure.logprobs("b a b", "c d e f g h") == pytest.approx(found, abs=1e-4)


def test_scores_do_not_depend_on_the_batch_or_the_cache(tmp_path: Path) -> None:
    net, words = model(), tokenizer()
    prompts, responses = ["a b", "a b", "c", "d e f g h"], ["c d", "e f g h a b c", "a", "h"]
    plain = CausalLM(net, words, batch_tokens=12)
    stored = CausalLM(net, words, cache=tmp_path)
    together, cached = plain.logprobs_many(prompts, responses), stored.logprobs_many(prompts, responses)
    for n in range(4):
        alone = CausalLM(net, words).logprobs(prompts[n], responses[n])
        assert together[n] == pytest.approx(alone, abs=1e-5)
        assert cached[n] == pytest.approx(alone, abs=1e-5)
    assert stored.cache is not None
    assert len(stored.cache) == 4
    again = CausalLM(net, words, cache=tmp_path)
    assert [found.tolist() for found in again.logprobs_many(prompts, responses)] == [found.tolist() for found in cached]


def test_scores_of_tokens_that_training_stored_are_found(tmp_path: Path) -> None:
    """The store of a run's reference (`learners/policy/stored.py`): same key, same tokens, nothing computed again."""
    from cupel.learners.policy.options import options_of
    from cupel.learners.policy.template import Template
    from cupel.scorers import Scorer
    from cupel.scorers.reference import ReferenceCache, ReferenceKey

    net, template = model(), Template(tokenizer())
    truncation = options_of({"data": "d", "model": "m"}).truncation
    store = ReferenceCache.under(tmp_path, ReferenceKey.of(net, template=template.digest[:32]), "token")
    store.fill(Scorer(net), [(template.prompt("a b"), template.response("a b", "c").ids)], truncation=truncation)
    files = sorted(tmp_path.rglob("*.safetensors"))
    lm = CausalLM(net, tokenizer(), cache=tmp_path)
    found = lm.logprobs("a b", "c")
    assert sorted(tmp_path.rglob("*.safetensors")) == files
    assert found == pytest.approx(CausalLM(net, tokenizer()).logprobs("a b", "c"), abs=1e-6)


def test_a_dpo_policy_over_its_reference_is_a_density_ratio() -> None:
    """Oracle 6: beta times the margin equals the difference of DPO's implicit rewards, to 1e-6 of their scale."""
    from cupel.learners.policy.template import Template
    from cupel.objectives.names import parse
    from cupel.scorers import Groups, Scorer

    beta, words = 0.1, tokenizer()
    nets = model(1), model(2)
    prompt, first, second = "a b c", "d e", "f g h a"
    ratio = DensityRatio(*(CausalLM(net, words) for net in nets), reduce="sum").score([prompt] * 2, [first, second])
    # the loop of training: tokens by the template, both models through the scorer, sides of a comparison, DPO's loss
    template = Template(words)
    groups = Groups.of([template.prompt(prompt)], [(0, template.response(prompt, text).ids) for text in (first, second)], [(0, 1)])
    with torch.no_grad():
        policy, reference = (Scorer(net)(groups) for net in nets)
    chosen, rejected = (policy.side(index, reference) for index in (groups.first, groups.second))
    implicit = beta * ((chosen.logp - chosen.reference_logp) - (rejected.logp - rejected.reference_logp))
    margin = beta * float(ratio[0] - ratio[1])
    assert abs(margin) > 0.01
    assert margin == pytest.approx(float(implicit), abs=1e-6)
    assert float(parse(f"dpo:beta={beta}").loss(chosen, rejected, {})) == pytest.approx(float(np.logaddexp(0, -margin)), abs=1e-6)


def test_too_long_is_an_error_with_the_row(tmp_path: Path) -> None:
    net, words = model(window=16), tokenizer()
    ratio = DensityRatio(CausalLM(net, words), CausalLM(model(3, window=16), words))
    with pytest.raises(InputError, match=r"second \(row 1\) has 23 tokens .* reads 16"):
        ratio.table(["a", "a b c d e f g h a b"], ["b", "a b c d e f g h a b c d"], names=["first", "second"])
    with pytest.raises(InputError, match="cannot be loaded"):
        CausalLM.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="no chat template"):
        CausalLM(net, words).logprobs('[{"role":"user","content":"a"}]', "b")
    with pytest.raises(InputError, match="zero gap"):
        DensityRatio(CausalLM(net, words), CausalLM(net, words)).score(["a"], ["b"])


def test_folders_are_loaded(tmp_path: Path) -> None:
    net, words = model(), tokenizer(CHAT)
    net.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    assert CausalLM.load(tmp_path).logprobs("a", "b") == pytest.approx(CausalLM(net, words).logprobs("a", "b"), abs=1e-6)
    plain = CausalLM.load(tmp_path, template="none")
    assert plain.template.text is None
    criteria = DensityRatio(plain, CausalLM(model(5), tokenizer()), template=lambda prompt: f"c d {prompt}")
    bare = DensityRatio(plain, CausalLM(model(5), tokenizer()))
    assert criteria.score(["a"], ["b"])[0] == pytest.approx(bare.score(["c d a"], ["b"])[0])
