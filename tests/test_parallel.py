"""Data parallelism: any number of ranks trains the same network, none drifts, and none goes on alone. Real ranks of a real MPI.

Skipped where mpi4py or mpiexec is missing (REQUIRE_MPI=1: a failure): pip install 'mpi4py>=4' mpich.
"""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from cupy_on_cpu import running
from parallel_ranks import CASES

import ep
from ep.npz import read_npz
from ep.train import parallel, runs

slow = pytest.mark.slow
TESTS = Path(__file__).parent
JOB = TESTS.parent / "examples" / "cifar10_sym_ep.py"
SMALL = ("--dataset synthetic --channels 4 4 4 8 --train-images 88 --test-images 40 --batch-size 40 --epochs 2 --steps-free 8 "
         "--steps-nudged 6 --nudging random-sign --threads 1 --device cpu --scale 1 2").split()


@functools.cache
def launcher():
    """The path of mpiexec: the one beside this Python, else the first on the path."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec and importlib.util.find_spec("mpi4py"):
        return mpiexec
    reason = "no mpiexec" if not mpiexec else "no mpi4py"
    pytest.fail(f"REQUIRE_MPI=1, but {reason}") if os.environ.get("REQUIRE_MPI") == "1" else pytest.skip(f"{reason} here")


def on_ranks(R, *command, **environment):
    """`mpiexec -n R python command`: its exit code, stdout and stderr. R = 1: without mpiexec."""
    command = [sys.executable, *map(str, command)]
    if R > 1:
        command = [launcher(), "-n", str(R), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(
        os.environ, OPENBLAS_NUM_THREADS="1", **environment))
    return done.returncode, done.stdout, done.stderr


PRELUDE = """
import functools, os, signal, sys
from ep.datasets import synthetic
from ep.train import experiment, job
synthetic.synthetic_images = functools.partial(synthetic.synthetic_images, 88, 40)  # to save time, as is the missing picture
job.runs.plot_curves = lambda *arguments: open(arguments[-1], "w").close()
rank = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", 0)))
"""


def job(R, *options, plant="", **environment):
    """The main job on R ranks. plant: Python that every rank runs before it, with `rank` and the modules of the job at hand."""
    return on_ranks(R, "-c", f"{PRELUDE}\n{plant}\njob.parallel.run(job.main)", *options, **environment)


# Float64, and the synapses of the core: where the drives of a pooling window are all equal (units at a bound around it), the
# rounding of the engine decides, and then one bit of one weight changes a gradient as much as another number of ranks does.
FLOAT64 = """
experiment.engine.prepared = lambda network, map=map: network
experiment.convnet = functools.partial(experiment.convnet, dtype="float64")
normalise = job.datasets.Dataset.normalise
job.datasets.Dataset.normalise = lambda dataset, images: normalise(dataset, images).astype("float64")
"""
AT_STEP = """
plain, calls = job.runs.Run.on_step, []
def on_step(self, number, step):
    calls.append(1)
    if len(calls) == {step} and rank == {rank}:
        {do}
    plain(self, number, step)
