"""How gradients change parameters: SGD as the paper trains, Adam, which needs less tuning, and Muon, which needs fewer updates.

The loop, the checkpoint and the alignment's prediction need four methods, the same of all:

    step(gradient, epoch)         one update of every parameter, in place
    rate(layer, when)             the layer's learning rate; SGD anneals by epoch, Adam by step
    decay(layer, epochs, steps)   what weight decay alone would leave of 1 by then
    state()                       {name: array}, the arrays themselves: all that has to be saved beside the parameters

Another one is a class with these, and a row of OPTIMIZERS below.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, Gradient, array_module
from ..checks import by_layer, real, whole
from ..engine import kernels
from ..network import Network


class SGD:
    """v <- momentum v + (g + weight_decay w),   w <- w - rate v      for every parameter, biases too.

    network:       its parameters are changed in place by `step`
    rates:         one number, or one per layer, the readout last; the rate of an epoch is
                   FLOOR + (rate - FLOOR) (1 + cos(pi epoch/anneal_epochs))/2, and FLOOR from anneal_epochs on
    anneal_epochs: None keeps the rates constant
    Raises EPError if the number of rates is not the number of layers, or for numbers that make no sense.
    """

    FLOOR = 1e-5

    def __init__(self, network: Network, rates: float | Sequence[float], momentum: float = 0.9, weight_decay: float = 0.0,
                 anneal_epochs: int | None = None) -> None:
        self.network, self.rates = network, rates_by_layer(network, rates)
        self.velocity = zeros_like(network.parameters())
        self.momentum, self.weight_decay = real(momentum, "momentum", 0, 1), real(weight_decay, "weight decay", 0)
        self.anneal_epochs = length(anneal_epochs, "anneal_epochs")

    def rate(self, layer: str, epoch: int) -> float:
        """The layer's learning rate in this epoch (0, 1, ...)."""
        return annealed(self.rates[layer], epoch, self.anneal_epochs, self.FLOOR)

    def step(self, gradient: Gradient, epoch: int = 0) -> None:
        """One update of every parameter by gradient {name: dL/dw}."""
        for name, w in self.network.parameters().items():  # anew: it may have got others (`set_parameters`)
            v = self.velocity[name]
            v *= self.momentum
            v += gradient[name] + self.weight_decay * w
            w -= self.rate(layer_of(name), epoch) * v

    def decay(self, layer: str, epochs: int, steps: int) -> float:
        """What weight decay alone leaves of 1 after `epochs` epochs of `steps` steps: by this Kolen-Pollack shrinks W - B.

        The rule above with g = 0; at a constant rate about exp(- rate weight_decay steps epochs/(1 - momentum)).
        """
        w, v = 1.0, 0.0
        for epoch in range(epochs):
            rate = self.rate(layer, epoch)
            for _ in range(steps):
                v = self.momentum * v + self.weight_decay * w
                w -= rate * v
        return w

    def state(self) -> Gradient:
        """{"velocity/1.W": v, ...}"""
        return {f"velocity/{name}": v for name, v in self.velocity.items()}


