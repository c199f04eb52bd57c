"""Stochastic gradient descent with momentum, weight decay and a cosine-annealed rate per layer, as the paper trains."""

import math

from ..backend import array_module, to_host
from ..errors import EPError


class SGD:
    """v <- momentum v + (g + weight_decay w),   w <- w - rate v      for every parameter, biases too.

    network:       its parameters are changed in place by `step`
    rates:         one number, or one per layer, the readout last; the rate of an epoch is
                   floor + (rate - floor) (1 + cos(pi epoch/anneal_epochs))/2, and floor from anneal_epochs on
    anneal_epochs: None keeps the rates constant
    Raises EPError if the number of rates is not the number of layers, or a rate is not positive.
    """

    def __init__(self, network, rates, momentum=0.9, weight_decay=0.0, anneal_epochs=None, floor=1e-5):
        self.parameters = network.parameters()
        self.velocity = {name: array_module(w).zeros_like(w) for name, w in self.parameters.items()}
        layers = list(dict.fromkeys(name.split(".")[0] for name in self.parameters))
        rates = [rates] * len(layers) if isinstance(rates, (int, float)) else list(rates)
        if len(rates) == 1:
            rates = rates * len(layers)
        if len(rates) != len(layers) or not all(0 < rate < math.inf for rate in rates):
            raise EPError(f"expected one positive learning rate, or one for each of the {len(layers)} layers "
                          f"({', '.join(layers)}): got {rates}")
        self.rates = dict(zip(layers, rates))
        self.momentum, self.weight_decay, self.anneal_epochs, self.floor = momentum, weight_decay, anneal_epochs, floor

    def rate(self, layer, epoch):
        """The layer's learning rate in this epoch (0, 1, ...)."""
        rate = self.rates[layer]
        if self.anneal_epochs is None:
            return rate
        progress = min(epoch / self.anneal_epochs, 1.0)
        return self.floor + (rate - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def step(self, gradient, epoch=0):
        """One update of every parameter by gradient {name: dL/dw}."""
        for name, w in self.parameters.items():
            v = self.velocity[name]
            v *= self.momentum
            v += gradient[name] + self.weight_decay * w
            w -= self.rate(name.split(".")[0], epoch) * v

    def decay(self, layer, epochs, steps):
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

    def state(self):
        """{name: velocity}, host arrays: all that has to be saved."""
        return {name: to_host(v) for name, v in self.velocity.items()}

    def set_state(self, state):
        """Continue from what `state` returned."""
        for name, v in self.velocity.items():
            v[...] = array_module(v).asarray(state[name])
