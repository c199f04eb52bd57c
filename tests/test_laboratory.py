"""The laboratory: how its trainings are run, and the scripts that have no file of tests of their own."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import ep
from ep.builders import whitening
from ep.radius import calibrate_radius

LABORATORY = Path(__file__).parents[1] / "examples" / "laboratory"
sys.path.insert(0, str(LABORATORY))
import trainings  # noqa: E402


def test_each_starts_after_what_it_needs(tmp_path):
    """Real processes: two threads are never exceeded, a failed one is told by its last words, and who needs it is left out."""
    ended = {}

    def training(name, code, *needs, threads=1):
        return trainings.Training(tmp_path / name, lambda: [sys.executable, "-c", code], partial(ended.setdefault, name),
                                  tuple(tmp_path / f"{need}.txt" for need in needs), threads)

    first = f"open({str(tmp_path / 'first.txt')!r}, 'w')"
    trainings.work([training("waits", "pass", "first", threads=9), training("first", first), training("never", "pass", "fails"),
                    training("fails", "print(1); raise SystemExit('error: no images')")], workers=2)
    assert list(ended.items())[-1] == ("waits", 0) and ended == dict(first=0, fails=1, waits=0)
    assert trainings.last_words(tmp_path / "fails") == "no images"


class Endless:
    """A process that never ends, unless it is told to."""

    started = []

    def __init__(self, command, **options):
        self.signals = []
        self.started.append(self)

    def poll(self):
        return None

    def terminate(self):
        self.signals.append(signal.SIGTERM)

    def wait(self):
        assert self.signals


def test_what_is_running_is_told_to_save(monkeypatch, tmp_path):
    """By SIGTERM; no more are started than there are workers, and the handler is the old one again."""
    monkeypatch.setattr(trainings.subprocess, "Popen", Endless)
    monkeypatch.setattr(Endless, "started", [])
    handler = signal.getsignal(signal.SIGTERM)
    many = [trainings.Training(tmp_path / str(n), lambda: [], str) for n in range(3)]
    monkeypatch.setattr(trainings.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        trainings.work(many, workers=2)
    assert [process.signals for process in Endless.started] == [[signal.SIGTERM]] * 2
    assert signal.getsignal(signal.SIGTERM) == handler


def test_an_interrupted_training_is_resumed(tmp_path):
    """With its own settings: none of its options is given again."""
    assert trainings.main_job(tmp_path, ["--beta", "1"], None)[3:7] == ["--beta", "1", "--out", tmp_path]
    (tmp_path / "checkpoint.npz").touch()
    assert trainings.main_job(tmp_path, ["--beta", "1"], "DIR")[3:7] == ["--resume", tmp_path, "--data", "DIR"]


def called(*words):
    """What a script of the laboratory, or of Python's -m, prints."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_which_side(monkeypatch, capsys, tmp_path):
    """A row for every nudging, from its trainings; a second call trains nothing. The two sides are different trainings."""
    import which_side
    monkeypatch.setattr(which_side, "IMAGES", "--images 96 --validation-images 32".split())
    monkeypatch.setattr(which_side, "TRAINING", [*which_side.TRAINING, *"--dataset synthetic --epochs 1".split()])
    monkeypatch.setattr(which_side, "SEEDS", (0,))
    monkeypatch.setattr(sys, "argv", ["which_side.py", "--out", str(tmp_path)])
    which_side.main()
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "which_side.jsonl").read_text().splitlines()]
    assert len({row["gradient_norm_1"] for row in rows}) == len(rows) == len(printed.splitlines()) - 2 == 11
    assert (tmp_path / "which_side.png").exists()
    monkeypatch.setattr(trainings, "process_of", lambda training: pytest.fail("trained again"))
    which_side.main()
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_noisy_training(monkeypatch, capsys, tmp_path):
    """A line for each device that the options choose, from trainings that differ."""
    import noisy_training
    monkeypatch.setattr(noisy_training, "ROWS", [noisy_training.ROWS[k] for k in (2, 3, 9, 11)])  # the second has another gain
    monkeypatch.setattr(sys, "argv", ["x.py", *"--channels 2 3 4 --train-images 16 --test-images 8 --epochs 1 --batch-size 8 "
                                      "--gains 1 --out".split(), str(tmp_path)])
    noisy_training.main()
    rows = [json.loads(line) for line in (tmp_path / "noisy_training.jsonl").read_text().splitlines()]
    assert len({row["smallest_cosine"] for row in rows}) == len(rows) == 3 and {row["updates"] for row in rows} == {2}
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_one_sided_states(monkeypatch, capsys, tmp_path):
    """At a large beta switches change: frozen ones are nearer to the exact gradient, and those of deviations are frozen."""
    import one_sided_states
    images = ep.datasets.load("synthetic")
    network = ep.convnet([6, 8, 8], (32, 32, 3), 10, scale=(6.0, 1.0, 1.0, 4.0), seed=3)
    calibrate_radius(network, images.normalise(images.test_images[:12]), 0.8)
    network.save(tmp_path / "net.npz")
    monkeypatch.setattr(one_sided_states, "BETAS", (1e-4, 1.0))
    monkeypatch.setattr(sys, "argv", ["x.py", str(tmp_path / "net.npz"), *"--dataset synthetic --images 12".split()])
    one_sided_states.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    small, large = ({" ".join(words[2:-3]): float(words[-3]) for words in rows if float(words[1]) == beta}
                    for beta in one_sided_states.BETAS)
    assert len(rows) == 2 * len(small) == 12
    assert small["no drift: settled first"] > 0.95 > small["states, as in training"]  # drift, divided by a small beta
    assert large["states, as in training"] < large["frozen switches"] - 0.02


