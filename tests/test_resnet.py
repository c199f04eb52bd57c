"""Residual networks: identity skips, the builder, and all that is proved of chains, on 13 layers; and depth up to 50."""

import numpy as np
import pytest
from helpers import (
    COST_NAMES,
    along,
    data,
    dot,
    flat,
    moved,
    normal,
    random_direction,
    random_states,
    relative,
    slope,
)
from test_deviations import check_against_states
from test_dynamics import largest_violation
from test_fast import SYMMETRIC, assert_close, assert_equal
from test_gain import INVERSE
from test_gdu import falls_as, increments
from test_network import check_derivatives

import ep
from ep import bptt, dynamics, fast
from ep.activations import ACTIVATIONS, RELU6
from ep.backend import to_host
from ep.builders import calibrate, from_recipe, load, resnet
from ep.cost import COSTS
from ep.datasets.dataset import Dataset
from ep.dynamics import SCHEDULES, Phase, Phases, relax
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.network import Network
from ep.nudging import Nudging
from ep.rbp import rbp_gradient
from ep.synapse import Identity
from ep.train import equilibrium, experiment
from ep.train.checkpoint import restore, save_checkpoint
from ep.train.loop import train_epoch

DEPTHS = {4: 1, 8: 3, 14: 6, 26: 12, 50: 24}  # layers, the readout among them, and how many blocks these are
every_cost = pytest.mark.parametrize("cost", COST_NAMES)
every_activation = pytest.mark.parametrize("activation", ["relu6", "sigmoid"])
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def thirteen(xp, activation="relu6", cost="cross-entropy", *, dtype="float64", feedback=0.2, pool="average", **options):
    """13 layers in three stages on 8x8 pixels, two or three channels: four identities and two 1x1 skips with a stride."""
    options = dict(scale=(1.5, 2.0)) | options
    return resnet(6, (2, 3, 3), (8, 8, 2), 3, pool=pool, activation=ACTIVATIONS[activation], cost=COSTS[cost], dtype=dtype,
                  feedback=feedback, **options).to(xp)


def at_rest(net, x):
    free = relax(net, x, Phase(600, "up", 2e-15))
    assert free.converged
    return free


# --- the synapse --------------------------------------------------------------------------------------------------------


def test_three_faces_of_an_identity(xp):
    """Phi = < drive_post(pre), post > = < pre, drive_pre(post) >; each is the derivative of Phi; nothing to learn."""
    skip, pre, post, d = Identity((4, 3, 2)), *(normal(xp, (2, 4, 3, 2), k) for k in range(3))
    phi = dot(skip.phi(pre, post), xp.ones(2))
    assert skip.pre_shape == skip.post_shape == (4, 3, 2) and skip.parameters() == {} == skip.hebbian(pre, post)
    assert dot(skip.drive_post(pre)[0], post) == pytest.approx(phi) == dot(pre, skip.drive_pre(post))
    assert dot(skip.linear_post(pre), post) == pytest.approx(phi) == dot(pre, skip.drive_post_adjoint(post))
    assert slope(lambda t: dot(skip.phi(pre, post + t * d), xp.ones(2))) == pytest.approx(dot(skip.drive_post(pre)[0], d))
    assert slope(lambda t: dot(skip.phi(pre + t * d, post), xp.ones(2))) == pytest.approx(dot(skip.drive_pre(post), d))
    assert skip.drive_post(pre)[1] is None is skip.winners(pre) and skip.linear_hebbian(pre, post) == {}


# --- the builder --------------------------------------------------------------------------------------------------------


