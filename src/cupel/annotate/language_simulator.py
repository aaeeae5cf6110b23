"""A language model as a simulated user: rationales that it writes, and the distribution over labels that a model reads out of them.

Method card 20-usersim (arXiv:2508.18142, as in the authors' code). K rationales are sampled per scene; for each the predictor is
teacher-forced with the prompt, the rationale and "Behavior: [", and its next-token distribution is restricted to the label tokens. Prompt
and answer are tokenised by the very template that training uses, and the label is where answers that differ in it differ: each label must
be one token there, at one place. A prompt is computed once for all its rationales.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.annotate.scene_text import Mode, SceneText
from cupel.annotate.scenes import Memory, Scenes
from cupel.curate.rationale_pairs import LETTERS, By, Reject, Selection, answer, pair_rows, select
from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.annotate.language_models import CausalLM

#: what ends a rationale in the texts that models write
_BEHAVIOUR = re.compile(r"Behavior\s*:")
#: longest context of the authors' evaluation, in tokens
LONGEST = 6124


def label_tokens(lm: CausalLM, n: int, prompt: str = "Which?", rationale: str = "") -> tuple[list[int], list[int]]:
    """(tokens of the answer before the label, tokens of the labels A, B, ... [n]) after a rationale.

    InputError that names the labels which are not one token of their own at one place ("[A" may be one token: change the tokenizer or the
    form of the answer).
    """
    made = [lm.template.response(prompt, answer(rationale, j)).ids for j in range(n)]
    one = made[0]
    places = [[t for t, (x, y) in enumerate(zip(one, ids, strict=False)) if x != y] for ids in made[1:]]
    usual = max((found for found in places if len(found) == 1), key=places.count, default=None)
    wrong = [LETTERS[j + 1] for j, found in enumerate(places) if found != usual or len(made[j + 1]) != len(one)]
    if usual is None or wrong:
        named = ", ".join(wrong if usual is not None else LETTERS[:n])
        raise InputError(f"labels are to be single tokens at one place of 'Behavior: [A]', and for this tokenizer these are not: {named}")
    found = [ids[usual[0]] for ids in made]
    if len(set(found)) < n:
        same = [LETTERS[j] for j in range(n) if found.count(found[j]) > 1]
        raise InputError(f"labels are to be single tokens, and for this tokenizer these are one and the same: {', '.join(same)}")
    return one[: usual[0]], found


def label_probs(
    lm: CausalLM, prompts: Sequence[str], rationales: Sequence[Sequence[str]], sizes: Sequence[int] | np.ndarray, *,
    longest: int = LONGEST, room: int = 0,
) -> tuple[list[np.ndarray], np.ndarray]:  # fmt: skip
    """(P(label | prompt, rationale, "Behavior: [") of each scene, float64 [K, n_s]; bool [S]: scenes that were guessed).

    sizes: options of each scene. Scenes with more than `longest` tokens, or than the model reads, get uniform rows and are marked; so do
    those whose prompt leaves less than `room` tokens for an answer, where rationales had no place.
    """
    import torch

    from cupel.annotate.language_models import token_parts
    from cupel.scorers.check import quiet
    from cupel.scorers.groups import Groups
    from cupel.scorers.head import tile_logits

    labels = label_tokens(lm, max(2, int(max(sizes, default=2))))[1]
    found = [np.full((len(texts), int(n)), 1 / int(n)) for texts, n in zip(rationales, sizes, strict=True)]
    guessed = np.zeros(len(prompts), bool)
    rows: list[tuple[list[int], list[int], None]] = []
    owner: list[tuple[int, int]] = []
    for s, prompt in enumerate(prompts):
        head = lm.template.prompt(prompt)
        mine = []
        for text in rationales[s]:
            before, first = label_tokens(lm, 2, prompt, text)
            if first != labels[:2]:
                raise InputError(f"scene {s}: the labels A and B are other tokens after its rationale than after none")
            mine.append([*before, labels[0]])
        if len(head) + max(room, max(map(len, mine), default=0)) > min(longest, lm.max_length):
            guessed[s] = True
            continue
        rows += [(head, ids, None) for ids in mine]
        owner += [(s, k) for k in range(len(mine))]
    device = next(lm.scorer.model.parameters()).device
    index = torch.tensor(labels, device=device)
    for part in token_parts(rows, lm.batch_tokens):
        place: dict[tuple[int, ...], int] = {}
        members = [(place.setdefault(tuple(rows[r][0]), len(place)), rows[r][1]) for r in part]
        groups = Groups.of([list(ids) for ids in place], members).to(device)
        with quiet(lm.scorer):
            state = lm.scorer.hidden(groups).response
            last = state[torch.tensor(np.cumsum(groups.response_lengths) - 1, device=device)]
            out = lm.scorer.head()
            bias = None if out.bias is None else out.bias[index] * out.scale
            logits = tile_logits(last * out.scale, out.weight[index], bias, out.softcap)
            values = logits.double().cpu().numpy()
        for r, row in zip(part, values, strict=True):
            s, k = owner[r]
            row = row[: int(sizes[s])]
            e = np.exp(row - row.max())
            found[s][k] = e / e.sum()
    return found, guessed


def write_rationales(
    lm: CausalLM, prompts: Sequence[str], k: int, *, temperature: float = 1.0, top_p: float = 0.9, tokens: int = 256, seed: int = 0,
    batch: int = 16,
) -> list[list[str]]:  # fmt: skip
    """K rationales per prompt, sampled; what follows "Behavior:" is cut off. Draws belong to seed, prompt and k, not to the batch.

    tokens: at most, of a rationale. Prompts that leave less room in the model's context get empty rationales; `label_probs(room=tokens)`
    guesses there.
    InputError for a temperature or top_p outside (0, inf) and (0, 1], or no rationale.
    """
    from cupel.scorers.anatomy import anatomy
    from cupel.scorers.check import quiet

    if k < 1 or tokens < 1:
        raise InputError(f"{k} rationales of {tokens} tokens: 1 of each at least")
    if not temperature > 0 or not 0 < top_p <= 1:
        raise InputError(f"temperature is positive and top_p in (0, 1], not {temperature!r} and {top_p!r}")
    parts, tokenizer = anatomy(lm.scorer.model), lm.template.tokenizer
    out = [[""] * k for _ in prompts]
    asked = []
    for s, prompt in enumerate(prompts):
        ids = lm.template.prompt(prompt)
        digest = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
        if len(ids) + tokens <= lm.max_length:
            asked += [(s, j, ids, int(np.random.SeedSequence([seed, digest, j]).generate_state(1)[0])) for j in range(k)]
    asked.sort(key=lambda one: (len(one[2]), one[0], one[1]))
    with quiet(lm.scorer):
        start = 0
        while start < len(asked):
            part = asked[start : start + batch]
            if parts.reason:  # layers that carry a state would read the padding
                part = [one for one in part if len(one[2]) == len(part[0][2])]
            start += len(part)
            texts = _sample(parts.causal, tokenizer, [one[2] for one in part], [one[3] for one in part], temperature, top_p, tokens)
            for (s, j, _, _), text in zip(part, texts, strict=True):
                out[s][j] = _BEHAVIOUR.split(text)[0].strip()
    return out


def _sample(
    causal: Any, tokenizer: Any, prompts: Sequence[list[int]], seeds: Sequence[int], temperature: float, top_p: float, most: int
) -> list[str]:  # fmt: skip
    """One sampled continuation per prompt as text, without special tokens."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    width, device = max(map(len, prompts)), next(causal.parameters()).device
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
    uniform = torch.stack([torch.rand(most, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in seeds]).to(device)

    def draw(input_ids: Any, scores: Any) -> Any:
        chance, order = (scores.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        sums = chance.cumsum(-1)
        kept = torch.where(sums - chance < top_p, chance, torch.zeros_like(chance)).cumsum(-1)
        at = uniform[:, input_ids.shape[1] - width, None] * kept[:, -1:]
        token = order.gather(1, torch.searchsorted(kept, at, right=True).clamp(max=scores.shape[-1] - 1))
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)

    own = causal.generation_config
    configured = own.eos_token_id if isinstance(own.eos_token_id, list | tuple) else [own.eos_token_id]
    stops = sorted({token for token in (tokenizer.eos_token_id, *configured) if token is not None})
    settings: dict[str, Any] = {"eos_token_id": stops or None, "pad_token_id": stops[0] if stops else 0}
    plain = GenerationConfig(max_new_tokens=most, do_sample=False, use_cache=True, **settings)
    causal.generation_config = GenerationConfig(**settings)
    try:
        processors: Any = LogitsProcessorList([draw])
        made = causal.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=plain, logits_processor=processors
        )
    finally:
        causal.generation_config = own
    return [tokenizer.decode(row, skip_special_tokens=True) for row in made[:, width:].tolist()]


