"""A run folder: what a training run leaves behind, and how it is interrupted and continued.

    config.json      every setting, resolved
    log.jsonl        one line per epoch: pandas.read_json("log.jsonl", lines=True)
    curves.png       the log as a picture, drawn anew after every epoch
    checkpoint.npz   what --resume needs
    result.json      the outcome, once the run is complete
    network.npz      the trained network alone, once the run is complete: ep.load reads it
"""

import json
import os
import signal
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import datasets, engine
from ..dynamics import relax
from ..errors import EPError
from ..radius import scale_hidden, settled_radius
from ..vectorfield import FEEDBACK_UPDATES, alignment
from . import equilibrium
from .checkpoint import another_version, read_meta, restore, save_checkpoint
from .claim import claim, new_folder, release
from .commandline import given, refuse_changes
from .curves import plot_curves
from .experiment import FEW, Config, extended, identity, phases
from .loop import evaluate, steps_per_epoch, train_epoch
from .machine import listening
from .parallel import World
from .settings import OPTIONS
from .watch import in_words, no_network, quiet_failures

SAVE_EVERY = 300.0  # seconds between checkpoints within an epoch
EARLY = 20  # the step of the first epoch after which a run that cannot work is reported
REGIME = ("fixed_point_accuracy", "fixed_point_images", "accuracy_without_feedback", "cosine_one_pass",
          "largest_cosine_feed_forward", "spectral_radius", "largest_spectral_radius")  # how recurrent the network is
LOOK = 20  # updates from one look at the radius to the next
SETTLED = 1e-6  # the log says at which step of the free phase the residual passed this