def test_the_wiring():
    """Stem, then b and c of every block; the skip leads from a to c; its gain is gamma^2; 3x3 and 1x1 kernels, strides of 2."""
    net = resnet(3, (2, 4), (16, 16, 3), feedback=0.1)
    assert net.wiring == [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4), (4, 5), (3, 5), (5, 6), (6, 7), (5, 7)]
    assert net.depths == list(range(8)) and net.gains[3] == pytest.approx(0.01)
    assert net.shapes[1:] == [(8, 8, 2)] * 3 + [(4, 4, 4)] * 4
    skips = net.synapses[3::3]
    assert [type(skip) for skip in skips] == [Identity, ep.Conv, Identity]
    assert skips[1].W.shape == (1, 1, 2, 4) and skips[1].stride == net.synapses[4].stride == 2
    assert list(net.parameters()) == [f"{k}.{p}" for k in (1, 2, 3, 5, 6, 7, 8, 9) for p in "Wb"] + ["readout.W", "readout.b"]
    blocks = {(6, 3): [2, 2, 2], (7, 3): [2, 2, 3], (1, 1): [1], (5, 2): [2, 3]}
    for (total, stages), expected in blocks.items():
        made = resnet(total, [2] * stages, (32, 32, 3))
        assert len(made.shapes) - 1 == 1 + 2 * total
        sizes = [shape[0] for shape in made.shapes[3::2]]
        assert [sizes.count(16 >> stage) for stage in range(stages)] == expected
    inside = resnet(1, (2,), (8, 8, 3), 5, cost="squared-error", activation="hard-sigmoid")
    assert inside.shapes[-1] == (5,) and inside.wiring[-1] == (3, 4)


@pytest.mark.parametrize("build,match", [
    (lambda: resnet(1, (2, 3)), "at least one block for each"), (lambda: resnet(0, (2,)), "blocks: .* got 0"),
    (lambda: resnet(1, ()), "at least one number of channels"), (lambda: resnet(1, (2,), (32, 32)), "input shape"),
    (lambda: resnet(1, (2,), scale=(1, 2, 3)), "each of the 4 layers"), (lambda: resnet(1, (2,), (1, 1, 3)), "leaves"),
    (lambda: resnet(activation="tanh"), "max-pooling needs states"), (lambda: Identity((3, 0)), "shape: .* got 0")])
def test_impossible_networks_are_refused(build, match):
    with pytest.raises(EPError, match=match):
        build()


@dtypes
@every_cost
def test_a_saved_network_comes_back(xp, tmp_path, cost, dtype):
    """Symmetric and asymmetric; one that was changed since is refused."""
    for net in (thirteen(xp, cost=cost, dtype=dtype), ep.asymmetric(thirteen(xp, cost=cost, dtype=dtype))):
        x, _ = data(xp, net, dtype=dtype)
        net.save(tmp_path / "net.npz")
        again = load(tmp_path / "net.npz").to(xp)
        assert relative(net.parameters(), again.parameters()) == 0 and again.feedback == net.feedback
        assert relative(relax(net, x, 5).states, relax(again, x, 5).states) == 0
    net.synapses[1].pool = ep.AVERAGE_POOL
    with pytest.raises(EPError, match="has been changed since"):
        net.save(tmp_path / "net.npz")


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("blocks", DEPTHS.values())
def test_initial_states_are_alive_at_any_depth(blocks, calibrated):
    """Every layer of 3 to 49 varies over images as much as the stem, or up to three times; hardly a unit is at a bound always."""
    net = resnet(blocks, (8, 16, 16)[:blocks], (16, 16, 3))
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    if calibrated:
        calibrate(net, x, 1.0)
        assert all((abs(synapse.b) < 3.0).all() for synapse in net.synapses if synapse.parameters())
    states = relax(net, x, Phase(1, "up")).states
    sizes = np.array([s.std(0).mean() for s in states])
    assert (sizes > 0.3 * sizes[0]).all() and (sizes < 3 * sizes[0]).all()
    stuck = [((s <= 0).all(0) | (s >= 6).all(0)).mean() for s in states]
    assert max(stuck) < (0.05 if calibrated else 0.5)


