"""Backpropagation through time, by hand: the gradient that EP has to match.

Unroll s_{t+1} = sigma(u_t), u_t = dPhi/ds (x, s_t), and go back from L = C(s_T, y):

    lam_T = dC/ds_T
    mu_t  = sigma'(u_t) lam_{t+1}                                      what reaches the argument of sigma at step t
    lam_t = (d^2 Phi/ds^2) mu_t                                        the drives of mu_t, at the switches of s_t
    g_t   = (d^2 Phi/dtheta ds) mu_t                                   this step's share of dL/dtheta           (6)

t is time. EP's g_t of (5), t steps after s*, is the g_{T-1-t} of (6), t steps before the last: `bptt_increments` lists them from
the end, so that the two lists agree entry by entry.

Phi is linear in pre and in post, so both second derivatives are the synapse's own methods: no new calculus. Nor for
asymmetric networks: they have drives instead of dPhi/ds, and lam_t = D^T mu_t with D the Jacobian of the drives, which runs
forward and feedback weights in exchanged roles.
"""

from .dynamics import Relaxation, estimate, relax as relax_plainly, residual
from .errors import EPError


def bptt_gradient(network, x, y, steps_free, steps_nudged, *, schedule="synchronous", tolerance=0.0, relax=relax_plainly):
    """dL/dtheta (batch mean) through the last `steps_nudged` = K of the T = `steps_free` steps; returns an `Estimate`.

    Same arguments as `eqprop_gradient`, so that one can stand for the other: K is the number of steps of the second
    phase, here backwards. K = T is the full gradient of T steps from zero. Costs the memory of K states.
    relax: the function for the first T - K steps, which are not unrolled.
    Raises EPError unless 1 <= K <= T, for schedules other than synchronous, and for a tolerance.
    """
    if schedule != "synchronous" or tolerance:
        raise EPError("BPTT unrolls a fixed number of synchronous steps: use schedule='synchronous' and no tolerance")
    if not 1 <= steps_nudged <= steps_free:
        raise EPError(f"BPTT goes back through 1 to T = {steps_free} steps: got K = {steps_nudged}")
    y = network.targets(y, x.dtype)
    T, K = steps_free, steps_nudged
    start = relax(network, x, steps=T - K).states if K < T else network.init_state(x)
    trajectory, free = unroll(network, x, start, K)
    gradient = network.readout_gradient(free.states, y)
    for g_t, _ in sweep(network, x, y, trajectory, free.states):
        for name in g_t:
            gradient[name] = gradient.get(name, 0.0) + g_t[name]
    free.steps = T
    return estimate(network, gradient, free, y)


def bptt_increments(network, x, y, states, steps):
    """The sweep (6) through `steps` steps that all stay at the free fixed point `states`.

    Returns a list over t = 0 ... steps-1, t = 0 the *last* step in time, of (g_t, mu_t): what `eqprop_increments` gives
    as (g_t, -ds_t) for beta -> 0. g_t is a batch mean; mu_t = [per layer] is per example.
    """
    y = network.targets(y, x.dtype)
    trajectory, free = unroll(network, x, states, steps)
    return [({name: g / len(x) for name, g in g_t.items()}, mu) for g_t, mu in sweep(network, x, y, trajectory, free.states)]


def unroll(network, x, states, steps):
    """Forward: ([(s_t, u_t, switches of s_t) for every step], Relaxation at the end)."""
    inputs, trajectory, layers = network.input_drives(x), [], range(1, len(network.shapes))
    for _ in range(steps):
        switches = [None] * len(network.synapses)
        u = network.drives_of(layers, inputs, states, switches)
        u = [u[n] for n in layers]
        trajectory.append((states, u, switches))
        states = [network.activation.sigma(u_n) for u_n in u]
    last = residual(states, trajectory[-1][0])
    switches = network.switches(inputs, states)
    return trajectory, Relaxation(states, switches, steps, last, last == 0, [(steps, last)])


def sweep(network, x, y, trajectory, final_states):
    """Backward: yield (g_t, mu_t) for t = T-1, T-2, ... by equations (6); gradients are summed over the batch."""
    dsigma = network.activation.dsigma
    lam = [0.0 * s for s in final_states]
    lam[-1] = -network.cost.force(final_states[-1], y)  # lam_T = dC/ds_T
    for states, u, switches in reversed(trajectory):
        mu = [dsigma(u_n) * lam_n for u_n, lam_n in zip(u, lam)]  # mu_t = sigma'(u_t) lam_{t+1}
        yield parameter_adjoint(network, x, states, switches, mu), mu
        lam = state_adjoint(network, switches, mu)


def state_adjoint(network, switches, mu):
    """lam = (d^2 Phi/ds^2) mu = D^T mu: the transposed drives of mu, without input and bias, at given switches."""
    mu, lam = [None, *mu], [None, *(0.0 * mu_n for mu_n in mu)]
    for synapse, (i, j), sw in zip(network.synapses, network.wiring, switches):
        if i > 0:  # nothing flows back into x
            lam[i] = lam[i] + synapse.drive_post_adjoint(mu[j], sw)
            lam[j] = lam[j] + synapse.drive_pre_adjoint(mu[i], sw)
    return lam[1:]


def parameter_adjoint(network, x, states, switches, mu):
    """(d^2 Phi/dtheta ds) mu: dW = hebbian(s_i, mu_j) + hebbian(mu_i, s_j), db = sum mu_j (asymmetric: the second is dB)."""
    s, mu, gradient = [x, *states], [None, *mu], {}
    for k, (synapse, (i, j)) in enumerate(zip(network.synapses, network.wiring)):
        g = synapse.hebbian(s[i], mu[j], switches[k])
        if i > 0:  # mu_0 = 0: x does not move
            for name, dW in synapse.linear_hebbian(mu[i], s[j], switches[k]).items():
                g[name] = g.get(name, 0.0) + dW
        gradient.update({f"{k + 1}.{name}": value for name, value in g.items()})
    return gradient