@pytest.mark.slow
def test_gradient_quality(tmp_path):
    """On the network of a run, with the run's own phases: more steps are nearer to the converged gradient."""
    options = "--dataset synthetic --preset cpu --channels 4 4 4 4 --train-images 48 --test-images 32 --epochs 1"
    called("-m", "ep.train", *options.split(), "--out", tmp_path / "run")
    called(LABORATORY / "gradient_quality.py", "--run", tmp_path / "run", "--out", tmp_path, "--threads", 1,
           *"--images 20 --steps-free 3 300 --steps-nudged 2 60 --beta 0.025 0.1".split())
    found = json.loads((tmp_path / "gradient_quality.json").read_text())
    assert [(row["T"], row["K"], row["beta"]) for row in found["table"]] == [
        (T, K, beta) for T in (3, 300) for K in (2, 60) for beta in (0.025, 0.1)]
    assert [found["settings"][key] for key in ("schedule", "schedule_nudged", "nudged_phases")] == ["up", "down", "deviations"]
    assert found["table"][1]["batch"] < found["table"][6]["batch"] <= 1.0000001


def test_what_feedback_does(monkeypatch, capsys, tmp_path):
    """Noise and squares are what their names say, and a network with feedback and one without it have their accuracies."""
    import what_feedback_does as what
    images = np.full((20, 16, 16, 3), 100, np.uint8)
    images[:, :8] = 120
    assert 8 < (what.spoil(images, 10, 0).astype(float) - images).std() < 12
    assert ((what.spoil(images, 0, 4) == 110).all(3).sum((1, 2)) == 16).all() and (what.spoil(images, 0, 0) == images).all()

    synthetic = ep.datasets.load("synthetic")
    network = calibrate_radius(ep.convnet([4, 6], (32, 32, 3), 10, scale=(6.0, 1.0, 30.0), seed=3),
                               synthetic.normalise(synthetic.test_images[:4]), 0.9)
    for gain in (1.0, 0.0):
        network.feedback = gain
        network.save(tmp_path / f"{gain}.npz")
    monkeypatch.setattr(what, "SPOILT", {name: what.SPOILT[name] for name in ("clean", "square 16")})
    monkeypatch.setattr(sys, "argv", ["x.py", *(str(tmp_path / f"{gain}.npz") for gain in (1.0, 0.0)),
                                      *"--dataset synthetic --images 100 --threads 1".split()])
    what.main()
    found = [line.split()[-2:] for line in capsys.readouterr().out.splitlines()[2:]]
    assert found[0] != found[1] == found[2] == found[3] and all(0 <= float(a) <= 100 for row in found for a in row)


