"""Passwords and tokens stay where they are: what leaves this process shows none."""

import re

HIDDEN = "***"
_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)[^\s/?#@]+(?=@)", re.IGNORECASE)
_TOKEN = re.compile(
    r"(?P<before>[?&;](?:[\w-]*(?:token|secret|password|passwd|signature|credential|api-?key|access-?key)[\w-]*|sig|key|pwd)=)"
    r"[^&;#\s\"']+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return a text with the passwords and tokens of its URLs replaced by ``***``: ``//user:***@host?token=***``."""
    for pattern in (_PASSWORD, _TOKEN):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    return text
