"""Valid records of every kind, changed at random by a seed, and the commands that read them.

A folder with all kinds is made once (:func:`workplace`); :func:`mutate` changes one of its files, :func:`consume` runs
one command on it in this process and says how that ended. No mutation may end in a traceback, take over 2 s of
computing, or over 1 GiB.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import io
import json
import lzma
import operator
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.golden import commands

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SECONDS = 2.0  # of computing
WALL = 30.0  # seconds after which a command waits for something
MEMORY = 1 << 30

RUN, KILLED, MADE, OTHER = "runs/phantom/finished", "runs/phantom/killed", "runs/covid19ct/made", "runs/covid19ct/other"
EVALUATION = f"{RUN}/evaluations/phantom-b-grouped"
SWEEP, SEARCH, STUDY = "runs/sweeps/made", "runs/sweeps/phantom-lr", "runs/studies/cross_dataset"
AUDIT = "runs/audits/phantom"


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """While the golden network is known in this process."""
    from ddtl.schema import backbones

    spec = importlib.util.spec_from_file_location("golden_site", GOLDEN / "site" / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    golden = importlib.util.module_from_spec(spec)
    finders = list(sys.meta_path)
    spec.loader.exec_module(golden)
    sys.meta_path[:] = finders
    golden.REGISTER["ddtl.schema.backbones"](backbones)
    try:
        yield
    finally:
        del backbones.BACKBONES[golden.NAME]


def workplace(folder: Path) -> None:
    """A folder with a record of every kind, each valid."""
    from ddtl.utils.files import write_json
    from tests.support import explained, records, study_records, sweep_records

    for name, to in (("finished", RUN), ("killed", KILLED), ("sweep", "")):
        with lzma.open(GOLDEN / f"{name}.tar.xz") as file, tarfile.open(fileobj=file) as archive:
            archive.extractall(folder / name, filter="data")
        if to:
            (run,) = (folder / name).glob("runs/phantom/golden-*")
            (folder / to).parent.mkdir(parents=True, exist_ok=True)
            run.rename(folder / to)
    (folder / "finished/runs/audits").rename(folder / "runs/audits")
    shutil.copy(folder / "finished/runs/phantom/test_looks_grouped.jsonl", folder / "runs/phantom")
    (folder / SWEEP).parent.mkdir(parents=True)
    (folder / "sweep/runs/sweeps/phantom-lr").rename(folder / SEARCH)
    with lzma.open(GOLDEN / "study.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        archive.extractall(folder / "study", filter="data")
    (evaluation,) = (folder / "study").glob("runs/phantom/*/evaluations/*/")
    (folder / EVALUATION).parent.mkdir()
    evaluation.rename(folder / EVALUATION)
    for name in ("finished", "killed", "sweep", "study"):
        shutil.rmtree(folder / name)
    for name, seed in ((MADE, 0), (OTHER, 1)):
        records.write(folder / name, records.table(seed=seed), overrides=("dataset=covid19ct", f"seed={seed}"))
        identity = {"dataset.name": "covid19ct", "dataset.digest": "0", "model.name": "resnet18", "seed": seed}
        write_json(folder / name / "identity.json", {**identity, "trainer.monitor": "val/roc_auc"})
    explained.write(folder / MADE)
    write_json(folder / MADE / "notes.json", {"note": "the one of the paper", "tags": ["paper", "baseline"]})
    write_json(folder / "runs" / "views.json", {"views": {"best": "filter=covid19ct&sort=-score", "all": "kind=run"}})
    write_json(folder / MADE / ".owner.json", {"pid": 1, "host": "elsewhere", "place": "there", "started": "1"})
    write_json(folder / KILLED / "ended_early.json", {"why": "stopped"})
    (folder / SWEEP).mkdir()
    write_json(folder / SWEEP / "sweep.json", sweep_records.record(24, final=sweep_records.final()))
    jobs = [study_records.run(folder / "runs", "alpha", 0, {"beta": 1.0})]
    facts = {"roc_auc": 0.5, "accuracy": 0.5, "balanced_accuracy": 0.5}
    pair = {"source": "alpha", "target": "beta", "duplicates": ["beta/image0000"], "majority": facts}
    study_records.study(folder / "runs", "cross_dataset", jobs, [pair])
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    (folder / RUN / "wandb_id").write_text("0a1b2c3d")


# ---- the commands


def _cli(*words: str) -> Callable[[Path], int]:
    def run(folder: Path) -> int:
        from ddtl.commands import cli

        return cli.main([word.replace("@", f"{folder}/") for word in words])

    return run


def _dashboard(folder: Path) -> int:
    """All rows, and what is shown of runs and of a sweep: curves, settings that differ, logs, charts."""
    import json as json_

    from ddtl.dashboard import panels, server
    from ddtl.utils.errors import UserError

    rows = server.CachedRows(folder / "runs")
    found, body, _ = rows.now()
    assert json_.loads(body)["rows"]
    paths = [row.path for row in found if row.kind == "run"]
    assert {"covid19ct/other", "phantom/finished", "phantom/killed"} & set(paths), "a bad record costs its row alone"
    for show in (panels.curves, panels.differences, panels.logs):
        with contextlib.suppress(UserError):
            json_.dumps(show(*server._picked(rows, paths)), allow_nan=False)
    for path in [row.path for row in found if row.kind == "sweep"]:
        with contextlib.suppress(UserError):
            json_.dumps(server._sweep(rows, [path]), allow_nan=False)
    return 0


def _views(folder: Path) -> int:
    from ddtl.dashboard import server

    server._json(server._views(folder / "runs"))
    return 0


def _open_sweep(folder: Path) -> int:
    """What ``ddtl sweep`` does before its first trial, and its record."""
    from dataclasses import replace

    from ddtl.sweeps.plan import settings
    from ddtl.sweeps.store import open, record

    words = [*commands.SWEEP[1:], f"paths.runs_dir={folder}/runs"]
    plan = settings.read(words, tried=False)
    store = open.open_sweep(replace(plan, folder=folder / SEARCH))
    try:
        store.snapshot()
        record.write(store)
        open.reopen(folder / SEARCH).close()
    finally:
        store.close()
    return 0


def _resume(folder: Path) -> int:
    """What ``ddtl train`` does with a run that was stopped, up to its first new epoch."""
    from ddtl.config.load import load
    from ddtl.training.train import EndedEarly, train

    words = [*commands.KILLED[1:], f"paths.runs_dir={folder}/runs", "run.name=killed"]
    with contextlib.suppress(EndedEarly):
        train(load(words), [_stopping()])
    return 0


def _stopping() -> Any:
    from ddtl.training.callbacks import EarlyEnd

    class Stopping(EarlyEnd):
        """Ends the fit after a new epoch."""

        def decide(self, trainer: Any) -> str | None:
            return "stopped" if trainer.current_epoch >= 2 else None

    return Stopping()


def _ledger(folder: Path) -> int:
    from ddtl.records import test_ledger

    scoring = test_ledger.Scoring("another", "epoch 1", "0" * 64, "0" * 10, {"evaluation.threshold": 0.5})
    test_ledger.record_use(folder / "runs", "phantom", "grouped", scoring)
    test_ledger.uses_of(folder / "runs", "phantom")
    test_ledger.is_used(folder / "runs", "study x")
    return 0


def _owner(folder: Path) -> int:
    from ddtl.dashboard import index
    from ddtl.records import run_folder

    index.in_use(folder / MADE)
    run_folder.owner_of(folder / MADE)
    with contextlib.suppress(run_folder.InUse), run_folder.own_for_deletion(folder / MADE):
        pass
    return 0


def _histogram(folder: Path) -> int:
    from ddtl.records import predictions
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.evaluate_external import _share_seen, reference_histogram

    run = RunFolder(folder / RUN)
    reference_histogram(run)
    table = predictions.read(folder / OTHER / "predictions.csv")
    _share_seen(run, table, dict.fromkeys(table.sample_id.tolist(), "0" * 64), "phantom", {"dataset": "phantom"}, 0)
    return 0


def _wandb_id(folder: Path) -> int:
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.loggers import _run_id

    _run_id(RunFolder(folder / RUN))
    return 0


def _embeddings(folder: Path) -> int:
    from ddtl.reports.study import embeddings

    embeddings._read(folder / EVALUATION)
    return 0


CONSUMERS: Mapping[str, Callable[[Path], int]] = {
    "report": _cli("report", f"@{MADE}"),
    "report evaluation": _cli("report", f"@{EVALUATION}"),
    "report finished": _cli("report", f"@{RUN}"),
    "report sweep": _cli("report", f"@{SWEEP}"),
    "share audit": _cli("report", f"@{AUDIT}", "share=true"),
    "report study": _cli("report", f"@{STUDY}"),
    "compare": _cli("compare", f"@{MADE}", f"@{OTHER}", "replicates=100"),
    "evaluate": _cli("evaluate", f"@{RUN}", "evaluation.threshold=youden", "evaluation.interval=wilson"),
    "export": _cli("export", f"@{RUN}", "format=safetensors"),
    "predict": _cli("predict", f"@{RUN}", "@image.png", "output=@predicted", "overwrite=true"),
    "explain": _cli("explain", f"@{RUN}", "images=1", "randomised=0"),
    "runs list": _cli("runs", "list", "paths.runs_dir=@runs"),
    "runs show": _cli("runs", "show", "covid19ct/made", "paths.runs_dir=@runs"),
    "runs tag": _cli("runs", "tag", "covid19ct/made", "tag", "paths.runs_dir=@runs"),
    "runs view": _cli("runs", "view", "paths.runs_dir=@runs"),
    "keep a view": _cli("runs", "view", "mine", "#filter=resnet", "paths.runs_dir=@runs"),
    "runs clean": _cli("runs", "clean", "broken", "yes=true", "paths.runs_dir=@runs"),
    "dashboard": _dashboard,
    "views": _views,
    "sweep": _open_sweep,
    "train": _resume,
    "ledger": _ledger,
    "owner": _owner,
    "transfer": _histogram,
    "wandb": _wandb_id,
    "embeddings": _embeddings,
}


@dataclass(frozen=True)
class Kind:
    """A record: its file, what it is made of, and who reads it (those that take no time more often)."""

    name: str
    file: str
    form: str
    consumers: tuple[str, ...]


TABLE = ("dashboard", "runs list", "runs show")
KINDS = (
    Kind("results.json", f"{MADE}/results.json", "json", ("report", "report", "compare", *TABLE)),
    Kind(
        "results.json", f"{RUN}/results.json", "json", ("evaluate", "export", "predict", "explain", "report finished")
    ),
    Kind(
        "results.json of an evaluation",
        f"{EVALUATION}/results.json",
        "json",
        ("report evaluation", "dashboard", "export"),
    ),
    Kind("config.yaml", f"{MADE}/config.yaml", "yaml", ("report", "compare", "dashboard")),
    Kind("config.yaml", f"{RUN}/config.yaml", "yaml", ("evaluate", "export", "predict", "report finished")),
    Kind("environment.json", f"{MADE}/environment.json", "json", ("report",)),
    Kind("environment.json", f"{KILLED}/environment.json", "json", ("train",)),
    Kind("identity.json", f"{MADE}/identity.json", "json", TABLE),
    Kind("identity.json", f"{KILLED}/identity.json", "json", ("train", "dashboard")),
    Kind("ended_early.json", f"{KILLED}/ended_early.json", "json", ("dashboard", "runs list")),
    Kind(".owner.json", f"{MADE}/.owner.json", "json", ("owner", "dashboard", "runs clean")),
    Kind("metrics.jsonl", f"{MADE}/metrics.jsonl", "lines", ("report", "compare", *TABLE)),
    Kind("metrics.jsonl", f"{KILLED}/metrics.jsonl", "lines", ("train", "dashboard")),
    Kind("predictions.csv", f"{MADE}/predictions.csv", "csv", ("report", "compare")),
    Kind("predictions.csv", f"{RUN}/predictions.csv", "csv", ("evaluate", "explain")),
    Kind("split.csv", f"{RUN}/split.csv", "csv", ("transfer",)),
    Kind("histogram.json", f"{RUN}/histogram.json", "json", ("transfer",)),
    Kind("explain.json", f"{MADE}/explain/explain.json", "json", ("report",)),
    Kind("sweep.json", f"{SWEEP}/sweep.json", "json", ("report sweep", "report sweep", "dashboard")),
    Kind("plan.json", f"{SEARCH}/plan.json", "json", ("sweep",)),
    Kind("journal.log", f"{SEARCH}/journal.log", "lines", ("sweep",)),
    Kind("study.json", f"{STUDY}/study.json", "json", ("report study", "dashboard")),
    Kind("controls.json", f"{STUDY}/controls.json", "json", ("report study",)),
    Kind("audit.json", f"{AUDIT}/audit.json", "json", ("report finished", "dashboard", "share audit")),
    Kind("test_looks_….jsonl", "runs/phantom/test_looks_grouped.jsonl", "lines", ("ledger", "evaluate")),
    Kind("wandb_id", f"{RUN}/wandb_id", "bytes", ("wandb",)),
    Kind("last.ckpt", f"{KILLED}/checkpoints/last.ckpt", "bytes", ("train",)),
    Kind("embeddings.safetensors", f"{RUN}/embeddings.safetensors", "bytes", ("predict",)),
    Kind("embeddings.npz", f"{EVALUATION}/embeddings.npz", "bytes", ("embeddings",)),
    Kind("notes.json", f"{MADE}/notes.json", "json", ("dashboard", "runs list", "runs show", "runs tag")),
    Kind("views.json", "runs/views.json", "json", ("views", "runs view", "keep a view")),
)


# ---- the mutations

_DEEP = "@@deep@@"
_RAW = {f'"{_DEEP}"': "[" * 50_000 + "]" * 50_000, _DEEP: "[" * 5_000 + "]" * 5_000}
_NUMBERS = (0, 1, -1, 2, 0.5, -0.5, 1e308, -1e308, 5e-324, 10**15, 2**31, 2**63, 10**400, float("nan"), float("inf"))
_TEXTS = ("", "x", "0", "nan", "é\u202e\x1b[31m", "\ud800", "../../etc", "/etc/passwd", "a" * 10_000, "9999-99-99")
ODD: tuple[Any, ...] = (
    *_NUMBERS, *_TEXTS, None, True, False, [], [[]], {}, {"": 0}, [None], [0, 1], {"x": {"y": 1}}, _DEEP,
)  # fmt: skip


def mutate(path: Path, form: str, rng: random.Random) -> str:
    """Change a file; what was done, in a few words."""
    whole = path.read_bytes()
    if form == "bytes" or rng.random() < 0.15:
        what, data = _bytes(whole, rng)
    elif form == "json":
        what, data = _json(json.loads(whole), rng)
    elif form == "lines":
        what, data = _lines(whole, rng)
    elif form == "yaml":
        what, data = _yaml(whole, rng)
    else:
        what, data = _csv(whole, rng)
    path.write_bytes(data)
    return what


def _bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    how = rng.choice(["cut", "cut", "flip", "flip", "flip", "empty", "zeros", "latin", "twice", "insert"])
    at = rng.randrange(max(1, len(data)))
    if how == "cut":
        return how, data[:at]
    if how == "flip":
        changed = bytearray(data or b"x")
        for _ in range(rng.choice([1, 1, 8, 200])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return how, bytes(changed)
    if how == "insert":
        return how, data[:at] + rng.randbytes(rng.choice([1, 3, 1000])) + data[at:]
    others = {"empty": b"", "zeros": bytes(len(data)), "latin": b"\xe9\xff" + data, "twice": data + data}
    return how, others[how]


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value: what it is in, and its key."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, one in inner:
        yield value, key
        yield from _nodes(one)


def _change(value: Any, rng: random.Random) -> str:
    places = list(_nodes(value))
    if not places:
        return "nothing"
    # A level first: the leaves are so many that the upper keys would hardly be met.
    top = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    holder, key = rng.choice(rng.choice([top, places, places]))
    how = rng.choice(["delete", "delete", "value", "value", "value", "value", "key", "twice", "swap", "negative"])
    before = holder[key]
    if how == "delete":
        del holder[key]
    elif how == "key" and isinstance(holder, dict):
        holder[rng.choice(["", "x", "é", "__class__", "\ud800", "a" * 2000])] = holder.pop(key)
    elif how == "twice" and isinstance(before, list):
        holder[key] = before + before
    elif how == "swap":
        other, place = rng.choice(places)
        with contextlib.suppress(KeyError, IndexError):
            holder[key] = json.loads(json.dumps(other[place], default=str))
    elif how == "negative" and isinstance(before, int | float) and not isinstance(before, bool):
        holder[key] = -before
    else:
        holder[key] = rng.choice(ODD)
    return how


def _dumped(value: Any) -> str:
    text = json.dumps(value)
    return text.replace(*next(iter(_RAW.items())))


def _json(value: Any, rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.04:
        return "other", _dumped(rng.choice(ODD)).encode()
    what = _change(value, rng)
    return what, _dumped(value).encode()


def _lines(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    how = rng.choice(["value", "value", "value", "value", "lose", "twice", "swap", "blank", "torn"])
    if how == "value":
        row = json.loads(lines[at])
        what = _change(row, rng)
        return what, b"".join([*lines[:at], _dumped(row).encode() + b"\n", *lines[at + 1 :]])
    other = rng.randrange(len(lines))
    if how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    changed = {"lose": [], "twice": [lines[at]] * 2, "swap": [lines[at]], "blank": [b"\n", lines[at]]}
    middle = changed.get(how, [lines[at][: rng.randrange(len(lines[at]))]])
    return how, b"".join([*lines[:at], *middle, *lines[at + 1 :]])


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def _yaml(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.1:
        tag, deep = b"!!python/object/apply:os.system [id]\n", b"a: " + b"[" * 10_000
        return "bomb", rng.choice([_BOMB.encode(), tag, deep, b"{"])
    value = yaml.safe_load(data)
    what = _change(value, rng)
    text = json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")  # JSON is YAML
    return what, text.replace(f'"{_DEEP}"', _RAW[_DEEP]).encode()


def _csv(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    at, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    how = rng.choice(["cell", "cell", "cell", "column", "name", "lose", "twice", "short", "split", "header"])
    texts = ["", "nan", "inf", "-1e400", "1e300", "test", "val", "x", "é\x1b[0m", "a" * 200_000, "0", '"', "\0"]
    odd = rng.choice(texts)
    if how == "cell":
        rows[at][column] = odd
    elif how == "column":
        for row in rows[1:]:
            row[column] = odd[:100]
    elif how == "name":
        rows[0][column] = rng.choice(["", "x", "split", "logit_", "logit_x", rows[0][0]])
    elif how == "lose":
        del rows[at]
    elif how == "twice":
        rows.insert(at, rows[at])
    elif how == "short":
        rows[at] = rows[at][:column]
    elif how == "split":
        rows = [rows[0], *(row for row in rows[1:] if row[0] == rng.choice(["val", "test"]))]
    else:
        rows = rows[:1]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return how, out.getvalue().encode()


# ---- running a command


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``done``, ``refused`` or ``failed`` with one message; else ``wrong``, which says what is."""

    state: str
    words: str
    seconds: float


