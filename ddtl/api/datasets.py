"""Datasets as training sees them: the table of images, and the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ddtl.api.session import as_typed, as_words, command
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ddtl.data.loading.datamodule import CTDataModule

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Batch:
    """Images of a dataset.

    Attributes:
        before: (N, C, H, W) float32, grey levels from 0 (black) to 1: decoded, resized and harmonised.
        after: the same, augmented as in the first epoch of a training with these settings; equal to ``before`` in
            validation and test. The network itself subtracts its mean and divides by its deviation.
        labels: (N,) int64, indices into ``classes``.
        classes: the names by label; of two the last one is the positive class.
        sample_ids: of each image, as in the manifest.
    """

    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    sample_ids: tuple[str, ...]


class Dataset:
    """A dataset with its split, decoded.

    Attributes:
        name: under which its results are filed.
        classes: the names by label; of two the last one is the positive class.
        protocol: how it was split.
        grouping: what no split separates: ``patient``, ``near_duplicate`` or ``none``.
    """

    def __init__(self, module: CTDataModule) -> None:
        self._module = module
        manifest = module.manifest
        self.name, self.classes, self.grouping = manifest.dataset, manifest.classes, manifest.grouping
        self.protocol = str(manifest.protocol)

    @property
    def manifest(self) -> pd.DataFrame:
        """A row for each image: ``sample_id``, ``group``, ``patient_id`` (empty where it is not known), site, label,
        split (empty for images that the protocol or a list excludes), and the path of its file.
        """
        import pandas as pd

        found = self._module.manifest
        rows = [
            (s.sample_id, s.group, s.patient_id or "", s.site, found.classes[s.label], s.split or "", str(s.path))
            for s in found.samples
        ]
        return pd.DataFrame(rows, columns=["sample_id", "group", "patient_id", "site", "label", "split", "path"])

    def batch(self, split: Split = "train", n: int = 16) -> Batch:
        """Return images as the network sees them, evenly spread over a split.

        Args:
            split: ``train``, ``val`` or ``test``.
            n: how many, at least 1; all where the split has fewer.

        Raises:
            UserError: there is no such split, or it has no image.
        """
        from ddtl.data.loading.views import views

        if split not in ("train", "val", "test"):
            raise UserError(f"split={split!r}: is neither 'train', 'val' nor 'test'.")
        if not isinstance(n, int) or n < 1:
            raise UserError(f"n={n}: a batch has at least 1 image.")
        found = views(self._module, split, n)
        samples = self._module.manifest.samples
        names = tuple(samples[row].sample_id for row in found.rows.tolist())
        return Batch(found.before, found.after, found.labels, self.classes, names)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self._module.manifest)} images, protocol {self.protocol!r})"

    def _repr_html_(self) -> str:
        """Return images, groups and images of each class by split, for notebooks."""
        from html import escape

        import pandas as pd

        rows = [
            {"split": split, "images": found["images"], "groups": found["groups"], **found["classes"]}
            for split, found in self._module.manifest.counts().items()
        ]
        return f"<p><b>{escape(self.name)}</b></p>{pd.DataFrame(rows).to_html(index=False)}"


def dataset(name: str, *words: str, **settings: Any) -> Dataset:
    """Return a dataset as ``train.py dataset=NAME`` prepares it: split, decoded and checked.

    Args:
        name: ``"phantom"``, ``"covid19ct"``, ``"sarscov2ct"``, ``"folder"``, ``"table"``,
            ``"dicom"`` or ``"nifti"``.
        words: as on the command line: ``"dataset.protocol=random"``.
        settings: the same as keywords; keys with a dot as ``**{"dataset.image_size": 128}``.

    Raises:
        UserError: there is no such dataset, images are absent or damaged, or cannot be split as requested.
    """
    from ddtl.commands.data import prepared
    from ddtl.config.load import load as load_config

    typed = [*as_words({"dataset": name}), *as_typed(words, settings)]
    config = load_config(typed, writes=False)
    with command("train.py", typed):
        return Dataset(prepared(config))
