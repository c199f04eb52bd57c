"""The training loop: what is drawn from where, chunks and threads, refusal of numbers that are not finite."""

from functools import partial

import numpy as np
import pytest

import ep
from ep import Nudging, Phase, Phases
from ep.backend import to_host
from ep.train import loop
from ep.train.step import Part, merged


def small(dtype="float32", seed=1, xp=np):
    """A network, images on its device, labels on the host."""
    rng = np.random.default_rng(seed)
    network = ep.convnet([4, 6], (8, 8, 3), classes=3, dtype=dtype).to(xp)
    return network, xp.asarray(rng.normal(size=(40, 8, 8, 3)).astype(dtype)), rng.integers(0, 3, 40)


one_chunk = partial(ep.eqprop_gradient, phases=Phases(Phase(15, tolerance=1e-3), 5), nudging=Nudging.symmetric(0.5))


def gradient(network, x, y, rng):
    return one_chunk(network, x, y)


def test_threads_change_no_bit():
    """Chunks are cut by the index in the batch and added in order, whichever thread relaxed them, early stopping included."""
    network, x, y = small()
    reference = ep.in_chunks(one_chunk, network, x, y)
    assert 1 < reference.steps < 15  # some chunks stopped early
    for threads in (1, 2, 3):
        with ep.worker_threads(threads) as map_:
            estimate = ep.in_chunks(one_chunk, network, x, y, map_)
        for name, g in reference.gradient.items():
            assert (g == estimate.gradient[name]).all()
        assert (reference.loss, reference.correct, reference.steps) == (estimate.loss, estimate.correct, estimate.steps)


def test_what_is_random_depends_on_seed_epoch_and_step():
    """The order of the images on seed and epoch, what a batch draws on seed, epoch and step; the same ones draw the same."""
    network, x, y = small()
    drawn = {}
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        batches = []

        def prepare(images, rng, batches=batches):
            batches.append((images.tobytes(), rng.random()))
            return images

        loop.train_epoch(network, x, y, gradient, ep.SGD(network, 1e-6), batch_size=20, seed=seed, epoch=epoch, prepare=prepare)
        assert drawn.setdefault((seed, epoch), batches) == batches
    orders, numbers = zip(*(zip(*batches) for batches in drawn.values()))
    assert len(set(orders)) == 3 and len({number for both in numbers for number in both}) == 6


def test_chunks_add_up(xp):
    """With a fixed number of steps, chunking changes the gradient by no more than rounding (40 = 16 + 16 + 8 images)."""
    network, x, y = small("float64", xp=xp)
    fixed = partial(one_chunk, phases=Phases(15, 5))
    whole, chunked = fixed(network, x, y), ep.in_chunks(fixed, network, x, y)
    for name, g in whole.gradient.items():
        np.testing.assert_allclose(to_host(chunked.gradient[name]), to_host(g), rtol=1e-10, atol=1e-14)
    assert whole.loss == pytest.approx(chunked.loss, rel=1e-13)
    assert whole.correct == chunked.correct and chunked.images == 40