class LanguageSimulator:
    """A simulator by a language model (`cupel.annotate.simulator.Simulator`): directly, or as the mean over rationales that it writes.

    predictor  reads labels out; writer: writes the rationales, the predictor itself by default
    mode       "direct" or "rationale"; rationales: how many are averaged over
    longest    tokens beyond which a scene is not read: it counts as a uniform guess. `guessed` bool [S] says which of the last scenes were
    """

    def __init__(
        self, predictor: CausalLM, text: SceneText, *, mode: Mode = "rationale", writer: CausalLM | None = None, rationales: int = 1,
        temperature: float = 1.0, top_p: float = 0.9, tokens: int = 256, longest: int = LONGEST, seed: int = 0,
    ) -> None:  # fmt: skip
        self.predictor, self.text, self.writer = predictor, text, writer or predictor
        self.mode: Mode = mode
        self.k, self.longest = rationales, longest
        self.writing: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "tokens": tokens, "seed": seed}
        self.guessed = np.zeros(0, bool)

    def simulate(self, memory: Memory, exposure: np.ndarray) -> np.ndarray:
        """P of each option, float64 [n]."""
        return self._rows([self.text.prompt(memory, exposure, self.mode)], [len(exposure)])[0]

    def simulate_scenes(self, scenes: Scenes) -> list[np.ndarray]:
        """P of each option of each scene."""
        return self._rows(self.text.prompts(scenes, self.mode), scenes.sizes.tolist())

    def _rows(self, prompts: list[str], sizes: list[int]) -> list[np.ndarray]:
        room = 0 if self.mode == "direct" else int(self.writing["tokens"])
        texts = [[""]] * len(prompts) if self.mode == "direct" else write_rationales(self.writer, prompts, self.k, **self.writing)
        found, self.guessed = label_probs(self.predictor, prompts, texts, sizes, longest=self.longest, room=room)
        return [rows.mean(axis=0) for rows in found]


