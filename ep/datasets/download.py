"""What comes from the network: fetched by pooch, which checks the hash, shows the progress and knows the platform's cache folder.

pooch (and requests under it) is imported where something is downloaded, so that everything else works without either.
"""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from ..errors import EPError


def place(folder=None):
    """Where official data sets are looked for, and downloaded to: `folder`, else the environment's EP_DATA, else the platform's
    cache folder, on Linux ~/.cache/ep-convnets."""
    chosen = folder or os.environ.get("EP_DATA")
    if not chosen:
        import pooch

        chosen = pooch.os_cache("ep-convnets")
    return Path(os.path.abspath(os.path.expanduser(chosen)))


def allowed(download):
    """Whether the network may be touched: unless download=False, or the environment says EP_OFFLINE=1."""
    return download and os.environ.get("EP_OFFLINE", "0") in ("", "0")


def fetch(title, url, md5, folder):
    """Download `url` into `folder`, check its MD5, and return the path. Raises EPError (exit code 1), and then leaves no file."""
    import pooch

    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", url.rsplit("/", 1)[1], folder, progressbar=True))
    except (OSError, ValueError) as error:  # of the file system, of requests, and of pooch if the hash differs
        other = isinstance(error, ValueError) and "hash" in str(error)
        why = f"is damaged or cut short: its MD5 is not {md5}; try again later" if other else f"failed: {reason(error)}"
        raise EPError(f"the download of {title} from {url} {why}", exit_code=1) from None


@contextmanager
def prepared(target, title):
    """A folder to write into, which becomes `target` if all goes well; if not, what was written is not left behind.

    It lies beside `target`, so that the renaming is atomic. Where another process was faster, its `target` stays.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as temporary:
            folder = Path(temporary, target.name)
            folder.mkdir()
            yield folder
            if not (target.is_dir() and any(target.iterdir())):
                os.replace(folder, target)
    except OSError as error:
        raise EPError(f"{title} cannot be written to {target}: {reason(error)}", exit_code=1) from None


def reason(error):
    """An exception as part of a sentence: of nested ones (requests wraps urllib3's) the innermost."""
    while error.args and isinstance(inner := getattr(error.args[0], "reason", None) or error.args[0], Exception):
        error = inner
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
