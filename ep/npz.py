"""Dictionaries of arrays as .npz files: never pickled, and never half written."""

import os

import numpy as np

from .errors import EPError


def write_npz(path, arrays):
    """Write {name: NumPy array} to `path` atomically: to a temporary file beside it, fsync, rename.

    Raises EPError (exit code 1) if that fails; the file that was there before is then still whole.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise EPError(f"cannot write {path}: {error.strerror or error}", exit_code=1) from None


def read_npz(path, names=None):
    """The arrays of an .npz file, or those of these names that it has.

    Raises EPError for a missing, unreadable, damaged or pickled file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if any(member.comment for member in file.zip.infolist()):
                raise ValueError("what looks like a comment may have been arrays")
            arrays = {name: file[name] for name in file.files if names is None or name in names}
            if not all(isinstance(a, np.ndarray) for a in arrays.values()):
                raise ValueError("an array has no header, and NumPy returns its bytes")
            return arrays
    except Exception as error:  # zipfile, each decompressor and NumPy's reader of headers raise whatever damage makes them raise
        if isinstance(error, OSError) and error.errno is not None:
            raise EPError(f"{path} cannot be read: {error.strerror}") from None
        raise EPError(f"{path} is damaged, or no .npz file of plain arrays ({type(error).__name__}): use another copy of it, or "
                      "write plain arrays with numpy.savez") from None
