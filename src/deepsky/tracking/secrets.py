"""Passwords and tokens stay where they are: what leaves this process shows none."""

import re

HIDDEN = "***"
_NAMES = "token|passw|pwd|secret|sig|credential|key"  # of parameters
_PATTERNS = (
    re.compile(r"(?i)(https?://)[^/\s\"'<>]*@"),  # whoever logs in to a server may be a token
    re.compile(r"(\w[\w+.-]*://[^:/@\s]*:)[^\s\"'<>]*@"),
    re.compile(rf"(?i)([?&][\w.-]*(?:{_NAMES})[\w.-]*=)[^&\s'\"]*"),
)
_REPLACEMENTS = (rf"\1{HIDDEN}@", rf"\1{HIDDEN}@", rf"\1{HIDDEN}")


def masked(text: str) -> str:
    """Return a text without the secrets of the URLs in it: passwords, tokens, and whoever logs in to a server.

    All of ours that a store's URL could be in goes through it: messages, warnings, tables, tags, patches.
    """
    for pattern, replacement in zip(_PATTERNS, _REPLACEMENTS, strict=True):
        text = pattern.sub(replacement, text)
    return text
