"""Secrets in text that is shown or written down: passwords and tokens in URLs, and values of keys that are named so.

Whoever uses a value uses it as it was given; what is printed, logged or stored goes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus, unquote

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

# Settings of a URL that may contain a secret, and the variables that they are taken from where they are not given.
_VARIABLES = {"paths.weights_mirror": "DDTL_WEIGHTS_MIRROR", "paths.data_mirror": "DDTL_DATA_MIRROR"}
_URL_KEYS = {"weights_mirror", "data_mirror", "storage", "store"}  # the settings that are a URL, by their last name

# What begins a URL, or what was to be one: //host, http:/host, http:\\host.
_START = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]{0,30}):[/\\]{1,3}|(?<![\w:/\\.])[/\\]{2})(?=[^\s/\\])")
_TREE_START = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]{0,30})://|^//)(?=[^\s/\\])")
_LONGEST_PASSWORD = 500
_TOKEN = 12  # characters of a user's name that is one

# Environment variables whose value is a secret.
_SECRET_VARIABLE = re.compile(r"(api_?key|access_?key|token|secret|password|passwd|passphrase)$", re.IGNORECASE)

_secrets: dict[str, re.Pattern[str]] = {}


def add_secrets_of(url: str | None) -> None:
    """Mask the secrets of a URL from now on in whatever is shown, in the words of libraries too.

    Args:
        url: a setting that is a URL, or was meant as one; its value is used as it is.
    """
    for secret in _secrets_of(url or ""):
        _add(secret)


def add_secrets_of_command(words: Iterable[str]) -> None:
    """Add the secrets as :func:`add_secrets_of` does, for the words of a command, and for the environment that it is
    started in.
    """
    for word in words:
        key, equals, value = word.partition("=")
        text = value if equals and "//" not in key else word
        if key.rpartition(".")[2] in _URL_KEYS or _START.match(text.strip("'\"")):
            add_secrets_of(text.strip("'\""))
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= 8:
            _add(value)
        elif name.startswith("DDTL_") or name.lower().endswith("_proxy"):
            add_secrets_of(value)


def _add(secret: str) -> None:
    if len(secret) >= 4 and secret not in _secrets and MASK not in secret:
        _secrets[secret] = re.compile(rf"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{{2}})){re.escape(secret)}(?!\w)")


def _secrets_of(url: str) -> set[str]:
    """Return the secrets of a URL, as they are given and as libraries may repeat them: decoded, encoded, or a part."""
    start = _START.match(url)
    rest = url[start.end() :] if start else url
    found = {match[3] for match in _PARAMETER.finditer(rest) if is_secret(match[2])}
    at = _end_of_user(rest, is_url=True)
    if at >= 0:
        user, colon, password = rest[:at].partition(":")
        found.add(password)
        if not colon or len(user) >= _TOKEN:  # user:password has the password for a secret, and user is a word
            found.add(user)
    whole = {form for one in found for form in (one, unquote(one), quote(one, safe=""), quote(one), quote_plus(one))}
    return whole | {part for one in whole for part in re.split(r"[\s:/?#@&;\"']", one) if len(part) >= 6}


def redact(text: str) -> str:
    """Return the text with a mask in the place of each secret; the same text where it contains none.

    >>> redact("sweep.storge=postgresql://me:pass@host/db?sslpassword=1")
    'sweep.storge=postgresql://me:***@host/db?sslpassword=***'
    >>> redact("https://TOKEN@host/data?size=3")
    'https://***@host/data?size=3'
    """
    text = _in_urls(text, _START)
    for secret, pattern in _secrets.items():
        if secret in text:
            text = pattern.sub(MASK, text)
    if "@" in text:
        text = _USER.sub(rf"\1:{MASK}@", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text) if "=" in text else text


def redact_url(url: str) -> str:
    """Return a setting that is a URL, without its secrets, however they are written."""
    start = _START.match(url)
    begin = start.end() if start else 0
    return url[:begin] + _without_secrets(url[begin:], (start[1] if start else "") or "", is_url=True)


def _in_urls(text: str, starts: re.Pattern[str]) -> str:
    if "//" not in text and ("@" not in text or (":/" not in text and "\\" not in text)):
        return text
    found = list(starts.finditer(text))
    if not found:
        return text
    parts = [text[: found[0].start()]]
    for start, following in zip(found, [*found[1:], None], strict=True):
        tail = text[start.end() : following.start() if following else len(text)]
        parts.append(start[0] + _without_secrets(tail, start[1] or "", is_url=False))
    return "".join(parts)


def redact_tree(value: Any) -> Any:
    """Return the value with a mask in the place of each secret in a URL, wherever that is in lists and dicts.

    For records: what else looks like a password may be a patient, a class or a regular expression there.
    """
    if isinstance(value, str):
        return _in_urls(value, _TREE_START)
    if isinstance(value, dict):
        return {
            key: redact_url(item) if key in _URL_KEYS and isinstance(item, str) else redact_tree(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_tree(item) for item in value]
    return value


def move_to_environment(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words without those whose URL contains a secret; their values are in this process's environment
    instead.

    There trials find them, whose words are written down.
    """
    kept = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key.strip() in _VARIABLES and redact(value) != value:
            os.environ[_VARIABLES[key.strip()]] = value.strip().strip("'\"")
        else:
            kept.append(word)
    return tuple(kept)


def is_secret(name: str) -> bool:
    """Return whether a parameter of that name contains a secret."""
    return _SECRET.search(name.replace("_", "-")) is not None


def _without_secrets(text: str, scheme: str, *, is_url: bool) -> str:
    """Return what follows ``//``, without its password, and without the user where that may be a token.

    Args:
        text: the rest of the URL, and what follows it.
        scheme: before the colon; empty where there is none.
        is_url: whether the text is a URL as a whole, so that a blank may belong to its password.
    """
    at = _end_of_user(text, is_url=is_url)
    if at >= 0:
        user, colon, _ = text[:at].partition(":")
        shown = MASK if scheme.lower() in _WEB else f"{user}:{MASK}" if colon else user
        text = f"{shown}@{text[at + 1 :]}"
    return _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}={MASK}" if is_secret(found[2]) else found[0], text)


def _end_of_user(text: str, *, is_url: bool) -> int:
    """Where the ``@`` behind user and password is; -1 where there is none."""
    text = text if is_url else text[:_LONGEST_PASSWORD]
    word = text if is_url else re.split(r"\s", text, maxsplit=1)[0]
    authority = re.split(r"[/\\?#]", word, maxsplit=1)[0]
    at = authority.rfind("@")
    if at >= 0:
        return at
    port = authority.rpartition(":")[2] if ":" in authority and not authority.startswith("[") else ""
    if port and not port[0].isdigit():  # the password itself contains a / or one of its like
        return word.rfind("@") if "@" in word else _behind_a_blank(text, len(word))
    if is_url and ":" in authority and re.search(r"[/\\].*@[\w.-]+(:\d+)?(/|$)", word):  # host:8080/… or me:12/34@host
        return word.rfind("@")
    return -1


def _behind_a_blank(text: str, begin: int) -> int:
    """Where a password that contains a blank ends: at an ``@`` before a host, on the same line."""
    found = re.compile(r"[^\n@'\"]{0,200}@(?=[\w\[])").match(text, begin)
    return found.end() - 1 if found else -1
