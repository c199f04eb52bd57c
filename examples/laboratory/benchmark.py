"""How fast is it here, and what of this machine's speed does it use?

    python examples/laboratory/benchmark.py            # about 2 minutes on two cores, 3 with PyTorch installed
    python examples/laboratory/benchmark.py --quick    # half a minute: fewer repetitions, no long relaxations, no PyTorch

Prints the rate of sgemm (n = 4096), of every convolution, and of whole training steps, all counted in the FLOPs that im2col
takes; seconds per image; threads, batch sizes, steps; peak memory. Where PyTorch is installed, pytorch_twin.py does in turn the
reference's training step (synchronous, T = 250, K = 25), and a training step of backpropagation to compare EP at a weak feedback
gain with; the ratios are printed. benchmark.json and benchmark.png go to --out. docs/performance.md explains the numbers.
"""

import importlib.util
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from threadpoolctl import threadpool_info, threadpool_limits

import ep
from ep import engine
from ep.engine import cpu
from ep.train import commandline as cli
from ep.train.optimizers import Adam

N = 32  # images of a batch
WEAK = 0.02  # the feedback gain at which two sweeps up and one down are enough


def phases(T, K, schedule="checkerboard", tolerance=0.0):
    """The paper's: differences of nudged states."""
    return ep.Phases(ep.Phase(T, schedule, tolerance), ep.Phase(K, schedule, tolerance), deviations=False)


REFERENCE = phases(250, 25, "synchronous")  # the published PyTorch code
SAME_REACH = phases(125, 13)  # a checkerboard step goes twice as far
CONVERGED = phases(100, 48, tolerance=1e-4)
SWEEPS = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)
NETWORKS = {
    "paper": lambda: ep.convnet(),
    "small": lambda: ep.convnet([32, 64, 128, 128], scale=1.5),
}
PATHS = {"readable": ("#999999", "ep/synapse.py"), "engine": ("#0072b2", "ep/engine/cpu.py")}  # colours of the picture


def main():
    args = options()
    if args.child:
        return CHILDREN[args.child](args)
    results = dict(machine=machine(args))
    sgemm = results["machine"]["sgemm"]
    long = () if args.quick else (scaling, memory, against_pytorch, against_backpropagation)
    for section in (operations, training_steps, *long):
        print(f"\n{section.__doc__.splitlines()[0]}", flush=True)
        results[section.__name__] = section(args, sgemm)
    write(Path(args.out), results)


def show(name, seconds, flops, sgemm):
    """Print one measurement and return it."""
    rate = flops / seconds / 1e9
    print(f"  {name:44} {seconds * 1e3:10.2f} ms  {rate:6.0f} GFLOP/s  {rate / sgemm:5.0%} of sgemm", flush=True)
    return dict(name=name, seconds=seconds, gflops=rate, share=rate / sgemm)


def best_of(repeat, run):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


# --- what is measured -------------------------------------------------------------------------------------------------


def machine(args):
    """sgemm's best rate, one thread and all of them; every share below is of the one with as many threads."""
    a, b = np.random.default_rng(0).random((2, 4096, 4096), dtype=np.float32)
    rates = {}
    for threads in {1, args.threads}:
        with threadpool_limits(threads):
            rates[threads] = 2 * 4096**3 / best_of(5, lambda: np.matmul(a, b)) / 1e9
    blas = next((pool for pool in threadpool_info() if pool["user_api"] == "blas"), {})
    kernels = f"{blas.get('internal_api')} {blas.get('version')}, {blas.get('architecture')} kernels"
    print(f"NumPy {np.__version__}, {kernels}; sgemm n = 4096: "
          + ", ".join(f"{rate:.0f} GFLOP/s with {threads} thread(s)" for threads, rate in sorted(rates.items())))
    return dict(numpy=np.__version__, blas=kernels, sgemm=rates)


