"""Settings: one table, one order of precedence, frozen; and they become the network, optimizer and gradient that they say."""

import dataclasses
import json

import numpy as np
import pytest

import ep
from ep.datasets import cifar
from ep.datasets.dataset import Dataset, hold_out
from ep.dynamics import Phase, Phases
from ep.train import experiment
from ep.train.experiment import PRESETS, Config, resolve


def dataset(name="cifar10", train=50000, test=10000):
    """A data set of empty images."""
    images = np.zeros((1, 32, 32, 3), np.uint8)
    many = [np.broadcast_to(images, (n, 32, 32, 3)) for n in (train, test)]
    labels = [np.zeros(n, np.uint8) for n in (train, test)]
    return Dataset(many[0], labels[0], many[1], labels[1], tuple("abcdefghij"), name, "made up")


@pytest.fixture(autouse=True)
def no_checksum(monkeypatch):
    monkeypatch.setattr(experiment.zlib, "crc32", lambda *arguments: 0)  # of images that are views of one


def test_the_papers_preset_is_the_papers():
    """Gain 1, the difference of two states, synchronous, SGD; and its other numbers for other costs and connections."""
    config = resolve(dataset(), "paper")
    assert (config.feedback, config.nudged_phases, config.schedule, config.schedule_nudged, config.optimizer) == (
        1.0, "states", "synchronous", "synchronous", "sgd")
    assert (config.steps_free, config.steps_nudged, config.beta, config.tolerance) == (250, 25, 1.0, 0.0)
    assert (config.lr, config.weight_decay, config.anneal_epochs) == ((0.25, 0.15, 0.1, 0.08, 0.05), 3e-4, 100)
    squared = resolve(dataset(), "paper", cost="squared-error")
    assert (squared.beta, squared.steps_nudged) == (0.5, 30)
    asymmetric = resolve(dataset(), "paper", connections="asymmetric")
    assert (asymmetric.feedback_update, asymmetric.steps_nudged, asymmetric.nudged_phases) == ("kolen-pollack", 30, "states")
    assert {resolve(dataset(), "paper", **given).conventions for given in (
        {}, dict(connections="asymmetric"), dict(nudging="one-sided"), dict(cost="squared-error"))} == {"paper"}
    assert resolve(dataset(), device="cupy") == resolve(dataset(), "recurrent", device="cupy")  # the default, on a GPU too
    assert resolve(dataset()).preset == "recurrent"


def test_official_images_have_their_row_under_any_name():
    """As pictures in a folder, or packed in a file; other images of as many classes have not."""
    official = dataset("npz")._replace(source=cifar.CIFAR10.recognised)
    assert resolve(official, "cpu").lr == PRESETS["cpu", "cifar10"]["lr"] != resolve(dataset("npz"), "cpu").lr
    assert resolve(official, "cpu").dataset == "npz"  # which finds them again
    held_out = hold_out(official, 100)
    assert resolve(held_out, "cpu", train_images=100, validation_images=100).lr == PRESETS["cpu", "cifar10"]["lr"]


def test_what_is_given_wins_over_choices_and_they_over_the_preset():
    """In the order of `layers`: preset, what a choice brings with it, held-out images, what is given."""
    assert resolve(dataset()).lr == PRESETS["recurrent", "cifar10"]["lr"]
    chosen = resolve(dataset(), optimizer="sgd")
    assert chosen.optimizer == "sgd" and chosen.lr != PRESETS["recurrent", "cifar10"]["lr"]
    assert resolve(dataset(), optimizer="sgd", lr=[0.07]).lr == (0.07,)
    bptt = resolve(dataset(), algorithm="bptt")
    assert (bptt.schedule, bptt.schedule_nudged) == ("synchronous", "synchronous")
    assert resolve(dataset(), algorithm="bptt", schedule="up").schedule == "up"  # which bptt_gradient refuses, in a sentence
    held_out = resolve(dataset(), validation_images=100)
    assert (held_out.test_images, held_out.final_test_images) == (100, 100)
    few = resolve(dataset(), validation_images=100, test_images=50)
    assert (few.test_images, few.final_test_images) == (50, 50)
    assert resolve(dataset(), connections="asymmetric", feedback_update="exact", nudged_phases="states").nudged_phases == "states"
    for given in dict(nudged_phases="deviations"), dict(connections="asymmetric", feedback_update="exact"):
        config = resolve(dataset(), "paper", **given)
        assert (config.nudged_phases, config.conventions) == ("deviations", "here")
    assert resolve(dataset(), conventions="paper").nudged_phases == "states"
    assert resolve(dataset(), device="cupy", ranks=3, preset="cpu", batch_size=32).chunk == 11
    assert resolve(dataset(), epochs=7).anneal_epochs == 7 and resolve(dataset(), "paper", epochs=7).anneal_epochs == 100


