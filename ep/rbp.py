"""Recurrent backpropagation: the gradient at the fixed point by implicit differentiation, a third reference beside BPTT.

s* = sigma(u(s*, theta)), so a small change of u moves the fixed point through D, the Jacobian of the drives at s*. Backwards,
from L = C(s*, y), what reaches the argument of sigma is the fixed point of a linear network, the transpose of D's:

    mu  <- sigma'(u*) ( D^T mu + dC/ds )                               from mu = 0; the book calls it m         (9)
    dL/dtheta = (d^2 Phi/dtheta ds) mu                                 at the fixed point of (9)

(9) is equation (1), linearised at s* and transposed. K steps of it are K steps of BPTT that all stay at s* (Almeida, Pineda
1987); it stores one state where BPTT stores K.
"""

from .bptt import parameter_adjoint, state_adjoint
from .dynamics import estimate, relax, residual
from .errors import EPError


def rbp_gradient(network, x, y, steps_free, steps_nudged, *, schedule="synchronous", tolerance=0.0):
    """dL/dtheta (batch mean) at the free fixed point; returns an `Estimate`. Same arguments as `bptt_gradient`.

    steps_free    T of the free phase, with `schedule`, at most: fewer once its residual is below `tolerance`
    steps_nudged  K of the relaxation of mu, at most: fewer once its own residual is 0 or below `tolerance`
    Right only as far as the free phase has converged: see `free.residual` of the result. Raises EPError for K < 1.
    """
    if steps_nudged < 1:
        raise EPError(f"recurrent backpropagation relaxes mu for at least 1 step: got K = {steps_nudged}")
    y = network.targets(y, x.dtype)
    free = relax(network, x, steps=steps_free, schedule=schedule, tolerance=tolerance)
    u, _ = network.drives(x, free.states)
    slopes = [network.activation.dsigma(u_n) for u_n in u]  # sigma'(u*)
    mu = [0.0 * s for s in free.states]
    for _ in range(steps_nudged):
        old, lam = mu, state_adjoint(network, free.switches, mu)  # D^T mu
        lam[-1] = lam[-1] - network.cost.force(free.states[-1], y)  # + dC/ds
        mu = [slope * lam_n for slope, lam_n in zip(slopes, lam)]
        if residual(mu, old) <= tolerance:
            break
    gradient = {**network.readout_gradient(free.states, y), **parameter_adjoint(network, x, free.states, free.switches, mu)}
    return estimate(network, gradient, free, y)
