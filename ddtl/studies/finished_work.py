"""What an earlier call of a study has done, and whether it still holds: the same images, split and evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddtl.records import run as results_of
from ddtl.records.checking import inside
from ddtl.records.study_folder import Evaluation, Study, key_of_labels
from ddtl.schema.run import Config
from ddtl.training import rescore
from ddtl.training.identity import scoring
from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable

# They change neither images nor split.
_NO_MATTER = {"batch_size", "sampling", "num_workers", "harmonize"}


class FinishedWork:
    """The runs and evaluations of an earlier record."""

    def __init__(self, earlier: Study | None, runs_dir: Path) -> None:
        """``earlier`` is the record, None where there is none; its folders are below ``runs_dir``."""
        self._jobs = {key_of_labels(job["labels"]): job for job in (earlier["jobs"] if earlier else [])}
        self._runs_dir = runs_dir
        self._digests: dict[str, str] = {}

    def run(self, labels: Mapping[str, Any], words: Sequence[str], config: Config) -> str | None:
        """Return the folder of a finished and tested run of these labels and words, where the images are as they
        were.
        """
        job = self._jobs.get(key_of_labels(labels))
        return None if job is None or job["overrides"] != list(words) else self._find(job["run"], config)

    def evaluation(self, labels: Mapping[str, Any], config: Config, requested: Evaluation) -> str | None:
        """Return the folder of a run's finished evaluation with the same words, where the images are as they were."""
        for found in self._jobs[key_of_labels(labels)]["evaluations"]:
            if (found["target"], found["words"]) == (requested["target"], requested["words"]):
                return self._find(found["folder"], rescore.read_request(config, requested["words"]).config)
        return None

    def _find(self, folder: str | None, config: Config) -> str | None:
        if folder is None:
            return None
        try:
            path = inside(self._runs_dir, folder)
            results = results_of.read(path)
        except (OSError, Unreadable):
            return None
        whole = "test" in results and (path / "predictions.csv").exists()
        same = results.get("evaluation") == json.loads(json.dumps(scoring(config.evaluation)))
        return folder if whole and same and results.get("digest") == self._digest(config) else None

    def _digest(self, config: Config) -> str:
        """Of a dataset as it is now; empty where it cannot be read."""
        from ddtl.data.datasets import registry
        from ddtl.data.images.cache import open_cache
        from ddtl.utils import console

        key = config.dataset.model_dump_json(exclude=_NO_MATTER)
        if key not in self._digests:
            try:
                registry.require_images(config)
                with console.progress("preparing images") as bar:
                    manifest = registry.prepared(config, bar)
                    root = Path(config.paths.cache_dir).expanduser()
                    cache = open_cache(manifest, size=config.dataset.image_size, root=root, progress=bar)
                self._digests[key] = manifest.digest(cache.file_hashes)
            except UserError:
                self._digests[key] = ""
        return self._digests[key]
