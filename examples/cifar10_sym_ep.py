"""Can a deep ConvNet learn by relaxing instead of backpropagating?

    python examples/cifar10_sym_ep.py            # CIFAR-10 if it is here or can be downloaded, else embedded images

Symmetric equilibrium propagation, Laborieux et al. 2021 (arXiv:2006.03824). On two CPU cores under a minute and 99%
on the embedded images, about 7 minutes and 57% on CIFAR-10 (docs/results.md).
The run folder gets config.json, log.jsonl, curves.png, checkpoint.npz and result.json.
"""

from functools import partial

try:
    import ep
    from ep import backend, datasets, fast
    from ep.cost import COSTS
    from ep.fast import kernels
    from ep.nudging import NUDGINGS
    from ep.train import commandline as cli, loop, parallel, runs
except ImportError as error:
    raise SystemExit(f"error: the package is not installed ({error}); in the repository, run: pip install -e .") from None

# What each preset sets, per data set. An option on the command line replaces the entry of the same name.
CPU = dict(channels=[32, 64, 128, 128], scale=[6.0, 2.0, 2.0, 2.0, 2.0], schedule="checkerboard", tolerance=1e-3, beta=1.0,
           steps_free=8, steps_nudged=3, lr=[0.2, 0.03, 0.02, 0.015, 0.01], weight_decay=3e-4, batch_size=32,
           check_every=None)  # what learned most per second on held-out images: docs/results.md
PAPER = dict(channels=[128, 256, 512, 512], scale=[1.0], schedule="synchronous", tolerance=0.0, beta=1.0, steps_free=250,
             steps_nudged=25, lr=[0.25, 0.15, 0.1, 0.08, 0.05], weight_decay=3e-4, batch_size=128,
             check_every=10)  # the log says at which step the residual passed 1e-6
PRESETS = {
    ("cpu", "synthetic"): dict(CPU, epochs=3, train_images=4000, test_images=1000, final_test_images=1000, flip=False, pad=0),
    ("cpu", "cifar10"): dict(CPU, epochs=5, train_images=20000, test_images=2000, final_test_images=10000, flip=True, pad=0),
    ("paper", "cifar10"): dict(PAPER, epochs=120, anneal_epochs=100, train_images=50000, test_images=10000,
                               final_test_images=10000, flip=True, pad=4),
}
PAPER_SQUARED_ERROR = dict(beta=0.5, steps_nudged=30)  # the paper's other two numbers, for --cost squared-error
ASYMMETRIC = {"paper": dict(feedback_update="kolen-pollack", steps_nudged=30),  # what --connections asymmetric changes
              "cpu": dict(feedback_update="kolen-pollack", weight_decay=3e-3)}  # docs/results.md says why
BPTT = dict(schedule="synchronous", tolerance=0.0)  # what --algorithm bptt changes: it unrolls a fixed number of steps
DEFAULTS = dict(nudging="symmetric", algorithm="eqprop", cost="cross-entropy", connections="symmetric", feedback_update="own",
                validation_images=0, seed=0, chunk=loop.CHUNK)


