"""Class names: which of two is the positive one, and which class of one dataset is which of another. No torch.

Names are compared after :func:`key` has removed what people spell differently: case, blanks, ``-`` and ``_``,
invisible characters, and the form of a number (``0`` and ``0.0``).
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ddtl.config.overrides import in_shell
from ddtl.data.datasets.patient_ids import is_missing
from ddtl.data.manifest import Manifest, Note
from ddtl.schema.class_names import format_names
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

# The documented words (docs/own_data.md), as key() leaves them.
NEGATIVE = frozenset(
    {"normal", "normals", "healthy", "healthycontrol", "control", "controls", "negative", "neg", "benign"}
    | {"nofinding", "nofindings", "nodisease", "background", "0", "-1"}
)
_NEGATIVE_WITH_ONE = {"no": "yes", "false": "true"}  # negative with one other word only
POSITIVE = frozenset({"positive", "pos", "yes", "true", "1"})
COVID = frozenset({"covid", "covid19", "covid2019", "sarscov2", "2019ncov", "ncov", "covidpositive", "covid19positive"})
_NOT = re.compile(r"(?:non|not|no|without)[\s_-]*(.+)", re.IGNORECASE | re.DOTALL)


def key(name: str) -> str:
    """A class name without what has several spellings; two names with one key mean the same class."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc"))
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text):
        sign = "-" if text.startswith("-") else ""
        text = text.lstrip("+-0").rstrip(".") if "." not in text else text.lstrip("+-0").rstrip("0").rstrip(".")
        return f"{sign if text else ''}{text or '0'}"
    return re.sub(r"[\s_-]+", "", text)


def check_names(class_of: Mapping[str, str], where: str, class_map: Mapping[str, str] | None = None) -> None:
    """Refuse class names that mean nothing, and pairs that a reader takes for one.

    Args:
        class_of: the class of each label.
        where: the table or folder, for the message.
        class_map: what the user has mapped, which the line to paste keeps.

    Raises:
        UserError: with the line to paste.
    """
    spelled: dict[str, dict[str, str]] = defaultdict(dict)
    for label, name in class_of.items():
        if is_missing(name):
            raise UserError(
                f"{where}: the label {name!r} says that nothing is known. Remove these images, or say what it means: "
                f"{map_override({**(class_map or {}), label: 'NAME_OF_THE_CLASS'})}"
            )
        spelled[key(name)][label] = name
    same = next((found for found in spelled.values() if len(set(found.values())) > 1), None)
    if same is not None:
        one, other = sorted(set(same.values()))[:2]
        raise UserError(
            f"{where}: the labels {one!r} and {other!r} look like one class in two spellings. Rename one of them, "
            f"or join them: {map_override({**(class_map or {}), **dict.fromkeys(sorted(same), one.strip())})}"
        )


