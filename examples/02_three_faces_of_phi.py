"""What is Phi, and why are three functions all that a synapse needs?

    python examples/02_three_faces_of_phi.py     # about 2 seconds; figure in runs/three_faces_of_phi/

Phi(pre, post) is one number per example: how well the two layers of a synapse agree. Here the synapse is a 3x3 convolution
that looks for edges, with max-pooling; pre is one of the embedded images, post any state of the layer above. Phi's three
derivatives are also three ways to compute it: the test that every synapse must pass. Then one number of each array is moved,
and Phi does what the derivative says. Printed:

    Phi                                            7.348236
    < post, drive_post(pre) >                      7.348236
    < pre, drive_pre(post) > + < b, post >         7.348236
    < W, hebbian.W > + < b, hebbian.b >            7.348236
    moving one number           derivative      measured
    of post                       0.414706      0.414706
    of pre                        0.235269      0.235269
    of W                         20.180126     20.180126
"""

from pathlib import Path

import numpy as np

from ep import Conv
from ep.datasets.synthetic import synthetic_images
from ep.train import commandline as cli

rng = np.random.default_rng(0)
edges = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1.0]]) / 4  # large where pre is brighter on the left than on the right
synapse = Conv(W=edges.reshape(3, 3, 1, 1), b=np.array([0.1]), pre_shape=(16, 16, 1))
pre = synthetic_images(9, 1)[0][[8], ::2, ::2].mean(-1, keepdims=True) / 255  # (1, 16, 16, 1)
post = rng.random((1, 8, 8, 1))  # any state of the layer above, after 2x2 pooling

# The three faces: dPhi/dpost, dPhi/dpre, dPhi/dtheta, each of the shape of what it is the derivative by.
drive_post, switches = synapse.drive_post(pre)
drive_pre = synapse.drive_pre(post, switches)
hebbian = synapse.hebbian(pre, post, switches)
FACES = {  # name: (array, derivative, the entry to move)
    "post": (post, drive_post, (0, 4, 2, 0)),
    "pre": (pre, drive_pre, (0, 8, 2, 0)),
    "W": (synapse.W, hebbian["W"], (1, 0, 0, 0)),
}
NAMES = {"post": "drive_post", "pre": "drive_pre", "W": "hebbian"}
SUMS = {"post": "< post, drive_post(pre) >", "pre": "< pre, drive_pre(post) > + < b, post >",
        "W": "< W, hebbian.W > + < b, hebbian.b >"}


def phi():
    return float(synapse.phi(pre, post)[0])


def phi_moved(array, entry, t):
    """Phi with one number moved by t (and put back)."""
    keep = array[entry]
    array[entry] = keep + t
    try:
        return phi()
    finally:
        array[entry] = keep


def face(name):
    """The way to compute Phi that goes with the derivative by `name`."""
    array, derivative, _ = FACES[name]
    return float((array * derivative).sum()) + (0 if name == "post" else float((synapse.b * post).sum()))


BOX = np.array([[-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1]])


def plot(path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 8.6), layout="constrained")
    figure.suptitle(f"What is Phi? One number, here {phi():.3f}, with three faces:\n"
                    "each array (top) times its derivative (middle), summed, gives it back", fontsize=14)
    axes = figure.subplots(3, 3)
    for column, (name, (array, derivative, entry)) in enumerate(FACES.items()):
        for row, values in enumerate((array, derivative)):
            plane, limit = values.squeeze(), abs(values).max()
            signed = row or name == "W"
            picture = axes[row, column].imshow(plane, "PuOr" if signed else "gray", vmin=-limit if signed else 0, vmax=limit)
            figure.colorbar(picture, ax=axes[row, column], shrink=0.8)
            i, j = (n for n, size in zip(entry, array.shape) if size > 1)
            axes[row, column].plot(j + 0.5 * BOX[0], i + 0.5 * BOX[1], color="#D55E00", linewidth=2.5, clip_on=False)
            title = f"dPhi/d{name} = {NAMES[name]}" if row else f"{name}, {plane.shape}"
            axes[row, column].set(xticks=[], yticks=[], title=title)
        axes[1, column].set_xlabel(f"{SUMS[name]}\n= {face(name):.3f}", fontsize=9)
        t = np.linspace(-1, 1, 41)
        axes[2, column].plot(t, phi() + t * derivative[entry], color="#D55E00", linewidth=2)
        axes[2, column].plot(t[::4], [phi_moved(array, entry, step) for step in t[::4]], "o", color="#0072B2", markersize=5)
        axes[2, column].set(xlabel=f"the boxed number of {name} moves by", ylabel="" if column else "Phi",
                            title="" if name == "post" else "bends where another pixel\nwins its pooling window")
        axes[2, column].title.set_fontsize(9)
        axes[2, column].grid(alpha=0.3)
    axes[2, 0].set_title("dots: Phi, computed anew", color="#0072B2", fontsize=9)
    axes[2, 0].text(0.98, 0.05, "line: its slope is\nthe boxed derivative", color="#D55E00", ha="right", fontsize=9,
                    transform=axes[2, 0].transAxes)
    figure.savefig(path, dpi=100)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--out", type=cli.path, default=Path("runs/three_faces_of_phi"), help="folder for the figure")
    out = parser.parse_args().out
    print(f"{'Phi':40} {phi():14.6f}")
    for name in FACES:
        print(f"{SUMS[name]:40} {face(name):14.6f}")
    print(f"{'moving one number':24} {'derivative':>13} {'measured':>13}")
    for name, (array, derivative, entry) in FACES.items():
        measured = (phi_moved(array, entry, 1e-6) - phi_moved(array, entry, -1e-6)) / 2e-6
        print(f"of {name:21} {derivative[entry]:13.6f} {measured:13.6f}")
    out.mkdir(parents=True, exist_ok=True)
    plot(out / "three_faces_of_phi.png")


if __name__ == "__main__":
    main()
