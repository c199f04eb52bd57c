"""The explorable page: its numbers are those of `ep`, and it works in a real browser, headless.

The browser is Chromium with its driver and selenium: apt-get install chromium chromium-driver; pip install -e '.[browser]'.
Skipped where one of them is missing (REQUIRE_BROWSER=1: a failure). EXPLORE_PAGE: another copy of docs/explore/index.html,
such as the one in the built book.
"""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ep

ROOT = Path(__file__).parents[1]
EXPLORE = ROOT / "docs" / "explore"
sys.path.insert(0, str(EXPLORE))
import generate  # noqa: E402
import generate_cifar  # noqa: E402

PAGE = Path(os.environ.get("EXPLORE_PAGE", EXPLORE / "index.html")).resolve()
CIFAR = PAGE.with_name("cifar.html")
SIZES = {"telephone": (390, 844), "desk": (1280, 900)}
DATA, CASES = generate.read("data.js"), generate.read("cases.json")
ARRAYS = json.loads(json.dumps(DATA), object_hook=generate.arrays)  # the same, with arrays for lists


# --- the files are what `ep` computes today ---------------------------------------------------------------------------------


def close(found, expected, path="", rtol=1e-9):
    """Two nested structures have the same keys, words and numbers; the numbers to rtol of the largest one beside them,
    or to the rounding of states of the order of 1, which is what a small residual consists of."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            close(found[key], expected[key], f"{path}.{key}", rtol)
    elif isinstance(expected, list) and expected and isinstance(expected[0], dict | list | str):
        assert len(found) == len(expected), path
        for k, (a, b) in enumerate(zip(found, expected)):
            close(a, b, f"{path}[{k}]", rtol)
    elif isinstance(expected, str | bool):
        assert found == expected, path
    else:
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        assert found.shape == expected.shape, path
        scale = abs(expected).max() if expected.size else 0.0
        assert abs(found - expected).max(initial=0.0) <= max(rtol * scale, 1e-14), f"{path}: {found} instead of {expected}"


def test_the_stored_cases_are_what_ep_computes():
    close(json.loads(generate.as_text(generate.cases(ARRAYS))), CASES)


def test_the_page_starts_from_what_ep_trained():
    """120 updates, so rounding has had time to grow: six decimals were kept, and five of them have to agree."""
    close(json.loads(generate.as_text(generate.data())), DATA, rtol=1e-5)


def test_the_cases_cover_every_choice_of_the_page():
    for choice, words in (("schedule", generate.SCHEDULES), ("nudging", ("one-sided", "symmetric", "four-point")),
                          ("deviations", (False, True))):
        assert {case["settings"][choice] for case in CASES["cases"]} == set(words)
    assert all(case["converged"] for case in CASES["cases"])
    norms = [np.linalg.norm(case["gradient"]["1.W"]) for case in CASES["cases"]]
    assert sum(norm > 1e-4 for norm in norms) >= len(norms) - 1 and norms[-1] == 0  # the nudge has not arrived in the last one


# --- the browser ------------------------------------------------------------------------------------------------------------


def missing(what):
    reason = f"{what}: apt-get install chromium chromium-driver, pip install -e '.[browser]'"
    pytest.fail(f"REQUIRE_BROWSER=1, but {reason}") if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium():
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        missing("selenium is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        missing("no Chromium with chromedriver was found")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except WebDriverException as error:
        missing(f"Chromium does not start ({str(error).splitlines()[0]})")
    yield browser
    browser.quit()


@pytest.fixture
def opened(chromium):
    """opened(size="desk", scheme="light") -> the browser with the page, freshly loaded; at the end: no error in its console."""

    def load(size="desk", scheme="light", page=PAGE, canvas="plane"):
        width, height = SIZES[size]
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(
            width=width, height=height, deviceScaleFactor=1, mobile=size == "telephone"))
        chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", dict(enabled=size == "telephone"))
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[dict(name="prefers-color-scheme", value=scheme)]))
        chromium.get(page.as_uri())
        wait(lambda: painted(chromium, canvas) > 20)
        return chromium

    yield load
    errors = [entry for entry in chromium.get_log("browser") if entry["source"] != "rendering"]  # that is about `painted` below
    assert not errors


def wait(condition, seconds=90):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def text(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


def painted(browser, name):
    """How many different colours a canvas has."""
    return browser.execute_script("""
        const canvas = document.getElementById(arguments[0]);
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;""", name)


def pixels(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)


def set_control(browser, name, value):
    browser.execute_script("""
        const control = document.getElementById(arguments[0]);
        control.value = arguments[1];
        control.dispatchEvent(new Event("input", { bubbles: true }));""", name, str(value))


def click(browser, css):
    browser.execute_script("document.querySelector(arguments[0]).click()", css)


def cosines(browser):
    """[[cosine, ratio of the lengths] of layers 1 to 3] as the page has them; no response at all has no cosine, None."""
    return browser.execute_script("""
        const shown = [1, 2, 3].map((n) => document.getElementById(`score-${n}`).dataset);
        return shown.map(({ cosine, ratio }) => [Number(cosine), Number(ratio)]);""")


# --- its numbers are ep's ---------------------------------------------------------------------------------------------------

NUMBERS = (ROOT / "tests" / "explore_numbers.js").read_text(encoding="utf-8")


def test_the_pages_numbers_are_those_of_ep(opened):
    """States free and nudged, deviations, energies, residuals, gradients, the exact ones, ten updates by Adam, to nine digits."""
    found = opened().execute_script(NUMBERS, CASES)
    for name in ("cases", "training"):
        for k, (mine, stored) in enumerate(zip(found[name], CASES[name], strict=True)):
            close(mine, {key: stored[key] for key in mine}, f"{name}[{k}]")
            assert mine.keys() >= stored.keys() - {"task", "weights", "points", "settings", "updates"}


# --- it works ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_loads_and_fits(opened, size, scheme):
    """Nothing is wider than the screen, every picture is painted, and the ground is bright or dark as the reader has it."""
    browser = opened(size, scheme)
    width = SIZES[size][0]
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside = browser.execute_script("""
        const wide = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5);
        return wide.map((e) => e.outerHTML.slice(0, 80));""")
    assert not outside
    heats = [f"{kind}-{n}" for kind in ("first", "last", "ep", "exact") for n in (1, 2, 3)]
    for canvas in ("plane", "network", "chart", "nudged-network", "map", "learning", *heats):
        assert painted(browser, canvas) > 3, canvas
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (np.mean([int(v) for v in re.findall(r"\d+", ground)[:3]]) > 127) == (scheme == "light")
    assert all(cosine > 0.99 for cosine, _ in cosines(browser))


POINT, LABEL = (-0.28, 0.2), 1  # where the page starts


def expected(settings, point=POINT, label=LABEL, weights=DATA["initial"]):
    """[(cosine, ratio)] of EP's gradient with the exact one, by ep, for one input."""
    found, truth = gradients(settings, point, label, weights)
    lengths = [(np.linalg.norm(found[name]), np.linalg.norm(truth[name])) for name in ("1.W", "2.W", "3.W")]
    return [(float((found[name] * truth[name]).sum() / (a * b)), a / b) for name, (a, b) in zip(("1.W", "2.W", "3.W"), lengths)]


