"""A transformer with one output as the model of a run: its head, its pad token, and what its folder says of how texts become tokens.

transformers pools a sequence classifier at the rightmost token that differs from `pad_token_id`. A pad token that may also end a response
would move that place, so a model leaves here only with a pad token that no response ends with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from cupel.errors import InputError
from cupel.learners.policy.model import loading, quiet_bars, trained
from cupel.learners.policy.options import PolicyOptions
from cupel.learners.policy.preparing import Prepared
from cupel.learners.policy.template import Template
from cupel.learners.policy.tokens import Tokens

#: the pad token that is made where a vocabulary has none that serves
PAD = "<|cupel_pad|>"


def load_classifier(name: str, **more: Any) -> Any:
    """A sequence classifier with one output, from a folder or name; a language model gets a head. InputError where it cannot be loaded."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head of a language model is new is what we ask for
    try:
        with quiet_bars():
            return AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **more)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(f"the reward model {name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.set_verbosity(before)


def load_reward_model(options: PolicyOptions, prepared: Prepared, sets: Iterable[Tokens]) -> nn.Module:
    """The reward model of a run, ready for training, with a pad token that no response of `sets` ends with; the tokenizer gets it too.

    InputError where the model cannot be loaded, or where no such token is to be had, or where it has no place for the head of the options.
    """
    model = load_classifier(options.model, **loading(options))
    if options.head != "scalar":
        from cupel.learners.policy.preference import attach, meet

        attach(model, options.head, len(prepared.data.spec.annotators), options.seed)
        meet(model, prepared.data)
    settle_pad(model, prepared.tokenizer, frozen=bool(options.lora or options.adapter))
    check_ends(int(model.config.pad_token_id), sets)
    return trained(model, options)


def given_by(options: PolicyOptions) -> frozenset[str] | None:
    """What the reward model of a run gives of a side; None where the run trains a language model. InputError for a head there is not."""
    from cupel.learners.policy.step import REWARD_GIVEN

    if options.kind != "reward":
        return None
    if options.head == "scalar":
        return REWARD_GIVEN
    from cupel.learners.policy.preference import gives

    return REWARD_GIVEN | gives(options.head)


def scorer_of(model: nn.Module, options: PolicyOptions) -> Any:
    """The scorer of a reward model. ScorerError as `reward_scorer`."""
    if options.head == "scalar":
        from cupel.scorers.reward import reward_scorer

        return reward_scorer(model, options.layout, longest=options.max_length)
    from cupel.learners.policy.preference import PreferenceScorer

    return PreferenceScorer(model, options.layout, longest=options.max_length + 1)


def head_of(options: PolicyOptions, prepared: Prepared, model: Any) -> dict[str, Any]:
    """What a folder says of its head, {} where the model gives one score."""
    if options.head == "scalar":
        return {}
    from cupel.learners.policy.preference import described

    return {"head": described(options.head, model, prepared.data.spec.annotators)}


def explanation_of(options: PolicyOptions, prepared: Prepared, model: Any) -> dict[str, Any] | None:
    """What the head of a reward has learned, as JSON holds it; None without a preference model, and where its parameters are sharded."""
    if options.kind != "reward" or options.head == "scalar" or options.sharding != "none":
        return None
    from cupel.learners.policy.preference import attached

    return attached(model).explain(prepared.data.spec.annotators).recorded()


def settle_pad(model: Any, tokenizer: Any, *, frozen: bool) -> None:
    """Give model and tokenizer a pad token that is no closing token: their own, a reserved one, or a new one.

    frozen: embeddings are not trained (an adapter), so the table cannot grow. InputError where there is then no token to take.
    """
    own = tokenizer.pad_token_id
    if own is None or own in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        own = _reserved(tokenizer)
    if own is None:
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) >= rows:
            if frozen:
                raise InputError(
                    f"the tokenizer has no pad token but its end-of-text token, and all {rows:,} rows of the embeddings are in use: an "
                    f"adapter cannot add one. Train all weights (lora=0), or give the base model a pad token first"
                )
            tokenizer.add_special_tokens({"pad_token": PAD})
            model.resize_token_embeddings(len(tokenizer))
        else:
            tokenizer.add_special_tokens({"pad_token": PAD})
    else:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(own)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _reserved(tokenizer: Any) -> int | None:
    """A special token that exists to pad, or is reserved for nothing."""
    special = {token.content: n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    taken = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    for word in ("pad", "reserved"):
        for name in sorted(special):
            if word in name.lower() and name not in taken:
                return special[name]
    return None


def check_ends(pad: int, sets: Iterable[Tokens]) -> None:
    """InputError where a response of the data ends in the pad token: transformers would read its score one token early."""
    for tokens in sets:
        ends = tokens.response_ends[tokens.response_lengths > 0]
        bad = [int(n) for n in (tokens.responses[ends - 1] == pad).nonzero()[0]]
        if bad:
            raise InputError(
                f"{len(bad):,} of {len(ends):,} responses end in the pad token {pad} (first: response {bad[0]}), which transformers takes "
                f"for padding. Give the tokenizer another pad token, or close the responses (template, eos_token)"
            )


def conventions(template: Template, options: PolicyOptions) -> dict[str, Any]:
    """What a folder says of how texts become tokens; scores under other conventions are other scores."""
    return {
        "template": template.text, "template_arguments": template.arguments, "digest": template.digest, "max_length": options.max_length,
        "max_prompt": options.max_prompt, "truncation": options.truncation, "accept": list(options.accept), "eos": template.eos,
    }  # fmt: skip
