"""What becomes of a trial after an attempt, and who counts as alive."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from ddtl.sweeps.store import outcome as settle
from ddtl.sweeps.store.outcome import Outcome, completed, failed, pruned, stopped, verdict
from ddtl.utils import processes
from tests.support import sweep_plans

KILLED = {"reason": "killed"}


def test_completed_and_pruned_trials_end() -> None:
    assert verdict(completed([0.9]), [KILLED] * 9, retries=0)[0] == "complete"
    assert verdict(pruned(), [KILLED] * 9, retries=0)[0] == "pruned"


def test_a_score_that_is_no_number_is_a_failure() -> None:
    outcome = completed([0.9, math.nan])
    assert (outcome.end, outcome.values) == ("nan", ())
    assert verdict(outcome, [], retries=3)[0] == "fail"


def test_an_infinite_score_is_a_score() -> None:
    assert completed([math.inf]).end == "completed"


@pytest.mark.parametrize("reason", ["out_of_memory", "nan", "time_limit", "error"])
def test_what_would_happen_again_is_not_tried_again(reason: settle.Reason) -> None:
    assert verdict(failed(reason, "why"), [], retries=3) == ("fail", "why")


@pytest.mark.parametrize("outcome", [failed("disk_full"), stopped()])
def test_what_is_no_fault_of_the_trial_never_counts_against_it(outcome: Outcome) -> None:
    assert verdict(outcome, [KILLED] * 9, retries=0)[0] == "wait"


def test_a_killed_trial_resumes_as_often_as_retries_say() -> None:
    ends = [verdict(failed("killed", "SIGKILL"), [KILLED] * before, retries=2) for before in range(4)]
    assert [what for what, _ in ends] == ["wait", "wait", "fail", "fail"]
    assert ends[2][1] == "killed 3 times; at last: SIGKILL"


def test_being_stopped_does_not_use_up_retries() -> None:
    attempts = [{"reason": "stopped"}, {"reason": "disk_full"}, {"reason": "stopped"}]
    assert verdict(failed("killed"), attempts, retries=1)[0] == "wait"


def test_without_retries_the_words_say_once() -> None:
    assert verdict(failed("killed"), [], retries=0) == ("fail", "killed once")


def test_this_process_and_a_child_are_alive_until_they_end() -> None:
    assert processes.alive(processes.me()) is True
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = processes.process(child.pid)
    assert processes.alive(seen) is True
    child.communicate()
    assert processes.alive(seen) is False


def test_a_process_whose_parent_has_not_noticed_its_end_is_gone() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    seen = processes.process(child)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and its entry is still there
    assert processes.alive(seen) is False
    os.waitpid(child, 0)


def test_a_number_that_was_given_again_is_another_process() -> None:
    assert processes.alive({**processes.me(), "started": "1"}) is False


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"place": "before the last boot"}])
def test_what_cannot_be_seen_from_here_is_not_judged(other: dict[str, str]) -> None:
    assert processes.alive({**sweep_plans.gone(), **other}) is None
