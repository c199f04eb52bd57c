"""The main job, end to end on a few embedded images: run folder, resuming, and one sentence for every bad input.

Its options are in test_options.py. One training is quick; every other test that trains or starts a program is marked slow.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import EXAMPLES, TINY, refused, signal_in_step, without_time

import ep
from ep import dynamics, eqprop, ops
from ep.engine.cpu import TiledConv
from ep.npz import read_npz
from ep.train import job, runs

plot_curves, slow = runs.plot_curves, pytest.mark.slow


def assert_bit_for_bit(one, other):
    """Two run folders with the same parameters, the same optimizer and the same log."""
    mine, others = (read_npz(folder / "checkpoint.npz") for folder in (one, other))
    assert all((mine[key] == others[key]).all() for key in mine if key != "meta")
    assert without_time(one / "log.jsonl") == without_time(other / "log.jsonl")


def test_run_folder(start, tmp_path):
    """Everything that the header promises is there, but for the picture, and the numbers in it agree with each other."""
    code, out, err = start(*TINY, "--out", tmp_path / "run")
    assert code == 0, err
    assert {f.name for f in (tmp_path / "run").iterdir()} == {
        ".lock", "config.json", "log.jsonl", "checkpoint.npz", "result.json", "network.npz"}
    trained = read_npz(tmp_path / "run" / "checkpoint.npz")
    for name, w in ep.load(tmp_path / "run" / "network.npz").parameters().items():
        assert np.array_equal(w, trained[f"parameter/{name}"])
    assert "SYNTHETIC DATA - THIS IS NOT CIFAR-10" in out
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    assert {"train_loss", "train_accuracy", "steps_free", "residual", "gradient_norm_readout", "stuck_4", "cosine_readout",
            "settled_images"} <= log[0].keys()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for key in ("test_accuracy", "fixed_point_accuracy", "accuracy_at_T", "smallest_cosine"):
        assert result[key] == log[1][key]
    assert result["fixed_point_images"] == 32 and result["accuracy_at_T"] == result["test_accuracy"]  # of the same images
    assert result["smallest_cosine"] > 0.3 and 0 <= result["test_accuracy"] <= 1
    assert {"source", "train_accuracy", "epochs", "nudging", "algorithm", "preset", "seed", "device"} <= result.keys()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["channels"] == [4, 4, 4, 4]


CORE = (eqprop.eqprop_gradient, dynamics.relax, dynamics.iterate, dynamics.Messages.terms, ep.SoftmaxCrossEntropy.force,
        ops.max_pool, ops.max_unpool)
RULES = {"states": (eqprop.nudged_phases, eqprop.difference_of_states, ep.Network.hebbian),
         "deviations": (dynamics.response, dynamics.deviate, ep.Network.deviation_terms, ep.Network.parameter_adjoint)}


@pytest.mark.parametrize("rule", RULES)
def test_what_one_reads_is_what_runs(start, tmp_path, rule):
    """A training on a CPU calls the very functions of the core, on the synapses of the engine."""
    ran = set()
    threading.setprofile(lambda frame, event, _: ran.add(frame.f_code) if event == "call" else None)  # of the worker thread
    try:
        code, out, err = start(*TINY, "--epochs", 1, "--nudged-phases", rule, "--out", tmp_path / "run")
    finally:
        threading.setprofile(None)
    assert code == 0, err
    ours = (*CORE, *RULES[rule], TiledConv.drive_post, TiledConv.drive_pre)
    assert not [function.__qualname__ for function in ours if function.__code__ not in ran]


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
def test_first_steps_on_a_gpu(start, tmp_path, xp):
    """--device cuda: whole batches, bytes in device memory, hand-written kernels; parameters and log are NumPy's to rounding."""
    options = "--preset cpu --channels 4 6 --scale 2 --lr 0.04 --steps-free 8 --steps-nudged 4 --epochs 1 --tolerance 0"
    options = [*TINY, *options.split()]
    runs_ = {device: tmp_path / device for device in ("cpu", "cuda")}
    for device, folder in runs_.items():
        code, out, err = start(*options, "--device", device, "--out", folder)
        assert code == 0, err
    config = json.loads((runs_["cuda"] / "config.json").read_text())
    assert (config["device"], config["chunk"], config["tf32"]) == ("cupy", 16, False)
    cpu, cuda = (read_npz(folder / "checkpoint.npz") for folder in runs_.values())
    for key in cpu:
        if key.startswith("parameter/"):
            assert abs(cuda[key] - cpu[key]).max() <= 5e-5 * abs(cpu[key]).max(), key
        elif key.startswith("optimizer/velocity/"):  # differences of states over 2 beta: rounding counts a thousandfold
            assert abs(cuda[key] - cpu[key]).max() <= 1e-2 * abs(cpu[key]).max() > 1e-4, key
    [one], [other] = (without_time(folder / "log.jsonl") for folder in runs_.values())
    assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
