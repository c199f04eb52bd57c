"""The engine: the parts of a network that are exchanged for faster ones. Nothing here is needed to understand the core.

    fast = ep.engine.prepared(network)      the same network of other parts, while its weights stay as they are
    ep.eqprop_gradient(fast, x, y, ...)     the same functions, the same loop

The numbers are the same but for rounding. What is exchanged are the synapses, and on a GPU the activation and the readout:

    cpu.py       `Conv` by Winograd's convolution                 winograd.py
    gpu.py       `Conv` and `Dense` by CUDA kernels and cuBLAS    kernels.py, blas.py
    graph.py     a training step recorded as a CUDA graph

A synapse, a pooling, an activation or a cost of one's own works beside these in the same network.
"""

from collections.abc import Callable

import numpy as np

from ..backend import array_module
from ..network import Network
from . import cpu, gpu
from .graph import Recorder, recordable

__all__ = ["Recorder", "prepared", "recordable"]


def prepared(network: Network, map: Callable = map) -> Network:
    """The same network on the parts that are fastest for where its arrays are.

    On a CPU the kernels are transformed here: make it anew after every update of the weights. map: of `worker_threads`.
    """
    return cpu.prepared(network, map) if array_module(network.any_parameter) is np else gpu.prepared(network)