class Adam:
    """Adam with decoupled weight decay ("AdamW"; Loshchilov and Hutter, arXiv:1711.05101), for every parameter, biases too.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        after update t = 1, 2, ...
        w <- w - rate [ m/(1 - b1^t) / ( sqrt(v/(1 - b2^t)) + eps ) + weight_decay w ]        b1, b2, eps: BETAS, EPS

    network:      its parameters are changed in place by `step`
    rates:        one number, or one per layer, the readout last; update t is made with rate (1 + cos(pi (t-1)/anneal_steps))/2,
                  and from anneal_steps on with 0
    anneal_steps: the number of updates of the whole training; None keeps the rates constant
    warm_up:      the first so many updates are made with a rate that rises in equal steps to its full value. While m and v
                  have seen few gradients, m/sqrt(v) is near +-1 for every parameter, however small its gradient is. Fewer
                  units end up stuck at a bound with a warm-up (docs/negative_results.md)
    Raises EPError if the number of rates is not the number of layers, or for numbers that make no sense.
    """

    BETAS, EPS = (0.9, 0.999), 1e-8

    def __init__(self, network: Network, rates: float | Sequence[float], weight_decay: float = 0.0,
                 anneal_steps: int | None = None, warm_up: int = 0) -> None:
        self.network, self.rates = network, rates_by_layer(network, rates)
        self.mean, self.square, self.scratch = (zeros_like(network.parameters()) for _ in range(3))
        self.weight_decay = real(weight_decay, "weight decay", 0)
        self.anneal_steps, self.warm_up = length(anneal_steps, "anneal_steps"), whole(warm_up, "warm_up")
        self.updates = np.array(0)  # how many have been made, t - 1

    def rate(self, layer: str, updates: int) -> float:
        """The layer's learning rate after so many updates (0, 1, ...)."""
        return annealed(self.rates[layer], updates, self.anneal_steps) * min(1.0, (updates + 1) / (self.warm_up + 1))

    def step(self, gradient: Gradient, epoch: int = 0) -> None:
        """One update of every parameter by gradient {name: dL/dw}; the epoch does not matter, for updates are counted."""
        for name, w in self.network.parameters().items():  # anew: it may have got others (`set_parameters`)
            self.change(name, w, gradient[name], self.rate(layer_of(name), int(self.updates)))
        self.updates += 1

    def change(self, name, w, g, rate):
        """This update of one parameter w by its gradient g, in place."""
        xp, m, v, r = array_module(w), self.mean[name], self.square[name], self.scratch[name]
        (b1, b2), t = self.BETAS, int(self.updates) + 1
        if kernels.runs_on(w):
            kernels.adam(w, g, m, v, self.BETAS, rate, t, self.EPS, self.weight_decay)
            return
        xp.multiply(g, 1.0 - b1, out=r)
        m *= b1
        m += r
        xp.multiply(g, g, out=r)
        r *= 1.0 - b2
        v *= b2
        v += r
        xp.sqrt(v, out=r)
        r /= math.sqrt(1.0 - b2**t)
        r += self.EPS
        xp.divide(m, r, out=r)
        r *= rate / (1.0 - b1**t)
        w *= 1.0 - rate * self.weight_decay
        w -= r

    def decay(self, layer: str, epochs: int, steps: int) -> float:
        """What weight decay alone leaves of 1 after `epochs` epochs of `steps` steps: by this Kolen-Pollack shrinks W - B.

        The rule above with g = 0. W and B get the same g, so the same m and v, and the rest of their updates is equal.
        """
        return math.prod(1.0 - self.rate(layer, t) * self.weight_decay for t in range(epochs * steps))

    def state(self) -> Gradient:
        """{"updates": number, "mean/1.W": m, "square/1.W": v, ...}"""
        return {"updates": self.updates, **{f"mean/{name}": m for name, m in self.mean.items()},
                **{f"square/{name}": v for name, v in self.square.items()}}


