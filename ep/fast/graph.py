"""The gradient of a training step on a GPU: few launches, no waiting, and recorded as a CUDA graph that is replayed.

With two or three sweeps a step, a GPU spends its time waiting for the host: hundreds of launches of some 10 microseconds each.
`Recorder.eqprop_gradient` therefore computes the same as `ep.eqprop_gradient`, from the same synapses, in another way:

    zeros   what a layer sends that is still zero is not computed: the first sweep up is the feed-forward pass
    phases  the deviations of all nudged phases are one batch, (phases N, ...)
    passes  u = up + gain down and s = sigma(u) are one pass over memory, and so is equation (11)
    numbers loss, residual, norms and whatever else the log wants stay on the device, and are looked at together at the end
    graph   all of it is recorded once, for the arrays where the parameters lie, and then replayed by a single launch

`unsuitable` says which steps it cannot do; they take the way they took before.
"""

from contextlib import suppress
from functools import partial

import numpy as np

from .. import dynamics, eqprop
from ..backend import Array, array_module, to_host
from ..cost import SquaredError
from ..dynamics import LARGEST_WEIGHT, SCHEDULES, Estimate, Phases, Relaxation, Solver
from ..network import Network, times
from ..nudging import Nudging
from ..synapse import Identity
from . import blas, kernels
from .plan import plain

KEPT = 4  # recordings: of whole batches and the rest of an epoch, for either sign of a nudge that is drawn


def unsuitable(network, phases, nudging):
    """Why this gradient is not computed here, in words; None if it is."""
    if array_module(network._some) is np:
        return "the parameters are on no GPU"
    if not phases.deviations or nudging.is_complex or any(isinstance(c, complex) for c in nudging.weights):
        return "the nudged phases are no real deviations"
    if any(phase.check_every and phase.check_every < phase.steps for phase in (phases.free, phases.nudged)):
        return "the residual is wanted before the last step"
    if phases.free.tolerance or phases.nudged.tolerance:
        return "a tolerance makes the host wait for the residual of each step"
    return None


def recordable(network):
    """Whether all parts of a network multiply by `blas.matmul`: a synapse or a cost of another kind may not."""
    synapses = [one for synapse in network.synapses for one in plain(synapse)]
    return str(network._some.dtype) in blas.FLOATS and type(network.cost) in (kernels.FusedReadout, SquaredError) and all(
        type(synapse) in (kernels.FusedConv, kernels.FusedDense, Identity) for synapse in synapses)


class Recorder:
    """Gradients of one training on a GPU, for one thread. Keeps what it has recorded, and the memory that belongs to it."""

    def __init__(self) -> None:
        self.recordings = {}

    def eqprop_gradient(self, network: Network, x: Array, y: Array, phases: Phases, *, nudging: Nudging, transposed: bool = True,
                        solver: Solver = dynamics.READABLE) -> Estimate:
        """`ep.eqprop_gradient`, with the same arguments. Of the result, gradient, loss, correct and the free states are the same.

        Where the step is done here, `solver` is not asked, the free phase has no switches and no u, nudged phases are not kept,
        and `known` has numbers for the log.
        """
        if unsuitable(network, phases, nudging):
            return eqprop.eqprop_gradient(network, x, y, phases, nudging=nudging, transposed=transposed, solver=solver)
        x, y = network.examples(x, y)
        fused = kernels.fused(network)
        step = partial(gradient, fused, phases=phases, nudging=nudging, transposed=transposed)
        if blas.direct(array_module(x)) is None or not recordable(fused) or x.dtype.kind == "c":
            return estimate(network, phases, *step(x, y))
        where = tuple(w.data.ptr for w in network.parameters().values())  # a recording reads the parameters there
        parts = network.activation, network.cost, tuple(network.wiring), network.feedback, tuple(
            (synapse, getattr(synapse, "pool", None)) for synapse in network.synapses)
        key = where, parts, x.shape, x.dtype, y.shape, phases, nudging, transposed
        recorded = self.recordings.pop(key, None)
        for old in list(self.recordings)[:1 - KEPT]:  # the last in the dictionary is the last that was used
            del self.recordings[old]
        self.recordings[key] = recorded = recorded or Recorded(step, x, y)
        products, states, numbers = recorded(x, y)  # which the next call overwrites: a batch may have several chunks
        return estimate(network, phases, {name: g.copy() for name, g in products.items()}, [s.copy() for s in states], numbers)