def test_calibrated_drives():
    """What has weights varies by the deviation; what is added to one of the 4 identities by its share, 1/sqrt(4)."""
    net, rng = thirteen(np, dtype="float32", pool="max"), np.random.default_rng(0)
    x = rng.normal(size=(256, 8, 8, 2)).astype("float32")
    calibrate(net, x, 0.8)
    layers = [x, *relax(net, x, Phase(1, "up")).states]
    for n in range(1, 14):
        parts = [(synapse.drive_post(layers[i])[0], type(synapse) is Identity)
                 for synapse, (i, j) in zip(net.synapses, net.wiring) if j == n]
        u = sum(part for part, is_identity in parts if not is_identity)
        share = 0.5 if any(is_identity for _, is_identity in parts) else 1.0
        assert np.allclose(u.std((0, 1, 2)), 0.8 * share, rtol=1e-3) and abs(u.mean((0, 1, 2))).max() < 1e-5


# --- the theory, on 13 layers -------------------------------------------------------------------------------------------


@every_cost
@every_activation
def test_drives_and_products_are_the_derivatives_of_phi(xp, activation, cost):
    """w_n u_n = dPhi/ds_n, hebbian = dPhi/dtheta, E = sum w_n G - Phi, by finite differences, at two gains."""
    for feedback in (1.0, 0.5):
        check_derivatives(xp, thirteen(xp, activation, cost, feedback=feedback, pool="max"))


@every_activation
def test_the_slope_of_the_energy(xp, activation):
    """dE/ds_n = w_n (sigma^-1(s_n) - u_n) at a random state, for every layer; and 0 at the fixed point."""
    net = thirteen(xp, activation, feedback=0.3)
    x, _ = data(xp, net)
    states = random_states(xp, net)
    u = net.drives(x, states)[0]
    for n, w in enumerate(net.weights):
        d = normal(xp, states[n].shape, [4, n])
        measured = slope(lambda t, n=n, d=d: to_host(
            net.energy(x, [*states[:n], states[n] + t * d, *states[n + 1:]])).sum())
        expected = w * (INVERSE[activation](flat(states[n])) - flat(u[n])) @ flat(d)
        # round-off: differences of energies of the size of the largest weight
        assert abs(measured - expected) < 1e-8 * max(net.weights) and abs(expected) > 1e-2 * w
    assert largest_violation(net, x, at_rest(net, x).states) < 1e-9 < largest_violation(net, x, states)


@every_cost
@every_activation
def test_ep_and_bptt_are_finite_differences(xp, activation, cost):
    """dL/dtheta along a random direction in all parameters: EP, BPTT and recurrent backpropagation."""
    net = thirteen(xp, activation, cost)
    x, y = data(xp, net)
    direction, phases = random_direction(net), Phases(Phase(80, "up"), Phase(80, "down"))
    expected = slope(along(net, direction, lambda: settled_loss(net, x, y)))
    assert abs(expected) > 1e-4
    found = eqprop_gradient(net, x, y, phases, nudging=Nudging.four_point(1e-3)).gradient
    assert dot(found, direction) == pytest.approx(expected, rel=1e-7)
    assert min(abs(to_host(g)).max() for g in found.values()) > 1e-5
    assert dot(rbp_gradient(net, x, y, phases).gradient, direction) == pytest.approx(expected, rel=1e-7)
    by_bptt = bptt.bptt_gradient(net, x, y, Phases(160, 160)).gradient
    assert dot(by_bptt, direction) == pytest.approx(expected, rel=1e-7)


def settled_loss(net, x, y):
    free = at_rest(net, x)
    return to_host(net.cost.value(free.states[-1], y).sum()).item() / len(x)


def test_a_difference_of_states_is_finite_differences(xp):
    """Equation (4), where the weights of the layers leave float64 enough digits."""
    net = thirteen(xp, "sigmoid", feedback=0.5)
    x, y = data(xp, net)
    direction, phases = random_direction(net), Phases(Phase(300, "up"), Phase(300, "down"), deviations=False)
    expected = slope(along(net, direction, lambda: settled_loss(net, x, y)))
    found = eqprop_gradient(net, x, y, phases, nudging=Nudging.four_point(1e-2)).gradient
    assert dot(found, direction) == pytest.approx(expected, rel=1e-6) and abs(expected) > 1e-4


