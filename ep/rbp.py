"""Recurrent backpropagation: the gradient at the fixed point by implicit differentiation, a third reference beside BPTT.

s* = sigma(u(s*, theta)), so a small change of u moves the fixed point through D, the Jacobian of the drives at s*. Backwards,
from L = C(s*, y), what reaches the argument of sigma is the fixed point of a linear network, the transpose of D's:

    mu  <- sigma'(u*) ( D^T mu + dC/ds )                               from mu = 0; the book calls it m         (9)
    dL/dtheta = (du/dtheta)^T mu                                       at the fixed point of (9)

(9) is equation (11), the response to nudging, for an infinitely small nudge. K steps of it are K steps of BPTT that all stay at
s* (Almeida, Pineda 1987); it stores one state where BPTT stores K.
"""

from .activations import total
from .backend import Array, States
from .checks import instance
from .dynamics import Estimate, estimate, iterate, relax
from .network import Network
from .phase import Phases


def rbp_gradient(network: Network, x: Array, y: Array, phases: Phases, start: States | None = None) -> Estimate:
    """dL/dtheta (batch mean) at the free fixed point; returns an `Estimate`. phases: as for `eqprop_gradient`.

    phases.nudged is the relaxation of mu. start: where the free phase starts (default: at zero); a network with full feedback may
    have several fixed points. Right only as far as the free phase has converged: see `free.residual` of the result.
    """
    instance(phases, Phases, "phases")
    network.check_bilinear()
    x, y = network.examples(x, y)
    free = relax(network, x, phases.free, start=start)
    u, _ = network.drives(x, free.states)
    slopes = [sigma.dsigma(u_n) for sigma, u_n in zip(network.activations, u)]  # sigma'(u*)
    omega = phases.nudged.omega
    mu, dC = [0.0 * s for s in free.states], -network.cost.force(free.states[-1], y)

    def drive(n):
        terms = network.deviation_terms(n, mu, free.switches)  # D^T mu
        return terms + [(1.0, dC)] if n == len(mu) else terms

    def update(n, terms):
        new = slopes[n - 1] * total(terms) if terms else 0.0 * mu[n - 1]
        mu[n - 1] = new if omega == 1 else (1 - omega) * mu[n - 1] + omega * new

    iterate(network, phases.nudged, mu, drive, update)
    gradient = {**network.readout_gradient(free.states, y), **network.parameter_adjoint(x, free.states, free.switches, mu)}
    return estimate(network, gradient, free, y)