class _TooLong(BaseException):
    pass


def consume(consumer: str, folder: Path) -> Outcome:
    """Run a command in this process, as the program does, within its limits."""
    from ddtl.utils.errors import TrainingFailure, UserError

    begun = time.process_time()
    state, words = "done", ""
    printed = io.StringIO()
    try:
        with _limited(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            CONSUMERS[consumer](folder)
    except UserError as error:
        state, words = "refused", str(error)
    except (TrainingFailure, OSError) as error:
        state, words = "failed", str(error)
    except MemoryError:
        state, words = "wrong", f"takes over {MEMORY >> 20} MiB: {traceback.format_exc()[-800:]}"
    except _TooLong:
        state, words = "wrong", f"waits for over {WALL} s: {traceback.format_exc()[-800:]}"
    except BaseException:
        state, words = "wrong", traceback.format_exc()[-2500:]
    seconds = time.process_time() - begun
    if state != "wrong" and seconds > SECONDS:
        state, words = "wrong", f"took {seconds:.1f} s"
    if state in ("refused", "failed"):
        shown = all(sign.isprintable() or sign == "\n" for sign in words)
        if not words.strip() or len(words) > 2000 or "Traceback" in words or not shown:
            state, words = "wrong", f"not one line, or control characters: {words[:1500]!r}"
    return Outcome(state, words, seconds)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """One GiB more than now, and an end after a while."""

    def end(*_: Any) -> None:
        raise _TooLong

    used = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData"):
            used = int(line.split()[1]) << 10
    before = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.signal(signal.SIGALRM, end)
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, WALL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, before)


