"""Patient ids as people spell them: which say that nobody knows, and which look like one patient. No torch."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from statistics import median

from ddtl.data.manifest import Manifest, Note
from ddtl.schema.run import PatientIds
from ddtl.utils.errors import UserError
from ddtl.utils.wording import count

# What programs write where a cell is empty.
_EMPTY = frozenset({"", "na", "n/a", "nan", "none", "null", "nat", "<na>", "#n/a"})
_MISSING = frozenset((
    "", "na", "nan", "none", "null", "nil", "nat", "unknown", "unk", "missing", "notavailable", "notapplicable",
    "notknown", "notspecified", "tbd", "tba", "pending", "inf", "undefined", "unspecified", "unavailable", "keine",
    "unbekannt",
))  # fmt: skip
# Written by anonymisation tools, scanners and registration desks where no id is known or may be given.
_PLACEHOLDERS = frozenset((
    "anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymouspatient", "anonymizedpatient",
    "anonymisedpatient", "patientanonymous", "anonyme", "anonimo", "anonymousid", "anonid", "deidentified",
    "deidentifiedpatient", "deid", "removed", "redacted", "hidden", "masked", "withheld", "confidential", "deleted",
    "noname", "nobody", "nopatientid", "noid", "noidentifier", "patient", "patientid", "patientname", "subject", "id",
    "test", "testpatient", "patienttest", "testid", "dummy", "default", "empty", "demo", "example", "sample",
    "johndoe", "janedoe", "doe", "unidentified", "unidentifiedpatient", "unknownpatient", "unknownid", "inconnu",
    "desconocido", "sconosciuto", "onbekend", "trauma", "emergency",
))  # fmt: skip


def is_missing(text: str) -> bool:
    """Whether a cell says that nothing is known: empty, ``NA``, ``nan``, ``unknown``, ``-``, ``?``, ``#REF!``, …"""
    return _bare(text) in _MISSING or re.fullmatch(r"\s*#[A-Z/0]{2,}[!?]?\s*", text) is not None


def is_placeholder(text: str) -> bool:
    """Whether an id is any patient's rather than one's: ``ANONYMOUS``, ``DEIDENTIFIED``, ``0000``, ``TEST``, …"""
    bare = _bare(text)
    return bare in _PLACEHOLDERS or is_missing(text) or re.fullmatch(r"0+|9{6,}|x+", bare) is not None


def resolve(
    ids: Mapping[str, str | None], mode: PatientIds, where: str, key: str
) -> tuple[dict[str, str | None], tuple[Note, ...]]:
    """The patient of each image, from the ids as they are spelled.

    Args:
        ids: by sample id; None or empty where there is none.
        mode: what ids with one ``spelling_key`` are: ``check`` refuses them, ``join`` takes them for one patient, and
            ``exact`` takes all ids as they are, but for those that programs write into empty cells.
        where: the column, list or pattern that they come from, for messages.
        key: the same without a path or pattern, for records that are sent on.

    Returns:
        The patient by sample id, None where nobody knows; and the notes for results.

    Raises:
        UserError: two ids look like one patient.
    """
    is_unknown = is_empty if mode == "exact" else _names_nobody
    known = {name: text for name, text in ids.items() if text and not is_unknown(text)}
    notes = []
    words = Counter(text for name, text in ids.items() if text and name not in known and not is_empty(text))
    if words:
        shown = ", ".join(repr(word) for word, _ in words.most_common(3)) + ", …" * (len(words) > 3)
        n = words.total()
        notes.append(
            f"{key}: {shown} ({count(n, 'image')}) names no patient and is taken as missing; "
            "dataset.patient_ids=exact takes ids as they are."
        )
    rounded = [] if mode == "exact" else sorted({text for text in known.values() if _is_rounded(text)})
    if rounded:
        raise UserError(
            f"{where}: {rounded[0]!r} is a number that a spreadsheet has rounded, so patients may have become one. "
            "Export the column again as text. dataset.patient_ids=exact takes ids as they are."
        )
    groups = [] if mode == "exact" else alike(list(known.values()))
    if groups and mode == "check":
        one, other = groups[0][:2]
        more = f" (and {count(len(groups) - 1, 'more such pair')})" if len(groups) > 1 else ""
        raise UserError(
            f"{where}: {one!r} and {other!r} look like one patient in two spellings{more}. "
            "dataset.patient_ids=join takes them for one, dataset.patient_ids=exact for two people."
        )
    as_one = joined(list(known.values())) if mode == "join" else {}
    if as_one:
        verb = "is" if len(groups) == 1 else "are"
        notes.append(f"{key}: {count(len(groups), 'patient')} whose id has several spellings {verb} joined.")
    return (
        {name: as_one.get(text, text) if (text := known.get(name)) is not None else None for name in ids},
        tuple(Note(text, is_doubt=True) for text in notes),
    )


