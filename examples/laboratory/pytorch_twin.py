"""The same dynamics with torch.autograd: write down Phi, let autograd differentiate it. Needs PyTorch; nothing else here does.

    s_n <- clip(u/2, 0, 1),  u = d[Phi - beta C]/ds_n / w_n  autograd.grad instead of drive_post and drive_pre
    g = - sum_k c_k dPhi/dtheta (s^{beta_k})                 autograd.grad instead of hebbian

An oracle for the hand-written derivatives (tests/test_pytorch_twin.py), and what benchmark.py compares with: this is how the
published PyTorch code relaxes, one graph of Phi per step. Networks from `convnet` with the hard sigmoid and max-pooling. Images
go in and out as (N, H, W, C), inside they are (N, C, H, W) as PyTorch wants them.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ep.dynamics import SCHEDULES


class Twin:
    """The PyTorch copy of a network; `theta` are its parameters, by the names that `network.parameters()` has."""

    def __init__(self, network):
        self.network, self.theta = network, {}
        for name, w in network.parameters().items():
            w = torch.tensor(w.transpose(3, 2, 0, 1).copy() if w.ndim == 4 else w)  # (k, k, C_in, C_out) -> (C_out, C_in, k, k)
            self.theta[name] = w.requires_grad_()

    def phi(self, x, states):
        """Phi(x, s) = sum_n w_n Phi_n, summed over the batch; all w_n are 1 at the paper's feedback gain, gamma = 1."""
        layers, total = [x, *states], 0.0
        for n, (synapse, w) in enumerate(zip(self.network.synapses, self.network.energy_factors), start=1):
            W, b, pre, post = self.theta[f"{n}.W"], self.theta[f"{n}.b"], layers[n - 1], layers[n]
            if W.ndim == 4:
                drive = F.max_pool2d(F.conv2d(pre, W, b, padding=synapse.padding), 2)
            else:
                drive = flat(pre) @ W + b
            total = total + w * (drive * post).sum()
        return total

    def cost(self, s, y):
        """C(s, y), summed over the batch; y one-hot."""
        if "readout.W" in self.theta:
            return F.cross_entropy(flat(s) @ self.theta["readout.W"] + self.theta["readout.b"], y, reduction="sum")
        return 0.5 * ((s - y) ** 2).sum()

    def relax(self, x, y=None, beta=0.0, *, steps, start=None, schedule="synchronous"):
        """[s_1 ... s_L] after `steps` steps of equation (1)."""
        states = start or [torch.zeros(len(x), shape[-1], *shape[:-1], dtype=x.dtype) for shape in self.network.shapes[1:]]
        for _ in range(steps):
            for group in SCHEDULES[schedule](self.network):
                states = [s.detach().requires_grad_() for s in states]
                objective = self.phi(x, states)
                if beta:
                    objective = objective - beta * self.cost(states[-1], y)
                u = torch.autograd.grad(objective, [states[n - 1] for n in group])
                for n, u_n in zip(group, u):
                    states[n - 1] = torch.clamp(0.5 * u_n / self.network.energy_factors[n - 1], 0.0, 1.0)
        return [s.detach() for s in states]

    def gradient(self, x, y, steps_free, steps_nudged, *, nudging, schedule="synchronous", start=None):
        """({name: dL/dtheta, batch mean, in the layout of the NumPy network}, s*, [s^{beta_k}]) from NumPy arrays.

        start: where the free phase starts, [s_1 ... s_L] in the layout of the NumPy network; default: zero.
        """
        y = torch.tensor(self.network.targets(y, x.dtype))
        x, start = inside(x), start and [inside(s) for s in start]
        free = self.relax(x, steps=steps_free, schedule=schedule, start=start)
        nudged = [self.relax(x, y, beta, steps=steps_nudged, start=free, schedule=schedule) for beta in nudging.points]
        objective = self.cost(free[-1], y) if "readout.W" in self.theta else 0.0  # its own weights, at s*
        objective = objective - sum(c * self.phi(x, s) for c, s in zip(nudging.weights, nudged))
        grads = torch.autograd.grad(objective / len(x), list(self.theta.values()))
        return {name: outside(g) for name, g in zip(self.theta, grads)}, images(free), [images(s) for s in nudged]


class FeedForward(Twin):
    """The limit of weak feedback, gamma -> 0: each layer from the one below, and PyTorch's backpropagation."""

    def loss(self, x, y):
        """C(s_L, y), batch mean; x (N, C, H, W) a tensor, y one-hot or labels."""
        s = x
        for n, synapse in enumerate(self.network.synapses, start=1):
            u = F.conv2d(s, self.theta[f"{n}.W"], self.theta[f"{n}.b"], padding=synapse.padding)
            s = torch.clamp(F.max_pool2d(u, 2) / 2, 0.0, 1.0)
        return self.cost(s, y) / len(x)

    def step(self, x, y, optimizer):
        """One update of theta."""
        optimizer.zero_grad()
        self.loss(x, y).backward()
        optimizer.step()


def flat(s):
    """(N, C, H, W) -> (N, H W C), the order of the NumPy network; vectors stay."""
    return s.permute(0, 2, 3, 1).flatten(1) if s.ndim == 4 else s


def inside(s):
    """(N, H, W, C) -> (N, C, H, W), a tensor; vectors as they are."""
    return torch.tensor(s.transpose(0, 3, 1, 2).copy() if s.ndim == 4 else s)


def outside(w):
    """(C_out, C_in, k, k) -> (k, k, C_in, C_out), a NumPy array; other arrays as they are."""
    return (w.permute(2, 3, 1, 0) if w.ndim == 4 else w).numpy()


def images(states):
    """(N, C, H, W) -> (N, H, W, C), NumPy arrays; vectors as they are."""
    return [np.ascontiguousarray((s.permute(0, 2, 3, 1) if s.ndim == 4 else s).numpy()) for s in states]
