"""Passwords and tokens stay where they are: what leaves this process shows none."""

import re

HIDDEN = "***"
_LOGIN = re.compile(r"(?P<before>https?://)[^\s/?#\"'<>]+(?=@)", re.IGNORECASE)  # a server's: its name may be a token
_PASSWORD = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)[^\s\"'<>]+(?=@)", re.IGNORECASE
)  # may hold / and @
_TOKEN = re.compile(
    r"(?P<before>[?&;](?:[\w-]*(?:token|secret|password|passwd|signature|credential|api-?key|access-?key)[\w-]*|sig|key|pwd)=)"
    r"[^&;#\s\"']+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return a text with the passwords and tokens of its URLs, and all logins to web servers, replaced by ``***``.

    All that a store's URL may be in goes through it before it leaves: messages, tags, files.
    """
    for pattern in (_LOGIN, _PASSWORD, _TOKEN):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    return text