def gradients(settings, point=POINT, label=LABEL, weights=DATA["initial"]):
    """(EP's gradient, the exact one) of one input."""
    network = generate.initial()
    network.set_parameters({name: np.array(w) for name, w in weights.items()})
    network.feedback, x, y = settings["gamma"], np.array([point]), np.array([label])
    return generate.gradient(network, x, y, settings).gradient, generate.exact(network, x, y, settings).gradient


@pytest.mark.parametrize("control,value,setting", [
    ("gamma", -0.3, 0.5), ("beta", -0.3, 0.5), ("T", 2, 2), ("K", 1, 1), ("rule", "12", True),
    *((choice, word, word) for choice, word in (
        ("nudging", "one-sided"), ("nudging", "four-point"), ("schedule", "synchronous"), ("schedule", "checkerboard")))])
def test_every_slider_changes_the_numbers_to_eps(opened, control, value, setting):
    """What the page shows after a change is what ep computes with that setting, and it is not what it was."""
    browser, settings = opened(), {**generate.SETTINGS, "K": 5}  # nudged states go on settling: with many K it matters less where
    set_control(browser, "K", settings["K"])
    before = cosines(browser)
    assert before == [pytest.approx(pair, rel=1e-8) for pair in expected(settings)]
    set_control(browser, control, value)
    after = cosines(browser)
    assert after != [pytest.approx(pair, rel=1e-5) for pair in before]
    settings["deviations" if control == "rule" else control] = setting
    reached = expected(settings)
    assert after == [pytest.approx(pair, rel=1e-7) for pair in reached]
    assert f"{reached[0][0]:.4f}" in text(browser, "score-1").replace("−", "-")


