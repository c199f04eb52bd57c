"""`response`, fast, on a CPU: the deviations of the nudged phases, one phase after the other, in the buffers of the free phase.

    delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ],    d = D^T delta - [n = L] beta dC/ds( s_L* + delta_L )     (11)

as `dynamics.deviate` has it. The switches stay as chain.py holds them, and what is zero needs no convolution: the first sweep
down has no way up. Every stripe of d that a convolution yields becomes delta while it is in the cache.
"""

import numpy as np

from .. import dynamics
from ..dynamics import LARGEST_WEIGHT, SCHEDULES, Phase, Relaxation
from .chain import added, chain_of
from .plan import SLOPES, unsuitable
from .pooling import inside, outside
from .relaxation import own, same_dtypes


def response(network, y, free, nudging, phase, transposed=True, *, kernels=None):
    """`dynamics.response`, faster; the same arguments and results. kernels: as for `relax`."""
    phase = Phase.of(phase)
    unfit = nudging.is_complex or kernels is None and unsuitable(network)
    if unfit or not same_dtypes(network, [y, *free.states, *free.u]):
        return dynamics.response(network, y, free, nudging, phase, transposed)
    deviations, mu, phases = Deviations(held(own(kernels, network), free.states, free.switches, free.u), transposed), None, []
    for beta, c in zip(nudging.points, nudging.weights):
        if beta != 0:
            delta, history = deviations.relax(y, beta, phase)
            steps, last = history[-1]
            phases.append(Relaxation([outside(d) for d in delta], free.switches, steps, last, last <= phase.tolerance, history))
            if mu is None:
                mu = [np.multiply(d, -c) for d in delta]
            else:
                for mu_n, d in zip(mu, delta):
                    mu_n -= c * d  # mu = - sum_k c_k delta^k
    return [outside(mu_n) for mu_n in mu], phases


def held(kernels, states, switches, u=()):
    """This thread's chain, at the free state that these arrays describe: as `relax` has left it, or loaded from them."""
    chain = chain_of(kernels, len(states[0]))
    chain.take(kernels)
    if not chain.holds(states, switches, u):
        chain.load(states, switches)
        for k in chain.outer:
            chain.synapses[k].set_switches(switches[k])
        chain.u = [np.ascontiguousarray(inside(given)) for given in u]
        chain.hold(states, switches, u)
    return chain


class Deviations:
    """The nudged phases of one free state."""

    def __init__(self, chain, transposed):
        self.chain, network = chain, chain.network
        self.weights = [min(w, LARGEST_WEIGHT) for w in network.weights]
        self.slope, self.top, self.sums = SLOPES.get(network.activation), network.activation.bounds[1], {}
        for k in chain.inner:
            chain.synapses[k].start_response(transposed, self.slope or 1.0)

    def relax(self, y, beta, phase):
        """([delta_n], history) of one phase, from delta = 0."""
        self.y, self.beta, self.delta = y, beta, [np.empty_like(u) for u in self.chain.u]
        self.moved, groups, history = [False] * (len(self.delta) + 2), SCHEDULES[phase.schedule](self.chain.network), []
        for t in range(1, phase.steps + 1):
            check = phase.checks(t)
            changes = [change for group in groups for change in self.step(group, check)]
            if check:
                history.append((t, float(np.max(changes))))
                if history[-1][1] <= phase.tolerance and phase.tolerance > 0:
                    break
        for delta in (delta for delta, moved in zip(self.delta, self.moved[1:]) if not moved):
            delta[...] = 0
        return self.delta, history

    def step(self, group, check):
        """(11) for the layers in `group`; returns their largest changes if `check`."""
        several = len(group) > 1  # then all drives from the old deviations, in memory of their own
        drives = {n: [(rows, d.copy()) for rows, d in self.drive(n)] if several else self.drive(n) for n in group}
        changes = [self.update(n, rows, d, check) for n, stripes in drives.items() for rows, d in stripes]
        for n, moves in [(n, self.will_move(n)) for n in group]:
            self.moved[n] = moves
        return changes if check and changes else [0.0]

    def will_move(self, n):
        """Whether layer n is pushed, or stands beside one that has moved."""
        chain = self.chain
        neighbours = [chain.wiring[k][0] for k in chain.into[n]] + [chain.wiring[k][1] for k in chain.out_of[n]]
        return n == len(self.delta) or self.moved[n] or any(self.moved[m] for m in neighbours)

    def drive(self, n):
        """Yields (rows, slope d_n of these rows); nothing where d_n is zero, as long as nothing around layer n has moved."""
        chain = self.chain
        up = [k for k in chain.into[n] if self.moved[chain.wiring[k][0]]]
        down = [k for k in chain.out_of[n] if self.moved[chain.wiring[k][1]]]
        terms = [chain.synapses[k].response_post(self.delta[chain.wiring[k][0] - 1]) for k in up]
        if n == len(self.delta):
            terms.append(self.nudge())
        stripes = [chain.synapses[k].response_pre(self.delta[chain.wiring[k][1] - 1]) for k in down]
        if len(terms) + len(stripes) > 1 and n not in self.sums:
            self.sums[n] = np.empty_like(chain.u[n - 1])
        return added(terms, stripes, self.sums.get(n)) if terms or stripes else ()

    def nudge(self):
        """- slope beta dC/ds( s_L* + delta_L )"""
        s = self.chain.states[-1]
        at = s + self.delta[-1] if self.moved[len(self.delta)] else s
        return (self.slope or 1.0) * self.beta * inside(self.chain.network.cost.force(outside(at), self.y))

    def update(self, n, rows, d, check):
        """delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ] in these rows; returns the largest change if `check`."""
        delta = self.delta[n - 1][rows]
        old = delta.copy() if check and self.moved[n] else None
        if self.slope is None:
            w = self.weights[n - 1]
            np.multiply(self.chain.network.activation.difference(self.chain.u[n - 1][rows], d / w), w, out=delta)
        else:
            self.clipped(n, rows, d, delta)
        if check:
            change = delta if old is None else delta - old
            return max(float(change.max()), -float(change.min()))

    def clipped(self, n, rows, e, out):
        """The same for sigma = clip(slope u, 0, top), with v = slope u, s = clip(v) and e = slope d:

            w clip(v + e/w) - w s = clip( e + w (v - s), - w s, w (top - s) )             v - s is 0, exactly, inside the bounds
        """
        s, u, w = self.chain.states[n - 1][rows], self.chain.u[n - 1][rows], self.weights[n - 1]
        low, high, offset = s * -w, self.top - s, u * (self.slope * w)
        high *= w
        offset += low
        e += offset
        np.maximum(e, low, out=e)
        np.minimum(e, high, out=out)
