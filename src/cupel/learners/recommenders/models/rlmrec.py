"""RLMRec around any recommender of vectors: its own score and terms, and the alignment of its vectors with text."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.models.lightgcn import LightGCN
from cupel.learners.recommenders.names import build, settings_of
from cupel.learners.recommenders.text_alignment import TextAlignment, check_settings, check_vectors, shuffled
from cupel.learners.recommenders.types import Factors, Known, Recommender


class RLMRec(Factors):
    """The backbone's score, objective and further terms, plus `TextAlignment` of its tables with vectors of text (`Known`).

    Ren et al. 2024, arXiv:2310.15950 (card 34-rlmrec). With weight 0 it is the backbone, bit for bit. gen masks the vectors that the
    objective's own pass starts from, and gives the masked rows back from their neighbours: it means something on a graph; a backbone
    without one is warned about. Views of sgl and simgcl stay unmasked.

    backbone     any trained recommender of vectors, `lightgcn` or `lightgcn:dim=32;layers=2` (a semicolon between its settings)
    kind         con or gen; weight, temperature, mask_ratio, distinct, pool: see `TextAlignment`
    shuffle      the control: vectors of text permuted within users and within items that have one
    """

    name: ClassVar[str] = "rlmrec"

    def __init__(
        self, users: int, items: int, *, backbone: str = "lightgcn", kind: str = "con", weight: float = 0.01, temperature: float = 0.2,
        mask_ratio: float = 0.1, distinct: bool = False, pool: int = 0, shuffle: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        Recommender.__init__(self, users, items)
        check_settings(kind, weight, temperature, mask_ratio, pool)
        text = backbone.replace(";", ",")
        made = settings_of(text)[0]
        if not issubclass(made, Factors) or made is RLMRec or made.kind == "solved" or made.batches != "events":
            raise InputError(
                f"rlmrec aligns learned vectors of users and items, and {made.name} has none: take lightgcn, sgl, simgcl or mf"
            )
        found = build(text, users, items, seed)
        assert isinstance(found, Factors)
        self.backbone = found
        self.settings = {
            "kind": kind, "weight": weight, "temperature": temperature, "mask_ratio": mask_ratio, "distinct": distinct, "pool": pool,
            "seed": seed,
        }  # fmt: skip
        self.weight, self.kind_of_text, self.shuffle = weight, kind, shuffle
        self.text: TextAlignment | None = None
        self.drawn: tuple[Tensor, Tensor] | None = None
        self._kept: tuple[tuple[int, ...], tuple[Tensor, Tensor]] | None = None
        if kind == "gen" and weight and not isinstance(found, LightGCN):
            warnings.warn(f"{made.name} learns nothing of a masked row from its neighbours: gen needs a graph, take con", stacklevel=2)

    @property
    def user(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]: the backbone's
        """Learned vectors of users."""
        return self.backbone.user

    @property
    def item(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]: the backbone's
        """Learned vectors of items."""
        return self.backbone.item

    @property
    def bias(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]: the backbone's
        """Numbers of items."""
        return self.backbone.bias

    def prepare(self, known: Known) -> None:
        """The backbone's structures, and the vectors of text. InputError as `TextAlignment` and where there are no vectors at all."""
        self.backbone.prepare(known)
        self._kept = self.drawn = None
        if not self.weight:
            return
        given = [x for x in (known.user_vectors, known.item_vectors) if x is not None]
        if not given:
            raise InputError("rlmrec reads vectors of what is said about items and users: give item_vectors and user_vectors, or weight=0")
        users = check_vectors(known.user_vectors, known.log.users.tolist(), "users", given[0].shape[-1])
        items = check_vectors(known.item_vectors, known.log.items.tolist(), "items", given[0].shape[-1])
        if self.shuffle:
            users, items = (shuffled(x, int(self.settings["seed"])) for x in (users, items))
        dim = self.backbone.tables()[0].shape[1]
        self.text = TextAlignment(users, items, dim, **self.settings).to(self.device())  # pyright: ignore[reportArgumentType]

    def begin_step(self, generator: torch.Generator) -> None:
        """The backbone's draws, and the rows that are masked."""
        self.backbone.begin_step(generator)
        self._kept = None
        self.drawn = self.text.mask() if self.text is not None and self.kind_of_text == "gen" else None

    def tables(self, user: Tensor | None = None, item: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The backbone's tables; in a training step of kind gen those that start from masked vectors."""
        if not self.training or self.drawn is None or self.text is None or user is not None or item is not None:
            return self.backbone.tables(user, item)
        state = (self.user._version, self.item._version, self.text.token._version, torch.is_grad_enabled())
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.backbone.tables(*self.text.masked(self.user, self.item, self.drawn)))
        return self._kept[1]

    def extra(self, user: Tensor, items: Tensor, generator: torch.Generator) -> Tensor | None:
        """The backbone's own terms plus the alignment."""
        own = self.backbone.extra(user, items, generator)
        if self.text is None:
            return own
        u, v = self.tables()
        term = self.text.contrast(u, v, user, items) if self.drawn is None else self.text.rebuilt(u, v, self.drawn)
        return term if own is None else own + term

    def penalty(self, user: Tensor, items: Tensor) -> Tensor | None:
        """The backbone's."""
        return self.backbone.penalty(user, items)


MODEL = RLMRec