class Recorded:
    """function(*arrays), a CUDA graph: recorded here, replayed by every call, in memory that nothing else uses.

    It must launch kernels only, and not look at a number. Its results are the same arrays every time.
    """

    def __init__(self, function, *arrays):
        cupy, self.function = array_module(arrays[0]), function
        stream, self.pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
        cupy.cuda.Device().synchronize()
        with stream, cupy.cuda.using_allocator(self.pool.malloc):
            self.arguments = [a.copy() for a in arrays]
            function(*self.arguments)  # compiles the kernels, and fills the pool
            stream.synchronize()
            stream.begin_capture()
            try:
                self.results = function(*self.arguments)
            except BaseException:
                with suppress(Exception):  # the stream must not go on recording; the first error is the one to tell
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()

    def __call__(self, *arrays):
        for own, given in zip(self.arguments, arrays):
            own[...] = given
        self.graph.launch()
        return self.results


# --- the step, as launches ----------------------------------------------------------------------------------------------


def gradient(network, x, y, phases, nudging, transposed):
    """(gradient summed over the batch, states, numbers on the device), by (12) as `ep.eqprop_gradient` has it."""
    states, u, switches, change = free_phase(network, x, phases.free)
    mu = response(network, y, states, u, switches, phases.nudged, nudging, transposed)
    products = network.parameter_adjoint(x, states, switches, mu)
    products |= network.readout_gradient(states, y)
    products = {name: products[name] / len(x) for name in network.parameters()}
    return products, states, watched(network, y, states, products, change)


def free_phase(network, x, phase):
    """`relax` from zero for all of the phase's steps: (states, u, switches, the residual, on the device)."""
    synapses, L = network.synapses, len(network.shapes) - 1
    layers, u, drives = [x] + [None] * L, [None] * (L + 1), [None] * len(synapses)  # None: a layer that is still zero

    def up(k):
        """(drive, switches) of synapse k on its post layer, at the present state of its pre layer."""
        if drives[k] is None:
            pre = layers[network.wiring[k][0]]
            drives[k] = synapses[k].drive_post(zeros(network, x, network.wiring[k][0]) if pre is None else pre)
        return drives[k]

    def drive(n):
        """u_n in two parts: what comes up, and what comes down with the gain of the last synapse still missing."""
        ups = [up(k)[0] for k, (_, j) in enumerate(network.wiring) if j == n]
        downs = [(gain, synapses[k].drive_pre(layers[j], up(k)[1]))
                 for k, ((i, j), gain) in enumerate(zip(network.wiring, network.gains)) if i == n and layers[j] is not None]
        return sum_of(ups + [times(*down) for down in downs[:-1]]), downs[-1:]

    for _ in range(phase.steps):
        before = list(layers)
        for group in SCHEDULES[phase.schedule](network):
            parts = {n: drive(n) for n in group}
            for n, (total, down) in parts.items():
                if down:
                    [(gain, down)] = down
                    u[n], layers[n] = kernels.update(network.activation, total, down, gain)
                else:
                    u[n], layers[n] = total, network.activation.sigma(total)
                for k, (i, _) in enumerate(network.wiring):
                    if i == n:
                        drives[k] = None
    change = largest([new if old is None else new - old for new, old in zip(layers[1:], before[1:])])
    return layers[1:], u[1:], [up(k)[1] for k in range(len(synapses))], change


