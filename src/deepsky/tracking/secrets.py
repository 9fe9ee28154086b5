"""Passwords and tokens stay where they are: what leaves this process shows none."""

import os
import re

HIDDEN = "***"
_STORES = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI")
_SHORTEST = 4  # letters of a password that cannot be an innocent part of a text
# A login may hold any letter but blanks; quotes and angle brackets too, though a URL may also end there. What is
# hidden beyond need is bounded, and shows no secret.
# Of a web server: its name may be a token. Where a quote follows a host, or its port, the URL ends.
_LOGIN = re.compile(
    r"(?P<before>https?://)(?:(?![^\s/?#@:\"'<>]*(?::\d{1,5})?[\"'<>])[^\s/?#]{1,300}|[^\s/?#\"'<>]+)(?=@)",
    re.IGNORECASE,
)
_PASSWORD = re.compile(  # may hold / and @; digits before a quote or slash are a port, and what follows is no password
    r"(?P<before>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)(?:(?!\d{1,5}[\"'<>/?#])\S{1,300}|[^\s\"'<>]+)(?=@)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?P<before>[?&;](?:[\w-]*(?:token|secret|password|passwd|signature|credential|api-?key|access-?key)[\w-]*|sig|key|pwd)=)"
    r"[^&;#\s\"']+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return a text with the passwords and tokens of its URLs, and all logins to web servers, replaced by ``***``.

    All that a store's URL may be in goes through it before it leaves: messages, tags, files.
    """
    for name in _STORES:  # whatever letters their passwords hold
        told = os.environ.get(name, "").partition("://")[2].rpartition("@")[0].partition(":")[2]
        if len(told) >= _SHORTEST:
            text = text.replace(told, HIDDEN)
    for pattern in (_LOGIN, _PASSWORD, _TOKEN):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    return text