def mapped(labels: Iterable[str], class_map: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """The class that each label is of: ``dataset.class_map``'s where it names the label, else the label itself.

    Raises:
        UserError: the map names a label that is not there.
    """
    labels = list(dict.fromkeys(labels))
    unknown = sorted(set(class_map or ()) - set(labels))
    if unknown:
        raise UserError(
            f"dataset.class_map: {where} has no label {unknown[0]!r}.{did_you_mean(unknown[0], labels)} "
            f"There are {', '.join(sorted(labels))}."
        )
    return {label: (class_map or {}).get(label, label) for label in labels}


def in_order(names: Iterable[str]) -> tuple[tuple[str, ...], bool]:
    """Class names with the positive one last, and whether that is known.

    Of two names one is the negative where it is one of ``NEGATIVE``, or says ``non-X`` of the other name X, and the
    other name does not. More than two have no positive one and go by alphabet.
    """
    names = tuple(sorted(dict.fromkeys(names)))
    if len(names) != 2:
        return names, True
    first, second = names
    if is_negative(first, second) != is_negative(second, first):
        return (names if is_negative(first, second) else (second, first)), True
    return names, False


def ordered(class_of: Mapping[str, str], classes: Sequence[str] | None) -> tuple[tuple[str, ...], bool]:
    """The classes as ``dataset.classes`` lists them, or else :func:`in_order`; whether the positive one is known.

    Args:
        class_of: the class of each label.
        classes: names of classes, or the labels that are mapped to them.
    """
    if classes is None:
        return in_order(class_of.values())
    names = [unicodedata.normalize("NFC", name) for name in classes]
    if not set(names) <= set(class_of.values()):
        names = [class_of.get(name, name) for name in names]
    return tuple(dict.fromkeys(names)), True


def is_negative(name: str, other: str) -> bool:
    """Whether a class name says that the disease is absent, given the ``other`` class."""
    if key(name) in NEGATIVE or _NEGATIVE_WITH_ONE.get(key(name)) == key(other):
        return True
    if any(key(name).startswith(word) for word in NEGATIVE if len(word) > 4):  # normal2, healthy volunteers
        return True
    found = _NOT.fullmatch(_without_shared_start(name, other))
    denied = "" if found is None else key(found[1])
    return bool(denied) and _same_disease(denied, key(_without_shared_start(other, name)))


def _without_shared_start(name: str, other: str) -> str:
    """``NonCOVID`` of ``CT_NonCOVID``, given ``CT_COVID``: what comes behind the words that both begin with."""
    parts, others = (re.split(r"(?<=[\s_-])", text) for text in (name, other))
    shared = 0
    while shared < min(len(parts), len(others)) - 1 and key(parts[shared]) == key(others[shared]):
        shared += 1
    return "".join(parts[shared:])


def _same_disease(one: str, other: str) -> bool:
    return one == other or {one, other} <= COVID


def match(theirs: Manifest, ours: Sequence[str]) -> list[int] | None:
    """For each of another dataset's classes, which of ours it is; None where that is not known.

    It is known where all names are equal by :func:`key` (the names of COVID-19 are equal to each other). Of two classes
    the positive ones, each the last, are each other's where they are equal, or where one of them is called
    ``positive``, ``1``, ``yes``; but not where a name speaks against it.

    Args:
        theirs: the dataset.
        ours: of the network, or of the first source of a pool; of two the positive one is the last.
    """
    if len(theirs.classes) != len(ours):
        return None
    places = [next((i for i, name in enumerate(ours) if _equal(name, their)), None) for their in theirs.classes]
    if None not in places and len(set(places)) == len(ours):
        return [place for place in places if place is not None]
    if len(ours) != 2 or not theirs.is_positive_known:
        return None
    negative, positive = ours
    their_negative, their_positive = theirs.classes
    crossed = _equal(negative, their_positive) or _equal(positive, their_negative)
    inverted = is_negative(positive, negative) or is_negative(their_positive, their_negative)
    names = (_without_shared_start(positive, negative), _without_shared_start(their_positive, their_negative))
    same = _equal(*names) or bool({key(name) for name in names} & POSITIVE)
    return [0, 1] if same and not crossed and not inverted else None


def _equal(one: str, other: str) -> bool:
    return _same_disease(key(one), key(other))


def doubts(manifest: Manifest) -> list[Note]:
    """What makes one doubt that the labels are classes: many of them, or a class of one patient."""
    notes: list[Note] = []
    n, images = len(manifest.classes), len(manifest)
    if n > images / 10:
        text = f"{n} classes for {images} images: labels may be something else, such as names of patients or files."
        notes.append(Note(text, is_doubt=True))
    groups: dict[int, set[str]] = defaultdict(set)
    for sample in manifest.samples:
        groups[sample.label].add(sample.group)
    for label, found in sorted(groups.items()):
        if manifest.grouping == "patient" and len(found) == 1:
            (patient,) = found
            text = f"All images of class {manifest.classes[label]} are of one patient"
            notes.append(Note(f"{text}: a model may tell that person, not the disease.", is_doubt=True, names=patient))
    return notes


def renamed(manifest: Manifest, class_map: Mapping[str, str] | None) -> Manifest:
    """A dataset with the classes that ``dataset.class_map`` makes of its own, several of which may become one.

    Raises:
        UserError: the map names a class that the dataset does not have, or leaves only one.
    """
    if class_map is None:
        return manifest
    named = mapped(manifest.classes, class_map, manifest.dataset)
    check_names(named, manifest.dataset, class_map)
    require_two(named.values(), manifest.dataset)
    kept = tuple(dict.fromkeys(named.values()))
    same = len(kept) == len(manifest.classes)
    classes, is_known = (kept, manifest.is_positive_known) if same else in_order(kept)
    labels = [classes.index(named[name]) for name in manifest.classes]
    samples = tuple(replace(sample, label=labels[sample.label]) for sample in manifest.samples)
    return replace(manifest, classes=classes, samples=samples, is_positive_known=is_known, labels=tuple(named.items()))


def require_two(names: Iterable[str], where: str) -> None:
    """Refuse what leaves nothing to tell apart.

    Raises:
        UserError: there is one class.
    """
    left = sorted(set(names))
    if len(left) < 2:
        raise UserError(f"{where}: two classes are needed, and dataset.class_map leaves only {', '.join(left)}.")


def matched(manifest: Manifest, classes: Sequence[str], override: str = "dataset.class_map") -> tuple[Manifest, str]:
    """A dataset with its labels as indices into ``classes``, and a sentence where the classes go by other names.

    Args:
        manifest: the dataset.
        classes: of the network, or of the first source of a pool.
        override: the key that settles it by hand, for the message.

    Raises:
        UserError: the names do not say which class is which.
    """
    places = match(manifest, classes)
    if places is None:
        options = [dict.fromkeys(manifest.classes, "ONE_OF_THEM")]
        if len(manifest.classes) == len(classes) == 2:
            options = [dict(zip(manifest.classes, order, strict=True)) for order in (classes, classes[::-1])]
        labels = manifest.labels or [(name, name) for name in manifest.classes]
        options = [{label: option[class_] for label, class_ in labels} for option in options]
        raise UserError(
            f"{manifest.dataset} has the classes {', '.join(manifest.classes)}, and which of "
            f"{', '.join(classes)} each is, the names do not show. Give it: "
            f"{' or '.join(map_override(option, override) for option in options)}"
        )
    samples = tuple(replace(sample, label=places[sample.label]) for sample in manifest.samples)
    pairs = ", ".join(
        f"{their} as {classes[place]}"
        for their, place in zip(manifest.classes, places, strict=True)
        if their != classes[place]
    )
    sentence = f"{manifest.dataset}: classes are matched by their names: {pairs}." if pairs else ""
    return replace(manifest, classes=tuple(classes), samples=samples, is_positive_known=True), sentence


def for_network(manifest: Manifest, classes: Sequence[str]) -> Manifest:
    """A dataset that a trained network is tested on, with the network's classes; raises as :func:`matched` does."""
    found, renamed_to = matched(manifest, classes)
    return replace(found, notes=(*found.notes, Note(renamed_to, is_doubt=True))) if renamed_to else found


def report_order(dataset: str, names: Sequence[str], is_known: bool) -> None:
    """Log which of two classes is the positive one where their names have decided that."""
    if len(names) == 2 and is_known:
        logger.info("%s: the positive class is %s, and %s the negative one.", dataset, names[1], names[0])


def require_positive(manifest: Manifest) -> None:
    """Refuse a two-class dataset of which nothing says which class is the positive one.

    Raises:
        UserError: with the two lines to choose from.
    """
    if not manifest.is_positive_known:
        one, other = manifest.classes
        raise UserError(
            f"{manifest.dataset}: which of {one!r} and {other!r} is the positive class (the disease) is not known by "
            f"the names. Give it, the positive class last: {classes_override((one, other))} or "
            f"{classes_override((other, one))}"
        )


def classes_override(classes: Sequence[str]) -> str:
    """``dataset.classes=[…]``, to be pasted into a shell."""
    return in_shell(f"dataset.classes={format_names(classes)}")


def map_override(class_map: Mapping[str, str], name: str = "dataset.class_map") -> str:
    """``dataset.class_map={…}``, to be pasted into a shell."""
    return in_shell(f"{name}={format_names(dict(class_map))}")