class Run:
    """One training run: counts what happens, logs it, saves it, and stops cleanly on each of `machine.SIGNALS`.

    run = Run.started(folder, config, network, optimizer)
    run.train(gradient, dataset, prepare)
    run.finish()

    `started` starts anew; raises EPError if the folder holds a run already or cannot be written. `resumed` continues one. Both
    claim the folder (claim.py) until the run is finished or stops. Signals are listened to while `train` runs.
    world: the `parallel.World` of the processes that train together; each has its `Run`, and that of rank 0 writes.
    """

    def __init__(self, folder, config, network, optimizer, world=None, meta=None, lock=None):
        self.lock = lock  # of the process that writes
        self.folder, self.config, self.network, self.optimizer = Path(folder), config, network, optimizer
        self.world = world or World()  # of which only rank 0 writes and shows its progress
        meta = meta or dict(epoch=0, step=0, totals={}, log=[], warned=[], distances={
            layer: distance for layer, (_, distance) in alignment(network.parameters()).items()})
        self.distances = meta.get("distances", {})
        self.epoch, self.step, self.totals, self.log = meta["epoch"], meta["step"], meta["totals"], meta["log"]
        self.warned, self.bar = set(meta["warned"]), None
        with self.at_work():
            self.write_log()  # on resuming: without lines that came after the checkpoint
            self.save()
            if self.world.rank == 0:
                write_text(self.folder / "config.json", json.dumps(vars(config), indent=2) + "\n")

    @classmethod
    def started(cls, folder, config, network, optimizer, world=None):
        """A new run in a new folder; folder None: in one of its own in runs/."""
        lock = None
        if world is None or world.rank == 0:
            folder, lock = prepare_folder(folder, config)
        return cls(folder or default_folder(config), config, network, optimizer, world, lock=lock)

    @classmethod
    def resumed(cls, folder, network, optimizer, world=None, config=None):
        """The run in `folder`, with parameters, optimizer, position and log as they were at its checkpoint.

        config: an extended one (see `stored`), if it is to make more epochs than it was started with.
        Raises EPError on every rank, before anything is saved, if the ranks have not read the same checkpoint.
        """
        path, world = Path(folder) / "checkpoint.npz", world or World()
        lock = claim(folder) if world.rank == 0 else None
        try:
            meta = read_meta(path)
            before = config_of(meta, path)
            restore(path, network, optimizer)
            world.check_same("epoch and step", (meta["epoch"], meta["step"]),  # and nobody saves before everyone has read
                             f"they have read different checkpoints; make sure that all machines see the same {path}")
            world.check_parameters(network)
        except EPError:
            release(lock)
            raise
        config = config or before
        if world.rank == 0 and config != before:
            for outcome in filter(Path.exists, (Path(folder) / "result.json", Path(folder) / "network.npz")):
                outcome.rename(outcome.with_stem(f"{outcome.stem}-{before.epochs}-epochs"))  # of the shorter run
            print(f"extended from {before.epochs} to {config.epochs} epochs: learning rates are annealed over "
                  f"{config.anneal_epochs} epochs")
        return cls(folder, config, network, optimizer, world, meta, lock)

    def save(self):
        """Write the checkpoint, unless its numbers are those of no network: then EPError (exit code 1)."""
        if why := no_network(self.network, *self.log[-1:]):
            raise EPError(why, exit_code=1)
        if self.world.rank == 0:
            save_checkpoint(self.folder / "checkpoint.npz", self.network, self.optimizer, dict(
                config=vars(self.config), epoch=self.epoch, step=self.step, totals=self.totals, log=self.log,
                warned=sorted(self.warned), distances=self.distances))
        self.saved_at = time.monotonic()

    # --- the epochs ---------------------------------------------------------------------------------------------------

    def train(self, gradient, dataset, prepare, map=map):
        """Every epoch that is left: train, evaluate, log, save. gradient, prepare: see loop.py. map: of `worker_threads`."""
        config, network = self.config, self.network
        self.watched = prepare(dataset.train_images[:FEW], None)
        with self.at_work():
            for epoch in range(self.epoch, config.epochs):
                self.start_epoch(steps_per_epoch(len(dataset.train_labels), config.batch_size))
                train_epoch(network, dataset.train_images, dataset.train_labels, gradient, self.optimizer, epoch=epoch,
                            batch_size=config.batch_size, seed=config.seed, prepare=prepare, first_step=self.step,
                            on_step=self.on_step)
                n = config.test_images if epoch + 1 < config.epochs else config.final_test_images
                test_images, test_labels = dataset.test_images[:n], dataset.test_labels[:n]
                shared = dict(prepare=prepare, map=self.world.map(self.interruptible(map)), chunk=config.chunk)
                result = evaluate(engine.prepared(network, map), test_images, test_labels,
                                  partial(relax, phase=phases(config).free), **shared)
                self.stop_if_asked()
                estimate = partial(gradient, rng=np.random.default_rng([config.seed, epoch]))
                distance = equilibrium.distance(network, test_images, test_labels, estimate, phases(config),
                                                combined=FEEDBACK_UPDATES[config.feedback_update][1], **shared)
                self.world.check_parameters(network)
                self.end_epoch(*result, n, distance)

    def start_epoch(self, steps):
        self.clock, self.steps = time.monotonic(), steps
        self.bar = tqdm(total=steps, initial=self.step, unit="step", dynamic_ncols=True, disable=self.world.rank > 0,
                        desc=f"epoch {self.epoch + 1}/{self.config.epochs}")

    def on_step(self, number, step):
        """Count one training step; save if it is time to, or if a signal asks to stop."""
        self.step = number + 1
        accumulate(self.totals, step, self.lap())
        if self.config.radius_limit and (self.epoch * self.steps + self.step) % LOOK == 0:  # updates of all epochs
            self.limit_radius()
        mean = averages(self.totals)
        self.bar.set_postfix_str(f"loss {mean['train_loss']:.3f}, accuracy {mean['train_accuracy']:.1%}, "
                                 f"residual {mean['residual']:.0e}", refresh=False)
        self.bar.update()
        if self.epoch == 0 and self.step == EARLY:
            self.warn(mean)
        self.stop_if_asked()
        if time.monotonic() - self.saved_at > SAVE_EVERY:
            self.save()

    def limit_radius(self):
        """Multiply the hidden weights by limit / r if r is beyond the limit. The log says how often, the screen that.

        In a chain r is then about the limit. In a network with identities it stays above: their share of r is not scaled.
        """
        r, limit = settled_radius(self.network, self.watched, engine.prepared), self.config.radius_limit
        self.totals["radius_limited"] = self.totals.get("radius_limited", 0) + (r > limit)
        if r > limit:
            scale_hidden(self.network, limit / r)
            self.warn_once("radius_limit", f"the spectral radius has reached {r:.3f}, beyond --radius-limit {limit:g}: hidden "
                           "weights are multiplied by limit / radius now, and every time; the log counts (radius_limited)")

    def end_epoch(self, test_accuracy, test_loss, test_images, distance):
        """Write the epoch's line to the log, the picture and a checkpoint. distance: see `equilibrium.distance`."""
        self.totals["seconds"] += self.lap()
        record = dict(epoch=self.epoch + 1, **averages(self.totals), test_accuracy=test_accuracy, test_loss=test_loss,
                      test_images=test_images, **distance, **self.alignment())
        self.bar.close()
        self.warn(record)
        self.log.append(record)
        self.epoch, self.step, self.totals = self.epoch + 1, 0, {}
        self.save()  # first: a log line without its checkpoint would be taken back by resuming, not repeated
        self.write_log()
        print(f"epoch {self.epoch}: train loss {record['train_loss']:.3f}, train accuracy {record['train_accuracy']:.1%}, "
              f"test accuracy {test_accuracy:.1%} ({test_images} images), {in_words(record)}, {record['seconds']:.0f} s",
              flush=True)
        for layer in self.distances:
            print(f"  layer {layer}: angle between W and B {record[f'angle_{layer}']:.1f} degrees, |W - B| at "
                  f"{record[f'distance_{layer}']:.3f} of its start (by weight decay alone {record[f'decay_{layer}']:.3f})")
        self.stop_if_asked()

    def alignment(self):
        """For each layer with feedback weights: their angle to W, |W - B| in units of its start, and what weight decay alone
        would make of it: the prediction for Kolen-Pollack."""
        record = {}
        for layer, (angle, distance) in alignment(self.network.parameters()).items():
            record[f"angle_{layer}"] = angle
            record[f"distance_{layer}"] = distance / (self.distances[layer] or 1.0)
            record[f"decay_{layer}"] = abs(self.decay(layer, self.epoch + 1))
        return record

    def decay(self, layer, epochs):
        """Of 1 by weight decay alone. An extended run was annealed otherwise until it was extended: its log knows."""
        if not self.config.extended:
            return self.optimizer.decay(layer, epochs, self.steps)
        first = self.config.extended[-1]
        since = self.optimizer.decay(layer, epochs, self.steps) / self.optimizer.decay(layer, first, self.steps)
        return self.log[first - 1][f"decay_{layer}"] * since

    def finish(self):
        """Write network.npz and result.json: the last line of the log, and what kind of run it was."""
        kept = ("dataset", "source", "preset", "feedback", "connections", "feedback_update", "nudging", "nudged_phases",
                "algorithm", "cost", "seed", "device")
        last = self.log[-1]
        result = dict({key: getattr(self.config, key) for key in kept}, epochs=self.epoch,
                      **{key: last[key] for key in ("train_accuracy", "test_accuracy", "test_images", "accuracy_at_T",
                                                    "smallest_cosine", *REGIME)},
                      seconds=sum(line["seconds"] for line in self.log),
                      **{key: last[key] for key in last if key.startswith("angle_")})
        if self.network.about is not None:  # what predict.py says of it
            self.network.about = self.network.about | dict(regime={key: last[key] for key in REGIME})
        if self.world.rank == 0:
            try:
                self.network.save(self.folder / "network.npz")
            except EPError as error:
                if error.exit_code != 2:  # not a network that no file can hold, but a failure
                    raise
                print(f"no network.npz: {error}; its parameters are in checkpoint.npz")
            write_text(self.folder / "result.json", json.dumps(result, indent=2) + "\n")
            release(self.lock)
        print(f"test accuracy {result['test_accuracy']:.1%} of {result['test_images']} images: {result['source']}; see "
              f"{self.folder / 'curves.png'}")

    def lap(self):
        """Seconds since it was called last, or since the epoch started."""
        before, self.clock = self.clock, time.monotonic()
        return self.clock - before

    def write_log(self):
        if self.world.rank > 0:
            return
        write_text(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self.log))
        if self.log:
            config, rule = self.config, f", asymmetric, {self.config.feedback_update}" if self.distances else ""
            title = f"{config.source}: {config.nudging} {config.algorithm}, {config.cost}{rule}"
            try:
                plot_curves(self.log, title, self.folder / "curves.png")
            except Exception as error:  # whatever it is: no picture is worth a run
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.warn_once("curves", f"curves.png cannot be drawn ({reason}): going on without it; log.jsonl has its numbers")

    def warn(self, mean):
        """Say once, for each kind of quiet failure, that it happens and where."""
        for kind, sentence in quiet_failures(mean, self.config):
            self.warn_once(kind, sentence)

    def warn_once(self, kind, sentence):
        if kind not in self.warned:
            self.warned.add(kind)
            tqdm.write(f"WARNING: {sentence}")

    # --- signals and errors ---------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self):
        """Signals ask the run to stop; an error gets the note that there is a checkpoint."""
        try:
            with listening(self.on_signal):
                yield
        except BaseException as error:
            if not isinstance(error, SystemExit) and (self.folder / "checkpoint.npz").exists():
                error.add_note(f"the last checkpoint is still good: --resume {self.folder}")
            release(self.lock)
            raise

    def on_signal(self, number, frame):
        if self.world.signal and number == signal.SIGINT:  # a person does not want to wait
            raise KeyboardInterrupt
        if not self.world.signal:  # batch systems send several, and SIGXCPU every second
            said = f"{signal.Signals(number).name}: saving after this step (Ctrl-C to stop at once, without saving)\n"
            with suppress(OSError):
                os.write(2, said.encode())  # `print` may be at work already, and fails when it is called within itself
        self.world.signal = self.world.signal or number

    def interruptible(self, map):
        """`map`, but a signal stops the run between two items. (Ranks stop together, after all items.)"""
        def heard(function, *items):
            for result in map(lambda *item: None if self.world.stop else function(*item), *items):
                self.stop_if_asked()
                yield result
        return map if self.world.comm else heard

    def stop_if_asked(self):
        if self.world.stop:
            self.save()
            self.bar.close()
            print(f"stopped in epoch {self.epoch + 1} after step {self.step}; continue with --resume {self.folder}")
            raise SystemExit(128 + self.world.stop)  # 130 for Ctrl-C, 143 for SIGTERM


