"""Data-parallel training through MPI: `mpiexec -n 4 python examples/cifar10_sym_ep.py`.

Every rank (process) holds the same network, the same optimizer state and the same images. A step is then

    batch, augmentation, nudging     drawn by every rank, for the whole batch, from (seed, epoch, step): the same everywhere
    chunks of the batch              cut by the index in the whole batch; rank r relaxes chunks r, r + R, r + 2R ... of them
    g = sum_r (n_r/N) g_r            one allreduce of one flat buffer; n_r images of rank r, g_r the mean gradient over them
    optimizer.step(g)                by every rank: the same numbers, so the same parameters, which are never sent

A chunk is relaxed by itself, whoever relaxes the others, so R changes the order of one sum and nothing else: parameters agree to
rounding for any number of ranks. What the log needs (loss, residuals ...) is a small record, gathered in the same step.

    with one process            `World()`: loop.in_chunks, unchanged; nothing of MPI is imported
    under mpiexec -n R          `world()` returns the World of R ranks; `run(main)` ends all of them if one fails
"""

import math
import os
import socket
import sys
import time
import traceback
import zlib
from dataclasses import replace

import numpy as np

from ..backend import DOCTOR, array_module, to_host
from ..errors import EPError
from . import loop, machine
from .step import numbers_of, step

LAUNCHED = [  # number of ranks, rank, rank on this machine, as MPICH (Intel MPI, MVAPICH), Open MPI and srun tell their processes
    ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"),
    ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"),
    ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"),  # srun --mpi=pmi2 sets this beside those of MPICH
]
PATIENCE = 2.0  # seconds by which rank 0 is first to report a mistake that every rank makes


def launched():
    """(number of ranks, rank, rank on this machine), as the launcher tells its processes; (1, 0, 0) without a launcher."""
    told = [[os.environ[name] for name in names if os.environ.get(name, "").isdecimal()] for names in LAUNCHED]
    return tuple(int(words[0]) if words else default for words, default in zip(told, (1, 0, 0)))


def world():
    """The `World` of this process. With several ranks, rank 0 alone prints, and each rank sees one GPU of its machine.

    Raises EPError if a launcher started several processes but mpi4py is missing, or does not see them.
    """
    size, rank, local_rank = launched()
    if size == 1:
        return World()
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # until the process ends
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", str(local_rank)).split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[local_rank % len(gpus)]  # before CUDA starts: later it has no effect
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        raise EPError(f"{size} processes were started to train together, but mpi4py cannot be imported ({error!r}): pip install "
                      f"'mpi4py>=4' mpich, or start without mpiexec; {DOCTOR}") from None
    if MPI.COMM_WORLD.size != size:
        raise EPError(f"{size} processes were started, but mpi4py sees {MPI.COMM_WORLD.size}: the launcher belongs to another "
                      f"MPI than mpi4py; {DOCTOR}")
    return World(MPI.COMM_WORLD)


