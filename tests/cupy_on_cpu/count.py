"""What a training step asks of a GPU, counted, and how long that would take at a GPU's peak rates: a prediction.

    PYTHONPATH=tests python -m cupy_on_cpu.count                   # the paper's network, batch 128: docs/gpu.md

The real CuPy runs the real training step on a device that computes nothing (device.dry). Counted are launches of kernels, calls
of cuBLAS with their FLOPs, and bytes: each array that a launch is given counts once, so this is the least it can move.
"""

from functools import partial

import numpy as np

import ep
from cupy_on_cpu import device, executed
from ep import datasets
from ep.engine import Recorder, gpu
from ep.train.step import recorded

cupy = executed.cupy

GPUS = {  # (bytes/s, FLOP/s in float32, FLOP/s of TF32 tensor cores without sparsity); SXM versions, NVIDIA's data sheets
    "A100 80 GB": (2.039e12, 19.5e12, 156e12),
    "H100 80 GB": (3.35e12, 67e12, 494.5e12),
}
CHANNELS, BATCH = [128, 256, 512, 512], 128  # the paper's
SETTLED = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)  # of --preset cpu, for weak feedback
PAPER = ep.Phases(ep.Phase(250, check_every=10), ep.Phase(25, check_every=10), deviations=False)


def counts():
    """Everything so far: launches, bytes of kernels, and cuBLAS's calls, FLOPs and bytes."""
    blas = executed.gemms()
    return np.array([device.count["launches"], sum(device.moved.values()), blas["calls"], blas["flops"], blas["bytes"]], float)


def cost(run):
    """What run() adds to `counts`."""
    before = counts()
    run()
    return counts() - before


def problem(fused, batch=BATCH):
    """(network, bytes of a batch of images in device memory, its labels)."""
    network = ep.convnet(CHANNELS).to(cupy)
    images = cupy.zeros((batch, 32, 32, 3), dtype="uint8")
    return gpu.prepared(network) if fused else network, images, np.zeros(batch, int)


def step_cost(network, images, labels, beta):
    """One step of a relaxation that has reached every layer: the difference between relaxing for 9 and for 8 of them."""
    x, y = datasets.normalise(images), network.targets(labels)
    inputs = network.input_drives(x)
    relax = partial(ep.relax, network, x, y=y, beta=beta, inputs=inputs)
    return cost(lambda: relax(phase=9)) - cost(lambda: relax(phase=8))


def training_step(network, optimizer, images, labels, phases=PAPER, recorder=None):
    """From bytes in device memory to new weights, with the numbers of the log."""
    gradient = partial(ep.eqprop_gradient, phases=phases, nudging=ep.Nudging.symmetric(1.0))
    if recorder is not None:
        gradient = partial(recorded, recorder, gradient, (phases,))
    x = datasets.normalise(datasets.augment(images, np.random.default_rng(0)))
    optimizer.step(ep.in_chunks(gradient, network, x, labels, size=len(labels)).gradient)


def peak_memory(batch):
    """Bytes of device memory that a training step needs at most, the network and its velocity included, no data set."""
    start = device.count["bytes in use"]
    network, images, labels = problem(True, batch)
    optimizer = ep.SGD(network, 0.1)
    device.count["peak bytes"] = device.count["bytes in use"]
    training_step(network, optimizer, images, labels, ep.Phases(3, 2, deviations=False))
    return device.count["peak bytes"] - start


def expected_memory(batch):
    """`peak_memory` by a formula, for the moment in which the last nudged phase goes down through its largest synapse:

        4 bytes x ( 3 P  +  N x ( 11 S + largest of (k k C_pre + C_post) H' W' ) )

    P parameters: weights, velocity, gradient. Per image, S units: of the free phase and of the first nudged one the states, those
    before the last step, and the u that gave them; of the second one old and new states, u and what was sent up; and switches and
    the input's drive, as large as one more (a switch is one byte). Then one patch matrix, cut at gpu.MEMORY, and the unpooled
    states that it is made from.
    """
    network = ep.convnet(CHANNELS)
    P = sum(w.size for w in network.parameters().values())
    S = sum(int(np.prod(shape)) for shape in network.shapes[1:])
    largest = max(min(4 * batch * int(np.prod(synapse.conv_shape)) * synapse.W[..., 0].size, gpu.MEMORY)
                  + 4 * batch * int(np.prod(synapse.conv_shape)) * synapse.W.shape[3] for synapse in network.synapses[1:])
    return 4 * (3 * P + 11 * batch * S) + largest


def seconds(counted, bandwidth, flops):
    """At peak rates: cuBLAS at the slower of arithmetic and memory, then the kernels at memory speed."""
    _, moved, _, operations, blas_bytes = counted
    return max(operations / flops, blas_bytes / bandwidth) + moved / bandwidth


def row(name, counted):
    launches, moved, calls, operations, blas_bytes = counted
    times = [f"{1e3 * seconds(counted, bandwidth, rate):,.2f}" for bandwidth, *rates in GPUS.values() for rate in rates]
    cells = [name, f"{launches:,.0f} + {calls:,.0f}", f"{moved / 1e6:,.0f} + {blas_bytes / 1e6:,.0f}", f"{operations / 1e9:,.1f}"]
    return "| " + " | ".join(cells + times) + " |"


def main():
    device.dry = True
    executed.gemms(dry=True)
    times = [f"ms, {name}, {kind}" for name in GPUS for kind in ("float32", "TF32")]
    print("| | launches: kernels + cuBLAS | MB: kernels + cuBLAS | GFLOP | " + " | ".join(times) + " |")
    print("|---" * (4 + len(times)) + "|")
    for fused, path in ((False, "ops.py"), (True, "kernels.py")):
        network, *images = problem(fused)
        whole = partial(training_step, network, ep.SGD(network, 0.1, weight_decay=3e-4), *images)
        print(row(f"free step, {path}", step_cost(network, *images, 0.0)))
        print(row(f"nudged step, {path}", step_cost(network, *images, 1.0)), flush=True)
        print(row(f"training step, {path}", cost(whole)), flush=True)
    network, *images = problem(True)
    network.feedback, recorder = 0.005, Recorder()
    whole = partial(training_step, network, ep.Adam(network, 3e-3), *images, SETTLED)
    print(row("training step at gain 0.005, kernels.py", cost(whole)), flush=True)
    whole(recorder)  # records it
    print(row("the same, recorded", cost(partial(whole, recorder))))
    [recording] = recorder.recordings.values()
    print(row("of that, in the graph", cost(recording.captured)), flush=True)
    print("\n| images in a batch | MiB, counted | MiB, by the formula |\n|---|---|---|")
    for n in (BATCH // 4, BATCH, 4 * BATCH):
        found, expected = (memory(n) / 2**20 for memory in (peak_memory, expected_memory))
        print(f"| {n} | {found:,.0f} | {expected:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
