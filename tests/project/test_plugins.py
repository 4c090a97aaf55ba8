"""The plugin of docs/plugins.md: it trains, resumes and predicts, and a run without it is refused by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddtl.dashboard.index import Index
from ddtl.utils import plugins
from ddtl.utils.errors import UserError
from tests.support import fork_server
from tests.support.runs import ROOT

BLOCK = re.compile(r"^```(?:python|yaml)\n# (ct_extras/\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAIN = (
    "loss=mean_error", "model=two_layers", "model.weights=none", "dataset=flat", "dataset.image_size=32",
    "dataset.batch_size=8", "trainer.max_epochs=2", "logger=none", "finetune=full",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the plugin in ``lib/``, and images in ``images/``."""
    for name, text in BLOCK.findall((ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")):
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        kind = "COVID" if number % 2 else "normal"
        pixels = rng.integers(0, 200, (32, 32), dtype=np.uint8) + 50 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / f"{kind}_p{number:02}_0.png")
    return tmp_path


def typed(place: Path, *words: str, named: str = "ct_extras") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place / "lib"), "DDTL_PLUGINS": named, "OMP_NUM_THREADS": "1"}
    program = [str(ROOT / words[0])] if words[0].endswith(".py") else ["-m", "ddtl", words[0]]
    command = [sys.executable, *program, *words[1:]]
    return fork_server.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def insert(place: Path, begin: str, line: str) -> tuple[Path, int]:
    """Put a line into a function of the plugin; the file and the number of the line."""
    source = place / "lib" / "ct_extras" / "__init__.py"
    lines = source.read_text().splitlines()
    at = next(i for i, one in enumerate(lines) if one.startswith(begin)) + 1
    source.write_text("\n".join([*lines[:at], line, *lines[at:]]) + "\n")
    return source, at + 1


@pytest.mark.slow
def test_it_trains_predicts_and_is_part_of_the_runs_identity(place: Path) -> None:
    words = (*TRAIN, f"dataset.root={place / 'images'}", f"paths.runs_dir={place / 'runs'}")
    done = typed(place, "train.py", *words)
    assert done.returncode == 0, done.stderr
    (folder,) = (place / "runs" / "flat").glob("two_layers-full-s0-*")
    identity = json.loads((folder / "identity.json").read_text())
    assert re.fullmatch(r"0\.1 sha256:[0-9a-f]{16}", identity["plugin.ct_extras"])
    assert identity["loss.power"] == 1.0
    sentence = "The run uses the plugin ct_extras (0.1 sha256:"
    assert any(text.startswith(sentence) for text in json.loads((folder / "results.json").read_text())["warnings"])
    assert sentence in (folder / "methods.md").read_text().replace("\\", "")
    again = typed(place, "train.py", *words)
    assert "finished" in again.stderr
    image = str(next((place / "images").iterdir()))
    assert typed(place, "predict", str(folder), image, "output=p").returncode == 0

    absent = typed(place, "predict", str(folder), image, "output=q", named="")
    assert absent.returncode == 2
    assert "the run uses the plugin ct_extras (0.1 sha256:" in absent.stderr
    assert "Set DDTL_PLUGINS=ct_extras" in absent.stderr.replace("\n", " ")
    source = place / "lib" / "ct_extras" / "__init__.py"
    source.write_text(source.read_text() + "# changed\n")
    other = typed(place, "predict", str(folder), image, "output=q")
    assert other.returncode == 2
    assert "as it was" in other.stderr
    assert len(typed(place, "train.py", *words, "--cfg", "job").stdout) > 100


