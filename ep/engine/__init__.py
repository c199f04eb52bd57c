"""The engine: the parts of a network that are exchanged for faster ones. Nothing here is needed to understand the core.

    fast = ep.engine.prepared(network)      the same network of other parts, while its weights stay as they are
    ep.eqprop_gradient(fast, x, y, ...)     the same functions, the same loop

The numbers are the same but for rounding. What is exchanged are the synapses, and on a GPU the activation and the readout:

    cpu.py       `Conv` by Winograd's convolution or patches      winograd.py, patches.py, ways.py
    gpu.py       `Conv` and `Dense` by CUDA kernels and cuBLAS    kernels.py, blas.py
    graph.py     a training step recorded as a CUDA graph

A synapse, a pooling, an activation or a cost of one's own works beside these in the same network.
"""

from collections.abc import Callable

import numpy as np

from ..backend import array_module
from ..network import Network
from ..synapse import Dense, Identity
from ..vectorfield import plain
from . import cpu, gpu
from .graph import Recorder, unrecordable

__all__ = ["Recorder", "choice", "prepared", "unrecordable"]


def choice(network: Network) -> tuple[Callable, str]:
    """What this network runs on: a function prepare(network, map) -> network, and a sentence that says so."""
    if array_module(network.any_parameter) is not np:
        return (lambda network, map: gpu.prepared(network)), "relaxing with CUDA kernels (ep/engine/gpu.py)"
    convolutions = [synapse for synapse in plain(network) if cpu.why_not(synapse) is None]
    if not convolutions:
        return (lambda network, map: network), "relaxing with the synapses of the core (ep/synapse.py)"
    left = [f"; {type(synapse).__name__} stays as it is: {why}" for synapse in plain(network)
            if type(synapse) not in (Dense, Identity) and (why := cpu.why_not(synapse))]
    return ((lambda network, map: cpu.prepared(network, map=map)),
            "relaxing with Winograd's convolutions (ep/engine/cpu.py)" + "".join(dict.fromkeys(left)))


def prepared(network: Network, map: Callable = map) -> Network:
    """The same network on the synapses that are fastest for where its arrays are.

    On a CPU the kernels are transformed here: make it anew after every update of the weights. map: of `worker_threads`.
    """
    return choice(network)[0](network, map)
