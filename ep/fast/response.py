"""`response`, fast, on a CPU: the deviations of all nudged phases as one batch.

    delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ],    d = D^T delta - [n = L] beta dC/ds( s_L* + delta_L )     (11)

as `dynamics.deviate` has it, in the buffers of the free phase, chain.py: its switches stay, and what is zero needs no
convolution. The first sweep down has no way up. Arrays are (H, W, B N, C), for B phases of N images.
"""

import numpy as np

from .. import dynamics
from ..dynamics import LARGEST_WEIGHT, SCHEDULES, Phase, Relaxation
from .chain import chain_of
from .plan import unsuitable
from .pooling import inside, outside
from .relaxation import own, same_dtypes
from .synapses import by_phase

SLOPES = {"hard-sigmoid": 0.5, "clip": 1.0}  # activations clip(slope u, 0, 1)


def response(network, y, free, nudging, phase, transposed=True, *, kernels=None):
    """`dynamics.response`, faster; the same arguments and results. kernels: as for `relax`."""
    phase = Phase.of(phase)
    if nudging.is_complex or unsuitable(network) or not same_dtypes(network, [y, *free.states, *free.u]):
        return dynamics.response(network, y, free, nudging, phase, transposed)
    chain = held(own(kernels, network), free.states, free.switches, free.u)
    points = [(beta, c) for beta, c in zip(nudging.points, nudging.weights) if beta != 0]
    together = [points] if phase.tolerance == 0 else [[point] for point in points]  # each stops by its own residual
    mu, phases = [np.zeros_like(u) for u in chain.u], []
    for part in together:
        deviations = deviations_of(chain, len(part))
        phases += deviations.relax(y, [beta for beta, _ in part], phase, transposed, free.switches)
        for mu_n, delta in zip(mu, deviations.delta):
            for b, (_, c) in enumerate(part):
                mu_n -= c * by_phase(delta, len(part))[..., b, :, :]  # mu = - sum_k c_k delta^k
    return [outside(mu_n) for mu_n in mu], phases


def held(kernels, states, switches, u=()):
    """This thread's chain, at the free state that these arrays describe: as `relax` has left it, or loaded from them."""
    chain = chain_of(kernels, len(states[0]))
    chain.take(kernels)
    if not chain.holds(states, switches, u):
        chain.load(states, switches)
        chain.first.set_switches(switches[0])
        for own, given in zip(chain.u, u):
            own[...] = inside(given)
        chain.hold(states, switches, u)
    return chain


def deviations_of(chain, B):
    if B not in chain.responses:
        chain.responses[B] = Deviations(chain, B)
    return chain.responses[B]


class Deviations:
    """B nudged phases of one chain: delta[n - 1] (H, W, B N, C), and the two ways through every synapse."""

    def __init__(self, chain, B):
        self.chain, self.B = chain, B
        self.delta = [np.zeros((*u.shape[:-2], B * u.shape[-2], u.shape[-1]), u.dtype) for u in chain.u]
        self.ways = [synapse.response(B) for synapse in chain.synapses]

    def relax(self, y, betas, phase, transposed, switches):
        """[`Relaxation` of each phase], from delta = 0."""
        for way in self.ways:
            way.start(transposed)
        network, self.y, self.betas = self.chain.network, y, betas
        self.weights, self.bounds = [min(w, LARGEST_WEIGHT) for w in network.weights], {}
        self.moved, groups, history = [False] * (len(self.delta) + 2), SCHEDULES[phase.schedule](network), []
        for t in range(1, phase.steps + 1):
            check, changes = phase.checks(t), []
            for group in groups:
                changes += self.step(group, check)
            if check:
                history.append((t, np.max(changes, axis=0)))
                if phase.tolerance > 0 and history[-1][1].max() <= phase.tolerance:
                    break
        return [self.result(b, history, phase, switches) for b in range(self.B)]

    def result(self, b, history, phase, switches):
        history = [(t, float(residuals[b])) for t, residuals in history]
        steps, last = history[-1]
        states = [outside(by_phase(delta, self.B)[..., b, :, :]).copy() for delta in self.delta]
        return Relaxation(states, switches, steps, last, last <= phase.tolerance, history)

    def step(self, group, check):
        """(11) for the layers in `group`; returns [largest change of each phase, (B,)] of each of them if `check`."""
        L, several, drives = len(self.delta), len(group) > 1, {}
        for n in group:
            d = self.drive(n)
            drives[n] = d.copy() if several and d is not None else d  # drives share their memory
        changes = [self.update(n, d, check) for n, d in drives.items()]
        moved = [n for n in group if drives[n] is not None]
        for n in moved:
            self.moved[n] = True
        return changes or [np.zeros(self.B)] * L

    def drive(self, n):
        """d_n, or None if it is zero: nothing around layer n has moved yet."""
        d, L = None, len(self.delta)
        if n > 1 and self.moved[n - 1]:
            d = self.ways[n - 2].up(self.delta[n - 2])
        if n < L and self.moved[n + 1]:
            down = self.ways[n - 1].down(self.delta[n])  # after the way up, for it lies in memory that all convolutions share
            d = down if d is None else np.add(d, down, out=d)
        if n == L:
            d = np.zeros_like(self.delta[-1]) if d is None else d
            s = self.chain.states[-1]
            for b, beta in enumerate(self.betas):
                delta = by_phase(self.delta[-1], self.B)[..., b, :, :]
                at = s + delta if self.moved[L] else s
                by_phase(d, self.B)[..., b, :, :] += beta * inside(self.chain.network.cost.force(outside(at), self.y))
        return d

    def update(self, n, d, check):
        """delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ]"""
        delta = self.delta[n - 1]
        if d is None:
            delta[...] = 0  # it has not moved
            return np.zeros(self.B)
        old = delta.copy() if check and self.moved[n] else None
        self.difference(n, by_phase(d, self.B), by_phase(delta, self.B))
        if not check:
            return None
        change = by_phase(delta if old is None else delta - old, self.B)
        return np.array([max(change[..., b, :, :].max(), -change[..., b, :, :].min()) for b in range(self.B)])

    def difference(self, n, d, out):
        """Of a clipped sigma, w clip(v + e/w) - w clip(v) is clip(e, low, high) for units inside, all known but e."""
        network, w, u = self.chain.network, self.weights[n - 1], self.chain.u[n - 1][..., None, :, :]
        slope = SLOPES.get(network.activation.name)
        if slope is None:
            np.multiply(network.activation.difference(u, d / w), w, out=out)
            return
        if n not in self.bounds:  # with v = slope u and c = clip(v): clip(e + w (v - c), - w c, w (1 - c))
            c = network.activation.sigma(u)
            self.bounds[n] = w * (slope * u - c), -w * c, w * (1.0 - c)
        offset, low, high = self.bounds[n]
        np.multiply(d, slope, out=d)
        d += offset
        np.maximum(d, low, out=d)
        np.minimum(d, high, out=out)
