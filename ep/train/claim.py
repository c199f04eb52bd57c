"""A run folder belongs to one process at a time: two that write one log and one checkpoint would destroy both.

The claim is a lock on the file .lock in the folder. The system ends it together with the process, however that ends, so a folder
is never locked by a run that has crashed, whose .lock stays and means nothing. Where there are no such locks (Windows, some
network file systems), there is no claim.
"""

import itertools
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

from ..errors import EPError


def claim(folder):
    """The open file that holds the claim; `release` ends it, and so does the end of the process. EPError if another has it."""
    try:
        file = open(Path(folder) / ".lock", "a")
    except OSError as error:
        raise EPError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise EPError(f"another process is training in {folder}: wait for its end, or stop it") from None
    except OSError:
        pass  # a file system without locks
    return file


def release(file):
    """End a claim; None is the claim of a process that writes nothing."""
    if file:
        file.close()


def new_folder(folder):
    """Make the folder, or folder-2, folder-3 ... if somebody else has just made it, and return its path."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for n in itertools.count(1):
        path = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        try:
            path.mkdir()  # at most one process makes it
        except FileExistsError:
            continue
        return path
