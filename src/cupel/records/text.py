"""Chat lists and plain text: a prompt or a response is a string; a chat list is kept as canonical JSON inside that string."""

from __future__ import annotations

import json
from typing import Any


def messages(text: str) -> list[dict[str, Any]] | None:
    """The messages of a chat list written as JSON, or None where the text is plain.

    A chat list is a non-empty JSON array of objects that each have a `role` (text) and a `content`.

    >>> messages('[{"role": "user", "content": "Why?"}]')
    [{'role': 'user', 'content': 'Why?'}]
    >>> messages("[1] Why?") is None
    True
    """
    if not text.startswith("[") or '"role"' not in text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if is_chat(found) else None


def is_chat(value: Any) -> bool:
    """Whether a value is a non-empty list of messages with a role and a content.

    >>> is_chat([{"role": "user", "content": "Why?"}]), is_chat([]), is_chat([{"role": "user"}])
    (True, False, False)
    """
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) and "content" in m for m in value)
    )


def canonical(chat: list[dict[str, Any]]) -> str:
    """Chat list -> one line of JSON: role, then content, then other keys sorted; keys without a value are left out.

    >>> canonical([{"content": "Why?", "role": "user", "name": None}])
    '[{"role":"user","content":"Why?"}]'
    """
    out = []
    for message in chat:
        ordered = {"role": message["role"], "content": message["content"]}
        ordered.update({key: message[key] for key in sorted(message) if key not in ordered and message[key] is not None})
        out.append(ordered)
    return json.dumps(out, ensure_ascii=False, separators=(",", ":"))


def render(text: str) -> str:
    """A prompt or a response as plain text, for encoders and for reading.

    Plain text is returned as it is; a chat list of one message becomes its content; longer lists become one paragraph per
    message that starts with the role.

    >>> render("Why?"), render('[{"role":"user","content":"Why?"}]')
    ('Why?', 'Why?')
    >>> render('[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]')
    'user: Hi\\n\\nassistant: Hello'
    >>> render('[{"role":"assistant","content":null,"tool_calls":[{"name":"tide"}]}]')
    '[{"name": "tide"}]'
    """
    chat = messages(text)
    if chat is None:
        return text
    if len(chat) == 1:
        return _said(chat[0])
    return "\n\n".join(f"{m['role']}: {_said(m)}" for m in chat)


def _said(message: dict[str, Any]) -> str:
    """The words of a message, then its tool calls as JSON."""
    words = content_text(message["content"])
    calls = message.get("tool_calls") or message.get("function_call")
    if not calls:
        return words
    called = json.dumps(calls, ensure_ascii=False, sort_keys=True)
    return f"{words}\n{called}" if words else called


def content_text(content: Any) -> str:
    """The words in a message's content: the text itself, or the text parts of a list of parts.

    >>> content_text([{"type": "text", "text": "Look:"}, {"type": "image"}])
    'Look:'
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return json.dumps(content, ensure_ascii=False, sort_keys=True)
