"""SGD is the rule of the paper: v <- 0.9 v + (g + wd w), w <- w - rate v, with a cosine-annealed rate per layer.

Adam is AdamW, by hand and against PyTorch's. Muon's kernels move as a singular value decomposition says. All resume bit for bit,
and say how weight decay shrinks W - B.
"""

import math

import numpy as np
import pytest

from ep import SGD, Adam, EPError, Muon, convnet, mlp
from ep.backend import to_host
from ep.npz import read_npz, write_npz
from ep.train.optimizers import OPTIMIZERS, orthogonalised


def gradients(network, steps, seed=0, dtype="float64"):
    """[{name: gradient}] of so many steps, of very different sizes, some of them 0."""
    rng = np.random.default_rng(seed)
    return [{name: (rng.normal(size=w.shape) * 10.0 ** rng.integers(-6, 1, w.shape) * (rng.random(w.shape) < 0.8)).astype(dtype)
             for name, w in network.parameters().items()} for _ in range(steps)]


def small(seed=0, dtype="float32"):
    """A network with a kernel, for Muon; its layers are 1 and readout."""
    return convnet([4], (6, 6, 2), 3, seed=seed, dtype=dtype)


def on(xp, gradient):
    return {name: xp.asarray(g) for name, g in gradient.items()}


def test_two_steps_by_hand(xp):
    """Momentum, weight decay on weights and biases, one rate per layer."""
    network = mlp([2, 3, 2], dtype="float64").to(xp)
    w = {name: to_host(p).copy() for name, p in network.parameters().items()}
    optimizer = SGD(network, [0.1, 0.2], momentum=0.9, weight_decay=0.01)
    gradients = [{name: xp.full(p.shape, k) for name, p in w.items()} for k in (1.0, -2.0)]
    for g in gradients:
        optimizer.step(g)
    for name, p in w.items():
        rate = {"1": 0.1, "readout": 0.2}[name.split(".")[0]]
        v = 1.0 + 0.01 * p
        p1 = p - rate * v
        v = 0.9 * v + (-2.0 + 0.01 * p1)
        np.testing.assert_allclose(to_host(network.parameters()[name]), p1 - rate * v, rtol=1e-13)


def test_cosine():
    """From the rate to the floor over anneal_epochs, halfway in the middle, held at the floor afterwards."""
    optimizer = SGD(mlp([2, 3, 2]), [0.25, 0.05], anneal_epochs=100)
    assert optimizer.rate("1", 0) == 0.25
    assert optimizer.rate("readout", 50) == pytest.approx((0.05 + 1e-5) / 2)
    assert optimizer.rate("1", 100) == optimizer.rate("1", 119) == 1e-5
    assert SGD(mlp([2, 3, 2]), 0.1).rate("1", 7) == 0.1


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("rates", [[0.1, 0.1, 0.1], [0.1, -0.1], 0.0, float("nan"), float("inf")])
def test_refuses_rates(rates, optimizer):
    with pytest.raises(EPError, match="learning rate"):
        optimizer(mlp([2, 3, 2]), rates)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_float32(xp, name):
    """Nothing of an update is promoted to float64."""
    network = small().to(xp)
    optimizer = OPTIMIZERS[name](network, 0.1, 3e-4, 3, 4)
    optimizer.step({name: xp.ones_like(p) for name, p in network.parameters().items()}, epoch=1)
    assert {p.dtype for p in network.parameters().values()} == {np.dtype("float32")}
    assert {a.dtype for a in optimizer.state().values() if a.ndim} == {np.dtype("float32")}


def adam_by_hand(w, g, rates, wd, b1=0.9, b2=0.999, eps=1e-8):
    """The rule as Loshchilov and Hutter write it, for one number: w after the gradients g, with these rates."""
    m = v = 0.0
    for t, (g_t, rate) in enumerate(zip(g, rates), start=1):
        m = b1 * m + (1 - b1) * g_t
        v = b2 * v + (1 - b2) * g_t * g_t
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        w = w - rate * (m_hat / (math.sqrt(v_hat) + eps) + wd * w)
    return w


