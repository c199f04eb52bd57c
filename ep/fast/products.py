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
    gradient, sums = {}, [np.ascontiguousarray(mu_n).reshape(-1, mu_n.shape[-1]).sum(0) for mu_n in mu]
    for k, (synapse, (i, j)) in enumerate(zip(chain.synapses, chain.wiring)):
        if i == 0:
            dW = synapse.product(network.synapses[k], x, mu[j - 1])
        else:
            chain.feed(k)
            dW = synapse.products(mu[i - 1], mu[j - 1], chain.states[j - 1])
        gradient |= {f"{k + 1}.{name}": g for name, g in {**dW, "b": sums[j - 1].copy()}.items()}
    return {name: gradient[name] for name in network.parameters() if name in gradient}