# --- the numbers of an epoch ------------------------------------------------------------------------------------------


def accumulate(totals, step, seconds):
    """Add one training `Step` to the dictionary `totals` (sums over images or steps, and the largest residual)."""
    N, settled = step.images, [t for t, residual in step.history if residual <= SETTLED]
    sums = dict(images=N, batches=1, seconds=seconds, loss=step.loss * N, correct=step.correct,
                steps=step.steps * N, converged=step.converged * N, settled_batches=bool(settled),
                settled=settled[0] if settled else 0)
    sums |= {f"gradient_norm_{layer}": norm for layer, norm in step.norms().items()}
    sums |= {f"stuck_{layer}": share for layer, share in enumerate(step.stuck, start=1)}
    for key, value in sums.items():
        totals[key] = totals.get(key, 0) + value
    totals["residual"] = max(totals.get("residual", 0.0), step.residual)


def averages(totals):
    """The line of the log that belongs to `totals`."""
    images, batches = totals["images"], totals["batches"]
    return dict(
        train_loss=totals["loss"] / images, train_accuracy=totals["correct"] / images, seconds=totals["seconds"],
        steps_free=totals["steps"] / images, residual=totals["residual"], converged=totals["converged"] / images,
        settled_step=totals["settled"] / totals["settled_batches"] if totals["settled_batches"] else None,
        **{key: totals[key] for key in totals if key == "radius_limited"},
        **{key: totals[key] / batches for key in totals if key.startswith(("gradient_norm_", "stuck_"))})