def test_adam_by_hand(xp):
    """Every parameter, number by number: two moments, both corrections, decoupled decay, a rate per layer, cosine by step."""
    network, steps, rates = mlp([2, 3, 2], dtype="float64").to(xp), 7, {"1": 0.1, "readout": 0.02}
    w = {name: to_host(p).copy() for name, p in network.parameters().items()}
    optimizer, given = Adam(network, list(rates.values()), weight_decay=0.05, anneal_steps=10), gradients(network, steps)
    for g in given:
        optimizer.step(on(xp, g))
    for name, p in network.parameters().items():
        annealed = [rates[name.split(".")[0]] * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(steps)]
        for index in np.ndindex(p.shape):
            by_hand = adam_by_hand(float(w[name][index]), [float(g[name][index]) for g in given], annealed, 0.05)
            assert float(to_host(p)[index]) == pytest.approx(by_hand, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-6)])
def test_adam_is_pytorchs_adamw(dtype, tolerance):
    """60 updates with weight decay and annealing, against torch.optim.AdamW with its own cosine, where PyTorch is installed."""
    torch = pytest.importorskip("torch")
    network, steps = mlp([5, 4, 3], dtype=dtype), 60
    theirs = {name: torch.nn.Parameter(torch.tensor(w.copy())) for name, w in network.parameters().items()}
    other = torch.optim.AdamW(theirs.values(), lr=3e-3, weight_decay=0.02)
    cosine = torch.optim.lr_scheduler.LambdaLR(other, lambda t: (1 + math.cos(math.pi * t / steps)) / 2)
    optimizer = Adam(network, 3e-3, weight_decay=0.02, anneal_steps=steps)
    for g in gradients(network, steps, dtype=dtype):
        optimizer.step(g)
        for name, p in theirs.items():
            p.grad = torch.tensor(g[name])
        other.step()
        cosine.step()
    for name, w in network.parameters().items():
        np.testing.assert_allclose(w, theirs[name].detach().numpy(), rtol=0, atol=tolerance)


def test_adam_anneals_to_zero():
    """Constant without an end; else the last of n updates still moves, and those after it move nothing, decay included."""
    network = mlp([2, 3, 2], dtype="float64")
    assert Adam(network, 0.1).rate("1", 10**6) == 0.1
    optimizer = Adam(network, 0.1, weight_decay=0.5, anneal_steps=4)
    assert optimizer.rate("1", 2) == pytest.approx(0.05) and optimizer.rate("1", 4) == optimizer.rate("1", 9) == 0.0
    moved = []
    for g in gradients(network, 6):
        before = network.parameters()["1.W"].copy()
        optimizer.step(g)
        moved.append(abs(network.parameters()["1.W"] - before).max())
    assert min(moved[:4]) > 1e-3 and moved[4:] == [0.0, 0.0]


def test_adam_warms_up():
    """Rates rise in equal steps over the first updates, on their way down the cosine, and are the same after them."""
    warm, cold = (Adam(mlp([2, 3, 2]), 0.1, anneal_steps=8, warm_up=steps) for steps in (3, 0))
    assert [warm.rate("1", t) / cold.rate("1", t) for t in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def pushed(s, steps=5):
    """What the iteration makes of singular values, as numbers."""
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def by_svd(G):
    """U f(S/|G|) V^T"""
    U, S, V = np.linalg.svd(G, full_matrices=False)
    return (U * pushed(S / np.sqrt((S * S).sum()))) @ V


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5), (18, 1)])
def test_orthogonalised(xp, shape):
    """The singular vectors stay, the values are pushed: U f(S) V^T of NumPy's decomposition. Those above 0.01 |G| end near 1."""
    G = np.random.default_rng(0).normal(size=shape) @ np.diag(np.geomspace(1, 0.05, shape[1]))
    O = to_host(orthogonalised(xp.asarray(G)))
    np.testing.assert_allclose(O, by_svd(G), rtol=0, atol=1e-12)
    values = np.linalg.svd(O, compute_uv=False)
    assert 0.68 < values.min() <= values.max() < 1.21
    np.testing.assert_allclose(to_host(orthogonalised(xp.asarray(100 * G))), O, rtol=0, atol=1e-12)  # of any size


def test_orthogonalised_zeros(xp):
    """A kernel without a gradient gets no update, and no NaN."""
    assert (to_host(orthogonalised(xp.zeros((9, 4), "float32"))) == 0).all()


