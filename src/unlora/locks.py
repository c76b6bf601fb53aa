"""One process at a time works in a folder: a second one is refused at once, and the first loses nothing.

The lock is the operating system's own (flock): it ends with the process, however that ends. The file that carries it
lies beside the folder, so that the folder stays empty until work begins, and is removed by whoever holds it; one that a
kill has left behind locks nothing.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import inspect
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from unlora.errors import InputError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

PATTERN = ".unlora-*.lock"
"""Names of lock files."""
OTHER_OUTPUT = "wait for it or choose another --output"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says that knows no locks."""


def alone_in_output(recipe: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a recipe hold the lock of what it writes, its argument `output`, as long as it works.

    The recipe then raises InputError where another process works there.
    """
    signature = inspect.signature(recipe)

    @functools.wraps(recipe)
    def wrapper(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with alone_in(signature.bind(*arguments, **options).arguments["output"]):
            return recipe(*arguments, **options)

    return wrapper


@contextlib.contextmanager
def alone_in(path: Path, *, patience: float = 0.0, advice: str = OTHER_OUTPUT) -> Iterator[None]:
    """Hold the lock of a folder or file that may not exist yet; of the processes of one run the first one holds it.

    Args:
        path: what is written.
        patience: seconds to wait for another process to end.
        advice: what to do about it.

    Where nothing can be written, or the file system knows no locks, there is none: the work itself says what it cannot
    write.

    Raises:
        InputError: another process works there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    made, held = _take(path, time.monotonic() + patience, advice)
    try:
        yield
    finally:
        if held is not None:
            file, handle = held
            with contextlib.suppress(OSError):
                file.unlink()  # while it is held: whoever opened it meanwhile sees that it is gone
            os.close(handle)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()  # of those made for the lock alone, what the work has left empty


def _take(path: Path, deadline: float, advice: str) -> tuple[list[Path], tuple[Path, int] | None]:
    """Return the folders that were made for the lock, and the lock."""
    whole = Path(os.path.realpath(path))
    made: list[Path] = []
    try:
        if whole.is_file():  # No command writes into one: it will be refused, and not even its folder is touched.
            return made, None
        for folder in reversed(whole.parents):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
        inside = not os.access(whole.parent, os.W_OK | os.X_OK) and whole.is_dir()
        name = f".unlora-{hashlib.sha256(os.fsencode(whole.name)).hexdigest()[:16]}.lock"
        file = (whole if inside else whole.parent) / name
        handle = _locked(file, path, deadline, advice)
    except OSError:
        return made, None
    return made, (file, handle) if handle is not None else None


def _locked(file: Path, path: Path, deadline: float, advice: str) -> int | None:
    while True:
        handle = _open(file)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.read(handle, 200).decode("utf-8", "replace"))
            os.close(handle)
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise InputError(f"{path}: another process{holder} works here; {advice}.") from None
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                raise
            return None
        if _is_still(file, handle):
            with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()} {socket.gethostname()}".encode())
            return handle
        os.close(handle)


def _open(file: Path) -> int:
    options = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | options, 0o666)
    except PermissionError:  # It is another user's: it can be locked all the same.
        return os.open(file, os.O_RDONLY | options)


def _holder(written: str) -> str:
    """Say who holds a lock; on which machine, where it is another (a shared file system, a container)."""
    number, _, machine = written.partition(" ")
    if not number.isdecimal():
        return ""
    return f" (PID {number})" if machine == socket.gethostname() else f" (PID {number} on {machine})"


def _is_still(file: Path, handle: int) -> bool:
    """Whether the name still belongs to the open file, which its last holder may have removed in between."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def entries(folder: Path) -> list[Path]:
    """What a folder holds, lock files left aside: they say nothing of what it is."""
    return [path for path in folder.iterdir() if not path.match(PATTERN)]


def remove_left_locks(folder: Path) -> None:
    """Remove the lock files in a folder that no process holds."""
    for file in folder.glob(PATTERN):
        with contextlib.suppress(OSError):
            handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
            finally:
                os.close(handle)
