"""Equilibrium propagation: the gradient of the loss from two kinds of relaxation, free and nudged.

    L(theta)  = C(s*, y)                                                the loss: the cost at the free fixed point
    dL/dtheta = d/dbeta [ -dPhi/dtheta (s^beta) ]  at beta = 0           the theorem                           (3)
    g         = - sum_k c_k dPhi/dtheta (s^{beta_k})                     its estimate: points beta_k, coefficients c_k      (4)

A first reading takes `eqprop_gradient` without its branch for deviations, then `nudged_phases` and `difference_of_states`.

`Phases(..., deviations=True)` asks for a second form. (4) subtracts products of states that are almost equal, and where feedback
is weak that loses digits. So the differences delta^beta = s^beta - s* are relaxed themselves, and mu = - sum_k c_k delta^{beta_k}
estimates - ds^beta/dbeta. dPhi/dtheta is a product of two states, so (3) has a term for each end that moves. For the synapse from
layer i to layer j,

    dL/dtheta = hebbian(s_i*, mu_j) + w_j/w_i hebbian_down(mu_i, s_j*)      hebbian_down: without the bias    (12)

w_n is a factor of layer n, by which delta_n is multiplied, too: 1 at full feedback, and else that of (10) and (11).
"""

import math
from collections.abc import Mapping

from .backend import Array, States
from .checks import instance
from .dynamics import Estimate, Relaxation, checked, checked_beta, estimate, relax, response
from .errors import EPError
from .network import Network
from .nudging import Nudging
from .phase import Phases


def eqprop_gradient(network: Network, x: Array, y: Array, phases: Phases, *, nudging: Nudging,
                    transposed: bool = True) -> Estimate:
    """Estimate dL/dtheta (batch mean); returns an `Estimate`.

    x (N, *input shape); y (N,) labels or (N, classes) targets.
    phases      a `Phases`: the free phase starts at zero, the nudged ones at s*. By (4), or with deviations by (12)
    nudging     a `Nudging`: points beta_k and their coefficients, its weights c_k
    transposed  for asymmetric networks (vectorfield.py): True is the exact gradient, by deviations; False is vector-field EP
    Raises EPError for inputs of a wrong shape, complex nudging of a network that is not holomorphic, and the exact gradient of
    an asymmetric network without deviations.
    """
    instance(nudging, Nudging, "nudging")
    instance(phases, Phases, "phases")
    for beta in nudging.points:
        checked_beta(network, beta)  # refuses what will not work before the free phase, not after it
    if phases.deviations:
        network.check_bilinear()
    else:
        check_energy(network, transposed)
    x, y = network.examples(x, y)
    inputs = network.input_drives(x)
    free = relax(network, x, phases.free, inputs=inputs)
    if phases.deviations:
        mu, nudged = response(network, y, free, nudging, phases.nudged, transposed)
        gradient = network.parameter_adjoint(x, free.states, free.switches, mu)
        gradient |= network.readout_gradient(free.states, y)  # the softmax readout's own weights, at s*
        return estimate(network, gradient, free, y, nudged)
    nudged = nudged_phases(network, x, y, phases, nudging, free, inputs)
    return eqprop_from_states(network, x, y, free, dict(zip(nudging.points, nudged)), nudging)


def eqprop_from_states(network: Network, x: Array, y: Array, free: Relaxation | States,
                       nudged: Mapping[complex, Relaxation | States], nudging: Nudging) -> Estimate:
    """Estimate dL/dtheta (batch mean) by (4) from states, whoever relaxed them: `relax`, or an instrument that reads a device.

    x, y, nudging as for `eqprop_gradient`. The states of a phase are [s_1 ... s_L], each (N, *shape of the layer), or a
    `Relaxation`; max-pooling chooses its switches at states alone. An asymmetric network, which has no Phi, gets (7).
    free        s*; nudged {beta_k: s^{beta_k}} for every point of the nudging
    Raises EPError for points without states, for states of a wrong shape, for deviations, and where (4) has no finite w_n.
    """
    points = instance(nudging, Nudging, "nudging").points
    if missing := [beta for beta in points if beta not in nudged]:
        raise EPError(f"expected the states at every point of the nudging, {points}: got none at {missing[0]}")
    check_energy(network, transposed=False)
    x, y = network.examples(x, y)
    at_rest, *phases = [measured(network, x, states) for states in (free, *(nudged[beta] for beta in points))]
    gradient = difference_of_states(network, x, at_rest, phases, nudging)
    gradient |= network.readout_gradient(at_rest.states, y)  # the softmax readout's own weights, at s*
    return estimate(network, gradient, at_rest, y, phases)


def measured(network, x, states):
    """A `Relaxation` as it is; states alone as one that ended in them, nobody knows how far from rest: its residual is NaN."""
    if isinstance(states, Relaxation):
        if not states.u:
            raise EPError("expected the states of a phase, and these are deviations from them: use Phases(..., deviations=False)")
        return states
    states = checked(network, x, None, 0.0, states)[3]
    layers = [x, *states]
    switches = [synapse.winners(layers[i]) for synapse, (i, _) in zip(network.synapses, network.wiring)]
    return Relaxation(states, switches, 0, [s + math.nan for s in states])


def nudged_phases(network, x, y, phases, nudging, free, inputs):
    """[`Relaxation` at beta_k for every k], all from s*.

    A phase at beta = 0 relaxes on for K steps like the others, unless the free phase has converged. What still moves at s* then
    moves in all of them, and sum_k c_k = 0 cancels it. (Without a tolerance nobody asks: a GPU would wait for the answer.)
    """
    return [free if beta == 0 and phases.free.tolerance > 0 and free.converged else
            relax(network, x, phases.nudged, y, beta, start=free.states, inputs=inputs) for beta in nudging.points]


def difference_of_states(network, x, free, nudged, nudging):
    """The gradient summed over the batch from the nudged states, by equation (4); or by (7) where there is no Phi."""
    if network.has_phi:
        gradient = {}
        for c, phase in zip(nudging.weights, nudged):
            dPhi = network.hebbian(x, phase.states, phase.switches)
            gradient = {name: gradient.get(name, 0.0) - c * dPhi[name] for name in dPhi}  # - sum_k c_k dPhi/dtheta
    else:
        mu = [-sum(c * w_n * s_n for c, s_n in zip(nudging.weights, layer))  # - sum_k c_k w_n s_n^{beta_k}
              for w_n, layer in zip(network.energy_factors, zip(*(phase.states for phase in nudged)))]
        gradient = network.parameter_adjoint(x, free.states, free.switches, mu)
    return {name: g.real for name, g in gradient.items()} if nudging.take_real else gradient


def check_energy(network, transposed):
    """Differences of states need finite factors w_n, and those of an asymmetric network respond through D, not D^T."""
    network.check_energy()
    if transposed and not network.has_phi:
        raise EPError("the exact gradient of an asymmetric network needs deviations: the nudged states of its own dynamics "
                      "respond through D, not through its transpose; nudge by deviations, or use transposed=False")
