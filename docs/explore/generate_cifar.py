"""Writes the data of the page with the shipped CIFAR-10 network: python docs/explore/generate_cifar.py

    network.js         examples/models/cifar10-recurrent.npz, its kernels rounded to 255 levels per output channel: 0.6 MB
    network_case.json  what `ep` computes with the rounded kernels for one smooth input; conv.js has to give the same numbers

Takes about five seconds.
"""

import base64
import json
from pathlib import Path

import numpy as np
from generate import as_text

import ep

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "examples" / "models" / "cifar10-recurrent.npz"
LEVELS = 127
STEPS = 24  # of the stored case


def rounded(array, digits=6):
    """Numbers with so many digits, as they will be in the file."""
    return np.array([float(f"{v:.{digits}g}") for v in np.ravel(array).astype(float)]).reshape(np.shape(array))


def quantised(W):
    """(levels, scale) with W ~ levels * scale: whole numbers from -127 to 127, and one scale per output channel."""
    scale = rounded(abs(W).max(axis=tuple(range(W.ndim - 1))) / LEVELS)
    return np.clip(np.round(W / scale), -LEVELS, LEVELS).astype(np.int8), scale


def data(network):
    """What network.js contains."""
    p, layers, first = network.parameters(), [], network.synapses[0]
    for n, synapse in enumerate([first.conv, *network.synapses[1:]], start=1):
        levels, scale = quantised(p[f"{n}.W"])
        layers.append(dict(input=synapse.pre_shape, output=synapse.post_shape, kernel=len(levels), padding=synapse.padding,
                           levels=base64.b64encode(levels.tobytes()).decode(), scale=scale, b=rounded(p[f"{n}.b"])))
    filters = dict(input=first.filters.pre_shape, output=first.filters.post_shape, kernel=len(first.filters.W),
                   padding=first.filters.padding, W=rounded(first.filters.W))
    readout = dict(W=rounded(p["readout.W"], 5), b=rounded(p["readout.b"]))
    about = {key: network.about[key] for key in ("classes", "mean", "std", "source", "schedule", "omega")}
    return dict(gamma=network.feedback, filters=filters, layers=layers, readout=readout, **about)


def smooth(shape=(32, 32, 3)):
    """One input by a formula that the test repeats in JavaScript, (1, 32, 32, 3)."""
    row, column, channel = np.indices(shape)
    return (np.sin(0.31 * row + channel) * np.cos(0.23 * column - channel))[None]


def dequantised(content):
    """The network of network.js, in float64."""
    network = ep.load(MODEL)
    parameters = {"readout.W": content["readout"]["W"], "readout.b": content["readout"]["b"]}
    for n, layer in enumerate(content["layers"], start=1):
        shape = network.parameters()[f"{n}.W"].shape
        levels = np.frombuffer(base64.b64decode(layer["levels"]), np.int8).reshape(shape)
        parameters |= {f"{n}.W": levels * np.asarray(layer["scale"], float), f"{n}.b": layer["b"]}
    network.set_parameters({name: np.asarray(w, float) for name, w in parameters.items()})
    network.feedback, network.synapses[0].filters.W = content["gamma"], np.array(content["filters"]["W"])
    return network


def case(content):
    """Residual, probabilities and a weighted sum of every layer, after each of some steps; the last two also without feedback."""
    network, states, rows = dequantised(content), None, []

    def seen(states):
        sums = [float(s.ravel() @ np.cos(0.1 * np.arange(s.size))) for s in states]
        return dict(probabilities=network.cost.output(states[-1])[0].tolist(), sums=sums)

    for _ in range(STEPS):
        free = ep.relax(network, smooth(), ep.Phase(1, content["schedule"], omega=content["omega"]), start=states)
        states = free.states
        rows.append(dict(residual=free.residual, **seen(states)))
    network.feedback = 0.0
    return dict(steps=rows, alone=seen(ep.relax(network, smooth(), ep.Phase(1, "up")).states))


def main():
    content = as_text(data(ep.load(MODEL)))
    script = f"// Written by generate_cifar.py: do not edit.\nconst CIFAR_NETWORK = {content};\n"
    (HERE / "network.js").write_text(script, encoding="utf-8")
    found = case(json.loads(content))
    (HERE / "network_case.json").write_text(as_text(found) + "\n", encoding="utf-8")
    residuals = ", ".join(f"{row['residual']:.1e}" for row in found["steps"])
    print(f"network.js: {len(script) / 1e6:.2f} MB; residuals of the case: {residuals}")


if __name__ == "__main__":
    main()
