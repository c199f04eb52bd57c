// Equilibrium propagation for a chain of dense layers: the numerics of the page, and nothing else.
//
// The same steps as the Python package, under the same names, so that the two can be read side by side: Network.drives
// (ep/network.py), relax and deviate (ep/dynamics.py), Nudging (ep/nudging.py), hebbian and parameter_adjoint (ep/network.py),
// difference_of_states (ep/eqprop.py), rbp_gradient (ep/rbp.py), Adam (ep/train/optimizers.py). tests/test_explore.py compares
// the numbers of both.
//
// A layer of N examples is a Float64Array of N * units numbers, example after example. A network has layers 0 ... L, and lists
// are indexed by layer: s[0] is the input x, s[n] the states of layer n, W[n] (units below * units) and b[n] (units) the
// parameters of the synapse from layer n - 1 to layer n. In formulas W carries a state up and W^T carries one down; an example is
// a row, so W s is a @ W below. gamma is 1 in plain equilibrium propagation, and then every factor w_n is 1. Nothing here knows
// the page; it runs in a browser and in Node.

"use strict";

const EP = (() => {

  // --- the activation: sigma = tanh (ep/activations.py) ------------------------------------------------------------------------

  const sigma = Math.tanh;
  function states(u) {
    const s = new Float64Array(u.length);
    for (let k = 0; k < u.length; k++) s[k] = sigma(u[k]);
    return s;
  }
  const dsigma = (u) => 1 - Math.tanh(u) ** 2;
  const xlogx = (v) => (v === 0 ? 0 : v * Math.log(v));
  const G = (s) => 0.5 * (xlogx(1 + s) + xlogx(1 - s));                                      // G' = sigma^-1 = atanh
  const difference = (u, d) => Math.tanh(d) * (1 - Math.tanh(u) * Math.tanh(u + d));   // tanh(u + d) - tanh(u), no digits lost

  // --- the network -------------------------------------------------------------------------------------------------------------

  // sizes [units of x, s_1, ..., s_L]; parameters {"1.W": rows, "1.b": numbers, ...}; gamma: the feedback gain.
  function makeNetwork(sizes, parameters, gamma) {
    const L = sizes.length - 1, W = [null], b = [null];
    for (let n = 1; n <= L; n++) {
      W.push(Float64Array.from(parameters[`${n}.W`].flat()));
      b.push(Float64Array.from(parameters[`${n}.b`]));
    }
    return { sizes, L, W, b, gamma };
  }

  const factor = (network, n) => network.gamma ** (n - network.L);                    // w_n = gamma^(n - L)              (10)

  const zeros = (network, N) => network.sizes.map((units, n) => (n === 0 ? null : new Float64Array(N * units)));

  // gain * a (N, I) @ W (I, J) -> (N, J), added to `out`
  function up(a, W, I, J, out, gain = 1) {
    const N = out.length / J;
    for (let e = 0; e < N; e++)
      for (let i = 0; i < I; i++) {
        const v = gain * a[e * I + i];
        for (let j = 0; j < J; j++) out[e * J + j] += v * W[i * J + j];
      }
    return out;
  }

  // gain * a (N, J) @ W^T (J, I) -> (N, I), added to `out`
  function down(a, W, I, J, out, gain = 1) {
    const N = out.length / I;
    for (let e = 0; e < N; e++)
      for (let i = 0; i < I; i++) {
        let v = 0;
        for (let j = 0; j < J; j++) v += a[e * J + j] * W[i * J + j];
        out[e * I + i] += gain * v;
      }
    return out;
  }

  // u_n = W_n s_{n-1} + b_n  +  gamma W_{n+1}^T s_{n+1}, written into `u`
  function drive(network, s, n, u = new Float64Array(s[n].length)) {
    const { sizes, W, b, L, gamma } = network;
    for (let k = 0; k < u.length; k += sizes[n]) u.set(b[n], k);
    up(s[n - 1], W[n], sizes[n - 1], sizes[n], u);
    if (n < L) down(s[n + 1], W[n + 1], sizes[n], sizes[n + 1], u, gamma);
    return u;
  }

  // (D^T mu)_n = W_{n+1}^T mu_{n+1}  +  gamma W_n mu_{n-1}: no input, no bias, and the gain is on the way up
  function transposedDrive(network, mu, n) {
    const { sizes, W, L, gamma } = network, d = new Float64Array(mu[n].length);
    if (n < L) down(mu[n + 1], W[n + 1], sizes[n], sizes[n + 1], d);
    if (n > 1) up(mu[n - 1], W[n], sizes[n - 1], sizes[n], d, gamma);
    return d;
  }

  // E(x, s) = sum_n w_n [ sum_i G(s_n,i) - < W_n s_{n-1} + b_n, s_n > ], one number per example                       (2), (10)
  function energy(network, s) {
    const { sizes, W, b, L } = network, N = s[L].length / sizes[L], E = new Float64Array(N);
    for (let n = 1; n <= L; n++) {
      const J = sizes[n], a = up(s[n - 1], W[n], sizes[n - 1], J, new Float64Array(s[n].length)), w = factor(network, n);
      for (let k = 0; k < a.length; k++) E[Math.floor(k / J)] += w * (G(s[n][k]) - (a[k] + b[n][k % J]) * s[n][k]);
    }
    return E;
  }

  // --- the cost: C = 1/2 || s_L - y ||^2 (ep/cost.py) --------------------------------------------------------------------------

  const force = (s, y) => s.map((v, k) => y[k] - v);                                  // -dC/ds
  const cost = (s, y, N) => s.reduce((sum, v, k) => sum + 0.5 * (v - y[k]) ** 2, 0) / N;      // the mean over the examples

  // --- schedules: which layers are updated together, from the same old values --------------------------------------------------

  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, k) => from + k);
  const SCHEDULES = {
    synchronous: (L) => [range(1, L)],
    checkerboard: (L) => [range(1, L).filter((n) => n % 2 === 1), range(1, L).filter((n) => n % 2 === 0)],
    up: (L) => range(1, L).map((n) => [n]),
    down: (L) => range(1, L).map((n) => [n]).reverse(),
  };

  // --- relaxing ----------------------------------------------------------------------------------------------------------------

  // Iterate   s_n <- sigma( u_n + [n = L] beta (y - s_L) )   from zero, or from `start`.                                      (1)
  // x: Float64Array (N * units of x). phase: { steps, schedule, tolerance }. watch(t, group, s) is called after every group.
  // Returns { s, u, steps, residual, converged, history }: states s_n = sigma(u_n), history = [residual of every step].
  function relax(network, x, phase, { y = null, beta = 0, start = null, watch = null } = {}) {
    const { L } = network, N = x.length / network.sizes[0], s = start ? start.slice() : zeros(network, N), u = zeros(network, N);
    s[0] = x;
    const step = (t) => {
      for (const group of SCHEDULES[phase.schedule](L)) {
        for (const n of group) u[n] = drive(network, s, n, u[n] ?? undefined);            // all of them from the old values
        if (beta !== 0 && group.includes(L)) force(s[L], y).forEach((f, k) => { u[L][k] += beta * f; });     // - beta dC/ds
        for (const n of group) s[n] = states(u[n]);
        if (watch) watch(t, group, s);
      }
    };
    return { s, u, ...iterate(step, s, phase) };
  }

  // The nudged phase at `beta`, as deviations from the free phase: delta_n = w_n (s_n^beta - s_n*), from zero.
  // (The package caps w_n at 10^12, for networks much deeper than this one.)
  //     delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ]                                                         (11)
  //     d       =  D^T delta + [n = L] beta ( y - s_L* - delta_L )
  function deviate(network, y, beta, free, phase, watch = null) {
    const { L, sizes } = network, delta = zeros(network, y.length / sizes[L]);
    const step = (t) => {
      for (const group of SCHEDULES[phase.schedule](L)) {
        const d = {};
        for (const n of group) d[n] = transposedDrive(network, delta, n);
        if (d[L]) d[L].forEach((_, k) => { d[L][k] += beta * (y[k] - free.s[L][k] - delta[L][k]); });        // w_L = 1
        for (const n of group) {
          const w = factor(network, n);
          delta[n] = d[n].map((v, k) => w * difference(free.u[n][k], v / w));
        }
        if (watch) watch(t, group, delta);
      }
    };
    return { delta, ...iterate(step, delta, phase) };
  }

  // Call step(t), which replaces the arrays in the list `s`, as often as the phase says. The residual of a step is the largest
  // change of any unit in it.
  function iterate(step, s, { steps, tolerance = 0 }) {
    const history = [];
    for (let t = 1; t <= steps; t++) {
      const old = s.slice();
      step(t);
      history.push(residual(s, old));
      if (tolerance > 0 && history[history.length - 1] <= tolerance) break;
    }
    const last = history[history.length - 1];
    return { steps: history.length, residual: last, converged: tolerance > 0 && last <= tolerance, history };
  }

  function residual(s, old) {
    let largest = 0;
    for (let n = 1; n < s.length; n++)
      for (let k = 0; k < s[n].length; k++) largest = Math.max(largest, Math.abs(s[n][k] - old[n][k]));
    return largest;
  }

  // --- nudging: points beta_k and weights c_k, with sum_k c_k = 0 and sum_k c_k beta_k = 1 (ep/nudging.py) ---------------------

  const NUDGINGS = {
    "one-sided": (b) => ({ points: [0, b], weights: [-1 / b, 1 / b] }),                        // bias O(beta)
    symmetric: (b) => ({ points: [-b, b], weights: [-0.5 / b, 0.5 / b] }),                     // bias O(beta^2)
    "four-point": (b) => ({ points: [-b, -b / 2, b / 2, b], weights: [1, -8, 8, -1].map((c) => c / (6 * b)) }),  // O(beta^4)
  };

  // mu_n = - sum_k c_k w_n s_n^{beta_k}: the response of the layers to nudging, with the sign turned round
  function response(network, states, { weights }) {
    return states[0].map((layer, n) => (n === 0 ? null : layer.map((_, i) =>
      -factor(network, n) * weights.reduce((sum, c, k) => sum + c * states[k][n][i], 0))));
  }

  // The same from deviations, - sum_k c_k delta_n^{beta_k}; where beta_k = 0 there is none, null
  function responseOfDeviations(deviations, { weights }) {
    return deviations.find((d) => d !== null).map((layer, n) => (n === 0 ? null : layer.map((_, i) =>
      -weights.reduce((sum, c, k) => (deviations[k] ? sum + c * deviations[k][n][i] : sum), 0))));
  }

  // --- gradients ---------------------------------------------------------------------------------------------------------------

  // dPhi/dW_n = w_n s_{n-1} s_n^T,     dPhi/db_n = w_n s_n,     means over the N examples: what each connection multiplies
  function hebbian(network, s) {
    const { sizes, L } = network, N = s[L].length / sizes[L], dPhi = {};
    for (let n = 1; n <= L; n++) {
      const I = sizes[n - 1], J = sizes[n], W = new Float64Array(I * J), b = new Float64Array(J), w = factor(network, n);
      for (let e = 0; e < N; e++)
        for (let j = 0; j < J; j++) {
          const above = (w * s[n][e * J + j]) / N;
          b[j] += above;
          for (let i = 0; i < I; i++) W[i * J + j] += s[n - 1][e * I + i] * above;
        }
      dPhi[`${n}.W`] = W;
      dPhi[`${n}.b`] = b;
    }
    return dPhi;
  }

  // g = - sum_k c_k dPhi/dtheta (s^{beta_k})                                                                                  (4)
  function differenceOfStates(network, states, { weights }) {
    const products = states.map((s) => hebbian(network, s));
    return Object.fromEntries(Object.entries(products[0]).map(([name, first]) => [name, first.map((_, i) =>
      -weights.reduce((sum, c, k) => sum + c * products[k][name][i], 0))]));
  }

  // dL/dW_n = s_{n-1} mu_n^T + gamma mu_{n-1} s_n^T,     dL/db_n = mu_n,     means over the N examples                      (12)
  function products(network, s, mu) {
    const { sizes, L, gamma } = network, N = s[L].length / sizes[L], gradient = {};
    for (let n = 1; n <= L; n++) {
      const I = sizes[n - 1], J = sizes[n], W = new Float64Array(I * J), b = new Float64Array(J);
      for (let e = 0; e < N; e++)
        for (let j = 0; j < J; j++) {
          const m = mu[n][e * J + j], above = s[n][e * J + j];
          b[j] += m / N;
          for (let i = 0; i < I; i++) {
            const back = n > 1 ? gamma * mu[n - 1][e * I + i] * above : 0;               // mu_0 = 0: x does not move
            W[i * J + j] += (s[n - 1][e * I + i] * m + back) / N;
          }
        }
      gradient[`${n}.W`] = W;
      gradient[`${n}.b`] = b;
    }
    return gradient;
  }

  // EP's estimate of dL/dtheta (eqprop_gradient), by (4), or by (12) with settings.deviations. settings { T, K, schedule, beta,
  // nudging, deviations }; y: targets (N * classes). watch: of the free phase; watchPoint(k): of the nudged phase at beta_k.
  function eqpropGradient(network, x, y, settings, { watch = null, watchPoint = () => null } = {}) {
    const { free: up_, nudged: down_ } = phasesOf(settings), nudging = NUDGINGS[settings.nudging](settings.beta);
    const N = x.length / network.sizes[0], free = relax(network, x, up_, { watch }), loss = cost(free.s[network.L], y, N);
    if (!settings.deviations) {
      const phases = nudging.points.map((beta, k) => relax(network, x, down_, { y, beta, start: free.s, watch: watchPoint(k) }));
      const states = phases.map(({ s }) => s);
      const mu = response(network, states, nudging), gradient = differenceOfStates(network, states, nudging);
      return { gradient, loss, mu, free, phases, nudging };
    }
    const phases = nudging.points.map((beta, k) => (beta === 0 ? null : deviate(network, y, beta, free, down_, watchPoint(k))));
    const mu = responseOfDeviations(phases.map((phase) => phase && phase.delta), nudging);
    return { gradient: products(network, free.s, mu), loss, mu, free, phases, nudging };
  }

  // The gradient itself, at the fixed point (rbp_gradient): nothing is nudged, and both relaxations run until they converge.
  //     mu <- sigma'(u*) ( D^T mu + dC/ds )                                                                                  (9)
  function exactGradient(network, x, y, settings, limit = 5000) {
    const free = relax(network, x, { ...phasesOf(settings).free, steps: limit, tolerance: 1e-12 }), { L } = network;
    const slope = free.u.map((u) => u && u.map(dsigma)), dC = force(free.s[L], y).map((v) => -v);
    const mu = zeros(network, x.length / network.sizes[0]);
    const step = () => {
      for (const [n] of SCHEDULES.down(L)) {
        const d = transposedDrive(network, mu, n);
        mu[n] = d.map((v, k) => slope[n][k] * (n === L ? v + dC[k] : v));
      }
    };
    const backwards = iterate(step, mu, { steps: limit, tolerance: 1e-13 });
    return { gradient: products(network, free.s, mu), mu, free, converged: free.converged && backwards.converged };
  }

  function phasesOf({ T, K, schedule }) {
    const [free, nudged] = schedule === "sweeps" ? ["up", "down"] : [schedule, schedule];
    return { free: { steps: T, schedule: free }, nudged: { steps: K, schedule: nudged } };
  }

  function cosine(a, b) {
    let ab = 0, aa = 0, bb = 0;
    for (let k = 0; k < a.length; k++) { ab += a[k] * b[k]; aa += a[k] * a[k]; bb += b[k] * b[k]; }
    return { cosine: ab / Math.sqrt(aa * bb), ratio: Math.sqrt(aa / bb) };
  }

  // --- learning ----------------------------------------------------------------------------------------------------------------

  // The class whose output unit is largest, of every example.
  function predict(s, classes) {
    const of = (e) => s.subarray(e * classes, (e + 1) * classes);
    return range(0, s.length / classes - 1).map((e) => of(e).indexOf(Math.max(...of(e))));
  }

  // Adam (ep.Adam):  m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- w - rate m/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps)
  function makeAdam(network, rate, b1 = 0.9, b2 = 0.999, eps = 1e-8) {
    let t = 0;
    const moments = {};
    return (gradient) => {
      t += 1;
      for (const [name, g] of Object.entries(gradient)) {
        const [n, letter] = name.split("."), w = network[letter][n];
        const { m, v } = (moments[name] ??= { m: new Float64Array(g.length), v: new Float64Array(g.length) });
        for (let k = 0; k < g.length; k++) {
          m[k] = b1 * m[k] + (1 - b1) * g[k];
          v[k] = b2 * v[k] + (1 - b2) * g[k] * g[k];
          w[k] -= (rate / (1 - b1 ** t)) * m[k] / (Math.sqrt(v[k]) / Math.sqrt(1 - b2 ** t) + eps);
        }
      }
    };
  }

  return {
    makeNetwork, factor, energy, cost, SCHEDULES, relax, deviate, NUDGINGS, response, responseOfDeviations, hebbian,
    differenceOfStates, products, eqpropGradient, exactGradient, phasesOf, cosine, predict, makeAdam,
    tanh: { sigma, dsigma, G, difference },
  };
})();

if (typeof module !== "undefined") module.exports = EP;