job.runs.Run.on_step = on_step
"""


def without_time(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_close(a, b, tolerance):
    """Two trained networks (dictionaries of arrays) or logs (nested lists and dictionaries of numbers) agree."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key], tolerance)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_close(one, other, tolerance)
    elif a is None or isinstance(a, str):
        assert a == b
    else:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- the number of ranks changes only the order of a sum ------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(R, case) -> (parameters, record) of one of CASES on R ranks; all cases run in one go."""
    @functools.cache
    def folder(R):
        out = tmp_path_factory.mktemp(f"ranks-{R}")
        code, _, err = on_ranks(R, TESTS / "parallel_ranks.py", out)
        assert code == 0, err
        return out

    def trained(R, case):
        return read_npz(folder(R) / f"{case}.npz"), json.loads((folder(R) / f"{case}.json").read_text())

    return trained


@slow
@pytest.mark.parametrize("R", [2, 4])
@pytest.mark.parametrize("case", [case for case in CASES if case != "another cut"])
def test_the_number_of_ranks_changes_only_rounding(trained, case, R):
    """Parameters after two epochs, and the log of every step: float64 to 1e-10, float32 to rounding."""
    tolerance = 2e-6 if CASES[case].get("dtype") == "float32" else 1e-10
    (parameters, record), (expected, alone) = trained(R, case), trained(1, case)
    assert_close(parameters, expected, tolerance)
    assert_close(record["log"], alone["log"], tolerance)
    assert record["evaluation"][0] == alone["evaluation"][0]  # the accuracy; every chunk's result is gathered
    assert all(norm > 0 for norm in record["log"][0][-3:])


@slow
def test_what_the_equality_rests_on(trained):
    """Chunks really stop at different steps, and another cut of the batch is noticed a thousand times above the tolerance."""
    assert any(step[2] % 1 for step in trained(1, "stopping")[1]["log"])  # a mean number of steps that is no whole number
    wrong, right = trained(2, "another cut")[0], trained(1, "another cut")[0]
    assert max(abs(wrong[name] - right[name]).max() for name in right) > 1e-7


@slow
@pytest.mark.parametrize("R", [2, 4])
def test_one_allreduce_of_one_buffer_per_step(trained, R):
    """Each step is one allreduce, of the parameters and of two numbers per unit (is it at a bound?), and one gathered record."""
    parameters, record = trained(R, "float32")
    steps, epochs = len(record["log"]), 2
    assert record["calls"].count("Allreduce") == steps
    assert record["calls"].count("allgather") == steps + epochs + 2  # a check each, the evaluation, the count of the cores
    assert record["bytes"] == [4 * (sum(w.size for w in parameters.values()) + 2 * (4 * 4 * 3 + 2 * 2 * 4))]


# --- the main job --------------------------------------------------------------------------------------------------------


@slow
def test_stopped_and_resumed_with_other_numbers_of_ranks(tmp_path):
    """A signal to rank 1 alone stops two ranks after the same step, the next; four go on, one finishes: as if always one."""
    stop = AT_STEP.format(step=2, rank=1, do="signal.raise_signal(signal.SIGTERM)")
    code, out, err = job(2, *SMALL, "--out", tmp_path / "run", plant=FLOAT64 + stop)
    assert code == 143 and out.count("stopped in epoch 1 after step 3") == 1, (code, out, err)
    stop = AT_STEP.format(step=1, rank=0, do="signal.raise_signal(signal.SIGINT)")
    code, out, err = job(4, "--resume", tmp_path / "run", plant=FLOAT64 + stop)
    assert code == 130 and out.count("stopped in epoch 2 after step 2") == 1, (code, out, err)
    alone = "import atexit; atexit.register(lambda: print('mpi4py' in sys.modules))"
    code, out, err = job(1, "--resume", tmp_path / "run", plant=FLOAT64 + alone)
    assert code == 0 and out.endswith("False\n"), (out, err)  # without mpiexec, nothing of MPI is imported
    assert job(1, *SMALL, "--out", tmp_path / "straight", plant=FLOAT64)[0] == 0
    arrays, expected = (read_npz(tmp_path / name / "checkpoint.npz") for name in ("run", "straight"))
    del arrays["meta"], expected["meta"]
    assert arrays["parameter/2.W"].dtype == np.float64
    assert_close(arrays, expected, 1e-10)
    log = without_time(tmp_path / "straight")
    assert_close(without_time(tmp_path / "run"), log, 1e-10)
    assert log[0]["stuck_1"] > 0 and log[0]["gradient_norm_1"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
def test_two_ranks_on_gpus(tmp_path, xp):
    """--device cuda with a GPU per rank: the parameters of one rank.

    Where a stand-in is in CuPy's place, the ranks get it too.
    """
    if not running() and xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("two GPUs are needed")
    stand_in = f"sys.path.insert(0, {str(TESTS)!r}); from cupy_on_cpu import executed" if running() else ""
    options = ("--dataset synthetic --channels 4 6 --scale 1 2 --lr 0.04 --train-images 40 --test-images 20 --batch-size 40 "
               "--chunk 16 --epochs 1 --steps-free 8 --steps-nudged 6 --device cuda").split()
    for R in (1, 2):
        code, out, err = job(R, *options, "--out", tmp_path / f"{R}", plant=FLOAT64 + stand_in)
        assert code == 0 and json.loads((tmp_path / f"{R}" / "config.json").read_text())["device"] == "cupy", (out, err)
    one, two = (read_npz(tmp_path / f"{R}" / "checkpoint.npz") for R in (1, 2))
    del one["meta"], two["meta"]
    assert_close(two, one, 1e-10)
    assert_close(without_time(tmp_path / "2"), without_time(tmp_path / "1"), 1e-10)


@slow
def test_rank_0_alone_writes_and_prints(tmp_path):
    """The folder of a run on two ranks is that of one process; every line is printed once."""
    code, out, err = job(2, *SMALL, "--out", tmp_path / "run")
    assert code == 0, err
    assert {f.name for f in (tmp_path / "run").iterdir()} == {
        ".lock", "config.json", "log.jsonl", "curves.png", "checkpoint.npz", "network.npz", "result.json"}
    assert out.count("epoch 1: train loss") == 1 and out.count("SYNTHETIC DATA") == 1
    assert err.count("epoch 2/2: 100%") <= 2  # one progress bar (drawn for the last step, and once more when it is closed)


DEATHS = {  # what happens on rank 1 -> exit code, what is said
    "os.kill(os.getpid(), signal.SIGKILL)": (9, "KILLED|Killed|killed"),
    "raise job.runs.EPError('the disk is on fire', exit_code=1)": (1,
                                                              "error: the disk is on fire; the last .* good.* .rank 1 of 2."),
    "raise OSError(28, 'No space left on device')": (1, "error: .*No space left on device; the last .* good.* .rank 1 of 2."),
    "raise MemoryError('of the GPU')": (1, "error: out of memory .of the GPU.: use a smaller --chunk .* .rank 1 of 2."),
    "1 / 0": (1, "rank 1 of 2: Traceback(.|\n)*ZeroDivisionError"),
}


@slow
@pytest.mark.parametrize("do", DEATHS)
def test_a_rank_that_dies_ends_the_run(tmp_path, do):
    """Killed, out of disk space, or a bug: exit code and a message, and the checkpoint of the epoch before continues."""
    code, out, err = job(2, *SMALL, "--out", tmp_path / "run", plant=AT_STEP.format(step=5, rank=1, do=do))
    assert code == DEATHS[do][0] and re.search(DEATHS[do][1], out + err), (code, out, err)
    meta = runs.read_meta(tmp_path / "run" / "checkpoint.npz")
    assert (meta["epoch"], meta["step"]) == (1, 0) and not (tmp_path / "run" / "result.json").exists()
    if "kill" in do:
        assert job(1, "--resume", tmp_path / "run")[0] == 0


@slow
def test_drift_is_noticed(tmp_path):
    """One bit of one weight of one rank: the run ends with the rank's number, before anything of that epoch is saved."""
    flip = "w = self.network.parameters()['2.W']; w.view('int32')[0, 0, 0, 0] ^= 1"
    code, out, err = job(2, *SMALL, "--out", tmp_path / "run", plant=AT_STEP.format(step=6, rank=1, do=flip))
    assert code == 1 and "error: the parameters of rank 1 (of 2) differ from those of the other ranks" in err, (code, err)
    assert "--resume" in err and runs.read_meta(tmp_path / "run" / "checkpoint.npz")["epoch"] == 1