class Muon(Adam):
    """Adam, but a kernel's update is a matrix whose directions all count alike ("Muon"; Jordan et al. 2024).

        m <- b m + (1 - b) g            O = `orthogonalised` b m + (1 - b) g, as a matrix (k k C_in, C_out)
        w <- w - rate [ 0.2 sqrt(max(k k C_in, C_out)) O + weight_decay w ]

    for kernels w (k, k, C_in, C_out) alone, with b = `MOMENTUM`. The gradient of a kernel has a few strong directions; O has the
    same directions and no strong ones. The root mean square of its entries is then 0.2, which is about Adam's, so rates for Adam
    serve here (Liu et al., arXiv:2502.16982). Since an update does not fade with its gradient, the rate does so in a straight
    line, 1 - t/anneal_steps, of all parameters; and weight decay alone bounds a kernel. Arguments and errors are those of `Adam`.
    """

    MOMENTUM = 0.95

    def __init__(self, network: Network, rates: float | Sequence[float], **options: Any) -> None:
        super().__init__(network, rates, **options)
        for name in [name for name, w in network.parameters().items() if w.ndim == 4]:  # of them, the mean is all there is
            del self.square[name], self.scratch[name]

    def rate(self, layer: str, updates: int) -> float:
        """The layer's learning rate after so many updates (0, 1, ...)."""
        left = 1.0 if self.anneal_steps is None else max(0.0, 1.0 - updates / self.anneal_steps)
        return self.rates[layer] * left * min(1.0, (updates + 1) / (self.warm_up + 1))

    def change(self, name, w, g, rate):
        if w.ndim != 4:
            super().change(name, w, g, rate)
            return
        m, b = self.mean[name], self.MOMENTUM
        m *= b
        m += (1.0 - b) * g
        O = orthogonalised((b * m + (1.0 - b) * g).reshape(-1, w.shape[3]))  # (k k C_in, C_out)
        w *= 1.0 - rate * self.weight_decay
        w -= rate * 0.2 * max(O.shape) ** 0.5 * O.reshape(w.shape)


def orthogonalised(G: Array, steps: int = 5) -> Array:
    """About U V^T of a matrix G = U S V^T: the Newton-Schulz iteration takes singular values of 0.01 |G| to |G| to 0.7 to 1.2.

        X <- X (a + b A + c A^2),   A = X^T X       from X = G/|G|: takes each singular value s to a s + b s^3 + c s^5

    With A of the smaller side. All A commute, so the small matrices are iterated, and G is multiplied by their product P at the
    end. Zeros stay zeros.
    """
    if G.shape[0] < G.shape[1]:
        return orthogonalised(G.T, steps).T
    xp, (a, b, c) = array_module(G), (3.4445, -4.7750, 2.0315)  # Jordan's: they converge to no point, but into 0.7 to 1.2 soonest
    A = G.T @ G
    square = xp.trace(A) + float(np.finfo(G.dtype).tiny)  # |G|^2
    A, unit = A / square, xp.eye(len(A), dtype=G.dtype)
    P = unit / xp.sqrt(square)
    for _ in range(steps):
        Q = a * unit + b * A + c * (A @ A)
        P, A = P @ Q, Q @ A @ Q  # X = G P
    return G @ P


OPTIMIZERS = {  # (network, rates, weight_decay, epochs until the rate has been annealed, steps per epoch, warm_up) -> optimizer
    "sgd": lambda network, rates, decay, epochs, steps, warm_up=0: SGD(network, rates, 0.9, decay, epochs),
    "adam": lambda network, rates, decay, epochs, steps, warm_up=0: Adam(
        network, rates, weight_decay=decay, anneal_steps=epochs * steps, warm_up=warm_up),
    "muon": lambda network, rates, decay, epochs, steps, warm_up=0: Muon(
        network, rates, weight_decay=decay, anneal_steps=epochs * steps, warm_up=warm_up),
}


# --- what they need -----------------------------------------------------------------------------------------------------


def layer_of(name):
    """"2.W" -> "2"."""
    return name.split(".")[0]


def rates_by_layer(network, rates):
    """{layer: learning rate} from a number, or a list: one for all, two for the hidden layers and the last, or one per layer."""
    layers = dict.fromkeys(map(layer_of, network.parameters()))
    return dict(zip(layers, by_layer(rates, len(layers), "learning rate")))


def length(value, what):
    """The number of epochs or steps after which a rate has been annealed; None: never."""
    return value if value is None else real(value, what, 1)


def annealed(rate, now, end, floor=0.0):
    """Half a cosine from the rate at now = 0 to the floor at now = end, and the floor from then on; end None: constant."""
    if end is None:
        return rate
    return floor + (rate - floor) * 0.5 * (1.0 + math.cos(math.pi * min(now / end, 1.0)))


def zeros_like(arrays):
    return {name: array_module(w).zeros_like(w) for name, w in arrays.items()}