class World:
    """R ranks that train one network together; without a communicator, the only process.

    Every rank must call the same methods in the same order: they wait for each other.

    rank, size   this rank and their number; rank 0 writes and prints
    signal       set by this rank's signal handler; `stop` is what all ranks know of since the last exchange
    """

    def __init__(self, comm=None):
        self.comm, self.rank, self.size = comm, comm.rank if comm else 0, comm.size if comm else 1
        self.signal, self.agreed = None, None

    # --- one training step ------------------------------------------------------------------------------------------------

    def in_chunks(self, gradient, network, x, y, map=map, size=loop.CHUNK):
        """`loop.in_chunks` by all ranks: the same `Step` on each of them, but for rounding."""
        if self.comm is None:
            return loop.in_chunks(gradient, network, x, y, map, size)
        cut, like = loop.chunks(len(y), size), network.any_parameter
        mine = list(map(lambda chunk: loop.as_part(network, gradient(network, x[chunk], y[chunk])), cut[self.rank::self.size]))
        shapes = {name: w.shape for name, w in network.parameters().items()}
        flat, sums = zeros(shapes | {"at_bounds": (2, sum(map(math.prod, network.shapes[1:])))}, like)
        for one in mine:
            for name, g in one.gradient.items():
                sums[name] += one.images * g
            sums["at_bounds"] += one.at_bounds  # 1 where a unit is at its bound in all images of the part
        self.add_up(flat)
        gradient, at_bounds = {name: sums[name] / len(y) for name in shapes}, sums["at_bounds"] == len(cut)
        told = [replace(one, gradient={}, at_bounds=None, numbers=to_host(one.numbers), alone=None) for one in mine]
        told = self.exchange(told)
        parts = [told[k % self.size][k // self.size] for k in range(len(cut))]
        parts = [replace(one, numbers=array_module(like).asarray(one.numbers)) for one in parts]
        return step(parts, gradient, numbers_of(parts, gradient, at_bounds))

    def add_up(self, flat):
        """flat (numbers,) <- its sum over the ranks, from a device through the host: MPI need not read device memory."""
        from mpi4py import MPI

        buffer = to_host(flat)
        self.comm.Allreduce(MPI.IN_PLACE, buffer)
        if buffer is not flat:
            flat[...] = array_module(flat).asarray(buffer)

    # --- everything else that the ranks tell each other -----------------------------------------------------------------

    def exchange(self, own):
        """[what each rank passed, in the order of the ranks]; signals travel along."""
        if self.comm is None:
            return [own]
        everyone = self.comm.allgather((own, self.signal))
        self.agreed = next((signal for _, signal in everyone if signal), None)
        return [own for own, _ in everyone]

    @property
    def stop(self):
        """The signal that asks the run to stop, or None: the same on every rank, so that all stop after the same step."""
        return self.agreed if self.comm else self.signal

    def map(self, map):
        """A `map` whose items the ranks share out; all results, in the order of the items, on every rank."""
        if self.comm is None:
            return map

        def shared(function, items):
            items = list(items)
            by_rank = self.exchange(list(map(function, items[self.rank::self.size])))
            return [by_rank[i % self.size][i // self.size] for i in range(len(items))]
        return shared

    def check_same(self, what, value, advice):
        """Raise EPError (exit code 1) naming the ranks whose `value` (as printed) is not that of most."""
        values = self.exchange(repr(value))
        usual = max(values, key=values.count)
        wrong = [str(rank) for rank, value in enumerate(values) if value != usual]
        if wrong:
            raise EPError(f"{what} of rank {', '.join(wrong)} (of {self.size}) differ from those of the other ranks: {advice}",
                          exit_code=1)

    def check_parameters(self, network):
        """`check_same` for every bit of the parameters (nothing to check in one process)."""
        if self.comm is not None:
            self.check_same("the parameters", [zlib.crc32(to_host(w).tobytes()) for w in network.parameters().values()],
                            "they no longer train the same network; continue from the last checkpoint with --resume, and if it "
                            "happens again, look for a faulty machine")

    def in_turn(self, function):
        """function() on rank 0, then on the others: what rank 0 downloads, they find."""
        for turn in (0, 1):
            if turn == min(self.rank, 1):
                result = function()
            self.exchange(None)  # wait for everyone
        return result

    def cores(self):
        """Cores for each rank: those it may run on, divided by the ranks on this machine that may use them too."""
        host, own = socket.gethostname(), machine.core_numbers()
        return max(1, len(own) // sum(host == other and bool(own & cores) for other, cores in self.exchange((host, own))))


def zeros(shapes, like):
    """One flat array (numbers,) of like's type and place, and {name: view of it} for the {name: shape} that it holds."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
    flat = array_module(like).zeros(ends[-1], like.dtype)
    return flat, {name: flat[end - math.prod(shape):end].reshape(shape) for end, (name, shape) in zip(ends, shapes.items())}


# --- the end of a run -------------------------------------------------------------------------------------------------


def run(main):
    """machine.run(main); under mpiexec, a rank that fails says why and ends all the others."""
    size, rank, _ = launched()

    def main_of_rank():
        try:
            main()
        except Exception as error:
            if rank > 0 and "mpi4py.MPI" not in sys.modules:
                sys.exit(2)  # mpi4py is missing on every rank, and rank 0 says so
            if rank > 0:
                time.sleep(PATIENCE)  # if rank 0 makes the same mistake, it says so now, and ends this process
            if known := machine.expected(error):
                raise EPError(f"{known} (rank {rank} of {size})", known.exit_code) from None
            print(f"rank {rank} of {size}: {traceback.format_exc()}", file=sys.stderr)
            end_all(1)

    machine.run(*((main,) if size == 1 else (main_of_rank, end_all)))


def end_all(code):
    """End every rank, wherever it is, with this exit code; without a working MPI the launcher has to do it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "mpi4py.MPI" in sys.modules:
        time.sleep(0.5)  # a launcher that ends at once may drop what was printed last
        sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(code)
    sys.exit(code)