def test_the_energy_falls_and_the_residual_is_eps(opened):
    browser = opened()
    free = ep.relax(generate.initial(), np.array([POINT]), generate.phases(generate.SETTINGS).free)
    shown = browser.execute_script("return Number(document.getElementById('settled-text').dataset.residual)")
    assert shown == pytest.approx(free.residual, abs=1e-14)
    assert f"the residual is {free.residual:.0e}"[:17] in text(browser, "settled-text")
    energies = []
    for moment in range(1 + 3 * generate.SETTINGS["T"]):
        set_control(browser, "moment", moment)
        energies += [float(v.replace("−", "-")) for v in re.findall(r"Energy (−?[\d.]+)\. ", text(browser, "moment-text"))]
    assert len(energies) == 1 + 3 * generate.SETTINGS["T"] and energies[0] == 0 and energies[-1] < -5
    assert energies == sorted(energies, reverse=True)


def compared(browser):
    """(the table of the marked connection as rows of texts, which weight that is, what the page makes of it)."""
    return browser.execute_script("""
        const table = document.getElementById("compared"), { n, entry, found } = table.dataset;
        return [[...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)), `${n}.W`, Number(entry),
                Number(found)];""")


@pytest.mark.parametrize("rule,nudging", [("4", "symmetric"), ("4", "one-sided"), ("4", "four-point"), ("12", "symmetric")])
def test_the_marked_connection_compares_and_finds_its_gradient(opened, rule, nudging):
    """The states at its two ends, their products, and what follows from them by rule (4) or (12), are ep's."""
    browser, settings = opened(), {**generate.SETTINGS, "deviations": rule == "12", "nudging": nudging}
    set_control(browser, "rule", rule)
    set_control(browser, "nudging", nudging)
    seen = set()
    for _ in range(4):
        rows, name, entry, shown = compared(browser)
        found, truth = (g[name].ravel()[entry] for g in gradients(settings))
        assert shown == pytest.approx(found, rel=1e-7) and abs(found) > 1e-2
        numbers = [[float(v.replace("−", "-")) for v in row[1:] if v] for row in rows[1:]]
        assert numbers[-2:] == [[pytest.approx(found, abs=1e-4)], [pytest.approx(truth, abs=1e-4)]]
        assert all(below * above == pytest.approx(product, abs=2e-4) for below, above, product in numbers[:-2])
        assert len(numbers) == 2 + (len(generate.nudging(settings).points) if rule == "4" else 2)
        seen.add((name, entry))
        click(browser, "#another")
    assert len(seen) == 4 and len({name for name, _ in seen}) == 3
    set_control(browser, "nudged-moment", 0)
    assert compared(browser)[3] == pytest.approx(0, abs=1e-12)  # nobody has nudged yet
    browser.execute_script("""
        const map = document.getElementById("ep-2"), { left, top, width, height } = map.getBoundingClientRect();
        const at = { clientX: left + 5.5 / 16 * width, clientY: top + 3.5 / 16 * height };
        map.dispatchEvent(new MouseEvent("click", { bubbles: true, ...at }));""")
    assert compared(browser)[1:3] == ["2.W", 3 * 16 + 5]  # the square that was pressed


