"""Phi and its derivatives for whole networks, any wiring; builders, files, errors; the paper's network."""

import numpy as np
import pytest
from helpers import (
    COST_NAMES,
    NETWORKS,
    T,
    along,
    data,
    dot,
    loss,
    moved,
    network,
    normal,
    random_direction,
    random_states,
    relative,
    slope,
)

from ep import ops
from ep.activations import HARD_SIGMOID, SIGMOID, TANH
from ep.backend import to_host
from ep.bptt import bptt_gradient
from ep.builders import calibrate, convnet, load, mlp
from ep.cost import SoftmaxCrossEntropy, SquaredError
from ep.dynamics import Phase, Phases, relax
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.network import Network
from ep.nudging import Nudging
from ep.synapse import Conv, Dense

every_network = pytest.mark.parametrize("kind,activation", NETWORKS)


def skip_network(xp):
    """x -> 1 -> 2 -> 3 with a skip connection 1 -> 3: a triangle, so no chain and not even bipartite; in no order of layers."""
    def dense(pre, post, seed):
        return Dense(0.3 * normal(xp, (pre, post), seed), normal(xp, (post,), seed + 1), (pre,))
    synapses = [dense(4, 3, 5), dense(6, 5, 1), dense(5, 4, 3), dense(5, 3, 7)]
    return Network(synapses, SIGMOID, SquaredError(), wiring=[(2, 3), (0, 1), (1, 2), (1, 3)])


def check_derivatives(xp, net):
    """w_n u_n = dPhi/ds_n, hebbian = dPhi/dtheta along random directions, and E = sum w_n G - Phi, at a random state."""
    x, _ = data(xp, net)
    states = random_states(xp, net)
    d = [normal(xp, s.shape, [9, k]) for k, s in enumerate(states)]
    direction = {k: v for k, v in random_direction(net).items() if "readout" not in k}
    u, switches = net.drives(x, states)
    by_state = slope(lambda t: to_host(net.phi(x, moved(states, d, t))).sum())
    everywhere = {k: direction.get(k, 0.0) for k in net.parameters()}
    by_theta = slope(along(net, everywhere, lambda: to_host(net.phi(x, states)).sum()))
    assert by_state == pytest.approx(dot([w * u_n for w, u_n in zip(net.weights, u)], d), rel=1e-9)
    assert by_theta == pytest.approx(dot(direction, net.hebbian(x, states, switches)), rel=1e-9)
    G = sum(w * to_host(net.activation.G(s)).reshape(len(x), -1).sum(1) for w, s in zip(net.weights, states))
    assert np.allclose(to_host(net.energy(x, states)), G - to_host(net.phi(x, states)), rtol=1e-12, atol=0)


@every_network
@pytest.mark.parametrize("cost", COST_NAMES)
def test_drives_and_hebbian_are_the_derivatives_of_phi(xp, kind, activation, cost):
    """Bottom-up plus top-down drives = dPhi/ds, the products of activities = dPhi/dtheta."""
    check_derivatives(xp, network(xp, kind, activation, cost))


def test_a_skip_connection_is_only_wiring(xp):
    """The same for a network that is no chain; EP and BPTT there give the gradient of the loss."""
    net = skip_network(xp)
    check_derivatives(xp, net)
    x, y = data(xp, net)
    direction = random_direction(net)
    expected = slope(along(net, direction, lambda: loss(net, x, y, T)))
    ep = eqprop_gradient(net, x, y, Phases(T, T), nudging=Nudging.four_point(1e-3)).gradient
    assert dot(ep, direction) == pytest.approx(expected, rel=1e-8)
    assert dot(bptt_gradient(net, x, y, Phases(T, T)).gradient, direction) == pytest.approx(expected, rel=1e-8)
    assert min(abs(to_host(g)).max() for g in ep.values()) > 1e-5


def test_the_drives_of_a_group_are_those_of_everyone(xp):
    """drives_of(group) = drives, restricted to the group."""
    net = network(xp, "max")
    x, _ = data(xp, net)
    states = random_states(xp, net)
    u, switches = net.drives(x, states)
    part = net.drives_of([2], net.input_drives(x), states, list(switches))
    assert list(part) == [2] and relative(part[2], u[1]) == 0


