"""The table from names to factories that the command line and recipes use. Importing it loads no torch.

Other packages add names with an entry point in the group "cupel.objectives": the name, and the factory it loads, which returns an
`Objective`.
"""

# pyright: strict
from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cupel.objectives.lists import ListObjective
    from cupel.objectives.types import Objective

GROUP = "cupel.objectives"

#: module of each factory of pairwise and pointwise objectives; the name is the factory's
PAIRS: dict[str, str] = {
    **dict.fromkeys(("sigmoid", "hinge", "squared_hinge", "exponential", "exo", "discopop", "noise_tolerant", "ropo"), "margin"),
    **dict.fromkeys(("ipo_sum", "dpo_gamma", "odpo", "modpo"), "margin"),
    **dict.fromkeys(
        ("ipo", "sigmoid_norm", "length_penalised", "nca", "bco_pair", "sppo", "apo_zero", "apo_down", "cal_dpo", "dpop"), "separate"
    ),
    **dict.fromkeys(("sft", "simpo", "alpha_po", "cpo", "cpo_hinge", "cpo_ipo", "slic", "orpo"), "reference_free"),
    **dict.fromkeys(("ld_dpo", "wpo", "tdpo", "tdpo2", "sparse_po", "epsilon_dpo"), "token"),
    **dict.fromkeys(("forward_kl", "js", "alpha_divergence"), "f_divergence"),
    **dict.fromkeys(("aot", "aot_unpaired", "beta_dpo"), "batch"),
    **dict.fromkeys(("kto", "kto_pair", "bco", "bpo"), "pointwise"),
    **dict.fromkeys(("bpo_probability", "squared_probability", "squared_score"), "pointwise"),
    **dict.fromkeys(("bradley_terry", "bpr", "thurstone", "reward_hinge", "focal", "rao_kupper", "davidson"), "reward"),
    **dict.fromkeys(("general_preference", "general_preference_squared", "gpo"), "preference"),
    **dict.fromkeys(("rpo", "hypo"), "combine"),
    **dict.fromkeys(("mapo", "diffusion_dpo"), "denoising"),
    "dove": "across",
}
#: module of each factory of list objectives
LISTS: dict[str, str] = {
    **dict.fromkeys(("plackett_luce", "softmax_dpo", "all_pairs", "rrhf", "info_nca", "nca_list", "lipo", "irpo"), "listwise"),
    "steer": "steering",
}
#: names in use elsewhere (TRL's first)
ALIASES: dict[str, str] = {
    "exo_pair": "exo", "nca_pair": "nca", "sppo_hard": "sppo", "apo_zero_unpaired": "apo_zero", "aot_pair": "aot", "dpo": "sigmoid",
    "bt": "bradley_terry", "tdpo1": "tdpo", "r_dpo": "length_penalised", "na": "noise_tolerant", "alphapo": "alpha_po",
    "s_dpo": "softmax_dpo", "pro": "plackett_luce", "gpm": "general_preference",
}  # fmt: skip
#: names of losses that are an objective under a treatment of noise
TREATED: dict[str, str] = {
    "robust": "sigmoid with the treatment `unbiased`", "rdpo": "sigmoid with the treatment `unbiased`",
    "cdpo": "sigmoid with the treatment `conservative`", "dr_dpo": "sigmoid with the treatment `distributionally_robust`",
    "lcpo": "any objective with the treatment `em`", "re_po": "any objective with the treatment `em`",
}  # fmt: skip


def available() -> tuple[str, ...]:
    """Names of pairwise and pointwise objectives, own ones and those of installed packages, sorted.

    >>> {"sigmoid", "ipo", "kto"} <= set(available())
    True
    """
    return tuple(sorted({*PAIRS, *_added()}))


def available_lists() -> tuple[str, ...]:
    """Names of list objectives, sorted.

    >>> "irpo" in available_lists()
    True
    """
    return tuple(sorted(LISTS))