class Workplace:
    """The folder of valid records, and copies of it in which one is changed.

    A command changes what it reads from, so each mutation gets the records anew. To be used within :func:`registered`.
    """

    def __init__(self, folder: Path) -> None:
        self.valid, self.changed = folder / "valid", folder / "changed"
        self.valid.mkdir()
        workplace(self.valid)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            CONSUMERS["predict"](self.valid)  # leaves embeddings.safetensors
        shutil.rmtree(self.valid / "predicted", ignore_errors=True)
        lacking = [kind.file for kind in KINDS if not (self.valid / kind.file).exists()]
        assert not lacking, lacking

    def renew(self) -> Path:
        """An unchanged copy."""
        shutil.rmtree(self.changed, ignore_errors=True)
        shutil.copytree(self.valid, self.changed, symlinks=True)
        return self.changed

    def tried(self, kind: Kind, consumer: str, seed: int) -> tuple[str, Outcome]:
        """Change the record by a seed, and run the command; what was changed, and how the command ended."""
        folder = self.renew()
        what = mutate(folder / kind.file, kind.form, random.Random(f"{kind.file} {seed}"))
        cwd = os.getcwd()
        try:
            return what, consume(consumer, folder)
        finally:
            os.chdir(cwd)

    def without(self, kind: Kind, keys: Sequence[str], consumer: str) -> Outcome:
        """How a command ends that reads a JSON record without one of its keys, given by the way to it."""
        path = self.renew() / kind.file
        tree = json.loads(path.read_bytes())
        *outer, last = keys
        del functools.reduce(operator.getitem, outer, tree)[last]
        path.write_text(json.dumps(tree))
        return consume(consumer, self.changed)

    def keys(self, kind: Kind, levels: int) -> list[tuple[str, ...]]:
        """The ways to the keys of the upper levels of a JSON record."""
        found: list[tuple[str, ...]] = [()]
        tree = json.loads((self.valid / kind.file).read_bytes())
        for way in found:
            value = functools.reduce(operator.getitem, way, tree)
            if len(way) < levels and isinstance(value, dict):
                found += [(*way, key) for key in value]
        return found[1:]


def planned(first: int, count: int) -> list[tuple[Kind, str, int]]:
    """Mutations of fixed seeds, spread over all kinds of records and their readers: kind, consumer, seed."""
    found = []
    for seed in range(first, first + count):
        kind = KINDS[seed % len(KINDS)]
        found.append((kind, kind.consumers[seed // len(KINDS) % len(kind.consumers)], seed))
    return found
