// Relaxing a chain of convolutions with maximum pooling, one image: the numerics of cifar.html, and nothing else.
//
// As in ep/synapse.py and ep/dynamics.py, where the first synapse is a `Filtered`. A layer is a Float64Array, channels last:
// (rows, columns, channels). A kernel W is (k, k, channels below, channels above). The last layer is joined to a readout,
// o = softmax(W^T s_L + b).

"use strict";

const CONV = (() => {
  const size = ([rows, columns, channels]) => rows * columns * channels;

  // The content of network.js -> { gamma, omega, filters, layers, readout, classes, ... } with kernels as numbers, and transposed.
  function makeNetwork({ filters, layers, readout, ...about }) {
    return {
      ...about, filters: { ...filters, W: Float64Array.from(filters.W.flat(3)) },
      L: layers.length, layers: [null, ...layers.map(makeLayer)],
      readout: { W: readout.W.map((row) => Float64Array.from(row)), b: Float64Array.from(readout.b) },
    };
  }

  function makeLayer({ input, output, kernel, padding, levels, scale, b }) {
    const bytes = atob(levels), I = input[2], J = output[2];
    const W = new Float64Array(bytes.length), turned = new Float64Array(bytes.length);
    for (let k = 0; k < kernel * kernel; k++)
      for (let i = 0; i < I; i++)
        for (let j = 0; j < J; j++) {
          const at = (k * I + i) * J + j, byte = bytes.charCodeAt(at);
          W[at] = turned[(k * J + j) * I + i] = (byte > 127 ? byte - 256 : byte) * scale[j];           // int8
        }
    return { input, output, kernel, padding, W, turned, b, units: size(output) };
  }

  // W * pre, (rows, columns, J) of the convolution before pooling. States are often exactly 0, and then nothing is to be added.
  function convolve({ input: [R, C, I], output: [, , J], kernel, padding, W }, pre) {
    const rows = R + 2 * padding - kernel + 1, columns = C + 2 * padding - kernel + 1;
    const out = new Float64Array(rows * columns * J);
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++) {
        const at = (r * columns + c) * J;
        for (let k = 0; k < kernel * kernel; k++) {
          const y = r - padding + Math.floor(k / kernel), x = c - padding + (k % kernel);
          if (y < 0 || y >= R || x < 0 || x >= C) continue;
          for (let i = 0; i < I; i++) {
            const v = pre[(y * C + x) * I + i], row = (k * I + i) * J;
            if (v === 0) continue;
            for (let j = 0; j < J; j++) out[at + j] += v * W[row + j];
          }
        }
      }
    return { out, rows, columns };
  }

  // P(W * pre) + b and the switches: the place in the convolution that won each window of 2x2 (drive_post)
  function drivePost(layer, pre) {
    const [R, C, J] = layer.output, { out, columns } = convolve(layer, pre), u = new Float64Array(R * C * J);
    const switches = new Int32Array(u.length);
    for (let r = 0; r < R; r++)
      for (let c = 0; c < C; c++)
        for (let j = 0; j < J; j++) {
          let best = (2 * r * columns + 2 * c) * J + j;
          for (const [dr, dc] of [[0, 1], [1, 0], [1, 1]]) {
            const other = ((2 * r + dr) * columns + 2 * c + dc) * J + j;
            if (out[other] > out[best]) best = other;
          }
          const k = (r * C + c) * J + j;
          switches[k] = best;
          u[k] = out[best] + layer.b[j];
        }
    return { u, switches };
  }

  // gain * W^T * P^T(post), added to `u` (drive_pre): what a unit sends down goes to where its winner looked
  function drivePre({ input: [R, C, I], output: [, , J], kernel, padding, turned }, post, switches, u, gain) {
    const columns = C + 2 * padding - kernel + 1;
    for (let unit = 0; unit < post.length; unit++) {
      const v = gain * post[unit];
      if (v === 0) continue;
      const j = unit % J, place = Math.floor(switches[unit] / J), r = Math.floor(place / columns), c = place % columns;
      for (let k = 0; k < kernel * kernel; k++) {
        const y = r - padding + Math.floor(k / kernel), x = c - padding + (k % kernel);
        if (y < 0 || y >= R || x < 0 || x >= C) continue;
        const at = (y * C + x) * I, row = (k * J + j) * I;
        for (let i = 0; i < I; i++) u[at + i] += v * turned[row + i];
      }
    }
  }

  const sigma = (u) => Math.min(1, Math.max(0, u / 2));                                          // clip(u/2, 0, 1)

  // f(x) = max(0, (F * x, -F * x)): what the first layer sees of an image through the fixed filters
  function seen({ filters }, x) {
    const { out } = convolve(filters, x), J = filters.output[2], f = new Float64Array(2 * out.length);
    out.forEach((v, k) => { f[2 * J * Math.floor(k / J) + (k % J) + (v < 0 ? J : 0)] = Math.abs(v); });
    return f;
  }

  // All states zero, and the drive of the input, which never changes.
  function begin(network, x) {
    const s = network.layers.map((layer) => layer && new Float64Array(layer.units));
    return { s, switches: [], steps: 0, residual: Infinity, input: drivePost(network.layers[1], seen(network, x)) };
  }

  // One step: the odd layers, then the even ones (checkerboard), over-relaxed by omega:
  //     s_n <- clip( s_n + omega (u_n/2 - s_n), 0, 1 )        u_n = drive_post(s_{n-1}) + gamma drive_pre(s_{n+1})         (1), (14)
  function step(network, relaxation) {
    const { layers, L, gamma, omega } = network, { s, switches, input } = relaxation, old = s.slice();
    for (const odd of [1, 0])
      for (let n = 2 - odd; n <= L; n += 2) {                                            // the neighbours of n do not move now
        const drive = n === 1 ? input : drivePost(layers[n], s[n - 1]), u = drive.u.slice();
        switches[n] = drive.switches;
        if (n < L && switches[n + 1]) drivePre(layers[n + 1], s[n + 1], switches[n + 1], u, gamma);
        s[n] = s[n].map((v, k) => Math.min(1, Math.max(0, v + omega * (u[k] / 2 - v))));
      }
    relaxation.steps += 1;
    relaxation.residual = 0;
    for (let n = 1; n <= L; n++)
      s[n].forEach((v, k) => { relaxation.residual = Math.max(relaxation.residual, Math.abs(v - old[n][k])); });
  }

  // The same weights when nothing comes down: one pass from the input to the last layer.
  function alone({ layers, L }, { input }) {
    const s = [null];
    for (let n = 1; n <= L; n++) s.push((n === 1 ? input : drivePost(layers[n], s[n - 1])).u.map(sigma));
    return s;
  }

  // o = softmax(W^T s_L + b)
  function probabilities({ readout, L }, s) {
    const z = [...readout.b].map((b, j) => s[L].reduce((sum, v, i) => sum + v * readout.W[i][j], b));
    const top = Math.max(...z);
    const e = z.map((v) => Math.exp(v - top)), total = e.reduce((sum, v) => sum + v, 0);
    return e.map((v) => v / total);
  }

  return { makeNetwork, begin, step, alone, probabilities };
})();

if (typeof module !== "undefined") module.exports = CONV;
