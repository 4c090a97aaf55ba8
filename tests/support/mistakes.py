"""Mistakes that a person can make: each is a function that makes it in a place and returns the command."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

OWN = (
    "dataset.name=mine",
    "dataset.image_size=32",
    "dataset.batch_size=4",
    "dataset.val_fraction=0.25",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "model=squeezenet1_1",
    "model.weights=none",
    "finetune=full",
    "logger=none",
)
PHANTOM = ("dataset.phantom.n_patients=12", "dataset.phantom.slices_per_patient=1", "dataset.phantom.size=32")


class Trap:
    """An object whose unpickling would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@dataclass(frozen=True)
class Place:
    """Where a command runs: ``here`` holds twelve images of each of two classes, and a table of them."""

    here: Path

    @property
    def images(self) -> Path:
        return self.here / "images"

    @property
    def table(self) -> Path:
        return self.here / "list.csv"

    @property
    def runs(self) -> Path:
        return self.here / "runs"

    def first(self) -> Path:
        return self.images / "covid" / "00.png"

    def folder(self, *overrides: str) -> list[str]:
        return ["dataset=folder", f"dataset.root={self.images}", "dataset.classes=[normal,covid]", *OWN, *overrides]

    def rows(self, *overrides: str) -> list[str]:
        return ["dataset=table", f"dataset.table={self.table}", "dataset.classes=[normal,covid]", *OWN, *overrides]

    def phantom(self, *overrides: str) -> list[str]:
        return ["dataset=phantom", *OWN[1:], *PHANTOM, *overrides]

    def paths(self) -> list[str]:
        return [f"paths.runs_dir={self.runs}", f"paths.cache_dir={self.here}/cache"]

    def state(self) -> dict[Path, tuple[int, int] | None]:
        """What lies there, caches left out: size and time of each file, None for each folder."""
        found = (path for path in self.here.rglob("*") if path.relative_to(self.here).parts[0] != "cache")
        return {path: None if path.is_dir() else (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def furnished(here: Path) -> Place:
    """A place with its images and its table."""
    place = Place(here)
    lines = ["sample_id,path,label,patient_id,split"]
    for label in ("covid", "normal"):
        (place.images / label).mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng([i, len(label)]).integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(place.images / label / f"{i:02}.png")
            split = ("train", "train", "val", "test")[i % 4]
            lines.append(f"{label}{i},images/{label}/{i:02}.png,{label},{label[0]}{i},{split}")
    place.table.write_text("\n".join(lines) + "\n")
    return place


def no_data_folder(place: Place) -> list[str]:
    return place.folder(f"dataset.root={place.here}/imges")


def no_public_images(place: Place) -> list[str]:
    return ["dataset=covid19ct", *OWN[1:], f"paths.data_dir={place.here}/data"]


def an_empty_class(place: Place) -> list[str]:
    for path in (place.images / "covid").iterdir():
        path.unlink()
    return place.folder()


def a_class_without_images(place: Place) -> list[str]:
    an_empty_class(place)
    (place.images / "covid" / "notes.docx").write_bytes(b"PK")
    return place.folder()


def one_class(place: Place) -> list[str]:
    return place.folder(f"dataset.root={place.images}/covid", "dataset.classes=null")


def one_class_folder(place: Place) -> list[str]:
    (place.images / "normal").rename(place.here / "elsewhere")
    return place.folder("dataset.classes=null")


def a_class_misspelt(place: Place) -> list[str]:
    return place.folder("dataset.classes=[normal,covd]")


def a_truncated_png(place: Place) -> list[str]:
    place.first().write_bytes(place.first().read_bytes()[:200])
    return place.folder()


def a_text_as_png(place: Place) -> list[str]:
    place.first().write_text("to be scanned")
    return place.folder()


def a_huge_png(place: Place) -> list[str]:
    huge_png(place.first())
    return place.folder()


def no_label_column(place: Place) -> list[str]:
    return edited(place, "path,label", "path,lable")


def no_path_column(place: Place) -> list[str]:
    return edited(place, "id,path,", "id,image,")


def a_sample_twice(place: Place) -> list[str]:
    return edited(place, "covid3,", "covid2,")


def a_patient_in_two_splits(place: Place) -> list[str]:
    return edited(place, ",c2,val", ",c1,val", "dataset.protocol=official")


def a_label_misspelt(place: Place) -> list[str]:
    return edited(place, "images/covid/04.png,covid", "images/covid/04.png,covd")


def a_split_misspelt(place: Place) -> list[str]:
    return edited(place, ",c2,val", ",c2,vla", "dataset.protocol=official")


def a_table_of_files_elsewhere(place: Place) -> list[str]:
    return edited(place, "images/", "pictures/")


def a_table_in_utf_16(place: Place) -> list[str]:
    place.table.write_text(place.table.read_text(), encoding="utf-16")
    return place.rows()


def a_folder_as_table(place: Place) -> list[str]:
    return place.rows(f"dataset.table={place.images}")


def no_table(place: Place) -> list[str]:
    return place.rows(f"dataset.table={place.here}/lst.csv")


def too_few_images(place: Place) -> list[str]:
    for path in sorted((place.images / "covid").iterdir())[2:]:
        path.unlink()
    return place.folder()


def no_weights_file(place: Place) -> list[str]:
    return place.folder(f"model.weights={place.here}/weights.pth")


def weights_that_run_code(place: Place) -> list[str]:
    torch.save({"features.0.weight": Trap(place.here / "sprung")}, place.here / "weights.pth")
    return no_weights_file(place)


def weights_that_run_code_in_a_plain_pickle(place: Place) -> list[str]:
    (place.here / "weights.pth").write_bytes(pickle.dumps(Trap(place.here / "sprung")))
    return no_weights_file(place)


def weights_that_unpack_to_more_than_they_are(place: Place) -> list[str]:
    """Some kilobytes on disk: one compressed tensor of many megabytes of zeros; it could be of many gigabytes."""
    whole, path = place.here / "small.pth", place.here / "weights.pth"
    torch.save({"features.0.weight": torch.zeros(4)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for name in source.namelist():
            with bomb.open(name, "w", force_zip64=True) as file:
                if name.endswith("data/0"):
                    for _ in range(64):
                        file.write(bytes(1 << 20))
                else:
                    file.write(source.read(name))
    return no_weights_file(place)


def weights_of_another_network(place: Place) -> list[str]:
    torch.save(models.resnet18(weights=None).state_dict(), place.here / "weights.pth")
    return no_weights_file(place)


def weights_of_an_unknown_network(place: Place) -> list[str]:
    torch.save({"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}, place.here / "weights.pth")
    return no_weights_file(place)


def half_downloaded_weights(place: Place) -> list[str]:
    path = place.here / "weights.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return no_weights_file(place)


def half_downloaded_safetensors(place: Place) -> list[str]:
    path = place.here / "weights.safetensors"
    save_file(models.squeezenet1_1(weights=None).state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return place.folder(f"model.weights={path}")


def a_folder_without_a_model(place: Place) -> list[str]:
    return place.folder(f"model.weights={place.images}")


def more_cores_than_exist(place: Place) -> list[str]:
    return place.phantom("trainer.devices=9999")


def more_cores_than_exist_that_fit_the_batch(place: Place) -> list[str]:
    return place.phantom("trainer.devices=9999", "dataset.batch_size=9999")


def no_gpu(place: Place) -> list[str]:
    return place.phantom("trainer=gpu")


def no_two_gpus(place: Place) -> list[str]:
    return place.phantom("trainer=gpu", "trainer.devices=2")


def runs_in_a_file(place: Place) -> list[str]:
    place.runs.write_text("not a folder")
    return place.phantom()


def runs_below_a_file(place: Place) -> list[str]:
    return place.phantom(f"paths.runs_dir={place.table}/runs")


MISTAKES: dict[Callable[[Place], list[str]], tuple[str, ...]] = {
    no_data_folder: ("dataset.root=", "imges"),
    no_public_images: ("paths.data_dir", "DDTL_DATA"),
    an_empty_class: ("images/covid", "put its images there"),
    a_class_without_images: ("images/covid", "docx", "put its images there"),
    one_class: ("dataset.root=", "two classes"),
    one_class_folder: ("dataset.root=", "two classes", "covid"),
    a_class_misspelt: ("dataset.classes", "covd", "Did you mean covid"),
    a_truncated_png: ("covid/00.png", "cut off or damaged", "Replace"),
    a_text_as_png: ("covid/00.png", "text, not an image", "Replace"),
    a_huge_png: ("covid/00.png", "900 megapixels", "Replace"),
    no_label_column: ("list.csv", "column label", "Did you mean lable"),
    no_path_column: ("list.csv", "column path"),
    a_sample_twice: ("list.csv", "line 5", "'covid2'", "line 4", "Correct"),
    a_patient_in_two_splits: ("'c1'", "images in train (", "and val (", "same split"),
    a_label_misspelt: ("list.csv", "line 6", "'covd'", "Did you mean covid"),
    a_split_misspelt: ("list.csv", "line 4", "'vla'", "train, val, test"),
    a_table_of_files_elsewhere: ("list.csv", "24 of 24 files", "pictures/covid/00.png", "dataset.root"),
    a_table_in_utf_16: ("list.csv", "UTF-8"),
    a_folder_as_table: ("dataset.table=", "is not a file", "Set dataset.table"),
    no_table: ("dataset.table=", "lst.csv"),
    too_few_images: ("class covid", "2 images", "add some"),
    no_weights_file: ("model.weights=", "weights.pth"),
    weights_that_run_code: ("model.weights=", "weights.pth", "was not loaded"),
    weights_that_run_code_in_a_plain_pickle: ("model.weights=", "weights.pth", "was not loaded"),
    weights_of_another_network: ("model.weights=", "weights.pth", "model=resnet18"),
    weights_of_an_unknown_network: ("model.weights=", "weights.pth", "Give a file of squeezenet1_1's weights"),
    half_downloaded_weights: ("model.weights=", "weights.pth", "Fetch it again"),
    half_downloaded_safetensors: ("model.weights=", "weights.safetensors", "Fetch it again"),
    a_folder_without_a_model: ("model.weights=", "images", "model.safetensors"),
    more_cores_than_exist: ("Set fewer trainer.devices: 9999", "cores of this machine"),
    more_cores_than_exist_that_fit_the_batch: ("trainer.devices=9999", "cores", "Take trainer.devices="),
    no_gpu: ("Take trainer=cpu",),
    no_two_gpus: ("GPU", "Take trainer=cpu"),
    runs_in_a_file: ("Set another paths.runs_dir",),
    runs_below_a_file: ("paths.runs_dir=", "list.csv"),
    weights_that_unpack_to_more_than_they_are: ("model.weights=", "weights.pth", "compressed", "fetch it again"),
}


def huge_png(path: Path, side: int = 30_000) -> None:
    """A whole gray picture of that many black pixels a side; a row is packed at a time."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        for kind, content in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
            checksum = zlib.crc32(kind + content)
            file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))


def edited(place: Place, old: str, new: str, *overrides: str) -> list[str]:
    text = place.table.read_text()
    assert old in text
    place.table.write_text(text.replace(old, new))
    return place.rows(*overrides)