def test_a_skip_with_the_gain_of_one_layer_is_noticed(xp, monkeypatch):
    """gamma on every way down, as scaling the feedback without an energy would have it: (4) is then no gradient. (12) still is
    one, for the response runs through D^T of whatever D is."""
    net = thirteen(xp, "sigmoid", "squared-error", feedback=0.5)
    x, y = data(xp, net)
    direction = random_direction(net)
    monkeypatch.setattr(Network, "gains", property(lambda net: [net.feedback if i else 1.0 for i, _ in net.wiring]))
    expected = slope(along(net, direction, lambda: settled_loss(net, x, y)))
    for deviations in (True, False):
        phases = Phases(Phase(300, "up"), Phase(300, "down"), deviations)
        found = eqprop_gradient(net, x, y, phases, nudging=Nudging.four_point(1e-2)).gradient
        assert (abs(dot(found, direction) / expected - 1) < 1e-3) == deviations


@pytest.mark.parametrize("activation,feedback,deviations", [("relu6", 0.2, True), ("sigmoid", 0.2, True),
                                                            ("sigmoid", 0.5, False)])
def test_increments_are_bptts(xp, activation, feedback, deviations):
    """GDU: step by step, mu_t of BPTT is - w_n times the change of s_n, with an error of beta^2. A difference of states has the
    rounding of states times w_1, divided by beta: it needs a larger one."""
    net = thirteen(xp, activation, "squared-error", feedback=feedback)
    x, y = data(xp, net)
    free, betas, errors = at_rest(net, x), (1e-3, 5e-4) if deviations else (1e-2, 5e-3), []
    backward = of_backward(net, x, y, free)
    for beta in betas:
        forward = increments(net, x, y, free, Nudging.symmetric(beta), deviations)
        errors.append([relative(ours, bptts) for ours, bptts in zip(zip(*forward), zip(*backward))])
    assert np.max(errors[-1]) < 1e-4
    assert all(falls_as(2, pair, betas) for pair in zip(*errors))


def of_backward(net, x, y, free):
    """BPTT's increments, as test_gdu.py has them; 10 steps do not reach the first of 13 layers."""
    backward = bptt.bptt_increments(net, x, y, free.states, 10)
    assert sum(flat(m).any() for m in backward[-1][1]) > 8
    return backward


@pytest.mark.parametrize("activation,beta", [("relu6", 0.5), ("sigmoid", -0.5)])
def test_deviations_are_differences_of_frozen_states(xp, activation, beta):
    """delta_n / w_n = s_n - s*_n, in every schedule, with max-pooling behind the stem."""
    net = thirteen(xp, activation, feedback=0.6, pool="max")
    x, y = data(xp, net)
    check_against_states(net, x, y, relax(net, x, 2000), beta, SCHEDULES)


@pytest.mark.parametrize("connections", ep.CONNECTIONS)
def test_transposed_drives_are_the_transposed_jacobian(xp, connections):
    """< D v, mu > = < v, D^T mu >, with D v by differences of the drives; asymmetric too, where identities stay what they are."""
    net = ep.CONNECTIONS[connections](thirteen(xp))
    x, _ = data(xp, net)
    states, mu, v = random_states(xp, net), *([normal(xp, (3, *s), [seed, k]) for k, s in enumerate(net.shapes[1:])]
                                              for seed in (1, 2))
    by_differences = slope(lambda t: dot(net.drives(x, moved(states, v, t))[0], mu))
    back = net.transposed_drives(mu, net.drives(x, states)[1])
    assert dot(list(back.values()), v) == pytest.approx(by_differences, rel=1e-8)


