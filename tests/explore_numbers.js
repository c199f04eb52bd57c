// Run in the page by test_explore.py: what ep.js computes for the cases of docs/explore/cases.json, under the same names.
// arguments: the content of cases.json.

const [cases] = arguments, ep = EP;
const { sizes, tasks, initial, target, rate, settings } = EP_DATA, L = sizes.length - 1, ns = [1, 2, 3];

const flat = (points) => Float64Array.from(points.flat());
const targets = (labels) => Float64Array.from(labels.flatMap((label) => [0, 1].map((k) => (k === label ? target : -target))));
const rows = (a, units) => Array.from({ length: a.length / units }, (_, e) => [...a.slice(e * units, (e + 1) * units)]);
const layers = (s) => ns.map((n) => rows(s[n], sizes[n]));
const named = (g) => Object.fromEntries(Object.entries(g).map(
  ([name, v]) => [name, name.endsWith("W") ? rows(v, sizes[name[0]]) : [...v]]));
const correct = (s, labels) => ep.predict(s, 2).filter((label, k) => label === labels[k]).length;

function relaxed(c) {
  const of = tasks[c.task], network = ep.makeNetwork(sizes, c.weights === "initial" ? initial : of.trained, c.settings.gamma);
  const x = flat(of.x.slice(0, c.points)), labels = of.y.slice(0, c.points), y = targets(labels), energies = [];
  const found = ep.eqpropGradient(network, x, y, c.settings), exact = ep.exactGradient(network, x, y, c.settings);
  const { free, nudging, gradient, loss } = found;
  const watch = (t, group, s) => {
    const E = ep.energy(network, s);
    energies[t - 1] = E.reduce((sum, v) => sum + v, 0) / E.length;  // the last group of a step has the last word
  };
  ep.relax(network, x, ep.phasesOf(c.settings).free, { watch });
  return {
    factors_of_layers: ns.map((n) => ep.factor(network, n)), states: layers(free.s), u: layers(free.u), residual: free.residual,
    history: free.history.map((r, t) => [r, energies[t]]), energy: [...ep.energy(network, free.s)], nudging, loss,
    nudged: found.phases.filter((phase) => phase).map(({ s, delta }) => layers(delta ?? s)), gradient: named(gradient),
    correct: correct(free.s[L], labels), exact: named(exact.gradient), fixed_point: layers(exact.free.s),
    converged: exact.converged,
  };
}

function learned({ task, updates }) {
  const of = tasks[task], network = ep.makeNetwork(sizes, initial, settings.gamma), adam = ep.makeAdam(network, rate);
  const losses = [];
  for (let t = 0; t < updates; t++) {
    const { gradient, loss } = ep.eqpropGradient(network, flat(of.x), targets(of.y), settings);
    adam(gradient);
    losses.push(loss);
  }
  const s = ep.relax(network, flat(of.test_x), ep.phasesOf(settings).free).s[L];
  const parameters = named(Object.fromEntries(ns.flatMap((n) => [[`${n}.W`, network.W[n]], [`${n}.b`, network.b[n]]])));
  return { losses, parameters, accuracy: correct(s, of.test_y) / of.test_y.length };
}

return { cases: cases.cases.map(relaxed), training: cases.training.map(learned) };
