"""Lists of responses for SteerLM 2.0, drawn from a policy that is told attribute values: what the objective `steer` reads.

For each prompt x and wanted ratings a, n responses are drawn from the policy Q'(y|a,x), which reads a in its prompt. A list says of each

    log_attributes  log P(a|x,y): the probability of the wanted ratings, given those that a rater predicts (`attribute_log_probability`)
    log_prior       log P(y|x) of a plain model for the plain prompt
    log_proposal    log Q'(y|a,x), at the temperature that the responses were drawn at

from which training makes w' = softmax(log_attributes + log_prior - log_proposal). HelpSteer2, Wang et al. 2024, arXiv:2406.08673, section
4.5, as the method card gives it. The card draws at temperature .7 from the most probable tokens up to a sum of .9 and does not say whether
log Q' is that of these draws [unverified]; here it is, for weights mean nothing else, and no token is left out: what cannot be drawn could
not be learned.

A response that is left out (blank, not ended within `tokens`, read back as other tokens, not rated) is one that training could not read
or weigh as it was drawn. That restricts target and policy alike to the others, and biases no weight. A response that was drawn twice counts
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from cupel.annotate.language_models import CausalLM
from cupel.errors import InputError
from cupel.learners.policy.generations import closing_tokens, write_answers
from cupel.learners.policy.judging import share
from cupel.learners.policy.questions import digest_of
from cupel.objectives.steering import attribute_log_probability, effective_size, steer_list, steer_weights
from cupel.records.text import canonical, messages
from cupel.scorers.anatomy import Head, anatomy
from cupel.scorers.check import quiet
from cupel.scorers.scorer import Scorer

#: (plain prompts, responses) to ratings [n, A] from 0 to levels - 1; NaN where a response cannot be rated. A rating belongs to its response
Rater = Callable[[Sequence[str], Sequence[str]], Any]
#: (plain prompt, wanted rating by attribute) to the prompt that the policy reads
Render = Callable[[str, Mapping[str, int]], str]
#: an effective number of responses below which a list imitates one of them
ONE = 1.5


def told(prompt: str, wanted: Mapping[str, int]) -> str:
    """The prompt with the wanted ratings in front; of a conversation, in front of what the user said last.

    >>> told("Where do I keep bread?", {"helpfulness": 4, "verbosity": 2})
    '[helpfulness 4, verbosity 2] Where do I keep bread?'
    """
    said = f"[{', '.join(f'{name} {value}' for name, value in wanted.items())}] "
    chat = messages(prompt)
    if chat is None:
        return said + prompt
    last = max((k for k, message in enumerate(chat) if message["role"] == "user"), default=None)
    if last is None or not isinstance(chat[last]["content"], str):
        raise InputError("a conversation has no text of a user that the wanted ratings could stand before: give a `render` of your own")
    return canonical([{**m, "content": said + m["content"]} if k == last else m for k, m in enumerate(chat)])


def attribute_labels(ratings: Any, *, levels: int = 5) -> np.ndarray:
    """Ratings [n, A] as labels int64 0 ... levels - 1: clipped and rounded, as for SteerLM 1. InputError where not finite.

    >>> attribute_labels([[3.6, -0.2], [9.0, 1.2]]).tolist()
    [[4, 0], [4, 1]]
    """
    found = np.asarray(ratings, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise InputError(f"ratings are a matrix [responses, attributes] of finite numbers, not of shape {found.shape}, or some are missing")
    return np.rint(np.clip(found, 0, levels - 1)).astype(np.int64)


def imitation_rows(
    prompts: Sequence[str], responses: Sequence[str], ratings: Any, *, names: Sequence[str], levels: int = 5, render: Render = told
) -> list[dict[str, Any]]:
    """SteerLM 1's records: each response under its prompt with its own ratings told. `cupel train sft` reads them with unpaired: true.

    >>> imitation_rows(["q"], ["In a bag."], [[2.2, 0.4]], names=["helpfulness", "verbosity"])
    [{'prompt': '[helpfulness 2, verbosity 0] q', 'completion': 'In a bag.', 'label': True}]
    """
    labels = attribute_labels(ratings, levels=levels)
    if not len(prompts) == len(responses) == len(labels) or labels.shape[1] != len(names):
        counts = f"{len(prompts):,} prompts, {len(responses):,} responses and ratings of shape {labels.shape}"
        raise InputError(f"{counts} do not fit {len(names)} names: a row to each response, a column to each name")
    return [
        {"prompt": render(prompt, dict(zip(names, row, strict=True))), "completion": response, "label": True}
        for prompt, response, row in zip(prompts, responses, labels.tolist(), strict=True)
    ]


def draw_wanted(prompts: Sequence[str], pool: Any, *, seed: int = 0) -> np.ndarray:
    """Wanted ratings int64 [n, A] of each prompt: a row of the pool [K, A], drawn by seed and prompt, whatever else is asked.

    The pool holds what may be wanted: ratings of a data set (`attribute_labels`), so that what is asked for is there, or chosen rows.

    >>> draw_wanted(["p", "q", "r"], [[4, 2], [0, 1]], seed=1).shape
    (3, 2)
    """
    rows = np.asarray(pool)
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"the ratings to draw from are a matrix [rows, attributes] with at least one of both, not of shape {rows.shape}")
    return rows[[int(digest_of("wanted", seed, *key)[:15], 16) % len(rows) for key in _keys(prompts)]]


@dataclass(frozen=True)
class Steered:
    """Lists that were drawn: `rows` as `steer` reads them, `counts` of what was drawn and left out, and what they say of the policy.

    counts    prompts; long: prompts without room for an answer; drawn: responses; blank, cut (not ended), altered (their text is other
              tokens), unrated: left out; alone: prompts with fewer than two responses left, left out; lists, responses: what stays, of
              which repeated responses repeat another of their list, and alike lists hold one response only, repeated
    measured  usable: share of the drawn responses that were not left out; of these, hits: share that is rated as wanted in every
              attribute, after rounding, with a 95 % interval over prompts (hits_low, hits_high), and by attribute; log_attributes: mean.
              D: mean of sum w' log(w'/b') of the policy itself on its own lists, 0 where it is its target; effective_size: mean of
              1 / sum w'^2; one: share of lists where it is below 1.5
    """

    rows: list[dict[str, Any]]
    counts: Mapping[str, int]
    measured: Mapping[str, Any]


def steering_rows(
    policy: CausalLM | str | Path, prompts: Sequence[str], attributes: Any, rater: Rater, *, prior: CausalLM | str | Path,
    names: Sequence[str] | None = None, n: int = 10, seed: int = 0, temperature: float = 1.0, tokens: int = 256, render: Render = told,
    levels: int = 5, bins: str = "equal", batch_tokens: int = 8192, device: str = "cpu", max_length: int | None = None,
    template: str | None = None, progress: Callable[[str, int, int], None] | None = None,
) -> Steered:  # fmt: skip
    """n responses to each prompt from the policy, told the wanted ratings, with all that `cupel train policy --objective steer` reads.

    policy, prior  folders, or models that `CausalLM` holds: Q', and P(y|x), the plain model that the policy stays near
    attributes     wanted ratings [prompts, A], whole numbers 0 ... levels - 1 (`draw_wanted`);  names: theirs, by default the rater's
    rater          `Rater`: is shown each different (plain prompt, response) once
    tokens         of a response, at most; prompts that leave no room for them in either model (`max_length`) are left out
    Rows are trained on with reference: none, for they state log_proposal. Draws belong to seed, prompt and number; neither batches nor
    other prompts move them. InputError for lengths, wanted ratings or a rater's answer that do not fit, and where no list is left.
    """
    if n < 2 or tokens < 1 or not temperature > 0:
        said = f"not {n}, {tokens} and {temperature!r}"
        raise InputError(f"n is at least 2 (one response teaches nothing), tokens at least 1 and the temperature positive, {said}")
    wanted, names = _wanted(prompts, attributes, rater, names, levels)
    more: dict[str, Any] = {"device": device, "template": template, "max_length": max_length, "batch_tokens": batch_tokens}
    writer = policy if isinstance(policy, CausalLM) else CausalLM.load(policy, **more)
    plain = prior if isinstance(prior, CausalLM) else CausalLM.load(prior, **more)
    asked = [render(prompt, dict(zip(names, row, strict=True))) for prompt, row in zip(prompts, wanted.tolist(), strict=True)]
    sizes = [
        max(len(writer.template.prompt(ask)) - writer.max_length, len(plain.template.prompt(prompt)) - plain.max_length)
        for ask, prompt in zip(asked, prompts, strict=True)
    ]
    fits = [p for p, over in enumerate(sizes) if over + tokens <= 0]
    keys = list(zip(_keys(prompts), asked, strict=True))
    seeds = [int(digest_of("draw", seed, k, *key, ask)[:15], 16) for p in fits for key, ask in [keys[p]] for k in range(n)]
    owner = [p for p in fits for _ in range(n)]
    told_of = progress or (lambda stage, done, total: None)
    drawn = _draw(writer, [asked[p] for p in owner], seeds, tokens, temperature, told_of)
    counts = {"prompts": len(prompts), "long": len(prompts) - len(fits), "drawn": len(drawn)}
    counts |= {name: sum(one.fault == name for one in drawn) for name in ("blank", "cut", "altered")}
    sound = [k for k, one in enumerate(drawn) if not one.fault]
    pairs, at = _different([(owner[k], drawn[k].text) for k in sound])
    told_of("rate", 0, len(pairs))
    ratings = _rated(rater, [prompts[p] for p, _ in pairs], [text for _, text in pairs], len(names))
    rated: np.ndarray = np.isfinite(ratings).all(axis=1)  # type: ignore[assignment]
    counts["unrated"] = int((~rated[at]).sum())
    kept = np.flatnonzero(rated[at])
    if not len(kept):
        raise InputError(_nothing(counts))
    of = np.array([p for p, _ in pairs])
    said = np.full(len(pairs), np.nan)
    said[rated] = attribute_log_probability(
        torch.from_numpy(ratings[rated]), torch.from_numpy(wanted[of[rated]].astype(np.float64)), levels=levels, bins=bins
    ).numpy()
    logp = _log_probabilities(writer, plain, asked, prompts, [pair for pair, good in zip(pairs, rated, strict=True) if good], temperature)
    logs = {"log_attributes": said, **{name: _spread(values, rated) for name, values in logp.items()}}
    right = attribute_labels(np.where(rated[:, None], ratings, 0), levels=levels) == wanted[of]
    used = at[kept]
    measured = _hits(right[used], of[used], names) | {"usable": len(kept) / len(drawn), "log_attributes": float(said[used].mean())}
    lists: dict[int, list[int]] = {}
    for pair in used.tolist():
        lists.setdefault(int(of[pair]), []).append(pair)
    whole = {p: members for p, members in lists.items() if len(members) > 1}
    counts |= {
        "alone": len(fits) - len(whole), "lists": len(whole), "responses": sum(map(len, whole.values())),
        "repeated": sum(len(m) - len(set(m)) for m in whole.values()), "alike": sum(len(set(m)) == 1 for m in whole.values()),
    }  # fmt: skip
    if not whole:
        raise InputError(_nothing(counts))
    of_list, values = _weighed(list(whole.values()), logs)
    rows = []
    for (p, members), size in zip(whole.items(), of_list.tolist(), strict=True):
        row: dict[str, Any] = {"id": str(p), "prompt": asked[p], "responses": [pairs[k][1] for k in members]}
        row |= {name: logs[name][members].tolist() for name in ("log_attributes", "log_prior", "log_proposal")}
        rows.append({**row, "ratings": ratings[members].tolist(), "wanted": wanted[p].tolist(), "effective_size": size})
    return Steered(rows, counts, measured | values)


class _Drawn(NamedTuple):
    """A response: its text, and why it cannot be used: "", blank, cut or altered."""

    text: str
    fault: str


def _keys(prompts: Sequence[str]) -> list[tuple[str, int]]:
    """Each prompt with the number of those before it that are the same."""
    seen: dict[str, int] = {}
    out = []
    for prompt in prompts:
        seen[prompt] = seen.get(prompt, -1) + 1
        out.append((prompt, seen[prompt]))
    return out


def _wanted(
    prompts: Sequence[str], attributes: Any, rater: Rater, names: Sequence[str] | None, levels: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Wanted ratings int64 [prompts, A], and the names of the attributes. InputError where they do not fit."""
    wanted = np.asarray(attributes)
    if not len(prompts) or wanted.ndim != 2 or len(wanted) != len(prompts):
        raise InputError(f"{len(prompts):,} prompts need as many rows of wanted ratings, not an array of shape {wanted.shape}")
    known = names if names is not None else getattr(rater, "names", None)
    if known is None or len(known) != wanted.shape[1] or len(set(known)) < len(known):
        said = "the rater has none" if known is None else f"there are {', '.join(known)}"
        raise InputError(f"{wanted.shape[1]} attributes need as many different names, and {said}: give names=")
    bad = ~((wanted == np.rint(wanted)) & (wanted >= 0) & (wanted < levels))
    if bad.any():
        p, k = np.argwhere(bad)[0]
        raise InputError(
            f"{int(bad.sum()):,} of {wanted.size:,} wanted ratings are none of 0, 1, ... {levels - 1} (first: prompt {p}, {known[k]} "
            f"{wanted[p, k]}); set levels, or round them (`attribute_labels`)"
        )
    return wanted.astype(np.int64), tuple(known)