@pytest.mark.parametrize("schedule", ["checkerboard", "up", "down"])
def test_steps_never_raise_the_energy(xp, schedule):
    """Blocks are triangles, which take three colours: no two layers that are joined move together."""
    net = thirteen(xp)
    groups = [list(group) for group in SCHEDULES[schedule](net)]
    assert not any(i in group and j in group for i, j in net.wiring for group in groups)
    assert len(groups) == (3 if schedule == "checkerboard" else 13)
    x, _ = data(xp, net)
    for net.feedback in (1.0, 0.5):
        states = random_states(xp, net)
        energies = [to_host(net.energy(x, states))]
        for _ in range(6):
            states = relax(net, x, Phase(1, schedule), start=states).states
            energies.append(to_host(net.energy(x, states)))
        assert np.diff(energies, axis=0).max() < 1e-13 * np.abs(energies).max()
        assert (energies[1] < energies[0]).all()


# --- fast = readable ------------------------------------------------------------------------------------------------------


def wirings():
    """Networks that are no chains, by name: float64, and three classes."""
    rng = np.random.default_rng(0)

    def conv(pre, C, k=3, **options):
        return ep.Conv(rng.normal(0, 0.4, (k, k, pre[2], C)), rng.normal(0, 0.2, C), pre, **options)

    small = (6, 5, 3)
    branches = [conv((13, 11, 2), 3, padding=1), conv((13, 11, 2), 3, stride=2, padding=1, pool="none"), Identity(small),
                conv(small, 4, stride=2, pool="none"), conv((7, 6, 3), 4, 4, padding=1, pool="average")]
    dense = ep.Dense(rng.normal(0, 0.3, (90, 3)), np.zeros(3), small)
    found = {
        "13 layers": thirteen(np, pool="max"),
        "13 layers, no pooling": thirteen(np, "hard-sigmoid", "squared-error", pool="none"),
        "smooth": thirteen(np, "sigmoid", pool="max"),
        "a stride with pooling, a kernel of 2": Network(
            [branches[0], conv(small, 2, stride=2, pool="max"), ep.Dense(rng.normal(0, 1, (2, 3)), np.zeros(3), (1, 1, 2))],
            RELU6, ep.SquaredError(), feedback=0.3),
        "two ways down from one layer, two inputs": Network(
            [branches[0], branches[1], Identity(small), dense, conv((7, 6, 3), 3, 2, padding=0, pool="none"), dense],
            RELU6, ep.SquaredError(), [(0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (3, 4)], feedback=0.3),
        "a skip beside its synapse": Network([branches[0], conv(small, 3, pool="none"), Identity(small), dense], RELU6,
                                             ep.SquaredError(), [(0, 1), (1, 2), (1, 2), (2, 3)], feedback=0.3),
        "numbered in another order": Network([conv(small, 3, pool="none"), branches[0], dense], RELU6, ep.SquaredError(),
                                             [(2, 1), (0, 2), (1, 3)], feedback=0.3),
        "an identity from the input": Network([Identity((6, 5, 3)), conv(small, 3, pool="none"), dense], RELU6,
                                              ep.SquaredError(), [(0, 1), (1, 2), (2, 3)], feedback=0.3),
        "the last layer leads on": Network([branches[0], dense, ep.Dense(rng.normal(0, 0.3, (3, 4)), np.zeros(4), (3,))], RELU6,
                                           ep.SquaredError(), [(0, 1), (1, 3), (3, 2)], feedback=0.3),
    }
    for net in found.values():
        calibrate(net, rng.normal(size=(16, *net.shapes[0])), 1.0, 0.5)
    return {**found, "asymmetric": ep.asymmetric(found["13 layers"]),
            "another asymmetric one": ep.asymmetric(found["two ways down from one layer, two inputs"])}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wiring", list(wirings()))
def test_every_wiring_fast(wiring, schedule):
    """Free and nudged, from zero and from a random state, frozen and live; response and products: all as on the readable path."""
    net = wirings()[wiring]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, *net.shapes[0])), rng.integers(0, 3, 3)
    start, frozen = [rng.random((3, *s)) for s in net.shapes[1:]], dynamics.relax(net, x, 1).switches
    assert fast.unsuitable(net) is None
    solver = fast.prepared(net)
    for beginning, beta, switches in ((None, 0.0, None), (start, 0.0, None), (start, 0.3, None), (start, -0.2, frozen)):
        phase = Phase(4, schedule, check_every=1)
        found, expected = (r(net, x, phase, y, beta, start=beginning, switches=switches)
                           for r in (solver.relax, dynamics.relax))
        assert_equal(found, expected, bound=1e-10)
        assert all(abs(a - b).max() < 1e-10 for a, b in zip(found.u, expected.u))
        assert all(np.ptp(s) > 0 for s in expected.states)
    for transposed in (True, False):
        phases = Phases(Phase(3, "up"), Phase(3, schedule))
        found, expected = (ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, transposed=transposed, solver=s)
                           for s in (solver, ep.READABLE))
        assert list(found.gradient) == list(expected.gradient)
        for name, g in expected.gradient.items():
            assert abs(found.gradient[name] - g).max() <= 1e-10 * abs(g).max()
        assert any(abs(g).max() > 0 for g in expected.gradient.values())