STALE = """
if rank == 1:
    read_meta = job.runs.read_meta
    job.runs.read_meta = lambda path: read_meta(path) | {change}
"""
SPOILED = """
restore = job.runs.restore
def spoiled(path, network, optimizer):
    restore(path, network, optimizer)
    network.parameters()["2.W"][0, 0, 0, 0] += rank
job.runs.restore = spoiled
"""


@slow
@pytest.mark.parametrize("plant, what", [(STALE.format(change="{'epoch': 1, 'step': 2}"), "epoch and step"),
                                         (SPOILED, "the parameters")], ids=["position", "parameters"])
def test_ranks_that_read_different_checkpoints_are_refused(tmp_path, plant, what):
    """A file system that shows one rank the checkpoint of five minutes ago: they would wait for each other for ever."""
    assert job(1, *SMALL, "--out", tmp_path / "run")[0] == 0
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    code, out, err = job(2, "--resume", tmp_path / "run", plant=plant)
    assert code == 1 and f"error: {what} of rank 1 (of 2) differ from those of the other ranks" in err, (code, err)
    assert "Traceback" not in err and (tmp_path / "run" / "checkpoint.npz").read_bytes() == before


# --- refused before anything is written --------------------------------------------------------------------------------


def refused(folder, code, err, sentence):
    assert code in (1, 2) and sentence in err and "Traceback" not in err and err.count("error: ") == 1, (code, err)
    assert not folder.exists()


@slow
def test_without_mpi4py_the_ranks_refuse_to_train_alone(tmp_path):
    """One sentence instead of independent runs in one folder."""
    launcher()
    code, out, err = job(2, *SMALL, "--out", tmp_path / "run", plant="sys.modules['mpi4py'] = None")
    refused(tmp_path / "run", code, err, "2 processes were started to train together, but mpi4py cannot be imported")
    assert code == 2 and "python -m ep.doctor" in err


@slow
def test_an_mpi4py_of_another_mpi_is_refused(tmp_path):
    """A launcher that mpi4py's library does not know leaves every process alone in its world."""
    launcher()
    code, out, err = on_ranks(1, JOB, *SMALL, "--out", tmp_path / "run", OMPI_COMM_WORLD_SIZE="3", OMPI_COMM_WORLD_RANK="0")
    refused(tmp_path / "run", code, err, "3 processes were started, but mpi4py sees 1")


@slow
def test_bad_options_are_one_sentence(tmp_path):
    """Every rank finds the mistake, one reports it."""
    for options, sentence in ((["--beta", "0"], "beta must be a finite number other than 0"), (["--beta", "x"], "--help lists")):
        code, out, err = job(2, *SMALL, *options, "--out", tmp_path / "run")
        refused(tmp_path / "run", code, err, sentence)