def operations(args, sgemm):
    """Every convolution of a step, chunks of 16 images, one thread."""
    rows, rng = [], np.random.default_rng(0)
    with threadpool_limits(1):
        for name, make in NETWORKS.items():
            network = make()
            for k, synapse in enumerate(network.synapses[1:], start=2):
                pre, post = (rng.random((16, *shape), dtype=np.float32) for shape in (synapse.pre_shape, synapse.post_shape))
                flops = 2 * 16 * math.prod(synapse.conv_shape) * synapse.W.size
                switches = synapse.drive_post(pre)[1]
                for path in PATHS:
                    conv = cpu.exchanged(synapse) if path == "engine" else synapse
                    if path == "engine":  # as its states lie in memory
                        pre, post = (cpu.outside(cpu.inside(a).copy()) for a in (pre, post))
                    ways = dict(up=partial(conv.drive_post, pre), down=partial(conv.drive_pre, post, switches))
                    for direction, run in ways.items():
                        rows.append(show(f"{name}, synapse {k} {direction}, {path}", best_of(10, run), flops, sgemm[1]))
    return rows


def training_steps(args, sgemm):
    """One training step, 32 images: free phase, both nudged phases, gradients; to convergence, or few fixed steps."""
    rows = []
    for name in NETWORKS:
        for path in PATHS:
            fixed = phases(10, 5)
            step = Step(name, path, args.threads)
            rows.append(step.measured(f"{name}, T = 10, K = 5, {path}", fixed, sgemm, 1 if path == "readable" else args.repeat))
        rows.append(step.measured(f"{name}, until converged, {path}", CONVERGED, sgemm, args.repeat))
    return rows


def scaling(args, sgemm):
    """The paper's network: threads, batch sizes and steps."""
    rows, fixed = [], phases(20, 5)
    for threads in sorted({1, args.threads}):
        rows.append(Step("paper", "engine", threads).measured(f"{threads} thread(s), 32 images", fixed, sgemm, args.repeat))
    print(f"  ratio {rows[0]['seconds'] / rows[-1]['seconds']:.2f}, sgemm's own {sgemm[args.threads] / sgemm[1]:.2f}")
    for n in (16, 32, 64, 128):
        rows.append(Step("paper", "engine", 1, n).measured(f"1 thread, {n} images", fixed, sgemm, 2))
    for T in (25, 50, 100, 200):
        rows.append(Step("paper", "engine", args.threads).measured(f"T = {T}, K = 5", phases(T, 5), sgemm, 1))
    return rows


def memory(args, sgemm):
    """Peak memory of one training step of 32 images on the paper's network, less what the imports need."""
    return {name: megabytes(name, child(name, args)) for name in ("eqprop", "eqprop, twice the steps", "bptt")}


def megabytes(name, result):
    print(f"  {name:44} {result['megabytes']:8.0f} MB", flush=True)
    return result


def against_pytorch(args, sgemm):
    """The reference's training step by PyTorch's autograd, and where the difference comes from."""
    if importlib.util.find_spec("torch") is None:
        print("  PyTorch is not installed: left out")
        return None
    twin, step = megabytes("pytorch", child("pytorch", args)), Step("paper", "engine", args.threads)
    print(f"  PyTorch {twin['torch']}")
    print(f"  {'PyTorch, synchronous, T = 250, K = 25':44} {twin['seconds'] * 1e3:10.2f} ms", flush=True)
    ours = [step.measured(name, steps, sgemm, 1) for name, steps in (
        ("fast, the same updates", REFERENCE), ("fast, checkerboard, T = 125, K = 13", SAME_REACH),
        ("fast, until converged", CONVERGED))]
    times = [twin["seconds"], *(row["seconds"] for row in ours)]
    factors = {name: a / b for name, a, b in zip(("kernels", "schedule", "stopping"), times, times[1:])}
    factors["together"] = times[0] / times[-1]
    print("  PyTorch / fast: " + ", ".join(f"{name} {factor:.1f}" for name, factor in factors.items()))
    print(f"  PyTorch, asynchronous, T = 60, K = 20: {twin['asynchronous']:.2f} s")
    return dict(twin=twin, ours=ours, factors=factors)


def against_backpropagation(args, sgemm):
    """A training step (gradient, Adam) at a feedback gain of 0.02, T = 2 up, K = 1 down, and one of PyTorch's backpropagation."""
    if importlib.util.find_spec("torch") is None:
        print("  PyTorch is not installed: left out")
        return None
    results = child("backpropagation", args)
    for name, times in results.items():
        print(f"  {name}, one thread each, in turn; processor time per image, the best of {args.rounds}")
        for way, (seconds, ratio) in times.items():
            print(f"    {way:42} {seconds * 1e3:10.3f} ms   {ratio:.2f} of PyTorch's (median)", flush=True)
    return results


