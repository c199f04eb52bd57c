"""A network: synapses between layers, an activation, a cost. It knows Phi and its derivatives, but not how to relax.

Synapse k joins layer i to layer j, its Phi_k is a number per example (synapse.py), and layer 0 is the input x:

    Phi(x, s) = sum_k Phi_k(s_i, s_j)              k: i -> j
    E(x, s)   = sum_n G(s_n) - Phi(x, s)           the energy whose stationary points are the fixed points          (2)
    u_n       = dPhi/ds_n                          the drive of layer n: what it hears from below and from above
              = sum_{k: i -> n} drive_post_k(s_i)  +  sum_{k: n -> j} drive_pre_k(s_j)

That is the paper's network. Two things can be added to it, and nothing above changes where they are not:

Weak feedback. Each layer gets a factor w_n, which says how much its part of the energy counts:

    Phi(x, s) = sum_k w_j Phi_k(s_i, s_j),    E(x, s) = sum_n w_n G(s_n) - Phi(x, s),    w_n = gamma^(depth_n - depth_L)     (10)

gamma is the *feedback gain*. At gamma = 1 all factors are 1. With gamma < 1 the lower layers weigh more. Setting dE/ds_n = 0 and
dividing by w_n shows what this does: a drive that comes down from layer j to layer i is multiplied by w_j/w_i, which is gamma
for the layer above and gamma^2 for a skip past one layer. So "dPhi/ds" reads "dPhi/ds_n, divided by w_n" here, and both are
called the drives u. At gamma = 0 nothing comes down: the feed-forward network, but for lateral synapses. It has no Phi and no E.

Asymmetric synapses (vectorfield.py). There is no Phi and no E then, and the drives are all there is.

A *lateral* synapse joins a layer to itself, i = j. Phi has Phi_k(s_n, s_n), whose derivative by s_n is the sum of both drives: of
< s_n, W s_n > it is (W + W^T) s_n. For symmetric couplings J, each pair once in 1/2 < s_n, J s_n >, W is J/2.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from . import ops
from .activations import ACTIVATIONS, Activation, total
from .backend import Array, Gradient, States, array_module, to_host
from .checks import arrayed, named, real, whole
from .cost import COSTS
from .errors import EPError
from .npz import write_npz
from .synapse import Conv, Dense, Filtered, Identity, Synapse
from .vectorfield import Asymmetric

KINDS = (Conv, Dense, Identity, Filtered, Asymmetric)  # the synapses of this package, as files name them


class Network:
    """Layers 0 (the input x), 1 ... L (the states s_1 ... s_L) joined by synapses.

    synapses:   list of synapses (see synapse.py)
    activation: sigma of every layer, an `Activation` or the name of one; or a list of them, one for each layer
    cost:       acts on the last layer, a `SquaredError` or `SoftmaxCrossEntropy`
    wiring:     wiring[k] = (i, j), the layers that synapse k joins, i = j for a lateral one; default the chain 0-1-2-...-L
    feedback:   the feedback gain gamma, 0 or more; 1 is the paper's network. It may be changed later.

    depths      depths[n]: synapses on the longest path from the input to layer n; depths[0] = 0
    gains       w_j/w_i for every synapse i -> j: the factor on what it sends down (nothing is sent down to the input)
    about       None, or a JSON-able dictionary that `save` and `load` carry along (for instance the names of the classes)

    Parameters and gradients are flat dictionaries {"1.W": array, "1.b": ..., "readout.W": ...}: the synapse's number
    (or "readout" for the cost's own), a dot, and the name in the synapse.
    Raises EPError for synapses that do not fit together, a wiring with a circle, and a feedback gain below 0.
    """

    def __init__(self, synapses: Sequence[Any], activation: Activation | str | Sequence[Activation | str], cost: Any,
                 wiring: Sequence[tuple[int, int]] | None = None, feedback: float = 1.0) -> None:
        self.synapses, self.cost = list(synapses), cost
        if strange := [type(synapse).__name__ for synapse in self.synapses if not isinstance(synapse, Synapse)]:
            raise EPError(f"a synapse is an object of a class that inherits from ep.Synapse (see synapse.py): got {strange[0]}")
        several = list(activation) if type(activation) in (list, tuple) else [activation]
        several = [named(one, ACTIVATIONS, "activation") for one in several]
        self.activation = several[0] if len(several) == 1 else several
        wiring = [(k, k + 1) for k in range(len(self.synapses))] if wiring is None else wiring
        self.wiring = [tuple(whole(layer, "layer") for layer in ends) for ends in wiring]
        if not self.synapses or len(self.wiring) != len(self.synapses) or isinstance(cost, (str, type)):
            raise EPError("a network needs at least one synapse, one pair of layers for each, and a cost that has been made, "
                          f"such as SquaredError(): got {len(self.synapses)} synapses, {len(self.wiring)} pairs, {cost!r}")
        self.shapes = self._layer_shapes()
        self.depths = self._layer_depths()
        self.feedback, self.about = feedback, None
        if len(self.activations) != len(self.shapes) - 1:
            raise EPError(f"expected one activation, or one for each of the {len(self.shapes) - 1} layers: got {len(several)}")
        self.holomorphic = all(part.holomorphic for part in (*self.activations, *self.synapses))
        self._check_parts()

    def _check_parts(self):
        """Raise EPError for parts that do not work together, though their shapes may fit."""
        for sigma in [self.activations[j - 1] for synapse, (_, j) in zip(self.synapses, self.wiring)
                      if getattr(synapse, "pool", None) == ops.MAX_POOL]:
            if sigma.bounds[0] < 0:
                raise EPError(f"max-pooling needs states >= 0, and {sigma.name} has negative ones: use another activation, or "
                              "average pooling")
        if any(isinstance(synapse, Asymmetric) and i == 0 for synapse, (i, _) in zip(self.synapses, self.wiring)):
            raise EPError("nothing is fed back to the input: let an asymmetric synapse lead from another layer")
        last, own = self.shapes[-1], type(self.cost) in COSTS.values()
        if own and (len(self.cost.W) != math.prod(last) if self.cost.readout else len(last) > 1):
            raise EPError(f"the {self.cost.name} cost does not fit to a last layer of shape {last}: squared error takes one axis,"
                          " a unit for each class, and a readout has a row of W for each unit")

    def _layer_shapes(self):
        """[shape of x, shape of s_1, ...]; raises EPError where two synapses disagree about a layer."""
        shapes = {}
        for k, (synapse, ends) in enumerate(zip(self.synapses, self.wiring), start=1):
            for layer, shape in zip(ends, (synapse.pre_shape, synapse.post_shape)):
                if shapes.setdefault(layer, shape) != shape:
                    raise EPError(f"synapse {k} expects layer {layer} to have shape {shape}, but it has {shapes[layer]}")
        if any(j == 0 for _, j in self.wiring):
            raise EPError(f"the wiring {self.wiring} leads into layer 0, the input: a synapse (i, j) must lead away from it")
        if sorted(shapes) != list(range(len(shapes))):
            raise EPError(f"layers must be numbered 0 (the input), 1, 2, ... without a gap: the wiring has {sorted(shapes)}")
        return [shapes[n] for n in range(len(shapes))]

    def _layer_depths(self):
        """[longest path from the input to layer n]; raises EPError if the wiring runs in a circle."""
        depths = [0] * len(self.shapes)
        for _ in self.shapes:  # after n passes, every path of n synapses has been followed
            before = list(depths)
            for i, j in self.wiring:
                depths[j] = max(depths[j], depths[i] + (i != j))
            if depths == before:
                return depths
        raise EPError(f"the wiring {self.wiring} runs in a circle: a synapse (i, j) must lead away from the input, or join a "
                      "layer to itself")

    @property
    def activations(self):
        """[sigma of layer 1, ..., of layer L]"""
        return self.activation if isinstance(self.activation, list) else [self.activation] * (len(self.shapes) - 1)

    @property
    def has_phi(self):
        """Whether no synapse is asymmetric. (At gamma = 0 there is no Phi either: `check_energy`.)"""
        return all(synapse.has_phi for synapse in self.synapses)

    @property
    def bilinear(self):
        """Whether no synapse is `Nonlinear`."""
        return all(synapse.bilinear for synapse in self.synapses)

    # --- the feedback gain, equation (10) -----------------------------------------------------------------------------

    @property
    def feedback(self):
        return self._feedback

    @feedback.setter
    def feedback(self, gamma):
        self._feedback = real(gamma, "the feedback gain, which is 1 in the paper's network", 0)
        self.gains = [self._power(self.depths[j] - self.depths[i]) for i, j in self.wiring]

    @property
    def energy_factors(self):
        """[w_1 ... w_L]. At gamma = 0 those below the last layer are infinite."""
        return [self._power(depth - self.depths[-1]) for depth in self.depths[1:]]

    def _power(self, n):
        """gamma^n as a Python number, so that float32 arrays stay float32."""
        try:
            return self.feedback**n
        except (ZeroDivisionError, OverflowError):
            return math.inf

    # --- the scalar functions, per example ----------------------------------------------------------------------------

    def phi(self, x: Array, states: States) -> Array:
        """Phi(x, s) per example, (N,). Raises EPError at gamma = 0, and with asymmetric synapses."""
        self.check_energy()
        self.check_input(x)
        layers, w = [x, *states], [None, *self.energy_factors]
        return sum(w[j] * synapse.phi(layers[i], layers[j]) for synapse, (i, j) in zip(self.synapses, self.wiring))

    def energy(self, x: Array, states: States) -> Array:
        """E(x, s) = sum_n w_n G(s_n) - Phi(x, s) per example, (N,). Raises what `phi` raises."""
        self.check_energy()
        layers = zip(self.energy_factors, [sigma.G for sigma in self.activations], states)
        return sum(w_n * G(s).reshape(len(s), -1).sum(1) for w_n, G, s in layers) - self.phi(x, states)

    def check_energy(self):
        if self.feedback == 0 and math.inf in self.energy_factors:
            raise EPError("a network without feedback (gamma = 0) has no Phi and no energy: nothing comes down in it, so its "
                          "drives are the derivatives of no scalar; use a small gain, or nudge by deviations, which need none")
        dtype = self.any_parameter.dtype
        if (most := max(self.energy_factors)) > 1e-8 * np.finfo(dtype).max:  # room for a sum over units
            raise EPError(f"{dtype} has no room for an energy in which the first layer has the factor {most:.0e} at this gain "
                          "and depth: use dtype='float64', a larger gain, or deviations, which need no energy")

    def check_bilinear(self):
        if not self.bilinear:
            raise EPError("deviations, BPTT, RBP, the spectral radius and asymmetric feedback need a Jacobian, and a nonlinear "
                          "synapse has drives alone: use eqprop_gradient with Phases(..., deviations=False)")

    # --- their derivatives --------------------------------------------------------------------------------------------

    def drives(self, x: Array, states: States) -> tuple[States, list]:
        """(u, switches): u[n-1], the drive of layer n, for every layer, and the switches of every synapse at these states.

            u_n = sum_{k: i -> n} drive_post_k(s_i)  +  sum_{k: n -> j} (w_j/w_n) drive_pre_k(s_j)
        """
        self.check_input(x)
        layers = [x, *states]
        sent = [synapse.drive_post(layers[i]) if synapse.bilinear else (0.0, None)
                for synapse, (i, _) in zip(self.synapses, self.wiring)]
        u = [total([(1.0, 0.0 * s), *self.nonlinear_terms(n, layers)]) for n, s in enumerate(states, start=1)]
        for synapse, (i, j), gain, (up, switches) in zip(self.synapses, self.wiring, self.gains, sent):
            u[j - 1] = u[j - 1] + up
            if i > 0 and synapse.bilinear:  # x is held fixed: nothing drives it
                u[i - 1] = u[i - 1] + gain * synapse.drive_pre(layers[j], switches)
        return u, [switches for _, switches in sent]

    def nonlinear_terms(self, n, layers):
        """[(factor, array), ...]: what `Nonlinear` synapses add to the drive of layer n. It depends on both their ends."""
        return [(factor, drive(layers[ends[0]], layers[ends[1]]))
                for synapse, ends, gain in zip(self.synapses, self.wiring, self.gains) if not synapse.bilinear
                for end, factor, drive in zip(ends, (gain, 1.0), (synapse.drive_pre, synapse.drive_post)) if end == n]

    def input_drives(self, x):
        """{k: drive_post(x)} for the bilinear synapses k that start at the input: constant while x is."""
        x = self.inputs(x)
        return {k: self.synapses[k].drive_post(x) for k, (i, _) in enumerate(self.wiring) if i == 0 and self.synapses[k].bilinear}

    def hebbian(self, x: Array, states: States, switches: list) -> Gradient:
        """dPhi/dtheta summed over the batch, a flat dictionary: w_j hebbian_k(s_i, s_j) for every synapse k: i -> j."""
        self.check_energy()
        layers, w, products = [x, *states], [None, *self.energy_factors], {}
        for k, (i, j) in enumerate(self.wiring):
            for name, g in self.synapses[k].hebbian(layers[i], layers[j], switches[k]).items():
                products[f"{k + 1}.{name}"] = w[j] * g
        return products

    # --- the Jacobian D of the drives, transposed: what BPTT, RBP and the response to nudging have in common ----------

    def deviation_terms(self, n, delta, switches, transposed=True):
        """[(factor, array), ...] that add up to (D^T delta)_n, at given switches, without x and without biases.

            (D^T delta)_n = sum_{k: n -> j} drive_post_adjoint_k(delta_j)
                          + sum_{k: i -> n} (w_n/w_i) drive_pre_adjoint_k(delta_i)

        drive_post carried s_n up to layer j, so its adjoint carries delta_j down to layer n; and the other way round. With
        symmetric synapses these are again drives, the way down without a factor and the way up with the gain.
        A delta_j that is None is zero, and sends nothing.
        transposed=False: the plain drives take the places of the adjoints. It changes asymmetric networks only.
        """
        self.check_bilinear()
        terms, delta = [], [None, *delta]  # x does not move, and nothing flows back into it
        for synapse, (i, j), gain, sw in zip(self.synapses, self.wiring, self.gains, switches):
            if i == n and delta[j] is not None:
                down = synapse.drive_post_adjoint if transposed else synapse.drive_pre
                terms.append((1.0, down(delta[j], sw)))
            if j == n and delta[i] is not None:
                up = synapse.drive_pre_adjoint if transposed else synapse.linear_post
                terms.append((gain, up(delta[i], sw)))
        return terms

    def adjoint_drives(self, mu, switches):
        """[(D^T mu)_1 ... (D^T mu)_L]: how a backward pass carries mu one step back."""
        terms = [self.deviation_terms(n, mu, switches) for n in range(1, len(self.shapes))]
        return [total(those) if those else 0.0 * mu_n for those, mu_n in zip(terms, mu)]

    def parameter_adjoint(self, x, states, switches, mu):
        """dL/dtheta summed over the batch, if a change of u_n changes the loss by <mu_n, change>.

            u_j contains drive_post_k(s_i) and u_i contains (w_j/w_i) drive_pre_k(s_j), so synapse k: i -> j gets

            dW_k = hebbian(s_i, mu_j) + (w_j/w_i) hebbian_down(mu_i, s_j),     db_k = sum mu_j                     (12)

        In an asymmetric network the first product is dW and the second is dB.
        """
        self.check_bilinear()
        s, mu, gradient = [x, *states], [None, *mu], {}
        for k, (synapse, (i, j), gain, sw) in enumerate(zip(self.synapses, self.wiring, self.gains, switches), start=1):
            products = (synapse.hebbian_pair(s[i], mu[j], mu[i], s[j], gain, sw) if i > 0
                        else synapse.hebbian(x, mu[j], sw))  # mu_0 = 0: x does not move
            gradient.update({f"{k}.{name}": g for name, g in products.items()})
        return gradient

    def readout_gradient(self, states, y):
        """dC/dtheta of the cost's own parameters, summed over the batch, a flat dictionary (empty for squared error)."""
        return {f"readout.{name}": g for name, g in self.cost.gradient(states[-1], y).items()}

    # --- the two ends -------------------------------------------------------------------------------------------------

    def init_state(self, x: Array) -> States:
        """All states zero, with the dtype and on the device of x."""
        self.check_input(x := arrayed(x, "the inputs"))
        return [array_module(x).zeros((len(x), *shape), dtype=x.dtype) for shape in self.shapes[1:]]

    def check_input(self, x):
        """Raise EPError if x has the wrong shape or type."""
        if x.shape[1:] != self.shapes[0] or x.dtype.kind not in "fc":
            H, W, C = self.shapes[0] if len(self.shapes[0]) == 3 else (0, 0, 0)
            last = "; images are channels-last: x.transpose(0, 2, 3, 1)" if x.shape[1:] == (C, H, W) else ""
            raise EPError(f"expected inputs of shape (N, {', '.join(map(str, self.shapes[0]))}) and a float type: got "
                          f"{tuple(x.shape)}, {x.dtype}{last}")

    def inputs(self, x):
        """x (N, *input shape), checked, and in the dtype of the parameters: float64 in a float32 network would cost much time.

        A list becomes an array. Complex x, and x in a network with complex parameters, keep their dtype. Raises EPError for
        another shape or type, for no images at all, and, on the host, for numbers that are not finite.
        """
        x, some = arrayed(x, "the inputs"), self.any_parameter
        self.check_input(x)
        if len(x) == 0:
            raise EPError(f"expected at least one input: got none, shape {tuple(x.shape)}")
        if x.dtype != some.dtype and x.dtype.kind == some.dtype.kind == "f":
            x = x.astype(some.dtype)
        if array_module(x) is np and not np.isfinite(x).all():  # a GPU would wait for the answer, at every phase
            first = int(np.isfinite(x).reshape(len(x), -1).all(1).argmin())
            raise EPError(f"the inputs have values that are NaN or infinite, the first in input {first} of 0 to {len(x) - 1}: "
                          "leave these images out, or repair them")
        return x

    def examples(self, x, y):
        """(inputs, one-hot targets of their dtype) as `inputs` and `targets` give them; EPError unless there is one y per x."""
        x = self.inputs(x)
        y = self.targets(y, x.dtype)
        if len(x) != len(y):
            raise EPError(f"expected one label or target per input: got {len(y)} for {len(x)} inputs")
        return x, y

    @property
    def any_parameter(self):
        """One of the parameters, which all have the same type and are on the same device; a number if there are none."""
        return next(iter(self.parameters().values()), np.zeros(1))

    def targets(self, labels: Any, dtype: Any = None) -> Array:
        """Integer labels (N,) -> one-hot (N, classes), on the network's device; (N, classes) stays what it is.

        Raises EPError for another shape, for labels outside 0 ... classes - 1, and, on the host, for targets that are not finite.
        """
        some, labels = self.any_parameter, arrayed(labels, "the labels")
        of_readout = getattr(self.cost, "readout", False)
        classes = len(self.cost.parameters()["b"]) if of_readout else self.shapes[-1][0]  # or the units of the last layer
        xp, dtype = array_module(some), dtype or some.dtype
        kinds = "biufc" if np.dtype(dtype).kind == "c" else "biuf"
        if labels.ndim == 2 and labels.shape[1] == classes and labels.dtype.kind in kinds:
            if array_module(labels) is np and not np.isfinite(labels).all():
                raise EPError("the targets have values that are NaN or infinite")
            return xp.asarray(labels, dtype=dtype)
        numbers = labels.size and labels.dtype.kind in "iu"
        if labels.ndim != 1 or not numbers or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            found = f", from {labels.min()} to {labels.max()}" if numbers else ""
            raise EPError(f"expected integer labels (N,) from 0 to {classes - 1}, or targets (N, {classes}): got shape "
                          f"{tuple(labels.shape)}, {labels.dtype}{found}")
        return (xp.asarray(labels)[:, None] == xp.arange(classes)).astype(dtype)

    def predict(self, states: States) -> Array:
        """The likeliest class per example, (N,) integers, from relaxed states."""
        return self.cost.output(states[-1]).argmax(1)

    # --- parameters ---------------------------------------------------------------------------------------------------

    def _owners(self):
        return {**{str(k): synapse for k, synapse in enumerate(self.synapses, start=1)}, "readout": self.cost}

    def parameters(self) -> Gradient:
        """{"1.W": array, ...}: the arrays themselves, so an optimizer may change them in place."""
        return {f"{layer}.{name}": w for layer, owner in self._owners().items() for name, w in owner.parameters().items()}

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Replace every parameter by a copy of the one of the same name. Raises EPError, before any change, if they do not fit.

        A float or complex type is kept, so this also makes a float32 network one of float64; integers and lists get the type
        that the parameter had. The device stays that of the network. Optimizers ask the network for its parameters, and follow.
        """
        own = self.parameters()
        parameters = {key: arrayed(w, f"parameter {key}", axes=0) for key, w in parameters.items()}
        if own.keys() != parameters.keys():
            raise EPError(f"these parameters belong to another architecture: expected {sorted(own)}, got "
                          f"{sorted(parameters)}")
        for key, w in parameters.items():
            if w.shape != own[key].shape:
                raise EPError(f"parameter {key} belongs to another architecture: expected shape {own[key].shape}, got "
                              f"{w.shape}")
        for key, w in parameters.items():
            xp = array_module(own[key])
            self._replace(key, xp.array(w if array_module(w) is xp else to_host(w),
                                        dtype=w.dtype if w.dtype.kind in "fc" else own[key].dtype))

    def _replace(self, key, w):
        layer, name = key.split(".")
        setattr(self._owners()[layer], name, w)

    def to(self, xp: ModuleType) -> Self:
        """Move the parameters to the module xp (numpy or cupy), in place; returns the network."""
        for key, w in self.parameters().items():
            self._replace(key, xp.asarray(to_host(w)))
        return self

    def save(self, path: str | Path) -> None:
        """Write the network to one .npz file, without pickle: what `written` says of it. Read it back with `builders.load`.

        Raises EPError for a network that could not be read back.
        """
        description, arrays = self.written()
        arrays = {key: to_host(w) for key, w in arrays.items()}
        try:
            arrays["network"] = np.array(json.dumps({**description, "about": self.about}))
        except TypeError as error:
            raise EPError(f"network.about cannot be written as JSON ({error}): use lists, strings and Python numbers") from None
        write_npz(path, arrays)

    def written(self) -> tuple[dict, Gradient]:
        """(description, arrays): JSON, and its arrays. Classes of one's own are named, and whoever loads the file passes them.

        Raises EPError for a network that could not be read back.
        """
        names, arrays = [sigma.name for sigma in self.activations], self.parameters()
        parts = [described(synapse, str(k), arrays) for k, synapse in enumerate(self.synapses, start=1)]
        if type(self.cost) not in COSTS.values() or [ACTIVATIONS.get(name) for name in names] != self.activations:
            raise EPError("this network has an activation or a cost that is none of this package's, and a file runs no code: "
                          "save network.parameters() instead")
        description = dict(synapses=parts, wiring=self.wiring, cost=self.cost.name, feedback=self.feedback,
                           activation=names if isinstance(self.activation, list) else names[0])
        return description, arrays


def described(synapse, key, arrays):
    """[its class, {argument: value}, {argument: key of an array}, {argument: another synapse, described}], as JSON.

    These are the arguments of its constructor (`Synapse.arguments`). `arrays` gets those that it does not have yet.
    """
    kind = ("ep." if type(synapse) in KINDS else "") + type(synapse).__name__
    try:
        arguments = synapse.arguments()
        parts = {name: described(a, f"{key}.{name}", arrays) for name, a in arguments.items() if isinstance(a, Synapse)}
        large = {name: a for name, a in arguments.items() if hasattr(a, "dtype")}
        small = json.loads(json.dumps({name: a for name, a in arguments.items() if name not in parts | large}))
    except (AttributeError, TypeError) as error:
        raise EPError(f"the arguments of synapse {key}, {kind}, are neither arrays nor JSON ({error}): save network.parameters() "
                      "instead") from None
    for name, a in large.items():
        large[name] = next((known for known, b in arrays.items() if b is a), f"{key}.{name}")
        arrays[large[name]] = a
    return [kind, small, large, parts]