@pytest.mark.slow
def test_benchmark(monkeypatch, capsys, tmp_path):
    """A row for every convolution and training step of small networks, with the shares of sgemm that are drawn."""
    import benchmark
    monkeypatch.setattr(benchmark, "NETWORKS", {name: lambda: ep.convnet([4, 4, 4, 4]) for name in benchmark.NETWORKS})
    monkeypatch.setattr(benchmark, "machine", lambda args: dict(sgemm={1: 100.0}, blas="made up"))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick", "--repeat", "1", "--threads", "1", "--out", str(tmp_path)])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    names = [row["name"] for row in found["training_steps"]]
    assert len(names) == len(set(names)) == 2 * (len(benchmark.PATHS) + 1)
    assert all(0 < row["share"] < 10 for row in found["operations"] + found["training_steps"]) and len(found["operations"]) > 20
    assert (tmp_path / "benchmark.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["benchmark", "gpu_report", "gradient_quality", "paper_table", "sweep", "which_side"])
def test_every_script_starts(name):
    assert "--out" in called(LABORATORY / f"{name}.py", "--help")


def test_backpropagation_through_fixed_filters():
    """PyTorch's gradient of a feed-forward network behind filters is that of this package's backward pass."""
    pytest.importorskip("torch")
    import backpropagation
    images = ep.datasets.load("synthetic")
    x, y = images.normalise(images.test_images[:6]), images.test_labels[:6]
    network = ep.convnet([6, 8, 8], (32, 32, 3), 10, scale=(3.0, 4.0), filters=whitening(x, 4), feedback=0.0)
    exact = ep.rbp_gradient(network, x, y, ep.Phases(ep.Phase(1, "up"), ep.Phase(1, "down"))).gradient
    found = backpropagation.backpropagated(network, x, y, None).gradient
    assert max(abs(found[name] - g).max() / abs(g).max() for name, g in exact.items()) < 1e-4


# --- the race -----------------------------------------------------------------------------------------------------------------


def finished(folder, accuracies, minutes=6.0, **settings):
    """A run folder with what race.py reads, made up."""
    folder.mkdir()
    config = dict(dataset="cifar10", source="CIFAR-10 (official images)", validation_images=0, final_test_images=10000,
                  algorithm="eqprop", device="numpy", epochs=len(accuracies), extended=[],
                  seed=0, feedback=1.0, tolerance=1e-3, steps_free=60) | settings
    log = [dict(test_accuracy=accuracy, test_images=2000, seconds=60 * minutes / len(accuracies), accuracy_at_T=accuracy,
                accuracy_without_feedback=accuracy - 0.06, converged=1.0) for accuracy in accuracies]
    log[-1]["test_images"] = 10000
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(dict(epochs=len(accuracies))))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def raced(*folders):
    import race
    return [cell.strip() for cell in race.row([race.read(folder) for folder in folders]).split("|")[1:-1]]


def test_a_record_is_the_last_epoch_of_three_seeds(tmp_path):
    """Their mean, not the best epoch's; fewer seeds are no record yet; the class is that of the feedback."""
    folders = [finished(tmp_path / str(seed), [0.86, last], seed=seed) for seed, last in enumerate((0.81, 0.80, 0.80))]
    assert raced(*folders) == [
        "80%", "6.0", "", "80.3%", "", "1", "full: 100.0% settle, +6.0 points lost without feedback", "81.0, 80.0, 80.0", ""]
    assert raced(*folders[:2])[-2] == "81.0, 80.0: not yet a record"
    assert raced(finished(tmp_path / "low", [0.749]))[0] == "none: below 75%"


