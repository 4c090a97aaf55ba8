"""Where a sweep is remembered: a journal file in its folder, or a database; with a lock and heartbeats for each."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock

from ddtl.sweeps.store import journal
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import folder_in
from ddtl.utils.redaction import add_secrets_of, is_secret

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import URL

VARIABLE = "DDTL_SWEEP_STORAGE"
HEARTBEAT_SECONDS = 15
STALE_SECONDS = 180  # too short a time takes living trials for dead ones when a disk or a network stalls
_LOCK_SECONDS = 600  # no one chooses a trial for so long; a database ends the lock of a host that vanished


class StoragePlace(Protocol):
    """A storage, and what several processes that share it need."""

    @property
    def storage(self) -> optuna.storages.BaseStorage:
        """Optuna's."""

    def exclusively(self) -> AbstractContextManager[None]:
        """Return a context in which no other process of the sweep, on any host, is in the same one."""

    def heartbeat(self, trial: int) -> None:
        """Send a heartbeat of the trial with Optuna's number ``trial``."""

    def stale(self, study: optuna.Study) -> set[int]:
        """Return Optuna's numbers of the trials whose last heartbeat is too long ago."""

    def silence(self, trial: int) -> float | None:
        """Return how many seconds ago the trial's last heartbeat was; None where none is known."""

    def forget(self, trial: int) -> None:
        """Send no more heartbeats of the trial."""

    def close(self) -> None:
        """Let go of files and connections."""


class JournalPlace:
    """A file; times are those of the file's server, so hosts' clocks need not agree."""

    def __init__(self, folder: Path) -> None:
        self._beats = folder / "beats"
        self._lock = FileLock(folder / ".lock")
        self.storage = journal.storage(folder / "journal.log")

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        with self._lock:
            yield

    def heartbeat(self, trial: int) -> None:
        folder_in(self._beats.parent, self._beats.name)
        (self._beats / str(trial)).touch()

    def stale(self, study: optuna.Study) -> set[int]:
        if not self._beats.exists():
            return set()
        beats = {int(file.name): file.stat().st_mtime for file in self._beats.iterdir() if file.name.isdecimal()}
        now = self._time()
        return {trial for trial, last in beats.items() if now - last > STALE_SECONDS}

    def silence(self, trial: int) -> float | None:
        try:
            last = (self._beats / str(trial)).stat().st_mtime
        except FileNotFoundError:
            return None
        return self._time() - last

    def forget(self, trial: int) -> None:
        (self._beats / str(trial)).unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _time(self) -> float:
        """Return the time of the file's server."""
        probe = self._beats / f"now-{os.getpid()}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


class DatabasePlace:
    """A database, with Optuna's table of heartbeats; times are the database's."""

    def __init__(self, url: URL, folder: Path, create: bool) -> None:
        import optuna
        from sqlalchemy import exc

        self._postgres = url.get_backend_name() == "postgresql"
        self._lock = FileLock(folder / ".lock")
        options = {"pool_pre_ping": True} if self._postgres else {"connect_args": {"timeout": 60}}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._database = optuna.storages.RDBStorage(
                    _with_driver(url).render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=STALE_SECONDS,
                    skip_table_creation=not create,
                )
        except ImportError:
            raise UserError("sweep.storage: PostgreSQL needs another package: pip install 'ddtl[postgres]'.") from None
        except (exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error if isinstance(error, exc.SQLAlchemyError) else error.__cause__ or error
            words = str(getattr(cause, "orig", None) or cause).strip()
            raise UserError(f"sweep.storage={format_url(url)}: cannot be opened: {words}") from None
        self.storage = self._database

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        if not self._postgres:
            with self._lock:
                yield
            return
        from sqlalchemy import text

        # Tied to a transaction, and that to a time: the lock of a host that vanishes ends with it.
        with self._database.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('ddtl sweeps', 0))"))
            yield

    def heartbeat(self, trial: int) -> None:
        self._database.record_heartbeat(trial)

    def stale(self, study: optuna.Study) -> set[int]:
        return set(self._database._get_stale_trial_ids(study._study_id))

    def silence(self, trial: int) -> float | None:
        from optuna.storages._rdb.models import TrialHeartbeatModel
        from sqlalchemy import func, select

        what = select(func.now(), TrialHeartbeatModel.heartbeat).where(TrialHeartbeatModel.trial_id == trial)
        with self._database.engine.connect() as connection:
            found = connection.execute(what).first()
        return None if found is None else float((found[0].replace(tzinfo=None) - found[1]).total_seconds())

    def forget(self, trial: int) -> None:
        """Do nothing: Optuna checks running trials alone."""

    def close(self) -> None:
        self._database.remove_session()
        self._database.engine.dispose()


def address(setting: str | None) -> str | None:
    """Return the storage's URL with its password, which may be in the environment alone; None for the journal.

    Args:
        setting: ``sweep.storage``. Where it is the URL in DDTL_SWEEP_STORAGE but for the password, that one counts.
    """
    given = os.environ.get(VARIABLE)
    return given if given and setting is not None and setting == without_password(given) else setting


def without_password(setting: str | None) -> str | None:
    """Return the URL as it may be written down."""
    return None if setting is None else format_url(_url(setting))


def format_url(url: URL) -> str:
    """Return the URL without its password, wherever that is."""
    query = {key: value for key, value in url.query.items() if not is_secret(key)}
    bare = url.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return bare.render_as_string(hide_password=False)


def several_are_fine(setting: str | None) -> bool:
    """Return whether several workers may share the storage."""
    return setting is None or _url(setting).get_backend_name() != "sqlite"


def place(setting: str | None, folder: Path, create: bool) -> StoragePlace:
    """Open a storage.

    Args:
        setting: a database's URL; None for the journal file.
        folder: the sweep's.
        create: whether to make tables and repair the journal, as the command does before it starts workers.

    Raises:
        UserError: it cannot be opened.
    """
    if setting is not None:
        return DatabasePlace(_url(setting), folder, create)
    if create:
        news = journal.repair(folder / "journal.log")
        if news:
            console.line(news)
    return JournalPlace(folder)


def _with_driver(url: URL) -> URL:
    """Return the URL with the driver of ``ddtl[postgres]``, where none is named."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _url(setting: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    add_secrets_of(setting)
    try:
        url = make_url(setting)
    except (ArgumentError, ValueError):  # its message would show a password
        raise UserError(
            "sweep.storage: is not a URL. It should look like postgresql://user@host:5432/database."
        ) from None
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise UserError(
            f"sweep.storage={format_url(url)}: only postgresql://… is known for many hosts, sqlite:///… for one "
            "worker, and null for a journal file in the sweep's folder."
        )
    return url
