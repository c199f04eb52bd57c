"""What the published code of the paper chose where equation (4), the difference of nudged states, leaves a choice.

`papers_gradient` is `eqprop_gradient` with these choices, so that both can be compared number by number (docs/theory/paper.md,
tests/test_papers_code.py). None of them is needed to understand EP.

    readout   The softmax readout's own gradient dC/dtheta is taken at the nudged states, sum_k c_k beta_k dC/dtheta (s^{beta_k});
              `eqprop_gradient` takes it at s*, which is exact. With symmetric nudging this is the mean over two states.
    rest      The phase at beta = 0 is s_T, the state where the free phase stopped, converged or not.
    products  of asymmetric networks, where dW and dB are products of two states. One state is s*, the other nudged, and dB is
              taken at the switches of the nudged states. With common=True (Kolen-Pollack) both states are nudged, at their own
              switches, and half of the product goes to W and half to B, for `kolen_pollack` adds them up.
"""

from .backend import Array, Gradient
from .checks import instance
from .dynamics import Estimate, checked_beta, estimate, relax
from .eqprop import check_energy
from .network import Network
from .nudging import Nudging
from .phase import Phases


def papers_gradient(network: Network, x: Array, y: Array, phases: Phases, *, nudging: Nudging, common: bool = False) -> Estimate:
    """`eqprop_gradient(..., transposed=False)` of nudged states, as the published code computes it; see above.

    common: for asymmetric networks, the products that Kolen-Pollack adds up. Nudged phases are always states, whatever
    phases.deviations says.
    """
    instance(phases, Phases, "phases")
    for beta in instance(nudging, Nudging, "nudging").points:
        checked_beta(network, beta)
    check_energy(network, transposed=False)
    x, y = network.examples(x, y)
    inputs = network.input_drives(x)
    free = relax(network, x, phases.free, inputs=inputs)
    nudged = [free if beta == 0 else relax(network, x, phases.nudged, y, beta, start=free.states, inputs=inputs)
              for beta in nudging.points]
    gradient: Gradient = {}
    for beta, c, phase in zip(nudging.points, nudging.weights, nudged):
        products = ({name: -c * g for name, g in network.hebbian(x, phase.states, phase.switches).items()} if network.has_phi
                    else asymmetric_products(network, x, free, phase, c, common))
        readout = {name: c * beta * g for name, g in network.readout_gradient(phase.states, y).items()}
        for name, g in {**products, **readout}.items():
            gradient[name] = gradient.get(name, 0.0) + g
    if nudging.take_real:
        gradient = {name: g.real for name, g in gradient.items()}
    return estimate(network, gradient, free, y, nudged)


def asymmetric_products(network, x, free, phase, c, common):
    """The share of one nudged phase in dW, db, dB, by (7) with mu = - c w_n s_n^beta."""
    mu = [-c * w_n * s_n for w_n, s_n in zip(network.energy_factors, phase.states)]
    other = phase if common else free  # the state that mu is multiplied by
    switches = [(of[0], own[1]) if isinstance(of, tuple) else of for of, own in zip(other.switches, phase.switches)]
    products = network.parameter_adjoint(x, other.states, switches, mu)
    paired = [name[:-1] + end for name in products if name.endswith(".B") for end in "WB"] if common else []
    return {name: 0.5 * g if name in paired else g for name, g in products.items()}
