"""The theorem step by step (GDU, "gradient descending updates"): each step of a nudged phase is a step of BPTT.

Summed over the steps t of the nudged phases these increments are the estimate (4):

    g_t = - sum_k c_k [ dPhi/dtheta (s^{beta_k}_{t+1}) - dPhi/dtheta (s^{beta_k}_t) ]                                (5)

and for beta -> 0 each of them is what backpropagation through time adds in one step, `bptt.bptt_increments`.
"""

from .backend import Array, Gradient, States
from .dynamics import relax, response, started
from .eqprop import check_energy
from .errors import EPError
from .network import Network
from .nudging import Nudging
from .phase import Phase


def eqprop_increments(network: Network, x: Array, y: Array, states: States, steps: int, *, nudging: Nudging,
                      deviations: bool = False, transposed: bool = True) -> list[tuple[Gradient, States]]:
    """The increments of `steps` synchronous nudged steps from the free fixed point `states`: (5), or of (12) by deviations.

    Returns a list over t = 0 ... steps-1 of (g_t, mu_t): g_t a dictionary like a gradient (batch mean; without the
    readout's weights, which are no part of the theorem), and mu_t the same increment of - sum_k c_k w_n s_n, a list over
    layers (per example). For beta -> 0 both become those of `bptt_increments`, entry by entry (GDU).
    Raises EPError for an asymmetric network without deviations: there is no Phi to differentiate.
    """
    x, y = network.examples(x, y)
    states = started(network, states, x)
    free = relax(network, x, 1, start=states)  # for u* and the switches: at a fixed point one more step changes nothing
    if not deviations:
        check_energy(network, transposed)
        if not network.has_phi:
            raise EPError("the increments of an asymmetric network need deviations: there is no Phi whose products could differ")
        return increments_of_states(network, x, y, states, free.switches, steps, nudging)
    mu = [[0.0 * s for s in states]]
    mu += [response(network, y, free, nudging, Phase(t), transposed)[0] for t in range(1, steps + 1)]  # slow and simple
    changes = [[new - old for new, old in zip(after, before)] for before, after in zip(mu, mu[1:])]
    products = [network.parameter_adjoint(x, free.states, free.switches, change) for change in changes]
    return [({name: g / len(x) for name, g in product.items()}, change) for product, change in zip(products, changes)]


def increments_of_states(network, x, y, states, switches, steps, nudging):
    total = [({}, [0.0] * len(states)) for _ in range(steps)]
    for beta, c in zip(nudging.points, nudging.weights):
        s, dPhi = states, network.hebbian(x, states, switches)
        for g, mu in total:
            relaxed = relax(network, x, 1, y, beta, start=s)
            dPhi_new = network.hebbian(x, relaxed.states, relaxed.switches)
            for name in dPhi:
                g[name] = g.get(name, 0.0) - c * (dPhi_new[name] - dPhi[name]) / len(x)
            mu[:] = [m - c * w * (new - old) for m, w, new, old in zip(mu, network.energy_factors, relaxed.states, s)]
            s, dPhi = relaxed.states, dPhi_new
    if nudging.take_real:
        total = [({name: a.real for name, a in g.items()}, [m.real for m in mu]) for g, mu in total]
    return total