def made_part(xp, images, times, changes, steps=1.0, settled=0, g=1.0, low=(), high=()):
    """A `Part` of one layer of three units."""
    at_bounds = xp.asarray([[unit in which for unit in range(3)] for which in (low, high)])
    return Part(images, {"1.W": g * xp.ones((1, 2)), "1.b": 2 * g * xp.ones(1)}, at_bounds,
                xp.asarray([0.5 * images, images // 2, settled, *changes]), [3], times, steps)


def test_a_batch_from_its_chunks(xp):
    """Gradient, loss and steps are means over the images, residual the largest, converged and stuck shares.

    A unit is stuck if it is at the *same* bound in every image.
    """
    step = merged([made_part(xp, 30, [2, 4], [0.3, 0.01], 4.0, 28, g=1.0, low=(0, 1), high=()),
                   made_part(xp, 10, [2, 8], [0.2, 0.5], 8.0, 2, g=5.0, low=(0,), high=(1, 2))])
    assert (step.images, step.correct, step.steps, step.converged, step.residual) == (40, 20, 5.0, 0.75, 0.5)
    assert step.loss == pytest.approx(0.5) and dict(step.history) == pytest.approx({2: 0.3, 4: 0.01, 8: 0.5})
    assert step.stuck == pytest.approx([1 / 3]) and float(step.gradient["1.W"][0, 0]) == 2.0
    assert step.squares == pytest.approx({"1.W": 8.0, "1.b": 16.0}) and step.norms() == pytest.approx({"1": 24**0.5})


def test_stuck_units_are_those_of_the_states(xp):
    network, x, y = small(xp=xp)
    network.synapses[1].b[:2] = xp.asarray([-50.0, 50.0])  # of 6 channels, one at each bound in every image
    found = ep.in_chunks(one_chunk, network, x, y).stuck
    assert found[0] < 1 and found[1] >= 2 / 6


def test_merging_keeps_a_nan(xp):
    """Whichever chunk has it, the batch's residual and history are NaN: Python's max would lose it."""
    for changes in ((np.nan, 0.5), (0.5, np.nan)):
        step = merged([made_part(xp, 2, [3], [change]) for change in changes])
        assert np.isnan(step.residual) and np.isnan(dict(step.history)[3])


def test_epoch_visits_every_image_once_in_seeded_order(xp):
    network, x, y = small(xp=xp)
    seen = []

    def spy(network, x, y, rng):
        seen.append(to_host(x[:, 0, 0, 0]))
        return gradient(network, x, y, rng)

    for epoch in (0, 0, 1):
        ep.train_epoch(network, x, y, spy, ep.SGD(network, 1e-9), batch_size=16, epoch=epoch, seed=3)
    first, again, other = (np.concatenate(seen[k:k + 3]) for k in (0, 3, 6))
    assert [len(batch) for batch in seen[:3]] == [16, 16, 8]
    assert (first == again).all() and (first != other).any()
    assert sorted(first) == sorted(other) == sorted(to_host(x[:, 0, 0, 0]))


def test_resuming_in_the_middle_of_an_epoch_changes_no_bit(xp):
    """(seed, epoch, step) is all the state there is: random signs, augmentation and order included."""
    def prepare(images, rng):
        return images * np.float32(rng.uniform(0.5, 1.5))

    def random_sign(network, x, y, rng):
        return ep.eqprop_gradient(network, x, y, Phases(10, 4), nudging=Nudging.random_sign(0.5, rng))

    def run(stop):
        network, x, y = small(xp=xp)
        optimizer, steps = ep.SGD(network, 0.1), []
        arguments = dict(batch_size=16, epoch=2, seed=7, prepare=prepare)

        class Stop(Exception):
            pass

        def on_step(step, estimate):
            steps.append(step)
            if step == stop:
                raise Stop

        try:
            ep.train_epoch(network, x, y, random_sign, optimizer, **arguments, on_step=on_step)
        except Stop:
            ep.train_epoch(network, x, y, random_sign, optimizer, **arguments, on_step=on_step, first_step=stop + 1)
        assert steps == [0, 1, 2]
        return network.parameters()

    straight, stopped = run(None), run(0)
    for name, w in straight.items():
        assert (w == stopped[name]).all()


def test_not_finite_stops_before_the_update(xp):
    """NaN names the layer and the step, and the parameters are those of the step before."""
    network, x, y = small(xp=xp)
    network.parameters()["2.W"][0, 0, 0, 0] = np.nan
    before = {name: w.copy() for name, w in network.parameters().items()}
    with pytest.raises(ep.EPError, match=r"gradient of [12]\.\w is not finite.* at epoch 1, step 1") as caught:
        ep.train_epoch(network, x, y, gradient, ep.SGD(network, 0.1), batch_size=16)
    assert caught.value.exit_code == 1
    for name, w in network.parameters().items():
        np.testing.assert_array_equal(to_host(w), to_host(before[name]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_parameter(xp, bad):
    """The one number among many, and where."""
    one = made_part(xp, 2, [3], [0.1])
    merged([one]).check_finite("now")
    one.gradient["1.b"][0] = bad
    with pytest.raises(ep.EPError, match="the gradient of 1.b is not finite.* at epoch 3"):
        merged([one]).check_finite("at epoch 3")


def test_evaluate_is_the_plain_average(xp):
    network, x, y = small("float64", xp=xp)
    relax = partial(ep.relax, phase=20)
    states = relax(network, x).states
    accuracy, loss = ep.evaluate(network, x, y, relax)
    assert accuracy == (to_host(network.predict(states)) == y).mean()
    assert loss == pytest.approx(float(network.cost.value(states[-1], network.targets(y)).mean()), rel=1e-12)
    assert type(accuracy) is type(loss) is float


def test_learns_a_separable_task_by_ep_and_by_bptt():
    """The same loop, both gradients: bright against dark images, from chance to all right."""
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = (rng.normal(size=(64, 8, 8, 1)) * 0.3 + (2.0 * y - 1)[:, None, None, None]).astype(np.float32)
    for one in (partial(ep.eqprop_gradient, nudging=Nudging.symmetric(0.5)), ep.bptt_gradient):
        network = ep.convnet([4, 8], (8, 8, 1), classes=2, scale=1.5)
        optimizer = ep.SGD(network, 0.1)
        for epoch in range(6):
            ep.train_epoch(network, x, y, lambda network, x, y, rng, one=one: one(network, x, y, Phases(20, 8)), optimizer,
                           batch_size=16, epoch=epoch)
        assert ep.evaluate(network, x, y, partial(ep.relax, phase=20))[0] == 1.0


def test_an_epoch_is_trained_at_its_rate():
    """SGD that has been annealed by epoch 1 moves by its smallest rate there, and by the full one in epoch 0."""
    x, y, moved = np.random.default_rng(0).random((8, 4), "float32"), np.arange(8) % 3, []
    gradient = partial(ep.eqprop_gradient, phases=Phases(6, 3), nudging=Nudging.symmetric(0.5))
    for epoch in (0, 1):
        network = ep.mlp([4, 5, 3], dtype="float64")
        before = network.parameters()["readout.W"].copy()
        ep.train_epoch(network, x, y, lambda network, x, y, rng: gradient(network, x, y), ep.SGD(network, 0.1, anneal_epochs=1),
                       batch_size=8, epoch=epoch)
        moved.append(abs(network.parameters()["readout.W"] - before).max())
    assert moved[1] / moved[0] == pytest.approx(ep.SGD.FLOOR / 0.1, rel=1e-3)