# --- configuration ----------------------------------------------------------------------------------------------------


def stored(args):
    """(configuration, data set) of the run in args.resume: the data set it was started with, never another one.

    The number of epochs may be larger, if the run is finished: see `experiment.extended`. Raises EPError if there is no run, if
    another option on the command line differs from its configuration, or if the images do.
    """
    folder = Path(args.resume)
    if folder.is_file():
        raise EPError(f"--resume takes the folder of a run, and {folder} is a file")
    if args.out and Path(args.out).resolve() != folder.resolve():
        raise EPError(f"a run is continued in its own folder, {folder}: leave --out {args.out} out, or copy the folder to there")
    meta = read_meta(folder / "checkpoint.npz")
    config = config_of(meta, folder / "checkpoint.npz")
    if config.dataset in ("folder", "npz") and not args.data and os.path.exists(args.dataset or ""):  # it names a path then
        args.data, args.dataset = args.dataset, None
    refuse_changes(config, given(args, vars(config).keys() - {"device", "data", "epochs"}))
    epochs = args.epochs or config.epochs
    if epochs != config.epochs and meta["epoch"] < config.epochs:
        raise EPError(f"epochs ({config.epochs} in the run, {epochs} asked for): only a finished run can be extended, and this "
                      f"one has made {meta['epoch']}; resume it without --epochs first")
    config = extended(config, epochs)
    dataset = datasets.hold_out(images_of(config, args), config.validation_images)
    found = identity(dataset)
    if (found["checksum"], found["test_checksum"]) != (config.checksum, config.test_checksum):
        raise EPError(f"these are not the images and classes that {args.resume} was started with ({config.source}): pass their "
                      "folder with --data")
    return config, dataset


