"""The second door: the same relaxation, fast. Never needed to understand the rest.

    relaxation.py  `relax` on a CPU, step by step the one of ep/dynamics.py
    pooling.py     its poolings
    winograd.py    its convolutions, with fewer multiplications
    kernels.py     the passes over memory as CUDA kernels, for GPUs
"""

from .relaxation import Kernels, path, prepared, relax, transformed, unsuitable

__all__ = ["Kernels", "path", "prepared", "relax", "transformed", "unsuitable"]