def check_single_precision(xp, kind, activation, nudging, deviations=True):
    net = network(xp, kind, activation, dtype="float32")
    x, y = data(xp, net, dtype="float32")
    result = eqprop_gradient(net, x, y, Phases(5, 3, deviations), nudging=nudging)
    arrays = [*result.free.u, *result.gradient.values()]
    arrays += [s for phase in (result.free, *result.nudged) for s in phase.states]
    assert {str(a.dtype) for a in arrays} == {"float32"}
    assert {str(g.dtype) for g in bptt_gradient(net, x, y, Phases(5, 3)).gradient.values()} == {"float32"}


@pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])
@every_network
def test_single_precision_is_kept(xp, kind, activation, deviations):
    """float32 in, float32 states and gradients out."""
    check_single_precision(xp, kind, activation, Nudging.symmetric(0.1), deviations)


@pytest.mark.parametrize("beta", [np.float64(0.1), np.float32(0.1)], ids=["float64", "float32"])
def test_numpy_numbers_as_nudging_strength_promote_nothing(xp, beta):
    """The same where beta is a NumPy number, as it is when it comes out of an array."""
    check_single_precision(xp, "max", "hard-sigmoid", Nudging.symmetric(beta))


def test_predictions_and_targets(xp):
    """predict = the largest output; integer labels become one-hot rows, two-dimensional targets are kept."""
    net = network(xp, cost="squared-error")
    y = net.targets(xp.asarray([2, 0]))
    assert np.array_equal(to_host(y), [[0, 0, 1], [1, 0, 0]]) and str(y.dtype) == "float64"
    assert np.array_equal(to_host(net.predict([None, y])), [2, 0])
    assert np.array_equal(to_host(net.targets(0.5 * y)), 0.5 * to_host(y))


def test_the_number_of_classes_is_that_of_the_last_layer(xp):
    """Whatever synapse stands last in the list: here one into layer 1, of five units, that has no bias."""
    class WithoutBias(Dense):
        def parameters(self):
            return {"W": self.W}

    one, first, *others = skip_network(xp).synapses
    net = Network([one, *others, WithoutBias(first.W, first.b, first.pre_shape)], SIGMOID, SquaredError(),
                  wiring=[(2, 3), (1, 2), (1, 3), (0, 1)])
    assert np.array_equal(to_host(net.targets(xp.asarray([2, 0]))), [[0, 0, 1], [1, 0, 0]])


# --- parameters and files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "average", "max"])
@pytest.mark.parametrize("cost", COST_NAMES)
def test_a_saved_network_comes_back(xp, tmp_path, kind, cost):
    """save, load: the same parameters, bit for bit, and the same dynamics."""
    net = network(xp, kind, "sigmoid", cost, seed=3, scale=1.3)
    x, _ = data(xp, net)
    net.save(tmp_path / "net.npz")
    again = load(tmp_path / "net.npz").to(xp)
    assert net.parameters().keys() == again.parameters().keys()
    assert relative(net.parameters(), again.parameters()) == 0
    assert relative(relax(net, x, 5).states, relax(again, x, 5).states) == 0
    assert again.recipe == net.recipe and type(again.cost) is type(net.cost)