def test_interrupted_and_resumed_on_a_gpu(start, tmp_path, monkeypatch, xp):
    """As on a CPU, bit for bit; with CUPY_TF32 set otherwise it is refused."""
    options = [*TINY, *"--preset cpu --channels 4 6 --scale 2 --lr 0.04 --device cuda --nudging random-sign".split()]
    code, _, err = start(*options, "--out", tmp_path / "straight")
    assert code == 0, err
    signal_in_step(monkeypatch, signal.SIGTERM, at=2)
    assert start(*options, "--out", tmp_path / "stopped")[0] == 143
    monkeypatch.setenv("CUPY_TF32", "1")
    assert "tf32 (False in the run, True asked for)" in refused(start("--resume", tmp_path / "stopped", "--device", "cuda"))
    monkeypatch.delenv("CUPY_TF32")
    assert start("--resume", tmp_path / "stopped", "--device", "cuda")[0] == 0
    assert_bit_for_bit(tmp_path / "straight", tmp_path / "stopped")


@slow
@pytest.mark.parametrize("feedback_update, optimizer", [*((rule, "sgd") for rule in ep.FEEDBACK_UPDATES),
                                                        ("kolen-pollack", "adam")])
def test_asymmetric_connections(start, tmp_path, monkeypatch, feedback_update, optimizer):
    """Angles and distances of every layer with feedback are logged and drawn; Kolen-Pollack's shrinks exactly as predicted."""
    monkeypatch.setattr(runs, "plot_curves", plot_curves)
    options = ["--connections", "asymmetric", "--feedback-update", feedback_update, "--weight-decay", 0.1,
               "--optimizer", optimizer]
    code, out, err = start(*TINY, *options, "--out", tmp_path / "run")
    assert code == 0, err
    log = without_time(tmp_path / "run" / "log.jsonl")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for layer in "234":
        before, after = (line[f"distance_{layer}"] for line in log)
        as_predicted = [line[f"distance_{layer}"] == pytest.approx(line[f"decay_{layer}"], rel=1e-5) for line in log]
        assert all(as_predicted) or feedback_update != "kolen-pollack"
        assert after < before < 1 and result[f"angle_{layer}"] == log[-1][f"angle_{layer}"]
        assert f"layer {layer}: angle between W and B {log[-1][f'angle_{layer}']:.1f} degrees" in out
    assert not any(key.endswith(("_1", "_readout")) for key in log[0] if key.startswith(("angle", "distance", "decay")))
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


@slow
@pytest.mark.parametrize("stop_after, number", [(1, signal.SIGINT), (3, signal.SIGTERM), (5, signal.SIGINT)])
def test_interrupted_and_resumed_is_bit_for_bit(start, tmp_path, monkeypatch, stop_after, number):
    """A signal in the first or last step of an epoch, or in the second epoch: the resumed run ends like the straight one."""
    options = [*TINY, "--nudging", "random-sign", "--connections", "asymmetric"]
    assert start(*options, "--out", tmp_path / "straight")[0] == 0
    calls = signal_in_step(monkeypatch, number, stop_after)
    code, out, _ = start(*options, "--out", tmp_path / "stopped")
    assert code == 128 + number and len(calls) == stop_after and not (tmp_path / "stopped" / "result.json").exists()
    assert "--resume" in out
    assert start("--resume", tmp_path / "stopped", "--threads", 2)[0] == 0
    assert_bit_for_bit(tmp_path / "straight", tmp_path / "stopped")


