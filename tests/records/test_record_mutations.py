"""Damaged and hostile records: whatever is in one, a command ends with a result or with one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mutations import CONSUMERS, KINDS, RUN, Kind, Workplace, consume, planned, registered

JSON = [kind for kind in KINDS if kind.form == "json"]
_EACH = 7  # mutations of each record: 200 in all; `make fuzz` tries 5,000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with registered():
        yield Workplace(tmp_path_factory.mktemp("records"))


def test_every_reader_takes_the_records_as_they_are(place: Workplace) -> None:
    for consumer in CONSUMERS:
        outcome = consume(consumer, place.renew())
        assert outcome.state == "done", (consumer, outcome)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.file.replace("/", " ") for kind in KINDS])
def test_a_changed_record_ends_no_command_in_a_traceback(place: Workplace, number: int) -> None:
    for round_ in range(_EACH):
        ((kind, consumer, seed),) = planned(number + len(KINDS) * round_, 1)
        what, outcome = place.tried(kind, consumer, seed)
        assert outcome.state != "wrong", f"{kind.file} ({what}), {consumer}, seed {seed}: {outcome.words}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSON, ids=[kind.file.replace("/", " ") for kind in JSON])
def test_a_missing_key_ends_no_command_in_a_traceback(place: Workplace, kind: Kind) -> None:
    readers = list(dict.fromkeys(kind.consumers))
    for number, keys in enumerate(place.keys(kind, 1)):
        # What a run is used for again is the record that most code reads; of others each key meets one reader.
        for consumer in readers if kind.file == f"{RUN}/results.json" else [readers[number % len(readers)]]:
            outcome = place.without(kind, keys, consumer)
            assert outcome.state != "wrong", f"{kind.file} without {keys}, {consumer}: {outcome.words}"


def test_the_same_seed_makes_the_same_change(place: Workplace) -> None:
    for kind in KINDS[:3]:
        first, second = ((place.tried(kind, "owner", 3), (place.changed / kind.file).read_bytes())[1] for _ in range(2))
        assert first == second


def test_a_record_that_is_no_file_is_refused(place: Workplace, tmp_path: Path) -> None:
    import os

    for kind in KINDS:
        if kind.file.endswith((".owner.json", "embeddings.npz", "embeddings.safetensors")):
            continue  # as if there were none
        folder = place.renew()
        path = folder / kind.file
        path.unlink()
        os.mkfifo(path)
        outcome = consume(kind.consumers[0], folder)
        assert outcome.state != "wrong", (kind.file, outcome.words)