def test_the_presets_do_what_their_sentences_say(opened):
    browser = opened()
    start = cosines(browser)
    click(browser, "[data-preset=unsettled]")
    assert max(ratio for _, ratio in cosines(browser)) < 0.9
    click(browser, "#trained")
    assert min(cosine for cosine, _ in cosines(browser)) < 0.6
    set_control(browser, "T", 60)
    set_control(browser, "K", 40)  # as the sentence says
    assert min(cosine for cosine, _ in cosines(browser)) > 0.98
    click(browser, "#random")
    click(browser, "[data-preset=early]")
    assert cosines(browser)[0][0] is None and "no response" in text(browser, "score-1") and cosines(browser)[1][0] > 0
    set_control(browser, "K", 12)
    assert cosines(browser)[0][0] > 0.99
    click(browser, "[data-preset=large]")
    assert max(ratio for _, ratio in cosines(browser)) < 0.6
    set_control(browser, "nudging", "symmetric")
    set_control(browser, "beta", np.log10(0.2))
    symmetric = max(abs(ratio - 1) for _, ratio in cosines(browser))
    set_control(browser, "nudging", "one-sided")
    assert symmetric < 0.5 * min(abs(ratio - 1) for _, ratio in cosines(browser))
    click(browser, "[data-preset=weak]")
    assert min(cosine for cosine, _ in cosines(browser)) > 0.999
    click(browser, "[data-preset=deviations]")
    assert cosines(browser) == [pytest.approx(pair, rel=1e-7) for pair in expected({**generate.SETTINGS, "deviations": True})]
    click(browser, "[data-preset=start]")
    assert cosines(browser) == start


def test_the_buttons_play_the_phases(opened):
    browser = opened()
    for button, slider, said in (("settle", "moment", "moment-text"), ("nudge", "nudged-moment", "nudged-text")):
        at_rest, value = pixels(browser, "network" if button == "settle" else "nudged-network"), lambda s=slider: int(
            browser.execute_script("return document.getElementById(arguments[0]).value", s))
        last = value()
        click(browser, f"#{button}")
        wait(lambda v=value, end=last: v() < end, 5)
        seen = set()
        wait(lambda v=value, end=last, seen=seen, said=said: seen.add((v(), text(browser, said))) or v() == end, 15)
        assert len(seen) > 5
        assert pixels(browser, "network" if button == "settle" else "nudged-network") == at_rest


