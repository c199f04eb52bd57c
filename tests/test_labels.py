"""Images and labels as people bring them: whatever is an array of numbers counts by position, all else is one sentence."""

import array
import re

import numpy as np
import pytest
from cases import Case
from helpers import flat, relative, sentence

import ep
from ep import engine
from ep.cost import COSTS

N, PHASES, SYMMETRIC = 6, ep.Phases(5, 3), ep.Nudging.symmetric(0.1)
X, Y = np.random.default_rng(0).random((N, 8, 8, 2)), np.array([2, 0, 1, 1, 0, 2])


class Foreign:
    """What other libraries' arrays have in common: a dtype that is none of NumPy's, a length, and __array__."""

    dtype = "torch.float32"

    def __init__(self, a):
        self.a, self.shape, self.ndim = a, a.shape, a.ndim

    def __len__(self):
        return len(self.a)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.a, dtype)


class Series(Foreign):
    """A pandas Series that was shuffled: square brackets ask for the label of a row, not for its place."""

    def __init__(self, a):
        super().__init__(a)
        self.dtype = a.dtype

    def __getitem__(self, rows):
        return Series(self.a[::-1][rows])


class OnDisk(Series):
    """An h5py data set: square brackets take rows in increasing order alone."""

    def __getitem__(self, rows):
        if not isinstance(rows, slice) and (np.diff(rows) <= 0).any():
            raise TypeError("Indexing elements must be in increasing order")
        return self.a[rows]


class OnGPU(Foreign):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


def memory_map(a):
    return np.frombuffer(bytearray(a.tobytes()), a.dtype).reshape(a.shape).view(np.memmap)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


TYPES = {"list": np.ndarray.tolist, "tuple": lambda a: tuple(a.tolist()), "memory map": memory_map, "read-only": read_only,
         "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")), "not contiguous": lambda a: np.repeat(a, 2, axis=0)[::2],
         "Series": Series, "torch": Foreign, "h5py": OnDisk}
LABELS = {**TYPES, "uint8": lambda a: a.astype(np.uint8), "array.array": lambda a: array.array("i", a),
          "one-hot": lambda a: np.eye(3)[a], "one-hot lists": lambda a: np.eye(3)[a].tolist(),
          "one-hot frame": lambda a: Foreign(np.eye(3)[a])}
REFUSED = {"generator": lambda a: (k for k in a), "set": set, "dict": lambda a: dict(enumerate(a)), "map": lambda a: map(int, a),
           "str": str, "NoneType": lambda a: None, "int": len, "OnGPU": OnGPU, "ragged": lambda a: [[1], *([[1, 2]] * (N - 1))],
           "names": lambda a: list("abcabc"), "objects": lambda a: np.array([None] * N),
           "masked": lambda a: np.ma.masked_greater(a, 0)}


def estimate(net, x, y, rng=None, phases=PHASES):
    return ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC)


def trained(net, x, y):
    ep.train_epoch(net, x, y, estimate, ep.SGD(net, 0.1), batch_size=4)
    return net.parameters()


def numbers(estimate):
    return {**estimate.gradient, "loss": np.array(estimate.loss)}


DOORS = {  # by which images and labels come in -> the numbers that come out
    "states": lambda net, x, y: numbers(estimate(net, x, y)),
    "deviations": lambda net, x, y: numbers(estimate(net, x, y, phases=ep.Phases(5, 3, deviations=True))),
    "engine": lambda net, x, y: numbers(estimate(engine.prepared(net), x, y)),
    "bptt": lambda net, x, y: numbers(ep.bptt_gradient(net, x, y, PHASES)),
    "rbp": lambda net, x, y: numbers(ep.rbp_gradient(net, x, y, PHASES)),
    "relax": lambda net, x, y: ep.relax(net, x, 3, y, 0.1).states,
    "engine, relax": lambda net, x, y: ep.relax(engine.prepared(net), x, 3, y, 0.1).states,
    "free with labels": lambda net, x, y: ep.relax(net, x, 3, y).states,
    "increments": lambda net, x, y: ep.eqprop_increments(net, x, y, net.init_state(X), 2, nudging=SYMMETRIC),
    "bptt increments": lambda net, x, y: ep.bptt_increments(net, x, y, net.init_state(X), 2),
    "in_chunks": lambda net, x, y: numbers(ep.in_chunks(estimate, net, x, y, size=4)),
    "evaluate": lambda net, x, y: np.array(ep.evaluate(net, x, y, lambda net, x: ep.relax(net, x, 5), chunk=4)),
    "train_epoch": trained}
every_door = pytest.mark.parametrize("door", DOORS)


