"""Writes the two data files of the explorable page: python docs/explore/generate.py

    data.js       what the page starts from: two tasks (synthetic points), initial weights, and weights that `ep` has trained
    cases.json    relaxations, gradients and updates computed by `ep`; ep.js has to give the same numbers (tests/test_explore.py)

Everything is float64. Points and initial weights are rounded to four decimals before anything is computed from them, so that
both languages start from the same numbers and the file stays small. Takes about five seconds.
"""

import json
from pathlib import Path

import numpy as np

import ep

HERE = Path(__file__).parent
SIZES = [2, 16, 16, 2]  # x, s_1, s_2, s_3: one output unit for each class
TARGET = 0.6  # the right output unit should be at +0.6 and the other one at -0.6: tanh reaches both without being saturated
POINTS = 200  # for training, and as many others for the test
SETTINGS = dict(gamma=1.0, beta=0.1, T=40, K=20, nudging="symmetric", schedule="sweeps", deviations=False)
SCALES = [8, 1, 1]  # of the initial weights: those of layer 1 are in no loop, and carry the scale
RATE, UPDATES = 0.01, 200  # of Adam, every update from all training points
SCHEDULES = {"synchronous": ("synchronous", "synchronous"), "checkerboard": ("checkerboard", "checkerboard"),
             "sweeps": ("up", "down")}  # of the free phase and of the nudged ones

# --- two tasks, both synthetic ----------------------------------------------------------------------------------------------


def moons(rng, n, noise=0.1):
    """Two half circles that reach into each other: points (n, 2), labels (n,)."""
    y, angle = np.arange(n) % 2, rng.uniform(0, np.pi, n)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    x = np.where(y[:, None] == 0, upper, -upper) + rng.normal(0, noise, (n, 2))
    return x / 1.7, y


def spirals(rng, n, noise=0.03, turns=1.1):
    """Two arms around the centre: points (n, 2), labels (n,)."""
    y, radius = np.arange(n) % 2, np.sqrt(rng.uniform(0.02, 1, n))
    angle = 2 * np.pi * turns * radius + np.pi * y
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, noise, (n, 2))
    return 0.92 * x, y


TASKS = {"moons": (moons, "two moons"), "spirals": (spirals, "two spirals")}


def points(task):
    """(x, y, test x, test y) of a task; the same ones at every call."""
    draw, rng = TASKS[task][0], np.random.default_rng(5)
    (x, y), (test_x, test_y) = draw(rng, POINTS), draw(rng, POINTS)
    return x.round(4), y, test_x.round(4), test_y


def targets(y):
    """Labels (N,) -> targets (N, 2): +0.6 for the right class, -0.6 for the other one."""
    return TARGET * (2.0 * np.eye(2)[y] - 1.0)


# --- what `ep` makes of them ------------------------------------------------------------------------------------------------


def initial():
    network = ep.mlp(SIZES, ep.TANH, ep.SquaredError, scale=SCALES, feedback=SETTINGS["gamma"], seed=1, dtype="float64")
    network.set_parameters({name: w.round(4) for name, w in network.parameters().items()})
    return network


def phases(settings):
    free, nudged = SCHEDULES[settings["schedule"]]
    return ep.Phases(ep.Phase(settings["T"], free), ep.Phase(settings["K"], nudged), settings["deviations"])


def nudging(settings):
    kinds = {"one-sided": ep.Nudging.one_sided, "symmetric": ep.Nudging.symmetric, "four-point": ep.Nudging.four_point}
    return kinds[settings["nudging"]](settings["beta"])


def gradient(network, x, y, settings):
    return ep.eqprop_gradient(network, x, targets(y), phases(settings), nudging=nudging(settings))


def exact(network, x, y, settings):
    """The gradient at the fixed point, by (9): nothing is nudged, and both relaxations go on until they have converged."""
    ends = ep.Phases(ep.Phase(5000, SCHEDULES[settings["schedule"]][0], tolerance=1e-12), ep.Phase(5000, "down", tolerance=1e-13))
    return ep.rbp_gradient(network, x, targets(y), ends)


def train(network, x, y, settings, updates):
    """Updates of all parameters from all points at once, in place; returns the loss before every update."""
    optimizer, losses = ep.Adam(network, RATE), []
    for _ in range(updates):
        g = gradient(network, x, y, settings)
        optimizer.step(g.gradient)
        losses.append(g.loss)
    return losses


def accuracy(network, x, y, phase):
    return float((network.predict(ep.relax(network, x, phase).states) == y).mean())


def without_feedback(network, x, y):
    """The accuracy of the same weights when nothing comes down; one sweep is then the fixed point."""
    alone = ep.mlp(SIZES, ep.TANH, ep.SquaredError, feedback=0, dtype="float64")
    alone.set_parameters(network.parameters())
    return accuracy(alone, x, y, ep.Phase(1, "up"))


