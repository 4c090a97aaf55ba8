"""Patient ids that name nobody: words for a missing value, and placeholders that many people share."""

from __future__ import annotations

import re
import unicodedata

_MISSING_WORDS = (
    "", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "nil", "none", "null", "(null)", "#null!", "missing",
    "not available", "not applicable", "not known", "not specified", "unavailable", "undefined", "unspecified",
    "unknown", "unk", "no id", "empty", "blank",
)  # fmt: skip

# Written by anonymisation tools, scanners and registration desks where no id is known or may be given.
_PLACEHOLDERS = frozenset((
    "ANON", "ANONYM", "ANONYMIZED", "ANONYMISED", "ANONYMOUS", "ANONYMOUSPATIENT", "ANONYMIZEDPATIENT",
    "ANONYMISEDPATIENT", "PATIENTANONYMOUS", "ANONYME", "ANONIMO", "ANONYMOUSID", "ANONID", "DEIDENTIFIED",
    "DEIDENTIFIEDPATIENT", "DEID", "REMOVED", "REDACTED", "WITHHELD", "HIDDEN", "MASKED", "CONFIDENTIAL", "DELETED",
    "DUMMY", "DEFAULT", "EXAMPLE", "SAMPLE", "TEST", "TESTPATIENT", "PATIENTTEST", "TESTID", "DEMO", "ID", "NOID",
    "NOIDENTIFIER", "NONAME", "NOPATIENTID", "PATIENT", "PATIENTID", "PATIENTNAME", "SUBJECT", "NOBODY", "JOHNDOE",
    "JANEDOE", "DOE", "UNIDENTIFIED", "UNIDENTIFIEDPATIENT", "UNKNOWNPATIENT", "UNKNOWNID", "UNBEKANNT", "INCONNU",
    "DESCONOCIDO", "SCONOSCIUTO", "ONBEKEND", "TRAUMA", "EMERGENCY",
))  # fmt: skip


def is_missing(text: str) -> bool:
    """Return whether an id is no id: empty, a word for a missing value, or punctuation alone.

    Case, blanks around and inside, and invisible characters do not matter.

    Args:
        text: as the file or table holds it, for example ``"n/a"``, ``" - "`` or ``"NaT"``.
    """
    words = _plain(text)
    return words in _MISSING or not any(character.isalnum() for character in words)


def is_placeholder(text: str) -> bool:
    """Return whether an id is one that files of different people share, for example ``ANONYMOUS`` or ``000000``.

    Case, blanks and punctuation do not matter. An id with a number of its own, such as ``ANON0042``, names one patient.
    A table whose patients are numbered from 0 has a patient ``0``: look at the whole column before deciding about that.

    Args:
        text: as the file or table holds it. Missing values are placeholders as well.
    """
    letters = re.sub(r"[\W_]", "", _plain(text)).upper()
    return is_missing(text) or letters in _PLACEHOLDERS or re.fullmatch(r"0+|9{6,}|X+", letters) is not None


def _plain(text: str) -> str:
    """Lower case, one blank between words, no invisible characters."""
    characters = unicodedata.normalize("NFKC", text)
    visible = "".join(c for c in characters if c.isspace() or unicodedata.category(c) not in {"Cf", "Cc"})
    return " ".join(visible.casefold().split())


_MISSING = frozenset(_MISSING_WORDS)
