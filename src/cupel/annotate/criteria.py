"""Criteria of a domain, put in front of a prompt: an instruction and a few exemplars, as the customised density ratio reads them.

Method card 37-cdr (arXiv:2411.02481): R_c(x, y) = log pi_S(y | T_c(x)) - log pi_W(y | T_c(x)). The wording of the published templates and
their router is not known here [unverified]; both are the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cupel.errors import InputError
from cupel.records.text import canonical, content_text, messages

Criterion = Callable[[str], str]
Router = Callable[[str], str]


def criterion(instruction: str, exemplars: Sequence[tuple[str, str]] = (), *, chat: bool = True) -> Criterion:
    """T_c: a prompt -> the prompt behind an instruction and exemplars (prompt, good response).

    chat: a chat list with the instruction as system message (before what one says already) and the exemplars as earlier turns; otherwise
    plain text, a paragraph each, for models without a chat template.

    >>> criterion("Be safe.", [("Hi", "Hello")], chat=False)("Why?")
    'Be safe.\\n\\nHi\\nHello\\n\\nWhy?'
    >>> criterion("Be safe.")("Why?")
    '[{"role":"system","content":"Be safe."},{"role":"user","content":"Why?"}]'
    """
    if not isinstance(instruction, str) or any(len(pair) != 2 or not all(isinstance(text, str) for text in pair) for pair in exemplars):
        raise InputError("a criterion is an instruction and exemplars of (prompt, response), all texts")

    def applied(prompt: str) -> str:
        own = messages(prompt)
        if not chat:
            if own is not None:
                raise InputError("a prompt is a list of chat messages, and this criterion writes plain text: use criterion(..., chat=True)")
            shown = [f"{asked}\n{answered}" for asked, answered in exemplars]
            return "\n\n".join(text for text in (instruction, *shown, prompt) if text)
        turns: list[dict[str, Any]] = [{"role": "user", "content": prompt}] if own is None else list(own)
        said = [instruction] if instruction else []
        if turns[0]["role"] == "system":
            said, turns = [*said, content_text(turns[0]["content"])], turns[1:]
        head = [{"role": "system", "content": "\n\n".join(said)}] if said else []
        for asked, answered in exemplars:
            head += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        return canonical([*head, *turns])

    return applied


def criteria_from(spec: Any, *, chat: bool = True) -> dict[str, Criterion]:
    """Criteria by domain from {domain: {"instruction": text, "exemplars": [{"prompt": ..., "response": ...}]}}.

    >>> sorted(criteria_from({"safety": {"instruction": "Be safe."}}))
    ['safety']
    """
    if not isinstance(spec, Mapping) or not spec:
        raise InputError("criteria are an object {domain: {instruction, exemplars}} with at least one domain")
    found = {}
    for domain, entry in spec.items():
        try:
            shown = [(pair["prompt"], pair["response"]) for pair in entry.get("exemplars", ())]
            found[str(domain)] = criterion(entry["instruction"], shown, chat=chat)
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"the criterion of domain {domain!r} needs an instruction and exemplars with prompt and response") from error
    return found


def routed(template: Criterion | Mapping[str, Criterion] | None, router: Router | None, prompts: Sequence[str]) -> list[str]:
    """T_c(x) of each prompt, c = router(x). InputError where several domains have no router, or it names one without a template."""
    if template is None:
        if router is not None:
            raise InputError("a router names domains, but there is no template of a domain: give template={domain: criterion}")
        return list(prompts)
    if not isinstance(template, Mapping):
        return [template(prompt) for prompt in prompts]
    if router is None:
        if len(template) != 1:
            raise InputError(f"there are templates of {len(template)} domains ({', '.join(sorted(template))}) and no router between them")
        (only,) = template.values()
        return [only(prompt) for prompt in prompts]
    domains = [router(prompt) for prompt in prompts]
    unknown = [n for n, domain in enumerate(domains) if domain not in template]
    if unknown:
        raise InputError(
            f"{len(unknown):,} of {len(prompts):,} prompts are of a domain without a template (first: row {unknown[0]}, "
            f"{domains[unknown[0]]!r}); there are {', '.join(sorted(template))}"
        )
    return [template[domain](prompt) for domain, prompt in zip(domains, prompts, strict=True)]