@slow
def test_validation_images_replace_the_test_images(start, tmp_path):
    """Evaluated on images held out of the training images, after resuming too."""
    out = tmp_path / "run"
    code, printed, _ = start(*TINY, "--validation-images", 24, "--test-images", 24, "--scale", 3, 1, 2, 1, 2, "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert code == 0 and "(24 images)" in printed and "held out" in result["source"]
    assert start("--resume", out)[0] == 0


@slow
def test_a_run_is_neither_changed_nor_overwritten(start, tmp_path):
    """Other settings are named; a folder that holds a run is refused."""
    assert start(*TINY, "--out", tmp_path / "run")[0] == 0
    before = (tmp_path / "run" / "log.jsonl").read_text()
    err = refused(start("--resume", tmp_path / "run", "--beta", 0.3, "--seed", 4, "--epochs", 2))
    assert "beta (0.2 in the run, 0.3 asked for)" in err and "seed (0 in the run, 4 asked for)" in err
    assert "epochs" not in err and (tmp_path / "run" / "log.jsonl").read_text() == before
    assert "holds a run already" in refused(start(*TINY, "--out", tmp_path / "run"))


BAD = {  # one of each place where it is found; what else is refused there is that place's test
    "--beta 0": "beta must be a finite number other than 0",
    "--steps-free 0": "whole number of at least 1 and at most 2147483647, got '0'",
    "--data=": "expected a path",
    "--channels 4 4 4 4 4 4 --scale 1 --lr 0.1": "leaves nothing of a 1x1 image",
    "--train-images 5000": "has 4000",
    "--lr 0.1 0.1 0.1": "one for each of the 5 layers",
    "--preset paper": "refuses embedded synthetic images",
    "--algorithm bptt --steps-nudged 5": "BPTT goes back through 1 to T = 4 steps",
    "--algorithm bptt --schedule checkerboard": "BPTT unrolls a fixed number of synchronous steps",
    "--out /dev/null/run": "cannot write to the output folder",
    "--resume no-such-run": "No such file",
    "--dataset auto --data no-such-folder": "no-such-folder: there is no such folder or file",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_input_is_one_sentence(start, tmp_path, monkeypatch, options):
    """Exit code 2, one line on stderr that says what was wrong, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert BAD[options] in refused(start(*(() if "--resume" in options else TINY), *options.split()))
    assert list(tmp_path.iterdir()) == []


GPU_ERROR = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})


@pytest.mark.parametrize("owner, name, promised", [(job.loop, "rehearse", False), (runs, "accumulate", True)])
@pytest.mark.parametrize("error, expected, said", [
    (OSError(28, "No space left on device"), 1, "No space left on device"), (KeyboardInterrupt(), 130, "interrupted"),
    (MemoryError("8 GiB\nfor an array"), 1, "out of memory (8 GiB): use a smaller --chunk or --batch-size"),
    (GPU_ERROR("cudaErrorLaunchFailure: unspecified"), 1, "the GPU failed (cudaErrorLaunchFailure: unspecified)")])
def test_what_no_program_can_help_is_one_sentence(start, tmp_path, monkeypatch, error, expected, said, owner, name, promised):
    """Full disk, impatience, no memory, a GPU that fails: the checkpoint that was there stays, and none is promised before it."""
    monkeypatch.setattr(owner, name, Mock(side_effect=error))
    code, _, err = start(*TINY, "--out", tmp_path / "run")
    assert code == expected and said in err and err.split("error: ")[1].count("\n") == 1
    assert ("the last checkpoint is still good" in err) == promised == (tmp_path / "run" / "checkpoint.npz").exists()


@slow
def test_quiet_failures_are_said_once(start, tmp_path):
    """A rate that is far too high saturates the units: the run goes on, but says which layer cannot learn."""
    code, out, err = start(*TINY, "--optimizer", "adam", "--lr", 1000, "--out", tmp_path / "run")
    assert code == 0 and len(re.findall(r"WARNING: \d+% of the units of layer 4 sit at a bound", out + err)) == 1


@slow
def test_a_network_that_does_not_settle_is_told_so(start, tmp_path):
    """Strong feedback, large weights, few steps: accuracies part, or the gradient is another one; the run says it, once."""
    options = "--initial-radius 0 --scale 12 --steps-free 2 --steps-nudged 1".split()
    code, out, err = start(*TINY, *options, "--out", tmp_path / "run")
    assert code == 0
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert line["settled_images"] < 0.95 or line["smallest_cosine"] < 0.9
    assert "no exact gradient" in out or len(re.findall("WARNING: the gradient of layer . has a cosine of", out + err)) == 1


@slow
def test_the_programs(tmp_path):
    """python -m ep.train, from an empty folder: the network that the example trains; another recipe; mistakes in one sentence."""
    for name, program in (("package", ["-m", "ep.train"]), ("example", [EXAMPLES / "cifar10_sym_ep.py"]),
                          ("asymmetric", [EXAMPLES / "cifar10_asym_ep.py"])):
        done = subprocess.run([sys.executable, *program, *TINY, "--out", name], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "curves.png").read_bytes().startswith(b"\x89PNG")
    package, example = (read_npz(tmp_path / name / "network.npz") for name in ("package", "example"))
    assert package.keys() == example.keys() and all((package[key] == example[key]).all() for key in package)
    config = json.loads((tmp_path / "asymmetric" / "config.json").read_text())
    assert (config["connections"], config["feedback_update"], config["weight_decay"]) == ("asymmetric", "kolen-pollack", 0.3)
    done = subprocess.run([sys.executable, "-m", "ep.train", "--beta", "nan"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: argument --beta"), done.stderr


@slow
def test_uninstalled_package_is_one_sentence(tmp_path):
    """Without the package on the path, the example says how to install it."""
    code = f"import sys; sys.modules['ep'] = None; sys.argv = ['x']; exec(open({str(EXAMPLES / 'cifar10_sym_ep.py')!r}).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "pip install -e ." in done.stderr and "Traceback" not in done.stderr


@slow
def test_eqprop_by_hand_prints_what_its_header_says():
    """examples/01: imports nothing from ep, and its output is the one in its docstring."""
    source = (EXAMPLES / "01_eqprop_by_hand.py").read_text()
    assert not re.search(r"^\s*(import|from) ep", source, re.M)
    done = subprocess.run([sys.executable, EXAMPLES / "01_eqprop_by_hand.py"], capture_output=True, text=True, check=True)
    header = source.split('"""')[1].split("It prints:")[1]
    assert [line.split() for line in done.stdout.splitlines()] == [line.split() for line in header.strip().splitlines()]