def data():
    """What data.js contains."""
    tasks = {}
    for task, (_, title) in TASKS.items():
        x, y, test_x, test_y = points(task)
        network = initial()
        train(network, x, y, SETTINGS, UPDATES)
        network.set_parameters({name: w.round(6) for name, w in network.parameters().items()})
        free = ep.relax(network, test_x, phases(SETTINGS).free)
        tasks[task] = dict(title=title, x=x, y=y, test_x=test_x, test_y=test_y, trained=network.parameters(), reached=dict(
            updates=UPDATES, accuracy=accuracy(network, test_x, test_y, phases(SETTINGS).free), residual=free.residual,
            at_fixed_point=accuracy(network, test_x, test_y, ep.Phase(5000, "up", tolerance=1e-9)),
            without_feedback=without_feedback(network, test_x, test_y)))
    return dict(sizes=SIZES, target=TARGET, rate=RATE, updates=UPDATES, settings=SETTINGS,
                initial=initial().parameters(), tasks=tasks)


def cases(data):
    """What cases.json contains, computed from the numbers that the page has."""
    return dict(cases=[case(data, *of) for of in CASES], training=[training_case(data, task) for task in TASKS])


CASES = [  # task, weights, number of points, what is changed in the settings
    ("moons", "initial", 1, {}),
    ("moons", "trained", 1, {}),
    ("spirals", "trained", 3, {}),
    ("moons", "trained", 2, dict(schedule="synchronous", T=60, K=30)),
    ("spirals", "trained", 2, dict(schedule="checkerboard", gamma=0.3, T=25, K=12)),
    ("moons", "initial", 2, dict(schedule="checkerboard", T=60, K=40, nudging="four-point", beta=0.5)),
    ("spirals", "initial", 2, dict(gamma=0.02, nudging="one-sided", beta=1.0, T=2, K=1)),
    ("moons", "trained", 2, dict(gamma=0.1, nudging="four-point", beta=0.01, T=3, K=2)),
    ("moons", "trained", 2, dict(deviations=True)),
    ("spirals", "initial", 2, dict(gamma=0.05, nudging="one-sided", T=3, K=2, deviations=True)),
    ("moons", "trained", 1, dict(gamma=0.1, nudging="four-point", schedule="synchronous", T=10, K=5, deviations=True)),
    ("moons", "trained", 1, dict(T=1, K=1, schedule="synchronous", beta=0.05, deviations=True)),
]


def case(data, task, weights, n, changes):
    settings = {**SETTINGS, **changes}
    network = initial()
    network.set_parameters(data["initial"] if weights == "initial" else data["tasks"][task]["trained"])
    network.feedback = settings["gamma"]
    x, y = data["tasks"][task]["x"][:n], data["tasks"][task]["y"][:n]
    free = ep.relax(network, x, phases(settings).free)
    found, truth = gradient(network, x, y, settings), exact(network, x, y, settings)
    return dict(
        task=task, weights=weights, points=n, settings=settings, factors_of_layers=network.energy_factors,
        states=free.states, u=free.u, residual=free.residual, history=trajectory(network, x, phases(settings).free),
        energy=network.energy(x, free.states), nudging=dict(points=nudging(settings).points, weights=nudging(settings).weights),
        nudged=[phase.states for phase in found.nudged], gradient=found.gradient, loss=found.loss, correct=found.correct,
        exact=truth.gradient, fixed_point=truth.free.states, converged=truth.free.converged)


def trajectory(network, x, phase):
    """[(largest residual, mean energy) after every step of the free phase]."""
    rows = []
    for t in range(1, phase.steps + 1):
        free = ep.relax(network, x, ep.Phase(t, phase.schedule))
        rows.append((free.residual, network.energy(x, free.states).mean()))
    return rows


def training_case(data, task, updates=10):
    network, of = initial(), data["tasks"][task]
    losses = train(network, of["x"], of["y"], SETTINGS, updates)
    return dict(task=task, updates=updates, losses=losses, parameters=network.parameters(),
                accuracy=accuracy(network, of["test_x"], of["test_y"], phases(SETTINGS).free))


def as_text(content):
    return json.dumps(content, default=lambda array: array.tolist(), separators=(",", ":"))


def read(name):
    """What a committed file contains; data.js is JSON behind one assignment."""
    text = (HERE / name).read_text(encoding="utf-8")
    return json.loads(text[text.index("{"):].rstrip().rstrip(";"))


def main():
    made = json.loads(as_text(data()), object_hook=arrays)  # the numbers as the page will read them
    script = f"// Written by generate.py: do not edit.\nconst EP_DATA = {as_text(made)};\n"
    (HERE / "data.js").write_text(script, encoding="utf-8")
    (HERE / "cases.json").write_text(as_text(cases(made)) + "\n", encoding="utf-8")
    for of in made["tasks"].values():
        print(f"{of['title']}: {of['reached']}")


def arrays(pairs):
    """Lists of numbers as arrays again."""
    return {key: np.array(value) if isinstance(value, list) and key != "sizes" else value for key, value in pairs.items()}


if __name__ == "__main__":
    main()
