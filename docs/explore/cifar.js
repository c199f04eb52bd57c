// The page with the shipped network of full feedback: a picture comes in, conv.js relaxes, and every step is shown.

"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const network = CONV.makeNetwork(CIFAR_NETWORK),
    { classes, mean, std, L } = network,
    number = PICTURES.number;
  const SETTLED = 1e-4,
    MOST = 150,
    PAUSE = window.matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 90, // ms for a step, so that it can be seen
    SIDE = 32;
  const COLOURS = ["accent", "a", "b"];
  const page = { steps: [], alone: null, order: [], moment: 0, run: 0 };

  const percent = (p) => `${(100 * p).toFixed(1)}%`;

  // --- the picture -------------------------------------------------------------------------------------------------------------

  // The middle square of an image or canvas, shrunk in steps of two at most, so that every pixel counts.
  function shrink(source, width, height) {
    const side = Math.min(width, height);
    let now = cut(source, (width - side) / 2, (height - side) / 2, side, Math.max(SIDE, side));
    while (now.width > SIDE) now = cut(now, 0, 0, now.width, Math.max(SIDE, Math.ceil(now.width / 2)));
    $("picture").getContext("2d").drawImage(now, 0, 0, SIDE, SIDE);
  }

  function cut(source, x, y, side, to) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = to;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white"; // behind transparent pictures
    context.fillRect(0, 0, to, to);
    context.drawImage(source, x, y, side, side, 0, 0, to, to);
    return canvas;
  }

  // x = (colour - mean)/std, channels last
  function input() {
    const { data } = $("picture").getContext("2d").getImageData(0, 0, SIDE, SIDE);
    const x = (k) => (data[4 * Math.floor(k / 3) + (k % 3)] / 255 - mean[k % 3]) / std[k % 3];
    return Float64Array.from({ length: 3 * SIDE * SIDE }, (_, k) => x(k));
  }

  async function read(file) {
    if (!file) return;
    try {
      const image = await createImageBitmap(file);
      shrink(image, image.width, image.height);
      $("whose").textContent = file.name;
      relax();
    } catch {
      $("whose").textContent = `${file.name} could not be read as a picture: choose a JPEG or PNG file.`;
    }
  }

  function drawShip() {
    const canvas = document.createElement("canvas"),
      c = canvas.getContext("2d");
    canvas.width = canvas.height = 256;
    const shape = (colour, ...points) => {
      c.fillStyle = colour;
      c.beginPath();
      points.forEach(([x, y], k) => c[k ? "lineTo" : "moveTo"](x, y));
      c.fill();
    };
    const sky = c.createLinearGradient(0, 0, 0, 160),
      sea = c.createLinearGradient(0, 150, 0, 256);
    sky.addColorStop(0, "#8fb7dd");
    sky.addColorStop(1, "#dce8f0");
    sea.addColorStop(0, "#4d7f9f");
    sea.addColorStop(1, "#1f4d70");
    c.fillStyle = sky;
    c.fillRect(0, 0, 256, 160);
    c.fillStyle = sea;
    c.fillRect(0, 152, 256, 104);
    shape("#b13a32", [30, 150], [232, 142], [206, 186], [52, 186]);
    shape("#f4f4f0", [70, 150], [72, 112], [182, 108], [186, 146]);
    shape("#d9d9d4", [96, 112], [97, 88], [150, 86], [152, 110]);
    shape("#343a44", [112, 88], [113, 60], [132, 60], [134, 87]);
    for (let k = 0; k < 5; k++) shape("#4a5a6a", [80 + 20 * k, 122], [90 + 20 * k, 122], [90 + 20 * k, 132], [80 + 20 * k, 132]);
    shrink(canvas, 256, 256);
  }

  // --- relaxing ----------------------------------------------------------------------------------------------------------------

  // Steps until the residual is 10^-4, one at a time, so that they can be seen and the page can be used meanwhile.
  function relax() {
    const run = ++page.run,
      relaxation = CONV.begin(network, input());
    page.steps = [];
    page.alone = CONV.probabilities(network, CONV.alone(network, relaxation));
    const next = () => {
      if (run !== page.run) return; // another picture has come
      const start = performance.now();
      CONV.step(network, relaxation);
      const { s, residual } = relaxation,
        time = performance.now() - start;
      if (!page.steps.length) page.order = s.map((layer, n) => layer && largestFirst(n, layer));
      page.steps.push({ s: s.slice(), residual, probabilities: CONV.probabilities(network, s), time });
      page.moment = page.steps.length - 1;
      page.settled = residual <= SETTLED;
      draw();
      if (!page.settled && page.steps.length < MOST) setTimeout(next, Math.max(0, PAUSE - (performance.now() - start)));
    };
    setTimeout(next, 0);
  }

  // The channels of a layer, those with the largest mean first; those of the last layer as they are.
  function largestFirst(n, s) {
    const channels = network.layers[n].output[2],
      means = new Float64Array(channels);
    s.forEach((v, k) => (means[k % channels] += v));
    const order = [...means.keys()];
    return n === L ? order : order.sort((p, q) => means[q] - means[p]);
  }

  // --- drawing -----------------------------------------------------------------------------------------------------------------

  function draw() {
    const { steps, moment, settled, alone } = page;
    if (!steps.length) return;
    const { probabilities, residual, s } = steps[moment],
      last = steps[steps.length - 1];
    const order = classes.map((_, k) => k).sort((p, q) => probabilities[q] - probabilities[p]);
    const bar = (k) => `<div><span>${classes[k]}</span><div class="bar"><i style="width:${100 * probabilities[k]}%"></i>
      <b style="left:${100 * alone[k]}%"></b></div><output>${percent(probabilities[k])}</output></div>`;
    $("answers").innerHTML = order.slice(0, 5).map(bar).join("");
    $("moment").max = steps.length;
    $("moment").value = moment + 1;
    $("moment-text").textContent = `Step ${moment + 1} of ${steps.length}, residual ${number(residual)}.`;
    const likeliest = (p) => `${classes[p.indexOf(Math.max(...p))]} (${percent(Math.max(...p))})`,
      took = steps.reduce((sum, { time }) => sum + time, 0) / 1000;
    Object.assign($("said").dataset, { settled, residual: last.residual, probabilities: last.probabilities.join(" ") });
    $("said").textContent = settled
      ? `Settled: after ${steps.length} steps the residual is ${number(last.residual)} (${number(took)} s of computing). ` +
        `The answer is ${likeliest(last.probabilities)}. Without feedback it would be ${likeliest(alone)}.`
      : steps.length < MOST
        ? "Settling …"
        : `Not settled after ${MOST} steps: the residual is still ${number(last.residual)}.`;
    for (let n = 1; n <= L; n++) drawLayer(n, s[n]);
    drawChart();
  }

  // The channels of a layer side by side.
  function drawLayer(n, s) {
    const canvas = $(`layer-${n}`),
      [rows, columns, channels] = network.layers[n].output;
    const zoom = [0, 3, 4, 5][n],
      wide = canvas.clientWidth; // screen pixels for a state
    const across = n === L ? (wide > 500 ? 64 : 32) : Math.max(5, Math.floor(wide / ((columns + 1) * zoom)));
    const order = page.order[n];
    const shown = n === L ? channels / across : Math.min(4, Math.ceil(channels / across)),
      gap = n === L ? 0 : 1;
    canvas.width = across * (columns + gap);
    canvas.height = shown * (rows + gap);
    const context = canvas.getContext("2d"),
      image = context.createImageData(canvas.width, canvas.height);
    for (let place = 0; place < across * shown && place < channels; place++) {
      const j = order[place],
        left = (place % across) * (columns + gap),
        top = Math.floor(place / across) * (rows + gap);
      for (let r = 0; r < rows; r++)
        for (let c = 0; c < columns; c++) {
          const v = s[(r * columns + c) * channels + j],
            at = 4 * ((top + r) * canvas.width + left + c);
          image.data.set([40 + 215 * v, 34 + 190 * v, 60 + 90 * v, 255], at);
        }
    }
    context.putImageData(image, 0, 0);
    const zero = s.reduce((count, v) => count + (v === 0), 0) / s.length;
    $(`about-${n}`).textContent = `${rows} × ${columns}, ${channels} channels; ${percent(zero)} of the states are 0`;
  }

  function drawChart() {
    const { steps, moment } = page,
      last = steps[steps.length - 1].probabilities;
    const best = classes
      .map((_, k) => k)
      .sort((p, q) => last[q] - last[p])
      .slice(0, 3);
    const log = ({ residual }) => 1 + Math.log10(Math.max(residual, 1e-4)) / 4;
    PICTURES.curves($("chart"), {
      curves: [
        ...best.map((k, which) => ({
          points: steps.map(({ probabilities }, t) => [t + 1, probabilities[k]]),
          colour: COLOURS[which],
        })),
        { points: steps.map((step, t) => [t + 1, log(step)]), colour: "soft", dash: [5, 4] },
      ],
      ticks: [
        [0, "0"],
        [0.5, "0.5"],
        [1, "1"],
      ],
      spans: [[0, steps.length, "steps"]],
      last: steps.length,
      now: moment + 1,
    });
    const line = (k, which) =>
      `<span class="whole"><span class="line" style="border-color:var(--${COLOURS[which]})"></span> ${classes[k]}.</span> `;
    $("legend").innerHTML = best.map(line).join("");
  }

  // --- what the reader does ----------------------------------------------------------------------------------------------------

  const figure = (n) => `<figure><h3>s<sub>${n}</sub> <span class="numbers" id="about-${n}"></span></h3>
    <canvas id="layer-${n}" class="pixels" role="img" aria-label="States of layer ${n}"></canvas></figure>`;
  $("layers").innerHTML = Array.from({ length: L }, (_, n) => figure(n + 1)).join("");
  $("source").textContent = network.source;
  $("file").addEventListener("change", () => read($("file").files[0]));
  for (const [event, over] of [
    ["dragover", true],
    ["dragleave", false],
    ["drop", false],
  ])
    document.addEventListener(event, (e) => {
      e.preventDefault();
      $("drop").classList.toggle("over", over);
      if (event === "drop") read(e.dataTransfer.files[0]);
    });
  $("again").addEventListener("click", relax);
  $("moment").addEventListener("input", () => {
    page.moment = Number($("moment").value) - 1;
    draw();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("resize", draw);
  drawShip();
  relax();
})();