def test_files_that_are_no_network_are_refused(tmp_path):
    """A missing, a truncated, a foreign and a text file: one sentence each."""
    path = tmp_path / "net.npz"
    network(np).save(path)
    content = path.read_bytes()
    (tmp_path / "half.npz").write_bytes(content[:len(content) // 2])
    (tmp_path / "text.npz").write_text("not a network")
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    for name in ("missing", "half", "text", "foreign"):
        with pytest.raises(EPError):
            load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("recipe", ["{", "1", "[]", '{"builder": "x"}', '{"builder": "mlp"}',
                                    '{"builder": "mlp", "sizes": [3, 3, 3], "activation": "x"}'])
def test_recipes_that_build_nothing_are_refused(tmp_path, recipe):
    """A file with a recipe that is damaged, or of another version: one sentence as well."""
    np.savez(tmp_path / "net.npz", recipe=np.array(recipe))
    with pytest.raises(EPError):
        load(tmp_path / "net.npz")


def test_pickled_files_are_refused(tmp_path):
    """Loading never executes what a file says."""
    np.savez(tmp_path / "evil.npz", recipe=np.array([print], dtype=object))
    with pytest.raises(EPError):
        load(tmp_path / "evil.npz")


def test_only_networks_with_a_recipe_are_saved(tmp_path):
    """A network joined by hand cannot be rebuilt from a file."""
    with pytest.raises(EPError, match="only networks made by"):
        skip_network(np).save(tmp_path / "net.npz")


@pytest.mark.parametrize("change,match", [
    (lambda p: p.pop("1.W"), "another architecture: expected"),
    (lambda p: p.update({"9.W": p["1.W"]}), "another architecture: expected"),
    (lambda p: p.update({"readout.b": np.zeros(7)}), r"readout.b belongs .* expected shape \(3,\), got \(7,\)")])
def test_parameters_that_do_not_fit_change_nothing(change, match):
    """Refused before any parameter is replaced."""
    net = network(np)
    before, new = net.parameters(), {k: 0 * v for k, v in net.parameters().items()}
    change(new)
    with pytest.raises(EPError, match=match):
        net.set_parameters(new)
    assert all(net.parameters()[k] is v for k, v in before.items())


# --- builders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build,match", [
    (lambda: convnet([4, 4, 4], (8, 8, 3)), "leaves nothing of a 2x2 image"),
    (lambda: convnet([]), "got channels"), (lambda: convnet([4, 0]), "channels: .* got 0"),
    (lambda: convnet([4, 4], paddings=[1]), "one padding per layer"),
    (lambda: convnet([4], scale=0.0), "positive scale"), (lambda: convnet([4], scale=[2, 1, 1]), "each of the 2 layers"),
    (lambda: mlp([5, 4, 3], scale=[1, -1]), "positive scale"), (lambda: convnet([4], dtype="float16"), "float32 or float64"),
    (lambda: mlp([5, 3]), "at least one hidden layer"), (lambda: mlp([5, 0, 3]), "sizes: .* got 0"),
    (lambda: convnet([4], (8, 8, 3), activation=TANH), "max-pooling needs states >= 0"),
    (lambda: Network([Dense(np.zeros((4, 3)), np.zeros(3), (4,)), Dense(np.zeros((2, 3)), np.zeros(3), (2,))], SIGMOID,
                     SquaredError()), "synapse 2 expects layer 1 to have shape"),
    (lambda: Network([Dense(np.zeros((4, 3)), np.zeros(3), (4,))], SIGMOID, SquaredError(), wiring=[(0, 2)]),
     "without a gap")])
def test_impossible_networks_are_refused(build, match):
    """Each impossible architecture is one sentence."""
    with pytest.raises(EPError, match=match):
        build()


def test_inputs_of_the_wrong_shape_or_type_are_refused():
    """init_state checks what relaxes from zero."""
    net = network(np, "average")
    for x in (np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 2), dtype=int)):
        with pytest.raises(EPError, match=r"expected inputs of shape \(N, 8, 8, 2\)"):
            net.init_state(x)


