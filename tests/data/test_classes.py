"""Which class of one dataset is which of another, and which of two is the positive one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddtl.data.datasets import classes
from ddtl.data.manifest import Manifest, Sample
from ddtl.utils.errors import UserError


def dataset(*names: str, known: bool = True) -> Manifest:
    samples = tuple(Sample(f"{k}", Path(f"{k}"), k) for k in range(len(names)))
    return Manifest("mine", names, samples, grouping="none", is_positive_known=known)


STATED = ("1", "2")  # by dataset.classes: 2 is the disease


@pytest.mark.parametrize(
    ("theirs", "ours", "places"),
    [
        (("normal", "covid"), ("non-COVID", "COVID"), [0, 1]),
        (("covid", "normal"), ("normal", "covid"), [1, 0]),  # equal names: the order plays no part
        (("COVID-19", "Normal"), ("normal", "covid"), [1, 0]),
        (("CT_NonCOVID", "CT_COVID"), ("normal", "covid"), [0, 1]),
        (("0", "1"), ("normal", "covid"), [0, 1]),
        (("negative", "positive"), ("non-COVID", "COVID"), [0, 1]),
        (("no", "yes"), ("healthy", "ill"), [0, 1]),
        (("healthy", "ill"), ("no", "yes"), [0, 1]),
        (("negative", "positive"), STATED, [0, 1]),
        (("a", "b", "c"), ("c", "a", "b"), [1, 2, 0]),
        # What was said speaks against what the names say, or they say nothing.
        (("covid", "normal"), ("non-COVID", "COVID"), None),
        (STATED, ("normal", "covid"), None),
        (("normal", "covid"), STATED, None),
        (("0", "1"), STATED, None),
        (("negative", "positive"), ("1", "0"), None),
        (("negative", "positive"), ("yes", "no"), None),
        (("normal", "pneumonia"), ("normal", "covid"), None),
        (("a", "b", "c"), ("a", "b"), None),
        (("a", "b", "c"), ("a", "b", "d"), None),
    ],
)
def test_classes_are_matched_where_it_is_known(
    theirs: tuple[str, ...], ours: tuple[str, ...], places: list[int] | None
) -> None:
    assert classes.match(dataset(*theirs), ours) == places


def test_an_order_of_the_alphabet_matches_nothing() -> None:
    assert classes.match(dataset("a", "positive", known=False), ("normal", "covid")) is None
    assert classes.match(dataset("covid", "rest", known=False), ("rest", "covid")) == [1, 0], "but equal names do"


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (("covid", "normal"), "covid"),
        (("COVID", "non-COVID"), "COVID"),
        (("no tumor", "tumor"), "tumor"),
        (("false", "true"), "true"),
        (("-1", "1"), "1"),
        (("healthy volunteers", "patients"), "patients"),
        (("1", "2"), None),
        (("1", "covid"), None),
        (("pos", "covid"), None),
        (("normal", "normal2"), None),
        (("no", "co"), None),
        (("false", "covid"), None),
        (("abnormal", "covid"), None),
        (("nodule", "covid"), None),
        (("novel", "old"), None),
    ],
)
def test_the_positive_class_is_known_by_a_negative_name_alone(names: tuple[str, str], positive: str | None) -> None:
    for order in (names, names[::-1]):
        found, known = classes.in_order(order)
        assert (found[-1] if known else None) == positive


@pytest.mark.parametrize(
    ("one", "other"),
    [("COVID-19", "covid 19"), ("0", "0.0"), ("1.", "1"), ("a\u200bb", "AB"), ("NON_COVID", "non covid")],
)
def test_spellings_of_one_class(one: str, other: str) -> None:
    assert classes.key(one) == classes.key(other)
    with pytest.raises(UserError, match="one class in two spellings"):
        classes.check_names({one: one, other: other}, "here")


def test_a_map_renames_and_joins() -> None:
    manifest = dataset("A", "B", "C")
    found = classes.renamed(manifest, {"A": "negative", "B": "COVID", "C": "negative"})
    assert found.classes == ("negative", "COVID")
    assert [sample.label for sample in found.samples] == [0, 1, 0]
    with pytest.raises(UserError, match="has no label"):
        classes.renamed(manifest, {"D": "x"})


def test_the_line_to_paste_is_of_the_labels_as_they_are() -> None:
    manifest = classes.renamed(dataset("CAP", "normal", "ill"), {"CAP": "rest", "normal": "rest"})
    with pytest.raises(UserError) as caught:
        classes.matched(manifest, ("non-COVID", "COVID"))
    assert "'dataset.class_map={CAP: non-COVID, normal: non-COVID, ill: COVID}'" in str(caught.value)


def test_classes_are_listed_by_their_own_names_or_by_those_of_their_labels() -> None:
    class_of = {"CAP": "non-COVID", "normal": "non-COVID", "covid": "COVID"}
    for given_ in (["non-COVID", "COVID"], ["CAP", "covid"], ["CAP", "normal", "covid"]):
        assert classes.ordered(class_of, given_) == (("non-COVID", "COVID"), True)
    swapped = {"normal": "covid", "covid": "normal"}
    assert classes.ordered(swapped, ["normal", "covid"]) == (("normal", "covid"), True)
