"""The GDU theorem: each step of a nudged phase makes the update that BPTT makes at the same distance from the end.

Preconditions, asserted in `at_a_fixed_point` and `increments`: the free phase (from a random state) has converged, and no
switch and no clipping changes between s* and the nudged states; and, so that nothing passes vacuously, no gradient is 0.
"""

import numpy as np
import pytest
from cases import ANGLE, CE, SE, WITH_ENERGY, Case, every, every_case, fitted_slope, random_states, stays
from helpers import flat, relative

from ep.bptt import bptt_gradient, bptt_increments
from ep.dynamics import Phases, relax
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.gdu import eqprop_increments
from ep.nudging import Nudging

STEPS = 8
both_forms = pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])


def at_a_fixed_point(xp, case):
    """(network, x, y, `Relaxation` of the free phase) with s* relaxed from a random state."""
    net, x, y = case.example(xp)
    free = relax(net, x, 2 * case.steps, start=random_states(xp, net))
    assert free.residual < 1e-14
    return net, x, y, free


def increments(net, x, y, free, nudging, **options):
    """EP's increments; asserts that the nudged phases stay where the theorem holds."""
    for beta in nudging.points:
        phase = free
        for _ in range(STEPS if not net.holomorphic else 0):
            phase = relax(net, x, 1, y, beta, start=phase.states)
            assert stays(net, free, phase.states, phase.switches)
    return eqprop_increments(net, x, y, free.states, STEPS, nudging=nudging, **options)


def of_backward(net, x, y, free):
    """BPTT's increments; asserts that every parameter has some, and that most layers move at most steps."""
    backward = bptt_increments(net, x, y, free.states, STEPS)
    sizes = {name: max(abs(flat(g[name])).max() for g, _ in backward) for name in backward[0][0]}
    assert sizes.keys() == {name for name in net.parameters() if "readout" not in name}
    assert min(size for name, size in sizes.items() if not name.endswith("B")) > 1e-6, sizes
    moving = [flat(m).any() for _, mu in backward for m in mu]  # in a chain, every second layer rests at every second step
    assert sum(moving) >= 0.3 * len(moving)
    return backward


def falls_as(order, errors, betas, round_off):
    """Whether the errors fall as beta^order, or are at round-off already."""
    return np.max(errors) < round_off or abs(fitted_slope(errors, betas) - order) < 0.1


def check(xp, case, nudging, order, betas, bound, **options):
    """g_t of EP = g_t of BPTT, and - sum_k c_k w_n (s_{t+1} - s_t) = mu_t, with an error that falls as beta^order."""
    net, x, y, free = at_a_fixed_point(xp, case)
    backward, errors = of_backward(net, x, y, free), []
    for beta in betas:
        forward = increments(net, x, y, free, nudging(beta), **options)
        errors.append([relative(ours, bptts) for ours, bptts in zip(zip(*forward), zip(*backward))])
    # a difference of states has lost as many digits as its layer's response is smaller than the nudge: a factor w_n and more
    lost = 1e-10 if options.get("deviations") else 1e-9 * max(net.energy_factors) / betas[0] * 1e-3
    assert np.max(errors[-1]) < max(bound, lost) and all(falls_as(order, pair, betas, lost) for pair in zip(*errors))


@every_case
def test_every_increment_is_bptts(xp, case):
    """Symmetric nudging, deviations: for symmetric and, through D^T, for asymmetric networks, at every gain."""
    check(xp, case, Nudging.symmetric, 2, (2e-4, 1e-4), 5e-6, deviations=True)


@every(WITH_ENERGY)
def test_every_increment_of_states_is_bptts(xp, case):
    """Symmetric nudging, the difference of states: with the factor w_n."""
    check(xp, case, Nudging.symmetric, 2, (1e-3, 5e-4), 5e-6)


@both_forms
@every([Case("dense", "tanh", SE, 0.3), Case("average", gain=0.3), Case("max", cost=SE), Case("triangle", cost=SE, gain=0.3)])
def test_one_sided_increments_are_bptts_to_first_order(xp, case, deviations):
    """The same theorem with an error that falls as beta only."""
    check(xp, case, Nudging.one_sided, 1, (1e-3, 5e-4), 1e-2, deviations=deviations)


@both_forms
@every([Case("dense", cost=CE), Case("dense", cost=SE), Case("average", cost=CE), Case("average", cost=SE, gain=0.3)])
def test_complex_increments_are_bptts(xp, case, deviations):
    """Holomorphic nudging with 6 phases: equal to 1e-10 (round-off), and real."""
    net, x, y, free = at_a_fixed_point(xp, case)
    forward = increments(net, x, y, free, Nudging.holomorphic(5e-3, 6), deviations=deviations)
    for ours, bptts in zip(zip(*forward), zip(*of_backward(net, x, y, free))):  # g_t, then mu_t
        assert relative(ours, bptts) < 1e-10
        assert flat(ours).dtype == "float64"


@every([Case("dense", "tanh", CE, angle=ANGLE), Case("average", cost=SE, angle=ANGLE), Case("max", cost=CE, angle=ANGLE)])
def test_without_the_transpose_there_is_no_theorem(xp, case):
    """The own response of an asymmetric network is not BPTT's."""
    net, x, y, free = at_a_fixed_point(xp, case)
    backward = of_backward(net, x, y, free)
    own = increments(net, x, y, free, Nudging.symmetric(1e-4), transposed=False, deviations=True)
    assert relative([mu for _, mu in own], [mu for _, mu in backward]) > 1e-2


@both_forms
@every([Case("dense", "tanh"), Case("average", cost=SE), Case("max", "hard-sigmoid")])
def test_increments_sum_to_the_gradients(xp, case, deviations):
    """K increments of BPTT sum to the K-step truncated BPTT gradient; K increments of EP to the estimate after K steps."""
    net, x, y = case.example(xp)
    nudging, states = Nudging.symmetric(1e-2), relax(net, x, case.steps).states
    sums = {
        "bptt": (bptt_gradient(net, x, y, Phases(case.steps, STEPS)), bptt_increments(net, x, y, states, STEPS)),
        "eqprop": (eqprop_gradient(net, x, y, Phases(case.steps, STEPS, deviations), nudging=nudging),
                   eqprop_increments(net, x, y, states, STEPS, nudging=nudging, deviations=deviations))}
    for whole, parts in sums.values():
        total = {name: sum(g[name] for g, _ in parts) for name in parts[0][0]}
        assert relative(total, {name: whole.gradient[name] for name in total}) < 1e-11


def test_increments_of_states_need_a_phi():
    """An asymmetric network has none."""
    case = Case("average", cost=SE, angle=ANGLE)
    net, x, y = case.example()
    with pytest.raises(EPError, match="no Phi"):
        eqprop_increments(net, x, y, net.init_state(x), 2, nudging=Nudging.symmetric(0.1), transposed=False)
