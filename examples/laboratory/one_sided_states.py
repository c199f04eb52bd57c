"""At full feedback, nudging one way by the difference of two states is a poor gradient. What in the difference makes it so?

    python examples/laboratory/one_sided_states.py NETWORK.npz --data DIR     # half a minute; prints a table

Three things differ between the textbook difference of two states and the derivative that it stands for: the free state still
drifts a little when the nudge begins; the switches of max-pooling follow the nudged states, and some of them change; and the
nudge is finite, so units reach their bounds. Each is taken away alone, and all together, in one trained network at gain 1. The
numbers are cosines with the exact gradient of the fixed point, in float64, for hidden layers 1, 2, ...

docs/logs/one-sided-states.txt has the table of the network that one-sided nudging by states has trained (block `full` of
paper_table.py, beta 0.1): frozen switches are what helps.
"""

import copy

import numpy as np

import ep
from ep import datasets
from ep.train import commandline as cli, equilibrium

FREE, NUDGED = ep.Phase(60, "checkerboard", 1e-3, omega=1.5), ep.Phase(6, "down", omega=1.5)  # of --preset recurrent
SETTLED = ep.Phase(600, "checkerboard", 1e-10, omega=1.5)
BETAS = (0.02, 0.1, 0.2, 0.5)
VARIANTS = {  # name: (the free phase, whether the state at beta = 0 relaxes on like the nudged one, whether switches are frozen)
    "states, as in training": (FREE, False, False),
    "and beta = 0 relaxes on": (FREE, True, False),
    "no drift: settled first": (SETTLED, False, False),
    "frozen switches": (FREE, False, True),
    "no drift, frozen switches": (SETTLED, False, True)}


def main():
    args = options()
    network = equilibrium.in_float64(ep.load(args.network))
    if network.feedback == 0:
        raise ep.EPError(f"{args.network} has no feedback: nudged states do not differ from free ones")
    dataset = datasets.load(args.dataset, args.data, download=False)
    datasets.check_seen(dataset, network.about)
    x, y = dataset.normalise(dataset.test_images[:args.images]).astype("float64"), dataset.test_labels[:args.images]
    exact, fast = equilibrium.exact_gradient(network, x, y, FREE), ep.engine.prepared(network)
    print(f"{args.images} test images of {dataset.source}\n"
          "cosines of layers 1, 2, ... with the exact gradient; one-sided nudging")
    for beta in BETAS:
        found = {name: difference(fast, x, y, beta, *variant) for name, variant in VARIANTS.items()}
        found["deviations"] = ep.eqprop_gradient(fast, x, y, ep.Phases(FREE, NUDGED, deviations=True),
                                                 nudging=ep.Nudging.one_sided(beta)).gradient
        for name, g in found.items():
            cosines = equilibrium.hidden(ep.dynamics.Estimate(g, np.zeros(0), np.zeros(0), exact.free), exact)
            print(f"beta {beta:<4}  {name:26}" + "".join(f"{c:6.2f}" for c in cosines), flush=True)


def difference(network, x, y, beta, free, relaxes_on, frozen):
    """The estimate by one-sided nudging from two states, equation (4)."""
    start = ep.relax(network, x, free)
    network = held(network, start.switches) if frozen else network
    zero = ep.relax(network, x, NUDGED, start=start.states) if relaxes_on else start
    nudged = ep.relax(network, x, NUDGED, y, beta, start=start.states)
    gradient = ep.eqprop.difference_of_states(network, x, start, [zero, nudged], ep.Nudging.one_sided(beta))
    return gradient | network.readout_gradient(start.states, network.targets(y))


def held(network, switches):
    """A copy of the network, with the same arrays, whose synapses keep these switches of max-pooling whatever the states are."""
    other = copy.copy(network)
    other.synapses = [copy.copy(synapse) for synapse in network.synapses]
    for kept, plain, synapse in zip(switches, network.synapses, other.synapses):
        synapse.drive_post = lambda pre, switches=None, kept=kept, plain=plain: plain.drive_post(pre, kept)
    return other


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("network", type=cli.path, metavar="NETWORK.npz", help="a trained network, as ep.load reads it")
    add("--dataset", metavar="NAME", default="auto", help="whose test images (default: CIFAR-10, else embedded images)")
    add("--data", type=cli.path, metavar="DIR", help="where it is")
    add("--images", type=cli.count, default=32, help="test images (default: 32)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
