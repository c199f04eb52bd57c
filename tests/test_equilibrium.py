"""The distance to equilibrium: right where it can be computed by other means, and a run that has left it is told so."""

from functools import partial

import numpy as np
import pytest
from cases import ANGLE, Case
from helpers import relative

import ep
from ep import Nudging, Phase, Phases
from ep.train import equilibrium
from ep.train.equilibrium import accuracies, cosines, distance, exact_gradient
from ep.train.experiment import Config
from ep.train.watch import in_words, no_network, quiet_failures


def plain(images, rng):
    return images


@pytest.mark.parametrize("feedback", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("angle", [None, ANGLE], ids=["symmetric", "asymmetric"])
def test_the_exact_gradient_is_that_of_bptt(xp, angle, feedback):
    """Unrolled over hundreds of steps; a float32 network is copied to float64, and stays what it is."""
    network, x, y = Case("average", gain=feedback, angle=angle, dtype="float32").example(xp)
    before = {name: w.copy() for name, w in network.parameters().items()}
    found = exact_gradient(network, x, y, Phase(2, "up"))
    wide = equilibrium.in_float64(network)
    assert wide.feedback == feedback
    expected = ep.bptt_gradient(wide, x.astype("float64"), y, Phases(300, 300)).gradient
    assert found.free.converged and relative(found.gradient, expected) < 1e-7
    assert all((w == before[name]).all() and w.dtype == np.float32 for name, w in network.parameters().items())


def test_cosines_of_whole_layers(xp):
    """Weights and biases of a layer are one vector; nothing agrees with a gradient that is 0 or not finite."""
    a = {"1.W": xp.asarray([1.0, 0.0]), "1.b": xp.asarray([1.0]), "2.W": xp.asarray([2.0], dtype="float32"), "3.W": xp.zeros(2)}
    b = {"1.W": xp.asarray([1.0, 1.0]), "1.b": xp.asarray([0.0]), "2.W": xp.asarray([-3.0]), "3.W": xp.ones(2)}
    assert cosines(a, b) == pytest.approx({"1": 0.5, "2": -1.0, "3": 0.0})
    assert cosines(a, {**b, "2.W": xp.asarray([np.nan])})["2"] == 0.0


def images(network, n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *network.shapes[0])).astype(np.float32), rng.integers(0, 3, n)


def test_accuracies_are_those_of_the_same_images(monkeypatch):
    """Against two relaxations of all images at once. In a network that settles they are equal; in one that does not (here: for
    want of steps) they part, and few images are enough to see it."""
    settles, wanders = (ep.convnet([4, 6], (8, 8, 3), 3, paddings=[1, 1], scale=scale, feedback=feedback, seed=2)
                        for scale, feedback in (((2.0, 2.0, 9.0), 0.02), ((6.0, 6.0, 9.0), 1.0)))
    x, y = images(settles, 300)
    found = accuracies(settles, x, y, Phase(2, "up"), prepare=plain)
    at_T, settled = ep.relax(settles, x, Phase(2, "up")), ep.relax(settles, x, Phase(300, "checkerboard", 1e-6))
    right, still = (settles.predict(r.states) == y for r in (at_T, settled))
    assert (found["accuracy_at_T"], found["fixed_point_accuracy"]) == (right.mean(), still.mean())
    assert found["changed_images"] == (right != still).mean() < 0.02
    assert (found["settled_images"], found["fixed_point_images"]) == (1.0, 300)
    monkeypatch.setattr(equilibrium, "SETTLED", Phase(4, "checkerboard", 1e-5))
    found = accuracies(wanders, x, y, Phase(1), prepare=plain)
    assert found["settled_images"] < 0.95 and found["fixed_point_images"] == equilibrium.FEW and found["changed_images"] > 0.1


def test_many_images_are_enough():
    """Of more than MANY images, the first MANY are looked at."""
    network = ep.mlp([4, 5, 3], feedback=0.1)
    x, y = images(network, 1100)
    found = accuracies(network, x, y, Phase(3, "up"), prepare=plain)
    assert found["fixed_point_images"] == 1000 == equilibrium.MANY
    assert found == accuracies(network, x[:1000], y[:1000], Phase(3, "up"), prepare=plain)


