"""From the words after sweep.py to a plan: whose words are whose, what is refused, what makes another search."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ddtl.commands import sweep_help
from ddtl.config import where
from ddtl.config.load import ConfigError, check
from ddtl.records.identity import differences
from ddtl.sweeps.plan import preview, settings
from ddtl.sweeps.space.space import Listed, Sampled

ROOT = Path(__file__).resolve().parents[2]
LR = ("search=lr", "dataset=covid19ct")
MOMENTUM = "search.space.optimizer.momentum={float: [0.1, 0.9]}"


def read(*words: str) -> settings.Plan:
    """A plan whose trials are not tried, which takes a while."""
    return settings.read(words, tried=False)


def complaint(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings.read(words)
    assert "\n" not in "".join(caught.value.problems)
    return caught.value.problems


# --- whose words are whose --------------------------------------------------------------------------------------------


def test_words_of_the_sweep_and_of_its_trials_are_told_apart() -> None:
    plan = read(*LR, "n_trials=7", "trainer.max_epochs=3", "engine=slurm", "engine.cpus=2", "sweep.seed=4", "seed=9")
    assert plan.fixed == ("dataset=covid19ct", "trainer.max_epochs=3", "seed=9", "evaluation.test=false")
    assert (plan.settings.n_trials, plan.settings.sweep.seed) == (7, 4)
    assert (plan.settings.engine.kind, plan.settings.engine.cpus, plan.settings.engine.minutes) == ("slurm", 2, 240)
    assert (plan.base.seed, plan.base.trainer.max_epochs, plan.base.evaluation.test) == (9, 3, False)
    assert (plan.name, plan.folder) == ("covid19ct-lr", Path("runs/sweeps/covid19ct-lr"))
    assert isinstance(plan.space, Sampled)


def test_defaults() -> None:
    plan = read("search=lr")
    assert (plan.settings.n_trials, plan.settings.finalize, plan.settings.preview) == (40, True, None)
    assert (plan.settings.sampler.name, plan.settings.pruner.name) == ("TPESampler", "AfterUnfreeze")
    assert plan.settings.engine.kind == "local"


def test_the_name_and_the_place_can_be_set(tmp_path: Path) -> None:
    plan = read("search=lr", "sweep.name=mine", f"paths.runs_dir={tmp_path}")
    assert plan.folder == tmp_path / "sweeps" / "mine"


def test_a_trial_on_several_gpus_says_so_in_its_own_words() -> None:
    assert "trainer.devices=2" in read("search=lr", "engine.gpus_per_trial=2").fixed
    assert read("search=lr", "engine.gpus_per_trial=2", "trainer.devices=2").base.trainer.devices == 2
    assert read("search=lr").base.trainer.devices == 1
    (line,) = complaint("search=lr", "engine.gpus_per_trial=2", "trainer.devices=4")
    assert line.startswith("trainer.devices=4: engine.gpus_per_trial=2 says")


def test_warnings_about_the_shared_words_are_handed_over() -> None:
    plan = read("search=lr", "dataset.fold=1")
    assert plan.notes == ("dataset.fold has no effect: only dataset.protocol=kfold has folds.",)


# --- the sampler and the pruner ---------------------------------------------------------------------------------------


def test_another_sampler_comes_without_the_defaults_arguments() -> None:
    assert read("search=lr", "sampler.name=RandomSampler").settings.sampler.args == {}
    kept = read("search=lr", "sampler.name=TPESampler", "sampler.args.n_startup_trials=3").settings.sampler.args
    assert kept == {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": 3}


@pytest.mark.parametrize(
    "name", ["TPESampler", "RandomSampler", "QMCSampler", "NSGAIISampler", "NSGAIIISampler", "BruteForceSampler"]
)
def test_samplers_by_name(name: str) -> None:
    assert read("search=lr", f"sampler.name={name}").settings.sampler.name == name


@pytest.mark.parametrize(
    "words",
    [
        ("MedianPruner", "n_startup_trials=3"),
        ("HyperbandPruner", "min_resource=2"),
        ("SuccessiveHalvingPruner",),
        ("ThresholdPruner", "lower=0.4"),
        ("NopPruner",),
    ],
)
def test_pruners_by_name(words: tuple[str, ...]) -> None:
    name, *args = words
    pruner = read("search=lr", f"pruner.name={name}", *(f"pruner.args.{arg}" for arg in args)).settings.pruner
    assert (pruner.name, len(pruner.args)) == (name, len(args))


def test_two_objectives_prune_nothing() -> None:
    plan = read("search=lr", "sweep.objective=[score, seconds]")
    assert (plan.settings.sweep.objective, plan.settings.pruner.name) == (("score", "seconds"), "NopPruner")


# --- grids ------------------------------------------------------------------------------------------------------------


def test_values_in_commas_make_a_grid_in_their_order() -> None:
    plan = settings.read(
        ["dataset=covid19ct", "finetune=full,lp_ft", "dataset.protocol=kfold", "dataset.fold=range(2)"]
    )
    assert isinstance(plan.space, Listed)
    jobs = [(f"finetune={name}", f"dataset.fold={fold}") for name in ("full", "lp_ft") for fold in (0, 1)]
    assert plan.space.jobs == tuple(jobs)
    assert plan.fixed == ("dataset=covid19ct", "dataset.protocol=kfold", "evaluation.test=false")
    assert (plan.settings.n_trials, plan.settings.pruner.name, plan.settings.finalize) == (4, "NopPruner", False)
    assert plan.base.finetune.name == "full"


def test_a_grid_is_found_again_and_another_one_is_another() -> None:
    one, same, other = read("seed=0,1"), read("seed=0,1", "engine.workers=2"), read("seed=0,1,2")
    assert one.name == same.name != other.name
    assert one.name.startswith("phantom-grid-")


def test_a_grid_is_trained_again_or_ended_early_where_that_is_asked_for() -> None:
    plan = read("seed=0,1", "finalize=true", "pruner.name=MedianPruner")
    assert (plan.settings.finalize, plan.settings.pruner.name) == (True, "MedianPruner")


# --- what is varied ---------------------------------------------------------------------------------------------------


def test_a_parameter_is_replaced_added_or_taken_out() -> None:
    plan = read(
        *LR,
        "search.space.optimizer.lr={float: [1e-4, 1e-3]}",
        "search.space.optimizer.weight_decay=null",
        "search.space.dataset.batch_size={choice: [8, 16]}",
    )
    assert plan.space.described() == {
        "optimizer.lr": {"key": "optimizer.lr", "float": [1e-4, 1e-3]},
        "dataset.batch_size": {"key": "dataset.batch_size", "choice": [8, 16]},
    }


def test_it_is_so_wherever_it_stands() -> None:
    plan = read(
        "search=lr_unfreeze", "search.space.finetune.batchnorm=null", "search.space.finetune.probe={int: [1, 2]}"
    )
    described = plan.space.described()
    assert "finetune.batchnorm" not in described
    assert described["finetune.probe"] == {"key": "finetune.probe", "int": [1, 2], "where": ["finetune=lp_ft"]}


def test_fewer_options_keep_their_parameters() -> None:
    plan = read("search=lr_unfreeze", "search.space.finetune={choice: [full, layer_decay]}")
    described = plan.space.described()
    assert described["finetune"]["choice"] == ["full", "layer_decay"]
    assert described["finetune.decay"]["where"] == ["finetune=layer_decay"]
    assert "finetune.probe" not in described


def test_a_space_can_be_typed_without_a_file() -> None:
    plan = settings.read(["search.space.optimizer.lr={float: [1e-4, 1e-3], log: true}", "search.name=mine"])
    assert list(plan.space.described()) == ["optimizer.lr"]
    assert plan.name == "phantom-mine"


def test_what_has_no_effect_here_is_left_out_and_told() -> None:
    plan = settings.read(["search=lr_unfreeze", "model=squeezenet1_1"])
    assert plan.notes == ("finetune.batchnorm is not searched here: the network has no BatchNorm.",)
    assert "finetune.batchnorm" not in plan.space.described()
    assert plan.settings.search is not None
    assert "batchnorm" not in str(plan.settings.search.space)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ["nothing to search", "search=…", "augment, lr, lr_unfreeze", "optimizer.lr=1e-4,1e-3"]),
        (("search=lrr",), ["search=lrr: no such option", "Did you mean lr?"]),
        (
            ("search=lr", "engine.kind=cloud"),
            ["engine.kind=cloud: there is no such engine. There are local, ray, slurm"],
        ),
        (("search=lr", "engine.kind=remote"), ["engine.kind=remote: there is no such engine"]),
        (("search=lr", "engine=locl"), ["engine=locl: no such option", "Did you mean local?"]),
        (("search=lr", "n_trial=3"), ["n_trial=3: no such key", "Did you mean n_trials?"]),
        (("search=lr", "worker=3"), ["worker=3: no such key", "Did you mean engine.workers?"]),
        (("search=lr", "engine.patition=x", "engine=slurm"), ["Did you mean engine.partition?"]),
        (("search=lr", "optimzer.lr=1"), ["Did you mean optimizer.lr?"]),
        (("search=lr", "n_trials=0"), ["n_trials=0: must be at least 1"]),
        (("search=lr", "engine.workers=many"), ["engine.workers=many: must be a whole number, or one of auto"]),
        (("search=lr", "engine=local,ray"), ["engine=local,ray: takes one value"]),
        (("search=lr", "--fast"), ["--fast: no such flag"]),
        (("search=lr", "sweep.name=a/b"), ["sweep.name=a/b: must be a plain folder name"]),
        (("search=lr", "sampler.name=TPE"), ["sampler.name=TPE: no such sampler", "Did you mean TPESampler?"]),
        (("search=lr", "sampler.name=PartialFixedSampler"), ["no such sampler"]),
        (("search=lr", "sampler.args.n_startup=3"), ["sampler.args.n_startup=3", "Did you mean n_startup_trials?"]),
        (("search=lr", "sampler.args.seed=3"), ["sampler.args.seed=3", "sweep.seed"]),
        (("search=lr", "sampler.name=GridSampler"), ["needs sampler.args.search_space"]),
        (("search=lr", "pruner.name=Median"), ["pruner.name=Median: no such pruner", "Did you mean MedianPruner?"]),
        (("search=lr", "pruner.args.gracee=3"), ["pruner.args.gracee=3", "Did you mean grace?"]),
        (("search=lr", "pruner.args.inner=Median"), ["pruner.args.inner=Median: no such pruner", "MedianPruner?"]),
        (("search=lr", "pruner.name=MedianPruner", "pruner.args.n_startup_trials=-1"), ["MedianPruner does not take"]),
        (("search=lr", "sweep.objective=[seconds]"), ["takes [score] or [score, seconds]"]),
        (
            ("search=lr", "sweep.objective=[score, seconds]", "pruner.name=MedianPruner"),
            ["pruner.name=MedianPruner: with two objectives", "Leave it out"],
        ),
        # what a sweep sets itself
        (("search=lr", "evaluation.test=true"), ["evaluation.test=true: a sweep never uses the test set"]),
        (("search=lr", "+evaluation.test=true"), ["a sweep never uses the test set"]),
        (("search=lr", "run.name=x"), ["run.name=x", "sweep.name="]),
        (("seed=0,1", "run.overwrite=true"), ["run.overwrite=true", "sweep.name="]),
        # grids
        (("seed=0,1", "search=lr"), ["Leave search out", "search.space.KEY={choice: [a, b]}"]),
        (("seed=0,1", "n_trials=3"), ["a grid runs all its combinations"]),
        (("seed=0,x",), ["seed=x: must be a whole number"]),
        (("seed=0,1", "seed=3"), ["seed=3: the grid varies this setting"]),
        (("seed=0,1", "seed=2,3"), ["seed: is given 2 times", "seed=a,b,c"]),
        (("seed=0,1", "optimzer.lr=1"), ["Did you mean optimizer.lr?"]),
        (("trainer.monitor=val/loss,val/f1",), ["trainer.monitor: trials are compared by one score"]),
        # spaces
        ((*LR, "optimizer.lr=1e-3"), ["optimizer.lr=1e-3: the search varies", "search.space.optimizer.lr=null"]),
        (("search=lr_unfreeze", "finetune=full"), ["finetune=full: the search varies", "search.space.finetune=null"]),
        ((*LR, "search.space.optimizer.lr={float: [1, 0.1]}"), ["the lower bound comes first"]),
        ((*LR, "search.space.optimizer.lrr={float: [0.1, 1]}"), ["no such key", "Did you mean optimizer.lr?"]),
        ((*LR, "search.space.optimizer.lr={float: [-1, 1]}"), ["optimizer.lr=-1.0: must be more than 0"]),
        ((*LR, "search.space.optimizer.warmup={float: [0, 1]}"), ["optimizer.warmup=1.0: must be less than 1"]),
        ((*LR, "search.space.augment={choice: [non, strong]}"), ["augment=non: no such option", "Did you mean none?"]),
        ((*LR, "search.space.seed={int: [0, 9]}"), ["search.space.seed", "is luck"]),
        ((*LR, "search.space.dataset.fold={int: [0, 4]}"), ["scores on other images cannot be compared"]),
        ((*LR, "search.space.logger={choice: [none, csv]}"), ["does not make another model"]),
        ((*LR, "search.space.trainer.monitor={choice: [val/f1]}"), ["trials are compared by one score"]),
        ((*LR, "search.name=a/b"), ["search.name=a/b: must be made of letters"]),
        (
            ("search=lr", "search.space.finetune={choice: {linear_probe: {finetune.decay: {float: [0.5, 0.9]}}}}"),
            ["linear_probe freezes the backbone", "finetune=linear_probe"],
        ),
        (
            ("search=lr_unfreeze", "trainer.max_epochs=3"),
            ["trainer.max_epochs=3 leaves one of them without an epoch", "(In the trial "],
        ),
        (
            (*LR, "search.space.optimizer={choice: [adamw, sgd]}", MOMENTUM),
            ["search.space.optimizer.momentum has no effect in some trials", "Put it below the option"],
        ),
        (
            (
                "search.space.optimizer={choice: {adamw: {optimizer.momentum: {float: [0.1, 0.9]}}, sgd: "
                "{optimizer.momentum: {float: [0.1, 0.9]}}}}",
            ),
            ["search.space.optimizer.momentum has no effect below optimizer=adamw", "Take it out there"],
        ),
    ],
)
def test_a_mistake_is_named_with_its_mending(words: tuple[str, ...], parts: list[str]) -> None:
    (line,) = complaint(*words)
    assert "conf/" not in line
    for part in parts:
        assert part in line


def test_every_mistake_comes_in_one_message() -> None:
    found = complaint(
        "search=lr", "n_trials=0", "engine=locl", "sweep.name=a/b", "sampler.name=TPE", "seed=x", "run.name=y",
        "optimizer.lr=1", "search.space.dataset.batch_size={choice: []}",
    )  # fmt: skip
    assert {line.partition("=")[0] for line in found} == {
        "n_trials", "engine", "sweep.name", "sampler.name", "seed", "run.name", "search.space.dataset.batch_size",
    }  # fmt: skip


# --- what makes a search another one ----------------------------------------------------------------------------------


def test_what_may_change_between_calls_is_no_part_of_the_identity(tmp_path: Path) -> None:
    words = [
        "n_trials=3", "engine=slurm", "finalize=false", "sweep.storage=postgresql://me@here/x", "logger=none",
        f"paths.runs_dir={tmp_path}", "sweep.seeds=2", "sweep.keep=1", "sweep.name=x", "dataset.num_workers=1",
    ]  # fmt: skip
    before, now = read(*LR).identity(), read(*LR, *words).identity()
    assert differences(before, now) == []
    assert json.loads(json.dumps(now)) == now
    assert not [key for key, value in now.items() if isinstance(value, str) and str(tmp_path) in value]


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("search.space.optimizer.lr={float: [1e-5, 1e-3], log: true}", ["space.optimizer.lr"]),
        ("trainer.max_epochs=3", ["train.trainer.max_epochs"]),
        ("sweep.seed=1", ["seed"]),
        ("seed=1", ["train.seed"]),
        ("sweep.objective=[score, seconds]", ["objective", "pruner.name"]),
        ("sampler.args.n_startup_trials=4", ["sampler.args.n_startup_trials"]),
        ("pruner.name=NopPruner", ["pruner.name"]),
    ],
)
def test_a_changed_search_is_another_one(word: str, changed: list[str]) -> None:
    lines = differences(read(*LR).identity(), read(*LR, word).identity())
    assert [line.partition(":")[0] for line in lines] == changed


def test_whose_images_they_are_counts(tmp_path: Path) -> None:
    words = ["search=lr", "dataset=folder"]
    one = read(*words, f"dataset.root={tmp_path}")
    other = read(*words, f"dataset.root={tmp_path.parent}")
    assert [line.partition(":")[0] for line in differences(one.identity(), other.identity())] == ["train.dataset.root"]


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_combination_that_is_named_twice_runs_once() -> None:
    plan = settings.read(["optimizer.lr=1e-4,1e-4,1e-3"])
    assert plan.settings.n_trials == 2
    assert plan.notes == ("of 3 combinations 2 are different, and each of these runs once.",)
    assert [line.count("optimizer.lr=0.0001") for line in preview.lines(plan, 10)] == [1, 0]


def test_a_previewed_line_is_a_command_of_train() -> None:
    plan = read("search=lr_unfreeze", "dataset=covid19ct", "paths.runs_dir=my runs")
    lines = preview.lines(plan, 12)
    assert len(set(lines)) == 12
    assert lines == preview.lines(plan, 12)
    assert lines[:5] == preview.lines(plan, 5)
    for line in lines:
        python, program, *words = shlex.split(line)
        assert (python, program) == ("python", "train.py")
        config, _ = check(words)
        assert (config.paths.runs_dir, config.evaluation.test) == ("my runs", False)


def test_another_seed_shows_other_trials_and_a_grid_all_of_its_own() -> None:
    assert preview.lines(read("search=lr"), 3) != preview.lines(read("search=lr", "sweep.seed=1"), 3)
    assert [line.split()[2] for line in preview.lines(read("seed=3,4,5"), 10)] == ["seed=3", "seed=4", "seed=5"]


def test_the_printed_configuration_holds_the_sweep_and_its_trials() -> None:
    tree = yaml.safe_load(settings.composed_yaml([*LR, "n_trials=3", "trainer.max_epochs=2"]))
    assert (tree["n_trials"], tree["train"]["trainer"]["max_epochs"]) == (3, 2)
    assert tree["search"]["space"]["optimizer.lr"] == {"float": [1e-5, 1e-2], "log": True}


def test_the_help_page_shows_every_option_and_key() -> None:
    page = sweep_help.render()
    lines = page.splitlines()
    for group in where.groups("sweep"):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {group}: "))
        for option in where.options(group):
            assert next(line for line in lines[at:] if line[4:].startswith(f"{option} "))[26:]
    for key in yaml.safe_load((where.conf_dir() / "sweep.yaml").read_text(encoding="utf-8")):
        assert key == "defaults" or f"  {key}" in page
    assert max(map(len, lines)) < 120
    assert page.isascii()


def test_a_preview_and_the_help_page_do_without_torch() -> None:
    code = (
        "import sys; from ddtl.commands import sweep_help as help_page; "
        "from ddtl.sweeps.plan import preview, settings; help_page.render(); "
        "preview.lines(settings.read(['search=lr'], tried=False), 2); "
        "print(sorted({'torch', 'pytorch_lightning', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
