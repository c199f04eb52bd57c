"""What can this machine do, and what is to be installed for the rest?    python -m ep.doctor [--data DIR]

Every check is a function that returns a sentence, or raises one: then its remedy, a command, is printed too. A check that fails
in a way nobody thought of says so in its own line and hinders none of the others. Exit code 0 if the CPU backend works.
Under mpiexec, rank 0 speaks for all, and tells of every rank's GPU.
"""

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial

import numpy as np
from threadpoolctl import threadpool_info

from . import backend, engine
from .bptt import bptt_gradient
from .builders import convnet
from .datasets import cifar, download
from .dynamics import Phases
from .eqprop import eqprop_gradient
from .errors import EPError
from .nudging import Nudging
from .train import commandline, parallel

CUPY = "pip install 'cupy-cuda13x[ctk]'  # where nvidia-smi says CUDA 13; with CUDA 12: pip install 'cupy-cuda12x[ctk]'"
DOWNLOAD = """python -c "from ep import datasets; datasets.load('cifar10')"  # downloads and checks it"""
ASK_MPI = 'from mpi4py import MPI; print(*MPI.Get_library_version().strip(chr(0)).split(",")[0].split()[:3])'


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{platform.system()} {platform.machine()}, {memory:.0f} GB of memory, {commandline.cores()} of {os.cpu_count()} cores"


def numpy_blas():
    """Which library multiplies matrices."""
    libraries = [f"{library['internal_api']} {library['version']} ({library.get('architecture', 'unknown')} kernels, "
                 f"{library['num_threads']} threads)" for library in threadpool_info() if library["user_api"] == "blas"]
    return f"{np.__version__} with {' and '.join(libraries) or 'a BLAS that threadpoolctl does not know'}"


def self_test(device):
    """Gradients against BPTT's on the CPU: EP's, and BPTT's in float32, on the engine's synapses. EPError if one is wrong."""
    xp, phases = backend.device_module(device), Phases(60, 60)
    x, y, errors = np.random.default_rng(0).random((3, 8, 8, 1)), np.array([0, 1, 1]), []
    exact = bptt_gradient(convnet([2, 3], (8, 8, 1), 2, dtype="float64"), x, y, phases).gradient["1.W"]
    eqprop = partial(eqprop_gradient, nudging=Nudging.symmetric(0.01))
    for dtype, gradient in (("float64", eqprop), ("float32", bptt_gradient)):
        network = engine.prepared(convnet([2, 3], (8, 8, 1), 2, dtype=dtype).to(xp))
        found = gradient(network, xp.asarray(x, dtype=dtype), xp.asarray(y), phases)
        errors.append(abs(backend.to_host(found.gradient["1.W"]) - exact).max() / abs(exact).max())
    off = f"EP's gradient is BPTT's to {errors[0]:.0e}, and BPTT's in float32 to {errors[1]:.0e}"
    if not np.max(errors) < 1e-3:
        raise EPError(f"computes wrong numbers: {off} (1e-3 allowed)")
    return f"works: {off}"


def driver():
    if not shutil.which("nvidia-smi"):
        raise EPError("no NVIDIA driver: there is no nvidia-smi")
    gpus = output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader").splitlines()
    return f"{len(gpus)} GPU(s): {'; '.join(gpus)}"


def cifar10(folder):
    """Reads every record. Raises EPError if there are none, or if they are not whole."""
    layout, place = cifar.LAYOUTS["cifar10"], download.place(folder)
    if not (found := cifar.find(layout, place)):
        raise EPError(f"not in {place}: training downloads it if it may, or takes the embedded synthetic images")
    dataset = cifar.read(found, layout)
    return f"{dataset.source}, complete, in {dataset.folder}"


def mpi():
    """Under mpiexec: do the ranks find each other? Else: which MPI is it? (Asked in another process: MPI may end it.)"""
    world = parallel.world()
    if world.comm is not None:
        machines = len(set(world.exchange(platform.node())))
        return f"{world.size} ranks on {machines} machine(s) find each other; each takes {world.cores()} thread(s)"
    library = output(sys.executable, "-c", ASK_MPI)
    if not shutil.which("mpiexec"):
        raise EPError(f"{library}, but no mpiexec that starts processes")
    return library


def output(*command):
    """What a command prints. Raises EPError with the last line of its complaint."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI_"))}  # no rank of mpiexec's
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=alone)
    if done.returncode:
        raise EPError((done.stderr.strip() or f"exit code {done.returncode} of {command[0]}").splitlines()[-1])
    return done.stdout.strip()


def checks(folder):
    """[(what, function, remedy if it raises)]"""
    return [("Python", platform.python_version, ""), ("machine", machine, ""),
            ("NumPy", numpy_blas, ""),
            ("CPU backend", partial(self_test, "cpu"), "pip install --force-reinstall 'numpy>=2.0'"),
            ("GPU driver", driver, "sudo ubuntu-drivers install  # on Ubuntu; elsewhere as the system installs NVIDIA's driver"),
            ("CuPy", lambda: backend.imported_cupy().__version__, CUPY),
            ("GPU backend", partial(self_test, "cuda"), ""),  # says itself which library is missing, and what to install
            ("CIFAR-10", partial(cifar10, folder), DOWNLOAD),
            ("MPI", mpi, "pip install 'mpi4py>=4' mpich  # without mpich where the system has an MPI")]


def main():
    parser = commandline.Parser(prog="python -m ep.doctor", description=__doc__, formatter_class=commandline.Formatter)
    parser.add_argument("--data", type=commandline.path, metavar="DIR", help="where to look for cifar-10-batches-bin")
    folder, failed = parser.parse_args().data, {}
    world = parallel.World()
    with suppress(EPError):  # where ranks do not find each other, MPI's line says why
        world = parallel.world()  # now, since each rank's GPU is chosen before CUDA starts
    for what, check, remedy in checks(folder):
        try:
            mark, sentence = "ok", check()
        except Exception as error:  # whatever it is, the other checks go on
            mark = "--"
            sentence = str(error) if isinstance(error, EPError) else f"could not be checked ({type(error).__name__}: {error})"
            failed[what] = remedy
        everyone = world.exchange((mark, sentence)) if what == "GPU backend" else [(mark, sentence)]
        for rank, (mark, sentence) in enumerate(everyone):
            of = f"rank {rank}: " if len(everyone) > 1 else ""
            print(f"{mark} {what:<15}{of}{sentence.removesuffix('; ' + backend.DOCTOR)}", flush=True)
    for remedy in dict.fromkeys(filter(None, failed.values())):
        print(f"\nfor {', '.join(what for what in failed if failed[what] == remedy)}:\n    {remedy}")
    sys.exit(1 if "CPU backend" in failed else 0)


if __name__ == "__main__":
    commandline.run(main)