@slow
def test_ranks_with_other_settings_are_refused(tmp_path):
    """`mpiexec -n 1 A : -n 1 B` with another seed in B."""
    rank = [sys.executable, str(JOB), *SMALL, "--out", str(tmp_path / "run")]
    command = [launcher(), "-n", "1", *rank, ":", "-n", "1", *rank, "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    refused(tmp_path / "run", done.returncode, done.stderr, "settings or images of rank 1 (of 2) differ")


@slow
def test_ranks_with_other_devices_are_refused(tmp_path):
    """More ranks than GPUs, with --device auto: one rank finds a GPU and another does not."""
    plant = "import types; job.backend.device_module = lambda _: types.SimpleNamespace(__name__='numpy' if rank else 'cupy')"
    code, out, err = job(2, *SMALL, "--device", "auto", "--out", tmp_path / "run", plant=plant)
    refused(tmp_path / "run", code, err, "the devices of rank 1 (of 2) differ from those of the other ranks: start as many ranks")


# --- without ranks: a communicator and launchers that are made up -------------------------------------------------------


class Gathered:
    """A communicator whose ranks all say what is given here."""

    rank = 0

    def __init__(self, values):
        self.values, self.size = values, len(values)

    def allgather(self, own):
        return [(value, None) for value in self.values]


@pytest.mark.parametrize("values, wrong", [("aba", "1"), ("baaa", "0"), ("abac", "1, 3"), ("ab", "1")])
def test_the_ranks_that_differ_from_most_are_named(values, wrong):
    world = parallel.World(Gathered([repr(value) for value in values]))
    with pytest.raises(ep.EPError, match=rf"the numbers of rank {wrong} \(of {len(values)}\) differ .*: look"):
        world.check_same("the numbers", "a", "look")
    parallel.World(Gathered(["7", "7"])).check_same("the numbers", 7, "look")


def test_cores_are_divided_among_the_ranks_that_share_them(monkeypatch):
    """Bound ranks keep their own cores, ranks of other machines do not count, and nobody gets none."""
    monkeypatch.setattr(parallel.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(parallel.machine, "core_numbers", lambda: {0, 1, 2, 3})
    own, bound, elsewhere = ("here", {0, 1, 2, 3}), ("here", {4, 5}), ("there", {0, 1, 2, 3})
    assert parallel.World().cores() == 4
    for ranks, cores in [([own], 4), ([own, own], 2), ([own, bound], 4), ([own, elsewhere], 4), ([own] * 6, 1)]:
        assert parallel.World(Gathered(ranks)).cores() == cores


def launched_by(monkeypatch, **environment):
    """Only these words of launchers in the environment."""
    for name in sum(parallel.LAUNCHED, ()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("visible, expected", [(None, "2"), ("4,5,6,7", "6"), ("3", "3"), ("4,5", "4"), ("", "")])
def test_every_rank_sees_one_gpu(monkeypatch, visible, expected):
    """Rank 2 of its machine takes the third of the visible GPUs; none if they are hidden."""
    launched_by(monkeypatch)
    assert parallel.launched() == (1, 0, 0) and parallel.world().comm is None
    launched_by(monkeypatch, PMI_SIZE="8", PMI_RANK="0", MPI_LOCALRANKID="2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # also where it is deleted next: so it is put back afterwards
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(COMM_WORLD=SimpleNamespace(rank=0, size=8))))
    assert (parallel.world().size, os.environ["CUDA_VISIBLE_DEVICES"]) == (8, expected)


@pytest.mark.parametrize("names", [*zip(*parallel.LAUNCHED), ("PMI_SIZE", "PMI_RANK", "SLURM_LOCALID")])
def test_what_launchers_say(monkeypatch, names):
    """The last row is `srun --mpi=pmi2`: every rank took the first GPU."""
    launched_by(monkeypatch, **dict(zip(names, "873")))
    assert parallel.launched() == (8, 7, 3)


def test_buffers_of_the_device_go_through_the_host(xp, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", ModuleType("mpi4py"))
    sys.modules["mpi4py"].MPI = SimpleNamespace(IN_PLACE="in place")
    given = []

    def Allreduce(how, buffer):
        given.append((how, ep.array_module(buffer)))
        buffer *= 2  # the other rank has the same

    comm = Gathered([0, 0])
    comm.Allreduce = Allreduce
    total, world = xp.arange(5, dtype=np.float32), parallel.World(comm)
    for _ in range(3):
        world.add_up(total)
    assert given == [("in place", np)] * 3
    assert ep.array_module(total) is xp and ep.to_host(total).tolist() == [0, 8, 16, 24, 32]