def config_of(meta, path):
    """The `Config` in a checkpoint. Raises EPError if it has other settings, or other words for them, than this version knows."""
    known, found = vars(Config()).keys(), meta["config"]
    if other := sorted(known ^ found.keys()):
        raise another_version(path, f"its settings differ in {', '.join(other)}")
    words = {name: option.read for name, option in OPTIONS.items() if not callable(option.read)}
    if other := [f"{name} {found[name]}" for name in words if found[name] not in words[name]]:
        raise another_version(path, f"this one does not know {', '.join(other)}")
    return Config(**found)


def images_of(config, args):
    """The data set of a run that is resumed; it is downloaded only to where the command line says that it is."""
    try:
        return datasets.load(config.dataset, args.data or config.data, bool(args.data) and not args.no_download)
    except EPError as error:
        if args.data or not config.data:
            raise
        raise EPError(f"the images of this run are not in {config.data} any more ({error}): pass their folder with --data"
                      ) from None


def default_folder(config):
    """runs/DATE-TIME-DATASET-NUDGING: a new folder for every run."""
    name = config.algorithm if config.algorithm == "bptt" else config.nudging
    return Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{config.dataset}-{name}"


# --- files ------------------------------------------------------------------------------------------------------------


def prepare_folder(folder, config):
    """(path of the run folder, the claim on it); folder None: a new one in runs/.

    Raises EPError if it holds a run, or is another's, or cannot be written. What a start has left that failed is taken over.
    """
    new, folder = folder is None, Path(folder or default_folder(config))
    try:
        folder = new_folder(folder) if new else folder
        if (folder / "checkpoint.npz").exists():
            raise EPError(f"{folder} holds a run already: continue it with --resume {folder}, or choose another --out")
        if (folder / "config.json").exists():
            raise EPError(f"{folder} holds a config.json that is none of a run: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EPError(f"cannot write to the output folder {folder} ({error.strerror}): choose another with --out") from None
    return folder, claim(folder)


def write_text(path, text):
    """Write a text file atomically."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
