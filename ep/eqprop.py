"""Equilibrium propagation: the gradient of the loss from two kinds of relaxation, free and nudged.

    L(theta)  = C(s*, y)                                                the loss: the cost at the free fixed point
    dL/dtheta = d/dbeta [ -dPhi/dtheta (s^beta) ]  at beta = 0           the theorem                           (3)
    g         = - sum_k c_k dPhi/dtheta (s^{beta_k})                     its estimate                          (4)

Symmetric nudging, the paper's, relaxes three times: free, at +beta and at -beta.

dPhi/dtheta is a product of two states, and its change is, to first order, the change of one times the other. So (3) can also
be written with mu_n = - w_n ds_n^beta/dbeta, what the layers answer when they are nudged:

    dL/dtheta_k = hebbian(s_i*, mu_j) + (w_j/w_i) hebbian(mu_i, s_j*)    for the synapse k: i -> j             (12)

and mu is estimated by the same points and weights, - sum_k c_k delta^{beta_k} (dynamics.py). This is the default. It needs two
products a synapse whatever the nudging, and it is the gradient for asymmetric networks too, where (4) does not exist.

Step by step of the nudged phases (GDU: "gradient descending updates") the sums over t of these go to the gradient:

    g_t = - sum_k c_k [ dPhi/dtheta (s^{beta_k}_{t+1}) - dPhi/dtheta (s^{beta_k}_t) ]                                (5)
"""

from .backend import Array, Gradient, States
from .checks import instance
from .dynamics import READABLE, Estimate, Phase, Phases, Solver, deviate, estimate, nudge, relax
from .errors import EPError
from .network import Network
from .nudging import Nudging


def eqprop_gradient(network: Network, x: Array, y: Array, phases: Phases, *, nudging: Nudging, transposed: bool = True,
                    solver: Solver = READABLE) -> Estimate:
    """Estimate dL/dtheta (batch mean); returns an `Estimate`.

    x (N, *input shape); y (N,) labels or (N, classes) targets.
    phases      a `Phases`: the free phase starts at zero, the nudged ones at s*. With phases.deviations by equation (12),
                without by (4), the difference of nudged states
    nudging     a `Nudging`: points beta_k and weights c_k
    transposed  for asymmetric networks: True is the exact gradient (asymmetric EP), False is vector-field EP
    solver      what to relax and multiply with: READABLE, or `ep.fast.prepared(network)`
    Raises EPError for inputs of a wrong shape, complex nudging of a network that is not holomorphic, and for the exact
    gradient of an asymmetric network from differences of states.
    """
    instance(nudging, Nudging, "nudging")
    instance(phases, Phases, "phases")
    for beta in nudging.points:
        nudge(network, beta)  # refuses what will not work before the free phase, not after it
    x, y = network.examples(x, y)
    inputs = None if phases.deviations else network.input_drives(x)  # for several phases on x
    free = solver.relax(network, x, phases.free, inputs=inputs)
    if phases.deviations:
        mu, nudged = solver.response(network, y, free, nudging, phases.nudged, transposed)
        gradient = solver.products(network, x, free.states, free.switches, mu)
        gradient |= network.readout_gradient(free.states, y)  # the softmax readout's own weights, at s*
    else:
        gradient, nudged = difference_of_states(network, x, y, phases, nudging, transposed, solver, free, inputs)
    return estimate(network, gradient, free, y, nudged)


def difference_of_states(network, x, y, phases, nudging, transposed, solver, free, inputs):
    """(gradient summed over the batch, [`Relaxation` of each nudged phase]) by equation (4), as the paper's code has it.

    A phase at beta = 0 relaxes on for K steps like the others, unless the free phase has converged: what is still moving at
    s* then moves in all of them, and sum_k c_k = 0 cancels it. One that stopped at s* would leave that drift, divided by
    beta, in the estimate. `phases.conventions` has this choice and two more.
    """
    check_energy(network, transposed)
    conventions, gradient, nudged = phases.conventions, {}, []
    for beta, c in zip(nudging.points, nudging.weights):
        if beta == 0 and (free.converged or conventions.rest == "stays"):
            phase = free
        else:
            phase = solver.relax(network, x, phases.nudged, y, beta, start=free.states, inputs=inputs)
        nudged.append(phase)
        if network.has_phi:
            dPhi = network.hebbian(x, phase.states, phase.switches)
            gradient = {name: gradient.get(name, 0.0) - c * dPhi[name] for name in dPhi}  # - sum_k c_k dPhi/dtheta
    if not network.has_phi:
        gradient = _asymmetric_products(network, x, free, nudged, nudging.weights, conventions.products)
    gradient |= _readout(network, y, free, nudged, nudging, conventions.readout)
    if nudging.take_real:
        gradient = {name: g.real for name, g in gradient.items()}
    return gradient, nudged


