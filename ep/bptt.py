"""Backpropagation through time, by hand: the gradient that EP has to match.

Unroll s_{t+1} = sigma(u_t), u_t the drives at s_t, and go back from L = C(s_T, y):

    lam_T = dC/ds_T
    mu_t  = sigma'(u_t) lam_{t+1}                                      what reaches the argument of sigma at step t
    lam_t = D^T mu_t                                                   D = du/ds, at the switches of s_t
    g_t   = (du/dtheta)^T mu_t                                         this step's share of dL/dtheta           (6)

t is time. EP's g_t of (5), t steps after s*, is the g_{T-1-t} of (6), t steps before the last: `bptt_increments` lists them from
the end, so that the two lists agree entry by entry.

The drives are linear in pre and in post but for the bias, so D^T and du/dtheta are the synapses' own methods (network.py,
`adjoint_drives` and `parameter_adjoint`): no new calculus, nor for asymmetric networks.
"""

from itertools import pairwise

from .backend import Array, Gradient, States
from .checks import instance
from .dynamics import Estimate, Relaxation, estimate, relax
from .errors import EPError
from .network import Network
from .phase import Phase, Phases


def bptt_gradient(network: Network, x: Array, y: Array, phases: Phases) -> Estimate:
    """dL/dtheta (batch mean) through the last K of the T steps of the free phase; returns an `Estimate`.

    phases: the same `Phases` as for `eqprop_gradient`, so that one can stand for the other: T = phases.free.steps, and K =
    phases.nudged.steps is the number of steps of the second phase, here backwards. K = T is the full gradient of T steps from
    zero. Costs the memory of K states.
    Raises EPError unless 1 <= K <= T, for schedules other than synchronous, and for a tolerance.
    """
    instance(phases, Phases, "phases")
    network.check_bilinear()
    T, K = phases.free.steps, phases.nudged.steps
    if any(phase.schedule != "synchronous" or phase.tolerance for phase in (phases.free, phases.nudged)):
        raise EPError("BPTT unrolls a fixed number of synchronous steps: use schedule='synchronous' and no tolerance")
    if not K <= T:
        raise EPError(f"BPTT goes back through 1 to T = {T} steps: got K = {K}")
    x, y = network.examples(x, y)
    start = relax(network, x, T - K).states if K < T else None
    trajectory, free = unroll(network, x, start, K)
    gradient = network.readout_gradient(free.states, y)
    for g_t, _ in backward(network, x, y, trajectory, free.states):
        for name in g_t:
            gradient[name] = gradient.get(name, 0.0) + g_t[name]
    free.steps = free.mean_steps = T
    return estimate(network, gradient, free, y)


def bptt_increments(network: Network, x: Array, y: Array, states: States, steps: int) -> list[tuple[Gradient, States]]:
    """Backward, (6), through `steps` steps that all stay at the free fixed point `states`.

    Returns a list over t = 0 ... steps-1, t = 0 the *last* step in time, of (g_t, mu_t): what `eqprop_increments` gives
    for beta -> 0. g_t is a batch mean; mu_t = [per layer] is per example.
    """
    x, y = network.examples(x, y)
    trajectory, free = unroll(network, x, states, steps)
    return [({name: g / len(x) for name, g in g_t.items()}, mu) for g_t, mu in backward(network, x, y, trajectory, free.states)]


def unroll(network: Network, x: Array, states: States | None, steps: int) -> tuple[list, Relaxation]:
    """Forward: ([(s_t, u_t, switches of s_t) for every step], `Relaxation` at the end)."""
    kept: list = []
    free = relax(network, x, Phase(steps), start=states, trajectory=kept)
    return [(s, u, switches) for (s, _, switches), (_, u, _) in pairwise(kept)], free


def backward(network, x, y, trajectory, final_states):
    """Backward: yield (g_t, mu_t) for t = T-1, T-2, ... by equations (6); gradients are summed over the batch."""
    slopes = [sigma.dsigma for sigma in network.activations]
    lam = [0.0 * s for s in final_states]
    lam[-1] = -network.cost.force(final_states[-1], y)  # lam_T = dC/ds_T
    for states, u, switches in reversed(trajectory):
        mu = [dsigma(u_n) * lam_n for dsigma, u_n, lam_n in zip(slopes, u, lam)]  # mu_t = sigma'(u_t) lam_{t+1}
        yield network.parameter_adjoint(x, states, switches, mu), mu
        lam = network.adjoint_drives(mu, switches)  # lam_t = D^T mu_t