def by_name(name: str, **settings: Any) -> Objective:
    """The pairwise or pointwise objective of that name. ValueError for unknown names, unknown arguments and wrong values.

    >>> by_name("sigmoid", beta=0.5).settings["beta"]
    0.5
    >>> by_name("sigmod")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: no objective is called 'sigmod'; did you mean sigmoid? ...
    """
    return cast("Objective", _call(name, factory(name), settings))


def list_by_name(name: str, **settings: Any) -> ListObjective:
    """The list objective of that name. ValueError as `by_name`.

    >>> list_by_name("plackett_luce").name
    'plackett_luce'
    """
    found = ALIASES.get(name, name)
    if found not in LISTS:
        raise ValueError(f"no objective of lists is called {name!r}: there are {', '.join(available_lists())}")
    return cast("ListObjective", _call(name, _load(LISTS[found], found), settings))


def factory(name: str) -> Callable[..., Objective]:
    """The factory of that name, for its signature and its docstring; ValueError for unknown names."""
    found = ALIASES.get(name, name)
    if found in PAIRS:
        return _load(PAIRS[found], found)
    if found in LISTS:
        raise ValueError(f"{name} is an objective of lists, not of two sides: use list_by_name")
    if name in TREATED:
        raise ValueError(f"{name} is an objective and a treatment of noise at once: use {TREATED[name]}")
    added = _added()
    if name in added:
        return cast("Callable[..., Objective]", added[name].load())
    names = available()
    close = difflib.get_close_matches(name, [*names, *ALIASES], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"no objective is called {name!r}; {hint}there are {', '.join(names)}")


def parse(text: str) -> Objective:
    """The pairwise or pointwise objective that a text names: `name` or `name:argument=value,...`. ValueError as `by_name`.

    >>> parse("sigmoid:beta=0.5").settings["beta"]
    0.5
    """
    name, settings = split_text(text)
    return by_name(name, **settings)


def split_text(text: str) -> tuple[str, dict[str, Any]]:
    """`name:argument=value,...` as (name, arguments); numbers, true, false and none are read as such. ValueError for anything else.

    >>> split_text("sigmoid:beta=0.5")
    ('sigmoid', {'beta': 0.5})
    """
    name, _, rest = text.strip().partition(":")
    settings: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (word.strip() for word in item.partition("="))
        if not equals or not key or key in settings:
            raise ValueError(f"{text!r}: {item!r} is not one argument=value of its own, e.g. {name}:beta=0.5")
        settings[key] = _value(value)
    return name, settings


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _added() -> dict[str, EntryPoint]:
    """Entry points of other packages; ValueError where one would replace a name of ours or two share a name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in PAIRS or entry.name in LISTS or entry.name in ALIASES or entry.name in found:
            raise ValueError(f"the entry point {entry.name} = {entry.value} of {GROUP} takes a name that is taken: rename or uninstall it")
        found[entry.name] = entry
    return found


def _load(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(f"cupel.objectives.{module}"), name)


def _call(name: str, make: Callable[..., Any], settings: dict[str, Any]) -> Any:
    signature = inspect.signature(make)
    unknown = sorted(set(settings) - set(signature.parameters))
    if unknown:
        known = ", ".join(str(parameter).split(":")[0] + f"={parameter.default!r}" for parameter in signature.parameters.values())
        raise ValueError(f"{name} takes no argument {', '.join(unknown)}: its arguments are {known or 'none'}")
    wrong = sorted(key for key, value in settings.items() if not _fits(value, signature.parameters[key].default))
    if wrong:
        raise ValueError(f"{name}: {wrong[0]} is {settings[wrong[0]]!r}, but its default is {signature.parameters[wrong[0]].default!r}")
    return make(**settings)


def _fits(value: Any, default: Any) -> bool:
    """Whether a setting is of the kind of its default: a number, a word, a yes or no; None where the default is None."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if default is None:
        return value is None or isinstance(value, int | float)
    return isinstance(value, str) if isinstance(default, str) else isinstance(value, int | float)
