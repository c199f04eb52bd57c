"""Equilibrium propagation: the gradient of the loss from relaxing twice, free and nudged.

"Twice" are the two kinds of phase. Symmetric nudging, the paper's, relaxes three times: free, at +beta and at -beta.

    L(theta)  = C(s*, y)                                                the loss: the cost at the free fixed point
    dL/dtheta = d/dbeta [ -dPhi/dtheta (s^beta) ]  at beta = 0           the theorem                           (3)
    g         = - sum_k c_k dPhi/dtheta (s^{beta_k})                     its estimate                          (4)

and, step by step of the nudged phases (GDU: "gradient descending updates"),

    g_t = - sum_k c_k [ dPhi/dtheta (s^{beta_k}_{t+1}) - dPhi/dtheta (s^{beta_k}_t) ],    sum_t g_t -> g       (5)

An asymmetric network has no Phi. Its `hebbian` then gives the derivatives of the drives at s* instead: see vectorfield.py.
"""

from .dynamics import estimate, relax as relax_plainly


def eqprop_gradient(network, x, y, steps_free, steps_nudged, *, nudging, schedule="synchronous", tolerance=0.0,
                    tolerance_nudged=0.0, freeze_switches=False, transposed=False, relax=relax_plainly):
    """Estimate dL/dtheta (batch mean) by equation (4); returns an `Estimate`.

    x (N, *input shape); y (N,) labels or (N, classes) targets.
    steps_free      T of the free phase, from zero: at most; fewer once its residual is below `tolerance`
    steps_nudged    K of every nudged phase, from s* (s^beta is near it; and of several fixed points, (3) is about that one):
                    exactly, unless its residual falls below `tolerance_nudged`. That must be far below the response of the
                    first layer: the residual dips while the nudge is still on its way there
    nudging         a `Nudging`: points beta_k and weights c_k. A phase at beta = 0 takes K steps like the others, unless the free
                    phase has converged to `tolerance`: what is still moving at s_T then moves in all of them, and
                    sum_k c_k = 0 cancels it. One that stopped at s_T would leave (s_{T+K} - s_T)/beta in the estimate
    freeze_switches the nudged phases keep the max-pooling switches of s*
    transposed      the nudged phases respond through the transposed Jacobian at s*, with its switches: asymmetric EP (8), the
                    exact gradient of asymmetric networks. A symmetric one is its own transpose: only its switches freeze.
    relax           the function to relax with
    Raises EPError for inputs of a wrong shape, an unknown schedule, complex nudging of a network that is not holomorphic.
    """
    y = network.targets(y, x.dtype)
    inputs = network.input_drives(x)
    free = relax(network, x, steps=steps_free, schedule=schedule, tolerance=tolerance, inputs=inputs)
    gradient = network.readout_gradient(free.states, y)  # the softmax readout's own weights, at s*
    anchored, phases = network.anchored(x, free.states, free.switches), []
    nudged, frozen = anchored if transposed else network, free.switches if freeze_switches or transposed else None
    for beta, c in zip(nudging.points, nudging.weights):
        if beta == 0 and free.converged:
            phase = free  # s^0 = s*, if it has settled: else it moves on like the others
        else:
            phase = relax(nudged, x, y, beta, steps=steps_nudged, start=free.states, schedule=schedule,
                          tolerance=tolerance_nudged, inputs=inputs, switches=frozen)
        phases.append(phase)
        dPhi = anchored.hebbian(x, phase.states, phase.switches)
        for name in dPhi:
            gradient[name] = gradient.get(name, 0.0) - c * dPhi[name]  # g = - sum_k c_k dPhi/dtheta (s^{beta_k})
    if nudging.take_real:
        gradient = {name: g.real for name, g in gradient.items()}
    return estimate(network, gradient, free, y, phases)


def eqprop_increments(network, x, y, states, steps, *, nudging, freeze_switches=False, transposed=False):
    """The increments (5) of `steps` synchronous nudged steps from the free fixed point `states`.

    Returns a list over t = 0 ... steps-1 of (g_t, ds_t): g_t a dictionary like a gradient (batch mean; without the
    readout's weights, which are no part of the theorem), ds_t = [sum_k c_k (s_{t+1} - s_t) for every layer] (per example).
    """
    y = network.targets(y, x.dtype)
    free_switches = network.switches(network.input_drives(x), states)
    anchored, frozen = network.anchored(x, states, free_switches), free_switches if freeze_switches or transposed else None
    nudged = anchored if transposed else network
    total = [({}, [0.0] * len(states)) for _ in range(steps)]
    for beta, c in zip(nudging.points, nudging.weights):
        s, dPhi = states, anchored.hebbian(x, states, free_switches)
        for g, ds in total:
            relaxed = relax_plainly(nudged, x, y, beta, steps=1, start=s, switches=frozen)
            dPhi_new = anchored.hebbian(x, relaxed.states, relaxed.switches)
            for name in dPhi:
                g[name] = g.get(name, 0.0) - c * (dPhi_new[name] - dPhi[name]) / len(x)
            ds[:] = [d + c * (new - old) for d, new, old in zip(ds, relaxed.states, s)]
            s, dPhi = relaxed.states, dPhi_new
    if nudging.take_real:
        total = [({name: a.real for name, a in g.items()}, [d.real for d in ds]) for g, ds in total]
    return total
