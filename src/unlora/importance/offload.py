"""Where the running sums of full weights lie between two batches: beside the model, in host memory, or on the disk.

Whatever the place, a batch's own moments are formed where the model is, one layer at a time, and merged into the sums
by the same arithmetic.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy
import torch
from torch import Tensor

from unlora.artifacts import storage_error
from unlora.importance.moments import Moments, StatisticName
from unlora.models.embedded import cache_folder

Offload = Literal["none", "host", "disk"]


class DiskMoments(Moments):
    """Moments whose tensors are in memory only while a batch is merged. They are read once, which ends them."""

    def __init__(self, file: Path, *, centred: bool = True) -> None:
        """Start with no sample; `file` is where the statistic will lie, the sums get files beside it."""
        super().__init__(centred=centred, device=torch.device("cpu"))
        self._file = file
        self._shape = torch.Size()

    def merge(self, other: Moments) -> None:
        """Read the sums, take in the other samples, write the sums."""
        if self.count > 0:
            self._load()
        super().merge(other)
        self._store()

    def combine(self) -> None:
        """Read the sums, take in the other processes' samples, write the sums."""
        if self.count > 0:
            self._load()
        super().combine()
        if self.count > 0:
            self._store()

    def _store(self) -> None:
        for field in self._fields():
            tensor = getattr(self, field)
            self._shape = tensor.shape
            write_raw(self._path(field), tensor)
            setattr(self, field, None)

    def read(self, statistic: StatisticName) -> Tensor:
        """Write the statistic to its file and return it backed by that file: pages come in when they are touched."""
        if self.count > 0:
            self._load()
        values = super().read(statistic)
        self.deviations = self.mean = None
        for field in self._fields():
            self._path(field).unlink()
        write_raw(self._file, values)
        return torch.from_file(str(self._file), shared=False, size=values.numel(), dtype=torch.float32).view(
            self._shape
        )

    def _fields(self) -> tuple[str, ...]:
        return ("deviations", "mean") if self.centred else ("deviations",)

    def _path(self, field: str) -> Path:
        return self._file.with_suffix(f".{field}")

    def _load(self) -> None:
        for field in self._fields():
            values = numpy.fromfile(self._path(field), dtype=numpy.float32)
            setattr(self, field, torch.from_numpy(values).view(self._shape))


def write_raw(path: Path, tensor: Tensor) -> None:
    """Write the bytes of a float32 tensor, without a header.

    Raises:
        UnloraError: the disk is full or the folder cannot be written.
    """
    try:
        path.write_bytes(tensor.contiguous().numpy().data)
    except OSError as error:
        raise storage_error(path, error) from None


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Make a folder in `parent`, by default in the user's cache, and remove it on every way out.

    Tensors that are backed by its files stay readable: the system frees the space with the last of them.

    Raises:
        UnloraError: the folder cannot be made.
    """
    if parent is None:
        parent = cache_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=".importance.safetensors.", ignore_cleanup_errors=True)
    except OSError as error:
        raise storage_error(parent, error) from None
    with folder as name:
        yield Path(name)
