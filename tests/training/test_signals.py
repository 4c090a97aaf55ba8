"""A signal that asks a command to stop is never lost, and leaves no lock taken."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from ddtl.utils import signals
from ddtl.utils.errors import Stopped

ON_THE_WAY = "\n".join(
    [
        "import logging, signal, sys, threading, time",
        "from ddtl.commands import launch",
        "def waits():",
        "    for _ in range(10_000):",
        "        time.sleep(0.01)",
        "    print('never stopped', flush=True)",
        "    return 0",
    ]
)


def ended(body: str) -> tuple[int, str]:
    """Exit code and output of a command whose work is this."""
    work = textwrap.indent(textwrap.dedent(body), "    ")
    script = f"{ON_THE_WAY}\ndef main(argv):\n{work}\nsys.exit(launch.guarded(main, []))"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_meets_a_finaliser_stops_the_command(signum: int) -> None:
    code, said = ended(f"""
        class Held:
            def __del__(self):
                signal.raise_signal({int(signum)})
                time.sleep(0.05)
        held = Held()
        del held
        return waits()
    """)
    assert (code, "the same command resumes it" in said) == (128 + signum, True), said
    assert "Exception ignored" not in said


def test_one_that_meets_a_callback_of_a_weak_reference_stops_the_command() -> None:
    code, said = ended("""
        import weakref
        class Held: pass
        held = Held()
        kept = weakref.ref(held, lambda _: signal.raise_signal(signal.SIGTERM))
        del held
        return waits()
    """)
    assert (code, "the same command resumes it" in said) == (128 + signal.SIGTERM, True), said


def test_one_that_meets_logging_leaves_its_lock_free() -> None:
    code, said = ended("""
        class Meets(logging.Filter):
            def filter(self, record):
                signal.raise_signal(signal.SIGTERM)
                return True
        log = logging.getLogger("met")
        log.addFilter(Meets())
        try:
            log.warning("one")
            waits()
        finally:
            other = threading.Thread(target=lambda: logging.getLogger("other").isEnabledFor(10), daemon=True)
            other.start()
            other.join(60)
            print("free" if not other.is_alive() else "taken", flush=True)
    """)
    assert code == 128 + signal.SIGTERM, said
    assert "free" in said


def test_a_second_one_is_final() -> None:
    code, _ = ended("""
        class Held:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)
                time.sleep(0.2)
                signal.raise_signal(signal.SIGTERM)
        held = Held()
        del held
        return waits()
    """)
    assert code == 128 + signal.SIGTERM


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What the handlers of this process get."""
    found: list[int] = []
    before = {one: signal.signal(one, lambda n, _: found.append(n)) for one in (signal.SIGINT, signal.SIGHUP)}
    yield found
    for one, handler in before.items():
        signal.signal(one, handler)


def test_what_comes_while_processes_are_started_is_not_lost(handled: list[int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals.held():
        assert {signal.SIGINT, signal.SIGHUP} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])  # as children inherit it
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert sorted(handled) == sorted([signal.SIGHUP, signal.SIGINT])


def test_at_once_where_nothing_would_be_lost() -> None:
    with pytest.raises(Stopped) as stop:
        signals.unwind(signal.SIGTERM, sys._getframe())
    assert stop.value.exit_code == 143
    assert threading.current_thread() is threading.main_thread()
    assert logging.getLogger().isEnabledFor(logging.CRITICAL)
