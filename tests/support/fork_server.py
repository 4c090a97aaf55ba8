"""Python processes for tests that start with torch and Lightning imported, which elsewhere takes most of their time.

:class:`Popen` and :func:`run` are those of ``subprocess``, for commands of this interpreter (a script, ``-m`` or
``-c``). They fork a server that has imported what ddtl is built on, and nothing of ddtl. Where that would make a
difference that a test can see (an environment that Python or a library reads as it starts, a switch of Python), an
ordinary process is started. All forks of a server hash strings alike; a test about two processes that must not depend
on that starts one of them by ``subprocess``.

A sweep's command has a second process in reserve, forked together with it: it becomes the server that
``multiprocessing`` starts to fork trials from.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NoReturn

IMPORTED = (
    "torch", "torch._dynamo", "torchvision", "torchmetrics", "pytorch_lightning", "albumentations", "hydra", "optuna",
    "pandas", "pydantic", "safetensors.torch", "rich.table", "jinja2", "sklearn.ensemble", "scipy.stats",
)  # fmt: skip

# What Python, a C library or a library reads once, as it starts. Not the names that libraries set in the process of the
# tests as they are imported there (KMP_…, TORCHINDUCTOR_…, LD_LIBRARY_PATH): they set them in the server, too.
READ_AT_START = (
    "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "LD_PRELOAD", "GLIBC_", "MALLOC_", "LC_", "LANG", "CUDA_", "MPL", "HOME",
)  # fmt: skip

TAKEN_OVER = ("PYTHONPATH", "PYTHONSAFEPATH")  # as the search path of modules

# --- the server -------------------------------------------------------------------------------------------------------


def serve(path: str) -> dict[str, Any]:
    """Fork for each connection to the socket ``path``; returns in the forks, with what was requested of them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    awake, woken = os.pipe()
    for end in (awake, woken):
        os.set_blocking(end, False)
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    waiting: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, awake, sys.stdin], [], [])
        if sys.stdin in ready:  # whoever started the server is gone
            os._exit(0)
        if awake in ready:
            os.read(awake, 4096)
            _tell_of_ended(waiting)
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        asked, fds = _received(connection)
        if not asked:
            connection.close()
            for fd in fds:
                os.close(fd)
            continue
        pid = os.fork()
        if pid == 0:
            break
        waiting[pid] = connection
        with suppress(BrokenPipeError):  # whoever asked has been killed meanwhile
            connection.sendall(pid.to_bytes(4, "little"))
        for fd in fds:
            os.close(fd)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, handler)
    for other in (listener, connection, *waiting.values()):
        other.close()
    for fd in (awake, woken):
        os.close(fd)
    _become(asked, fds)
    if any("sweep" in word for word in asked["args"]):
        _keep_in_reserve()
    return asked


def _tell_of_ended(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with waiting.pop(pid) as connection, suppress(BrokenPipeError):  # nobody waits for it any more
            connection.sendall(status.to_bytes(4, "little"))


def _send(connection: socket.socket, asked: dict[str, Any], fds: Sequence[int]) -> None:
    message = json.dumps(asked).encode()
    socket.send_fds(connection, [len(message).to_bytes(4, "little")], fds)
    connection.sendall(message)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, fds, _, _ = socket.recv_fds(connection, 4, 8)
    message = b""
    while len(message) < int.from_bytes(size, "little"):
        part = connection.recv(2**16)
        if not part:  # whoever asks is gone in the midst of it
            return {}, fds
        message += part
    return (json.loads(message) if message else {}), fds


def _become(asked: dict[str, Any], fds: Sequence[int]) -> None:
    if asked["session"]:
        os.setsid()
    for to, fd in enumerate(fds):
        os.dup2(fd, to, inheritable=True)
        os.close(fd)
    _move_to(asked)
    sys.orig_argv = list(asked["args"])
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
        2, "w", errors="backslashreplace", buffering=1, closefd=False
    )


def _move_to(asked: dict[str, Any]) -> None:
    """Take over its folder and environment."""
    os.chdir(asked["cwd"])
    paths = [env.get("PYTHONPATH", "").split(os.pathsep) for env in (os.environ, asked["env"])]
    sys.path[:] = [*filter(None, paths[1]), *(entry for entry in sys.path if entry not in paths[0])]
    os.environ.clear()
    os.environ.update(asked["env"])
    if any(os.path.exists(f"{entry}/sitecustomize.py") for entry in paths[1] if entry):  # as Python does at its start
        sys.modules.pop("sitecustomize", None)
        __import__("sitecustomize")


# --- the server that ddtl forks trials from ---------------------------------------------------------------------------


