"""What the ranks of test_parallel.py run: `mpiexec -n R python parallel_ranks.py OUT_DIR` trains each of CASES; rank 0 saves.

Written as a user would write a training loop of their own: `world.in_chunks` where one process has `ep.in_chunks`.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

import ep
from ep import engine
from ep.nudging import NUDGINGS
from ep.train import parallel, runs

STOP = dict(tolerance=3e-3, steps_free=40)  # chunks stop by themselves, at different steps
CASES = {  # what differs from the defaults of `train`
    "float64": dict(), "float32": dict(dtype="float32"), "stopping": STOP, "stopping float32": dict(STOP, dtype="float32"),
    "remainder": dict(batch_size=40, **STOP), "one chunk": dict(batch_size=9), "random sign": dict(nudging="random-sign"),
    "asymmetric": dict(asymmetric=True), "bptt": dict(algorithm="bptt"), "threads": dict(threads=2, batch_size=90, **STOP),
    "another cut": dict(chunk=10, **STOP),  # wrong: chunks that depend on the number of ranks
}
IMAGES, CLASSES = 90, 3


class Counting:
    """A communicator that counts the calls of its methods and the bytes that they sum."""

    def __init__(self, comm):
        self.comm, self.rank, self.size, self.calls, self.bytes = comm, comm.rank, comm.size, [], set()

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self.comm, name)

    def Allreduce(self, how, buffer):
        self.calls.append("Allreduce")
        self.bytes.add(buffer.nbytes)
        self.comm.Allreduce(how, buffer)


def train(world, *, dtype="float64", batch_size=64, tolerance=0.0, steps_free=12, nudging="symmetric", asymmetric=False,
          algorithm="eqprop", threads=1, chunk=16, epochs=2):
    """(parameters, log of every step) after training on random images."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((IMAGES, 8, 8, 2)).astype(dtype), rng.integers(0, CLASSES, IMAGES)
    images *= np.linspace(0.2, 2.0, IMAGES).astype(dtype)[:, None, None, None]  # some settle sooner than others
    network = ep.convnet([3, 4], (8, 8, 2), CLASSES, paddings=[1, 1], scale=1.5, dtype=dtype)
    network = ep.asymmetric(network) if asymmetric else network
    optimizer, log = ep.SGD(network, 0.1, weight_decay=1e-3), []

    def gradient(network, x, y, rng):
        phases = ep.Phases(ep.Phase(steps_free, tolerance=tolerance), 8, deviations=True)
        one_chunk = partial(ep.bptt_gradient, phases=phases)
        if algorithm == "eqprop":
            one_chunk = partial(ep.eqprop_gradient, phases=phases, nudging=NUDGINGS[nudging](0.5, rng))
        return world.in_chunks(one_chunk, engine.prepared(network), x, y, map, chunk if world.size > 1 else 16)

    def on_step(number, step):
        log.append([step.loss, step.correct, step.steps, step.residual, step.converged, step.images, *np.ravel(step.history),
                    *step.stuck, *step.norms().values()])

    with ep.worker_threads(threads) as map:
        for epoch in range(epochs):
            ep.train_epoch(network, images, labels, gradient, optimizer, batch_size=batch_size, epoch=epoch, on_step=on_step)
            world.check_parameters(network)
        evaluation = ep.evaluate(network, images, labels, partial(ep.relax, phase=steps_free), map=world.map(map))
    return network.parameters(), dict(log=log, evaluation=evaluation, cores=world.cores())


def main():
    world, out = parallel.world(), Path(sys.argv[1])
    for case, options in CASES.items():
        if world.comm is not None:
            world.comm = Counting(getattr(world.comm, "comm", world.comm))
        parameters, record = train(world, **options)
        if world.comm is not None:
            record |= dict(calls=world.comm.calls, bytes=sorted(world.comm.bytes))
        if world.rank == 0:
            np.savez(out / f"{case}.npz", **parameters)
            runs.write_text(out / f"{case}.json", json.dumps(record))


if __name__ == "__main__":
    parallel.run(main)