@pytest.mark.slow
def test_trials_of_a_search_have_it(place: Path) -> None:
    shared = (*TRAIN, f"dataset.root={place / 'images'}", f"paths.runs_dir={place / 'runs'}", "finalize=false")
    words = ("search=lr", "sampler.name=MySampler", "sampler.args={}", "n_trials=2", "pruner.name=NopPruner", *shared)
    done = typed(place, "sweep.py", *words)
    assert done.returncode == 0, done.stderr
    assert len(list((place / "runs" / "flat").glob("two_layers-*"))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "the plugin broken_one cannot be imported (ZeroDivisionError: division by zero)"),
        ("import nothing_of_this_name", "cannot be imported (ModuleNotFoundError"),
        ("def (", "cannot be imported (SyntaxError"),
        (None, "cannot be imported (ModuleNotFoundError: No module named 'broken_one')"),
    ],
)
def test_one_that_cannot_be_imported_is_one_line(place: Path, text: str | None, said: str) -> None:
    if text is not None:
        (place / "lib" / "broken_one.py").write_text(text)
    done = typed(place, "train.py", "--cfg", "job", named="broken_one")
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_the_current_folder_is_not_imported_from(place: Path) -> None:
    (place / "lying_here.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    done = typed(place, "train.py", "--cfg", "job", named="lying_here")
    assert done.returncode == 2
    assert not (place / "ran").exists()


def test_what_two_add_and_what_nobody_names_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first_one", "second_one"):
        (place / "lib" / f"{name}.py").write_text("from ddtl import plugins\n@plugins.loss('same')\ndef f(): ...\n")
    done = typed(place, "train.py", "--cfg", "job", named="first_one,second_one")
    assert "first_one and second_one both add the loss same" in done.stderr
    with pytest.raises(UserError, match="is added by a plugin"):
        plugins.loss("x")(lambda: None)


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (
            "@plugins.loss('cross_entropy')\ndef f(*a, **k): ...",
            (),
            "adds the loss cross_entropy, which ddtl has itself",
        ),
        ("@plugins.dataset('phantom')\ndef f(*a): ...", (), "adds the dataset phantom, which ddtl has itself"),
        ("@plugins.loss('../x')\ndef f(*a): ...", (), "letters, digits, _ and - make a name"),
        (
            "plugins.backbone(BackboneSpec('resnet18', '', {}, 1))",
            (),
            "adds the backbone resnet18, which ddtl has itself",
        ),
        (
            "plugins.backbone(BackboneSpec('wrong', '', {'stem': ('0',)}, 9, trunk='', build=network))",
            ("model=wrong",),
            "an image becomes (4, 62, 62), and not 9 channels",
        ),
        (
            "plugins.backbone(BackboneSpec('wrong', '', {'stem': ('1',)}, 4, trunk='', build=network))",
            ("model=wrong",),
            "model.name=wrong: its network cannot be made or used",
        ),
        ("raise SystemExit(3)", (), "cannot be imported (SystemExit: 3)"),
    ],
)
def test_what_a_plugin_may_not_add(place: Path, text: str, words: tuple[str, ...], said: str) -> None:
    begin = (
        "from torch import nn\nfrom ddtl import plugins\nfrom ddtl.schema.backbones import BackboneSpec\n"
        "def network(weights=None):\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    )
    (place / "lib" / "wrong_one.py").write_text(begin + text + "\n")
    shared = ("dataset=phantom", "dataset.phantom.n_patients=12", "dataset.phantom.size=64", "model.weights=none")
    done = typed(place, "train.py", *shared, *words, "logger=none", "finetune=full", named="wrong_one")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_runs_without_one_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddtl.config.load import load
    from ddtl.training.identity import counting

    assert not [key for key in counting(load(["dataset=phantom"])) if key.startswith("plugin.")]


@pytest.mark.slow
def test_one_of_an_installed_package_trains_and_predicts(place: Path) -> None:
    """It is found by its entry point, and no variable names it."""
    about = place / "lib" / "ct_extras-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ct-extras\nVersion: 0.3\n")
    (about / "entry_points.txt").write_text("[ddtl.plugins]\nct_extras = ct_extras\n")
    words = (*TRAIN, f"dataset.root={place / 'images'}", f"paths.runs_dir={place / 'runs'}")
    done = typed(place, "train.py", *words, named="")
    assert done.returncode == 0, done.stderr
    (folder,) = (place / "runs" / "flat").glob("two_layers-full-s0-*")
    identity = json.loads((folder / "identity.json").read_text())
    assert re.fullmatch(r"0\.3 sha256:[0-9a-f]{16}", identity["plugin.ct_extras"])
    image = str(next((place / "images").iterdir()))
    assert typed(place, "predict", str(folder), image, "output=p", named="").returncode == 0
    (about / "entry_points.txt").unlink()
    absent = typed(place, "predict", str(folder), image, "output=q", named="")
    assert absent.returncode == 2
    assert "the run uses the plugin ct_extras (0.3 sha256:" in absent.stderr


@pytest.mark.slow
def test_a_loss_that_raises_is_one_line_with_its_place(place: Path) -> None:
    source, line = insert(place, "def mean_error", "    raise KeyError('no such weight')")
    words = (*TRAIN, f"dataset.root={place / 'images'}", f"paths.runs_dir={place / 'runs'}")
    done = typed(place, "train.py", *words)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"the plugin ct_extras failed in mean_error, {source}:{line} (KeyError: 'no such weight')" in said
    assert "Traceback" not in done.stderr + done.stdout
    (folder,) = (place / "runs" / "flat").glob("two_layers-full-s0-*")
    log = (folder / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log
    (row,) = (row for row in Index(place / "runs").rows() if row.kind == "run")
    assert (row.state, row.note[:26]) == ("failed", "the plugin ct_extras faile")


@pytest.mark.slow
def test_what_a_dataset_of_a_plugin_raises_is_one_line(place: Path) -> None:
    source, line = insert(place, "def flat", "    open('/no/file')")
    done = typed(place, "train.py", *TRAIN, f"dataset.root={place / 'images'}")
    assert done.returncode == 1, done.stderr
    assert f"failed in flat, {source}:{line} (FileNotFoundError:" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(place.glob("runs/*/*"))