def rationale_rows(
    scenes: Scenes, text: SceneText, strong: CausalLM, weak: CausalLM, predictor: CausalLM, *, k: int = 10, budget: int | None = None,
    by: By = "epistemic", reject: Reject = "strong", temperature: float = 1.0, top_p: float = 0.9, tokens: int = 256, seed: int = 0,
) -> tuple[list[dict[str, str]], Selection]:  # fmt: skip
    """(rows prompt, chosen, rejected, group to train a simulator on; what was selected and why).

    strong and weak write k rationales each, one predictor reads both, `cupel.curate.rationale_pairs.select` keeps scenes and pairs.
    InputError where scenes are longer than the predictor reads, by number.
    """
    prompts, sizes = text.prompts(scenes, "rationale"), scenes.sizes
    writing: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "tokens": tokens, "seed": seed}
    texts = [write_rationales(lm, prompts, k, **writing) for lm in (strong, weak)]
    (one, long), (other, also) = (label_probs(predictor, prompts, written, sizes, room=tokens) for written in texts)
    if (long | also).any():
        raise InputError(
            f"{int((long | also).sum()):,} of {len(scenes):,} scenes are longer than the predictor reads (first: scene "
            f"{int(np.argmax(long | also))}): leave them out, or remember less (history=)"
        )
    found = select(one, other, scenes.chosen, by=by, reject=reject, budget=budget, seed=seed)
    groups = [str(scenes.log.users[u]) for u in scenes.user.tolist()]
    return pair_rows(found.pairs, prompts, texts[0], texts[1], scenes.chosen, groups=groups), found
