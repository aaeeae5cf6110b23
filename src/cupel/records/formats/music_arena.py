"""Music Arena battles: two pieces of music made from one prompt, four possible votes (arXiv:2507.20900).

Both shapes are read: the monthly release (audio_a, audio_b, system_a, system_b, preference) and the battles that the gateway stores
(a_audio_url, a_metadata, vote). A response is a reference to its audio: cupel compares and counts such votes, and hears nothing.
"""

from __future__ import annotations

from typing import Any

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import NO_COMPARISON, Comparisons, objects
from cupel.records.schema import BOTH_BAD, SKIP, TIE, A, B

NAME = "music_arena"
DESCRIPTION = "music_arena (prompt, audio_a, audio_b, system_a, system_b, preference; or a stored battle with a_metadata, b_metadata, vote)"
NEEDS = ()
ORDER_KNOWN = True
OWN_PROMPT = True
UNUSED = ("vote", "annotator")
LOSSES = "a response is the reference of its audio, not the sound: nothing that looks at texts can say anything about the responses"

WORDS = {"a": A, "b": B, "tie": TIE, "both_bad": BOTH_BAD, "bothbad": BOTH_BAD, "skip": SKIP}


def _released(frame: Frame) -> bool:
    return {"audio_a", "audio_b", "preference"} <= set(frame.columns)


def _stored(frame: Frame) -> bool:
    return {"a_metadata", "b_metadata", "vote"} <= set(frame.columns)


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if _released(frame):
        return 1.0, "columns audio_a and audio_b hold the two pieces, preference the vote"
    if _stored(frame):
        return 1.0, "columns a_metadata and b_metadata describe the two pieces, vote holds the preference"
    return 0.0, ""


def parse(frame: Frame) -> Parsed:
    """One comparison per battle that was voted on."""
    if not _released(frame) and not _stored(frame):
        from cupel.errors import RecordError

        raise RecordError(f"format {NAME} needs {DESCRIPTION.split('(', 1)[1][:-1]}; the columns are {', '.join(frame.columns)}.")
    released = _released(frame)
    out = Comparisons(frame, ["audio_a", "audio_b", "preference", "a_audio_url", "b_audio_url", "vote", "prompt", "prompt_detailed"])
    columns = {name: objects(frame, name) for name in frame.columns if name not in ("listen_data_a", "listen_data_b")}

    def value(name: str, row: int) -> Any:
        return columns[name][row] if name in columns else None

    for row in range(len(frame)):
        vote = value("preference", row) if released else value("vote", row)
        word = vote.get("preference") if isinstance(vote, dict) else vote
        if word in (None, ""):
            out.why[row] = "the battle was not voted on"
            out.refuse(row, NO_COMPARISON, "the battle was not voted on")
            continue
        code = WORDS.get(str(word).strip().lower().replace(" ", "_"))
        if code is None:
            out.refuse(row, "unknown_label", f"the preference says {str(word)[:80]!r}; known: A, B, TIE, BOTH_BAD")
            continue
        prompt = _prompt(value("prompt_detailed", row) or value("prompt", row))
        who = value("user_pseudonym", row) or _user(value("vote_user", row))
        ref = [_reference(value, row, side, released) for side in "ab"]
        system = [_system(value(f"system_{side}", row) or value(f"{side}_metadata", row)) for side in "ab"]
        x, y = (out.text(row, reference, f"the audio of side {side}") for reference, side in zip(ref, "ab", strict=True))
        if x is not None and y is not None:
            out.add(row, prompt, x, y, code, model_a=system[0], model_b=system[1], annotator=who)
    return out.parsed([f"{out.n:,} battles: {LOSSES}"])


def _prompt(value: Any) -> str:
    """The words of the prompt, with lyrics and other wishes where it is structured."""
    if isinstance(value, dict):
        words = value.get("overall_prompt") or value.get("prompt") or ""
        rest = [f"{key}: {value[key]}" for key in ("instrumental", "lyrics", "duration", "bpm") if value.get(key) is not None]
        return "\n".join([str(words), *rest])
    return "" if value is None else text_.content_text(value)


def _reference(value: Any, row: int, side: str, released: bool) -> str | None:
    found = value(f"audio_{side}", row) if released else value(f"{side}_audio_url", row)
    if isinstance(found, dict):
        found = found.get("path") or found.get("src")
    if isinstance(found, str) and found.strip():
        return found
    battle = value("battle_uuid", row) or value("uuid", row)
    return None if battle is None else f"{battle}/{side}"


def _system(value: Any) -> str | None:
    if isinstance(value, dict):
        key = value.get("system_key", value)
        if isinstance(key, dict) and key.get("system_tag"):
            return ":".join(str(key[part]) for part in ("system_tag", "variant_tag") if key.get(part))
        return None
    return None if value is None else str(value)


def _user(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("salted_fingerprint") or value.get("salted_ip")
    return None if value is None else str(value)
