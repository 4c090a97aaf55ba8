"""Files of tensors from strangers: nothing in them is run, inflated or computed with before it is known to be plain."""

from __future__ import annotations

import os
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddtl.data.download.archives import contents_size
from ddtl.utils import reading
from ddtl.utils.reading import GIB, MIB, Unreadable

_HEADER = 16 * MIB  # of a safetensors file, and the table of contents of a zip: those of 10,000 tensors take 1 MiB
_LEGACY = GIB  # a file of the format before 2020, which torch reads into memory as a whole
_PICKLES = 5  # at the start of a file of the old format
_UNFOLDS = "is damaged: its names are longer than those of any tensors"
_DEEPEST = 64  # levels of dicts and lists in a checkpoint
_MOST_VALUES = 2_000_000  # in the dicts and lists of a checkpoint
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)


class Compressed(Unreadable):
    """A file whose parts are compressed: it could unpack to any size."""


def load(path: Path, limit: int, *, checked: bool = False) -> Any:
    """What torch or safetensors saved, its tensors not read yet where the format allows that; never runs code from it.

    Args:
        path: a file whose name says which of the two.
        limit: bytes.
        checked: whether the checksums of torch's parts are compared, which torch does not. Not every writer has them.

    Raises:
        OSError: there is no such file, or it cannot be read.
        Unreadable: it is not a regular file, too large, or its parts are compressed or not where they should be.
        Exception: damaged files make torch and safetensors raise almost any.
    """
    with reading.opened(path, limit) as file:
        if path.suffix == ".safetensors":
            if int.from_bytes(file.read(8), "little") > _HEADER:
                raise ValueError("its header is longer than that of any file of weights")
            from safetensors.torch import load_file

            return load_file(path)
        # As torch tells them apart; Python's own test finds archives anywhere in a file.
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if is_zip:
            _check_zip(path, file, checked)
        elif os.fstat(file.fileno()).st_size > _LEGACY:
            raise Unreadable(path, f"is too large for its old format (at most {reading.size(_LEGACY)} are read)")
        else:
            _check_pickles(path, file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of an odd pickle; the error is in our words
            if is_zip:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(file, map_location="cpu", weights_only=True)


def _check_zip(path: Path, file: BinaryIO, checked: bool) -> None:
    """Refuse an archive that torch.save did not write: compressed parts, parts that overlap or are not all there."""
    total = file.seek(0, os.SEEK_END)
    if contents_size(file) > _HEADER:
        raise Unreadable(path, "is damaged: its table of contents is longer than that of any file of weights")
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise Compressed(path, "its parts are compressed")
        twice = len({part.filename for part in parts}) != len(parts)
        lies = any(part.file_size != part.compress_size or part.flag_bits & 1 for part in parts)
        lies = lies or not _is_at_its_end(file, total, archive.start_dir)
        if twice or lies or archive.comment or sum(part.file_size for part in parts) > total:
            raise Unreadable(path, "is damaged: its parts are not as its table of contents says")
        if checked and archive.testzip() is not None:
            raise Unreadable(path, "is damaged: a part does not match its checksum")
        pickles = [part for part in parts if part.filename.rpartition("/")[2] == "data.pkl"]
        if any(part.file_size > _HEADER or _unfolds(archive.read(part)) for part in pickles):
            raise Unreadable(path, _UNFOLDS)
    file.seek(0)


def _check_pickles(path: Path, file: BinaryIO) -> None:
    """Look through the pickles at the start of a file of the old format; one that is damaged is left for torch."""
    unfolds = False
    with suppress(ValueError, LookupError):
        unfolds = any(_unfolds(file) for _ in range(_PICKLES))
    if unfolds:
        raise Unreadable(path, _UNFOLDS)
    file.seek(0)


def _unfolds(pickled: bytes | BinaryIO) -> bool:
    """Whether tuples in a pickle stand for very many values: to look such a one up in a dict takes for ever.

    Nothing is made of the pickle: the sizes alone go through its stack.
    """
    stack: list[int | None] = []  # None for a mark
    memo: dict[int, int] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(pickled)):
        name = operation.name
        if number > _MOST_VALUES:
            return True
        if name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo.get(int(argument or 0), 1))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument or 0)] = stack[-1] or 1
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1] or 1
        elif name == "MARK":
            stack.append(None)
        else:
            size = 1
            if pickletools.markobject in operation.stack_before:
                while (one := stack.pop()) is not None:
                    size += one
            for kind in reversed(operation.stack_before):
                if kind not in (pickletools.markobject, pickletools.stackslice):
                    size += stack.pop() or 0
            if size > _MOST_VALUES:
                return True
            stack += [size] * len(operation.stack_after)
    return False


def _is_at_its_end(file: BinaryIO, total: int, start: int) -> bool:
    """Whether the table of contents that Python reads is the one that the file's end points to, which torch reads."""
    file.seek(max(0, total - 22 - 20))
    tail = file.read(22 + 20)
    if tail[-22:-18] != b"PK\x05\x06":
        return False
    size, begin = struct.unpack_from("<II", tail, len(tail) - 10)
    end = total - 22
    if tail[-42:-38] == b"PK\x06\x07":  # of 64 bits
        (record,) = struct.unpack_from("<Q", tail, len(tail) - 34)
        file.seek(min(record, total))
        found = file.read(56)
        if len(found) != 56 or found[:4] != b"PK\x06\x06" or record + 56 != total - 42:
            return False
        size64, begin64 = struct.unpack_from("<QQ", found, 40)
        if begin not in (begin64, 0xFFFFFFFF) or size not in (size64, 0xFFFFFFFF):
            return False
        size, begin, end = size64, begin64, record
    return bool(begin == start and begin + size == end)


def odd(tensor: Tensor) -> str:
    """Why a tensor is not plain numbers in memory of its own, as a predicate; empty where it is. Computes nothing."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or vars(tensor):
        return "is of a class of its own"
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
        return "is sparse, quantised or nested"
    if tensor.device.type != "cpu":
        return "has no values"
    if tensor.dtype not in (*_FLOATS, *_INTEGERS):
        return f"has values of the type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "claims more values than the file has"
    return ""


def odd_within(value: Any) -> str:
    """The first reason of :func:`odd` among the tensors in dicts, lists and tuples; empty where all are plain."""
    level, count = [value], 0
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Tensor):
                if reason := odd(one):
                    return f"a tensor {reason}"
            elif isinstance(one, (Mapping, list, tuple, set)):
                inner.extend(_children(one))
        count += len(inner)
        if count > _MOST_VALUES:
            return "it contains more values than any"
        if not inner:
            return ""
        level = inner
    return f"it is nested deeper than {_DEEPEST} levels"


def _children(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, Mapping) else value)


def differing_kind(ours: Tensor, theirs: Tensor) -> bool:
    """Whether one has floating-point numbers and the other has none."""
    return ours.is_floating_point() != theirs.is_floating_point()


def is_finite(tensor: Tensor) -> bool:
    """Whether no value of a plain tensor is infinite or no number."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
