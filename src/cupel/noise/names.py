# pyright: strict
"""Treatments by name: what the command line and recipes say. Importing this module loads no torch.

Other packages add names with an entry point in the group "cupel.noise": the name, and the factory it loads, which returns a `Treatment`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cupel.noise.types import Treatment

GROUP = "cupel.noise"


class Entry(NamedTuple):
    """A treatment of ours by name.

    module of its factory, which has the same name; summary: one line on it; example: arguments with which it does something on any
    data; plain: arguments at which it is plain training, None if there are none; by_record: whether it needs a table of records,
    which a text cannot hold
    """

    module: str
    summary: str
    example: Mapping[str, Any] = {}
    plain: Mapping[str, Any] | None = None
    by_record: bool = False


TREATMENTS: dict[str, Entry] = {
    "identity": Entry("fixed", "plain training", {}, {}),
    "conservative": Entry("fixed", "label smoothing by a known flip rate (cDPO)", {"flip": 0.1}, {"flip": 0.0}),
    "unbiased": Entry("fixed", "unbiased correction for a known flip rate (rDPO)", {"flip": 0.1}, {"flip": 0.0}),
    "unbiased_by_side": Entry(
        "fixed", "unbiased correction for a habit of naming one side", {"first": 0.1, "second": 0.2}, {"first": 0.0, "second": 0.0}
    ),
    "soft_labels": Entry("fixed", "a probability per record in place of the label", by_record=True),
    "votes": Entry("fixed", "shares and numbers of votes per record", by_record=True),
    "reliability_weights": Entry("fixed", "weight by known reliability", {"flip": 0.2, "by": "all"}, {"flip": 0.0, "by": "all"}),
    "em": Entry("em", "posterior of each label and a learned flip rate (LCPO)", {"flip": 0.1}, {"flip": 0.0}),
    "distributionally_robust": Entry(
        "robust", "worst-case mixture of the step (Dr. DPO)", {"temperature": 1.0}, {"temperature": float("inf")}
    ),
    "tempered": Entry("robust", "losses bounded smoothly (generalised cross entropy)", {"power": 0.7}, {"power": 0.0}),
    "bounded": Entry("robust", "losses clipped at a ceiling", {"ceiling": 1.0}, {"ceiling": float("inf")}),
    "trimmed": Entry("robust", "the highest losses of a step left out", {"share": 0.25}, {"share": 0.0}),
    "ropo": Entry("robust", "contradicted labels lose their influence (ROPO)", {"alpha": 14.0}),
    "small_loss": Entry("selection", "only the smallest losses of a step", {"drop": 0.25, "ramp": 0}, {"drop": 0.0}),
    "peer_review": Entry("peer", "two models select for each other (CRM)", {"drop": 0.25, "ramp": 0}, {"drop": 0.0}),
    "certainty": Entry("certainty", "smoothing by an estimator's doubt (UPO)", {"doubt": 0.2}, {"doubt": 0.0}),
    "certainty_weights": Entry("certainty", "weight by an estimator's certainty", {"doubt": 0.2}, {"doubt": 0.0}),
    "propensity": Entry("propensity", "clicks divided by exposure (Rel-MF)", {"exposure": 0.5}, {"exposure": 1.0}),
    "propensity_weights": Entry("propensity", "weight by inverse exposure", {"exposure": 0.5}, {"exposure": 1.0}),
    "missed": Entry("missed", "recorded dislikes that may be missed likes (NBPO)", {"rate": 0.5}, {"rate": 0.0}),
    "unobserved": Entry("exposed", "weight of what was not chosen (WMF)", {"weight": 0.25}, {"weight": 1.0}),
    "exposed": Entry("exposed", "posterior that what was not chosen was seen (ExpoMF)", {"seen": 0.5, "by": "all"}, {"seen": 1.0}),
    "selfie": Entry("selfie", "the least confident labels smoothed (SPA)", {"share": 0.25, "warmup": 0, "buffer": 16}, {"alpha": 0.0}),
}
#: names in use elsewhere
ALIASES: dict[str, str] = {
    "none": "identity", "plain": "identity", "cdpo": "conservative", "label_smoothing": "conservative", "rdpo": "unbiased",
    "robust": "unbiased", "lcpo": "em", "re_po": "em", "dr_dpo": "distributionally_robust", "gce": "tempered", "crm": "peer_review",
    "co_teaching": "peer_review", "upo": "certainty", "rel_mf": "propensity", "nbpo": "missed", "spa": "selfie",
    "wmf": "unobserved", "expo_mf": "exposed",
}  # fmt: skip


def available() -> tuple[str, ...]:
    """Names of treatments, own ones and those of installed packages, sorted.

    >>> {"em", "unbiased", "identity"} <= set(available())
    True
    """
    return tuple(sorted({*TREATMENTS, *_added()}))


def by_name(name: str, **settings: Any) -> Treatment:
    """The treatment of that name. ValueError for unknown names, unknown arguments and values that its factory refuses.

    >>> by_name("rdpo", flip=0.2).settings["flip"]
    0.2
    >>> by_name("emm")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: no treatment is called 'emm'; did you mean em? ...
    """
    make = factory(name)
    signature = inspect.signature(make)
    unknown = sorted(set(settings) - set(signature.parameters))
    if unknown:
        known = ", ".join(str(parameter).split(":")[0] for parameter in signature.parameters.values())
        raise ValueError(f"{name} takes no argument {', '.join(unknown)}: its arguments are {known or 'none'}")
    missing = [key for key, parameter in signature.parameters.items() if parameter.default is parameter.empty and key not in settings]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return make(**settings)


def factory(name: str) -> Callable[..., Treatment]:
    """The factory of that name, for its signature and its docstring; ValueError for unknown names."""
    found = ALIASES.get(name, name)
    if found in TREATMENTS:
        return getattr(import_module(f"cupel.noise.{TREATMENTS[found].module}"), found)
    added = _added()
    if name in added:
        return added[name].load()
    names = available()
    close = difflib.get_close_matches(name, [*names, *ALIASES], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"no treatment is called {name!r}; {hint}there are {', '.join(names)}")


def parse(text: str) -> Treatment:
    """The treatment that a text names: `name`, `name:argument=value,argument=value`, several joined by ` + ` as a chain.

    Values are numbers, true, false, none, pairs as `8/2`, or words. ValueError as `by_name`, and as `chain`.

    >>> parse("em:flip=0.2,by=annotator + small_loss:drop=0.1").name
    'em + small_loss'
    """
    from cupel.noise.chain import chain

    return chain(*[_parsed(part.strip()) for part in text.split(" + ")])


def _parsed(text: str) -> Treatment:
    name, _, rest = text.partition(":")
    if name in TREATMENTS and TREATMENTS[name].by_record:
        raise ValueError(f"{name} needs a table of records, which a text cannot hold: call it from Python, or write p and w into the data")
    stated = inspect.signature(factory(name)).parameters
    settings: dict[str, Any] = {}
    for item in filter(None, (item.strip() for item in rest.split(","))):
        key, equals, value = (word.strip() for word in item.partition("="))
        if not equals or not key or key in settings:
            raise ValueError(f"{text}: {item!r} is not one argument=value of its own")
        counts = key in stated and "int" in str(stated[key].annotation)
        settings[key] = _value(value, (int, float) if counts else (float,))
    try:
        return by_name(name, **settings)
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from error


def _value(text: str, kinds: tuple[type[int] | type[float], ...]) -> Any:
    """The value a text states: a whole number means something else than a share only where the factory says `int`."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if "/" in text:
        return tuple(_value(part, kinds) for part in text.split("/"))
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _added() -> dict[str, EntryPoint]:
    """Entry points of other packages; ValueError where one would replace a name of ours or two share a name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in TREATMENTS or entry.name in ALIASES or entry.name in found:
            raise ValueError(f"the entry point {entry.name} = {entry.value} of {GROUP} takes a name that is taken: rename or uninstall it")
        found[entry.name] = entry
    return found
