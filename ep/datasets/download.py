"""Official data sets: where they are, and how they come from the network.

pooch fetches a file, checks its hash, shows the progress, moves it into place once it is whole, and knows the platform's cache
folder. It (and requests under it) is imported where something is downloaded, so that everything else works without either.
"""

import os
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


def fetch(title, files, folder, download):
    """Download the files {address: MD5} that are not in `folder` yet; download=False forbids it, and so does EP_OFFLINE=1.

    Raises EPError that says what is missing and what to do.
    """
    if not download or os.environ.get("EP_OFFLINE", "0") not in ("", "0"):
        raise EPError(f"no {title} in {folder}, and downloading is switched off: put {', '.join(files)} there, name its folder "
                      "with --data or EP_DATA, or allow the download")
    import pooch

    for url, md5 in files.items():
        try:
            pooch.retrieve(url, f"md5:{md5}", url.rsplit("/", 1)[1], folder, progressbar=True)
        except (OSError, ValueError) as error:  # of the file system, of requests, and of pooch if the hash differs
            raise EPError(f"no {title} in {folder}, and the download from {url} failed: {reason(error)}", exit_code=1) from None


def reason(error):
    """An exception as part of a sentence: of nested ones (requests wraps urllib3's) the innermost."""
    while error.args and isinstance(inner := getattr(error.args[0], "reason", None) or error.args[0], Exception):
        error = inner
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
