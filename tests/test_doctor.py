"""`python -m ep.doctor`: says what is there and what is missing, names the command that brings it, and never crashes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ep import doctor
from ep.datasets import cifar
from ep.eqprop import eqprop_gradient
from ep.errors import EPError


@pytest.fixture
def report(program):
    """report(*options) -> (exit code, {what: (mark, sentence)}, everything that was printed)"""
    def report(*options):
        code, out, _ = program(doctor.main, *options)
        lines = out.split("\n\n")[0].splitlines()
        return code, {line[3:18].strip(): (line[:2], line[18:]) for line in lines}, out

    return report


@pytest.fixture
def quick(monkeypatch):
    """Without the checks that start other programs."""
    monkeypatch.setattr(doctor, "output", lambda *command: (_ for _ in ()).throw(EPError("not asked")))


@pytest.mark.slow
def test_this_machine():
    """The real thing, in a process of its own, without CuPy, network or data: the CPU works, so the exit code is 0."""
    code = "import sys; sys.modules['cupy'] = None; import runpy; runpy.run_module('ep.doctor', run_name='__main__')"
    environment = dict(os.environ, EP_DATA="/no/such/folder")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "ok CPU backend    works: EP's gradient is BPTT's" in done.stdout and "-- CuPy" in done.stdout
    assert "-- CIFAR-10       not in /no/such/folder" in done.stdout and "pip install 'cupy-cuda13x[ctk]'" in done.stdout
    assert len(done.stdout.split("\n\n")[0].splitlines()) == len(doctor.checks(None))


@pytest.mark.slow
def test_under_mpiexec():
    """Rank 0 speaks for all, each rank's own GPU included. With one rank, what the doctor starts is no rank: MPI's library would
    look for a launcher that does not wait for it."""
    from test_parallel import launcher, on_ranks

    gpu = ("import os, ep.doctor as d; d.self_test = lambda device: f'GPU {os.environ.get(\"CUDA_VISIBLE_DEVICES\")}'; "
           "d.main()")
    code, out, err = on_ranks(2, "-c", gpu, CUDA_VISIBLE_DEVICES="4,5")
    assert code == 0 and out.count("CPU backend") == 1, (out, err)
    assert "ok GPU backend    rank 0: GPU 4\nok GPU backend    rank 1: GPU 5\n" in out
    assert "2 ranks on 1 machine(s) find each other; each takes " in out
    done = subprocess.run([launcher(), "-n", "1", sys.executable, "-m", "ep.doctor"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "\nok MPI " in done.stdout, (done.stdout, done.stderr)


def test_a_check_that_breaks_hinders_no_other(report, monkeypatch):
    """An exception nobody thought of: its own line says so. Only a broken CPU backend makes the exit code 1."""
    names = [what for what, *_ in doctor.checks(None)]
    for broken in names:
        checks = [(what, (lambda: 1 / 0) if what == broken else lambda: "fine", "") for what in names]
        monkeypatch.setattr(doctor, "checks", lambda folder, checks=checks: checks)
        code, lines, out = report()
        assert lines[broken] == ("--", "could not be checked (ZeroDivisionError: division by zero)")
        assert [what for what, (mark, _) in lines.items() if mark != "ok"] == [broken]
        assert code == (1 if broken == "CPU backend" else 0)


def wrong_gradient(monkeypatch):
    def off(*arguments, **options):
        estimate = eqprop_gradient(*arguments, **options)
        estimate.gradient["1.W"] = 1.01 * estimate.gradient["1.W"]
        return estimate

    monkeypatch.setattr(doctor, "eqprop_gradient", off)


def wrong_engine(monkeypatch):
    """In float32 alone, the type of a training."""
    def prepared(network):
        network.synapses[0].W += 0.1 * (network.synapses[0].W.dtype == "float32")
        return network

    monkeypatch.setattr(doctor.engine, "prepared", prepared)


@pytest.mark.parametrize("spoil", [wrong_gradient, wrong_engine])
def test_a_cpu_that_computes_wrong_numbers(report, quick, monkeypatch, spoil):
    """The self-test compares numbers, not only the absence of errors."""
    spoil(monkeypatch)
    code, lines, _ = report()
    assert code == 1 and lines["CPU backend"][0] == "--" and "computes wrong numbers" in lines["CPU backend"][1]


def test_a_gpu_driver(monkeypatch, tmp_path):
    """What nvidia-smi prints, or the last line of its complaint."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA A100, 40960 MiB, 550.54'\necho 'NVIDIA A100, 40960 MiB, 550.54'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert doctor.driver().startswith("2 GPU(s): NVIDIA A100, 40960 MiB, 550.54; ")
    smi.write_text("#!/bin/sh\necho 'first' >&2\necho 'Failed to initialize NVML' >&2\nexit 9\n")
    with pytest.raises(EPError, match="^Failed to initialize NVML$"):
        doctor.driver()
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(EPError, match="no NVIDIA driver"):
        doctor.driver()


def test_data_that_is_there_but_not_whole(report, quick, monkeypatch, tmp_path):
    """Five of the six files, then all. (What else can be wrong with them: test_data.py.)"""
    layout = cifar.CIFAR10._replace(train=dict.fromkeys(cifar.CIFAR10.train, 3), test=dict.fromkeys(cifar.CIFAR10.test, 3))
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", layout)  # three records per file
    folder, content = tmp_path / layout.folder, bytes(3 * (1 + cifar.PIXELS))
    folder.mkdir()
    for file in layout.train:
        (folder / file).write_bytes(content)
    assert "test_batch.bin missing" in report("--data", tmp_path)[1]["CIFAR-10"][1]
    (folder / "test_batch.bin").write_bytes(content)
    assert report("--data", tmp_path)[1]["CIFAR-10"] == ("ok", f"CIFAR-10 layout, origin unverified, complete, in {folder}")


def test_mpi_that_is_missing_or_breaks(report, monkeypatch):
    """No mpi4py in the process that is asked: one line, and what to install."""
    monkeypatch.setattr(doctor.subprocess, "run", lambda command, **_: SimpleNamespace(
        returncode=1, stdout="", stderr="Traceback\nModuleNotFoundError: No module named 'mpi4py'\n"))
    code, lines, out = report()
    assert code == 0 and lines["MPI"] == ("--", "ModuleNotFoundError: No module named 'mpi4py'")
    assert "pip install 'mpi4py>=4' mpich" in out


def test_mpi_without_its_launcher(report, monkeypatch):
    """mpi4py with a library is not enough: nothing would start the ranks."""
    monkeypatch.setattr(doctor, "output", lambda *command: "MPICH 4.3")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None if name == "mpiexec" else name)
    assert report()[1]["MPI"] == ("--", "MPICH 4.3, but no mpiexec that starts processes")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    assert report()[1]["MPI"] == ("ok", "MPICH 4.3")
