"""What does a GPU do with this code? One command answers everything, in about 15 minutes on an H100.

    python examples/laboratory/gpu_report.py --data DIR                 # every part that is not finished yet
    python examples/laboratory/gpu_report.py --data DIR --parts steps   # one part
    python examples/laboratory/gpu_report.py --only-draw                # report.md and report.png from what is finished

Each part runs in a process of its own, within a time limit, and leaves PART.json in the output folder (default runs/gpu_report).
A part of this GPU that is there is not repeated, so the report can be interrupted and continued. --quick takes a tiny network.

    doctor      python -m ep.doctor
    rates       what this GPU's memory and its products of matrices reach, in float32 and TF32
    passes      each kernel and product of one sweep: milliseconds, FLOP/s, bytes/s
    steps       training steps: with a weak feedback gain, by launches and as a recorded graph, and the paper's own
    torch       PyTorch on the same GPU: the paper's step by autograd, and backpropagation
    agreement   the gradient of this GPU, in float32 and TF32, beside a CPU's in float64
    memory      device memory of a training step
    epochs      the paper's network with a weak gain, trained for --epochs, the paper's 120
    paper       200 steps of the paper's own experiment, and the time of an epoch by extrapolation
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ep
from ep import datasets, engine
from ep.backend import device_module, tf32, to_host
from ep.engine import kernels
from ep.engine.blas import direct, matmul
from ep.engine.graph import Recorded
from ep.train import commandline as cli, runs
from ep.train.equilibrium import cosines
from ep.train.step import merged, part, recorded

ROOT = Path(__file__).resolve().parents[2]
GAIN, BETA = 0.005, 0.1
SETTLED = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)  # the phases of --preset cpu
PAPER = ep.Phases(ep.Phase(250, check_every=10), ep.Phase(25, check_every=10), deviations=False)
OPTIONS = ("--preset cpu --optimizer adam --whitening 0 --feedback 0.005 --lr 3e-3 9e-3 --weight-decay 0.05 --warm-up 300 "
           "--pad 4 --batch-size 128")


def main(arguments=None):
    args = options(arguments)
    if args.child:
        print(json.dumps(PARTS[args.child](args)))
        return
    gpu, failed = None if args.only_draw else versions()["gpu"], []  # without a GPU it ends here, and nothing is written
    args.out.mkdir(parents=True, exist_ok=True)
    for name in [] if args.only_draw else args.parts or PARTS:
        for suffix, precision in (("", "0"), ("-tf32", "1")) if name in TWICE else (("", args.tf32),):
            if not run_part(args, name + suffix, name, precision, gpu):
                failed.append(name + suffix)
    draw(args.out)
    if failed:
        raise ep.EPError(f"{', '.join(failed)}: failed, and tried again by the same command", exit_code=1)


def run_part(args, name, part, precision, gpu):
    """Whether PART.json is there, made by a process of its own with CUPY_TF32 = precision unless it is there and of this GPU.

    A failure is kept as PART.failed.txt.
    """
    target = args.out / f"{name}.json"
    if target.exists() and json.loads(target.read_text(encoding="utf-8")).get("gpu") == gpu:
        return True
    command = [sys.executable, __file__, "--child", part, "--out", str(args.out), "--epochs", str(args.epochs),
               *(["--data", str(args.data)] if args.data else []), *(["--quick"] if args.quick else [])]
    start, environment = time.time(), {**os.environ, "CUPY_TF32": precision}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600 if part == "epochs" else 240)
        result = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else None
        failure = done.stderr
    except subprocess.TimeoutExpired as error:
        result, failure = None, f"not finished after {error.timeout:.0f} s"
    if result is None:
        runs.write_text(args.out / f"{name}.failed.txt", failure)
        print(f"{name}: failed, see {name}.failed.txt", flush=True)
        return False
    (args.out / f"{name}.failed.txt").unlink(missing_ok=True)
    result |= dict(gpu=gpu, tf32=precision == "1", seconds_for_this_part=time.time() - start)
    runs.write_text(target, json.dumps(result, indent=1) + "\n")
    print(f"{name}: {time.time() - start:.0f} s", flush=True)
    return True


# --- the parts --------------------------------------------------------------------------------------------------------


def doctor(args):
    done = subprocess.run([sys.executable, "-m", "ep.doctor"], capture_output=True, text=True)
    return dict(text=done.stdout, versions=versions())


def versions():
    cupy = device_module("cuda")
    runtime = cupy.cuda.runtime
    return dict(gpu=runtime.getDeviceProperties(0)["name"].decode(), cupy=cupy.__version__, numpy=np.__version__,
                cuda=runtime.runtimeGetVersion(), driver=runtime.driverGetVersion(), python=sys.version.split()[0])


def rates(args):
    """TFLOP/s of a large product, TB/s of a large copy (read and written)."""
    cupy, n = device_module("cuda"), 64 if args.quick else 8192
    a, b = (cupy.asarray(np.random.default_rng(k).random((n, n), dtype="float32")) for k in (0, 1))
    block = cupy.zeros(1 << (12 if args.quick else 28), dtype="float32")
    copy = cupy.empty_like(block)
    return dict(teraflops=2e-9 * n**3 / timed(lambda: matmul(a, b), 10),
                terabytes=2e-9 * block.nbytes / timed(lambda: cupy.copyto(copy, block), 10))


def passes(args):
    """[{name, ms, GFLOP, MB}] of a sweep up, a sweep down and a product of weights, synapse by synapse."""
    cupy, rows = device_module("cuda"), []
    network, images, _ = problem(args, GAIN)

    def row(name, run, flops=0.0, arrays=()):
        ms = timed_alone(run)
        moved = sum(a.nbytes for a in arrays)
        rows.append(dict(name=name, ms=ms, GFLOP=flops / 1e9, MB=moved / 1e6, teraflops=flops / ms / 1e9,
                         terabytes=moved / ms / 1e9))

    layers = [datasets.normalise(images), *(cupy.asarray(np.random.default_rng(n).random(
        (len(images), *shape), dtype="float32")) for n, shape in enumerate(network.shapes[1:]))]
    for n, synapse in enumerate(network.synapses, start=1):
        s, post = layers[n - 1], layers[n]
        W = synapse.W.reshape(-1, synapse.W.shape[3])
        cols = kernels.im2col(s, len(synapse.W), synapse.stride, synapse.padding)
        flat, rest = cols.reshape(-1, len(W)), cols.shape[:3]
        y = matmul(flat, W).reshape(*rest, -1)
        flops, (v, switches) = 2.0 * flat.size * W.shape[1], kernels.max_pool_and_add(y, synapse.b)
        row(f"{n} im2col", lambda s=s, c=synapse: kernels.im2col(s, len(c.W), c.stride, c.padding), 0, (s, cols))
        row(f"{n} cols W", lambda flat=flat, W=W: matmul(flat, W), flops, (flat, W, y))
        row(f"{n} pool and add", lambda y=y, b=synapse.b: kernels.max_pool_and_add(y, b), 0, (y, v, switches))
        row(f"{n} update", lambda v=v, s=post: network.activation.respond([(1.0, v), (GAIN, s)]), 0, (v, v, v, v))
        shape = synapse.conv_shape
        row(f"{n} unpool", lambda v=v, sw=switches, shape=shape: kernels.max_unpool(v, sw, shape), 0, (v, switches, y))
        flat_y = y.reshape(-1, W.shape[1])
        row(f"{n} cols^T y", lambda flat=flat, y=flat_y: matmul(flat.T, y), flops, (flat, W, y))
        if n > 1:
            row(f"{n} y W^T", lambda y=flat_y, W=W: matmul(y, W.T), flops, (flat, W, y))
            row(f"{n} col2im", lambda cols=cols, c=synapse: kernels.col2im(cols, c.pre_shape[:2], c.stride, c.padding), 0,
                (s, cols))
        row(f"{n} deviation", lambda v=v, s=post: network.activation.deviate(v, s, [(1.0, v)], 10.0), 0, (v, v, v, v))
        row(f"{n} column sums", lambda v=v: kernels.column_sums(v), 0, (v,))
    return dict(rows=rows)


def steps(args):
    """Milliseconds of a training step, and the share of it that is outside the graph."""
    network, images, labels = problem(args, GAIN)
    optimizer, recorder = ep.Adam(network, (1e-5, 1e-5)), engine.Recorder()

    def step(one_part):
        x = datasets.normalise(datasets.augment(images, np.random.default_rng(0), pad=4))
        optimizer.step(merged([one_part(network, x, labels)]).gradient)

    result = dict(by_launches=timed(lambda: step(lambda *batch: part(network, settled(*batch))), 20))
    if engine.recordable(network, SETTLED):
        result["recorded"] = timed(lambda: step(partial(recorded, recorder, settled, "settled")), 50)
        [recording] = recorder.recordings.values()
        result["graph_alone"] = timed(recording.graph.launch, 50)
        result["idle"] = 1 - result["graph_alone"] / result["recorded"]  # what is outside the graph counts as idle, too
    network, images, labels = problem(args, 1.0)
    paper = ep.Phases(3, 2, deviations=False) if args.quick else PAPER
    result["paper"] = timed(lambda: ep.eqprop_gradient(network, datasets.normalise(images), labels, paper,
                                                       nudging=ep.Nudging.symmetric(1.0)), 3)
    return result


def with_torch(args):
    """Milliseconds: the paper's step by autograd of Phi, as the paper's code has it, and backpropagation, of the same batch."""
    import torch
    from pytorch_twin import FeedForward, Twin

    torch.set_default_device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32()
    torch.backends.cudnn.benchmark = True
    network, T, K = build(args, 1.0), *((3, 2) if args.quick else (250, 25))
    x = torch.tensor(np.random.default_rng(0).random((batch(args), 3, 32, 32), dtype="float32"))
    y = torch.nn.functional.one_hot(torch.arange(len(x)) % 10, 10).float()
    twin, forward = Twin(network), FeedForward(network)
    adam = torch.optim.Adam(forward.theta.values(), lr=1e-5, fused=True)

    def paper_step():
        free = twin.relax(x, steps=T)
        nudged = [twin.relax(x, y, beta, steps=K, start=free) for beta in (-1.0, 1.0)]
        objective = twin.cost(free[-1], y) - sum(c * twin.phi(x, s) for c, s in zip((-0.5, 0.5), nudged))
        torch.autograd.grad(objective / len(x), list(twin.theta.values()))

    wait = torch.cuda.synchronize
    return dict(torch=torch.__version__, paper=timed(paper_step, 2, wait),
                backpropagation=timed(lambda: forward.step(x, y, adam), 50, wait))


def agreement(args):
    """Cosine, layer by layer, of this GPU's gradient with a CPU's in float64, both gains; largest difference of free states."""
    result, n = {}, 4 if args.quick else 16
    longer = ep.Phases(ep.Phase(10, "up"), ep.Phase(8, "down"), deviations=True)
    for name, gain, phases, nudging in (("settled", GAIN, SETTLED, ep.Nudging.symmetric(BETA)),
                                        ("settled, 10 and 8 sweeps", GAIN, longer, ep.Nudging.symmetric(BETA)),
                                        ("gain 1, 30 and 15 steps", 1.0, ep.Phases(30, 15, True), ep.Nudging.symmetric(0.5))):
        network, images, labels = problem(args, gain, n)
        wide = build(args, gain, dtype="float64")
        wide.set_parameters({key: to_host(w).astype("float64") for key, w in network.parameters().items()})
        x = datasets.normalise(images)
        found = ep.eqprop_gradient(network, x, labels, phases, nudging=nudging)
        expected = ep.eqprop_gradient(wide, to_host(x).astype("float64"), labels, phases, nudging=nudging)
        found.gradient = {key: to_host(g) for key, g in found.gradient.items()}
        result[name] = dict(cosines=cosines(found.gradient, expected.gradient), states=max(
            float(abs(to_host(s) - t).max()) for s, t in zip(found.free.states, expected.free.states)))
    return result


def memory(args):
    """MiB that a training step took from CuPy's pools, at most, the network and its optimizer included."""
    cupy = device_module("cuda")
    network, images, labels = problem(args, 1.0)
    optimizer = ep.SGD(network, 0.1)
    x, nudging = datasets.normalise(images), ep.Nudging.symmetric(1.0)
    optimizer.step(ep.eqprop_gradient(network, x, labels, ep.Phases(3, 2, deviations=False), nudging=nudging).gradient)
    result = dict(paper=cupy.get_default_memory_pool().total_bytes() / 2**20)
    network.feedback, recorder = GAIN, engine.Recorder()
    if engine.recordable(network, SETTLED):
        recorded(recorder, settled, "settled", network, x, labels)
    return result | dict(graph=sum(one.pool.total_bytes() for one in recorder.recordings.values()) / 2**20)