def test_muon_by_hand(xp):
    """Kernels by the decomposition of the mean gradient, looking ahead; all else is Adam's, and only kernels differ from it."""
    network, other, rates, decay, b = small(dtype="float64").to(xp), small(dtype="float64").to(xp), [0.1, 0.02], 0.05, 0.95
    kernel, given = to_host(network.parameters()["1.W"]).copy(), gradients(network, 4)
    optimizers = [kind(one, rates, weight_decay=decay, anneal_steps=10) for kind, one in ((Muon, network), (Adam, other))]
    optimizers[1].rate = optimizers[0].rate  # a straight line, where Adam's own is a cosine
    m = np.zeros_like(kernel)
    for t, g in enumerate(given):
        for optimizer in optimizers:
            optimizer.step(on(xp, g))
        rate = 0.1 * (1 - t / 10)
        m = b * m + (1 - b) * g["1.W"]
        O = by_svd((b * m + (1 - b) * g["1.W"]).reshape(18, 4)).reshape(kernel.shape)
        kernel = kernel - rate * (0.2 * 18**0.5 * O + decay * kernel)
    found, adam = ({name: to_host(w) for name, w in one.parameters().items()} for one in (network, other))
    np.testing.assert_allclose(found["1.W"], kernel, rtol=0, atol=1e-12)
    assert [name for name in found if not (found[name] == adam[name]).all()] == ["1.W"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_resuming_changes_no_bit(xp, tmp_path, name, stop):
    """Parameters and `state` through a file, after any number of updates: the rest of the training is the same."""
    given, ends = [on(xp, g) for g in gradients(small(), 9, dtype="float32")], []
    for interrupted in (False, True):
        network = small().to(xp)
        optimizer = OPTIMIZERS[name](network, 0.05, 0.01, 3, 3)
        for t, g in enumerate(given):
            if interrupted and t == stop:
                write_npz(tmp_path / "state.npz", {key: to_host(a) for key, a in optimizer.state().items()})
                weights = {key: w.copy() for key, w in network.parameters().items()}
                network = small(seed=9).to(xp)
                network.set_parameters(weights)
                optimizer = OPTIMIZERS[name](network, 0.05, 0.01, 3, 3)
                state = read_npz(tmp_path / "state.npz")
                for key, a in optimizer.state().items():
                    a[...] = xp.asarray(state[key]) if a.ndim else state[key]
            optimizer.step(g, epoch=t // 3)
        ends.append(network.parameters())
    assert all((ends[0][key] == ends[1][key]).all() for key in ends[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_what_happens_to_a_difference(name):
    """Two parameters with the same gradients: their difference shrinks exactly as `decay` says (Kolen-Pollack)."""
    network, epochs, steps = small(dtype="float64"), 3, 4
    other = small(1, "float64")
    start = other.parameters()["1.W"] - network.parameters()["1.W"]
    pair = [OPTIMIZERS[name](one, [0.05, 0.02], 0.1, epochs, steps) for one in (network, other)]
    for t, g in enumerate(gradients(network, epochs * steps)):
        for optimizer in pair:
            optimizer.step(g, epoch=t // steps)
    end = other.parameters()["1.W"] - network.parameters()["1.W"]
    left = pair[0].decay("1", epochs, steps)
    assert 0.5 < left < 0.99
    np.testing.assert_allclose(end, left * start, rtol=1e-9)


def test_muon_anneals_in_a_straight_line():
    """And stays at zero: a negative rate would climb."""
    optimizer = Muon(convnet([4], (6, 6, 2), 3), 0.1, anneal_steps=4, warm_up=1)
    assert [optimizer.rate("1", t) for t in range(6)] == pytest.approx([0.05, 0.075, 0.05, 0.025, 0.0, 0.0])


def test_optimizers_are_made_as_their_row_says():
    """(network, rates, decay, epochs, steps of an epoch, warm-up): Adam and Muon are annealed by the step."""
    sgd, adam, muon = (OPTIMIZERS[name](mlp([2, 3, 2]), 0.1, 0.01, 100, 7, 5) for name in ("sgd", "adam", "muon"))
    assert (sgd.momentum, sgd.weight_decay, sgd.anneal_epochs) == (0.9, 0.01, 100)
    assert all((one.weight_decay, one.anneal_steps, one.warm_up) == (0.01, 700, 5) for one in (adam, muon))
