"""What only a device can get wrong: waiting inside a loop, float64 where float32 was meant, memory beyond an array.

The counts need a device that counts: cupy_on_cpu. On a real GPU they are skipped, and the numbers are compared all the same.
test_planted_gpu_bugs.py plants what these tests must find.
"""

from functools import partial

import numpy as np
import pytest
from cupy_on_cpu import observe, running
from helpers import normal, relative

import ep
from ep import datasets
from ep.backend import to_host
from ep.engine import gpu

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True)]
SHORT = ep.Phases(4, 2, deviations=True)
counted = pytest.mark.skipif(not running(), reason="nothing counts here: run it on cupy_on_cpu")


def example(xp, connections="symmetric", **options):
    """A float32 network with its kernels, a batch, labels on the host."""
    network = ep.convnet([3, 4], (10, 10, 3), 3, paddings=[1, 1], scale=2.0, **options)
    network = gpu.prepared(ep.CONNECTIONS[connections](network).to(xp))
    return network, normal(xp, (4, 10, 10, 3), 0, "float32"), np.array([0, 1, 2, 0])


def training_step(xp, network, phases=SHORT, **options):
    """One step of the training loop on bytes in device memory, augmentation included; returns the gradient."""
    images = xp.asarray(np.random.default_rng(0).integers(0, 256, (8, 10, 10, 3), dtype=np.uint8))
    labels, kept = np.arange(8) % 3, []
    one_chunk = partial(ep.eqprop_gradient, phases=phases, nudging=ep.Nudging.symmetric(0.5), **options)
    ep.train_epoch(network, images, labels, lambda network, x, y, rng: ep.in_chunks(one_chunk, network, x, y, size=8),
                   ep.SGD(network, 0.1, weight_decay=1e-4), batch_size=8,
                   prepare=lambda batch, rng: datasets.normalise(datasets.augment(batch, rng, pad=2)),
                   on_step=lambda step, estimate: kept.append(estimate.gradient))
    return kept[0]


# --- waiting ----------------------------------------------------------------------------------------------------------


def check_waits(xp, network, x, y):
    """A relaxation waits for the device only to end early, once per step at which it may; so does a nudged one of either form."""
    y = network.targets(xp.asarray(y))
    free = ep.relax(network, x, 4)
    for phase, expected in ((ep.Phase(12), 0), (ep.Phase(12, check_every=4), 0), (ep.Phase(4, tolerance=1e-30), 3),
                            (ep.Phase(12, tolerance=1e-30, check_every=5), 2)):
        for run in (partial(ep.relax, network, x), partial(ep.relax, network, x, y=y, beta=0.5),
                    partial(ep.deviate, network, y, 0.5, free)):
            waits, _ = observe(partial(run, phase=phase))
            assert waits == expected, f"{waits} waits, not {expected}, in {phase}"


@counted
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_a_relaxation_waits_only_for_a_tolerance(xp, connections):
    network, x, y = example(xp, connections)
    check_waits(xp, network, x, y)


@counted
@pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])
def test_longer_phases_do_not_wait_more_often(xp, deviations):
    """A training step waits as often for 9 + 2 x 5 steps as for 4 + 2 x 2."""
    waits = [observe(partial(training_step, xp, example(xp)[0], ep.Phases(*steps, deviations)))[0] for steps in ((4, 2), (9, 5))]
    assert waits[0] == waits[1] > 0


@counted
def test_the_numbers_of_the_log_are_looked_at_together(xp):
    """One wait for a training step of any number of chunks; one for a chunk's accuracy and loss."""
    network, x, y = example(xp)
    gradient = partial(ep.eqprop_gradient, phases=SHORT, nudging=ep.Nudging.symmetric(0.5))
    assert observe(partial(ep.in_chunks, gradient, network, x, y, size=1))[0] == 1
    assert observe(partial(ep.evaluate, network, x, y, partial(ep.relax, phase=4), chunk=2))[0] == 2


# --- precision --------------------------------------------------------------------------------------------------------


def check_float32(xp, network, **options):
    """No kernel of a training step computes in float64, not even in between, and what comes out is float32."""
    gradients = []
    _, wide = observe(lambda: gradients.append(training_step(xp, network, **options)))
    assert not wide, f"float64 in {sorted(set(wide))}"
    assert {g.dtype for g in gradients[0].values()} == {np.dtype("float32")}


@counted
@pytest.mark.parametrize("cost", [ep.SoftmaxCrossEntropy, ep.SquaredError])
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_float32_stays_float32(xp, cost, connections):
    """At any gain, as deviations and as a difference of states."""
    for feedback in (1.0, 0.05):
        check_float32(xp, example(xp, connections, cost=cost, feedback=feedback)[0])
    check_float32(xp, example(xp, connections, cost=cost)[0], phases=ep.Phases(4, 2, deviations=False), transposed=False)


@counted
@pytest.mark.parametrize("activation", [ep.HARD_SIGMOID, ep.CLIP, ep.SHIFTED_SIGMOID, ep.TANH], ids=lambda a: a.name)
def test_every_difference_stays_float32(xp, activation):
    check_float32(xp, example(xp, activation=activation, pool=ep.AVERAGE_POOL, feedback=0.3)[0])


# --- the same numbers -------------------------------------------------------------------------------------------------


def test_augmented_images_are_numpys_bit_for_bit(xp):
    """The numbers are drawn on the host; the images are looked up on the device."""
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
    for pad, flip in ((0, True), (2, False), (4, True)):
        expected, found = (datasets.augment(a, np.random.default_rng(1), pad, flip) for a in (images, xp.asarray(images)))
        assert type(found) is type(xp.zeros(1)) and found.dtype == np.uint8 and (to_host(found) == expected).all()


def test_a_training_step_is_numpys(xp):
    """Bytes to gradient in float32, kernels against plain NumPy: to rounding, and a deviation loses no digits.

    A difference of states over 2 beta has lost three digits where the response is a thousandth.
    """
    for feedback, phases, bound in ((1.0, SHORT, 1e-4), (0.05, ep.Phases(4, ep.Phase(2, "down"), True), 1e-4),
                                    (1.0, ep.Phases(4, 2, deviations=False), 2e-3)):
        network = example(xp, feedback=feedback)[0]
        plain = ep.convnet([3, 4], (10, 10, 3), 3, paddings=[1, 1], scale=2.0, feedback=feedback)
        found, expected = training_step(xp, network, phases), training_step(np, plain, phases)
        for name, g in expected.items():
            assert relative(found[name], g) < bound, name
        for name, w in plain.parameters().items():
            assert relative(network.parameters()[name], w) < 1e-5, name