@pytest.mark.parametrize("settings", [dict(feedback=0.5), dict(tolerance=0.0, feedback=0.01)])
def test_weak_feedback_is_another_class(tmp_path, settings):
    assert raced(finished(tmp_path / "run", [0.8], **settings))[6].startswith("any: ")


@pytest.mark.parametrize("settings, reason", [
    (dict(validation_images=5000), "held training images out"), (dict(algorithm="bptt"), "equilibrium propagation"),
    (dict(device="cupy"), "CPU"), (dict(source="CIFAR-10 (JPEG)"), "official"), (dict(dataset="synthetic"), "CIFAR-10"),
    (dict(epochs=9), "epochs"), (dict(extended=[1]), "extended")])
def test_no_run_of_the_race(tmp_path, settings, reason):
    with pytest.raises(ep.EPError, match=reason):
        raced(finished(tmp_path / "run", [0.8], **settings))


def test_runs_that_are_no_repetitions(tmp_path):
    one, same = finished(tmp_path / "one", [0.8]), finished(tmp_path / "same", [0.8])
    with pytest.raises(ep.EPError, match="same seed"):
        raced(one, same)
    with pytest.raises(ep.EPError, match="differ in feedback"):
        raced(one, finished(tmp_path / "other", [0.8], seed=1, feedback=0.5))
    with pytest.raises(ep.EPError, match="log.jsonl is missing"):
        (one / "log.jsonl").unlink()
        raced(one)


def test_what_a_record_is_measured_by(tmp_path):
    """Mirrored: by the mean of two outputs. A step of EP is compared with one of the network's own backpropagation."""
    import race
    images = ep.datasets.load("synthetic")
    config = ep.train.experiment.resolve(images, "cpu", channels=(4, 4, 4, 4), batch_size=8, optimizer="adam")
    network, _, _ = ep.train.experiment.build(config, x=images.normalise(images.train_images[:32]))
    network.save(tmp_path / "network.npz")
    few = images._replace(test_images=images.test_images[:40], test_labels=images.test_labels[:40])
    x = images.normalise(few.test_images)
    outputs = [network.cost.output(ep.relax(network, view, ep.Phase(2, "up")).states[-1]) for view in (x, x[:, :, ::-1])]
    right = [(output.argmax(1) == few.test_labels).mean() for output in (*outputs, sum(outputs))]
    assert right[2] != right[0] and race.mirrored(tmp_path, vars(config), few, map) == pytest.approx(right[2])
    pytest.importorskip("torch")
    assert 0.1 < race.multiple(tmp_path, vars(config), images) < 100


def test_a_record_trains_what_is_missing(monkeypatch, capsys, tmp_path):
    """One training for each seed that is not finished, with the options that were given; then the row."""
    import race
    asked = []

    def train(folder, options, data, threads):
        asked.append(options)
        finished(folder, [0.8], seed=options[-1], data=str(data))
        return [sys.executable, "-c", ""]

    monkeypatch.setattr(race, "main_job", train)
    monkeypatch.setattr(race, "mirrored", lambda folder, *others: 0.8 + 0.01 * int(folder.name[-1]))
    monkeypatch.setattr(race, "multiple", lambda *others: 2.0)
    monkeypatch.setattr(race.datasets, "load", lambda name, folder, download: None)
    monkeypatch.setattr(race, "planned", lambda options, data: json.loads((tmp_path / "seed-1" / "config.json").read_text()))
    (tmp_path / "options.json").write_text(json.dumps("--preset cpu --epochs 1".split()))  # as its first call left it
    finished(tmp_path / "seed-1", [0.8], seed=1)
    monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path), *"--preset cpu --epochs 1".split()])
    race.main()
    assert asked == [["--preset", "cpu", "--epochs", "1", "--seed", seed] for seed in (0, 2)]
    assert capsys.readouterr().out.startswith("| 80% | 6.0 | 2.0 | 80.0% | 81.0% | 1 | full")
    for options, said in (("--preset cpu --epochs 2", "runs with other options"), ("--seed 4", "leave that out")):
        monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path), *options.split()])
        with pytest.raises(ep.EPError, match=said):
            race.main()


