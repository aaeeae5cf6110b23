"""Texts that seem to hold personal data. What is found is never shown, only its kind, a mask, and where it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks._table import Table
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "personal_data"
SCOPE: Scope = "row"
COST = 1

_EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_RESERVED = re.compile(r"(?:^|\.)(?:example|test|invalid|localhost)(?:\.[a-z]+)?$|^(?:domain|email|company|yourdomain|mail)\.com$")
# each begins with a set of characters and looks back after it: that way the engine skips quickly to a first match
_DIGITS = re.compile(r"[+(\d](?<![\w.][+(\d])[\d ().-]{8,25}(?<=\d)(?![\w.]\d|\w)")
_NANP = re.compile(r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}")
_INTERNATIONAL = re.compile(r"\+[1-9]\d{0,2}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}")
_SSN = re.compile(r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")
_IPV4 = re.compile(r"\d(?<![\w.-]\d)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def luhn(digits: str) -> bool:
    """Check digit of payment cards (Luhn 1960): doubled every second digit from the right, the sum divisible by 10.

    >>> luhn("4539578763621486"), luhn("4539578763621487")
    (True, False)
    """
    total = 0
    for place, d in enumerate(reversed(digits)):
        value = int(d) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_valid(iban: str) -> bool:
    """Check digits of an IBAN (ISO 7064 mod 97-10): moved to the end and letters as numbers, the remainder is 1.

    >>> iban_valid("GB82 WEST 1234 5698 7654 32"), iban_valid("GB83 WEST 1234 5698 7654 32")
    (True, False)
    """
    compact = iban.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _card(digits: str) -> bool:
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 4:
        return False
    issuer = (
        digits[0] == "4"
        or "51" <= digits[:2] <= "55"
        or "2221" <= digits[:4] <= "2720"
        or digits[:2] in ("34", "37", "36", "38", "62", "65")
    )
    return issuer and luhn(digits)


def _public(address: str) -> bool:
    parts = address.split(".")
    if any(int(p) > 255 or (len(p) > 1 and p[0] == "0") for p in parts):
        return False
    a, b, c, _ = (int(p) for p in parts)
    if a in (0, 10, 127) or a >= 224 or (a, b) in ((192, 168), (169, 254)) or (a == 172 and 16 <= b < 32):
        return False
    if (a, b, c) in ((192, 0, 2), (198, 51, 100), (203, 0, 113)):  # reserved for documentation, RFC 5737
        return False
    return max(a, b, c) >= 20 and address not in ("8.8.8.8", "8.8.4.4", "1.1.1.1")  # 1.2.3.4 is a version, not an address


def kinds_in(text: str) -> Iterator[tuple[str, str]]:
    """(kind, masked form) of what looks like personal data in a text.

    Reserved names (example.com, RFC 2606), fictional numbers (555-01xx), private addresses and failed check digits do not count.

    >>> list(kinds_in("write to jane.doe@mail.example-shop.org or 203.0.113.9"))
    [('e-mail', 'j***@***.org')]
    """
    if "@" in text:
        for m in _EMAIL.finditer(text):
            name, domain = m.group().rsplit("@", 1)
            if not _RESERVED.search(domain.lower()):
                yield "e-mail", f"{name[0]}***@***.{domain.rsplit('.', 1)[1]}"
    for m in _DIGITS.finditer(text):
        run = m.group().strip()
        digits = re.sub(r"\D", "", run)
        if _SSN.fullmatch(run):
            yield "social security number", "***-**-****"
        elif re.fullmatch(r"\d[\d -]*\d", run) and _card(digits):
            yield "payment card", f"**** **** **** {digits[-2:].rjust(4, '*')}"
        elif (_NANP.fullmatch(run) and not re.search(r"555\D?01\d\d$", run)) or (_INTERNATIONAL.fullmatch(run) and 9 <= len(digits) <= 15):
            yield "telephone number", f"{'+' if run[0] == '+' else ''}*** *** **{digits[-2:]}"
    if text.count(".") >= 3:
        for m in _IPV4.finditer(text):
            if _public(m.group()):
                yield "IP address", f"{m.group().split('.')[0]}.*.*.*"
    for m in _IBAN.finditer(text):
        if iban_valid(m.group()):
            yield "IBAN", f"{m.group()[:2]}** **** ****"


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt or responses seem to hold an e-mail address, telephone or card number, IBAN, public IPv4 or SSN.

    Counted by pattern and check digit, never shown unmasked. Severity: warning from the first row on, because releasing or training
    on one person's data is a matter of law and not of shares; error from 1 % of rows, which is a source rather than an accident.
    """
    shared = context.shared(votes)
    counts: Counter[str] = Counter()
    masked: dict[str, list[str]] = {}

    def scan(texts: Table) -> np.ndarray:
        flag = np.zeros(len(texts), dtype=bool)
        for i, text in texts.at(np.flatnonzero(texts.facts.looks.personal)):
            for kind, mask in kinds_in(text):
                flag[i] = True
                counts[kind] += 1
                shown = masked.setdefault(kind, [])
                if len(shown) < 3 and mask not in shown:
                    shown.append(mask)
        return flag

    prompt, response = scan(shared.prompts), scan(shared.responses)
    rows = prompt[shared.prompt] | shared.either(response)
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, "no text seems to hold an e-mail address, telephone, card or account number, or a public IP address")
    listed = ", ".join(f"{kind} ({k:,})" for kind, k in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error" if by_share(count, n, warning=0.01) == "warning" else "warning",
        message=f"{count:,} of {n:,} pairs ({percent(count / n)}) seem to hold personal data: {listed}",
        remedy="mask it where the texts were exported, or --drop personal_data",
        details={
            "kinds": dict(sorted(counts.items())),
            "masked_examples": dict(sorted(masked.items())),
            "prompts": int(prompt.sum()),
            "responses": int(response.sum()),
        },
    )