def test_the_initial_weights(xp):
    """U(-scale/sqrt(fan_in), scale/sqrt(fan_in)); scale is not for biases and readout; one seed, one network."""
    plain, wide = (convnet([16, 16], (8, 8, 3), seed=4, scale=scale).to(xp).parameters() for scale in (1.0, 2.0))
    for name, fan_in in (("1.W", 27), ("1.b", 27), ("2.W", 144), ("2.b", 144), ("readout.W", 144 // 9), ("readout.b", 16)):
        assert 0.7 < abs(to_host(plain[name])).max() * fan_in**0.5 <= 1.0
        factor = 2.0 if name in ("1.W", "2.W") else 1.0
        assert relative(wide[name], factor * plain[name]) < 1e-6
    assert relative(convnet([16, 16], (8, 8, 3), seed=4).to(xp).parameters(), plain) == 0


def test_one_scale_per_layer(xp):
    """scale = (a, b, c): layer by layer, the readout too; biases stay as they are."""
    plain, scaled = (convnet([16, 16], (8, 8, 3), seed=4, scale=scale).to(xp).parameters() for scale in (1.0, (3.0, 2.0, 0.5)))
    for name, w in scaled.items():
        assert relative(w, {"1.W": 3.0, "2.W": 2.0, "readout.W": 0.5}.get(name, 1.0) * plain[name]) < 1e-6


def test_the_papers_network(monkeypatch):
    """convnet() has the paper's states, and one step costs 324 M multiply-adds per image.

    Bottom-up and top-down each cost (outputs of the convolution) x (kernel size) x (input channels) of synapses 2 to 4,
    2 x 160.4 M; the drive of the input adds 3.5 M, which `relax` pays only once.
    """
    net, count = convnet(), []
    assert net.shapes == [(32, 32, 3), (16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 512)]
    assert net.activation is HARD_SIGMOID and type(net.cost) is SoftmaxCrossEntropy and net.cost.W.shape == (512, 10)
    conv, adjoint = ops.conv, ops.conv_adjoint_input

    def counting_conv(x, W, *geometry):
        y = conv(x, W, *geometry)
        count.append(y.size * W[..., 0].size)
        return y

    def counting_adjoint(y, W, *geometry):
        count.append(y.size * W[..., 0].size)
        return adjoint(y, W, *geometry)

    monkeypatch.setattr(ops, "conv", counting_conv)
    monkeypatch.setattr(ops, "conv_adjoint_input", counting_adjoint)
    x = np.zeros((1, 32, 32, 3), dtype="float32")
    net.input_drives(x)
    of_input, count[:] = sum(count), []
    for steps in (1, 2):
        relax(net, x, steps)
        count[:] = [*count[:steps - 1], sum(count[steps - 1:])]
    assert of_input + count[1] - count[0] == pytest.approx(324e6, rel=2e-3)
    assert count[1] - count[0] == 2 * 160_432_128


def test_any_pooling_and_stride_can_be_joined_by_hand(xp):
    """Synapses with stride 2 and no pooling make a network like any other."""
    def conv(shape, pre, C, seed, **options):
        return Conv(0.2 * normal(xp, (3, 3, pre[2], C), seed), normal(xp, (C,), seed + 1), pre, pool=ops.NO_POOL, **options)
    first = conv(None, (8, 8, 2), 3, 1, stride=2)
    second = conv(None, first.post_shape, 4, 3, stride=2, padding=0)
    last = Dense(0.2 * normal(xp, (4, 3), 5), normal(xp, (3,), 6), second.post_shape)
    check_derivatives(xp, Network([first, second, last], TANH, SquaredError()))


@pytest.mark.parametrize("kind", ["dense", "average", "max"])
def test_calibrated_drives(kind):
    """Over the images that it has seen, every unit's drive of the feed-forward pass has the asked mean and deviation."""
    net = network(np, kind, "hard-sigmoid")
    net.feedback = 0.0  # one sweep is then the feed-forward pass
    x, _ = data(np, net, n=40)
    readout = net.cost.W.copy()
    u = relax(calibrate(net, x, 0.4, mean=0.1), x, Phase(1, "up")).u
    for u_n in u:
        over = tuple(range(u_n.ndim - 1))
        assert np.allclose(u_n.std(over), 0.4) and np.allclose(u_n.mean(over), 0.1)
    assert np.array_equal(net.cost.W, readout)


def test_two_scales_are_for_the_hidden_layers_and_the_classes():
    """Two numbers fit any number of layers."""
    two, each = (convnet([3, 4, 5], (16, 16, 2), 3, scale=scale).parameters() for scale in ((2.0, 3.0), (2.0, 2.0, 2.0, 3.0)))
    assert all(np.array_equal(two[name], each[name]) for name in each)
    with pytest.raises(EPError, match="expected one positive scale"):
        convnet([3, 4, 5], (16, 16, 2), 3, scale=(1.0, 2.0, 3.0))
