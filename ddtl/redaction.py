"""Secrets in text that is shown or written down: passwords and tokens in URLs, and values of keys that are named so.

Whoever uses a value uses it as it was given; what is printed, logged or stored goes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

MASK = "***"

# Names of query parameters (and of settings) whose value is a secret.
_SECRET = re.compile(
    r"pass(w|$)|passphrase|\bp(s|ass)?wd?\b|\bpw\b|secret|token|credential|signature|\bsig\b|\bauth|x-(amz|goog|ms)-"
    r"|\b(code|jwt|bearer|session|sid|access)\b"
    r"|(\b|api|access|account|shared|private|ssl)key\b|accesskeyid",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"([?&;#])([^\s=&;#?'\"]{1,100})=([^\s&;#'\"]+)")
# A word such as logger.wandb.api_key=…, and user:password@host without a scheme.
_ASSIGNED = re.compile(
    r"(?<![\w.-])([\w.-]{0,100}(?:passw|secret|token|api_?key|access_?key|credential)[\w.-]{0,100}=)"
    r"(?!\*{3})('[^']+'|\"[^\"]+\"|[^\s'\"&;]+)",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<![\w.%+/@:*-])([\w.%+-]{1,100}):([^\s/@:'\"]{1,200})@(?=[\w\[])")
_WEB = ("http", "https", "ftp", "ftps", "s3", "gs", "hf")  # where a user's name alone may be a token

# Settings of a URL that may hold a secret, and the variables that they are taken from where they are not given.
_VARIABLES = {"paths.weights_mirror": "DDTL_WEIGHTS_MIRROR", "paths.data_mirror": "DDTL_DATA_MIRROR"}


def redacted(text: str) -> str:
    """The text with a mask in the place of each secret; the same text where it holds none.

    >>> redacted("sweep.storge=postgresql://me:pass@host/db?sslpassword=1")
    'sweep.storge=postgresql://me:***@host/db?sslpassword=***'
    >>> redacted("https://TOKEN@host/data?size=3")
    'https://***@host/data?size=3'
    """
    text = _in_urls(text)
    if "@" in text:
        text = _USER.sub(rf"\1:{MASK}@", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text) if "=" in text else text


def _in_urls(text: str) -> str:
    if "://" in text:
        head, *tails = text.split("://")
        parts = [head]
        before = head
        for tail in tails:
            url, rest = _first_word(tail)
            parts.append(_without_secrets(url, before[-5:].lower().endswith(_WEB)) + rest)
            before = tail
        text = "://".join(parts)
    return text


def redacted_tree(value: Any) -> Any:
    """The value with a mask in the place of each secret in a URL, wherever that stands in lists and dicts.

    For records: what else looks like a password may be a patient, a class or a regular expression there.
    """
    if isinstance(value, str):
        return _in_urls(value)
    if isinstance(value, dict):
        return {key: redacted_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_tree(item) for item in value]
    return value


def moved_to_environment(words: Iterable[str]) -> tuple[str, ...]:
    """The words without those whose URL holds a secret; their values are in this process's environment instead.

    There trials find them, whose words are written down.
    """
    kept = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key.strip() in _VARIABLES and redacted(value) != value:
            os.environ[_VARIABLES[key.strip()]] = value.strip().strip("'\"")
        else:
            kept.append(word)
    return tuple(kept)


def is_secret(name: str) -> bool:
    """Whether a parameter of that name holds a secret."""
    return _SECRET.search(name.replace("_", "-")) is not None


def _first_word(text: str) -> tuple[str, str]:
    parts = re.split(r"(\s)", text, maxsplit=1)
    return parts[0], "".join(parts[1:])


def _without_secrets(url: str, is_web: bool) -> str:
    """What stands behind ``://``, without its password, and without the user where that may be a token."""
    authority = re.split(r"[/?#]", url, maxsplit=1)[0]
    at = authority.rfind("@")
    port = authority.rpartition(":")[2] if ":" in authority and not authority.startswith("[") else ""
    if at < 0 and port and not port[0].isdigit():
        at = url.rfind("@")  # the password itself holds a / or one of its like
    if at >= 0:
        user, colon, _ = url[:at].partition(":")
        shown = MASK if is_web else f"{user}:{MASK}" if colon else user
        url = f"{shown}@{url[at + 1 :]}"
    return _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}={MASK}" if is_secret(found[2]) else found[0], url)
