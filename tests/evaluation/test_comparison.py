"""Models against each other: known differences, none at all, several seeds, and what must not be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ddtl.evaluation.comparison.comparison import Comparison, compare
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions, unit_of
from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.intervals import intervals, paired_intervals
from ddtl.schema.scores import SCORES
from ddtl.utils.errors import UserError
from tests.support.hospital import CLASSES, Hospital, answers


def one(run: RunPredictions) -> Method:
    return Method(run.name, (run,))


def pair(a: RunPredictions, b: RunPredictions, **settings: object) -> Comparison:
    (found,) = compare([one(a), one(b)], **settings).pairs  # type: ignore[arg-type]
    return found


def rows(run: RunPredictions, keep: np.ndarray) -> RunPredictions:
    """The run with some of its images, in some order."""
    p = run.predictions
    columns = ("split", "sample_id", "group", "patient_id", "site", "label", "logits")
    return replace(run, predictions=replace(p, **{name: getattr(p, name)[keep] for name in columns}))


def changed(run: RunPredictions, **columns: np.ndarray) -> RunPredictions:
    return replace(run, name="changed", predictions=replace(run.predictions, **columns))


def test_a_pair_has_delongs_test_and_an_interval_near_the_usual_one() -> None:
    hospital = Hospital(60)
    a, b = hospital.run(2.5, "a"), hospital.run(1.5, "b", threshold=0.4)
    found = pair(a, b)
    labels, clusters = a.predictions.label, a.predictions.patient_id
    theirs = delong.compare_paired(labels, a.p, b.p, clusters)
    assert found.delong_p == theirs.p_value
    assert found.p == found.holm_p == pytest.approx(theirs.p_value, abs=0.03)
    assert found.judged.value == pytest.approx(theirs.difference)
    intervals = paired_intervals(labels, a.p, b.p, clusters, 0.5, 0.4)
    for name in SCORES:
        ours, usual = found.differences[name].interval, intervals[name]
        assert ours.method == "sign-flip"
        assert ours.high - ours.low == pytest.approx(usual.high - usual.low, rel=0.3)
    assert found.smallest == pytest.approx(2.82 * theirs.standard_error, rel=0.2)
    assert (found.unit, found.units, found.images) == ("patient", 60, len(labels))


@pytest.mark.parametrize("score", SCORES)
def test_p_is_below_5_percent_where_the_interval_excludes_0(score: str) -> None:
    claimed = []
    for seed in range(12):
        hospital = Hospital(30, seed)
        found = pair(hospital.run(3.2), hospital.run(1.2), score=score)
        assert found.judged.interval is not None
        claimed.append(found.p < 0.05)
        assert claimed[-1] == (not found.judged.interval.low <= 0 <= found.judged.interval.high)
    assert any(claimed)


def test_means_over_seeds_have_p_and_interval_that_agree() -> None:
    hospital = Hospital(60)
    a, b = (Method(name, tuple(hospital.run(s + x) for x in (-0.3, 0.0, 0.3))) for name, s in (("a", 3.0), ("b", 1.8)))
    (found,) = compare([a, b]).pairs
    assert found.test == "sign-flip"
    (edge,) = compare([a, b], level=1 - found.p).pairs
    assert edge.judged.interval is not None
    assert edge.judged.interval.low == pytest.approx(0, abs=1e-6)


def test_a_great_difference_has_a_small_p() -> None:
    hospital = Hospital(60)
    good, bad = hospital.run(4), hospital.run(0)
    found = pair(good, bad, score="f1")
    assert found.test == "sign-flip"
    assert found.p < 1e-4
    level = 1 - found.p
    assert found.judged.interval is not None
    edge = pair(good, bad, score="f1", level=level).judged.interval
    assert edge is not None
    assert edge.low == pytest.approx(0, abs=1e-9)
    assert pair(good, good, score="f1").p == 1


def test_patients_of_one_size_have_nearly_the_jackknifes_interval() -> None:
    from ddtl.evaluation.intervals.clustered import Clustered

    random = np.random.default_rng(5)
    clusters = np.repeat(np.arange(40), 3)
    labels = clusters % 2
    a, b = (answers(labels, np.outer(random.normal(size=120) + labels, [-1, 1]), clusters) for _ in range(2))

    def apart(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: a.weighted(weights)[name] - b.weighted(weights)[name] for name in SCORES}

    usual = Clustered(apart, labels, clusters, 0.95, 100, 0)
    found = pair(a, b)
    for name in SCORES:
        interval = found.differences[name].interval
        assert interval is not None
        spread = usual._spread(name)
        assert spread is not None
        error, t = spread
        expected = usual.estimates[name] - t * error, usual.estimates[name] + t * error
        width = expected[1] - expected[0]
        assert (interval.low, interval.high) == pytest.approx(expected, abs=0.15 * width)


def test_the_other_way_round_is_the_same_with_the_other_sign() -> None:
    hospital = Hospital(50)
    a, b = hospital.run(2.5), hospital.run(1.5)
    there, back = pair(a, b), pair(b, a)
    assert there.p == pytest.approx(back.p)
    assert there.mcnemar_p == pytest.approx(back.mcnemar_p)
    for name in SCORES:
        x, y = there.differences[name], back.differences[name]
        assert x.value == pytest.approx(-y.value)
        assert (x.interval.low, x.interval.high) == pytest.approx((-y.interval.high, -y.interval.low), abs=1e-9)


def test_the_order_of_the_images_plays_no_part() -> None:
    hospital = Hospital(40)
    a, b = hospital.run(2.5), hospital.run(1.5)
    order = hospital.random.permutation(len(b.predictions))
    assert pair(a, rows(b, order)) == pair(a, b)


def test_a_model_does_not_differ_from_itself() -> None:
    run = Hospital(40).run(2)
    found = pair(run, run)
    assert (found.judged.value, found.p, found.mcnemar_p, found.smallest) == (0, 1, 1, None)
    assert found.judged.interval is not None
    assert found.judged.interval.low < 0 < found.judged.interval.high


def test_holm_counts_all_pairs() -> None:
    hospital = Hospital(60)
    found = compare([one(hospital.run(s, f"m{s}")) for s in (2.5, 1.5, 2.4)]).pairs
    assert [(x.a, x.b) for x in found] == [("m2.5", "m1.5"), ("m2.5", "m2.4"), ("m1.5", "m2.4")]
    by_p = sorted(found, key=lambda x: x.p)
    assert by_p[0].holm_p == pytest.approx(min(1, 3 * by_p[0].p))
    assert all(x.pairs == 3 and x.holm_p >= x.p for x in found)


def test_methods_have_the_mean_of_their_seeds() -> None:
    hospital = Hospital(60)
    a = Method("a", tuple(hospital.run(2.5, f"a{i}") for i in range(3)))
    b = one(hospital.run(1.5, "b"))
    result = compare([a, b])
    (found,) = result.pairs
    for name in SCORES:
        mean = np.mean([run.scores()[name] for run in a.runs])
        assert result.methods[0].scores[name] == pytest.approx(mean)
        assert found.differences[name].value == pytest.approx(mean - b.runs[0].scores()[name])
    assert found.seeds == (3, 1)
    assert (found.delong_p, found.mcnemar_p, found.test) == (None, None, "sign-flip")
    assert "seeds" in found.no_tests[0]


def test_seeds_that_differ_widen_the_interval() -> None:
    hospital = Hospital(80)
    base = hospital.run(2)
    alike = Method("alike", (base,) * 4)
    apart = Method("apart", tuple(hospital.run(s) for s in (0.5, 1.5, 2.5, 3.5)))
    widths = []
    for method in (alike, apart):
        scored = compare([method, one(base)]).methods[0].intervals["roc_auc"]
        assert scored is not None
        widths.append(scored.high - scored.low)
    assert widths[1] > 1.3 * widths[0]


def test_the_error_over_seeds_is_that_of_their_mean() -> None:
    """All images alike, so that only the seeds differ: the standard deviation over the root of their number, by t."""
    labels = np.arange(60) % 2
    sure = [answers(labels, np.outer(2 * labels - 1, [-x / 2, x / 2]), np.arange(60)) for x in (0.0, 1.0, 3.0)]
    briers = [run.scores()["brier"] for run in sure]
    (found,) = compare([Method("a", tuple(sure)), one(sure[0])], score="brier").pairs
    shown = found.smallest / (np.std(briers, ddof=1) / np.sqrt(3))
    assert stats.nct.sf(stats.t.ppf(0.975, 2), 2, shown) == pytest.approx(0.8)  # the power of the t-test


def test_the_same_seeds_of_both_are_compared_seed_by_seed() -> None:
    """Seeds change both alike, so that paired they leave the difference as it is."""
    hospital = Hospital(300)
    effects = np.linspace(-1.5, 1.5, 5)
    a, b = (Method(name, tuple(hospital.run(s + x) for x in effects)) for name, s in (("a", 2.4), ("b", 1.6)))
    paired, apart = (compare([a, b], paired_seeds=same).pairs[0] for same in (True, False))
    assert (paired.paired_seeds, apart.paired_seeds) == (True, False)
    assert paired.judged.value == apart.judged.value
    assert paired.p < 0.05 < apart.p
    with pytest.raises(AssertionError, match="same seeds"):
        compare([a, one(b.runs[0])], paired_seeds=True)


def test_large_patients_that_agree_by_chance_do_not_make_a_claim() -> None:
    """One network fails on whole patients and on none of the large ones here, the other on single images."""
    claimed = {"jackknife": 0, "ours": 0}
    for seed in range(60):
        random = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(20), np.clip((1 / random.uniform(size=20)).astype(int), 1, 16))
        labels, n = clusters % 2, len(clusters)
        fails = (random.uniform(size=20) < 0.15)[clusters], random.uniform(size=n) < 0.15
        x = [np.where(fail, -1, 1) * 3 * (labels - 0.5) + 0.7 * random.normal(size=n) for fail in fails]
        a, b = (answers(labels, np.outer(one, [-0.5, 0.5]), clusters) for one in x)
        ours = pair(a, b).differences["brier"].interval
        usual = paired_intervals(labels, a.p, b.p, clusters, 0.5, 0.5)["brier"]
        claimed["jackknife"] += usual is not None and not usual.low < 0 < usual.high
        claimed["ours"] += ours is not None and not ours.low < 0 < ours.high
    assert claimed["ours"] <= 6
    assert claimed["jackknife"] > claimed["ours"]


def test_three_classes_have_no_delong_test_but_all_else() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    a, b = (answers(labels, np.eye(3)[labels] * s + random.normal(size=(90, 3)), np.arange(90) // 2,
                   classes=("x", "y", "z")) for s in (3, 1))  # fmt: skip
    found = pair(a, b)
    assert (found.delong_p, found.test) == (None, "sign-flip")
    assert found.no_tests == ("DeLong's test is for two classes",)
    assert found.mcnemar_p is not None
    assert found.mcnemar_p < 0.05
    assert found.judged.value == pytest.approx(a.scores()["roc_auc"] - b.scores()["roc_auc"])
    assert found.judged.interval is not None
    assert found.judged.interval.low > 0


def test_one_class_leaves_the_area_without_a_test_and_accuracy_with_one() -> None:
    hospital = Hospital(40)
    a, b = (rows(run, run.predictions.label == 1) for run in (hospital.run(2), hospital.run(1)))
    found = pair(a, b)
    assert (found.judged.value, found.judged.interval, found.delong_p, found.p) == (None, None, None, None)
    assert found.mcnemar_p is not None
    assert "both classes" in found.no_tests[0]


def test_too_few_patients_have_no_interval_and_no_claim() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    a, b = (answers(labels, np.random.default_rng(s).normal(size=(6, 2)), np.array([0, 0, 1, 1, 2, 2])) for s in (0, 1))
    for score in ("roc_auc", "f1"):
        found = pair(a, b, score=score)
        assert (found.judged.interval, found.p, found.smallest) == (None, None, None)


def test_what_images_come_in() -> None:
    p = Hospital(5).run(1).predictions
    assert unit_of(p)[0] == "patient"
    nobody = np.full(len(p), "")
    assert unit_of(replace(p, patient_id=nobody))[0] == "group"
    assert unit_of(replace(p, patient_id=nobody, group=p.sample_id))[0] == "image"
    someone = np.where(np.arange(len(p)) == 0, "", p.patient_id)
    assert unit_of(replace(p, patient_id=someone))[0] == "group"


def test_without_patients_images_are_independent_and_mcnemar_is_plain() -> None:
    from ddtl.evaluation.comparison.significance import mcnemar

    hospital = Hospital(60)
    a, b = hospital.run(2.5), hospital.run(1.5)
    nobody = np.full(len(a.predictions), "")
    alone = [changed(run, patient_id=nobody, group=run.predictions.sample_id) for run in (a, b)]
    found = pair(*alone)
    assert found.unit == "image"
    assert found.mcnemar_p == mcnemar(a.right, b.right).p_value != pair(a, b).mcnemar_p


def refused(a: RunPredictions, b: RunPredictions) -> str:
    with pytest.raises(UserError) as error:
        compare([one(a), one(b)])
    return str(error.value)


def test_other_images_are_refused_with_what_differs() -> None:
    run = Hospital(40).run(2, "first")
    n = len(run.predictions)
    fewer = replace(rows(run, np.arange(10)), name="second", images="sarscov2ct, protocol grouped")
    for a, b, expected in (
        (run, fewer, f"first was tested on {n} images of covid19ct, protocol official, second on 10 of sarscov2ct"),
        (fewer, run, f"second was tested on 10 images of sarscov2ct, protocol grouped, first on {n} of covid19ct"),
    ):
        message = refused(a, b)
        assert expected in message
        assert "10 of them are the same" in message
        assert "dataset.protocol" in message


def test_as_many_other_images_are_refused() -> None:
    run = Hospital(40).run(2)
    assert "0 of them are the same" in refused(run, changed(run, sample_id=np.char.add("x", run.predictions.sample_id)))


@pytest.mark.parametrize(("column", "word"), [("patient_id", "patient"), ("group", "group")])
def test_other_patients_are_refused(column: str, word: str) -> None:
    run = Hospital(40).run(2)
    other = getattr(run.predictions, column).copy()
    other[3] = ""
    message = refused(run, changed(run, **{column: other}))
    assert f"1 of {len(other)} images have another {word} in run than in changed, as image0003" in message
    assert "none" in message


def test_other_labels_are_refused_by_their_names() -> None:
    run = Hospital(40).run(2)
    labels = run.predictions.label.copy()
    labels[:2] = 1 - labels[:2]
    message = refused(run, changed(run, label=labels))
    assert "2 of" in message
    assert "image0000: non-COVID and COVID" in message


def test_other_classes_are_refused() -> None:
    run = Hospital(40).run(2)
    turned = replace(run, name="turned", predictions=replace(run.predictions, classes=CLASSES[::-1]))
    assert "COVID / non-COVID" in refused(run, turned)


def test_runs_of_two_designs_are_refused() -> None:
    run = Hospital(40).run(2)
    message = refused(run, replace(run, name="other", design="cohort"))
    assert "run was scored with evaluation.design=case_control and other with evaluation.design=cohort" in message
    assert "`ddtl evaluate other evaluation.design=case_control`" in message


def test_a_cohorts_class_counts_came_by_chance() -> None:
    """The accuracy of networks that favour one class each varies with the share of the classes that came."""
    hospital = Hospital(60)
    a, b = hospital.run(2.5, "a", threshold=0.9), hospital.run(2.5, "b", threshold=0.1)
    widths = []
    for design in ("case_control", "cohort"):
        found = pair(replace(a, design=design), replace(b, design=design)).differences["accuracy"].interval
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[1] > 1.1 * widths[0]


def test_the_runs_own_intervals_are_of_their_design() -> None:
    run = replace(Hospital(60).run(2.5), design="cohort")
    other = replace(Hospital(60).run(1.5, "other"), design="cohort")
    found = compare([one(run), one(other)]).methods[0].intervals
    labels, clusters = run.predictions.label, run.predictions.patient_id
    assert found == intervals(labels, run.p, clusters, 0.5, design="cohort")


@pytest.mark.slow
def test_equal_models_are_seldom_told_apart_and_better_ones_often() -> None:
    """At 5 %: of 20 hospitals about one, and nearly all."""
    claimed = {"equal": 0, "better": 0}
    for seed in range(20):
        hospital = Hospital(60, seed)
        methods = [one(hospital.run(s, name)) for s, name in ((5.0, "better"), (2.2, "equal"), (2.2, "standard"))]
        for found in compare(methods).pairs:
            if found.b == "standard":
                assert found.judged.interval is not None
                claimed[found.a] += found.p < 0.05 and found.judged.interval.low * found.judged.interval.high > 0
    assert claimed["equal"] <= 3
    assert claimed["better"] >= 18


def test_an_f1_without_true_positives_is_no_certainty() -> None:
    """Its influences are 0, as no patient is there that could move it: the difference was as sure as the other one."""
    labels = np.repeat([0, 1], [5, 4])
    clusters = np.arange(9)
    none_right = np.where(labels, -1.0, [1.0, -1.0, -1.0, -1.0, -1.0, 0, 0, 0, 0])
    a, b = (
        answers(labels, np.stack([-x, x], axis=1), clusters, name)
        for name, x in (("none", none_right), ("all", labels * 0 + 1.0))
    )
    found = compare([one(a), one(b)], score="f1").pairs[0]
    own = [intervals(labels, run.p, clusters, 0.5)["f1"] for run in (a, b)]
    judged = found.judged
    assert (judged.a, judged.b) == (0, pytest.approx(8 / 13))
    assert judged.interval.high == pytest.approx(judged.value + np.hypot(own[0].high - 0, judged.b - own[1].low))
    assert judged.interval.high > -0.2, "the F1 without true positives may well be another one"
    assert (found.p, found.smallest) == (None, None)


def test_no_difference_is_promised_that_cannot_be() -> None:
    hospital = Hospital(8)
    found = pair(hospital.run(0.2, "a"), hospital.run(-0.2, "b"))
    assert found.p is not None
    assert found.smallest is None or found.smallest < 1
    large = Hospital(200)
    assert pair(large.run(0.2, "a"), large.run(-0.2, "b")).smallest < 0.5
