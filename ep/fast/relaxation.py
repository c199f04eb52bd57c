"""`relax`, fast, on a CPU: the dynamics of dynamics.py step by step, with less copying and fewer multiplications.

The same signature, schedules and stopping, and the same states but for rounding (tests/test_fast.py). What differs:

    layout      states are (H, W, N, C) inside: a layer's row is one run of W*N*C numbers
    padding     each state lives inside the zero border that its convolution needs
    buffers     the large arrays of the convolutions are allocated once per relaxation
    switches    three booleans per window (bottom row? right in the top row? right in the bottom row?), refreshed only
                where the state below has changed
    Winograd    convolutions take 2.25 or 4 times fewer multiplications (winograd.py); kernels are transformed once per
                batch if the caller passes kernels=fast.transformed(network)

For chains of `Dense` and `Conv` of stride 1, symmetric or not, in real NumPy arrays; `unsuitable` says what it cannot do, and
everything else goes through the readable `dynamics.relax`.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from .. import dynamics, ops
from ..dynamics import Phase, Relaxation
from ..errors import EPError
from ..network import Network
from ..synapse import Conv, Dense
from ..vectorfield import Asymmetric
from .pooling import POOLS, inside, outside
from .winograd import TILES, Col2im, Im2col, Scratch, Winograd, multiplications, transform_kernel


def relax(network, x, phase, y=None, beta=0.0, *, start=None, switches=None, inputs=None, kernels=None):
    """`dynamics.relax`, faster. kernels: what `transformed(network)` returned for the present weights (default: made here)."""
    phase, beta = Phase.of(phase), dynamics.checked(network, x, y, beta)
    dtypes = {a.dtype for a in [x, network.synapses[0].b, *(start or [])]}
    if isinstance(beta, complex) or len(dtypes) > 1 or unsuitable(network):
        return dynamics.relax(network, x, phase, y, beta, start=start, switches=switches, inputs=inputs)
    kernels = kernels or transformed(network)
    if kernels.network is not network:
        raise EPError("these kernels were made from another network: call fast.prepared(network) for this one")
    y = None if y is None else network.targets(y, x.dtype)
    inputs = inputs or network.input_drives(x)
    chain = _Chain(network, kernels.convolutions, inputs[0], start, switches)
    groups, history = dynamics.SCHEDULES[phase.schedule](network), []
    for t in range(1, phase.steps + 1):
        check, changes = phase.checks(t), []
        for group in groups:
            changes += chain.step(group, y, beta, check)
        if check:
            history.append((t, float(np.max(changes))))  # not Python's max, which may lose a NaN
            if history[-1][1] <= phase.tolerance and phase.tolerance > 0:
                break
    steps, last = history[-1]
    return Relaxation([outside(s).copy() for s in chain.states], chain.switches(), steps, last, last <= phase.tolerance, history,
                      [outside(u).copy() for u in chain.u])


def prepared(network, largest_tile=4, map=map):
    """The `Solver` for this network while its weights stay as they are: kernels transformed once, or the readable one.

    Make it anew after every update: with stale kernels it mixes old weights and new ones.
    """
    if unsuitable(network):
        return dynamics.READABLE
    return dynamics.READABLE._replace(relax=partial(relax, kernels=transformed(network, largest_tile, map)))


class Kernels(NamedTuple):
    network: Network  # that they were made from
    convolutions: list  # for every synapse after the first, functions (N, scratch) -> convolution; empty for dense ones


def transformed(network, largest_tile=4, map=map):
    """The network's `Kernels`, valid until its weights change.

    largest_tile: 4 or 2 for Winograd's F(4x4, 3x3) or F(2x2, 3x3), 1 for im2col.
    map: of `worker_threads`, to share the work.
    """
    pairs = zip(network.synapses[1:], network.gains[1:])
    return Kernels(network, list(map(lambda pair: _convolutions(*ways(pair[0]), largest_tile, pair[1]), pairs)))


def ways(synapse):
    """The plain synapse whose W leads up, and the one whose W leads down: the same unless the synapse is asymmetric."""
    return (synapse.forward, synapse.feedback) if type(synapse) is Asymmetric else (synapse, synapse)


def unsuitable(network):
    """Why `relax` takes the readable path for this network, in words; None if it need not.

    (It also does so for a complex beta, and for inputs or a start of another dtype than the weights.)
    """
    if type(network) is not Network or network.wiring != [(n, n + 1) for n in range(len(network.synapses))]:
        return "its layers are no plain chain"
    for synapse in [plain for pair in map(ways, network.synapses) for plain in pair]:
        if type(synapse) not in (Conv, Dense):
            return f"it has a synapse of another kind, {type(synapse).__name__}"
        if type(synapse.W) is not np.ndarray:
            return "its weights are not NumPy arrays"
        if type(synapse) is Conv and not any(synapse.pool is pool for pool in ops.POOLINGS.values()):
            return f"it has a pooling of another kind, {synapse.pool.name}"
    for synapse, _ in map(ways, network.synapses[1:]):
        if type(synapse) is Conv and (synapse.stride != 1 or synapse.padding >= synapse.W.shape[0]):
            return "it has a convolution with a stride, or with more padding than its kernel covers"
    return None


def path(network):
    """One line for people: which path `prepared(network)` takes, and why."""
    why = unsuitable(network)
    return f"relaxing by ep.dynamics.relax, the readable path: {why}" if why else "relaxing by ep.fast.relax (Winograd)"


def _convolutions(up, down, largest_tile, gain=1.0):
    """[up, down, and up for the switches of the way down if it has its own]: functions (N, scratch) -> convolution.

    The feedback gain is multiplied into the kernel of the way down.
    """
    if type(up) is Dense:
        return []
    pre_size, post_size, p, k = up.pre_shape[:2], up.conv_shape, up.padding, up.W.shape[0]
    found = [_cheapest(up.W, pre_size, post_size, p, largest_tile)]
    if math.prod(post_size) < math.prod(pre_size) and k * k * math.prod(post_size) <= multiplications(4, pre_size):
        found.append(partial(Col2im, gain * down.W, post_size, pre_size, p))  # few pixels: the flipped convolution multiplies zeros
    else:
        flipped = np.ascontiguousarray(gain * down.W[::-1, ::-1].transpose(0, 1, 3, 2))  # W^T * is a convolution with this
        found.append(_cheapest(flipped, post_size, pre_size, k - 1 - p, largest_tile))
    if down is not up and down.pool is ops.MAX_POOL:
        found.append(_cheapest(down.W, pre_size, post_size, p, largest_tile))
    return found


def _cheapest(W, size_in, size_out, padding, largest_tile):
    """The convolution with W that takes the fewest multiplications."""
    cost = {m: multiplications(m, size_out) for m in TILES if m <= largest_tile and len(W) == 3}
    m = min(cost, key=cost.get, default=None)
    if m is None or cost[m] > W.shape[0] ** 2 * math.prod(size_out):
        return partial(Im2col, W, size_in, size_out, padding)
    return partial(Winograd, transform_kernel(W, m), m, size_in, size_out, padding)


class _Chain:
    """The states of one relaxation, and the synapses between them: synapses[n-1] joins s_n and s_{n+1}."""

    def __init__(self, network, kernels, input_drive, start, switches):
        self.network, self.frozen, scratch = network, switches is not None, Scratch(input_drive[0].dtype)
        drive, self.input_switches = input_drive
        self.input_drive = np.ascontiguousarray(inside(drive))
        self.synapses = [_FastConv(synapse, convolutions, len(drive), scratch) if convolutions else
                         _FastDense(synapse, gain, len(drive), scratch)
                         for synapse, convolutions, gain in zip(network.synapses[1:], kernels, network.gains[1:])]
        self.u = [np.zeros_like(self.input_drive), *(np.zeros_like(synapse.drive) for synapse in self.synapses)]
        self.states = [*(synapse.pre for synapse in self.synapses), np.zeros_like(self.u[-1])]
        if start is not None:
            for s, s_0 in zip(self.states, start, strict=True):
                s[...] = inside(s_0)
        for synapse, sw in zip(self.synapses, (switches or [])[1:]):
            synapse.set_switches(sw)
        self.fresh = [start is None] * len(self.synapses)  # does .drive belong to the present .pre? (to zeros it does)

    def step(self, group, y, beta, check):
        """Equation (1) for the layers in `group`; returns [their largest |s_new - s_old|] if `check`."""
        L = len(self.states)
        for n in group:  # all drives from the old states, then the new states
            u = self.u[n - 1]
            up = self.input_drive if n == 1 else self.drive_post(n - 2)
            if n < L:
                np.add(up, self.drive_pre(n - 1), out=u)
            else:
                u[...] = up
                if beta != 0:
                    u += beta * inside(self.network.cost.force(outside(self.states[-1]), y))
        return [self.update(n, check) for n in group]

    def update(self, n, check):
        s, u, change = self.states[n - 1], self.u[n - 1], None
        s_new = self.network.activation.sigma(u)
        if check:
            moved = s_new - s
            change = max(float(moved.max()), -float(moved.min()))
        s[...] = s_new
        if n < len(self.states):
            self.fresh[n - 1] = False
        return change

    def drive_post(self, k):
        """The drive of synapse k on its post layer; computed anew only if its pre layer has changed."""
        if not self.fresh[k]:
            self.synapses[k].drive_post(self.frozen)
            self.fresh[k] = True
        return self.synapses[k].drive

    def drive_pre(self, k):
        if not self.frozen:
            self.drive_post(k)  # for the switches
        return self.synapses[k].drive_pre(self.states[k + 1])

    def switches(self):
        """As `Relaxation` has them: of the present states, unless frozen."""
        if not self.frozen:
            for k in range(len(self.synapses)):
                self.drive_post(k)
        return [self.input_switches, *(synapse.switches() for synapse in self.synapses)]


class _FastDense:
    """`Dense`; a pre layer that is an image lies in (H, W, N, C) and is flattened as (H, W, C)."""

    def __init__(self, synapse, gain, N, scratch):
        (self.up, self.down), self.gain = ways(synapse), gain
        *size, channels = synapse.pre_shape
        self.pre = np.zeros((*size, N, channels), synapse.b.dtype)
        self.drive = np.broadcast_to(synapse.b, (N, len(synapse.b))).copy()

    def drive_post(self, frozen):
        self.drive[...] = self.up.drive_post(outside(self.pre))[0]

    def drive_pre(self, post):
        return self.gain * inside(self.down.drive_pre(post))

    def switches(self):
        return None if self.up is self.down else (None, None)

    def set_switches(self, switches):
        pass


class _FastConv:
    """`Conv` of stride 1, its two convolutions in buffers of their own; a third one where it is asymmetric."""

    def __init__(self, synapse, convolutions, N, scratch):
        self.up, self.down, *self.winners = (convolution(N, scratch) for convolution in convolutions)
        self.pre = self.up.input  # (H, W, N, C_pre), inside its border of zeros
        self.b = np.broadcast_to(synapse.b, (N, len(synapse.b))).copy()  # as long as a run, so that adding it is one pass
        self.drive = np.broadcast_to(self.b, (*synapse.post_shape[:2], *self.b.shape)).copy()
        self.pool_up = self.pool_down = POOLS[synapse.pool.name](self.drive.shape)
        self.symmetric = type(synapse) is Conv
        if self.winners:
            self.pool_down, self.winners[0].x = POOLS[synapse.pool.name](self.drive.shape), self.up.x

    def drive_post(self, frozen):
        """drive <- P(W * pre) + b"""
        (self.pool_up.at_switches if frozen else self.pool_up.pool)(self.up(), self.drive)
        self.drive += self.b
        for conv in () if frozen else self.winners:
            self.pool_down.pool(conv(), np.empty_like(self.drive))

    def drive_pre(self, post):
        """W^T * P^T(post), (H, W, N, C_pre)"""
        self.pool_down.unpool(post, self.down.input)
        return self.down()

    def switches(self):
        return self.pool_up.switches() if self.symmetric else (self.pool_up.switches(), self.pool_down.switches())

    def set_switches(self, switches):
        for pool, sw in zip((self.pool_up, self.pool_down), (switches,) if self.symmetric else switches):
            pool.set_switches(sw)
