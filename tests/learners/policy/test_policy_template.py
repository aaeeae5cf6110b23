from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from cupel.errors import InputError, RecordError
from cupel.learners.policy.template import Faults, Template

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
make_tokenizer, CHATML = helpers["make_tokenizer"], helpers["CHATML"]


def chat(*turns: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in turns])


def test_plain_text_closes_with_the_end_of_text_token() -> None:
    tokenizer = make_tokenizer()
    template = Template(tokenizer)
    assert tokenizer.decode(template.prompt("the cat ?")) == "the cat ?"
    assert template.prompt("") == [tokenizer.bos_token_id]
    found = template.response("the cat ?", "a dog")
    assert found.ids[-1] == tokenizer.eos_token_id
    assert found.faults == ()
    assert found.counted is None


def test_chat_prompt_and_response_join_to_the_whole_rendering() -> None:
    tokenizer = make_tokenizer(CHATML)
    template = Template(tokenizer)
    prompt = chat(("system", "the cat"), ("user", "a dog ?"))
    response = template.response(prompt, "very good")
    whole = tokenizer.apply_chat_template(
        [*json.loads(prompt), {"role": "assistant", "content": "very good"}], tokenize=False
    )  # fmt: skip
    assert template.prompt(prompt) + response.ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert template.prompt("a dog ?") == template.prompt(chat(("user", "a dog ?")))


def test_a_response_of_several_turns_counts_the_assistants_only() -> None:
    tokenizer = make_tokenizer(CHATML)
    response = chat(("assistant", "finds"), ("tool", "red bird"), ("assistant", "good"))
    found = Template(tokenizer).response("a dog ?", response)
    assert found.counted is not None
    counted = tokenizer.decode([t for t, c in zip(found.ids, found.counted, strict=True) if c])
    assert counted.split() == ["finds", "<|im_end|>", "good", "<|im_end|>"]


def test_one_token_may_open_and_close_texts() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token  # as GPT-2's
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    found = Template(tokenizer, tokenizer.chat_template).response("the cat", "a dog")
    assert found.faults == ()
    assert found.ids[-1] == tokenizer.eos_token_id


def test_faults_are_found_and_named() -> None:
    faults = Faults()
    rewriting = "{% if messages|length > 1 %}new {% endif %}{% for m in messages %}{{ m['content'] }}<|im_end|> {% endfor %}"
    found = Template(make_tokenizer(rewriting)).response("the cat", "a dog")
    assert "prompt_not_prefix" in found.faults
    faults.add(found.faults, "r1")
    open_ended = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    assert Template(make_tokenizer(open_ended)).response("the cat", "a dog").faults == ("missing_eos",)
    twice = "<s> <s> {% for m in messages %}{{ m['content'] }}<|im_end|> {% endfor %}"
    template = Template(make_tokenizer(twice))
    assert template.prompt_faults(template.prompt("the cat")) == ("double_bos",)
    with pytest.raises(RecordError, match=r"1 of 1 responses render .* \(first: r1\)"):
        faults.check(())
    faults.check(("prompt_not_prefix",))


def test_a_chat_without_a_template_and_a_template_that_refuses() -> None:
    with pytest.raises(InputError, match="no chat template"):
        Template(make_tokenizer()).prompt(chat(("user", "a")))
    strict = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}x"
    with pytest.raises(InputError, match="roles system user: user first"):
        Template(make_tokenizer(strict)).prompt(chat(("system", "a"), ("user", "b")))


def test_digest_knows_template_and_arguments() -> None:
    tokenizer = make_tokenizer(CHATML)
    digests = {Template(tokenizer).digest, Template(tokenizer, "none").digest, Template(tokenizer, arguments={"a": 1}).digest}
    assert len(digests) == 3
