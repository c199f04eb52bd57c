"""Networks as they are built, saved, loaded and refused; and what goes in and comes out of them."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from cases import ANGLE, CE, SE, Case, data, every
from helpers import flat, relative
from scipy.signal import correlate2d

from ep import ops
from ep.activations import CLIP, HARD_SIGMOID, TANH
from ep.backend import to_host
from ep.builders import calibrate, convnet, load, mlp, resnet, whitening
from ep.cost import COSTS, SoftmaxCrossEntropy, SquaredError
from ep.dynamics import Phase, relax
from ep.errors import EPError
from ep.network import Network
from ep.npz import read_npz
from ep.ops import AVERAGE_POOL
from ep.synapse import Conv, Dense, Filtered, Identity
from ep.vectorfield import Asymmetric, alignment, asymmetric

every_cost = pytest.mark.parametrize("cost", [CE, SE])


def dense(pre, post):
    return Dense(np.zeros((pre, post)), np.zeros(post), (pre,))


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build,match", [
    (lambda: Conv(np.zeros((3, 3, 1, 1)), np.zeros(1), (3, 3, 1), padding=0), "leaves nothing of a 3x3 image"),
    (lambda: convnet([4, 4, 4], (8, 8, 3)), "leaves nothing of a 2x2 image"),
    (lambda: convnet([]), "got channels"), (lambda: convnet([4, 0]), "channels: .* got 0"),
    (lambda: convnet([4, 4], paddings=[1]), "one padding per layer"),
    (lambda: convnet([4], scale=0.0), "positive scale"), (lambda: convnet([4], scale=[2, 1, 1]), "each of the 2 layers"),
    (lambda: mlp([5, 4, 3], scale=[1, -1]), "positive scale"), (lambda: convnet([4], dtype="float16"), "float32 or float64"),
    (lambda: mlp([5, 3]), "at least one hidden layer"), (lambda: mlp([5, 0, 3]), "sizes: .* got 0"),
    (lambda: convnet([4], (8, 8, 3), activation=TANH), "max-pooling needs states >= 0"),
    (lambda: Network([dense(4, 3), dense(2, 3)], "sigmoid", SquaredError()), "synapse 2 expects layer 1 to have shape"),
    (lambda: Network([dense(4, 3)], "sigmoid", SquaredError(), wiring=[(0, 2)]), "without a gap"),
    (lambda: resnet(1, (2, 3)), "at least one block for each"), (lambda: resnet(0, (2,)), "blocks: .* got 0"),
    (lambda: resnet(1, ()), "at least one number of channels"), (lambda: resnet(1, (2,), (32, 32)), "input shape"),
    (lambda: resnet(1, (2,), scale=(1, 2, 3)), "each of the 4 layers"), (lambda: resnet(1, (2,), (1, 1, 3)), "leaves"),
    (lambda: resnet(activation="tanh"), "max-pooling needs states"), (lambda: Identity((3, 0)), "shape: .* got 0"),
    (lambda: asymmetric(Case("average", angle=ANGLE).network()), "asymmetric already"),
    (lambda: Asymmetric(dense(4, 3), np.zeros((4, 1))), "shape of the forward weights")])
def test_impossible_networks_are_refused(build, match):
    """Each impossible architecture is one sentence."""
    with pytest.raises(EPError, match=match):
        build()


@pytest.mark.parametrize("gain", [-0.1, float("nan"), float("inf"), "1", None, 1j])
def test_gains_that_make_no_sense_are_refused(gain):
    """By the network, by the builders, and when it is changed later: in one sentence, and the old one stays."""
    net = Case("average", gain=0.5).network()
    for build in (lambda: setattr(net, "feedback", gain), lambda: mlp([4, 3, 2], feedback=gain),
                  lambda: convnet([2], (6, 6, 1), feedback=gain)):
        with pytest.raises(EPError, match="feedback gain"):
            build()
    assert net.feedback == 0.5


def test_a_synapse_that_cannot_be_doubled_is_named():
    """By asymmetric()."""
    net = Case("average").network()
    net.synapses[1] = SimpleNamespace(W=net.synapses[1].W, parameters=net.synapses[1].parameters)  # a kind of one's own
    with pytest.raises(EPError, match="synapse 2 cannot have feedback weights of its own: it has no b"):
        asymmetric(net)


@every_cost
def test_builders_take_the_gain(cost):
    """mlp and convnet; 1, the paper's, without."""
    for build in (lambda **o: mlp([4, 3, 3, 2], cost=COSTS[cost], **o),
                  lambda **o: convnet([2, 3], (8, 8, 1), cost=COSTS[cost], **o)):
        assert build().feedback == 1.0 and build(feedback=0.02).feedback == 0.02
        assert relative(build().parameters(), build(feedback=0.02).parameters()) == 0


