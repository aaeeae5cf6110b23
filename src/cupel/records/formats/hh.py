"""HH-RLHF transcripts: chosen and rejected as texts of "Human:" and "Assistant:" paragraphs (Bai et al. 2022, arXiv:2204.05862)."""

from __future__ import annotations

import numpy as np

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.schema import A
from cupel.records.turns import Chat, sides, transcript

NAME = "hh"
DESCRIPTION = "hh (chosen, rejected as Human:/Assistant: transcripts)"
NEEDS = ("chosen", "rejected")
ORDER_KNOWN = False
OWN_PROMPT = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS) or frame.has("prompt") or frame.shape("chosen") != "transcript" or frame.shape("rejected") != "transcript":
        return 0.0, ""
    return 1.0, "columns chosen and rejected hold Human:/Assistant: transcripts; the prompt is the turns they share"


def parse(frame: Frame) -> Parsed:
    """Prompts become chat lists, a last turn of the assistant becomes plain text."""
    return Parsed(*sides(frame, _chats(frame, "chosen"), _chats(frame, "rejected")), np.full(len(frame), A, dtype=np.int8))


def _chats(frame: Frame, name: str) -> list[Chat | None]:
    out = []
    for row, text in enumerate(frame.texts(name).to_pylist()):
        chat = transcript(text)
        if chat is None:
            frame.bad.setdefault(row, ("not_a_transcript", f"column {frame.names[name]} does not begin with Human: or Assistant:"))
        out.append(chat)
    return out
