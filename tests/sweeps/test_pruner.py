"""The pruner against curves with known truth: dips after unfreezings, late and early ones, and its own rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner
from optuna.trial import TrialState

from ddtl.sweeps.sampling import pruner
from ddtl.sweeps.sampling.pruner import AfterUnfreeze

optuna.logging.set_verbosity(optuna.logging.WARNING)
EPOCHS = 12


@dataclass
class Curve:
    """A trial of the simulated world: the epochs at which phases start, and its true scores."""

    phases: list[int]
    truth: list[float]


def curve(random: np.random.Generator, phases: list[int], ceilings: Sequence[float]) -> Curve:
    """Each phase nears its ceiling exponentially, and begins with a dip, but for the first."""
    pace = math.exp(random.normal(math.log(2), 0.3))
    score, truth = 0.55, []
    for number, (first, end) in enumerate(zip(phases, [*phases[1:], EPOCHS], strict=True)):
        score -= random.uniform(0.02, 0.12) if number else 0
        for _ in range(first, end):
            score = ceilings[number] + (score - ceilings[number]) * math.exp(-1 / pace)
            truth.append(score)
    return Curve(phases, truth)


def drawn(random: np.random.Generator) -> Curve:
    """A trial: its quality moves the ceilings, most of all the last one."""
    q = random.normal()
    kind = random.choice(["full", "probe", "lp_ft", "gradual"], p=[0.2, 0.2, 0.4, 0.2])
    if kind == "full":
        return curve(random, [0], [0.86 + 0.03 * q])
    if kind == "probe":
        return curve(random, [0], [0.80 + 0.02 * q])
    if kind == "lp_ft":
        probe = 0.79 + 0.015 * q + 0.01 * random.normal()
        return curve(random, [0, max(1, round(EPOCHS * random.uniform(0.1, 0.6)))], [probe, 0.88 + 0.03 * q])
    return curve(random, [0, 4, 8], [0.78 + 0.015 * q, 0.83 + 0.02 * q, 0.88 + 0.03 * q])


def swept(made: BasePruner, curves: Sequence[Curve], noise: np.ndarray) -> tuple[bool, float, float]:
    """Whether the best trial survived, how much worse the best survivor is, and the share of epochs saved."""
    study = optuna.create_study(direction="maximize", pruner=made, sampler=optuna.samplers.RandomSampler(seed=0))
    spent, kept = 0, []
    for number, one in enumerate(curves):
        trial = study.ask()
        trial.set_user_attr("phases", one.phases)
        trial.set_user_attr("epochs", EPOCHS)
        seen = np.asarray(one.truth) + noise[number]
        for epoch in range(EPOCHS):
            spent += 1
            trial.report(float(seen[epoch]), epoch)
            if epoch < EPOCHS - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(seen.max()))
            kept.append(number)
    best = [max(one.truth) for one in curves]
    winner = int(np.argmax(best))
    return winner in kept, best[winner] - max(best[i] for i in kept), 1 - spent / (EPOCHS * len(curves))


def simulated(make: Callable[[], BasePruner], sweeps: int) -> list[float]:
    """Means over sweeps of 40 trials: best trial kept, score lost, epochs saved."""
    found = []
    for seed in range(sweeps):
        random = np.random.default_rng(seed)
        curves = [drawn(random) for _ in range(40)]
        found.append(swept(make(), curves, random.normal(0, 0.01, (40, EPOCHS))))
    return [float(mean) for mean in np.mean(np.asarray(found, dtype=float), axis=0)]


def test_it_keeps_the_best_trial_more_often_and_saves_about_as_much() -> None:
    kept, lost, saved = simulated(AfterUnfreeze, 24)
    their_kept, their_lost, their_saved = simulated(MedianPruner, 24)
    assert kept >= their_kept + 0.1
    assert lost < 0.6 * their_lost
    assert saved > 0.75 * their_saved


def test_without_unfreezings_it_judges_as_the_inner_pruner_does() -> None:
    random = np.random.default_rng(0)
    curves = [curve(random, [0], [0.8 + 0.03 * random.normal()]) for _ in range(40)]
    noise = random.normal(0, 0.01, (40, EPOCHS))
    assert swept(AfterUnfreeze(n_min_trials=1), curves, noise) == swept(MedianPruner(), curves, noise)


def study_of(made: BasePruner, trials: Sequence[tuple[list[int], list[float]]], epochs: int = 10) -> optuna.Study:
    """Completed trials by their phases and curves."""
    study = optuna.create_study(direction="maximize", pruner=made)
    for phases, scores in trials:
        study.add_trial(
            optuna.trial.create_trial(
                value=max(scores),
                intermediate_values=dict(enumerate(scores)),
                user_attrs={"phases": phases, "epochs": epochs},
            )
        )
    return study


def verdicts(study: optuna.Study, phases: list[int] | None, scores: Sequence[float], epochs: int = 10) -> list[bool]:
    """The verdict after each epoch of a trial."""
    trial = study.ask()
    if phases is not None:
        trial.set_user_attr("phases", phases)
        trial.set_user_attr("epochs", epochs)
    found = []
    for epoch, score in enumerate(scores):
        trial.report(score, epoch)
        found.append(trial.should_prune())
    return found


EARLY = ([0, 2], [0.6, 0.6, *[0.9] * 8])


def test_a_late_unfreezing_is_not_judged_by_early_ones() -> None:
    late = [0.65] * 6 + [0.6, 0.85, 0.9, 0.95]
    assert any(verdicts(study_of(MedianPruner(), [EARLY] * 6), [0, 6], late))
    assert not any(verdicts(study_of(AfterUnfreeze(), [EARLY] * 6), [0, 6], late))


def test_a_trial_that_is_worse_in_the_same_phase_is_ended_there() -> None:
    study = study_of(AfterUnfreeze(), [EARLY] * 6)
    assert verdicts(study, [0, 6], [0.5] * 6)[1:] == [True] * 5  # their first half of the probe was over at once


@pytest.mark.parametrize(("grace", "first"), [(0, 2), (1, 3), (3, 5)])
def test_after_an_unfreezing_it_waits(grace: int, first: int) -> None:
    study = study_of(AfterUnfreeze(grace=grace), [EARLY] * 6)
    assert verdicts(study, [0, 2], [0.6] * 10).index(True) == first


def test_in_a_phase_shorter_than_the_grace_it_judges_the_last_epoch() -> None:
    study = study_of(AfterUnfreeze(grace=5), [([0, 2, 4], [0.6, 0.6, 0.8, 0.8, *[0.9] * 6])] * 6)
    found = verdicts(study, [0, 2, 4], [0.6, 0.6, 0.7, 0.7])
    assert found == [False, False, False, True]


def test_before_the_last_phase_other_kinds_of_schedules_are_no_opponents() -> None:
    full = ([0], [0.9] * 10)
    found = verdicts(study_of(AfterUnfreeze(grace=0), [full] * 6), [0, 5], [0.6] * 10)
    assert found == [False] * 5 + [True] * 5


def test_one_opponent_is_too_few() -> None:
    other = ([0], [0.95] * 10)
    assert not any(verdicts(study_of(AfterUnfreeze(), [EARLY, *[other] * 5]), [0, 6], [0.1] * 6))


def test_another_inner_pruner_waits_too() -> None:
    args = {"min_resource": 1, "reduction_factor": 2}
    halving = AfterUnfreeze(inner="SuccessiveHalvingPruner", grace=2, **args)
    curves = [([0, 3], [0.6, 0.7, 0.8, *[0.9] * 7])] * 8
    dipping = [0.6, 0.7, 0.8, 0.5, 0.5, 0.95]
    plain = study_of(pruner.make_pruner("SuccessiveHalvingPruner", args), [])
    ours = study_of(halving, [])
    for study in (plain, ours):
        for phases, scores in curves:
            verdicts(study, phases, scores)
    assert verdicts(plain, [0, 3], dipping)[3:5] != [False, False]
    assert verdicts(ours, [0, 3], dipping)[3:5] == [False, False]


def test_a_trial_without_phases_is_left_to_the_inner_pruner() -> None:
    assert verdicts(study_of(AfterUnfreeze(), [EARLY] * 6), None, [0.1] * 3) == verdicts(
        study_of(MedianPruner(n_min_trials=2), [EARLY] * 6), None, [0.1] * 3
    )


def test_smaller_can_be_better() -> None:
    study = optuna.create_study(direction="minimize", pruner=AfterUnfreeze())
    for _ in range(6):
        verdicts_of = verdicts(study, [0, 2], [0.7, 0.7, *[0.3] * 8])
        assert not any(verdicts_of)
        study.tell(study.trials[-1].number, 0.3)
    assert verdicts(study, [0, 2], [0.7, 0.7, 0.6, 0.6, 0.6])[-1]
    assert not verdicts(study, [0, 2], [0.7, 0.7, 0.2, 0.2, 0.2])[-1]