def doubts(manifest: Manifest) -> list[Note]:
    """What makes one doubt that ids are of patients: one that is everywhere, or people who share numbers."""
    found: dict[str, list[int]] = defaultdict(list)
    for sample in manifest.samples:
        if sample.patient_id is not None:
            found[sample.patient_id].append(sample.label)
    notes = []
    if len(found) > 3:
        usual = median(map(len, found.values()))
        everywhere = {
            name: len(labels)
            for name, labels in sorted(found.items())
            if len(set(labels)) > 1 and len(labels) >= max(10, 5 * usual)
        }
        for name, n in everywhere.items():
            text = f"One patient has {n} images of several classes, others {usual:g}"
            why = "it may be the id of all people whose own is not known"
            notes.append(Note(f"{text}: {why}.", is_doubt=True, names=repr(name)))
        mixed = sorted(name for name, labels in found.items() if len(set(labels)) > 1)
        if len(mixed) > len(found) / 2:
            text = f"{len(mixed)} of {len(found)} patients have images of several classes"
            fix = "let the class be a part of it, as in dataset.patient_regex='^[^/]+/P\\d+'"
            why = f"if these are different people with one number, {fix}"
            notes.append(Note(f"{text}: {why}.", is_doubt=True, names=repr(mixed[0])))
    return notes


def is_empty(text: str) -> bool:
    """Whether a program that writes tables left the cell empty."""
    return text.strip().lower() in _EMPTY


def _names_nobody(text: str) -> bool:
    # A number is somebody in a table, even 0: programs count from there.
    return is_missing(text) or (is_placeholder(text) and any(c.isalpha() for c in text))


def spelling_key(patient_id: str) -> str:
    """An id without what programs and people spell differently.

    Case, accents, blanks and invisible characters; ``="7"``, ``'7``, ``+7`` and ``#7``; the ``.0``, the exponent and
    the thousands separators of a number that went through a spreadsheet; zeros before a number (``P007`` and ``p7``);
    which separator (``-``, ``_``, ``/``, ``^``, …) is between two numbers, and all other separators.
    """
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", patient_id).casefold())
    text = "".join(_plain(c) for c in text)
    number = text.strip("=\"'#+` ")
    if _NUMBER.fullmatch(number) and len(number) < 60:
        value = Decimal(number.replace(",", ""))
        if value == value.to_integral_value() and value.adjusted() < 60:
            return str(int(value))
    text = re.sub(r"(?<=\d)[.,]0*$", "", text)
    text = re.sub(r"(?<!\d)0+(?=\d)", "", text)
    text = re.sub(r"[^\w.]+|_+", "-", text).strip("-.")
    return re.sub(r"(?<!\d)-|-(?!\d)", "", text)


_NUMBER = re.compile(r"\d{1,3}(,\d{3})+(\.0*)?|\d+(\.\d*)?(e[+-]?\d{1,2})?", re.IGNORECASE)


def _plain(character: str) -> str:
    """A character as ASCII spells it: no accent, no blank, digits of any script as ours."""
    category = unicodedata.category(character)
    if category[0] in "CZ" or category == "Mn":
        return ""
    return str(unicodedata.decimal(character)) if category == "Nd" else "-" if category == "Pd" else character


def _is_rounded(patient_id: str) -> bool:
    """Whether a program has written a long number as a rounded one, as a spreadsheet does: ``1.23457E+15``."""
    found = re.fullmatch(r"\s*(\d[.,]\d{4,})[eE]\+?(\d+)\s*", patient_id)
    return found is not None and (int(found[2]) > len(found[1]) - 2 or int(found[2]) >= 15)


def alike(patient_ids: Sequence[str]) -> list[list[str]]:
    """Groups of different ids with one ``spelling_key``, each sorted; the groups in order of their first id."""
    spelled: dict[str, set[str]] = defaultdict(set)
    for patient_id in patient_ids:
        spelled[spelling_key(patient_id)].add(patient_id)
    return sorted(sorted(ids) for ids in spelled.values() if len(ids) > 1)


def joined(patient_ids: Sequence[str]) -> Mapping[str, str]:
    """For each id the one under which all of its spellings go: the first of them by alphabet."""
    return {name: ids[0] for ids in alike(patient_ids) for name in ids}


def _bare(text: str) -> str:
    """Letters and digits alone, in one case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