def main():
    world, args = parallel.world(), options()  # the processes that mpiexec started; without it, this one alone
    xp = ep.device_module(args.device)
    world.check_same("the devices", xp.__name__, "start as many ranks as there are GPUs, or give --device; "
                     "python -m ep.doctor says what is missing")
    gpu, cores = xp.__name__ == "cupy", world.cores()  # asked on every rank, for it waits for the others
    number_of_threads = 1 if gpu else args.threads or cores  # a GPU gets its work from one thread
    config, dataset = world.in_turn(lambda: runs.stored(args) if args.resume else configured(args, xp, world.size))
    config = DEFAULTS | config  # a run of an older version had no asymmetric connections
    world.check_same("settings or images", config, "start every rank with the same command and data")
    if gpu:  # TF32 is asked for by the environment; a run keeps what it was started with
        cli.refuse_changes(dict(tf32=False) | config, dict(tf32=backend.tf32()))
    print(datasets.banner(dataset), flush=True)
    network = ep.convnet(config["channels"], cost=COSTS[config["cost"]], scale=config["scale"], seed=config["seed"])
    network = ep.CONNECTIONS[config["connections"]](network, seed=config["seed"])
    network = kernels.fused(network.to(xp))
    optimizer = ep.SGD(network, config["lr"], 0.9, config["weight_decay"], config["anneal_epochs"])
    images, labels, test_images, test_labels = dataset[:4]
    images, labels = xp.asarray(images[:config["train_images"]]), labels[:config["train_images"]]  # bytes, on a GPU too
    test_images = xp.asarray(test_images)
    relaxation = dict(schedule=config["schedule"], tolerance=config["tolerance"])
    transposed, combined = ep.FEEDBACK_UPDATES[config["feedback_update"]]
    phases = dict(steps_free=config["steps_free"], steps_nudged=config["steps_nudged"], **relaxation)

    def prepare(batch, rng):  # uint8 images -> float32 input; rng is None for test images
        if rng is not None:
            batch = datasets.augment(batch, rng, config["pad"], config["flip"])
        return datasets.normalise(batch)

    def gradient(network, x, y, rng):
        relax = partial(fast.prepared(network, map=threads), check_every=config["check_every"])
        if config["algorithm"] == "bptt":
            one_chunk = partial(ep.bptt_gradient, relax=relax, **phases)
        else:  # the nudging is drawn once for the batch: its sign may be random
            nudging = NUDGINGS[config["nudging"]](config["beta"], rng)
            one_chunk = partial(ep.eqprop_gradient, nudging=nudging, transposed=transposed, relax=relax, **phases)
        estimate = world.in_chunks(one_chunk, network, x, y, threads, config["chunk"])
        estimate.gradient = combined(estimate.gradient)
        return estimate

    with ep.worker_threads(number_of_threads) as threads:
        loop.rehearse(network, gradient, prepare, images, labels)  # bad settings end here, before anything is written
        run = runs.Run.resumed(args.resume, network, optimizer, world) if args.resume else runs.Run.started(
            args.out or runs.default_folder(config), config, network, optimizer, world)
        path = "relaxing by ep.relax with the kernels of ep/fast/kernels.py" if gpu else fast.path(network)
        print(path + (", but the nudged phases by the readable path" if transposed and not gpu else ""))
        few = prepare(images[:config["chunk"]], None)
        print(expected_time(config, network, few, threads, number_of_threads, world.size), flush=True)
        for epoch in range(run.epoch, config["epochs"]):
            run.start_epoch(loop.steps_per_epoch(len(labels), config["batch_size"]))
            ep.train_epoch(network, images, labels, gradient, optimizer, batch_size=config["batch_size"], epoch=epoch,
                           seed=config["seed"], prepare=prepare, first_step=run.step, on_step=run.on_step)
            n = config["test_images" if epoch + 1 < config["epochs"] else "final_test_images"]
            free_phase = partial(fast.prepared(network, map=threads), steps=config["steps_free"], **relaxation)
            result = ep.evaluate(network, test_images[:n], test_labels[:n], free_phase, prepare=prepare, map=world.map(threads),
                                 chunk=config["chunk"])
            world.check_parameters(network)
            run.end_epoch(*result, n)
        run.finish()


