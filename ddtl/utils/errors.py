"""The exceptions whose message is meant for the person at the keyboard, and the exit codes they end in."""

EXIT_FAILURE = 1  # something broke during work; the same command resumes it from the last checkpoint
EXIT_MISTAKE = 2  # a mistake in the command, the configuration or the data; nothing was started


class UserError(ValueError):
    """A mistake its user can repair: the message says what is wrong and names the fix. Exit code 2, no traceback."""


class Unwritable(UserError):
    """What is read cannot be stored on this machine: nothing is wrong with what was read."""


class TrainingFailure(RuntimeError):
    """Training broke in a way that its user should read about, not debug. Exit code 1, no traceback."""


class NotFinite(TrainingFailure):
    """A loss or a score became NaN or infinite."""


class PluginFailure(TrainingFailure):
    """Code of a plugin raised an exception that is not meant for users."""


class InconsistentRecord(TrainingFailure):
    """What was trained and what is recorded of it contradict each other; the same command would find so again."""


class Stopped(BaseException):
    """A signal requested this process to stop. Not an ``Exception``: no clean-up code may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.exit_code = 128 + signum