def test_fast_products_of_any_states():
    """Also of states that the buffers do not hold: what is a copy in them is made anew."""
    net, rng = wirings()["two ways down from one layer, two inputs"], np.random.default_rng(2)
    x, states, mu = rng.normal(size=(3, *net.shapes[0])), *([rng.random((3, *s)) for s in net.shapes[1:]] for _ in range(2))
    solver = fast.prepared(net)
    solver.relax(net, x, Phase(2, "up"))
    switches = dynamics.relax(net, x, 1, start=states).switches
    found, expected = (f(x, states, switches, mu) for f in (lambda *a: solver.products(net, *a), net.parameter_adjoint))
    assert_close([found[name] for name in expected], list(expected.values()))


def test_fast_float32():
    """Rounding grows neither with depth nor with the identities."""
    net = thirteen(np, dtype="float32", feedback=0.01, pool="max")
    calibrate(net, np.random.default_rng(0).random((64, 8, 8, 2)), 1.0)
    wide = from_recipe({**net.recipe, "dtype": "float64", "feedback": 0.01},
                       {name: w.astype("float64") for name, w in net.parameters().items()})
    x, y = data(np, net, dtype="float32")
    phases = Phases(Phase(3, "up"), Phase(2, "down"))
    found = eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, solver=fast.prepared(net))
    expected = eqprop_gradient(wide, x.astype("float64"), y, phases, nudging=SYMMETRIC)
    for s, s_expected in zip(found.free.states, expected.free.states):
        assert s.dtype == np.float32 and abs(s - s_expected).max() < 1e-4
    for name, g in expected.gradient.items():
        assert found.gradient[name].dtype == np.float32 and abs(found.gradient[name] - g).max() < 1e-3 * abs(g).max()


# --- depth ------------------------------------------------------------------------------------------------------------------


def cosines_of(blocks, phases, nudging=None, dtype="float32"):
    """({layer: cosine with the exact gradient}, estimate): float32, the fast path, weak feedback; exact in float64."""
    net = resnet(blocks, (4, 8, 8)[:blocks], (16, 16, 3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 16, 16, 3)).astype(dtype), np.arange(16) % 10
    calibrate(net, x, 1.0)
    exact = equilibrium.exact_gradient(net, x, y, phases.free)
    assert exact.free.converged and exact.free.steps < 12
    estimate = eqprop_gradient(net, x, y, phases, nudging=nudging or Nudging.symmetric(0.1), solver=fast.prepared(net))
    return equilibrium.cosines(estimate.gradient, exact.gradient), estimate


