"""The second door: the same relaxations and products, fast. Never needed to understand the rest.

    relaxation.py  `relax`, step by step the one of ep/dynamics.py
    response.py    `response`: the nudged phases as deviations, all of them in one batch
    products.py    `products`: the gradient from free state and response
    chain.py       the buffers that they share, from one training step to the next
    synapses.py    drives and products of one synapse in these buffers
    plan.py        what is suitable, and how each convolution is computed
    pooling.py     poolings
    patches.py     convolutions by im2col
    winograd.py    convolutions with fewer multiplications
    kernels.py     the passes over memory as CUDA kernels, for GPUs
    graph.py       `Recorder`: the gradient of a training step as a CUDA graph
    blas.py        the products of matrices in it
"""

from collections.abc import Callable
from functools import partial

from ..dynamics import READABLE, Solver
from ..network import Network
from .graph import Recorder
from .plan import Kernels, path, transformed, unsuitable
from .products import products
from .relaxation import relax
from .response import response

__all__ = ["Kernels", "Recorder", "path", "prepared", "products", "relax", "response", "transformed", "unsuitable"]


def prepared(network: Network, largest_tile: int = 4, map: Callable = map) -> Solver:
    """The `Solver` for this network while its weights stay as they are: kernels transformed once, or the readable one.

    Make it anew after every update: with stale kernels it mixes old weights and new ones.
    """
    if unsuitable(network):
        return READABLE
    kernels = transformed(network, largest_tile, map)
    return Solver(*(partial(f, kernels=kernels) for f in (relax, response, products)))
