"""Scenes as texts for language models: memory and options in words, from templates that lie in text files.

A template is a text with $scene, or with $profile, $history and $options (`string.Template`; $$ is a dollar sign). Those of cupel are
`prompts/scene.txt`, `rationale.txt` (three steps: stimulus, knowledge, evaluation; after method card 20-usersim, in our words) and
`direct.txt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Literal

import numpy as np

from cupel.annotate.scenes import Memory, Scenes
from cupel.curate.rationale_pairs import LETTERS
from cupel.errors import InputError

Mode = Literal["rationale", "direct"]
_HERE = Path(__file__).parent / "prompts"
_DAY = 86_400
#: fields that a template may name
_FIELDS = {"scene": {"profile", "history", "options"}, "rationale": {"scene"}, "direct": {"scene"}}


@dataclass(frozen=True)
class SceneText:
    """How scenes are put into words.

    items    a text per item index (title, genres ...); files: NAME -> file that takes the place of cupel's scene, rationale or direct
    verb     of an entry with a time: "viewed 3 days ago"; rating: how a value is said, {} being the value; "" for not at all
    InputError for a template that cannot be read, that names an unknown field or leaves a needed one out.

    >>> text = SceneText(("Alien (horror)", "Heat (crime)", "Up (animation)"))
    >>> memory = Memory(0, np.array([1]), np.array([4.5]), np.array([0]), now=3 * 86400)
    >>> print(text.prompt(memory, np.array([2, 0]), "direct").split("What")[1].split("Which")[0])
     the person met before, the latest last:
    - Heat (crime), rated 4.5, viewed 3 days ago
    <BLANKLINE>
    The options:
    A. Up (animation)
    B. Alien (horror)
    <BLANKLINE>
    <BLANKLINE>
    """

    items: Sequence[str]
    files: Mapping[str, str | Path] = field(default_factory=dict)
    verb: str = "viewed"
    rating: str = "rated {}"
    _templates: dict[str, Template] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.files) - set(_FIELDS))
        if unknown:
            raise InputError(f"there is no template {unknown[0]!r}: {', '.join(_FIELDS)}")
        for name, known in _FIELDS.items():
            place = Path(self.files.get(name, _HERE / f"{name}.txt"))
            try:
                template = Template(place.read_text("utf-8").rstrip("\n"))
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"the template {place} cannot be read: {error}") from error
            named = set(template.get_identifiers())
            needed = {"history", "options"} if name == "scene" else known
            if not template.is_valid() or named - known or needed - named:
                raise InputError(f"the template {place} names {sorted(named)}; it may name {sorted(known)} and needs {sorted(needed)}")
            self._templates[name] = template

    def scene(self, memory: Memory, exposure: np.ndarray) -> str:
        """Memory and options in words."""
        lines = [self._entry(memory, n) for n in range(len(memory.items))]
        options = [f"{LETTERS[n]}. {self._item(int(item))}" for n, item in enumerate(exposure.tolist())]
        return self._templates["scene"].substitute(
            profile=memory.profile or "(nothing is known)", history="\n".join(lines) or "(nothing)", options="\n".join(options)
        )

    def prompt(self, memory: Memory, exposure: np.ndarray, mode: Mode) -> str:
        """What a language model is asked: for a rationale and the choice, or for the choice alone."""
        return self._templates[mode].substitute(scene=self.scene(memory, exposure))

    def prompts(self, scenes: Scenes, mode: Mode = "rationale") -> list[str]:
        """The prompts of all scenes."""
        return [self.prompt(scenes.memory(s), scenes.options(s), mode) for s in range(len(scenes))]

    def _item(self, item: int) -> str:
        return " ".join(self.items[item].split()) or f"item {item}"

    def _entry(self, memory: Memory, n: int) -> str:
        said = [f"- {self._item(int(memory.items[n])).rstrip('.')}"]
        if memory.value is not None and self.rating:
            said.append(self.rating.format(f"{float(memory.value[n]):g}"))
        if memory.time is not None and memory.now is not None:
            said.append(f"{self.verb} {ago(memory.now - int(memory.time[n]))}")
        return ", ".join(said)


def ago(seconds: int) -> str:
    """A span of time in words, in whole units.

    >>> [ago(n) for n in (60, 90_000, 20 * 86_400, 90 * 86_400, 800 * 86_400)]
    ['today', '1 day ago', '20 days ago', '3 months ago', '2 years ago']
    """
    days = max(seconds, 0) // _DAY
    for name, length in (("year", 365), ("month", 30), ("day", 1)):
        count = days // length
        if count >= (2 if name == "month" else 1):
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "today"
