"""A frozen encoder from a file, of ONNX or of torch.export: images to pooled features.

It has no parameters here: it is not trained, and a run's weights do not contain it. The run's identity has the hash of
the file, and whoever uses the run needs the same file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddtl.models.backbones import Backbone
from ddtl.schema.run import ModelConfig
from ddtl.utils import reading
from ddtl.utils.errors import UserError

LARGEST = 8 * reading.GIB
_ENCODER = "encoder"


class FileEncoder(Backbone):
    """Images to features (N, F, 1, 1).

    Args:
        config: ``file``, ``mean``, ``std`` and ``trusted`` count.
        size: side of the images, in pixels.

    Raises:
        UserError: the file cannot be used, or does not take such images; with what to do.
    """

    has_plain_maps = False

    def __init__(self, config: ModelConfig, size: int) -> None:
        nn.Module.__init__(self)
        assert config.file is not None, "checked with the configuration"
        self.path = Path(config.file).expanduser()
        content = _read(self.path)
        self.digest = hashlib.sha256(content).hexdigest()
        run = _onnx(self.path, content) if self.path.suffix.lower() == ".onnx" else _exported(self.path, content)
        self.grayscale = config.grayscale
        if config.mean is not None and config.std is not None:
            self.mean, self.std = config.mean, config.std
        channels = len(self.mean)
        encoder, self.features = _tried(self.path, run, channels, size)
        self.stages = nn.ModuleDict({_ENCODER: encoder})
        self.first = ""
        self.about = {
            "library": "ONNX Runtime" if self.path.suffix.lower() == ".onnx" else "torch.export",
            "name": self.path.name,
            "mean": list(self.mean),
            "std": list(self.std),
            "input_size": size,
            "license": None,
        }

    def explained(self) -> list[str]:
        return []


class _Frozen(nn.Module):
    """What a file computes, as a stage: always in evaluation mode, without gradients and in single precision."""

    def __init__(self, run: Callable[[Tensor], Tensor], one_by_one: bool) -> None:
        super().__init__()
        self._run = [run]  # in a list: so that a module of torch.export is not part of the state
        self.one_by_one = one_by_one

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            parts = x.float().split(1) if self.one_by_one else [x.float()]
            found = torch.cat([self._run[0](part) for part in parts])
        pooled = found.float().mean(dim=(2, 3)) if found.ndim == 4 else found.float()
        return pooled[:, :, None, None]


def _read(path: Path) -> bytes:
    try:
        return reading.read_bytes(path, LARGEST)
    except reading.Unreadable as error:
        raise UserError(f"model.file={path}: {error.reason}.") from None
    except OSError as error:
        raise UserError(f"model.file={path}: cannot be read ({error.strerror or error}).") from error


def _onnx(path: Path, content: bytes) -> Callable[[Tensor], Tensor]:
    try:
        import onnx
        import onnxruntime
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise UserError(f"model.file={path}: needs the package {error.name}: pip install 'ddtl[export]'.") from error
    try:
        graph = onnx.load_model_from_string(content).graph
        if any(map(uses_external_data, graph.initializer)):
            raise UserError(
                f"model.file={path}: its weights are in other files. Write it as one: onnx.save(onnx.load(FILE), NEW)."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except UserError:
        raise
    except Exception as error:  # of protobuf and of ONNX Runtime, which have many kinds
        raise UserError(f"model.file={path}: no ONNX file that can be run ({_line(error)}).") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"model.file={path}: has {len(inputs)} inputs and {len(outputs)} outputs. One of each is needed: export "
            "images to pooled features alone."
        )

    def run(x: Tensor) -> Tensor:
        (found,) = session.run(None, {inputs[0].name: x.cpu().numpy()})
        return torch.from_numpy(np.asarray(found)).to(x.device)

    return run


def _exported(path: Path, content: bytes) -> Callable[[Tensor], Tensor]:
    messages = logging.getLogger("torch.export")
    level = messages.level
    try:
        messages.setLevel(logging.CRITICAL)  # the line below says what is wrong with a file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:
        raise UserError(
            f"model.file={path}: no file of torch.export.save that can be read ({_line(error)})."
        ) from error
    finally:
        messages.setLevel(level)

    def run(x: Tensor) -> Tensor:
        found = module.to(x.device)(x)
        if isinstance(found, Tensor):
            return found
        if isinstance(found, Sequence) and len(found) == 1 and isinstance(found[0], Tensor):
            return found[0]
        raise UserError(f"model.file={path}: has several outputs. Export images to pooled features alone.")

    return run


def _tried(path: Path, run: Callable[[Tensor], Tensor], channels: int, size: int) -> tuple[_Frozen, int]:
    """Return the encoder and the number of its features, tried with two images at a time, and where it takes one, with
    one.
    """
    example = torch.linspace(-1, 1, 2 * channels * size * size).reshape(2, channels, size, size)
    shown = f"images of {channels} {'channel' if channels == 1 else 'channels'}, {size} × {size} pixels"
    problem: Exception | None = None
    for one_by_one in (False, True):
        try:
            with torch.no_grad():
                found = torch.cat([run(part) for part in example.split(1)]) if one_by_one else run(example)
        except UserError:
            raise
        except Exception as error:  # of the runtime
            problem = error
            continue
        if found.ndim not in (2, 4) or len(found) != 2 or not found.shape[1]:
            raise UserError(
                f"model.file={path}: makes {tuple(found.shape)} of 2 images. Features (N, F) or maps (N, F, h, w) are "
                "needed: export the pooled features."
            )
        if not torch.isfinite(found.float()).all():
            raise UserError(f"model.file={path}: makes values that are infinite or no number of an image.")
        encoder = _Frozen(run, one_by_one)
        _require_one_answer(path, encoder, example)
        return encoder, int(found.shape[1])
    assert problem is not None
    raise UserError(
        f"model.file={path}: does not take {shown} ({_line(problem)}). Set dataset.image_size to its size, and for "
        "other channels model.mean and model.std, a number for each; it must take single precision."
    ) from problem


def _require_one_answer(path: Path, encoder: _Frozen, example: Tensor) -> None:
    """Refuse an encoder that is random, or whose answer to an image depends on the others of its batch."""
    first, again, turned = encoder(example), encoder(example), encoder(example.flip(0)).flip(0)
    others = encoder(torch.cat([example[:1], 3 * example[:1]]))[:1]
    limit = 1e-3 * first.abs().max()
    if max((first - again).abs().max(), (first - turned).abs().max(), (first[:1] - others).abs().max()) > limit:
        raise UserError(
            f"model.file={path}: makes features of an image that vary. It was exported as it trains: "
            "with dropout, or BatchNorm of batches. Export encoder.eval()."
        )


def _line(error: Exception) -> str:
    return reading.printable(" ".join(str(error).split()) or type(error).__name__)[:200]
