"""Ids of patients as people spell them: never torn apart without a word."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ddtl.data.datasets.patient_ids import alike, is_missing, is_placeholder, resolve, spelling_key
from ddtl.utils.errors import UserError

IDS = st.from_regex(r"\A[A-Za-zäß]{0,3}[ -]?[1-9][0-9]{0,3}\Z")
BLANKS = st.sampled_from(["", " ", "\t", "\u00a0", "\u200b", "\ufeff"])


@st.composite
def spelled(draw: st.DrawFn, patient: str) -> str:
    """One way in which a program or a person may write an id."""
    text = patient
    if draw(st.booleans()):
        digits = len(text) - len(text.rstrip("0123456789"))
        text = text[: len(text) - digits] + "0" * draw(st.integers(1, 3)) + text[len(text) - digits :]
    if draw(st.booleans()):
        text += draw(st.sampled_from([".0", ".00", ".", ",0"]))
    if draw(st.booleans()):
        text = draw(st.sampled_from([text.upper(), text.lower(), text.swapcase()]))
    place = draw(st.integers(0, len(text)))
    return draw(BLANKS) + text[:place] + draw(BLANKS) + text[place:] + draw(BLANKS)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Rows of (the patient, the id as it is written), each patient under several spellings."""
    people = draw(st.lists(IDS, min_size=1, max_size=6, unique_by=spelling_key))
    return [(who, draw(spelled(who))) for who in people for _ in range(draw(st.integers(1, 4)))]


@given(rows=tables())
def test_no_spelling_tears_a_patient_apart(rows: list[tuple[str, str]]) -> None:
    written = {f"image{i}": text for i, (_, text) in enumerate(rows)}
    person = {f"image{i}": who for i, (who, _) in enumerate(rows)}
    found, _ = resolve(written, "join", "here", "here")
    groups: dict[str, set[str | None]] = {}
    for name, who in person.items():
        groups.setdefault(who, set()).add(found[name])
    assert all(len(group) == 1 for group in groups.values()), "joined by the user's word"
    assert len({next(iter(group)) for group in groups.values()}) == len(groups), "and nobody else with them"
    same = alike(list(written.values()))
    if same:
        with pytest.raises(UserError) as caught:
            resolve(written, "check", "here", "here")
        assert all(repr(text) in str(caught.value) for text in same[0][:2])
    else:
        checked, _ = resolve(written, "check", "here", "here")
        assert all(len({checked[n] for n in person if person[n] == who}) == 1 for who in groups), "they were equal"


NOBODY = "|  |-|--|?|NA|n/a|N.A.|nan|NaT|<NA>|None|NULL|unknown|Unknown |#N/A|not available"


@pytest.mark.parametrize("text", NOBODY.split("|"))
def test_words_that_say_that_nobody_knows(text: str) -> None:
    assert is_missing(text)
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["ANONYMOUS", "anon", "De-Identified", "0", "0000", "TEST", "anonymized"])
def test_words_that_are_anybodys(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["1", "P1", "10", "Nan Li", "unknown1", "A", "0001", "NA12"])
def test_ids_of_people(text: str) -> None:
    assert not is_missing(text)
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("P1", "P10"),
        ("P1", "Q1"),
        ("1.5", "1.50"),
        ("10", "1"),
        ("1-11", "11-1"),
        ("1-1", "11"),
        ("0", "10"),
    ],
)
def test_ids_of_two_people(one: str, other: str) -> None:
    assert spelling_key(one) != spelling_key(other)


SAME = """P7=p007|P-07=P07|P_07=P-07|P 7=P7|DOE^1=Doe 1|P7/=P7|patient 7=Patient_7|="7"=7|'7=7|+7=7|#7=7|1.0E+03=1000
1e0=1|1,000=1000|12.0=12|12,0=12|12.=12|P\u22127=P-7|P\u20137=P-7|\u0667=7|\u0130d=id|7\u00a0=7|P\uff17=P7
M\u00fcller 1=muller 1"""


@pytest.mark.parametrize("pair", [pair for line in SAME.splitlines() for pair in line.split("|")])
def test_spellings_of_one_id(pair: str) -> None:
    one, other = pair.rsplit("=", 1)
    assert spelling_key(one) == spelling_key(other)


@pytest.mark.parametrize("text", ["1.23457E+15", "1.2345678901234568e+16", "4.56789e12"])
def test_a_number_that_a_spreadsheet_rounded_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="rounded"):
        resolve({"a": text, "b": "P1"}, "check", "here", "here")
    assert resolve({"a": text}, "exact", "here", "here")[0] == {"a": text}


@pytest.mark.parametrize(("n", "more"), [(1, "spellings."), (2, "(and 1 more such pair)"), (3, "2 more such pairs)")])
def test_further_pairs_are_counted(n: int, more: str) -> None:
    ids = {f"{i}{end}": f"{spelling}{i}" for i in range(n) for end, spelling in (("a", "P"), ("b", "p"))}
    with pytest.raises(UserError) as error:
        resolve(ids, "check", "here", "here")
    assert more in str(error.value)


def test_one_id_in_one_spelling_is_left_as_it_is() -> None:
    found, notes = resolve({"a": " P007", "b": " P007", "c": None, "d": ""}, "check", "here", "here")
    assert found == {"a": " P007", "b": " P007", "c": None, "d": None}
    assert notes == ()
