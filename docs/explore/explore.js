// The page: what the sliders say is computed by ep.js and drawn by pictures.js, all of it anew at every change.

"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const { sizes, tasks, initial } = EP_DATA,
    L = sizes.length - 1,
    CLASSES = sizes[L],
    number = PICTURES.number;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  const page = {
    settings: { ...EP_DATA.settings },
    task: "moons",
    input: [-0.28, 0.2],
    label: 0,
    network: null,
    run: null,
    moment: { free: 0, nudged: 0 },
    marked: null, // { n, i, j }: the connection from unit i of layer n - 1 to unit j of layer n
    turn: 0,
    field: null,
    playing: null,
    training: null,
    learned: null,
  };

  const targets = (labels) =>
    Float64Array.from(labels.flatMap((label) => sizes.slice(0, CLASSES).map((_, k) => (k === label ? 1 : -1) * EP_DATA.target)));
  const names = Array.from({ length: L }, (_, n) => `${n + 1}.W`);

  // --- one input: free phase, nudged phases, exact gradient --------------------------------------------------------------------

  // page.run: { frames, estimate, exact, scale, ... }; a frame is what the picture shows after one group of layers was updated.
  function compute() {
    const { network, settings } = page,
      x = Float64Array.from(page.input),
      y = targets([page.label]);
    const copy = (s) => s.map((layer) => layer && layer.slice()),
      zero = sizes.map((units, n) => (n === 0 ? x : new Float64Array(units)));
    const groups = EP.SCHEDULES[EP.phasesOf(settings).free.schedule](L).length,
      frames = { free: [{ t: 0, time: 0, s: zero, group: null, E: EP.energy(network, zero)[0] }], nudged: [] };
    const passed = [[], [], [], []]; // by point: every layer after every group, states or deviations
    const { gradient, mu, free, phases, nudging } = EP.eqpropGradient(network, x, y, settings, {
      watch: (t, group, s) =>
        frames.free.push({ t, time: frames.free.length / groups, s: copy(s), group, E: EP.energy(network, s)[0] }),
      watchPoint: (k) => (t, group, layers) => passed[k].push({ t, group, layers: copy(layers) }),
    });

    // The states of the nudged phase at beta_k at one moment, 0 before the first step.
    const statesAt = (k, moment) => {
      if (moment === 0 || !passed[k].length) return free.s;
      const { layers } = passed[k][moment - 1];
      if (!settings.deviations) return layers;
      return free.s.map((layer, n) => (n === 0 ? x : layer.map((v, i) => v + layers[n][i] / EP.factor(network, n))));
    };
    const most = nudging.points.indexOf(settings.beta);
    for (let moment = 0; moment <= passed[most].length; moment++) {
      const { t, group } = moment ? passed[most][moment - 1] : { t: 0, group: null },
        points = nudging.points.map((_, k) => statesAt(k, moment)),
        turned = EP.response(network, points, nudging);
      frames.nudged.push({ t, group, points, s: points[most], mu: turned, response: minus(turned) });
    }
    const exact = EP.exactGradient(network, x, y, settings),
      answer = minus(exact.mu),
      { points } = frames.nudged[frames.nudged.length - 1];
    page.run = {
      frames,
      free,
      y,
      mu,
      nudging,
      exact,
      answer,
      estimate: gradient,
      first: EP.hebbian(network, points[0]),
      last: EP.hebbian(network, points[points.length - 1]),
      moved: free.s.map((layer, n) => (n === 0 ? 0 : Math.max(...layer.map((v, i) => Math.abs(points[most][n][i] - v))))),
      scale: Math.max(1e-9, ...answer.slice(1).map((layer) => Math.max(...layer.map(Math.abs)))),
      nudgedResidual: Math.max(...phases.map((phase) => (phase ? phase.residual : 0))),
      restingEnergy: EP.energy(network, exact.free.s)[0],
    };
    page.marked ??= strongest(2, 0);
  }

  const minus = (layers) => layers.map((layer) => layer && layer.map((v) => -v));

  // The connection between layers n - 1 and n whose exact gradient is the largest but `rank`.
  function strongest(n, rank) {
    const g = page.run.exact.gradient[`${n}.W`],
      k = [...g.keys()].sort((p, q) => Math.abs(g[q]) - Math.abs(g[p]))[rank];
    return { n, i: Math.floor(k / sizes[n]), j: k % sizes[n] };
  }

  // --- drawing -----------------------------------------------------------------------------------------------------------------

  function draw() {
    drawPlane();
    drawMoment("free");
    drawMoment("nudged");
    drawChart();
    drawGradient();
    $("summary").textContent =
      `γ ${number(page.settings.gamma)}  T ${page.settings.T}  β ${number(page.settings.beta)}  K ${page.settings.K}`;
  }

  function drawPlane() {
    const { x, y } = tasks[page.task],
      free = page.run.free,
      [a, b] = free.s[L];
    PICTURES.plane($("plane"), { field: page.field, points: x, labels: y, input: page.input });
    PICTURES.plane($("map"), { field: page.field, points: x, labels: y });
    $("input-text").textContent =
      `x = (${page.input.map(number).join(", ")}), output (${number(a)}, ${number(b)}): ` +
      `class ${"AB"[EP.predict(free.s[L], CLASSES)[0]]}.`;
  }

  const LETTERS = sizes.map((_, n) => `${"₀₁₂₃"[n]}`);
  const PICTURE = { free: ["network", "moment", "moment-text"], nudged: ["nudged-network", "nudged-moment", "nudged-text"] };

  // The network at one moment of a phase, "free" or "nudged", and what is to be said about it.
  function drawMoment(phase) {
    const { run, network, settings } = page,
      moment = page.moment[phase],
      frame = run.frames[phase][moment],
      nudged = phase === "nudged";
    const [canvas, slider, text] = PICTURE[phase],
      point = `(${page.input.map(number).join(", ")})`;
    const notes = sizes.map((units, n) =>
      n === 0 ? point : nudged && network.gamma !== 1 ? `factor w${LETTERS[n]} = ${number(EP.factor(network, n))}` : `${units} units`,
    );
    PICTURES.network($(canvas), {
      sizes,
      W: network.W,
      frame,
      lanes: nudged,
      exact: run.answer,
      scale: run.scale,
      target: nudged ? run.y : null,
      notes,
      marked: page.marked,
    });
    $(slider).max = run.frames[phase].length - 1;
    $(slider).value = moment;
    const word = settings.schedule === "sweeps" ? "Sweep" : "Step",
      of = nudged ? settings.K : settings.T,
      group = frame.group ?? [];
    const where =
      frame.t === 0
        ? nudged
          ? "Nobody has nudged yet: the states are where the free phase ended."
          : "Before the first step all states are zero."
        : `${word} ${frame.t} of ${of}: ${group.length === 1 ? `layer ${group} was` : `layers ${group.join(", ")} were`} updated.`;
    $(text).textContent = `${where} ${nudged ? moved() : `Energy ${number(frame.E)}. ${product(frame.s)}`}`;
    if (nudged) drawComparison(frame);
  }

  const digits = (v) => v.toFixed(4).replace("-", "−");
  const ends = (s, { n, i, j }) => [s[n - 1][i], s[n][j]];
  const unit = (n, k) => (n === 0 ? `input ${k + 1}` : n === L ? `output ${"AB"[k]}` : `layer ${n}, unit ${k + 1}`);

  function product(s) {
    const [below, above] = ends(s, page.marked);
    return `The marked connection multiplies ${digits(below)} and ${digits(above)}: ${digits(below * above)}.`;
  }

  // What the marked connection knows at this moment of the nudged phases, and what it makes of it: rule (4), or (12).
  function drawComparison(frame) {
    const { marked, run, network, settings } = page,
      { n, i, j } = marked,
      w = EP.factor(network, n),
      { points, weights } = run.nudging,
      cells = (...row) => `<tr>${row.map((v) => `<td>${typeof v === "number" ? digits(v) : v}</td>`).join("")}</tr>`;
    const products = frame.points.map((s) => ends(s, marked)[0] * ends(s, marked)[1]);
    let rows = points.map((beta, k) => {
      const kind = beta === 0 ? "not nudged: β = 0" : `${beta > 0 ? "pulled" : "pushed"}: β = ${number(beta)}`;
      return cells(kind, ...ends(frame.points[k], marked), products[k]);
    });
    const two = `− their difference / ${settings.nudging === "symmetric" ? "2β" : "β"}`,
      times = w === 1 ? "" : `, times w${LETTERS[n]}`;
    let rule = `${points.length === 2 ? two : "− their sum, times c<sub>k</sub>"}${times} (4)`,
      found = -weights.reduce((sum, c, k) => sum + c * w * products[k], 0);
    if (settings.deviations) {
      const [below, above] = ends(run.free.s, marked),
        up = frame.mu[n][j],
        down = n === 1 ? 0 : frame.mu[n - 1][i];
      rows = [
        cells(`s below, μ above`, below, up, below * up),
        cells(`${w === 1 && network.gamma === 1 ? "" : "γ × "}μ below, s above`, down, above, network.gamma * down * above),
      ];
      rule = "their sum (12)";
      found = below * up + network.gamma * down * above;
    }
    const entry = i * sizes[n] + j;
    $("compared").innerHTML =
      `<thead>${cells("", unit(n - 1, i), unit(n, j), "product")}</thead><tbody>${rows.join("")}</tbody>` +
      `<tfoot>${cells(rule, "", "", found)}${cells("exact gradient", "", "", run.exact.gradient[`${n}.W`][entry])}</tfoot>`;
    Object.assign($("compared").dataset, { found, entry, n });
  }

  function moved() {
    const { run, settings } = page,
      far = run.moved.slice(1).map(number);
    return (
      `After K = ${settings.K} the units of layers 1, 2, 3 have moved by ${far.join(", ")} at most, ` +
      `and the residual is ${number(run.nudgedResidual)}.`
    );
  }

  function drawChart() {
    const { run, settings } = page,
      { free, exact } = run;
    const above = run.frames.free.map(({ time, E }) => [time, E - run.restingEnergy]),
      residuals = free.history.map((r, t) => [t + 1, r]);
    const all = [...above, ...residuals].map(([, v]) => v).filter((v) => v > 0);
    const high = Math.ceil(Math.log10(Math.max(...all))),
      low = Math.min(high - 2, Math.max(-14, Math.floor(Math.log10(Math.min(...all)))));
    const level = ([time, v]) => [time, v > 0 ? (Math.log10(v) - low) / (high - low) : 0],
      middle = Math.round((low + high) / 2);
    PICTURES.curves($("chart"), {
      curves: [
        { points: above.map(level), colour: "accent" },
        { points: residuals.map(level), colour: "soft", dash: [5, 4] },
      ],
      ticks: [low, middle, high].map((power) => [
        (power - low) / (high - low),
        power === 0 ? "1" : number(10 ** power).replace("1·", ""),
      ]),
      spans: [[0, settings.T, `free phase, T = ${settings.T}`]],
      last: settings.T,
      now: run.frames.free[page.moment.free].time,
    });
    $("settled-text").dataset.residual = free.residual;
    $("settled-text").textContent = exact.free.converged
      ? `After T = ${settings.T} the residual is ${number(free.residual)}. ` +
        `At the fixed point the energy is ${number(run.restingEnergy)}.`
      : `The free phase does not converge: after ${exact.free.steps} steps its residual is still ${number(exact.free.residual)}.`;
  }

  // The matrices of heat: rows and columns as on the page; 3.W is turned so that the classes are rows.
  const shown = (n, W) =>
    n < L
      ? [W, sizes[n - 1], sizes[n]]
      : [
          Float64Array.from({ length: W.length }, (_, k) => W[(k % sizes[n - 1]) * sizes[n] + Math.floor(k / sizes[n - 1])]),
          sizes[n],
          sizes[n - 1],
        ];
  const HEATS = ["first", "last", "ep", "exact"];

  function drawGradient() {
    const { estimate, exact, free, first, last, nudging } = page.run,
      { points } = nudging;
    names.forEach((name, k) => {
      const n = k + 1,
        { cosine, ratio } = EP.cosine(estimate[name], exact.gradient[name]),
        { i, j } = page.marked;
      const marked = page.marked.n !== n ? null : n < L ? [i, j] : [j, i];
      const largest = (...matrices) => Math.max(...matrices.flatMap((matrix) => [...matrix].map(Math.abs)));
      const states = largest(first[name], last[name]),
        slopes = largest(estimate[name], exact.gradient[name]);
      [first, last, estimate, exact.gradient].forEach((matrices, which) =>
        PICTURES.heat($(`${HEATS[which]}-${n}`), ...shown(n, matrices[name]), which < 2 ? states : slopes, marked),
      );
      $(`first-${n}`).previousElementSibling.textContent = `product, β = ${number(points[0])}`;
      $(`last-${n}`).previousElementSibling.textContent = `product, β = ${number(points[points.length - 1])}`;
      Object.assign($(`score-${n}`).dataset, { cosine, ratio });
      $(`score-${n}`).textContent = Number.isNaN(cosine)
        ? "no response: EP's gradient is zero"
        : `cosine ${cosine.toFixed(4)}, length × ${number(ratio)}`.replace("-", "−");
      $(`bar-${n}`).style.width = `${100 * Math.max(0, cosine || 0)}%`;
    });
    $("gradient-text").textContent =
      `Loss ${number(EP.cost(exact.free.s[L], page.run.y, 1))}. Residual of the free phase ${number(free.residual)}. ` +
      (exact.converged
        ? "The exact gradient was computed at the fixed point, by equation (9)."
        : "No fixed point was reached, so there is no exact gradient: the right-hand pictures are not one.");
  }

  function makeHeats() {
    const captions = [
      "2 rows: the inputs. 16 columns: layer 1.",
      "16 rows: layer 1. 16 columns: layer 2.",
      "2 rows: the outputs. 16 columns: layer 2.",
    ];
    const titles = ["", "", "− difference: EP", "exact"];
    const heat = (kind, n) =>
      `<div><span>${titles[HEATS.indexOf(kind)]}</span><canvas id="${kind}-${n}" role="img" data-layer="${n}"
        aria-label="W${n}: ${kind === "first" ? "products in the first phase" : kind === "last" ? "products in the last phase" : kind}"
        ></canvas></div>`;
    $("heats").innerHTML = names
      .map(
        (_, k) => `<div class="heat"><h3>W<sub>${k + 1}</sub></h3>
      <div class="pair">${HEATS.map((kind) => heat(kind, k + 1)).join("")}</div>
      <p class="score" id="score-${k + 1}"></p><div class="bar"><i id="bar-${k + 1}"></i></div><p>${captions[k]}</p></div>`,
      )
      .join("");
  }

  // A square of a heat map was pressed: its connection is the marked one.
  function mark({ target, offsetX, offsetY }) {
    const n = Number(target.dataset.layer);
    if (!n) return;
    const [, rows, columns] = shown(n, page.network.W[n]),
      row = Math.min(rows - 1, Math.floor((offsetY / target.clientHeight) * rows)),
      column = Math.min(columns - 1, Math.floor((offsetX / target.clientWidth) * columns));
    page.marked = n < L ? { n, i: row, j: column } : { n, i: column, j: row };
    draw();
  }

  // --- the answer everywhere: a grid of inputs, all relaxed at once ------------------------------------------------------------

  const SIDE = 45,
    GRID = Float64Array.from({ length: 2 * SIDE * SIDE }, (_, k) => {
      const cell = Math.floor(k / 2);
      return -1.1 + (2.2 * (k % 2 === 0 ? cell % SIDE : Math.floor(cell / SIDE))) / (SIDE - 1);
    });

  function computeField() {
    const s = EP.relax(page.network, GRID, EP.phasesOf(page.settings).free).s[L];
    page.field = {
      side: SIDE,
      values: Float64Array.from({ length: SIDE * SIDE }, (_, k) => s[CLASSES * k] - s[CLASSES * k + 1]),
    };
  }

  let fieldTimer = null;
  function refresh() {
    stop();
    page.network.gamma = page.settings.gamma;
    compute();
    rest();
    draw();
    clearTimeout(fieldTimer);
    fieldTimer = setTimeout(
      () => {
        computeField();
        drawPlane();
      },
      page.field ? 80 : 0,
    );
  }

  // --- playing -----------------------------------------------------------------------------------------------------------------

  // Both pictures at the last moment of their phase.
  function rest() {
    for (const phase of ["free", "nudged"]) page.moment[phase] = page.run.frames[phase].length - 1;
  }

  function play(phase) {
    stop();
    const last = page.run.frames[phase].length - 1,
      pause = Math.max(30, Math.min(300, 5000 / last));
    if (still.matches) return show(phase, last);
    let before = -pause;
    page.moment[phase] = -1;
    const next = (now) => {
      if (now - before >= pause) {
        before = now;
        show(phase, page.moment[phase] + 1, true);
        if (page.moment[phase] >= last) return void (page.playing = null);
      }
      page.playing = requestAnimationFrame(next);
    };
    page.playing = requestAnimationFrame(next);
  }

  function stop() {
    cancelAnimationFrame(page.playing);
    page.playing = null;
  }

  function show(phase, moment, playing = false) {
    if (!playing) stop();
    page.moment[phase] = moment;
    drawMoment(phase);
    if (phase === "free") drawChart();
  }

  // --- learning ----------------------------------------------------------------------------------------------------------------

  function start(parameters) {
    endTraining();
    page.network = EP.makeNetwork(sizes, parameters, page.settings.gamma);
  }

  function train() {
    start(initial);
    const { x, y } = tasks[page.task],
      all = Float64Array.from(x.flat()),
      target = targets(y),
      adam = EP.makeAdam(page.network, EP_DATA.rate);
    page.learned = { updates: 0, losses: [], accuracies: [] };
    $("train").textContent = "■ Stop";
    let due = 0;
    const some = () => {
      const until = performance.now() + 40;
      do {
        const { gradient, loss } = EP.eqpropGradient(page.network, all, target, page.settings);
        adam(gradient);
        page.learned.updates += 1;
        page.learned.losses.push([page.learned.updates, loss]);
        if (page.learned.updates % 5 === 0) page.learned.accuracies.push([page.learned.updates, accuracy()]);
      } while (performance.now() < until && page.learned.updates < EP_DATA.updates);
      if (page.learned.updates >= EP_DATA.updates) return finish();
      if (page.learned.updates >= due) {
        computeField();
        compute();
        rest();
        draw();
        due = page.learned.updates + 10;
      }
      drawLearning(
        `Update ${page.learned.updates} of ${EP_DATA.updates}: loss ${number(page.learned.losses[page.learned.updates - 1][1])}.`,
      );
      page.training = setTimeout(some, 0);
    };
    page.training = setTimeout(some, 0);
  }

  function endTraining() {
    clearTimeout(page.training);
    page.training = null;
    $("train").textContent = "▶ Train from random weights";
  }

  function finish() {
    endTraining();
    refresh();
    const { updates } = page.learned;
    drawLearning(updates === 0 ? "" : `${updates} updates. ${state()}`);
  }

  // Accuracy, distance to equilibrium, and the cosine with the exact gradient, all points together.
  function state() {
    const { x, y, test_x, test_y } = tasks[page.task],
      { settings, network } = page,
      test = Float64Array.from(test_x.flat());
    const all = Float64Array.from(x.flat()),
      target = targets(y);
    const free = EP.relax(network, test, EP.phasesOf(settings).free),
      { gradient } = EP.eqpropGradient(network, all, target, settings);
    const rest = EP.relax(network, test, { ...EP.phasesOf(settings).free, steps: 3000, tolerance: 1e-9 });
    const exact = EP.exactGradient(network, all, target, settings, 1500),
      alone = EP.relax({ ...network, gamma: 0 }, test, { steps: 1, schedule: "up" });
    const cosines = names.map((name) => EP.cosine(gradient[name], exact.gradient[name]).cosine);
    return (
      `Right answers among 200 other points: ${percent(correct(free.s[L], test_y))} after ${settings.T} steps ` +
      `(largest residual ${number(free.residual)}), ` +
      (rest.converged
        ? `${percent(correct(rest.s[L], test_y))} at the fixed point. `
        : "and not all of them reach a fixed point. ") +
      `Without feedback: ${percent(correct(alone.s[L], test_y))}. ` +
      (exact.converged
        ? `Cosines of the next update with the exact gradient, layers 1 to 3: ${cosines.map(twoDigits).join(", ")}.`
        : "The exact gradient could not be computed: not all training points reach a fixed point.")
    );
  }

  const twoDigits = (v) => v.toFixed(2).replace("-", "−");
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const correct = (s, labels) => EP.predict(s, CLASSES).filter((label, k) => label === labels[k]).length / labels.length;

  function accuracy() {
    const { test_x, test_y } = tasks[page.task];
    return correct(EP.relax(page.network, Float64Array.from(test_x.flat()), EP.phasesOf(page.settings).free).s[L], test_y);
  }

  function drawLearning(text) {
    $("train-text").textContent = text;
    const learned = page.learned ?? { losses: [], accuracies: [] },
      first = learned.losses.length ? learned.losses[0][1] : 1;
    PICTURES.curves($("learning"), {
      curves: [
        { points: learned.losses.map(([t, loss]) => [t, loss / first]), colour: "accent" },
        { points: learned.accuracies, colour: "a" },
      ],
      ticks: [
        [0, "0"],
        [0.5, "0.5"],
        [1, "1"],
      ],
      spans: [[0, EP_DATA.updates, `updates: 0 to ${EP_DATA.updates}`]],
      last: EP_DATA.updates,
    });
  }

  // --- what the reader does ----------------------------------------------------------------------------------------------------

  const PRESETS = {
    start: {},
    unsettled: { T: 2, K: 2 },
    early: { schedule: "synchronous", T: 60, K: 2 },
    large: { beta: 1, nudging: "one-sided" },
    weak: { gamma: 0.05, T: 3, K: 2 },
    deviations: { deviations: true },
  };

  function preset(name) {
    page.settings = { ...EP_DATA.settings, ...PRESETS[name] };
    document.querySelectorAll("[data-said]").forEach((sentence) => (sentence.hidden = sentence.dataset.said !== name));
    fill();
    refresh();
  }

  // Sliders from settings.
  function fill() {
    const { settings } = page;
    $("gamma").value = Math.log10(settings.gamma);
    $("beta").value = Math.log10(settings.beta);
    for (const name of ["T", "K", "nudging", "schedule"]) $(name).value = settings[name];
    $("rule").value = settings.deviations ? "12" : "4";
    label();
  }

  function label() {
    for (const name of ["gamma", "beta", "T", "K"]) $(`${name}-value`).textContent = number(page.settings[name]);
  }

  // The class of the nearest point of the task: what is right unless the reader says otherwise.
  function nearest([px, py]) {
    const { x, y } = tasks[page.task],
      distances = x.map(([qx, qy]) => (qx - px) ** 2 + (qy - py) ** 2);
    return y[distances.indexOf(Math.min(...distances))];
  }

  function move(input) {
    page.input = input.map((v) => Math.max(-1.05, Math.min(1.05, v)));
    choose(nearest(page.input));
    refresh();
  }

  function choose(label) {
    page.label = label;
    document.querySelector(`input[name=label][value="${label}"]`).checked = true;
  }

  function listen() {
    const powers = (v) => Number((10 ** Number(v)).toPrecision(2));
    for (const [name, read] of [
      ["gamma", powers],
      ["beta", powers],
      ["T", Number],
      ["K", Number],
      ["nudging", String],
      ["schedule", String],
    ])
      $(name).addEventListener("input", () => {
        page.settings[name] = read($(name).value);
        label();
        refresh();
      });
    $("rule").addEventListener("input", () => {
      page.settings.deviations = $("rule").value === "12";
      refresh();
    });
    $("heats").addEventListener("click", mark);
    $("another").addEventListener("click", () => {
      page.turn = (page.turn + 1) % 12;
      page.marked = strongest([2, 3, 1][page.turn % 3], Math.floor(page.turn / 3));
      draw();
    });
    $("defaults").addEventListener("click", () => preset("start"));
    document
      .querySelectorAll("[data-preset]")
      .forEach((button) => button.addEventListener("click", () => preset(button.dataset.preset)));
    for (const [button, slider, phase] of [
      ["settle", "moment", "free"],
      ["nudge", "nudged-moment", "nudged"],
    ]) {
      $(button).addEventListener("click", () => play(phase));
      $(slider).addEventListener("input", () => show(phase, Number($(slider).value)));
    }
    document.querySelectorAll("input[name=label]").forEach((radio) =>
      radio.addEventListener("change", () => {
        page.label = Number(radio.value);
        refresh();
      }),
    );
    document.querySelectorAll("input[name=task]").forEach((radio) =>
      radio.addEventListener("change", () => {
        page.task = radio.value;
        page.learned = null;
        start(initial);
        move(page.input);
        drawLearning(RANDOM);
      }),
    );
    $("train").addEventListener("click", () => (page.training === null ? train() : finish()));
    $("random").addEventListener("click", () => {
      start(initial);
      page.learned = null;
      refresh();
      drawLearning(RANDOM);
    });
    $("trained").addEventListener("click", () => {
      start(tasks[page.task].trained);
      page.learned = null;
      refresh();
      drawLearning(trainedText());
    });

    const plane = $("plane");
    const point = (event) => {
      const { left, top, width } = plane.getBoundingClientRect();
      move([PICTURES.fromPixel(event.clientX - left, width), -PICTURES.fromPixel(event.clientY - top, width)]);
    };
    plane.addEventListener("pointerdown", (event) => {
      plane.setPointerCapture(event.pointerId);
      point(event);
    });
    plane.addEventListener("pointermove", (event) => {
      if (plane.hasPointerCapture(event.pointerId)) point(event);
    });
    const ARROWS = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05] };
    plane.addEventListener("keydown", (event) => {
      if (!ARROWS[event.key]) return;
      event.preventDefault();
      move(page.input.map((v, k) => v + ARROWS[event.key][k]));
    });
    const again = () => {
      if ($("network").clientWidth > 0) {
        draw();
        drawLearning($("train-text").textContent);
      }
    }; // 0: not shown
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    window.addEventListener("resize", again);
    const narrow = window.matchMedia("(max-width: 980px)"),
      fold = () => {
        $("panel").open = !narrow.matches;
      };
    narrow.addEventListener("change", fold);
    fold();
  }

  const RANDOM = "Random weights: nothing has been learned.";

  function trainedText() {
    const { reached } = tasks[page.task];
    return (
      `These weights come from ${reached.updates} updates made in Python. They answer ${percent(reached.accuracy)} of the other ` +
      `points rightly after T = ${EP_DATA.settings.T} steps, ${percent(reached.at_fixed_point)} at the fixed point, ` +
      `and ${percent(reached.without_feedback)} without feedback.`
    );
  }

  makeHeats();
  fill();
  $("updates").textContent = EP_DATA.updates;
  document.querySelector(`input[name=task][value="${page.task}"]`).checked = true;
  start(initial);
  choose(nearest(page.input));
  listen();
  refresh();
  drawLearning(RANDOM);
})();
