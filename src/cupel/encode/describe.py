"""An encoder in one line for `cupel doctor`: what it is, and how fast it is on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cupel.encode.base import Encoder

#: paragraphs of ours, put together into texts of about 280 tokens
_PARAGRAPHS = (
    "A cupel is a small porous cup in which gold is assayed. The sample is melted with lead, the lead is drawn into the "
    "cup with all that is base, and a bead of precious metal remains. What remains is weighed, and the weight is the "
    "verdict.",
    "Two people read the same pair of answers. One prefers the first because it is shorter; the other prefers the "
    "second, since it names its sources. Neither is wrong, but a file that keeps a single vote cannot tell that they "
    "disagreed.",
    "Please keep the receipt. You can return the lamp within thirty days if the packaging is undamaged, and we will "
    "refund the price by bank transfer. Delivery costs are not refunded, except where the article was faulty when it "
    "arrived.",
    "To solve 3x + 7 = 22, subtract 7 from both sides, which leaves 3x = 15, and divide by 3: x = 5. Check: 3 * 5 + 7 = "
    "22. A frequent mistake is to divide first and to forget that the 7 must be divided as well.",
    "School uniforms hide differences of income, say those in favour. Those against answer that children find other ways"
    " to compare themselves, and that a uniform has to be bought, too: in our town it costs as much as two weeks of "
    "lunches.",
    "The river rises in the hills near the border, runs north-east for 180 kilometres and enters the lake at the old "
    "harbour. In spring the water is brown with silt; by August one can see the stones on the ground and count them.",
)


_RARE = 18  # words of a text that occur in no other


@dataclass(frozen=True)
class Description:
    """An encoder: `name`, `hash`, `dim`, and `texts_per_second` on `n_texts` bundled texts of `mean_tokens` tokens."""

    name: str
    hash: str
    dim: int
    texts_per_second: float
    n_texts: int
    mean_tokens: float


def sample_texts(n: int, start: int = 0) -> list[str]:
    """Texts start .. start + n - 1 of a fixed list of texts of about 280 tokens; one word in eleven occurs nowhere else.

    >>> len(set(sample_texts(100)))
    100
    """
    size = len(_PARAGRAPHS)
    texts = []
    for i in range(start, start + n):
        rare = " ".join(_made_up(_RARE * i + k) for k in range(_RARE))
        chosen = [_PARAGRAPHS[(i * (2 * k + 1) + k * k + i // size) % size] for k in range(4)]
        texts.append("\n".join([*chosen, f"The words {rare} are listed nowhere."]))
    return texts


def _made_up(number: int) -> str:
    """A pronounceable word for each number: its digits in base 60 as syllables, scrambled so that neighbours differ early.

    >>> len({_made_up(number) for number in range(5000)})
    5000
    """
    number = (number * 7919 + 12_345) % 12_960_000  # 60 ** 4; 7919 is prime to it, so no two numbers meet
    syllables = ""
    for _ in range(4):
        number, digit = divmod(number, 60)
        syllables += "bdfgklmnprst"[digit // 5] + "aeiou"[digit % 5]
    return syllables


def describe(encoder: Encoder, seconds: float = 0.5) -> Description:
    """The encoder with its speed on bundled texts: batches of 16, 32, ... texts until one takes `seconds`.

    >>> from cupel.encode import load_encoder
    >>> found = describe(load_encoder("static"), seconds=0.02)
    >>> found.name, found.dim, found.texts_per_second > 0
    ('static', 256, True)
    """
    encoder.encode(sample_texts(4))
    n, taken = 8, 0.0
    while taken < seconds and n < 65_536:
        n *= 2
        texts = sample_texts(n, start=n)  # none that was encoded before
        start = time.perf_counter()
        encoder.encode(texts)
        taken = time.perf_counter() - start
    mean_tokens = float(encoder.token_counts(sample_texts(16)).mean())
    return Description(encoder.name, encoder.hash, encoder.dim, n / max(taken, 1e-9), n, mean_tokens)