def test_keyboard(opened):
    """Arrow keys move the input and the sliders; every control can be reached with the tabulator."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    browser.execute_script("document.getElementById('plane').focus()")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT * 4, Keys.ARROW_DOWN * 2).perform()
    assert "x = (−0.08, 0.1)" in text(browser, "input-text")
    label = int(browser.execute_script("return document.querySelector('input[name=label]:checked').value"))
    assert cosines(browser) == [pytest.approx(pair, rel=1e-6) for pair in expected(generate.SETTINGS, (-0.08, 0.1), label)]
    browser.execute_script("document.getElementById('T').focus()")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert text(browser, "T-value") == "41"
    browser.execute_script("document.body.focus(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script("return document.activeElement.id"))
    assert reached >= {"gamma", "T", "beta", "K", "nudging", "schedule", "plane", "settle", "nudge", "moment", "nudged-moment",
                       "train", "rule", "another"}


def test_touch(opened):
    """On a telephone: a finger moves the input, and the sliders unfold at the bottom."""
    browser = opened("telephone")
    browser.execute_script("document.getElementById('plane').scrollIntoView({ block: 'center' })")
    left, top, side = browser.execute_script("""
        const box = document.getElementById("plane").getBoundingClientRect();
        return [box.left, box.top, box.width];""")
    at = [(left + side * share, top + side * share) for share in (0.5, 0.6, 0.75)]
    for kind, points in (("touchStart", at[:1]), ("touchMove", at[1:2]), ("touchMove", at[2:]), ("touchEnd", [])):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in points]))
    found = re.search(r"x = \((−?[\d.]+), (−?[\d.]+)\)", text(browser, "input-text")).groups()
    assert [float(v.replace("−", "-")) for v in found] == pytest.approx([0.55, -0.55], abs=0.02)
    height = "return document.getElementById('panel').getBoundingClientRect().height"
    folded = browser.execute_script(height)
    click(browser, "#panel summary")
    unfolded = wait(lambda: browser.execute_script(height) > folded and browser.execute_script(height))
    assert folded < 80 and 200 < unfolded < 0.7 * SIZES["telephone"][1]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES["telephone"][0]


@pytest.mark.parametrize("task", generate.TASKS)
def test_the_button_trains(opened, task):
    """From random weights to what Python reached; the boundary moves; the page says how far from equilibrium it is."""
    browser = opened()
    click(browser, f"input[name=task][value={task}]")
    click(browser, "#trained")
    assert "Python" in text(browser, "train-text")
    click(browser, "#random")
    assert "Random" in text(browser, "train-text")
    time.sleep(0.5)
    ground, of = pixels(browser, "map"), ARRAYS["tasks"][task]
    random = generate.accuracy(generate.initial(), of["test_x"], of["test_y"], generate.phases(generate.SETTINGS).free)
    click(browser, "#train")
    said = wait(lambda: (t := text(browser, "train-text")).startswith(f"{generate.UPDATES} updates.") and t, 180)
    at_T, at_rest, alone = (float(v) / 100 for v in re.findall(r"([\d.]+)%", said))
    reached = DATA["tasks"][task]["reached"]
    assert random < 0.85 and at_T >= 0.97 and at_rest >= 0.97
    assert abs(at_T - reached["accuracy"]) <= 0.01
    assert alone < at_rest - 0.05 and abs(alone - reached["without_feedback"]) <= 0.02  # it answers by settling
    layers = [float(v) for v in re.findall(r"\d\.\d\d(?=[,.])", said[said.index("layers 1 to 3"):])]
    assert re.search(r"largest residual [\d.·⁻⁰¹²³-⁹]+", said) and len(layers) == 3 and min(layers) > 0.9
    assert pixels(browser, "map") != ground
    click(browser, "#train")  # again, and stop it
    wait(lambda: text(browser, "train-text").startswith("Update "))
    click(browser, "#train")
    assert wait(lambda: re.match(r"(\d+) updates\.", text(browser, "train-text")))[1] != str(generate.UPDATES)


def test_a_network_of_weak_feedback_does_not_need_it(opened):
    """Section 5: trained at a weak gain with few sweeps, it answers the same when nothing comes down."""
    browser = opened()
    click(browser, "input[name=task][value=spirals]")
    click(browser, "[data-preset=weak]")
    click(browser, "#train")
    said = wait(lambda: (t := text(browser, "train-text")).startswith(f"{generate.UPDATES} updates.") and t, 180)
    at_T, at_rest, alone = (float(v) / 100 for v in re.findall(r"([\d.]+)%", said))
    assert at_T >= 0.97 and abs(alone - at_rest) <= 0.01


def test_the_book_links_to_the_page():
    assert 'href="explore/index.html"' in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for name, scripts in (("index.html", {"ep.js", "data.js", "pictures.js", "explore.js"}),
                          ("cifar.html", {"conv.js", "network.js", "pictures.js", "cifar.js"})):
        html = (EXPLORE / name).read_text(encoding="utf-8")
        own = re.findall(r'(?:href|src)="([^"#:]+)"', html)
        assert scripts | {"explore.css"} <= set(own)
        assert all((EXPLORE / path).exists() for path in own)
        assert not re.search(r'(?:src|href)="https?:', html)  # it works offline


# --- the shipped network on a picture -----------------------------------------------------------------------------------------


def test_the_network_of_the_page_is_the_shipped_one():
    """Rounded: every weight to the nearest of 255 levels. The file stays below 1 MB."""
    shipped, content = ep.load(generate_cifar.MODEL), generate.read("network.js")
    close(json.loads(generate.as_text(generate_cifar.data(shipped))), content)
    assert (EXPLORE / "network.js").stat().st_size < 1e6
    rounded = generate_cifar.dequantised(content).parameters()
    for n, layer in enumerate(content["layers"], start=1):
        assert (abs(rounded[f"{n}.W"] - shipped.parameters()[f"{n}.W"]) <= 0.501 * np.array(layer["scale"])).all()
    close(generate_cifar.case(content), json.loads((EXPLORE / "network_case.json").read_text(encoding="utf-8")))


def test_the_larger_networks_numbers_are_those_of_ep(opened):
    """Residual, probabilities and a weighted sum of every layer, after each step; and without feedback."""
    found = opened(page=CIFAR, canvas="layer-1").execute_script("""
        const network = CONV.makeNetwork(CIFAR_NETWORK), rows = [];
        const x = Float64Array.from({ length: 3072 }, (_, k) => {
          const channel = k % 3, column = Math.floor(k / 3) % 32, row = Math.floor(k / 96);
          return Math.sin(0.31 * row + channel) * Math.cos(0.23 * column - channel);
        });
        const relaxation = CONV.begin(network, x);
        const seen = (s) => ({ probabilities: CONV.probabilities(network, s),
                               sums: s.slice(1).map((layer) => layer.reduce((sum, v, k) => sum + v * Math.cos(0.1 * k), 0)) });
        for (let t = 0; t < arguments[0]; t++) {
          CONV.step(network, relaxation);
          rows.push({ residual: relaxation.residual, ...seen(relaxation.s) });
        }
        return { steps: rows, alone: seen(CONV.alone(network, relaxation)) };""", generate_cifar.STEPS)
    stored = json.loads((EXPLORE / "network_case.json").read_text(encoding="utf-8"))
    assert stored["steps"][-1]["residual"] < 0.01 < stored["steps"][0]["residual"]
    for mine, theirs in zip([*found["steps"], found["alone"]], [*stored["steps"], stored["alone"]], strict=True):
        close(mine.get("residual", 0), theirs.get("residual", 0))
        assert np.allclose(mine["probabilities"], theirs["probabilities"], rtol=1e-9, atol=1e-14)
        assert np.allclose(mine["sums"], theirs["sums"], rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_ones_own(opened, tmp_path, size):
    """A file of 32x32 pixels is taken as it is, its answer is that of the fixed point; a file that is none gets a sentence."""
    Image = pytest.importorskip("PIL.Image")
    row, column = np.mgrid[:32, :32]
    colours = np.stack([8 * row, 255 - 6 * column, 4 * (row + column)], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    browser = opened(size, page=CIFAR, canvas="layer-1")

    def settled():
        return browser.execute_script("""
            const said = document.getElementById("said").dataset;
            return said.settled === "true" && said.probabilities;""")

    ship = wait(settled)
    assert "The answer is ship " in text(browser, "said")
    browser.find_element("id", "file").send_keys(str(tmp_path / "mine.png"))
    wait(lambda: text(browser, "whose") == "mine.png")
    found = wait(lambda: (now := settled()) and now != ship and now)
    content = generate.read("network.js")
    x = ((colours / 255 - np.array(content["mean"])) / np.array(content["std"]))[None]
    network = generate_cifar.dequantised(content)
    free = ep.relax(network, x, ep.Phase(150, content["schedule"], tolerance=1e-4, omega=content["omega"]))
    probabilities = network.cost.output(free.states[-1])[0]
    assert free.converged and [float(p) for p in found.split()] == pytest.approx(probabilities, abs=1e-9)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES[size][0]
    browser.execute_script("""
        const files = new DataTransfer();
        document.getElementById("picture").toBlob((blob) => {
          files.items.add(new File([blob], "dropped.png", { type: "image/png" }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        });""")
    wait(lambda: text(browser, "whose") == "dropped.png")
    assert wait(settled).split()[0] == found.split()[0]  # the picture that was there
    browser.find_element("id", "file").send_keys(str(tmp_path / "broken.png"))
    wait(lambda: text(browser, "whose") == "broken.png could not be read as a picture: choose a JPEG or PNG file.")