@pytest.mark.parametrize("layers", DEPTHS)
def test_the_cosine_of_every_layer_at_any_depth(layers):
    """Two sweeps up, one down. Nothing underflows, though w_1 is 10^144 at 50 layers, and nothing fades."""
    cosines, estimate = cosines_of(DEPTHS[layers], Phases(Phase(2, "up"), Phase(1, "down")))
    assert len(cosines) >= layers and min(cosines.values()) > (0.99 if layers <= 14 else 0.97), cosines
    sizes = [abs(d).mean() for d in estimate.nudged[0].states]
    assert min(sizes) > 0.05 * max(sizes)


def test_a_difference_of_states_fails_at_depth():
    """The same network by equation (4), in float32: the lower layers get noise or nothing."""
    with np.errstate(all="ignore"):
        cosines, _ = cosines_of(6, Phases(Phase(2, "up"), Phase(1, "down"), deviations=False))
    assert min(cosines.values()) < 0.5


# --- training ---------------------------------------------------------------------------------------------------------------


def test_training_learns_and_resumes_bit_for_bit(tmp_path):
    """--network resnet on 64 images: the loss falls; from a checkpoint in the middle it goes on to the same parameters."""
    rng = np.random.default_rng(0)
    labels = (np.arange(64) % 4).astype(np.uint8)
    images = np.clip(rng.normal(120, 30, (64, 16, 16, 3)) + 25 * labels[:, None, None, None], 0, 255).astype("uint8")
    dataset = Dataset(images, labels, images, labels, tuple("abcd"), "made up", "made up", (0.5,) * 3, (0.25,) * 3)
    config = experiment.resolve(dataset, network="resnet", channels=(4, 6, 8), train_images=64, test_images=64, batch_size=16,
                                epochs=6, warm_up=2, chunk=8, lr=(5e-3,), flip=False)
    assert config.feedback == 0.001 and config.initial_drive > 0 and len(config.scale) == 2

    def start():
        network, optimizer, gradient = experiment.build(config, x=dataset.normalise(images))
        return network, optimizer, gradient, []

    def train(network, optimizer, gradient, losses, epochs):
        for epoch in epochs:
            train_epoch(network, images, labels, gradient, optimizer, batch_size=16, epoch=epoch,
                        prepare=lambda batch, rng: dataset.normalise(batch), on_step=lambda _, e: losses.append(e.loss))

    whole, half, rest = start(), start(), start()
    assert fast.unsuitable(whole[0]) is None and whole[0].unsaveable is None and len(whole[0].shapes) == 14
    train(*whole, range(6))
    assert np.mean(whole[3][-4:]) < 0.6 * np.mean(whole[3][:4])
    train(*half, range(3))
    save_checkpoint(tmp_path / "checkpoint.npz", *half[:2], {})
    restore(tmp_path / "checkpoint.npz", *rest[:2])
    train(*rest, range(3, 6))
    assert relative(rest[0].parameters(), whole[0].parameters()) == 0 and rest[3] == whole[3][12:]


@pytest.mark.parametrize("activation", ["relu6", "hard-sigmoid"])
def test_without_feedback_ep_is_pytorchs_backpropagation(activation):
    """What examples/laboratory/backpropagation.py trains by, strides and identities included: the same gradient at gamma = 0."""
    pytest.importorskip("torch")
    from test_options import load as load_example

    net = resnet(6, (3, 4, 5), (16, 16, 3), activation=activation, feedback=0.0, dtype="float64")
    x, y = np.random.default_rng(0).normal(size=(8, 16, 16, 3)), np.arange(8) % 10
    calibrate(net, x, 1.0, 0.3)
    found = eqprop_gradient(net, x, y, Phases(Phase(1, "up"), Phase(1, "down")), nudging=Nudging.symmetric(1e-5)).gradient
    expected = load_example("backpropagation").backpropagated(net, x, y, None).gradient
    assert found.keys() == expected.keys() and min(abs(g).max() for g in expected.values()) > 0
    for name, g in expected.items():
        assert relative(found[name], g) < 1e-6