def configured(args, xp, ranks):
    """(configuration, data set) of a new run: the preset's row of the table, and what the command line replaces in it."""
    dataset = datasets.load(args.dataset or "auto", args.data, not args.no_download)
    dataset = datasets.hold_out(dataset, args.validation_images or 0)
    preset = args.preset or ("paper" if xp.__name__ == "cupy" and dataset.name == "cifar10" else "cpu")
    if (preset, dataset.name) not in PRESETS:
        raise ep.EPError(f"--preset {preset} is for CIFAR-10 and refuses the embedded images: pass --data, or use --preset cpu")
    config = DEFAULTS | cli.given(args, DEFAULTS) | PRESETS[preset, dataset.name]
    if config["cost"] == "squared-error" and preset == "paper":
        config |= PAPER_SQUARED_ERROR
    if config["connections"] == "asymmetric":
        config |= ASYMMETRIC[preset]
    if config["algorithm"] == "bptt":
        config |= BPTT
    if args.validation_images:
        config |= dict(test_images=args.validation_images, final_test_images=args.validation_images)
    if xp.__name__ == "cupy":
        config |= dict(chunk=-(-(args.batch_size or config["batch_size"]) // ranks), tf32=backend.tf32())  # one chunk per GPU
    layers = len(config["channels"]) + 1
    if args.channels and len(args.channels) + 1 != layers and not (args.scale and args.lr):
        raise ep.EPError(f"--preset {preset} has scales and learning rates for {layers - 1} convolutions and the classes: give "
                         f"--scale and --lr too, one number or one for each of {len(args.channels) + 1} layers")
    config |= cli.given(args, config)
    if args.feedback_update and config["connections"] == "symmetric":
        raise ep.EPError("--feedback-update is for feedback weights of their own: add --connections asymmetric")
    config.setdefault("anneal_epochs", config["epochs"])
    config["final_test_images"] = args.test_images or config["final_test_images"]
    runs.check_sizes(config, dataset)
    return dict(config, preset=preset, device=xp.__name__, **runs.identity(dataset)), dataset


def expected_time(config, network, x, threads, number_of_threads, ranks):
    T, K = config["steps_free"], config["steps_nudged"]
    phases = 4 if config["nudging"] == "four-point" else 2  # at beta = 0 too, as long as the free phase has not settled
    per_epoch = config["train_images"] * (T + K * phases) + config["test_images"] * T
    steps = config["epochs"] * per_epoch + config["final_test_images"] * T
    relax = partial(fast.prepared(network), schedule=config["schedule"])
    cut = len(loop.chunks(config["batch_size"], config["chunk"]))  # what ranks can share out
    seconds = steps * loop.seconds_per_step(network, x, relax, threads, number_of_threads) * -(-cut // ranks) / cut
    each = f" on each of {ranks} ranks" if ranks > 1 else ""
    idle = f"; {ranks - cut} of them idle, since a batch has {cut} chunk(s) of {config['chunk']} images" if ranks > cut else ""
    return (f"expected time: about {seconds / 60:.1f} minutes for {config['epochs']} epochs with {number_of_threads} thread(s)"
            f"{each}{idle}")


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--preset", choices=["cpu", "paper"], help="settings to start from: cpu is small and fast, paper is what the "
        "paper did (default: paper with CUDA and CIFAR-10, else cpu)")
    add("--nudging", choices=list(NUDGINGS), help="which nudged phases estimate the gradient (default: symmetric)")
    add("--algorithm", choices=["eqprop", "bptt"], help="bptt: backpropagation through the last K steps (default: eqprop)")
    add("--cost", choices=list(COSTS), help="default: cross-entropy")
    add("--connections", choices=list(ep.CONNECTIONS), help="asymmetric: feedback weights of their own (default: symmetric)")
    add("--feedback-update", choices=list(ep.FEEDBACK_UPDATES), help="how they and the forward weights learn: each "
        "from its own update, both from the sum, or each from the exact gradient (default: kolen-pollack)")
    add("--beta", type=cli.number, help="nudging strength, the largest |beta| of the points")
    add("--steps-free", type=cli.count, metavar="T", help="steps of the free phase, at most")
    add("--steps-nudged", type=cli.count, metavar="K", help="steps of each nudged phase")
    add("--schedule", choices=list(ep.dynamics.SCHEDULES), help="which layers are updated together")
    add("--tolerance", type=cli.not_negative, help="end the free phase once the residual is below this; 0: never")
    add("--channels", type=cli.count, nargs="+", metavar="C", help="channels of each convolution")
    add("--scale", type=cli.positive, nargs="+", help="factor on the paper's initial weights: one, or one per layer "
        "with the last for the classes")
    add("--lr", type=cli.positive, nargs="+", help="learning rate: one, or one per layer with the last for the classes")
    add("--weight-decay", type=cli.not_negative)
    add("--batch-size", type=cli.count)
    add("--chunk", type=cli.count, metavar="N", help="images that are relaxed together, and stop together (default: "
        f"{loop.CHUNK}; with CUDA a GPU's whole share of the batch)")
    add("--epochs", type=cli.count)
    add("--train-images", type=cli.count, metavar="N", help="use the first N training images")
    add("--test-images", type=cli.count, metavar="N", help="evaluate on the first N test images (default: some "
        "after each epoch, all after the last)")
    add("--validation-images", type=cli.count, metavar="N", help="hold out the last N training images and evaluate on "
        "them, never on test images: to choose settings")
    add("--pad", type=cli.whole, metavar="P", help="crop training images at random after padding them by P pixels")
    add("--seed", type=cli.whole, help="of initial weights, order, augmentation and signs (default: 0)")
    add("--dataset", choices=["auto", "cifar10", "synthetic"], help="auto: CIFAR-10 if possible, else synthetic (default)")
    cli.add_surroundings(add)
    return parser.parse_args()


if __name__ == "__main__":
    parallel.run(main)