# --- how --------------------------------------------------------------------------------------------------------------


class Step:
    """One training step on random images: run it, and count its FLOPs as im2col takes them."""

    def __init__(self, name, path, threads, images=N):
        rng = np.random.default_rng(0)
        self.network, self.path, self.threads = NETWORKS[name](), path, threads
        self.x, self.y = rng.normal(size=(images, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, images)

    def run(self, map, phases, gradient=ep.eqprop_gradient):
        """The `Estimate`s of the chunks, as one update of a training run computes them."""
        network = engine.prepared(self.network, map) if self.path == "engine" else self.network  # anew, as after every update
        if gradient is ep.eqprop_gradient:
            gradient = partial(gradient, nudging=ep.Nudging.symmetric(1.0))
        estimates = []

        def one_chunk(*arguments):
            estimates.append(gradient(*arguments, phases))
            return estimates[-1]

        ep.in_chunks(one_chunk, network, self.x, self.y, map)
        return estimates

    def flops(self, estimates):
        convs = [2 * math.prod(s.conv_shape) * s.W.size for s in self.network.synapses]  # of one pass, per image
        total = 0
        for e in estimates:
            steps = e.free.steps + sum(phase.steps for phase in e.nudged)
            total += len(e.free.states[0]) * (convs[0] + 2 * steps * sum(convs[1:]) + len(e.nudged) * sum(convs))
        return total

    def measured(self, name, phases, sgemm, repeat):
        kept = []
        with ep.worker_threads(self.threads) as map:
            short = replace(phases, free=replace(phases.free, steps=1), nudged=replace(phases.nudged, steps=1))
            self.run(map, short)  # touches its memory
            seconds = best_of(repeat, lambda: kept.append(self.run(map, phases)))
        row = show(name, seconds, self.flops(kept[-1]), sgemm[self.threads])
        T = np.mean([e.free.steps for e in kept[-1]])
        K = np.mean([[phase.steps for phase in e.nudged] for e in kept[-1]])
        print(f"  {'':44} {seconds / len(self.y):10.4f} s per image; mean steps: T = {T:.1f}, K = {K:.1f}", flush=True)
        return row | dict(T=T, K=K, seconds_per_image=seconds / len(self.y), threads=self.threads, images=len(self.y))


def child(name, args):
    """Run one of CHILDREN in a process of its own, for its peak memory."""
    command = [sys.executable, __file__, "--child", name, "--threads", str(args.threads), "--rounds", str(args.rounds)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def peak():
    """Largest resident memory so far, MB. (Linux's ru_maxrss would count the parent's too.)"""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(steps, gradient, args):
    before, step = peak(), Step("paper", "engine", args.threads)
    with ep.worker_threads(args.threads) as map:
        step.run(map, phases(steps, steps // 2, "synchronous"), gradient)
    print(json.dumps(dict(megabytes=peak() - before)))


def measure_twin(args):
    import torch
    from pytorch_twin import Twin

    torch.set_num_threads(args.threads)
    before, step = peak(), Step("paper", "readable", args.threads)
    twin, nudging = Twin(step.network), ep.Nudging.symmetric(1.0)
    twin.gradient(step.x, step.y, 2, 2, nudging=nudging)
    seconds = best_of(1, lambda: twin.gradient(step.x, step.y, 250, 25, nudging=nudging))
    megabytes = peak() - before
    asynchronous = best_of(1, lambda: twin.gradient(step.x, step.y, 60, 20, nudging=nudging, schedule="checkerboard"))
    print(json.dumps(dict(torch=torch.__version__, seconds=seconds, megabytes=megabytes, asynchronous=asynchronous)))


def measure_backpropagation(args):
    """{network: {way: (processor seconds per image, the best; median ratio to PyTorch in the same round)}}"""
    results = {}
    with threadpool_limits(1):
        for name, make in {**NETWORKS, "residual, 13 layers": lambda: ep.resnet(6, (48, 96, 192))}.items():
            ways = {"PyTorch, backpropagation": backpropagation_step(make())}
            ways |= {f"EP, chunks of {chunk}": eqprop_step(make(), chunk) for chunk in (16, 32)}
            times = {way: [] for way in ways}
            for _ in range(args.rounds + 1):
                for way, step in ways.items():
                    start = time.process_time()
                    for _ in range(1 if name == "paper" else 5):
                        step()
                    times[way].append((time.process_time() - start) / (N if name == "paper" else 5 * N))
            torch = times["PyTorch, backpropagation"][1:]  # the first round touches new memory
            results[name] = {way: (min(found[1:]), float(np.median(np.divide(found[1:], torch)))) for way, found in times.items()}
    print(json.dumps(results))


def backpropagation_step(network):
    import torch
    from backpropagation import backpropagated
    from pytorch_twin import FeedForward

    torch.set_num_threads(1)
    if any(type(synapse) is ep.Identity for synapse in network.synapses):  # no chain
        optimizer, rng = Adam(network, 1e-3), np.random.default_rng(0)
        x, y = rng.random((N, 32, 32, 3), dtype=np.float32), rng.integers(0, 10, N)
        return lambda: optimizer.step(backpropagated(network, x, y, rng).gradient)
    twin = FeedForward(network)
    optimizer = torch.optim.Adam(twin.theta.values(), 1e-3)
    return partial(twin.step, torch.rand(N, 3, 32, 32), torch.randint(0, 10, (N,)), optimizer)


def eqprop_step(network, chunk):
    network.feedback, optimizer, rng = WEAK, Adam(network, 1e-3), np.random.default_rng(0)
    x, y = rng.random((N, 32, 32, 3), dtype=np.float32), rng.integers(0, 10, N)

    def step():
        gradient = partial(ep.eqprop_gradient, phases=SWEEPS, nudging=ep.Nudging.symmetric(0.2))
        optimizer.step(ep.in_chunks(gradient, engine.prepared(network), x, y, size=chunk).gradient)

    return step


CHILDREN = {
    "eqprop": partial(measure_memory, 20, ep.eqprop_gradient),
    "eqprop, twice the steps": partial(measure_memory, 40, ep.eqprop_gradient),
    "bptt": partial(measure_memory, 20, ep.bptt_gradient),
    "pytorch": measure_twin,
    "backpropagation": measure_backpropagation,
}


def write(folder, results):
    """benchmark.json, and the shares of sgemm as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=2, default=str) + "\n")
    plot(results["operations"] + results["training_steps"], results["machine"]["blas"]).savefig(folder / "benchmark.png", dpi=90)
    print(f"\nsee {folder / 'benchmark.png'} and benchmark.json")


def plot(rows, blas):
    """A panel per network; in it, a group of bars for each convolution and training step, a bar for each path."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(f"How fast are convolutions and training steps, against the machine's own matrix product?\n{blas}")
    for axes, network in zip(figure.subplots(1, 2, sharex=True), ("paper", "small")):
        groups, place, ticks = {}, 0.0, []
        for row in rows:
            name, _, what = row["name"].partition(", ")
            if name == network:
                what, _, path = what.rpartition(", ")
                groups.setdefault(what, {})[path] = row["share"]
        for shares in groups.values():
            places = [place - k for k in range(len(shares))]
            axes.barh(places, shares.values(), 0.95, color=[PATHS[path][0] for path in shares])
            ticks.append(np.mean(places))
            place = places[-1] - 1.8  # room between groups
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set(title=f"{network}'s network" if network == "paper" else network, yticks=ticks,
                 yticklabels=list(groups), xlabel="rate, in FLOPs of im2col; 1: sgemm (line)")
        axes.margins(y=0.01)
        axes.grid(axis="x", alpha=0.3)
    figure.legend([Patch(color=colour) for colour, _ in PATHS.values()], [text for _, text in PATHS.values()],
                  loc="outside lower center", ncols=2)
    return figure


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--quick", action="store_true", help="operations and short training steps only")
    parser.add_argument("--repeat", type=cli.count, default=3, help="take the best of so many (default: 3)")
    parser.add_argument("--rounds", type=cli.count, default=10, help="of PyTorch and EP in turn (default: 10)")
    parser.add_argument("--threads", type=cli.count, default=cli.cores(), help="worker threads (default: all cores)")
    parser.add_argument("--out", type=cli.path, metavar="DIR", default="runs/benchmark")
    parser.add_argument("--child", choices=list(CHILDREN), help="used by the benchmark itself, for a process of its own")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
