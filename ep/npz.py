"""Dictionaries of arrays as .npz files: never pickled, and never half written."""

import os
import zipfile
import zlib

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


def read_npz(path):
    """The arrays that `write_npz` wrote. Raises EPError for a missing, unreadable, damaged or pickled file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise EPError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise EPError(f"{path} is a folder: expected a file") from None
    except NotADirectoryError:
        raise EPError(f"{path}: a file stands where a folder is expected") from None
    except OSError as error:
        if error.errno is not None:
            raise EPError(f"{path} cannot be read: {error.strerror}") from None
        raise _damaged(path, error) from None
    except ( ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def _damaged(path, error):
    return EPError(f"{path} is damaged or not a file of this package ({type(error).__name__}): use another copy of it")
