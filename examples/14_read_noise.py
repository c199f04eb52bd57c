"""How much noise may an instrument add to the states that rule (4) reads, at which gain and beta?

    python examples/14_read_noise.py               # embedded images; 40 seconds of one core; runs/read_noise/

A network that is built of physics relaxes by itself, and an instrument reads its states. This trains one small ConvNet at each
gain (average pooling and a smooth sigma, so that nothing jumps; images of half the width), relaxes it free and nudged, and adds
noise to every state before rule (4) sees it. Cosines are those of the estimate for 32 images with the exact gradient.

    1/cosine^2 = 1 + (b beta^p)^2 + (A |c| noise / (|g| sqrt(R)))^2

is what is predicted, for each layer: b from the bias at one beta without noise, p the order of the nudging (1, 2, 4); A from
reading the free states twice, for what rule (4) makes of two readings of the same states is noise alone; |c| the length of the
weights c_k, 0.71/beta of symmetric nudging; |g| that of the exact gradient. A grows as gamma^-(L - n) towards the input: rule
(4) counts the lower layers more, by as much as their response is smaller. R readings are averaged: here R = 1. Printed:

    gain 1: 31.0% of 500 test images; best beta, and there the smallest cosine of the layers: measured / predicted
      A 9.79, 11.7, 4.52; |g| 0.39, 0.956, 0.852; b of symmetric nudging 76.1, 58.6, 44.7; residual 1e-10
      noise                   one-sided                  symmetric                 four-point
      0        0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00
      0.0001   0.031  0.99 / 0.031  0.99   0.016  0.99 / 0.031  1.00   0.031  0.99 / 0.062  0.99
      0.001     0.12  0.88 /  0.12  0.88   0.031  0.88 / 0.062  0.92   0.062  0.63 / 0.062  0.79
      0.01         1  0.60 /  0.25  0.51    0.12  0.56 /  0.12  0.48    0.25  0.52 /  0.12  0.23
    gain 0.3: 44.2% of 500 test images; best beta, and there the smallest cosine of the layers: measured / predicted
      A 109, 28.3, 3.97; |g| 0.538, 0.655, 0.506; b of symmetric nudging 12.8, 12.5, 14.1; residual 8e-11
      noise                   one-sided                  symmetric                 four-point
      0        0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00
      0.0001    0.12  0.94 /  0.12  0.95    0.12  0.98 /  0.12  0.97    0.25  0.98 /  0.12  0.95
      0.001        1  0.55 /   0.5  0.67    0.25  0.91 /  0.25  0.71     0.5  0.89 /  0.25  0.50
      0.01         1  0.09 /     1  0.29    0.25  0.18 /   0.5  0.23     0.5  0.17 /   0.5  0.07
    gain 0.1: 45.6% of 500 test images; best beta, and there the smallest cosine of the layers: measured / predicted
      A 979, 85.2, 3.88; |g| 0.816, 0.858, 0.957; b of symmetric nudging 2.24, 2.24, 2.7; residual 9e-11
      noise                   one-sided                  symmetric                 four-point
      0        0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00
      0.0001     0.5  0.76 /   0.5  0.82    0.25  0.95 /  0.25  0.94     0.5  0.90 /  0.25  0.74
      0.001        1  0.13 /     1  0.43     0.5  0.54 /   0.5  0.49       1  0.49 /   0.5  0.20
      0.01         1  0.01 /     1  0.06       1  0.04 /     1  0.11   0.016  0.05 /     1  0.03
    gain 0.03: 45.4% of 500 test images; best beta, and there the smallest cosine of the layers: measured / predicted
      A 1.09e+04, 285, 3.84; |g| 0.724, 0.785, 0.905; b of symmetric nudging 4.84, 3.71, 3.09; residual 1e-11
      noise                   one-sided                  symmetric                 four-point
      0        0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00   0.016  1.00 / 0.016  1.00
      0.0001       1  0.10 /     1  0.37     0.5  0.50 /   0.5  0.38       1  0.46 /   0.5  0.17
      0.001        1  0.00 /     1  0.05       1  0.04 /     1  0.09   0.016  0.03 /     1  0.03
      0.01         1 -0.01 /     1  0.00       1 -0.00 /     1  0.01   0.016  0.03 /     1  0.00
    noise 0.0001: symmetric nudging has 0.9 in every layer at the gains [1.0, 0.3, 0.1]; the smallest, predicted from gain
      0.3: 0.15, from gain 0.1: 0.078
    noise 0.001: symmetric nudging has 0.9 in every layer at the gains [0.3]; the smallest, predicted from gain 0.3: 0.47,
      from gain 0.1: 0.25
    noise 0.01: symmetric nudging has 0.9 in every layer at the gains []; the smallest, predicted from gain 0.3: 1.5, from
      gain 0.1: 0.78
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Imperfections, Nudging, datasets, engine
from ep.train import commandline as cli, equilibrium

CHANNELS, LAYERS = (8, 16, 16), {"1": "#440154", "2": "#31688E", "3": "#35B779"}
GAINS, NOISES = (1.0, 0.3, 0.1, 0.03), {0.0: "#000000", 1e-4: "#0072B2", 1e-3: "#E69F00", 1e-2: "#D55E00"}
BETAS = [2.0**-k for k in range(6, -1, -1)]
NUDGINGS = {"one-sided": Nudging.one_sided, "symmetric": Nudging.symmetric, "four-point": Nudging.four_point}
AT = BETAS[0]  # the beta at which the bias is measured for the law
ENOUGH = 0.9  # of a cosine
FREE, NUDGED = ep.Phase(300, "checkerboard", 1e-10), ep.Phase(100, "down", 1e-10)


def seen(dataset, images):
    """Images as the network sees them, of half the width: (N, 16, 16, 3)."""
    x = dataset.normalise(images)
    return x.reshape(len(x), 16, 2, 16, 2, 3).mean((2, 4))


def trained(dataset, gain, args):
    """A network of this gain after a few hundred updates, by symmetric EP."""
    network = ep.convnet(CHANNELS, (16, 16, 3), len(dataset.classes), scale=(3, 4), feedback=gain, pool=ep.AVERAGE_POOL,
                         activation=ep.SHIFTED_SIGMOID)
    optimizer, n = ep.Adam(network, (4e-3, 1.2e-2), weight_decay=0.02), args.train_images
    phases = ep.Phases(ep.Phase(30, "checkerboard", 1e-2), ep.Phase(4, "down"), deviations=True)

    def gradient(network, x, y, rng):
        return ep.eqprop_gradient(network, x, y, phases, nudging=Nudging.symmetric(0.05))

    for epoch in range(args.epochs):
        ep.train_epoch(network, dataset.train_images[:n], dataset.train_labels[:n], gradient, optimizer, batch_size=32,
                       epoch=epoch, prepare=lambda images, rng: seen(dataset, images))
    return network


def accuracy(network, dataset):
    images, labels = dataset.test_images[:500], dataset.test_labels[:500]
    return ep.evaluate(network, images, labels, lambda network, x: ep.relax(network, x, ep.Phase(100, "checkerboard", 1e-3)),
                       prepare=lambda images, rng: seen(dataset, images))[0]


def vectors(estimate):
    """{layer: its gradient as one vector}"""
    return {layer: np.concatenate([estimate.gradient[f"{layer}.{name}"].ravel() for name in "Wb"]) for layer in LAYERS}


class Measured:
    """One network and its images: what rule (4) finds by states that are read with noise, and what the law predicts."""

    def __init__(self, network, x, y, draws):
        self.exact = equilibrium.exact_gradient(network, x.astype("float32"), y, FREE)
        self.network, self.x, self.y, self.draws = engine.prepared(equilibrium.in_float64(network)), x, y, draws
        self.g = vectors(self.exact)
        self.free = ep.relax(self.network, x, FREE, start=self.exact.free.states)
        sizes = sorted({b for beta in BETAS for b in (beta, beta / 2)})
        self.at = {0.0: self.free, **{b: ep.relax(self.network, x, NUDGED, y, b, start=self.free.states)
                                      for size in sizes for b in (size, -size)}}
        noises = [vectors(self.of_noise_alone(k)) for k in range(8)]
        self.A = {layer: math.sqrt(np.mean([noise[layer] @ noise[layer] for noise in noises])) for layer in LAYERS}
        self.b = {name: {layer: across(v, self.g[layer]) / AT**make(AT).order for layer, v in
                         vectors(self.estimate(make(AT), 0.0, 0)).items()} for name, make in NUDGINGS.items()}

    def of_noise_alone(self, k):
        """What rule (4) makes of two readings of s*, for a noise of 1 and weights of length 1. It is linear in a small noise."""
        small, nudging = Imperfections(read_noise=1e-6, seed=k), Nudging.symmetric(math.sqrt(0.5) * 1e-6)
        read = {beta: small.read(self.free, phase) for phase, beta in enumerate(nudging.points)}
        return ep.eqprop_from_states(self.network, self.x, self.y, self.free, read, nudging)

    def estimate(self, nudging, noise, draw):
        """Rule (4) from states that are read with this noise."""
        instrument = Imperfections(read_noise=noise, place=(draw,))
        read = {beta: instrument.read(self.at[beta], list(self.at).index(beta)) for beta in nudging.points}
        return ep.eqprop_from_states(self.network, self.x, self.y, self.free, read, nudging)

    def cosines(self, name, noise, beta):
        """{layer: measured}, the mean over draws of the noise."""
        found = [equilibrium.cosines(self.estimate(NUDGINGS[name](beta), noise, draw).gradient, self.exact.gradient)
                 for draw in range(self.draws if noise else 1)]
        return {layer: np.mean([cosine[layer] for cosine in found]) for layer in LAYERS}

    def smallest_gain(self, noise):
        """The gain at which the best beta of symmetric nudging leaves layer 1 a cosine of ENOUGH, from what is known at this one.

        There b beta^2 and the noise, nu/beta, are in the proportion 1 to sqrt(2), so that
        error^2 = 3 b^(2/3) (nu^2 / 2)^(2/3), and nu is proportional to gain^-(L - 1).
        """
        error = math.sqrt(1 / ENOUGH**2 - 1)
        allowed = math.sqrt(2 / self.b["symmetric"]["1"]) * (error / math.sqrt(3)) ** 1.5
        nu = self.A["1"] * math.sqrt(0.5) * noise / np.linalg.norm(self.g["1"])
        return self.network.feedback * (nu / allowed) ** (1 / (len(CHANNELS) - 1))

    def law(self, name, noise, beta, layer):
        """The cosine that is predicted."""
        nudging = NUDGINGS[name](beta)
        bias = self.b[name][layer] * beta**nudging.order
        blur = self.A[layer] * np.linalg.norm(nudging.weights) * noise / np.linalg.norm(self.g[layer])
        return 1 / math.sqrt(1 + bias**2 + blur**2)


def across(v, g):
    """What of v is at a right angle to g, as a share of what is along it."""
    along = (v @ g) / (g @ g)
    return np.linalg.norm(v / along - g) / np.linalg.norm(g)


def best(of):
    """(the beta at which the smallest cosine of a layer is largest, that cosine), of {beta: {layer: cosine}}."""
    beta = max(of, key=lambda beta: min(of[beta].values()))
    return beta, min(of[beta].values())


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--train-images", type=cli.count, default=2000, metavar="N", help="of a training (default: 2000)")
    add("--epochs", type=cli.count, default=4, help="default: 4")
    add("--images", type=cli.count, default=32, metavar="N", help="test images of an estimate (default: 32)")
    add("--draws", type=cli.count, default=8, metavar="N", help="of the noise (default: 8)")
    add("--out", type=cli.path, default=Path("runs/read_noise"), help="folder for the figure")
    args, dataset = parser.parse_args(), datasets.load("synthetic")
    x, y = seen(dataset, dataset.test_images[:args.images]).astype("float64"), dataset.test_labels[:args.images]
    found, smallest = {}, {}
    for gain in GAINS:
        network = trained(dataset, gain, args)
        print(f"gain {gain:g}: {accuracy(network, dataset):.1%} of 500 test images; best beta, and there the smallest cosine of "
              "the layers: measured / predicted")
        measured = Measured(network, x, y, args.draws)
        print(f"  A {', '.join(f'{a:.3g}' for a in measured.A.values())}; |g| "
              f"{', '.join(f'{np.linalg.norm(g):.3g}' for g in measured.g.values())}; b of symmetric nudging "
              f"{', '.join(f'{b:.3g}' for b in measured.b['symmetric'].values())}; residual {measured.exact.free.residual:.0e}")
        smallest[gain] = measured.smallest_gain
        print("  noise " + "".join(f"{name:>27}" for name in NUDGINGS))
        for noise in NOISES:
            cells = []
            for name in NUDGINGS:
                cosines = {beta: measured.cosines(name, noise, beta) for beta in BETAS}
                law = {beta: {layer: measured.law(name, noise, beta, layer) for layer in LAYERS} for beta in BETAS}
                found[gain, noise, name] = cosines, law
                (at, top), (at_law, top_law) = best(cosines), best(law)
                cells.append(f"{at:8.2g} {top:5.2f} / {at_law:5.2g} {top_law:5.2f}")
            print(f"  {noise:<6g}" + "".join(f"{cell:>27}" for cell in cells), flush=True)
    for noise in [noise for noise in NOISES if noise]:
        enough = [gain for gain in GAINS if best(found[gain, noise, "symmetric"][0])[1] >= ENOUGH]
        print(f"noise {noise:g}: symmetric nudging has {ENOUGH} in every layer at the gains {enough}; the smallest, predicted "
              f"from gain {GAINS[1]:g}: {smallest[GAINS[1]](noise):.2g}, from gain {GAINS[2]:g}: {smallest[GAINS[2]](noise):.2g}")
    args.out.mkdir(parents=True, exist_ok=True)
    plot(found, args.out / "read_noise.png")


def plot(found, path):
    """A row for each layer, a column for each gain: dots measured, lines predicted. Below, three nudgings at one noise."""
    figure = Figure(figsize=(13, 11), layout="constrained")
    figure.suptitle("Noise on the states that rule (4) reads: cosine of its gradient with the exact one (dots: measured, lines: "
                    "the law).\nA small beta drowns in noise, a large one is biased; the weaker the feedback, the less is heard "
                    "far from the output", fontsize=12)
    grid = figure.subplots(4, len(GAINS), sharex=True, sharey=True)
    for column, gain in zip(grid.T, GAINS):
        for axes, layer in zip(column, LAYERS):
            for noise, colour in NOISES.items():
                draw(axes, *found[gain, noise, "symmetric"], layer, colour, f"noise {noise:g}" if noise else "no noise")
        for name, colour in zip(NUDGINGS, ("#CC79A7", "#E69F00", "#009E73")):
            draw(column[3], *found[gain, 1e-3, name], "1", colour, name)
        column[0].set_title(f"feedback gain {gain:g}")
        column[3].set(xlabel="nudging strength beta")
    titles = ("layer 1, next to the image\nsymmetric", "layer 2\nsymmetric", "layer 3, which is nudged\nsymmetric",
              "layer 1, noise 0.001\nthree nudgings")
    for row, title in zip(grid, titles):
        row[0].set(ylabel=title, ylim=(-0.1, 1.05), yticks=(0, 0.5, 0.9))
    for axes in grid.ravel():
        axes.axhline(ENOUGH, color="grey", linewidth=0.6)
        axes.grid(alpha=0.2)
    grid[2, 3].legend(fontsize=9, title="noise of a reading\n(states: 0 to 1)", title_fontsize=9, loc="lower center")
    grid[3, 3].legend(fontsize=9, loc="upper center")
    figure.savefig(path, dpi=80)


def draw(axes, cosines, law, layer, colour, label):
    axes.semilogx(BETAS, [law[beta][layer] for beta in BETAS], "-", color=colour, linewidth=1.2)
    axes.semilogx(BETAS, [cosines[beta][layer] for beta in BETAS], "o", color=colour, markersize=4.5, label=label)


if __name__ == "__main__":
    cli.run(main)
