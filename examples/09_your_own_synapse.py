"""What must a new kind of synapse provide?

    python examples/09_your_own_synapse.py       # about 3 seconds on one core; figure in runs/your_own_synapse/

The three derivatives of its Phi, nothing else: what follows from them it inherits. `Skip` below joins layer 1 of a ConvNet to its
last layer: it averages blocks of pixels and multiplies each channel by a factor of its own. Once it passes the three-faces test,
`wiring` puts it into a network, and dynamics, EP and BPTT work as they are. What the skip connection is for: a nudge of the last
layer reaches layer 1 in one step instead of three, and four times as large. Printed:

    three faces: 0.6891157 0.6891157 0.6891157
    moving the states: derivative 0.6037291, measured 0.6037291
    EP against BPTT, gradient of the factors: relative error 3e-12
    response of layer 1 without skip: first at step 4, at step 16 3.5e-03
    response of layer 1 with skip: first at step 2, at step 16 1.4e-02
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging, datasets
from ep.datasets.synthetic import synthetic_images
from ep.train import commandline as cli

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # one per layer


class Skip(ep.Synapse):
    """Phi(pre, post) = sum_c g_c < post_c, means of pre_c over r x r blocks >, per example.

    pre (N, rH, rW, C), post (N, H, W, C), g (C,): a synapse without bias and without switches.
    """

    def __init__(self, g, pre_shape, r):
        self.g, self.r = g, r
        self.pre_shape, self.post_shape = pre_shape, (pre_shape[0] // r, pre_shape[1] // r, pre_shape[2])

    def parameters(self):
        return {"g": self.g}

    def drive_post(self, pre, switches=None):  # dPhi/dpost, and no switches
        return self.g * self._blocks(pre), None

    def drive_pre(self, post, switches=None):  # dPhi/dpre: every pixel of a block gets its share
        return (self.g * post / self.r**2).repeat(self.r, axis=1).repeat(self.r, axis=2)

    def hebbian(self, pre, post, switches=None):  # dPhi/dg
        return {"g": (self._blocks(pre) * post).sum((0, 1, 2))}

    def _blocks(self, pre):
        H, W, C = self.post_shape
        return pre.reshape(-1, H, self.r, W, self.r, C).mean((2, 4))


def contract(synapse, rng, N=3):
    """The three faces of a random state, and (derivative by the states, the same measured): what a synapse must pass."""
    pre, post, a, b = (rng.normal(size=(N, *shape)) for shape in 2 * (synapse.pre_shape, synapse.post_shape))
    up, down, by_g = synapse.drive_post(pre)[0], synapse.drive_pre(post), synapse.hebbian(pre, post)["g"]
    faces = (up * post).sum(), (pre * down).sum(), (synapse.g * by_g).sum()
    h = 1e-5
    measured = (synapse.phi(pre + h * a, post + h * b) - synapse.phi(pre - h * a, post - h * b)).sum() / (2 * h)
    return faces, ((up * b).sum() + (a * down).sum(), measured)


def networks(rng):
    """A chain of four convolutions (8x8, 4x4, 2x2, 1x1), and the same with a skip connection from layer 1 to layer 4."""
    chain = ep.convnet([8, 8, 8, 8], (16, 16, 3), paddings=[1] * 4, scale=2.0, pool=ep.AVERAGE_POOL,
                       activation=ep.SHIFTED_SIGMOID, dtype="float64")
    skip = Skip(rng.uniform(0.5, 1.5, 8), pre_shape=chain.shapes[1], r=8)
    wiring = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4)]
    return {"without skip": chain, "with skip": ep.Network([*chain.synapses, skip], chain.activation, chain.cost, wiring)}


def responses(network, x, y, steps, beta=1e-4):
    """Largest |s_t - s*| / beta of every layer after each nudged step: (steps, layers)."""
    free = states = ep.relax(network, x, 400).states
    found = []
    for _ in range(steps):
        states = ep.relax(network, x, 1, y, beta, start=states).states
        found.append([abs(s - s_free).max() / beta for s, s_free in zip(states, free)])
    return np.array(found)


def plot(found, path):
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    figure.suptitle("What does a skip connection of one's own change? The nudge takes the short cut to layer 1", fontsize=13)
    for axes, (name, response) in zip(figure.subplots(1, 2, sharey=True), found.items()):
        for n, colour in enumerate(COLOURS, start=1):
            seen = np.flatnonzero(response[:, n - 1] > 1e-9)
            axes.semilogy(seen + 1, response[seen, n - 1], "o-", color=colour, markersize=4)
            axes.annotate(f"layer {n}", (seen[-1] + 1, response[-1, n - 1]), (7, 0), textcoords="offset points", va="center",
                          color=colour, annotation_clip=False)
        axes.set(title=name, xlabel="steps after the nudge", xlim=(0, len(response) * 1.22))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("response |s - s*| / beta")
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--steps", type=cli.count, default=16, help="of the nudged phase that is shown (default: 16)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/your_own_synapse"), help="folder for the figure")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images, y = synthetic_images(train=6, test=1)[:2]
    x, nets = datasets.normalise(images[:, ::2, ::2]).astype("float64"), networks(rng)
    faces, (derivative, measured) = contract(nets["with skip"].synapses[-1], rng)
    print("three faces: " + " ".join(f"{face:.7f}" for face in faces))
    print(f"moving the states: derivative {derivative:.7f}, measured {measured:.7f}")
    phases = ep.Phases(free=300, nudged=300)
    g = ep.eqprop_gradient(nets["with skip"], x, y, phases, nudging=Nudging.holomorphic(0.02, 6)).gradient["5.g"]
    truth = ep.bptt_gradient(nets["with skip"], x, y, phases).gradient["5.g"]
    print(f"EP against BPTT, gradient of the factors: relative error {abs(g - truth).max() / abs(truth).max():.0e}")
    found = {name: responses(network, x, y, args.steps) for name, network in nets.items()}
    for name, response in found.items():
        print(f"response of layer 1 {name}: first at step {np.flatnonzero(response[:, 0] > 1e-9)[0] + 1}, "
              f"at step {args.steps} {response[-1, 0]:.1e}")
    args.out.mkdir(parents=True, exist_ok=True)
    plot(found, args.out / "your_own_synapse.png")


if __name__ == "__main__":
    cli.run(main)