def response(network, y, states, u, switches, phase, nudging, transposed):
    """[mu_1 ... mu_L] = - sum_k c_k delta^{beta_k}, all phases as one batch: see `dynamics.deviate`."""
    points = [(beta, c) for beta, c in zip(nudging.points, nudging.weights) if beta != 0]
    N, L, xp = len(y), len(states), array_module(y)
    several = [None if i == 0 else repeated(xp, sw, len(points)) for sw, (i, _) in zip(switches, network.wiring)]
    delta, weights = [None] * (L + 1), [
        None, *(min(max(w, 1 / LARGEST_WEIGHT), LARGEST_WEIGHT) for w in network.weights)]

    def drive(n):
        """d_n of all phases, (phases N, ...); None while nothing reaches layer n."""
        terms = [nudge()] if n == L else []
        for synapse, (i, j), gain, sw in zip(network.synapses, network.wiring, network.gains, several):
            down, up = ((synapse.drive_post_adjoint, synapse.drive_pre_adjoint) if transposed
                        else (synapse.drive_pre, synapse.linear_post))
            if i == n and delta[j] is not None:
                terms.append(down(delta[j], sw))
            if j == n and i > 0 and delta[i] is not None:
                terms.append(times(gain, up(delta[i], sw)))
        return sum_of(terms) if terms else None

    def nudge():
        """- beta dC/ds( s_L* + delta_L )"""
        s = [states[-1] if delta[L] is None else states[-1] + delta[L][k * N:(k + 1) * N] for k in range(len(points))]
        return joined(xp, [beta * network.cost.force(s_k, y) for s_k, (beta, _) in zip(s, points)])

    for _ in range(phase.steps):
        for group in SCHEDULES[phase.schedule](network):
            for n, d in {n: drive(n) for n in group}.items():
                if d is not None:
                    delta[n] = kernels.deviation(network.activation, u[n - 1], states[n - 1], d, weights[n])
    return [0.0 * s if d is None else sum_of([-c * part for (_, c), part in zip(points, d.reshape(-1, N, *s.shape[1:]))])
            for s, d in zip(states, delta[1:])]


def watched(network, y, states, products, change):
    """What the log wants to know of a step, in one array on the device: see `estimate`."""
    xp, (low, high) = array_module(y), network.activation.bounds
    stuck = [((s <= low).all(0) | (s >= high).all(0)).mean() for s in states]
    squares = [(g * g).sum() for g in products.values()]
    numbers = [network.cost.value(states[-1], y).sum(), (network.predict(states) == y.argmax(1)).sum(), change, *stuck, *squares]
    return joined(xp, [number.astype(y.dtype).reshape(1) for number in numbers])


def estimate(network, phases, gradient, states, numbers):
    """The `Estimate`, after the one look at the device."""
    numbers, N = to_host(numbers), len(states[0])
    (loss, correct, change), rest = numbers[:3], numbers[3:]
    free = Relaxation(states, [], phases.free.steps, float(change), float(change) <= 0, [(phases.free.steps, float(change))])
    known = dict(stuck=rest[:len(states)].tolist(), squares=dict(zip(gradient, rest[len(states):].tolist())))
    return Estimate(gradient, float(loss) / N, int(correct), free, known=known)


# --- small things ---------------------------------------------------------------------------------------------------------


def sum_of(terms):
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def zeros(network, x, n):
    return array_module(x).zeros((len(x), *network.shapes[n]), x.dtype)


def repeated(xp, switches, copies):
    """The switches of a batch, for a batch of so many copies of it; those of an asymmetric synapse are a pair."""
    if isinstance(switches, tuple):
        return tuple(repeated(xp, sw, copies) for sw in switches)
    return switches if switches is None or copies == 1 else joined(xp, [switches] * copies)


def joined(xp, arrays):
    """Their concatenation. CuPy's own may send addresses to the device, which a graph cannot record."""
    out, start = xp.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype), 0
    for a in arrays:
        out[start:start + len(a)] = a
        start += len(a)
    return out


def largest(changes):
    xp = array_module(changes[0])
    return joined(xp, [abs(change).max().reshape(1) for change in changes]).max()
