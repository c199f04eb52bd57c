"""`products`, fast, on a CPU: the gradient from the free state and the response, equation (12), in the buffers of chain.py.

    dW_k = hebbian(s_i, mu_j) + (w_j/w_i) hebbian(mu_i, s_j),     db_k = sum mu_j                                      (12)

Both products of a synapse are one: pairs of transformed tiles, (s_i, mu_j) and (gain mu_i, s_j), are summed by one matrix
product, and their sum is transformed back.
"""

import numpy as np

from .plan import unsuitable
from .pooling import inside
from .relaxation import own, same_dtypes
from .response import held


def products(network, x, states, switches, mu, *, kernels=None):
    """`network.parameter_adjoint`, faster; the same arguments and results. kernels: as for `relax`."""
    if kernels is None and unsuitable(network) or not same_dtypes(network, [x, *states, *mu]):
        return network.parameter_adjoint(x, states, switches, mu)
    chain = held(own(kernels, network), states, switches)
    mu = [inside(mu_n) for mu_n in mu]
    gradient = {f"1.{name}": g for name, g in chain.first.product(network.synapses[0], x, mu[0]).items()}
    for k, synapse in enumerate(chain.synapses):
        dW = synapse.products(mu[k], mu[k + 1], chain.states[k + 1])
        gradient |= {f"{k + 2}.{name}": g for name, g in dW.items()}
    for k, mu_n in enumerate(mu, start=1):
        gradient[f"{k}.b"] = np.ascontiguousarray(mu_n).reshape(-1, mu_n.shape[-1]).sum(0)
    return {name: gradient[name] for name in network.parameters() if name in gradient}