def measured(network, gradient, phases):
    x, y = images(network, 40)
    return distance(network, x, y, gradient, phases, prepare=plain)


def test_the_cosine_finds_a_wrong_rule():
    """EP by deviations has 1 in every layer; the wrong sign in one layer has -1 there; noise in another about 0."""
    network, phases = ep.convnet([4, 6], (8, 8, 3), 3, paddings=[1, 1], scale=2.0, feedback=0.05), Phases(
        Phase(4, "up"), Phase(3, "down"), deviations=True)
    right = partial(ep.eqprop_gradient, phases=phases, nudging=Nudging.symmetric(0.1))

    def wrong(network, x, y):
        estimate = right(network, x, y)
        estimate.gradient["2.W"] = -estimate.gradient["2.W"]
        estimate.gradient["1.W"] = np.random.default_rng(0).normal(size=estimate.gradient["1.W"].shape)
        return estimate

    found = measured(network, right, phases)
    assert [key for key in found if "cosine" in key] == ["cosine_1", "cosine_2", "cosine_readout", "smallest_cosine",
                                                          "cosine_one_pass", "largest_cosine_feed_forward"]
    assert found["smallest_cosine"] == min(found[f"cosine_{layer}"] for layer in ("1", "2", "readout")) > 0.99
    found = measured(network, wrong, phases)
    assert found["smallest_cosine"] == found["cosine_2"] < -0.9 and abs(found["cosine_1"]) < 0.5 < found["cosine_readout"]


def test_without_a_fixed_point_there_is_no_cosine(monkeypatch):
    """Said so, instead of a number that means nothing; and a line of words for both cases."""
    monkeypatch.setattr(equilibrium, "SETTLED", Phase(4, "checkerboard", 1e-5))
    network = ep.convnet([8, 8, 8], (16, 16, 3), 3, paddings=[1, 1, 1], scale=4.0)
    phases = Phases(Phase(2, "checkerboard"), 2)
    found = measured(network, partial(ep.eqprop_gradient, phases=phases, nudging=Nudging.symmetric(0.1)), phases)
    assert found["settled_images"] < 0.5 and found["smallest_cosine"] is found["cosine_2"] is None
    assert in_words(found).endswith("no exact gradient")
    assert "smallest cosine 0.950 (layer 2)" in in_words({**found, "cosine_1": 0.99, "cosine_2": 0.95, "smallest_cosine": 0.95})


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_the_regime(gain):
    """Against other means: one backward pass is EP with one sweep down and a tiny nudge; BPTT at gain 0 is backpropagation.

    With full feedback all of it is worth less than with weak feedback, where the network is nearly feed-forward.
    """
    network = ep.convnet([4, 6], (8, 8, 3), 3, paddings=[1, 1], pool="average", scale=3.0, feedback=gain, dtype="float64")
    (x, y), free = images(network, 16), Phase(400, "checkerboard", 1e-12)
    x, alone = x.astype("float64"), equilibrium.without_feedback(network)
    found = distance(network, x, y, partial(ep.eqprop_gradient, phases=Phases(free, 20), nudging=Nudging.symmetric(0.01)),
                     Phases(free, 20), prepare=plain)
    exact = ep.bptt_gradient(network, x, y, Phases(400, 400)).gradient
    down = Phases(free, Phase(1, "down"), deviations=True)
    one_pass = ep.eqprop_gradient(network, x, y, down, nudging=Nudging.symmetric(1e-5)).gradient
    forward = ep.bptt_gradient(alone, x, y, Phases(4, 4)).gradient
    one_pass, forward = ([c for layer, c in cosines(g, exact).items() if layer != "readout"] for g in (one_pass, forward))
    assert found["cosine_one_pass"] == pytest.approx(min(one_pass), abs=1e-4)
    assert found["largest_cosine_feed_forward"] == pytest.approx(max(forward), abs=1e-6)
    settled = ep.relax(network, x, free)
    radii = ep.spectral_radius(network, x, settled)
    assert (found["spectral_radius"], found["largest_spectral_radius"]) == pytest.approx((radii.mean(), radii.max()), rel=1e-6)
    assert found["accuracy_without_feedback"] == (network.predict(ep.relax(alone, x, 3).states) == y).mean()
    assert network.feedback == gain and alone.feedback == 0.0
    weak = gain < 0.1
    assert (found["spectral_radius"] < 0.2) == (found["cosine_one_pass"] > 0.995) == weak
    assert (found["largest_cosine_feed_forward"] > 0.98) == weak


