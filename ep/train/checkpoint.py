"""Checkpoints: everything a run needs to continue bit for bit, in one .npz file without pickle.

    parameter/NAME   arrays
    optimizer/NAME   whatever the optimizer says is its state
    meta             JSON text: config, epoch, step, totals of the unfinished epoch, log so far, warnings given

A run has no generator state and no stored permutation: both are drawn anew from (seed, epoch, step), see loop.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import array_module, to_host
from ..errors import EPError
from ..network import Network
from ..npz import read_npz, write_npz


def save_checkpoint(path: str | Path, network: Network, optimizer: Any, meta: dict) -> None:
    """Write parameters, optimizer state and the JSON-able dictionary `meta`, atomically."""
    arrays = {key: to_host(a) for key, a in arrays_of(network, optimizer).items()}
    write_npz(path, {**arrays, "meta": np.array(json.dumps(meta))})


def arrays_of(network, optimizer):
    """{"parameter/1.W": array, ..., "optimizer/...": array}, the arrays themselves."""
    return ({f"parameter/{name}": w for name, w in network.parameters().items()}
            | {f"optimizer/{name}": a for name, a in optimizer.state().items()})


def read_meta(path: str | Path) -> dict:
    """The dictionary `meta` of a checkpoint. Raises EPError if the file is no checkpoint, or one of another version."""
    try:
        meta = json.loads(str(read_npz(path)["meta"]))
        lacking = sorted({"config", "epoch", "step", "totals", "log", "warned"} - meta.keys())
    except (KeyError, ValueError, AttributeError):
        raise EPError(f"{path} is not a checkpoint of this package") from None
    if lacking:
        raise another_version(path, f"it has no {', '.join(lacking)}")
    return meta


def another_version(path, why):
    """The EPError for a checkpoint that is whole, but not this version's."""
    return EPError(f"{path} was written by another version of this package ({why}): continue it with the version that wrote it")


def restore(path: str | Path, network: Network, optimizer: Any) -> None:
    """Load parameters and optimizer state in place. Raises EPError, before any change, if they do not fit."""
    arrays, mine = read_npz(path), arrays_of(network, optimizer)
    own = {key: a.shape for key, a in mine.items()}
    found = {key: a.shape for key, a in arrays.items() if key != "meta"}
    wrong = [key for key in [*own, *found] if own.get(key) != found.get(key)]  # parameters first
    if wrong:
        other = "optimizer" if wrong[0].startswith("optimizer/") else "architecture"
        raise EPError(f"{path} belongs to another {other}: {wrong[0]} has shape {found.get(wrong[0])} in the file, "
                      f"expected {own.get(wrong[0])}")
    for key, a in mine.items():  # in place, on the device where they are
        a[...] = array_module(a).asarray(arrays[key])
