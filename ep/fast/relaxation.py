"""`relax`, fast, on a CPU: the dynamics of dynamics.py step by step, with less copying and fewer multiplications.

The same arguments and stopping, and the same states but for rounding (tests/test_fast.py). What differs is in chain.py (how
states lie in memory, and what needs no computation) and in winograd.py: convolutions take 2.25 or 4 times fewer
multiplications.

For any wiring of `Dense`, `Conv` and `Identity`, symmetric or not, in real NumPy arrays; `unsuitable` says what it cannot do, and
everything else goes through the readable `dynamics.relax`.
"""

import numpy as np

from .. import dynamics
from ..dynamics import Phase, Relaxation
from ..errors import EPError
from .chain import chain_of
from .plan import dtype_of, transformed, unsuitable
from .pooling import outside


def relax(network, x, phase, y=None, beta=0.0, *, start=None, switches=None, inputs=None, kernels=None):
    """`dynamics.relax`, faster. kernels: what `transformed(network)` returned for the present weights (default: made here)."""
    phase, (x, y, beta, start) = Phase.of(phase), dynamics.checked(network, x, y, beta, start)
    if isinstance(beta, complex) or kernels is None and unsuitable(network) or not same_dtypes(network, [x, *(start or [])]):
        return dynamics.relax(network, x, phase, y, beta, start=start, switches=switches, inputs=inputs)
    kernels, frozen = own(kernels, network), switches is not None
    chain = chain_of(kernels, len(x))
    chain.take(kernels)
    chain.hold([], [])
    chain.new_u()
    chain.start(x, inputs)
    chain.clear() if start is None else chain.load(start, switches)
    if frozen and start is None:
        chain.set_switches(switches)
    groups, history = dynamics.SCHEDULES[phase.schedule](network), []
    for t in range(1, phase.steps + 1):
        check, changes = phase.checks(t), []
        for group in groups:
            changes += chain.step(group, y, beta, frozen, check)
        if check:
            history.append((t, float(np.max(changes))))  # not Python's max, which may lose a NaN
            if history[-1][1] <= phase.tolerance and phase.tolerance > 0:
                break
    steps, last = history[-1]
    states, u = [outside(s).copy() for s in chain.states], [outside(u_n) for u_n in chain.u]
    result = Relaxation(states, chain.switches(frozen), steps, last, last <= phase.tolerance, history, u)
    chain.hold(states, result.switches, u)
    return result


def same_dtypes(network, arrays):
    """Whether these arrays have the dtype of the weights: others take the readable path, which promotes as NumPy does."""
    dtype = dtype_of(network)  # looks at all parameters
    return all(a.dtype == dtype for a in arrays)


def own(kernels, network):
    kernels = kernels or transformed(network)
    if kernels.network is not network:
        raise EPError("these kernels were made from another network: call fast.prepared(network) for this one")
    return kernels