LINE = dict(converged=1.0, residual=0.0, fixed_point_images=1000, accuracy_at_T=0.8, fixed_point_accuracy=0.8, changed_images=0.0,
            cosine_1=0.99, cosine_2=0.97, smallest_cosine=0.97)


def warnings(config=None, **changes):
    return [kind for kind, _ in quiet_failures({**LINE, **changes}, config or Config())]


def test_the_warnings_are_about_what_is_beyond_noise():
    """One point is allowed, and twice the standard deviation of the images that changed; a cosine may not be below 0.9."""
    assert warnings() == warnings(fixed_point_accuracy=0.791, changed_images=0.009) == []
    assert warnings(fixed_point_accuracy=0.785, changed_images=0.015) == []  # 1.5 points, 1 + 0.77 allowed
    assert warnings(fixed_point_accuracy=0.77, changed_images=0.03) == ["fixed_point_accuracy"]
    assert warnings(fixed_point_accuracy=0.83, changed_images=0.03) == ["fixed_point_accuracy"]
    assert warnings(fixed_point_accuracy=0.77, changed_images=0.2) == []  # as many became right as wrong
    assert warnings(smallest_cosine=0.89, cosine_2=0.89) == ["smallest_cosine"] and warnings(smallest_cosine=None) == []
    own, exact = (Config(connections="asymmetric", feedback_update=rule) for rule in ("own", "exact"))
    low = dict(smallest_cosine=0.2, cosine_2=0.2)
    assert warnings(own, **low) == [] and warnings(exact, **low) == ["smallest_cosine"]
    sentence = dict(quiet_failures({**LINE, **low}, Config()))["smallest_cosine"]
    assert "layer 2" in sentence and "0.20" in sentence


def test_the_exact_gradient_is_combined_like_the_estimate():
    network = ep.convnet([4, 6], (8, 8, 3), 3, paddings=[1, 1], scale=2.0, feedback=0.05)
    phases = Phases(Phase(4, "up"), Phase(3, "down"), deviations=True)
    right = partial(ep.eqprop_gradient, phases=phases, nudging=Nudging.symmetric(0.1))
    found = distance(network, *images(network, 16), right, phases, prepare=plain,
                     combined=lambda g: {**g, "2.W": -g["2.W"], "2.b": -g["2.b"]})
    assert found["cosine_1"] > 0.99 and found["smallest_cosine"] == found["cosine_2"] < -0.99


def test_the_exact_gradient_where_synchronous_steps_alternate():
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 3
    network = ep.mlp([4, 6, 6, 3], scale=3.0, seed=2, dtype="float64")
    assert not ep.relax(network, x, Phase(220, "synchronous", 1e-10)).converged
    assert exact_gradient(network, x, y, Phase(20, "synchronous")).free.converged


def test_a_tolerance_is_a_share_of_the_bound():
    network = ep.convnet([2], (6, 6, 2), 3, activation="relu6")
    assert equilibrium.settled(network).tolerance == pytest.approx(6 * equilibrium.SETTLED.tolerance)


def test_thresholds_of_what_is_said():
    line = dict(converged=0.6, residual=0.1, stuck_1=0.94, stuck_2=0.96, gradient_norm_1=1e-9, gradient_norm_2=0.0)
    assert [kind for kind, _ in quiet_failures(line, Config(tolerance=1e-3))] == ["stuck_2", "gradient_norm_2"]
    assert [kind for kind, _ in quiet_failures(dict(converged=0.4, residual=0.1), Config(tolerance=1e-3))] == ["converged"]
    assert not list(quiet_failures(dict(converged=0.4, residual=0.1), Config(tolerance=0.0)))
    network = ep.mlp([2, 3, 2])
    network.parameters()["1.W"][0, 0] = -1e7
    assert "1.W is up to 1e+07" in no_network(network)
