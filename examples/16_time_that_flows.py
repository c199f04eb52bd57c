"""What if time flows, as in a circuit, instead of going in steps?

    python examples/16_time_that_flows.py       # about 10 seconds on one core; needs SciPy

Each unit is a leaky capacitor. Its voltage v charges to what it hears, and its state is s = sigma(v) (Hopfield 1984):

    dv/dt = - dE/ds - beta dC/ds = u(s) - v - beta dC/ds        time in units of the capacitor's own

It rests where v = u, so s = sigma(u): at the fixed points of (1), also where sigma is clipped, for v goes on moving outside the
bounds. (The flow of s itself, ds/dt = - dE/ds, would have to be stopped at the bounds.) On the way dE/dt = - sum sigma'(v)
(dE/ds)^2, so E never rises, whatever the weights. Near rest the slowest mode decays as exp(-t/tau) with tau = 1/(1 - r): r, the
spectral radius of (13), is itself an eigenvalue of Sigma D in a symmetric chain.

Then the gradient without phases. beta swings slowly, beta = b sin(2 pi t/P). Each weight multiplies what it sees by the same sine
and adds up over a period P: the first Fourier coefficient, divided by b.

    g = - 2/(b P) integral of dPhi/dtheta sin(2 pi t/P) dt

For a long period the states follow, and this is equation (4) with the points b sin(angle), so the bias is of order b^2. A mode
follows with the share 1/(1 + (2 pi tau/P)^2), tau its own, so the period has to be long beside the slowest. Printed:

    radius    tau  time to rest  in tau  synchronous steps  checkerboard  distance of the fixed points  E rose
     0.502    2.0          21.1    10.5                 17            10                         2e-06  False
     0.798    4.9          49.2     9.9                 47            26                         5e-06  False
     0.947   19.0         201.7    10.6                211           104                         2e-05  False
    swings of 0.04 with the period 3 tau: cosine 0.754540, relative error 7.9e-01
    swings of 0.04 with the period 10 tau: cosine 0.994554, relative error 2.8e-01
    swings of 0.04 with the period 30 tau: cosine 0.999848, relative error 5.5e-02
    swings of 0.04 with the period 100 tau: cosine 0.999971, relative error 2.0e-02
    swings of 0.04 with the period 300 tau: cosine 0.999977, relative error 1.7e-02
    swings of 0.02 with the period 300 tau: cosine 0.999998, relative error 4.9e-03
"""

import numpy as np
from scipy.integrate import solve_ivp

import ep
from ep import Phase, Phases
from ep.dynamics import Relaxation
from ep.eqprop import difference_of_states
from ep.train import commandline as cli

AT_REST = 1e-6  # largest |dv/dt|
SAMPLES = 64  # of a period
REST = Phase(20000, "checkerboard", 1e-13)


def small_network(r, x):
    """Three layers above the input, gain 1, the hidden weights scaled to this spectral radius."""
    network = ep.mlp([8, 12, 10, 3], ep.TANH, ep.SquaredError, seed=3, dtype="float64")
    return ep.radius.calibrate_radius(network, x, r)


def flow(network, x, v, times, y=None, beta=lambda t: 0.0, until_rest=False):
    """(times, [voltages of each layer, (N, units)] at each): dv/dt = u - v - beta(t) dC/ds from the voltages v.

    until_rest: ends as soon as no voltage changes faster than AT_REST.
    """
    def split(flat):
        ends = np.cumsum([v_n.size for v_n in v])
        return [part.reshape(v_n.shape) for part, v_n in zip(np.split(flat, ends[:-1]), v)]

    def speed(t, flat):
        v = split(flat)
        s = states(network, v)
        u, _ = network.drives(x, s)
        if beta(t):
            u[-1] = u[-1] + beta(t) * network.cost.force(s[-1], y)
        return np.concatenate([(u_n - v_n).ravel() for u_n, v_n in zip(u, v)])

    def at_rest(t, flat):
        return abs(speed(t, flat)).max() - AT_REST

    at_rest.terminal = True
    found = solve_ivp(speed, (times[0], times[-1]), np.concatenate([v_n.ravel() for v_n in v]), "DOP853", rtol=1e-9, atol=1e-11,
                      t_eval=None if until_rest else times, events=at_rest if until_rest else None)
    return found.t, [split(flat) for flat in found.y.T]


def states(network, v):
    return [sigma.sigma(v_n) for sigma, v_n in zip(network.activations, v)]


def settle(network, x):
    """(time until at rest, states there, largest rise of E on the way) from v = 0."""
    v = network.init_state(x)
    times, path = flow(network, x, v, (0.0, 1e4), until_rest=True)
    E = np.array([network.energy(x, states(network, v)) for v in path])
    return times[-1], states(network, path[-1]), np.diff(E, axis=0).max()


def swung_gradient(network, x, y, period, b):
    """The gradient read out over one period of beta, after one period to swing in from rest."""
    free, targets = ep.relax(network, x, REST), network.targets(y)
    times = period * np.arange(2 * SAMPLES + 1) / SAMPLES
    _, path = flow(network, x, free.u, times, targets, lambda t: b * np.sin(2 * np.pi * t / period))
    angles = 2 * np.pi * np.arange(SAMPLES) / SAMPLES
    swing = ep.Nudging(tuple(b * np.sin(angles)), tuple(2 * np.sin(angles) / (b * SAMPLES)))
    seen = [Relaxation(states(network, v), free.switches, 1, []) for v in path[SAMPLES:-1]]
    total = difference_of_states(network, x, free, seen, swing)  # - sum_k c_k dPhi/dtheta: the integral as a sum over a period
    return {name: g / len(x) for name, g in total.items()}


def compared(gradient, exact):
    """(cosine, relative error) over all parameters."""
    g, e = (np.concatenate([some[name].ravel() for name in sorted(exact)]) for some in (gradient, exact))
    return g @ e / np.sqrt((g @ g) * (e @ e)), np.linalg.norm(g - e) / np.linalg.norm(e)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="default: 0.5 0.8 0.95")
    parser.add_argument("--periods", type=float, nargs="+", default=[3, 10, 30, 100, 300], help="in tau of the last radius")
    parser.add_argument("--b", type=float, default=0.04, help="amplitude of beta (default: 0.04)")
    args = parser.parse_args()
    x, y = np.random.default_rng(0).random((1, 8)), np.array([1])
    print("radius    tau  time to rest  in tau  synchronous steps  checkerboard  distance of the fixed points  E rose")
    for radius in args.radii:
        network = small_network(radius, x)
        exact = ep.relax(network, x, REST)
        r = ep.spectral_radius(network, x, exact, 300)[0]
        time, s, rise = settle(network, x)
        start, tau = states(network, network.init_state(x)), 1 / (1 - r)
        steps = [ep.relax(network, x, Phase(20000, name, AT_REST), start=start).steps for name in ("synchronous", "checkerboard")]
        apart = ep.residual(s, exact.states)
        print(f"{r:6.3f} {tau:6.1f} {time:13.1f} {time / tau:7.1f} {steps[0]:18} {steps[1]:13} {apart:29.0e}  {rise > 1e-12}")
    truth = ep.rbp_gradient(network, x, y, Phases(REST, REST)).gradient
    for period, b in [*((period, args.b) for period in args.periods), (args.periods[-1], args.b / 2)]:
        cosine, error = compared(swung_gradient(network, x, y, period * tau, b), truth)
        print(f"swings of {b:g} with the period {period:g} tau: cosine {cosine:.6f}, relative error {error:.1e}")


if __name__ == "__main__":
    cli.run(main)