def network():
    return Case("average", seed=1).example()[0]


@every_door
@pytest.mark.parametrize("kind", LABELS)
def test_labels_count_by_position(door, kind):
    """The same numbers as of a plain array, bit for bit; nobody's array is changed."""
    assert np.array_equal(flat(DOORS[door](network(), X, LABELS[kind](Y))), flat(DOORS[door](network(), X, Y)))


@every_door
@pytest.mark.parametrize("kind", TYPES)
def test_images_count_by_position(door, kind):
    assert np.array_equal(flat(DOORS[door](network(), TYPES[kind](X), Y)), flat(DOORS[door](network(), X, Y)))


@every_door
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_array_is_one_sentence(door, kind):
    """It names the argument, and what was passed."""
    made = REFUSED[kind](Y)
    images = "images" if door in ("train_epoch", "evaluate", "in_chunks") else "inputs"
    for what, arguments in ((images, (made, Y)), ("labels", (X, made))):
        if (what, kind) == ("labels", "NoneType") and door in ("relax", "engine, relax", "free with labels"):
            continue  # without labels nothing nudges
        message = sentence(DOORS[door], network(), *arguments)
        assert what in message and type(made).__name__ in message


BAD = {
    "one label for all images": (lambda x, y: (x, y[:1]), "1"), "too many labels": (lambda x, y: (x[:4], y), "6"),
    "no images": (lambda x, y: (x[:0], y[:0]), "0|none"), "NCHW": (lambda x, y: (x.transpose(0, 3, 1, 2), y), "channels-last"),
    "NaN": (lambda x, y: (np.where(np.arange(N)[:, None, None, None] == 2, np.nan, x), y), "NaN .* input"),
    "infinite": (lambda x, y: (x + np.inf, y), "infinite"), "bytes": (lambda x, y: (x.astype("uint8"), y), "uint8"),
    "flat": (lambda x, y: (x.reshape(N, -1), y), str(X.shape[1:])[1:-1]), "negative label": (lambda x, y: (x, y - 1), "labels"),
    "float labels": (lambda x, y: (x, y.astype(float)), "labels"), "strings": (lambda x, y: (x, y.astype(str)), "labels"),
    "targets that are NaN": (lambda x, y: (x, np.full((N, 3), np.nan)), "targets")}


@every_door
@pytest.mark.parametrize("bad", BAD)
def test_images_and_labels_that_do_not_fit(door, bad):
    """One sentence that names what is wrong, and no parameter has changed."""
    (spoil, named), net = BAD[bad], network()
    assert re.search(named, sentence(DOORS[door], net, *spoil(X, Y)))
    assert relative(net.parameters(), network().parameters()) == 0


def test_parameters_of_other_libraries():
    parameters, other = network().parameters(), Case("average", seed=2).example()[0]
    other.set_parameters({key: Foreign(w) for key, w in parameters.items()})
    assert relative(other.parameters(), parameters) == 0
    assert "parameter 1.W" in sentence(other.set_parameters, {key: iter(w) for key, w in parameters.items()})


TARGETS = {"one-hot": np.eye(3)[Y], "smoothed": 0.9 * np.eye(3)[Y] + 0.1 / 3, "two labels": 1 - np.eye(3)[Y],
           "weights": np.arange(N)[:, None] * np.eye(3)[Y], "none": np.zeros((N, 3)),
           "any": np.random.default_rng(1).normal(size=(N, 3))}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", TARGETS)
def test_loss_and_gradient_agree_whatever_targets_sum_to(cost, kind):
    """The loss is its definition, EP's gradient of one bias and BPTT's are its finite difference."""
    net, y, phases, h = Case("average", cost=cost, scale=0.5).example()[0], TARGETS[kind], ep.Phases(150, 150), 1e-5
    estimates = [ep.bptt_gradient(net, X, y, phases), ep.eqprop_gradient(net, X, y, phases, nudging=ep.Nudging.symmetric(1e-3))]
    output = net.cost.output(ep.relax(net, X, 150).states[-1])
    defined = -(y * np.log(output)).sum(1) if cost == "cross-entropy" else 0.5 * ((output - y) ** 2).sum(1)
    assert estimates[0].loss == pytest.approx(defined.mean(), abs=1e-12)
    for name in ("1.b", *(["readout.b"] if cost == "cross-entropy" else [])):
        b, losses = net.parameters()[name], []
        for step in (h, -h):
            b[0] += step
            losses.append(ep.bptt_gradient(net, X, y, phases).loss)
            b[0] -= step
        for found in estimates:
            assert found.gradient[name][0] == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-4, abs=1e-8)