def _keep_in_reserve() -> None:
    """Fork the process that becomes multiprocessing's server, where the command starts one in this environment."""
    ours, theirs = socket.socketpair()
    began = dict(os.environ)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_in_reserve(theirs)
    theirs.close()
    really = util.spawnv_passfds

    def spawnv_passfds(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in args[-1]:
            return int(really(path, args, passfds))
        util.spawnv_passfds = really
        environment = dict(os.environ)
        with ours, suppress(OSError):  # what is in reserve may have been killed
            if _is_equal_at_start(began, environment):
                ignored = [each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN]
                asked = {
                    "code": args[-1], "fds": list(passfds), "env": environment, "cwd": os.getcwd(),
                    "ignored": ignored, "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                    "safe": "-P" in args or bool(environment.get("PYTHONSAFEPATH")),
                }  # fmt: skip
                _send(ours, asked, passfds)
                if ours.recv(1):
                    return pid
        return int(really(path, args, passfds))

    util.spawnv_passfds = spawnv_passfds  # type: ignore[assignment]


def _be_in_reserve(connection: socket.socket) -> NoReturn:
    """Wait until it is needed or the command is gone; then be what ``python -c`` would be."""
    group = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    handlers = [signal.signal(signum, signal.SIG_IGN) for signum in group]
    asked, fds = _received(connection)
    if not asked:
        os._exit(0)
    connection.sendall(b"1")
    beyond = 500  # where neither the files that were inherited nor the numbers that were asked for are
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, beyond) for fd in fds]
    os.closerange(3, beyond)
    for fd, to in zip(moved, asked["fds"], strict=True):
        os.dup2(fd, to, inheritable=True)
        os.close(fd)
    _move_to(asked)
    for signum, handler in zip(group, handlers, strict=True):
        signal.signal(signum, handler)
    for signum in asked["ignored"]:
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    sys.argv = ["-c"]
    if not asked["safe"]:
        sys.path.insert(0, "")
    sys.modules["__main__"] = main = ModuleType("__main__")
    code = 0
    try:
        exec(asked["code"], main.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- its client -------------------------------------------------------------------------------------------------------


class _Server:
    """The server of this process, started at the first use in the environment that the tests began with."""

    path = ""
    env: ClassVar = dict(os.environ)

    @classmethod
    def start(cls) -> None:
        if cls.path:
            return
        folder = tempfile.mkdtemp(prefix="fork-server-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, __file__, f"{folder}/socket"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=cls.env | {"OPENBLAS_NUM_THREADS": "1"},  # its threads start as NumPy is imported
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        cls.path = f"{folder}/socket"
        atexit.register(process.kill)


def _is_equal_at_start(env: dict[str, str], other: dict[str, str]) -> bool:
    first, second = (
        {name: value for name, value in each.items() if name.startswith(READ_AT_START) and name not in TAKEN_OVER}
        for each in (env, other)
    )
    return first == second


class Popen(subprocess.Popen[Any]):
    """A process of this interpreter, forked from the server where that is the same to the test."""

    _answers: socket.socket | None = None
    _status: int | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any,
                       env: Any, *rest: Any) -> None:  # fmt: skip
        whole = dict(os.environ if env is None else env)
        _Server.start()
        words = [os.fspath(word) for word in args] if not isinstance(args, str) else []
        is_program = len(words) > 1 and words[0] == sys.executable
        is_program = is_program and (not words[1].startswith("-") or (words[1] in ("-m", "-c") and len(words) > 2))
        if not is_program or preexec_fn or pass_fds or not _is_equal_at_start(whole, _Server.env):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest
            )
            return
        # startupinfo, creationflags, shell; then the pipes; then what a session of its own takes.
        pipes, session = rest[3:9], rest[14]
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        asked = {"args": words, "env": whole, "session": session, "cwd": os.fspath(cwd or Path.cwd())}
        self._answers = socket.socket(socket.AF_UNIX)
        self._answers.connect(_Server.path)
        fds = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        _send(self._answers, asked, fds)
        self.pid = int.from_bytes(self._answers.recv(4), "little")
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._answers is None:
            answer: tuple[int, int] = super()._try_wait(wait_flags)  # type: ignore[misc]
            return answer
        if self._status is None:
            if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
                return 0, 0
            status = self._answers.recv(4)
            assert status, "the server that tests fork from has ended"
            self._status = int.from_bytes(status, "little")
            self._answers.close()
        return self.pid, self._status

    def _internal_poll(self, *args: Any, **kwargs: Any) -> int | None:
        if self._answers is not None and self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
            return self.returncode
        code: int | None = super()._internal_poll(*args, **kwargs)  # type: ignore[misc]
        return code


def run(command: Sequence[Any], *, timeout: float | None = None, check: bool = False,
        **how: Any) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """``subprocess.run`` with :class:`Popen`."""
    if how.pop("capture_output", False):
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **how) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


if __name__ == "__main__":
    import runpy
    from importlib import import_module

    sys.path.pop(0)  # the folder of this file
    for _name in IMPORTED:
        import_module(_name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"
    assert not any(name.partition(".")[0] == "ddtl" for name in sys.modules)
    _, _program, *_words = serve(sys.argv[1])["args"]
    # From here on in a fork, which ends as any process of Python does.
    _is_safe = bool(os.environ.get("PYTHONSAFEPATH"))
    if _program in ("-m", "-c"):
        _what, *_words = _words
        sys.argv = [_program, *_words]
        if not _is_safe:
            sys.path.insert(0, str(Path.cwd()) if _program == "-m" else "")
        if _program == "-m":
            runpy.run_module(_what, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = _main = ModuleType("__main__")
            exec(compile(_what, "<string>", "exec"), _main.__dict__)
    else:
        sys.argv = [_program, *_words]
        if not _is_safe:
            sys.path.insert(0, str(Path(_program).resolve().parent))
        runpy.run_path(_program, run_name="__main__")