def epochs(args):
    """The main job with the paper's network and a weak gain; one that was interrupted goes on."""
    out, job = args.out / "run", [sys.executable, "-m", "ep.train", "--device", "cuda"]
    if (out / "checkpoint.npz").exists():
        command = [*job, "--resume", str(out)]
    else:
        command = [*job, *OPTIONS.split(), "--epochs", str(args.epochs), "--channels", *map(str, channels(args)),
                   "--out", str(out), *(["--data", str(args.data)] if args.data else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return dict(options=OPTIONS, channels=channels(args), epochs=len(log), log=log)


def paper(args):
    """Steps of the paper's own experiment: milliseconds each, and hours of 120 epochs of 391 of them, without the evaluations."""
    network, images, labels = problem(args, 1.0)
    optimizer, number = ep.SGD(network, 0.01, weight_decay=3e-4), 2 if args.quick else 200
    phases, losses, start = ep.Phases(3, 2, deviations=False) if args.quick else PAPER, [], time.perf_counter()
    for step in range(number):
        x = datasets.normalise(datasets.augment(images, np.random.default_rng(step), pad=4))
        estimate = ep.papers_gradient(network, x, labels, phases, nudging=ep.Nudging.symmetric(1.0))
        optimizer.step(estimate.gradient)
        losses.append(estimate.loss)
    ms = 1e3 * (time.perf_counter() - start) / number
    return dict(steps=number, ms=ms, extrapolated_hours=ms * 391 * 120 / 3.6e6, first_loss=losses[0], last_loss=losses[-1],
                residual=estimate.free.residual)


PARTS = dict(doctor=doctor, rates=rates, passes=passes, steps=steps, torch=with_torch, agreement=agreement,
             memory=memory, epochs=epochs, paper=paper)
TWICE = ("rates", "passes", "steps", "torch", "agreement")  # in float32 and with TF32


# --- what they share --------------------------------------------------------------------------------------------------


def channels(args):
    return [4, 8] if args.quick else [128, 256, 512, 512]


def batch(args):
    return 4 if args.quick else 128


def build(args, gain, **options):
    """The network, on the host."""
    return ep.convnet(channels(args), feedback=gain, paddings=[1, 1] if args.quick else None, **options)


def problem(args, gain, images=None):
    """(network on the GPU's synapses, a batch of random images there, labels)."""
    cupy, rng = device_module("cuda"), np.random.default_rng(0)
    network = engine.prepared(build(args, gain).to(cupy))
    images = rng.integers(0, 256, (images or batch(args), 32, 32, 3), dtype=np.uint8)
    return network, cupy.asarray(images), rng.integers(0, 10, len(images))


def settled(network, x, y):
    """The `Estimate` of a training step as --preset cpu makes it."""
    return ep.eqprop_gradient(network, x, y, SETTLED, nudging=ep.Nudging.symmetric(BETA))


def timed(run, times, wait=None):
    """Milliseconds of run(), the mean over so many in a row, after two that do not count."""
    if wait is None:
        wait = device_module("cuda").cuda.Device().synchronize
    run()
    run()
    wait()
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return 1e3 * (time.perf_counter() - start) / times


def timed_alone(run):
    """Milliseconds of run() on the GPU: 20 of them as a graph, without the host (where nothing can be recorded: by launches)."""
    cupy = device_module("cuda")
    if direct(cupy) is None:
        return timed(run, 20)
    recorded = Recorded(lambda _: [run() for _ in range(20)], cupy.zeros(1))  # it owns the memory of the graph
    return timed(recorded.graph.launch, 10) / 20


# --- the report -------------------------------------------------------------------------------------------------------


def draw(folder):
    """report.md, and report.png if there is a training."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    lines = ["# Measured on a GPU", "",
             "Written by `python examples/laboratory/gpu_report.py`; each part has its numbers in a file beside this one.", ""]
    for name in PARTS:
        for key in (name, f"{name}-tf32"):
            if key in found:
                lines += [f"## {key}", "", *table(name, found[key]), ""]
    runs.write_text(folder / "report.md", "\n".join(lines))
    if "epochs" in found:
        plot(found["epochs"]["log"], found, folder / "report.png")


def table(name, result):
    """Lines of Markdown."""
    if name == "doctor":
        versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
        return ["```", *result["text"].splitlines(), "```", "", versions]
    if name == "passes":
        return ["| pass | ms | GFLOP | MB | TFLOP/s | TB/s |", "|---|---|---|---|---|---|",
                *(f"| {r['name']} | {r['ms']:.3f} | {r['GFLOP']:.2f} | {r['MB']:.0f} | {r['teraflops']:.1f} | "
                  f"{r['terabytes']:.2f} |" for r in result["rows"])]
    if name == "epochs":
        last, minutes = result["log"][-1], np.cumsum([line["seconds"] for line in result["log"]]) / 60
        return [f"{result['epochs']} epochs in {minutes[-1]:.1f} minutes, evaluation included; test accuracy "
                f"{last['test_accuracy']:.1%} of {last['test_images']}, at T {last['accuracy_at_T']:.1%} and at the fixed point "
                f"{last['fixed_point_accuracy']:.1%} of {last['fixed_point_images']}, smallest cosine "
                f"{last['smallest_cosine']:.3f}", "", f"`python -m ep.train --device cuda {result['options']} --channels "
                f"{' '.join(map(str, result['channels']))} --epochs {result['epochs']}`"]
    return [f"- {key}: {json.dumps(value) if isinstance(value, dict) else f'{value:.4g}' if isinstance(value, float) else value}"
            for key, value in result.items() if key != "seconds_for_this_part"]


def plot(log, found, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    minutes = np.cumsum([line["seconds"] for line in log]) / 60
    left.plot(minutes, [100 * line["train_accuracy"] for line in log], label="training images")
    left.plot(minutes, [100 * line["test_accuracy"] for line in log], label="test images")
    left.set(xlabel="minutes on the GPU", ylabel="accuracy, %", title="the paper's network, feedback gain 0.005")
    left.legend()
    bars = {}
    for kind in ("", "-tf32"):
        ours, theirs = found.get(f"steps{kind}", {}), found.get(f"torch{kind}", {})
        label = "TF32" if kind else "float32"
        bars |= {f"EP, weak gain\n{label}": ours.get("recorded"),
                 f"PyTorch\nbackpropagation\n{label}": theirs.get("backpropagation")}
    bars = {name: value for name, value in bars.items() if value}
    right.bar(list(bars), list(bars.values()), color=["#0072B2", "#E69F00"] * 2)
    right.set(ylabel="ms per training step of 128 images", title="a training step")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def options(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--out", type=cli.path, metavar="DIR", help="default: runs/gpu_report; with --quick runs/gpu-quick")
    parser.add_argument("--data", type=cli.path, metavar="PATH", help="where CIFAR-10 is")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="default: all")
    parser.add_argument("--epochs", type=cli.count, default=120, help="of the training in the part epochs (default: 120)")
    parser.add_argument("--tf32", action="store_const", const="1", default="0",
                        help="let the parts memory, epochs and paper use TF32")
    parser.add_argument("--quick", action="store_true", help="a tiny network: only to see that it runs")
    parser.add_argument("--only-draw", action="store_true", help="report.md and report.png from what is finished")
    parser.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.out = args.out or ROOT / "runs" / ("gpu-quick" if args.quick else "gpu_report")
    return args


if __name__ == "__main__":
    cli.run(main)
