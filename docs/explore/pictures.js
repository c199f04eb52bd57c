// What the page draws: the plane, the network, curves and heat maps. No numerics: numbers come in, pixels go out.

"use strict";

const PICTURES = (() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // "#rrggbb" -> [r, g, b]
  const rgb = (name) =>
    css(name)
      .match(/\w\w/g)
      .map((pair) => parseInt(pair, 16));
  const mix = (p, q, share) => `rgb(${p.map((v, k) => Math.round(v + (q[k] - v) * share)).join(",")})`;

  // The colour of a number from -1 (minus) through 0 to 1 (plus).
  function signed(colours, v) {
    const share = Math.min(1, Math.abs(v));
    return mix(colours.zero, v > 0 ? colours.plus : colours.minus, share);
  }

  const palette = () =>
    Object.fromEntries(
      ["plus", "minus", "zero", "a", "b", "ink", "soft", "rule", "card", "ground", "accent"].map((name) => [name, rgb(name)]),
    );
  const plain = (colour, alpha = 1) => `rgba(${colour.join(",")},${alpha})`;

  // A canvas at the resolution of the screen; returns [context, width, height] in CSS pixels.
  function prepare(canvas) {
    const { width, height } = canvas.getBoundingClientRect(),
      ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return [context, width, height];
  }

  const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

  // --- the plane: answer everywhere, points, and the input ---------------------------------------------------------------------

  const toPixel = (v, size) => ((v + 1.1) / 2.2) * size;
  const fromPixel = (p, size) => (p / size) * 2.2 - 1.1;

  // field: { side, values } of (s_3 of A) - (s_3 of B) on a grid of the plane, first row at the bottom; or null
  function plane(canvas, { field, points, labels, input }) {
    const [context, size] = prepare(canvas),
      c = palette();
    if (field) ground(context, size, field, c);
    points.forEach(([px, py], k) => mark(context, toPixel(px, size), size - toPixel(py, size), labels[k], 3, c));
    if (!input) return;
    const [x, y] = [toPixel(input[0], size), size - toPixel(input[1], size)];
    context.beginPath();
    context.arc(x, y, 9, 0, 7);
    context.fillStyle = plain(c.card);
    context.fill();
    context.lineWidth = 3;
    context.strokeStyle = plain(c.ink);
    context.stroke();
    context.fillStyle = plain(c.ink);
    context.font = "italic 13px Georgia, serif";
    context.textAlign = "center";
    context.fillText("x", x, y + 4);
  }

  function mark(context, x, y, label, r, c) {
    // A round, B square: not only by colour
    context.beginPath();
    if (label === 0) context.arc(x, y, r, 0, 7);
    else context.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
    context.fillStyle = plain(label === 0 ? c.a : c.b);
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = plain(c.card, 0.8);
    context.stroke();
  }

  function ground(context, size, { side, values }, c) {
    const fine = 220,
      image = new ImageData(fine, fine);
    for (let row = 0; row < fine; row++)
      for (let column = 0; column < fine; column++) {
        const gx = (column / (fine - 1)) * (side - 1),
          gy = (1 - row / (fine - 1)) * (side - 1);
        const i = Math.min(side - 2, Math.floor(gx)),
          j = Math.min(side - 2, Math.floor(gy)),
          fx = gx - i,
          fy = gy - j;
        const at = (p, q) => values[q * side + p];
        const v = (at(i, j) * (1 - fx) + at(i + 1, j) * fx) * (1 - fy) + (at(i, j + 1) * (1 - fx) + at(i + 1, j + 1) * fx) * fy;
        const colour = v > 0 ? c.a : c.b,
          share = 0.14 + 0.34 * Math.min(1, Math.abs(v) / 1.2),
          k = 4 * (row * fine + column);
        for (let channel = 0; channel < 3; channel++)
          image.data[k + channel] = c.card[channel] + (colour[channel] - c.card[channel]) * share;
        image.data[k + 3] = 255;
      }
    const small = document.createElement("canvas");
    small.width = small.height = fine;
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, size, size);
  }

  // --- the network: one box for every layer, the output on top -----------------------------------------------------------------

  // frame: { s, group, response }, s[0] = x; lanes: leave room for the bars of responses, with marks at the exact ones;
  // target: null, or rings around the outputs; W[n] as in ep.js; notes[n]: text at the right of a layer; marked: { n, i, j }, one
  // connection, from unit i of layer n - 1 to unit j of layer n
  function network(canvas, { sizes, W, frame, exact, scale, target, notes, lanes, marked }) {
    const [context, width, height] = prepare(canvas),
      c = palette(),
      L = sizes.length - 1;
    const gap = 26,
      inputHeight = 46,
      box = (height - inputHeight - L * gap) / L;
    const top = (n) => (n === 0 ? height - inputHeight : (L - n) * (box + gap));
    const place = (n, k) =>
      sizes[n] > 2 ? 16 + ((k + 0.5) * (width - 32)) / sizes[n] : width / 2 + (k - 0.5) * Math.min(180, width / 3);
    const radius = Math.min(11, (width - 32) / 16 / 2 - 2);
    for (let n = 1; n <= L; n++) edges(context, W[n], sizes, n, place, n === 1 ? top(0) : top(n - 1), top(n) + box, c);
    line(context, place(marked.n - 1, marked.i), top(marked.n - 1), place(marked.n, marked.j), top(marked.n) + box, plain(c.ink));
    for (let n = 0; n <= L; n++) {
      const active = frame.group && frame.group.includes(n),
        y = top(n),
        h = n === 0 ? inputHeight : box;
      context.beginPath();
      context.roundRect(1, y + 1, width - 2, h - 2, 9);
      context.fillStyle = plain(c.ground);
      context.fill();
      context.lineWidth = active ? 2.5 : 1;
      context.strokeStyle = plain(active ? c.accent : c.rule);
      context.stroke();
      context.font = FONT;
      context.fillStyle = plain(c.ink);
      context.textAlign = "left";
      context.fillText(n === 0 ? "input x" : n === L ? `s${"₀₁₂₃"[n]}  output` : `s${"₀₁₂₃"[n]}`, 11, y + 17);
      context.fillStyle = plain(c.soft);
      context.textAlign = "right";
      context.fillText(notes[n], width - 11, y + 17);
      const centre = n === 0 ? y + 29 : lanes ? y + 38 : y + box / 2 + 9;
      for (let k = 0; k < sizes[n]; k++) {
        const x = place(n, k);
        if (n === L && target) ring(context, x, centre, radius + 4, signed(c, target[k] / 0.6));
        circle(context, x, centre, radius, signed(c, frame.s[n][k]), plain(c.soft, 0.7));
        if (k === (n === marked.n ? marked.j : n === marked.n - 1 ? marked.i : -1)) ring(context, x, centre, radius, plain(c.ink));
        if (n === L) {
          context.fillStyle = plain(c.soft);
          context.textAlign = k === 0 ? "right" : "left";
          context.fillText(`${"AB"[k]}  ${number(frame.s[n][k])}`, x + (k === 0 ? -1 : 1) * (radius + 10), centre + 4);
        }
      }
      if (n > 0 && lanes)
        bars(
          context,
          n,
          {
            place,
            frame,
            exact,
            scale,
            sizes,
            middle: y + 38 + radius + (box - 38 - radius) / 2,
            reach: (box - 38 - radius) / 2 - 8,
            radius,
            width,
          },
          c,
        );
    }
  }

  function edges(context, W, sizes, n, place, from, to, c) {
    const strongest = W.reduce((most, w) => Math.max(most, Math.abs(w)), 1e-12);
    W.forEach((w, k) => {
      const share = Math.abs(w) / strongest;
      if (share < 0.12) return;
      context.beginPath();
      context.moveTo(place(n - 1, Math.floor(k / sizes[n])), from);
      context.lineTo(place(n, k % sizes[n]), to);
      context.lineWidth = 0.4 + 1.3 * share;
      context.strokeStyle = plain(w > 0 ? c.plus : c.minus, 0.1 + 0.45 * share);
      context.stroke();
    });
  }

  function line(context, x, y, toX, toY, colour) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX, toY);
    context.lineWidth = 3;
    context.strokeStyle = colour;
    context.stroke();
  }

  function circle(context, x, y, r, fill, line) {
    context.beginPath();
    context.arc(x, y, r, 0, 7);
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = line;
    context.stroke();
  }

  function ring(context, x, y, r, colour) {
    context.beginPath();
    context.arc(x, y, r, 0, 7);
    context.lineWidth = 3;
    context.strokeStyle = colour;
    context.stroke();
  }

  // Responses as bars from a line in the middle, exact ones as marks.
  function bars(context, n, { place, frame, exact, scale, sizes, middle, reach, radius, width }, c) {
    context.strokeStyle = plain(c.rule);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(12, middle);
    context.lineTo(width - 12, middle);
    context.stroke();
    if (!frame.response) return;
    const tall = (v) => Math.max(-1.15, Math.min(1.15, v / scale)) * reach;
    for (let k = 0; k < sizes[n]; k++) {
      const x = place(n, k),
        h = tall(frame.response[n][k]);
      context.fillStyle = plain(h > 0 ? c.plus : c.minus);
      context.fillRect(x - radius * 0.6, middle - Math.max(h, 0), radius * 1.2, Math.abs(h));
      const y = middle - tall(exact[n][k]);
      context.strokeStyle = plain(c.ink);
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x - radius * 0.95, y);
      context.lineTo(x + radius * 0.95, y);
      context.stroke();
    }
  }

  // --- curves ------------------------------------------------------------------------------------------------------------------

  // curves: [{ points: [[x, y], ...], colour, dash }], y already between 0 and 1 (top); ticks: [[y, text]];
  // spans: [[from, to, text]]
  function curves(canvas, { curves, ticks, spans, last, now }) {
    const [context, width, height] = prepare(canvas),
      c = palette(),
      left = 46,
      right = 10,
      top = 20,
      bottom = 18;
    const X = (x) => left + (x / (last || 1)) * (width - left - right),
      Y = (y) => height - bottom - y * (height - top - bottom);
    context.font = FONT;
    for (const [y, text] of ticks) {
      context.strokeStyle = plain(c.rule);
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(left, Y(y));
      context.lineTo(width - right, Y(y));
      context.stroke();
      context.fillStyle = plain(c.soft);
      context.textAlign = "right";
      context.fillText(text, left - 6, Y(y) + 4);
    }
    for (const [from, to, text] of spans) {
      context.fillStyle = plain(c.soft);
      context.textAlign = "center";
      context.fillText(text, (X(from) + X(to)) / 2, 13);
      if (from > 0) {
        context.strokeStyle = plain(c.soft, 0.6);
        context.beginPath();
        context.moveTo(X(from), top - 6);
        context.lineTo(X(from), height - bottom);
        context.stroke();
      }
    }
    for (const curve of curves) {
      context.strokeStyle = plain(c[curve.colour]);
      context.lineWidth = 2;
      context.setLineDash(curve.dash || []);
      context.beginPath();
      curve.points.forEach(([x, y], k) => context[k ? "lineTo" : "moveTo"](X(x), Y(Math.max(0, Math.min(1, y)))));
      context.stroke();
      context.setLineDash([]);
      if (curve.points.length < 25)
        curve.points.forEach(([x, y]) =>
          circle(context, X(x), Y(Math.max(0, Math.min(1, y))), 2, plain(c[curve.colour]), plain(c[curve.colour])),
        );
    }
    if (now !== undefined) {
      context.strokeStyle = plain(c.plus);
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(X(now), top - 4);
      context.lineTo(X(now), height - bottom + 4);
      context.stroke();
    }
  }

  // --- heat: a matrix, row after row -------------------------------------------------------------------------------------------

  // marked: [row, column] of the entry that gets a frame, or null
  function heat(canvas, matrix, rows, columns, largest, marked) {
    canvas.style.aspectRatio = `${columns} / ${rows === columns ? rows : 3 * rows}`; // two rows alone would be too flat to read
    const [context, width, height] = prepare(canvas),
      c = palette();
    for (let r = 0; r < rows; r++)
      for (let k = 0; k < columns; k++) {
        context.fillStyle = signed(c, matrix[r * columns + k] / (largest || 1));
        const x = Math.round((k * width) / columns),
          y = Math.round((r * height) / rows);
        context.fillRect(x, y, Math.round(((k + 1) * width) / columns) - x, Math.round(((r + 1) * height) / rows) - y);
      }
    if (!marked) return;
    const [row, column] = marked;
    context.lineWidth = 2;
    context.strokeStyle = plain(c.ink);
    context.strokeRect((column * width) / columns, (row * height) / rows, width / columns, height / rows);
  }

  // Three digits; a true minus sign.
  function number(v) {
    if (v === 0) return "0";
    if (!Number.isFinite(v)) return "none";
    const size = Math.abs(v),
      text = size >= 1000 || size < 0.001 ? power(v) : String(Number(v.toPrecision(size < 1 ? 2 : 3)));
    return text.replace("-", "−");
  }

  function power(v) {
    const [digits, exponent] = v.toExponential(0).split("e");
    return `${digits}·10${[...String(Number(exponent))].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d] ?? "⁻").join("")}`;
  }

  return { plane, network, curves, heat, number, fromPixel };
})();