def test_a_configuration_is_frozen_and_survives_json():
    """Nothing changes it, lists on its way through JSON become tuples again, and equality tells two runs apart."""
    config = resolve(dataset(), channels=[4, 4], scale=[1.0], lr=[0.1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.beta = 2.0
    assert Config(**json.loads(json.dumps(vars(config)))) == config != dataclasses.replace(config, seed=1)
    assert config.channels == (4, 4)


@pytest.mark.parametrize("given, sentence", [
    (dict(channels=[4, 4], preset="paper"), "give --lr too"),
    (dict(feedback_update="own"), "--feedback-update is for feedback weights of their own: add --connections asymmetric"),
    (dict(algorithm="bptt", beta=0.5), "--beta is for --algorithm eqprop"),
    (dict(algorithm="bptt", nudging="one-sided", nudged_phases="states"), "--nudging and --nudged-phases are for --algorithm eq"),
    (dict(connections="asymmetric", feedback_update="exact", conventions="paper"), "--conventions is for --nudged-phases states"),
    (dict(initial_drive=0.5, scale=[2.0, 6.0]), "--scale is for initial weights that --initial-drive does not scale"),
    (dict(initial_drive=0.5, scale=[1.0, 6.0], cost="squared-error"), "--scale is for initial weights that --initial-drive"),
    (dict(train_images=50001), "train images: 50001 asked for, but made up has 50000")])
def test_settings_that_do_not_fit_together(given, sentence):
    """Beside the options without effect of test_options.py."""
    with pytest.raises(ep.EPError, match=sentence):
        resolve(dataset(), **given)


def test_exact_updates_go_through_the_transpose():
    """--feedback-update exact is asymmetric EP, and own is not."""
    x, y = np.random.default_rng(0).random((4, 32, 32, 3), dtype=np.float32), np.arange(4)
    for rule, transposed in (("exact", True), ("own", False)):
        config = resolve(dataset(), connections="asymmetric", feedback_update=rule, channels=[4, 4, 4, 4], feedback=0.5,
                         steps_free=9, steps_nudged=4, nudged_phases="deviations")
        network, _, gradient = experiment.build(config)
        found = gradient(network, x, y, np.random.default_rng(0)).gradient
        expected, other = (ep.eqprop_gradient(network, x, y, experiment.phases(config), nudging=experiment.nudging(config),
                                              transposed=way).gradient for way in (transposed, not transposed))
        assert abs(found["2.W"] - expected["2.W"]).max() < 1e-2 * abs(expected["2.W"] - other["2.W"]).max()


def test_backpropagation_through_time_gives_feedback_weights_their_own_gradient():
    """Kolen-Pollack, a rule of EP, is not its default, in no preset; whoever wants it may ask for it."""
    for preset in experiment.NAMES:
        assert resolve(dataset(), preset, connections="asymmetric").feedback_update == "kolen-pollack"
        config = resolve(dataset(), preset, connections="asymmetric", algorithm="bptt", channels=[4, 4, 4, 4])
        assert config.feedback_update == "exact"
        network, _, gradient = experiment.build(dataclasses.replace(config, steps_free=6, steps_nudged=6))
        x, y = np.random.default_rng(0).random((4, 32, 32, 3), dtype=np.float32), np.arange(4)
        found = gradient(network, x, y, np.random.default_rng(0)).gradient
        expected = ep.bptt_gradient(ep.engine.prepared(network), x, y, ep.Phases(6, 6)).gradient  # ties in windows are its own
        assert all(abs(found[name] - g).max() <= 1e-4 * abs(g).max() for name, g in expected.items())
        assert (found["2.W"] != found["2.B"]).any()
    asked = resolve(dataset(), connections="asymmetric", algorithm="bptt", feedback_update="kolen-pollack")
    assert asked.feedback_update == "kolen-pollack"


def test_scales_that_have_an_effect():
    """Factors on the hidden layers' weights switch the preset's --initial-drive off, which would overrule them."""
    preset = PRESETS["cpu", "cifar10"]["initial_drive"]
    for scale, cost, drive in (([1.0, 3.0], "cross-entropy", preset), ([1.0], "cross-entropy", preset),
                               ([2.0], "cross-entropy", 0), ([2.0, 6.0], "cross-entropy", 0), ([1.0, 6.0], "squared-error", 0)):
        config = resolve(dataset(), "cpu", scale=scale, cost=cost)
        assert (config.initial_drive, config.scale) == (drive, tuple(scale))
    assert resolve(dataset(), "cpu", scale=[1.0, 3.0], initial_drive=0.5).initial_drive == 0.5


@pytest.mark.parametrize("given", [dict(connections="asymmetric"), dict(connections="asymmetric", network="resnet")])
def test_rates_that_were_chosen_with_adam_keep_it(given):
    """Of the preset cpu for CIFAR-10, whose own networks learn by Muon behind filters; what is given wins."""
    assert (resolve(dataset(), "cpu").optimizer, resolve(dataset(), "cpu").whitening) == ("muon", 12)
    assert (resolve(dataset(), "cpu", **given).optimizer, resolve(dataset(), "cpu", **given).whitening) == ("adam", 0)
    assert resolve(dataset(), "cpu", **given, optimizer="muon").optimizer == "muon"
    by_sgd = resolve(dataset(), "cpu", connections="asymmetric", optimizer="sgd")
    assert (by_sgd.lr, by_sgd.weight_decay) == ((0.1,), 3e-3)
    assert resolve(dataset(), "cpu", optimizer="adam").lr == PRESETS["cpu", "synthetic"]["lr"]


def test_a_residual_network_has_rates_of_its_own_for_either_optimizer():
    """Muon's and their decay where the preset learns by Muon, and Adam's, without filters, where it does not."""
    by_muon, by_adam = (resolve(dataset(), "cpu", network="resnet", **given) for given in ({}, dict(optimizer="adam")))
    assert (by_muon.optimizer, by_muon.whitening, by_muon.initial_drive) == ("muon", 12, 0.2)
    assert (by_adam.optimizer, by_adam.whitening, by_adam.initial_drive) == ("adam", 0, 0.333)
    assert by_muon.lr != by_adam.lr and by_muon.weight_decay > 10 * by_adam.weight_decay
    assert (by_muon.feedback, by_muon.beta, by_muon.activation) == (by_adam.feedback, by_adam.beta, by_adam.activation)
    assert resolve(dataset("synthetic", 4000, 1000), "cpu", network="resnet").optimizer == "adam"


@pytest.mark.parametrize("given", [dict(), dict(preset="cpu"), dict(algorithm="bptt", optimizer="sgd"), dict(
    connections="asymmetric", conventions="paper", cost="squared-error")])
def test_a_step_changes_every_parameter(given):
    """Network, optimizer and gradient are those of the settings (their values: test_options.py)."""
    config = resolve(dataset(), channels=[4, 4, 4, 4], **given)
    network, optimizer, gradient = experiment.build(config, x=np.random.default_rng(1).random((20, 32, 32, 3), dtype=np.float32))
    before = {name: w.copy() for name, w in network.parameters().items()}
    x, y = np.random.default_rng(0).random((20, 32, 32, 3), dtype=np.float32), np.arange(20) % 10
    optimizer.step(gradient(network, x, y, np.random.default_rng(0)).gradient, 0)
    assert all((w != before[name]).any() for name, w in network.parameters().items())


def test_adam_is_annealed_over_all_steps():
    """Its last update is the last of the training: steps per epoch come from images and batch size."""
    config = resolve(dataset(), train_images=70, batch_size=32, epochs=4, test_images=10)
    assert experiment.build(config)[1].anneal_steps == 4 * 3


def test_norms_are_those_of_the_combined_gradient():
    config = resolve(dataset(), channels=[4, 4, 4, 4], connections="asymmetric")
    network, _, gradient = experiment.build(config)
    x, y = np.random.default_rng(0).random((20, 32, 32, 3), dtype=np.float32), np.arange(20) % 10
    step = gradient(network, x, y, np.random.default_rng(0))
    assert step.squares == pytest.approx({name: float((g * g).sum()) for name, g in step.gradient.items()}, rel=1e-5)


@pytest.mark.parametrize("kind", ["convnet", "resnet"])
def test_the_first_drives_beside_a_radius(kind, monkeypatch):
    """Their deviation and mean; the biases of a residual network start at zero."""
    monkeypatch.setattr(experiment, "calibrate_radius", lambda *arguments: None)
    config = resolve(dataset(), "recurrent", network=kind, channels=[4, 5, 6], initial_radius=0.6, scale=[1.0], lr=[1e-3],
                     **(dict(blocks=3) if kind == "resnet" else {}))
    x = np.random.default_rng(1).normal(size=(24, 32, 32, 3)).astype(np.float32)
    network = experiment.build_network(config, x)
    u = network.synapses[0].drive_post(x)[0]
    assert u.std((0, 1, 2)) == pytest.approx(1.7, rel=1e-3) and u.mean((0, 1, 2)) == pytest.approx(0.55, abs=1e-3)
    biases = [w for name, w in network.parameters().items() if name.endswith(".b") and name != "1.b"]
    assert any(b.any() for b in biases) == (kind == "convnet")


def test_paddings_epochs_and_filters_of_other_images():
    sides = {32: 0, 28: 1, 64: 0}
    assert {side: experiment.paddings(Config(channels=(8,) * 4, image_shape=(side, side, 3)))[-1] for side in sides} == sides
    assert [experiment.row("cpu", dataset("own", n, 10))["epochs"] for n in (100, 4000, 60000)] == [50, 10, 5]
    grey = dataset("own", 100, 10)._replace(train_images=np.zeros((100, 28, 28, 1), np.uint8))
    assert experiment.row("recurrent", grey)["whitening"] == 9


def test_phases_are_those_of_the_settings():
    config = Config(steps_free=7, schedule="up", tolerance=1e-3, steps_nudged=3, schedule_nudged="down", omega=1.2, check_every=5,
                    nudged_phases="deviations")
    free, nudged = Phase(7, "up", 1e-3, check_every=5, omega=1.2), Phase(3, "down", check_every=5, omega=1.2)
    assert experiment.phases(config) == Phases(free, nudged, deviations=True)
    assert experiment.about(config, dataset()).items() >= dict(steps_free=7, schedule="up", omega=1.2).items()


def test_kolen_pollack_of_the_paper_is_the_common_update():
    config = resolve(dataset(), "paper", channels=[2, 2, 2, 2], scale=[1.0], lr=[0.1], steps_free=6, steps_nudged=3,
                     connections="asymmetric")
    network, x, y = experiment.build_network(config), np.random.default_rng(0).random((2, 32, 32, 3), "float32"), np.array([1, 2])
    found = experiment.estimator(config)(network, x, y).gradient
    common, own = (ep.papers_gradient(network, x, y, experiment.phases(config), nudging=experiment.nudging(config), common=one)
                   .gradient for one in (True, False))
    assert all((found[name] == common[name]).all() for name in found) and any((common[name] != own[name]).any() for name in own)