def test_the_initial_weights(xp):
    """U(-scale/sqrt(fan_in), scale/sqrt(fan_in)); scale is not for biases and readout; one seed, one network."""
    plain, wide = (convnet([16, 16], (8, 8, 3), seed=4, scale=scale).to(xp).parameters() for scale in (1.0, 2.0))
    for name, fan_in in (("1.W", 27), ("1.b", 27), ("2.W", 144), ("2.b", 144), ("readout.W", 144 // 9), ("readout.b", 16)):
        assert 0.7 < abs(to_host(plain[name])).max() * fan_in**0.5 <= 1.0
        factor = 2.0 if name in ("1.W", "2.W") else 1.0
        assert relative(wide[name], factor * plain[name]) < 1e-6
    assert relative(convnet([16, 16], (8, 8, 3), seed=4).to(xp).parameters(), plain) == 0


def test_scales_of_layers():
    """One per layer, the readout too, or two, for the hidden layers and the classes; biases stay as they are."""
    plain, each, two, same = (convnet([4, 5], (8, 8, 3), seed=4, scale=scale).parameters()
                              for scale in (1.0, (3.0, 2.0, 0.5), (2.0, 3.0), (2.0, 2.0, 3.0)))
    for name, w in each.items():
        assert relative(w, {"1.W": 3.0, "2.W": 2.0, "readout.W": 0.5}.get(name, 1.0) * plain[name]) < 1e-6
    assert relative(two, same) == 0


def test_the_papers_network(monkeypatch):
    """Shapes of its states; one step takes 324 M multiply-adds per image (all states moving, and the drive of the input).

    A step evaluates every weight in both directions: 2 x 32 x 32 x ... = 320.9 M without the first layer's top-down, i.e.
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


def test_the_wiring_of_a_residual_network():
    """Stem, then b and c of every block; the skip leads from a to c; its gain is gamma^2; 3x3 and 1x1 kernels, strides of 2."""
    net = resnet(3, (2, 4), (16, 16, 3), feedback=0.1)
    assert net.wiring == [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4), (4, 5), (3, 5), (5, 6), (6, 7), (5, 7)]
    assert net.depths == list(range(8)) and net.gains[3] == pytest.approx(0.01)
    assert net.shapes[1:] == [(8, 8, 2)] * 3 + [(4, 4, 4)] * 4
    skips = net.synapses[3::3]
    assert [type(skip) for skip in skips] == [Identity, Conv, Identity]
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


@every([Case(wiring, "hard-sigmoid", gain=0.0) for wiring in ("dense", "average", "max")] + [Case("residual", gain=0.0)])
def test_calibrated_drives(case):
    """Over the images that it has seen, the drives that come through weights have the asked mean and deviation in every unit of
    the feed-forward pass; beside one of m identities, 1/sqrt(m) of it. Not so the readout."""
    net = case.network()
    x, readout = data(np, net, n=40)[0], net.cost.W.copy()
    calibrate(net, x, 0.4, mean=0.1)
    assert np.array_equal(net.cost.W, readout)
    layers = [x, *relax(net, x, Phase(1, "up")).states]  # without feedback one sweep is the feed-forward pass
    identities = sum(type(synapse) is Identity for synapse in net.synapses)
    for n in range(1, len(layers)):
        parts = [(type(synapse) is Identity, synapse.drive_post(layers[i])[0])
                 for synapse, (i, j) in zip(net.synapses, net.wiring) if j == n]
        u, over = sum(part for is_identity, part in parts if not is_identity), tuple(range(layers[n].ndim - 1))
        share = identities**-0.5 if any(is_identity for is_identity, _ in parts) else 1.0
        assert np.allclose(u.std(over), 0.4 * share) and np.allclose(u.mean(over), 0.1)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_the_angle_between_W_and_B(xp, angle):
    """asymmetric(angle) makes it (exactly at 0, else up to the chance overlap of random weights), with |B| = |W| or nearly."""
    net = asymmetric(convnet([8, 12, 12], (16, 16, 3), 3), angle).to(xp)
    found = alignment(net.parameters())
    assert found.keys() == {"2", "3"}
    for layer, (degrees, distance) in found.items():
        W, B = flat(net.parameters()[f"{layer}.W"]).astype(float), flat(net.parameters()[f"{layer}.B"]).astype(float)
        assert degrees == pytest.approx(angle, abs=0 if angle == 0 else 5)
        assert np.cos(np.deg2rad(degrees)) == pytest.approx(W @ B / np.linalg.norm(W) / np.linalg.norm(B), abs=1e-6)
        assert distance == pytest.approx(np.linalg.norm(W - B), rel=1e-5)
        assert np.linalg.norm(B) == pytest.approx(np.linalg.norm(W), rel=0.1)


def test_small_angles_are_not_lost(xp):
    """1e-5 degrees, where the cosine is 1 - 1.5e-14."""
    W, R = xp.asarray([[3.0, 4.0]]), xp.asarray([[-4.0, 3.0]])
    assert alignment({"2.W": W, "2.B": W + R * float(np.deg2rad(1e-5))})["2"][0] == pytest.approx(1e-5, rel=1e-6)


# --- what goes in and comes out -----------------------------------------------------------------------------------------


def test_inputs_of_the_wrong_shape_or_type_are_refused():
    """init_state checks what relaxes from zero."""
    net = Case("average").network()
    for x in (np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 2), dtype=int)):
        with pytest.raises(EPError, match=r"expected inputs of shape \(N, 8, 8, 2\)"):
            net.init_state(x)


def test_predictions_and_targets(xp):
    """predict = the largest output; integer labels become one-hot rows, two-dimensional targets are kept."""
    net = Case("average", cost=SE).network(xp)
    y = net.targets(xp.asarray([2, 0]))
    assert np.array_equal(to_host(y), [[0, 0, 1], [1, 0, 0]]) and str(y.dtype) == "float64"
    assert np.array_equal(to_host(net.predict([None, y])), [2, 0])
    assert np.array_equal(to_host(net.targets(0.5 * y)), 0.5 * to_host(y))


def test_the_number_of_classes_is_that_of_the_last_layer(xp):
    """Whatever synapse stands last in the list: here one into layer 1, of five units, that has no bias."""
    class WithoutBias(Dense):
        def parameters(self):
            return {"W": self.W}

    first, *others = Case("triangle").network(xp).synapses
    net = Network([*others, WithoutBias(first.W, first.b, first.pre_shape)], "sigmoid", SquaredError(),
                  wiring=[(1, 2), (2, 3), (1, 3), (0, 1)])
    assert np.array_equal(to_host(net.targets(xp.asarray([2, 0]))), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("change,match", [
    (lambda p: p.pop("1.W"), "another architecture: expected"),
    (lambda p: p.update({"9.W": p["1.W"]}), "another architecture: expected"),
    (lambda p: p.update({"readout.b": np.zeros(7)}), r"readout.b belongs .* expected shape \(3,\), got \(7,\)")])
def test_parameters_that_do_not_fit_change_nothing(change, match):
    """Refused before any parameter is replaced."""
    net = Case("average").network()
    before, new = net.parameters(), {k: 0 * v for k, v in net.parameters().items()}
    change(new)
    with pytest.raises(EPError, match=match):
        net.set_parameters(new)
    assert all(net.parameters()[k] is v for k, v in before.items())


# --- files --------------------------------------------------------------------------------------------------------------


@every([Case(wiring, cost=cost, gain=0.3, angle=angle, seed=3) for wiring in ("dense", "average", "max", "residual")
        for cost in (CE, SE) for angle in (None, 50.0)] + [replace(Case("residual", "relu6"), dtype="float32")])
def test_a_saved_network_comes_back(xp, tmp_path, case):
    """save, load: the same parameters, bit for bit, the same dynamics, the gain as it is now, and what it is about."""
    net = case.network(xp)
    x, _ = data(xp, net, dtype=case.dtype)
    net.feedback, net.about = 0.02, {"classes": ["cat", "dog", "ship"], "mean": [0.5, 0.25]}
    net.save(tmp_path / "net.npz")
    again = load(tmp_path / "net.npz").to(xp)
    assert net.parameters().keys() == again.parameters().keys()
    assert relative(net.parameters(), again.parameters()) == 0
    assert relative(relax(net, x, 5).states, relax(again, x, 5).states) == 0
    assert again.feedback == 0.02 and again.about == net.about and type(again.cost) is type(net.cost)
    net.about = None
    net.save(tmp_path / "net.npz")
    assert load(tmp_path / "net.npz").about is None


def test_files_that_are_no_network_are_refused(tmp_path):
    """A missing, a truncated, a foreign and a text file, and a pickled one: loading never executes what a file says."""
    path = tmp_path / "net.npz"
    Case("average").network().save(path)
    content = path.read_bytes()
    (tmp_path / "half.npz").write_bytes(content[:len(content) // 2])
    (tmp_path / "text.npz").write_text("not a network")
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", network=np.array([print], dtype=object))
    for name in ("missing", "half", "text", "foreign", "pickled"):
        with pytest.raises(EPError):
            load(tmp_path / f"{name}.npz")


def changed(**values):
    return lambda described: json.dumps({**described, **values})


@pytest.mark.parametrize("change", [
    lambda _: "{", lambda _: "1", lambda _: "[]", changed(activation="x"), changed(feedback=-1), changed(cost="x"),
    changed(synapses=[]), changed(wiring=[[0, 2]]), changed(synapses=[["ep.Dense", {}, {}, {}]])])
def test_descriptions_of_no_network_are_refused(tmp_path, change):
    """A file whose description is damaged, or of another version: one sentence as well."""
    path = tmp_path / "net.npz"
    Case("dense").network().save(path)
    arrays = read_npz(path)
    np.savez(path, **{**arrays, "network": np.array(change(json.loads(str(arrays["network"]))))})
    with pytest.raises(EPError):
        load(path)


def test_a_network_is_saved_as_it_is_now(tmp_path):
    """Not as it was built: another pooling and activation."""
    net = Case("max").network()
    net.synapses[1].pool, net.activation = AVERAGE_POOL, CLIP
    net.save(tmp_path / "net.npz")
    again = load(tmp_path / "net.npz")
    assert again.written()[0] == net.written()[0] and again.synapses[1].pool == AVERAGE_POOL and again.activation == CLIP


# --- fixed filters ----------------------------------------------------------------------------------------------------------


def test_what_fixed_filters_see(xp):
    """Every filter and its negative, cut at 0, pixel by pixel with scipy; the filters follow W to another type, and back."""
    filters = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    network = convnet([3], (7, 6, 2), 3, filters=filters, dtype="float64").to(xp)
    x = np.random.default_rng(1).random((2, 7, 6, 2))
    synapse, expected = network.synapses[0], np.zeros((2, 7, 6, 8))
    for n, f in np.ndindex(2, 4):
        y = sum(correlate2d(x[n, ..., c], filters[..., c, f], "same") for c in range(2))
        expected[n, ..., f], expected[n, ..., 4 + f] = np.maximum(y, 0), np.maximum(-y, 0)
    np.testing.assert_allclose(to_host(synapse.seen(xp.asarray(x))), expected, rtol=1e-12, atol=1e-12)
    plain = Conv(synapse.W, synapse.b, (7, 6, 8), padding=0)
    drive, expected = synapse.drive_post(xp.asarray(x))[0], plain.drive_post(xp.asarray(expected))[0]
    np.testing.assert_allclose(to_host(drive), to_host(expected), rtol=1e-12)
    assert "1.F" not in network.parameters() and network.parameters()["1.W"].shape == (3, 3, 8, 3)
    narrow = asymmetric(network)
    narrow.set_parameters({name: w.astype("float32") for name, w in network.parameters().items()})
    assert narrow.synapses[0].drive_post(xp.asarray(x, dtype="float32"))[0].dtype == "float32"
    assert synapse.filters.W.dtype == "float64"  # the other network has its own
    with pytest.raises(EPError, match="nothing comes down"):
        synapse.drive_pre(drive, None)


def test_filters_that_do_not_fit():
    with pytest.raises(EPError, match="filters"):
        convnet([3], (7, 6, 2), 3, filters=np.zeros((3, 3, 2)))
    with pytest.raises(EPError, match="image"):
        convnet([3], (7, 6, 2), 3, filters=np.zeros((3, 3, 5, 4)))
    front = Conv(np.zeros((3, 3, 2, 4)), np.zeros(4), (7, 6, 2), pool="none")
    with pytest.raises(EPError, match=r"2 \* 4\)"):
        Filtered(front, Conv(np.zeros((3, 3, 4, 3)), np.zeros(3), (7, 6, 4)))


def test_whitening():
    """Responses to the patches that it was made of are uncorrelated and about equally strong, whatever the colours share."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12, 12, 1)) * 3 + rng.normal(size=(40, 12, 12, 3)) * 0.3 + 5.0
    filters = whitening(x, 12)
    assert filters.shape == (3, 3, 3, 12) and filters.dtype == "float32"
    patches = np.stack([x[:, i:i + 3, j:j + 3].reshape(40, -1) for i in range(10) for j in range(10)], 1).reshape(-1, 27)
    covariance = np.cov((patches @ filters.reshape(27, 12)).T)
    assert np.diag(covariance)[:9] == pytest.approx(np.ones(9), abs=0.01)  # the nine that colours share
    assert np.diag(covariance)[9:] == pytest.approx(np.full(3, 0.09 / (0.09 + 5e-4 * 27.09)), abs=0.02)  # and three that differ
    assert abs(covariance - np.diag(np.diag(covariance))).max() < 0.01
    assert (whitening(x + 1e-13 * rng.normal(size=x.shape), 12) == filters).all()  # on another machine, too
    assert (filters.reshape(27, 12).max(0) >= -filters.reshape(27, 12).min(0)).all()  # of the two signs, this one
    with pytest.raises(EPError, match="27 components: got 28"):
        whitening(x, 28)
    for small in (x[:, :2], x[:, :, :1], 0 * x):
        with pytest.raises(EPError, match="at least this size that are not all of one colour"):
            whitening(small)


@pytest.mark.parametrize("build", [partial(convnet, [3, 4]), partial(resnet, 2, (3, 4))], ids=["convnet", "resnet"])
def test_filters_are_saved(tmp_path, build):
    network = build(input_shape=(8, 8, 2), classes=3, filters=whitening(np.random.default_rng(0).random((9, 8, 8, 2)), 5))
    x = np.random.default_rng(1).random((2, 8, 8, 2)).astype("float32")
    network.save(tmp_path / "net.npz")
    for one, other in zip(*(relax(net, x, 5).states for net in (network, load(tmp_path / "net.npz")))):
        assert (one == other).all()