def _draw(
    lm: CausalLM, prompts: Sequence[str], seeds: Sequence[int], most: int, temperature: float, progress: Callable[[str, int, int], None]
) -> list[_Drawn]:
    """A response to each prompt, in their order; each is written with others of like length."""
    parts, tokenizer = anatomy(lm.scorer.model), lm.template.tokenizer
    device = next(lm.scorer.model.parameters()).device
    heads = {prompt: lm.template.prompt(prompt) for prompt in dict.fromkeys(prompts)}
    stops = _stops(lm, parts.causal, prompts)
    order = sorted(range(len(prompts)), key=lambda k: (-len(heads[prompts[k]]), k))
    out: dict[int, _Drawn] = {}
    with quiet(lm.scorer):
        while order:
            longest = len(heads[prompts[order[0]]])
            part = order[: max(1, lm.batch_tokens // (longest + most))]
            if parts.reason:  # layers that carry a state would read the padding
                part = [k for k in part if len(heads[prompts[k]]) == longest]
            order = order[len(part) :]
            made = write_answers(
                parts.causal, [heads[prompts[k]] for k in part], stops, most, temperature=temperature, seeds=[seeds[k] for k in part],
                device=device,
            )  # fmt: skip
            for k, (ids, ended) in zip(part, made, strict=True):
                text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
                out[k] = _Drawn(text, _fault(lm, prompts[k], text, ids, ended))
            progress("draw", len(out), len(prompts))
    return [out[k] for k in range(len(prompts))]


def _stops(lm: CausalLM, causal: Any, prompts: Sequence[str]) -> tuple[int, ...]:
    """Tokens that end a response: the tokenizer's and the model's, and the one that the template closes a turn with."""
    special = {n for n, token in getattr(lm.template.tokenizer, "added_tokens_decoder", {}).items() if token.special}
    closes = [t for t in reversed(lm.template.response(prompts[0], "a").ids[-4:]) if t in special] if prompts else []
    found = {*closing_tokens(lm.template.tokenizer, causal, {}), *closes[:1]}
    if not found:
        raise InputError("neither tokenizer, model nor chat template has a token that ends a response: give the tokenizer an eos_token")
    return tuple(sorted(found))


def _fault(lm: CausalLM, prompt: str, text: str, ids: list[int], ended: bool) -> str:
    """Why training could not read a response as it was drawn."""
    if not ended:
        return "cut"
    if not text.strip():
        return "blank"
    return "" if lm.template.response(prompt, text).ids[: len(ids)] == ids else "altered"


def _different(pairs: Sequence[tuple[int, str]]) -> tuple[list[tuple[int, str]], np.ndarray]:
    """The different pairs in the order in which they first come, and the place of each among them."""
    place: dict[tuple[int, str], int] = {}
    at = np.array([place.setdefault(pair, len(place)) for pair in pairs], np.int64)
    return list(place), at


def _rated(rater: Rater, prompts: Sequence[str], responses: Sequence[str], size: int) -> np.ndarray:
    """float64 [n, A] of the rater; InputError where it gives another shape."""
    if not responses:
        return np.zeros((0, size))
    found = np.asarray(rater(prompts, responses), np.float64)
    if found.ndim == 1 and size == 1:
        found = found[:, None]
    if found.shape != (len(responses), size):
        raise InputError(
            f"the rater was shown {len(responses):,} responses and gave an array of shape {found.shape}: it gives a row to each response "
            f"and a column to each of {size} attributes"
        )
    return found


def _log_probabilities(
    writer: CausalLM, plain: CausalLM, asked: Sequence[str], prompts: Sequence[str], pairs: Sequence[tuple[int, str]], temperature: float
) -> dict[str, np.ndarray]:
    """log P(y|x), log Q'(y|a,x) at the temperature of the draws, and log Q(y|a,x) of the policy as it is, of each pair."""
    texts = [text for _, text in pairs]
    names = [f"prompt {p}" for p, _ in pairs]

    def sums(lm: CausalLM, of: Sequence[str]) -> np.ndarray:
        return np.array([values.sum() for values in lm.logprobs_many([of[p] for p, _ in pairs], texts, names=names)])

    found = {"log_prior": sums(plain, prompts), "log_policy": sums(writer, asked)}
    drawn = found["log_policy"] if temperature == 1 else sums(_at_temperature(writer, temperature), asked)
    return {**found, "log_proposal": drawn}


class _Tempered(Scorer):
    """A scorer whose logits are divided by a temperature; it shares the model and what was found out about it."""

    def __init__(self, scorer: Scorer, temperature: float) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(scorer.__dict__)
        self.temperature = temperature

    def head(self) -> Head:
        """The head with everything after the product divided: cap(x) / T is the cap at softcap / T of x / T."""
        head = super().head()
        cap = None if head.softcap is None else head.softcap / self.temperature
        return head._replace(scale=head.scale / self.temperature, softcap=cap)


def _at_temperature(lm: CausalLM, temperature: float) -> CausalLM:
    import copy

    found = copy.copy(lm)
    found.scorer, found.cache = _Tempered(lm.scorer, temperature), None
    return found


def _spread(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    out = np.full(len(where), np.nan)
    out[where] = values
    return out


def _weighed(lists: Sequence[Sequence[int]], logs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """Effective size of each list, and the means over lists."""
    widest = max(map(len, lists))
    mask = torch.tensor([[k < len(members) for k in range(widest)] for members in lists])
    index = np.array([[*members, *[members[0]] * (widest - len(members))] for members in lists])
    padded = {name: torch.from_numpy(values[index]) for name, values in logs.items()}
    found = steer_list(padded["log_policy"], padded["log_attributes"], padded["log_prior"], padded["log_proposal"], mask=mask)
    wanted, have = steer_weights(found)
    each = torch.where(wanted > 0, wanted * (wanted / have.clamp(min=1e-300)).log(), torch.zeros_like(wanted)).sum(dim=1)
    size = effective_size(found).numpy()
    return size, {"D": float(each.mean()), "effective_size": float(size.mean()), "one": float((size < ONE).mean())}


def _hits(right: np.ndarray, group: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    mean, low, high = share(np.asarray(right.all(axis=1), np.float64), group)
    each = {name: float(column.mean()) for name, column in zip(names, right.T, strict=True)}
    return {"hits": mean, "hits_low": low, "hits_high": high, "hits_by_attribute": each}


def _nothing(counts: Mapping[str, int]) -> str:
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return (
        f"no list of two responses is left ({said}). Raise tokens where responses are cut, or max_length where prompts are long; train the "
        f"policy on ended responses (SteerLM 1) where they never end; look at the rater where they are not rated"
    )