def test_what_cannot_be_a_record_is_not_trained(monkeypatch, tmp_path):
    """It is refused before the first training, by the settings that the options lead to."""
    import race
    images, blank = ep.datasets.load("synthetic"), np.zeros((50_000, 2, 2, 3), dtype=np.uint8)
    official = images._replace(name="cifar10", source="CIFAR-10 (official images)", train_images=blank,
                               train_labels=np.arange(50_000) % 10, test_images=blank[:10_000],
                               test_labels=np.arange(10_000) % 10)
    for options, dataset, said in (("--algorithm bptt", official, "not by equilibrium"), ("", images, "not of all 10,000"),
                                   ("--validation-images 50 --train-images 9", official, "not of all 10,000"),
                                   ("--beta", official, "--beta")):
        monkeypatch.setattr(race.datasets, "load", lambda *places, dataset=dataset: dataset)
        monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path / "new"), "--preset", "cpu", *options.split()])
        with pytest.raises(ep.EPError, match=said):
            race.main()
    assert not (tmp_path / "new").exists()


# --- the screen ---------------------------------------------------------------------------------------------------------------


def test_alternating_flips_and_smoothed_targets():
    """Every image is mirrored in just one of two epochs; targets still add up to 1, and the label's is the largest."""
    import screen
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
    views = [screen.alternating(images, 3, epoch) for epoch in range(3)]
    mirrored = [(view == images[:, :, ::-1]).all((1, 2, 3)) for view in views]
    assert (mirrored[0] != mirrored[1]).all() and (views[0] == views[2]).all() and 5 < mirrored[0].sum() < 35
    targets = screen.smoothed(np.array([1, 0, 2]), 4)
    np.testing.assert_allclose(targets[0], [0.025, 0.925, 0.025, 0.025], rtol=1e-6)
    assert targets.sum(1) == pytest.approx([1, 1, 1])


def test_the_table_pairs_seeds():
    """With those of the base that has the same seed; where it has none, the difference is left out."""
    import screen
    rows = [dict(variant=name, seed=seed, accuracy=a, cpu_seconds=9) for name, seed, a in (
        ("preset", 0, 0.50), ("preset", 1, 0.60), ("cosine", 0, 0.53), ("cosine", 1, 0.62), ("cosine", 2, 0.9))]
    assert screen.table(rows).splitlines()[3] == "| cosine | preset | 68.3 (3) | +2.5 | +3.0, +2.0 | 9 |"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preset", "average", "relu6", "cutout", "cosine", "momentum 0.9", "smoothing",
                                  "alternating flips", "backpropagation"])
def test_a_variant_trains(name):
    """On a few images; each by another training than its base."""
    if "backpropagation" in name:
        pytest.importorskip("torch")
    import screen
    images = ep.datasets.hold_out(ep.datasets.load("synthetic"), 40)._replace(name="cifar10")  # whose recipe it is
    few = dict(train_images=96, validation_images=40, epochs=1, batch_size=16, channels=(8, 8, 8, 8), warm_up=0)
    losses = [screen.trained(variant._replace(settings=dict(variant.settings, **few)), 0, images, map)["loss"]
              for variant in (screen.VARIANTS[name], screen.VARIANTS[screen.VARIANTS[name].base or "adam"])]
    assert losses[0] != losses[1] and all(map(np.isfinite, losses))