def _asymmetric_products(network, x, free, nudged, weights, products):
    """dW, db, dB summed over the batch, by (7) with mu = - sum_k c_k w_n s_n^{beta_k}; products: see `Conventions`."""
    mu = [[-c * w_n * s_n for w_n, s_n in zip(network.weights, phase.states)] for c, phase in zip(weights, nudged)]
    if products == "free":
        return network.parameter_adjoint(x, free.states, free.switches, [sum(layer) for layer in zip(*mu)])
    gradient = {}
    for mu_k, phase in zip(mu, nudged):
        other = phase if products == "common" else free  # the state that mu is multiplied by
        switches = [(of[0], own[1]) if isinstance(of, tuple) else of for of, own in zip(other.switches, phase.switches)]
        for name, g in network.parameter_adjoint(x, other.states, switches, mu_k).items():
            gradient[name] = gradient.get(name, 0.0) + g
    paired = [name[:-1] + end for name in gradient if name.endswith(".B") for end in "WB"] if products == "common" else []
    return {name: 0.5 * g if name in paired else g for name, g in gradient.items()}


def _readout(network, y, free, nudged, nudging, where):
    """The gradient of the softmax readout's own weights, at s* or at the nudged states, summed over the batch."""
    if where == "free":
        return network.readout_gradient(free.states, y)
    total = {}
    for beta, c, phase in zip(nudging.points, nudging.weights, nudged):
        for name, g in network.readout_gradient(phase.states, y).items():
            total[name] = total.get(name, 0.0) + c * beta * g  # d/dbeta of - beta C: a mean, for sum_k c_k beta_k = 1
    return total


def eqprop_increments(network: Network, x: Array, y: Array, states: States, steps: int, *, nudging: Nudging,
                      deviations: bool = True, transposed: bool = True) -> list[tuple[Gradient, States]]:
    """The increments (5) of `steps` synchronous nudged steps from the free fixed point `states`.

    Returns a list over t = 0 ... steps-1 of (g_t, mu_t): g_t a dictionary like a gradient (batch mean; without the
    readout's weights, which are no part of the theorem), and mu_t the same increment of - sum_k c_k w_n s_n, a list over
    layers (per example). Bptt's increments are equal to both, entry by entry (GDU).
    """
    x, y = network.examples(x, y)
    free = relax(network, x, 1, start=states)  # for u* and the switches: at a fixed point one more step changes nothing
    if not deviations:
        return _increments_of_states(network, x, y, states, free.switches, steps, nudging, transposed)
    mu: list[States] = [[0.0 * s for s in states]]
    for t in range(1, steps + 1):  # t steps from the beginning: slow and simple
        total = mu[0]
        for beta, c in zip(nudging.points, nudging.weights):
            delta = deviate(network, y, beta, free, Phase(t), transposed).states
            total = [m - c * d for m, d in zip(total, delta)]
        mu.append([m.real for m in total] if nudging.take_real else total)
    changes = [[new - old for new, old in zip(after, before)] for before, after in zip(mu, mu[1:])]
    products = [network.parameter_adjoint(x, free.states, free.switches, change) for change in changes]
    return [({name: g / len(x) for name, g in product.items()}, change) for product, change in zip(products, changes)]


def _increments_of_states(network, x, y, states, switches, steps, nudging, transposed):
    check_energy(network, transposed)
    total = [({}, [0.0] * len(states)) for _ in range(steps)]
    for beta, c in zip(nudging.points, nudging.weights):
        s, dPhi = states, network.hebbian(x, states, switches)
        for g, mu in total:
            relaxed = relax(network, x, 1, y, beta, start=s)
            dPhi_new = network.hebbian(x, relaxed.states, relaxed.switches)
            for name in dPhi:
                g[name] = g.get(name, 0.0) - c * (dPhi_new[name] - dPhi[name]) / len(x)
            mu[:] = [m - c * w * (new - old) for m, w, new, old in zip(mu, network.weights, relaxed.states, s)]
            s, dPhi = relaxed.states, dPhi_new
    if nudging.take_real:
        total = [({name: a.real for name, a in g.items()}, [m.real for m in mu]) for g, mu in total]
    return total


def check_energy(network, transposed):
    """Differences of states need finite weights, and an asymmetric network's respond through D and never through D^T."""
    if network.feedback == 0:
        raise EPError("without feedback (gamma = 0) nudged states do not differ from free ones below the last layer: use "
                      "deviations, or a gain above 0")
    if network.has_phi:
        network.check_energy()
    if transposed and not network.has_phi:
        raise EPError("the exact gradient of an asymmetric network needs deviations: the nudged states of its own dynamics "
                      "respond through D, not through its transpose; use deviations, or transposed=False")
