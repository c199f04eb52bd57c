"""Wrong rules, each of which an ordinary test of this suite must catch: the tests are tested.

A mutant is one replacement in the source, and the checks that must notice it: each passes as the source is, and fails with it.

    MUTANTS    of the core and its engine: planted in this process, one after the other, whenever the tests run
    KERNELS    of the code that a GPU compiles: where the real CuPy runs on a CPU (docs/cupy_without_gpu.md)
    JOBS       of ep/train and the examples: each takes a process and seconds, so they run on demand,
               python tests/test_mutants.py                 with every option of every example, ignored: ten minutes of one core
               python tests/test_mutants.py nudging flip    those whose name contains one of the words; --list prints the names

A mutant whose text has left the source is an error of its own: bring it up to date.
"""

import argparse
import ast
import functools
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_activations
import test_builders
import test_cost
import test_fast
import test_gdu as D
import test_gradients as G
import test_graph
import test_identities as I
import test_kernels
import test_ops
import test_papers_code
import test_resnet
from cases import ANGLE, CE, SE, Case
from cupy_on_cpu import running
from test_gpu import check_float32, check_waits, example

import ep
from ep.activations import HARD_SIGMOID
from ep.backend import array_module, to_host
from ep.fast import kernels

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    where: str  # a file from ROOT, and ":qualified.name" of the function in it; or "kernel:name"
    right: str
    wrong: str
    checks: tuple  # of (test, *arguments), or names of tests as pytest takes them


def of(where, right, wrong, *checks):
    module, _, function = where.partition(":")
    return Mutant(f"ep/{module}.py:{function}", right, wrong, checks)


# --- the checks -------------------------------------------------------------------------------------------------------------

AVERAGE, MAX, DENSE = Case("average"), Case("max", cost=SE), Case("dense", "tanh", SE, 0.3)
WEAK, CLIPPED = Case("average", gain=0.3), Case("max", "hard-sigmoid", SE, 0.3)
TILTED, TILTED_MAX, TILTED_WEAK = (Case(kind, cost=SE, gain=gain, angle=ANGLE)
                                   for kind, gain in (("average", 1.0), ("max", 1.0), ("average", 0.3)))
SKIP, OWN = Case("triangle", cost=SE, gain=0.3), Case("one's own", cost=SE, gain=0.3)


RBP, EP = G.test_bptt_and_rbp_are_the_slope_of_the_loss, G.test_ep_by_deviations_is_the_slope_of_the_loss
STATES = G.test_ep_by_the_difference_of_states_is_the_slope_of_the_loss
FROZEN = G.test_deviations_are_differences_of_frozen_states
SWEEP, GDU = G.test_the_reverse_sweep_uses_the_switches_of_its_own_step, D.test_every_increment_is_bptts
GDU_OF_STATES, JACOBIAN = D.test_every_increment_of_states_is_bptts, I.test_transposed_drives_are_the_transposed_jacobian
PHI, DERIVATIVES = I.test_phi_by_each_of_its_faces, I.test_drives_and_products_are_the_derivatives_of_phi
ENERGY, AT_REST = I.test_the_slope_of_the_energy_anywhere, I.test_the_free_fixed_point_is_stationary_for_the_energy
FACES, UP, DOWN = I.test_three_faces_of_one_number, I.test_the_way_up_and_its_adjoint, I.test_the_way_down_and_its_adjoint
OWN_RULE = G.test_the_own_rule_is_wrong_where_B_is_not_W_and_right_where_it_is
PAPERS_CODE = test_papers_code.test_with_its_conventions_the_published_code_is_reproduced

STEP = (I.test_a_step_is_sigma_of_the_drives, AVERAGE)
GAIN = (I.test_a_drive_that_comes_down_is_multiplied_by_its_gain,)
SWEEP_DOWN = (I.test_one_sweep_down_carries_the_nudge_to_the_first_layer,)
FAST = (test_fast.test_every_phase, 4, "symmetric", "checkerboard", CE, "max")
FAST_ASYMMETRIC = (test_fast.test_every_phase, 1, "asymmetric", "synchronous", SE, "max")
FAST_GAIN = (test_fast.test_feedback, 0.3, "symmetric", "up")
FAST_TIES = (test_fast.test_max_pooling_from_zero, 4, "symmetric", "synchronous", (4, 4, 4, 4), 40)
FAST_RESPONSE = (test_fast.test_response_and_products, "max", HARD_SIGMOID, CE, "symmetric", True)
FAST_TRANSPOSED = (test_fast.test_response_and_products, "max", HARD_SIGMOID, CE, "asymmetric", True)
FAST_WIRING = (test_resnet.test_every_wiring_fast, "two ways down from one layer, two inputs", "synchronous")
DOWN_AND_UP = """down(layers[j], sw)
            if j in group:
                result[j] = result[j] + times(gain, up(layers[i], sw))"""
LATER = ("for (states, u, _), switches in zip(reversed(trajectory), [network.drives(x, s)[1] for s in "
         "[final_states, *[t[0] for t in reversed(trajectory)]]]):")

# --- the core ---------------------------------------------------------------------------------------------------------------

MUTANTS = {  # name: (file:function, right, wrong, check, ...)
    "sign of the response": of("dynamics:response", "mu_n - c *", "mu_n + c *", (EP, AVERAGE), (EP, MAX)),
    "factor 2 in the response": of("dynamics:response", "mu_n - c *", "mu_n - 2 * c *", (EP, AVERAGE)),
    "sign of the increments": of("eqprop:eqprop_increments", "m - c * d for", "m + c * d for", (GDU, MAX)),
    "sign of the nudging": of("dynamics:deviate", "d[L] + beta *", "d[L] - beta *", (EP, AVERAGE), (GDU, MAX)),
    "nudge at s*, not at the nudged state": of(
        "dynamics:deviate", "free.states[-1] + delta[-1]", "free.states[-1]", (FROZEN, Case("average"))),
    "sign of the difference of states": of("eqprop:difference_of_states", "- c * dPhi[name]", "+ c * dPhi[name]",
                                           (STATES, AVERAGE)),
    "factor 2 in the difference of states": of(
        "eqprop:difference_of_states", "- c * dPhi[name]", "- 2 * c * dPhi[name]", (STATES, AVERAGE)),
    "one-sided against s_T": of("eqprop:difference_of_states", 'free.converged or conventions.rest == "stays"', "True",
                                (G.test_what_has_not_settled_cancels, False)),
    "sign of the increments of states": of("eqprop:_increments_of_states", "- c * (dPhi_new", "+ c * (dPhi_new",
                                           (GDU_OF_STATES, MAX)),
    "sign of the nudging of states": of("dynamics:relax", "drives[L] + beta *", "drives[L] - beta *", (STATES, AVERAGE),
                                        (GDU_OF_STATES, MAX)),
    "factor 2 in the batch mean": of("dynamics:estimate", "gradient[name] / N", "gradient[name] / (2 * N)", (EP, AVERAGE)),
    "sum over the batch": of("dynamics:estimate", "gradient[name] / N", "gradient[name]", (EP, AVERAGE),
                             (G.test_the_gradient_is_a_batch_mean, "eqprop")),
    "readout's gradient at a nudged state": of(
        "eqprop:eqprop_gradient", "network.readout_gradient(free.states, y)",
        "network.readout_gradient(relax(network, x, 9, y, 0.1, start=free.states).states, y)", (EP, AVERAGE)),
    "readout's gradient not weighted by beta": of("eqprop:_readout", "c * beta * g", "c * g",
                                                  (PAPERS_CODE, "symmetric", "symmetric")),
    "both readouts from s*": of("eqprop:_readout", 'where == "free"', "True", (PAPERS_CODE, "symmetric", "symmetric")),
    "common update twice": of("eqprop:_asymmetric_products", "0.5 * g if", "g if", (PAPERS_CODE, "kolen-pollack", "symmetric")),
    "common update from s*": of("eqprop:_asymmetric_products", 'phase if products == "common" else free', "free",
                                (PAPERS_CODE, "kolen-pollack", "symmetric")),
    "own dB at the switches of s*": of("eqprop:_asymmetric_products", "(of[0], own[1])", "of", (PAPERS_CODE, "own", "symmetric")),
    "one half of a gradient that replaces the other": of(
        "network:Network.parameter_adjoint", "g[name] + gain * dW if name in g else gain * dW", "gain * dW",
        (G.test_both_halves_of_a_gradient_that_is_not_called_W,), (RBP, OWN)),
    "kernel not flipped": of("ops:conv_adjoint_input", "W.reshape(-1", "W[::-1, ::-1].reshape(-1", (FACES, "conv, no pooling"),
                             (test_ops.test_conv_adjoints, 3, 1, 1, 7, 6, "float64"), (RBP, AVERAGE)),
    "last of equals wins": of("ops:max_pool", "corner > v", "corner >= v", (test_ops.test_ties_first_wins,)),
    "top-down by average unpooling": of("synapse:Conv.drive_pre", "self.pool.unpool", "ops.average_unpool",
                                        (FACES, "conv, max"), (UP, "conv, max"), (DOWN, "conv, max"), (RBP, MAX), (SWEEP, MAX)),
    "top-down always to the first corner": of("synapse:Conv.drive_pre", "unpool(post, switches,", "unpool(post, 0 * switches,",
                                              (FACES, "conv, max"), (DOWN, "conv, max"), (RBP, MAX), (SWEEP, MAX)),
    "adjoint at live switches": of("synapse:Conv.linear_post", "self.pool.pool_at(self._conv(pre), switches)",
                                   "self.pool.pool(self._conv(pre))[0]", (UP, "conv, max"), (GDU, MAX)),
    "bias in the adjoint": of("network:Network.transposed_drives", "up(layers[i], sw)", "synapse.drive_post(layers[i], sw)[0]",
                              (GDU, MAX), (RBP, AVERAGE), (SWEEP, MAX)),
    "bias divided by the window": of("synapse:Conv.hebbian", "post.sum((0, 1, 2))", "0.25 * post.sum((0, 1, 2))",
                                     (FACES, "conv, max"), (RBP, AVERAGE)),
    "stale switches in BPTT (those of s_{t+1})": of("bptt:sweep", "for states, u, switches in reversed(trajectory):", LATER,
                                                    (SWEEP, MAX)),
    "dW without its second half": of("network:Network.parameter_adjoint", "g[name] + gain * dW", "g[name]", (RBP, AVERAGE),
                                     (SWEEP, MAX)),
    "mu without sigma'": of("bptt:sweep", "dsigma(u_n) * lam_n", "lam_n", (GDU, MAX), (RBP, AVERAGE), (SWEEP, MAX)),
    "BPTT that starts too late": of("bptt:bptt_gradient", "solver.relax(network, x, T - K)", "solver.relax(network, x, T)",
                                    (G.test_bptt_is_the_derivative_of_the_unrolled_loss, MAX, 7, 4)),
    "RBP without sigma'": of("rbp:rbp_gradient", "slopes[n - 1] * (lam", "(lam", (RBP, MAX)),
    "RBP that pushes away from the target": of("rbp:rbp_gradient", "dC = -network", "dC = network", (RBP, MAX)),
    "RBP whose nudge does not stay": of("rbp:rbp_gradient", "lam[n] + dC if", "lam[n] + dC * (not mu[-1].any()) if", (RBP, MAX)),
    "RBP through D": of("network:Network.transposed_drives", "synapse.drive_post_adjoint", "synapse.drive_pre", (RBP, TILTED)),
    "sigma' without 1/2": of("activations:_hard_sigmoid_slope", "0.5 * _between(u, 0.0, 2.0)", "_between(u, 0.0, 1.0)",
                             (test_activations.test_dsigma_is_the_derivative_of_sigma, "hard-sigmoid")),
    "G = 1/2 s^2 for clip(u/2, 0, 1)": of("activations:_hard_sigmoid_G", "s * s", "0.5 * s * s",
                                          (test_activations.test_G_is_the_integral_of_the_inverse, "hard-sigmoid"),
                                          (AT_REST, Case("average", "hard-sigmoid")), (ENERGY, Case("average", "hard-sigmoid"))),
    "no top-down drives": of("network:Network.drives_of", "u[i] = u[i] +", "u[i] = u[i] + 0.0 *", (DERIVATIVES, DENSE),
                             (AT_REST, AVERAGE)),
    "synchronous steps from new values": of("dynamics:relax", "SCHEDULES[phase.schedule](network)",
                                            "[[n] for n in range(1, 1 + len(states))]", (GDU_OF_STATES, MAX), STEP),
    "frozen switches that thaw": of("network:Network.drives_of", "if frozen else None", "if False else None",
                                    (I.test_frozen_switches_are_kept_throughout,)),
    "softmax without the shift": of("cost:SoftmaxCrossEntropy._logits", "z - z.real.max(1, keepdims=True)", "z",
                                    (test_cost.test_large_logits_do_not_overflow, "float64")),
    "force of the squared error": of("cost:SquaredError.force", "y - s", "s - y",
                                     (test_cost.test_the_force_is_minus_the_derivative_of_the_cost, "squared error")),
    "forward switches on the way down": of("vectorfield:Asymmetric.drive_pre", "switches[1]", "switches[0]",
                                           (DOWN, "asymmetric conv, max"), (SWEEP, TILTED_MAX), (RBP, TILTED_MAX)),
    "feedback that pools by the forward convolution": of(
        "vectorfield:Asymmetric.drive_post", "self.feedback.winners", "self.forward.winners",
        (I.test_up_through_W_and_down_through_B, "conv, max")),
    "W instead of B in the reverse sweep": of("vectorfield:Asymmetric.drive_pre_adjoint", "self.feedback", "self.forward",
                                              (DOWN, "asymmetric dense"), (SWEEP, TILTED_MAX), (RBP, TILTED_MAX)),
    "B instead of W in the reverse sweep": of(
        "vectorfield:Asymmetric.drive_post_adjoint", "self.forward.drive_pre(post, switches[0])",
        "self.feedback.drive_pre(post, switches[1])", (UP, "asymmetric dense"), (SWEEP, TILTED_MAX), (RBP, TILTED_MAX)),
    "reverse sweep not transposed": of("network:Network.transposed_drives", "synapse.drive_post_adjoint", "synapse.drive_pre",
                                       (SWEEP, TILTED_MAX), (RBP, TILTED_MAX), (JACOBIAN, TILTED)),
    "forward switches for both products": of("vectorfield:Asymmetric.hebbian_down", "switches[1]", "switches[0]",
                                             (DOWN, "asymmetric conv, max"), (RBP, TILTED_MAX)),
    "transposed ignored in deviate": of("dynamics:deviate", "free.switches, group, transposed)", "free.switches, group)",
                                        (FROZEN, TILTED_MAX)),
    "transposed lost on the way to deviate": of(
        "dynamics:response", "phase, transposed)", "phase)",
        (OWN_RULE, TILTED)),
    "bias in the plain deviations": of("vectorfield:Asymmetric.linear_post", "self.forward.linear_post(pre, switches[0])",
                                       "self.forward.drive_post(pre, switches[0])[0]", (FROZEN, TILTED_MAX),
                                       (I.test_given_switches_are_kept, "asymmetric conv, max")),
    "w_n forgotten in hebbian": of("network:Network.hebbian", "= w[j] * g", "= g", (PHI, WEAK), (DERIVATIVES, WEAK),
                                    (STATES, WEAK)),
    "w_n forgotten in Phi": of("network:Network.phi", "w[j] * synapse.phi", "synapse.phi", (PHI, WEAK), (ENERGY, WEAK)),
    "w_n forgotten in the energy": of("network:Network.energy", "w_n * G(s)", "G(s)", (PHI, WEAK), (ENERGY, WEAK),
                                      (AT_REST, WEAK)),
    "w_n forgotten in the increments of states": of("eqprop:_increments_of_states", "- c * w *", "- c *", (GDU_OF_STATES, WEAK)),
    "w_n forgotten in the deviations": of("dynamics:deviate", "delta[n - 1] = w *", "delta[n - 1] =", (EP, WEAK),
                                          (FROZEN, WEAK)),
    "w_n forgotten inside sigma": of("dynamics:deviate", "d[n] / w", "d[n]", (FROZEN, WEAK)),
    "gain applied twice on the way down": of("network:Network.drives_of", "times(gain,", "times(gain * gain,",
                                             (DERIVATIVES, SKIP), (ENERGY, WEAK), (AT_REST, WEAK), GAIN),
    "gain forgotten on the way down": of("network:Network.drives_of", "times(gain,", "times(1.0,", (DERIVATIVES, WEAK),
                                         (ENERGY, WEAK), (AT_REST, WEAK)),
    "the same gain on every way down": of("network:Network.gains", "self.depths[j] - self.depths[i]", "1", GAIN, (STATES, SKIP)),
    "gain down instead of up in D^T": of(
        "network:Network.transposed_drives", DOWN_AND_UP,
        DOWN_AND_UP.replace("times(gain", "times(1.0").replace("down(", "gain * down("),
        (RBP, WEAK), (FROZEN, WEAK), (JACOBIAN, WEAK)),
    "gain forgotten in D^T": of("network:Network.transposed_drives", "times(gain,", "times(1.0,", (RBP, WEAK), (FROZEN, WEAK)),
    "gain forgotten in the second half of dW": of(
        "network:Network.parameter_adjoint", "g[name] + gain * dW", "g[name] + dW", (RBP, WEAK), (GDU_OF_STATES, WEAK)),
    "gain forgotten in dB": of("network:Network.parameter_adjoint", "else gain * dW", "else dW", (RBP, TILTED_WEAK)),
    "cancellation put back, clipped": of(
        "activations:_clip_difference", "_clip(e + (v - c), -c, high - c)", "_clip(v + e, 0.0, high) - c",
        (test_activations.test_the_difference_for_tiny_steps, "hard-sigmoid", "float32", 1e-30),
        (G.test_deviations_keep_the_digits_that_a_difference_of_states_loses,)),
    "cancellation put back, smooth": of(
        "activations:_tanh_difference", "xp.tanh(e) * (1.0 - xp.tanh(v) * xp.tanh(v + e))", "xp.tanh(v + e) - xp.tanh(v)",
        (test_activations.test_the_difference_for_tiny_steps, "sigmoid", "float32", 1e-30)),
    "difference without bounds": of("activations:_clip_difference", "_clip(e + (v - c), -c, high - c)", "e",
                                    (test_activations.test_the_difference_for_large_steps, "clip"), (FROZEN, CLIPPED)),
    "downward sweep that uses old values": of(
        "dynamics:down", "up(network)[::-1]", "synchronous(network)", SWEEP_DOWN,
        (G.test_weak_feedback_is_backpropagation, Case("dense", "tanh", scale=1.5))),
    "downward sweep that goes up": of("dynamics:down", "up(network)[::-1]", "up(network)", SWEEP_DOWN),
    "colours by parity": of(
        "dynamics:checkerboard", "next(c for c in range(len(network.shapes)) if c not in neighbours)", "(n + 1) % 2",
        (I.test_steps_of_some_layers_at_a_time_never_raise_the_energy, I.DECIDED_BY_ITS_SKIP, "checkerboard")),
    "calibrate: identities for nothing": of("builders:calibrate", "identities**-0.5", "1.0",
                                            (test_builders.test_calibrated_drives, Case("residual", gain=0.0))),
    "resnet: blocks that are left over": of("builders:resnet", "(blocks + stage) // stages", "blocks // stages",
                                            (test_builders.test_the_wiring_of_a_residual_network,)),
    "Kolen-Pollack with the difference": of(
        "vectorfield:kolen_pollack", "+ g for name", "- g for name", (G.test_kolen_pollack_touches_only_pairs,),
        (OWN_RULE, TILTED)),
    "Kolen-Pollack for W alone": of("vectorfield:kolen_pollack", 'in "WB"', 'in "W"', (
        G.test_kolen_pollack_touches_only_pairs,)),
    "fast: kernel not flipped": of("fast/winograd:transform_flipped", "np.ascontiguousarray(W[::-1, ::-1]",
                                 "np.ascontiguousarray(W[:, :]", FAST, FAST_RESPONSE),
    "fast: W on the way down": of("fast/synapses:FastConv.start", "self.of_B.down, gain",
                                "self.of_W.down, gain", FAST_ASYMMETRIC),
    "fast: no gain on the way down": of("fast/synapses:FastConv.start", "self.of_B.down, gain", "self.of_B.down", FAST_GAIN),
    "fast: a drive of old states": of("fast/chain:Chain.step", "self.fresh[k] = False", "pass", FAST),
    "fast: a copy of an old state": of("fast/chain:Chain.step", "self.fed.discard(k)", "pass",
                                     (test_resnet.test_every_wiring_fast, "13 layers", "up")),
    "fast: zero for ever": of("fast/chain:Chain.step", "self.zero[n], self.reached[n] = False,",
                            "self.zero[n], self.reached[n] = self.zero[n],", FAST_GAIN),
    "fast: ties left to rounding": of("fast/chain:Chain.drive_post", "not self.reached[pre]", "False", FAST_TIES),
    "fast: an image that arrives at once": of("fast/chain:Chain.clear", "[True] + [False] * L", "[True] + [True] * L", FAST_TIES),
    "fast: last of equals wins": of("fast/pooling:MaxPool.pool", "y_1 > y_0, y_3 > y_2", "y_1 >= y_0, y_3 > y_2",
                                  (test_fast.test_ties_first_wins,)),
    "fast: the last of several ways down only": of("fast/chain:added", "for rows, part in stripes:", "for rows, part in ():",
                                                 FAST_WIRING),
    "fast: an identity without its gain": of("fast/synapses:FastIdentity.drive_pre", "self.gain * post", "post", FAST_WIRING),
    "fast: bottom row to the top": of("fast/pooling:MaxPool.pool", "bottom = low > top", "bottom = low < top", FAST),
    "fast: frozen switches that thaw": of("fast/synapses:FastConv.drive_post", "pool.at_switches if frozen",
                                          "pool.pool if frozen", FAST),
    "fast: tiles without overlap": of("fast/winograd:overlapping", "m * row", "length * row",
                                    (test_fast.test_convolution, 4, 8, 8, 1, None)),
    "fast: rows that come too late": of("fast/pooling:Feed.__call__", "-(-rows // self.size)", "rows // self.size - 1",
                                      FAST, FAST_RESPONSE),
    "fast: kernel's gradient not transformed back": of("fast/winograd:transform_gradient", "_GG(m, dU.dtype).T",
                                                     "_GG(m, dU.dtype)[::-1].T", FAST_RESPONSE),
    "fast: one product for two": of("fast/synapses:FastConv.products", "result(fill)", "result(fill, (0,))", FAST_RESPONSE),
    "fast: product without the gain": of("fast/synapses:FastConv.products", "np.multiply(mu_pre, self.gain",
                                         "np.multiply(mu_pre, 1", FAST_RESPONSE),
    "fast: response through D": of("fast/synapses:FastConv.start_response", "(self.of_W, self.of_B) if transposed",
                                 "(self.of_B, self.of_W) if transposed", FAST_TRANSPOSED),
    "fast: response at the other switches": of("fast/synapses:FastConv.start_response", "pools if transposed",
                                                "pools[::-1] if transposed",
                                             FAST_TRANSPOSED),
    "fast: response with the gain downwards": of("fast/synapses:FastConv.start_response", "self.down.set(down.down, scale)",
                                               "self.down.set(down.down, scale * self.gain)", FAST_RESPONSE),
    "fast: deviations that do not return": of("fast/response:Deviations.step", "self.moved[n] = moves", "pass", FAST_RESPONSE),
    "fast: weights forgotten": of("fast/response:Deviations.clipped", "self.weights[n - 1]", "1.0", FAST_RESPONSE),
    "fast: every unit inside its bounds": of("fast/response:Deviations.clipped", "offset += low", "offset *= 0", FAST_RESPONSE),
    "fast: buffers of other images": of("fast/chain:Chain.holds", "all(a is b for a, b in zip(wanted, self.held))", "True",
                                      (test_fast.test_results_are_not_overwritten,)),
    "fast: an image of another batch": of("fast/synapses:FirstConv.product", "self.x is not x", "self.x is None",
                                      (test_fast.test_products_of_any_states,)),
}


def source_of(where):
    """(file, source, the part in which the text of a mutant stands)."""
    name, _, function = where.partition(":")
    if name == "kernel":
        return None, None, kernels.KERNELS[function][2]
    file = ROOT / name
    source = file.read_text(encoding="utf-8")
    return file, source, ast.get_source_segment(source, definition(source, function)) if function else source


def definition(source, function):
    """Where "name" or "Class.name" is defined."""
    node = ast.parse(source)
    for name in function.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == name), None)
        if node is None:
            raise LookupError(f"there is no {function} any more: bring this mutant up to date")
    return node


def mutated(mutant):
    """(the part with the replacement, the whole file with it)."""
    _, source, part = source_of(mutant.where)
    once = mutant.where.startswith("ep/") and not mutant.where.endswith(".py")  # in a kernel or a file: wherever it stands
    if part.count(mutant.right) < 1 or once and part.count(mutant.right) > 1:
        raise LookupError(f"'{mutant.right}' is not in {mutant.where} any more, or not once: bring this mutant up to date")
    changed = part.replace(mutant.right, mutant.wrong)
    return changed, source and source.replace(part, changed)


def plant(patch, mutant):
    """The live function gets the code that it would have in the file with the replacement."""
    name, _, function = mutant.where.partition(":")
    part, source = mutated(mutant)
    if name == "kernel":
        arguments, results, _ = kernels.KERNELS[function]
        patch.setitem(kernels.KERNELS, function, (arguments, results, part))
        kernels.compiled.cache_clear()
        patch.setattr(kernels, "compiled", kernels.compiled.__wrapped__)  # whatever it compiles is forgotten afterwards
        return
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    live = functools.reduce(inspect.getattr_static, function.split("."), module)
    live = getattr(live, "fget", getattr(live, "__func__", live))  # of a property, of a class method
    patch.setattr(live, "__code__", code_of(compile(source, name, "exec"), function))


def code_of(code, function):
    """The code of "name" or "Class.name" inside of that of its module."""
    for name in function.split("."):
        code = next(inner for inner in code.co_consts if inspect.iscode(inner) and inner.co_name == name)
    return code


def run(check, xp=np):
    test, *arguments = check
    test(*((xp, *arguments) if "xp" in inspect.signature(test).parameters else arguments))


passes = functools.cache(run)  # asked for once: the same check guards many a mutant


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what overflows in a mutant is the point of it
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_caught(name, monkeypatch):
    """The checks pass on the library as it is, and each of them fails on the mutant."""
    mutant = MUTANTS[name]
    for check in mutant.checks:
        passes(check)
        with monkeypatch.context() as patch:
            plant(patch, mutant)
            with pytest.raises(AssertionError):
                run(check)


# --- the code that a GPU compiles ---------------------------------------------------------------------------------------------

PATCHES = (test_kernels.test_patches_and_their_adjoint, 8, 8, 3, 1, 1, "float32")
POOLING, GRADIENTS = (test_kernels.test_pooling, 4, 6, "float32"), (test_graph.test_gradients, "symmetric", True, "symmetric")
KERNELS = {name: Mutant(f"kernel:{kernel}", right, wrong, (check,)) for name, kernel, right, wrong, check in (
    ("tie rule", "max_pool", "y1 > most", "y1 >= most", (*POOLING, 5)),
    ("NaN lost", "max_pool", "if (y1 != y1 ||", "if (false &&", (test_kernels.test_pooling_keeps_a_nan, 1)),
    ("corners exchanged", "max_unpool", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2", (*POOLING, 5)),
    ("no padding", "im2col", "a - PADDING", "a", (*PATCHES, 3)),
    ("border left out", "col2im", "i_out < H_OUT", "i_out < H_OUT - 1", (*PATCHES, 3)),
    ("no padding, by 4", "im2col_by_4", "a - PADDING", "a", (*PATCHES, 8)),
    ("corners, by 4", "max_unpool_by_4", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2", (*POOLING, 8)),
    ("no gain", "update", "up + gain * down", "up + down", GRADIENTS),
    ("no weight", "deviation", "w * (v - at)", "(v - at)", GRADIENTS),
    ("rows left out", "column_sums", "row += OUT", "row += OUT + 1", (test_graph.test_column_sums,)),
    ("no correction", "adam", "sqrt(v) * root", "sqrt(v)", (test_graph.test_adam_is_numpys, "float32")),
    ("wrong bound", "hard-sigmoid", "z > 1", "z > 2", (test_kernels.test_activations, "hard-sigmoid", "float32")),
    # reads before and behind the image, and beyond the array: POISON is no number of it
    ("read beyond the end", "im2col", "inside ? x", "true ? x", (*PATCHES, 3)))}


def on_the_double(*names):
    """A test that needs one of these in the place of CuPy; its fixture xp gives it."""
    def decorate(test):
        reason = f"this check is one of {' and '.join(names)} in cupy_on_cpu"
        for mark in (pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True),
                     pytest.mark.skipif(running() not in names, reason=reason)):
            test = mark(test)
        return test
    return decorate


@on_the_double("executed")
@pytest.mark.parametrize("name", KERNELS)
def test_a_wrong_kernel_differs_from_its_twin(xp, monkeypatch, name):
    """And not without the mutant."""
    (check,) = KERNELS[name].checks
    run(check, xp)
    plant(monkeypatch, KERNELS[name])
    with pytest.raises(AssertionError):
        run(check, xp)


# --- what else code for a GPU can do wrong: the check that finds it, and is silent without it ---------------------------------

def with_sigma(network, sigma):
    network.activation = network.activation._replace(sigma=sigma)
    return network


@on_the_double("executed", "rules")
def test_a_host_array_mixed_in_is_refused(xp):
    network, x, _ = example(xp)
    ep.relax(network, x, 2)
    network.synapses[1].b = to_host(network.synapses[1].b)
    with pytest.raises(TypeError, match="Unsupported type <class 'numpy.ndarray'>|got numpy.ndarray"):
        ep.relax(network, x, 2)


@on_the_double("executed", "rules")
def test_a_keyword_that_cupy_lacks_is_refused(xp):
    network, x, _ = example(xp)
    with_sigma(network, lambda u: u.clip(0.0, 1.0))
    ep.relax(network, x, 2)
    with_sigma(network, lambda u: xp.clip(u, 0.0, 1.0, where=True))
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        ep.relax(network, x, 2)


@on_the_double("executed", "rules")
@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "cast back"])
def test_a_float64_leak_is_seen(xp, hidden):
    """Also where the result is float32 again: the names of the kernels tell, or the types of all results."""
    def leaking(u):
        s = xp.clip(u * np.float64(0.5), 0.0, 1.0)  # float32 * np.float64 is float64; * 0.5 would be float32
        return s.astype(u.dtype) if hidden else s

    network = example(xp)[0]
    check_float32(xp, network)
    with pytest.raises((AssertionError, TypeError), match="float64 in|float32 float64"):  # a kernel of ours refuses mixed types
        check_float32(xp, with_sigma(network, leaking))


@on_the_double("executed", "rules")
@pytest.mark.parametrize("look", [lambda u: float(u.max()), lambda u: bool((u > 9).any()), lambda u: u[0].get()],
                         ids=["float", "bool", "get"])
def test_a_synchronisation_in_the_loop_is_counted(xp, look):
    network, x, y = example(xp)
    check_waits(xp, network, x, y)
    plain = network.activation.sigma
    with pytest.raises(AssertionError, match="waits for 1 residuals"):
        check_waits(xp, with_sigma(network, lambda u: (look(u), plain(u))[1]), x, y)


@on_the_double("executed", "rules")
def test_an_index_beyond_the_end_is_refused_by_the_rules(xp):
    """CuPy wraps it around without a word: there only a comparison with NumPy can tell."""
    a = xp.arange(4)
    if running() == "executed":
        assert int(a[xp.asarray([4])][0]) == 0
    else:
        with pytest.raises(IndexError):
            a[xp.asarray([4])]


@on_the_double("executed")
def test_a_write_beyond_the_end_is_found(xp):
    """The guards on both sides of every array tell, also when the array has been freed."""
    from cupy_on_cpu import device
    device.found_overruns()
    off_by_one = xp.ElementwiseKernel("raw T x", "raw T y", "y[i + 1] = x[i]", "ep_off_by_one")
    x, y = xp.ones(5, dtype="float32"), xp.empty(5, dtype="float32")
    off_by_one(x, y, size=4)
    assert device.found_overruns() == []
    off_by_one(x, y, size=5)
    assert device.found_overruns() == ["something was written behind an array of 20 bytes"]


@on_the_double("executed")
def test_every_test_is_asked_for_overruns(xp, request):
    """When it is over, by the plugin: the bug need not be in an array that the test looks at."""
    from cupy_on_cpu import executed
    executed.pytest_runtest_teardown(request.node)
    xp.ElementwiseKernel("raw T x", "raw T y", "y[i - 1] = x[i]", "ep_one_before")(xp.ones(5), xp.empty(5), size=5)
    with pytest.raises(AssertionError, match="before an array of 40 bytes"):
        executed.pytest_runtest_teardown(request.node)
    executed.pytest_runtest_teardown(request.node)


@on_the_double("executed")
def test_a_kernel_that_does_not_compile_is_an_error(xp, monkeypatch):
    plant(monkeypatch, Mutant("kernel:clip", "T(0)", "T(O)", ()))
    with pytest.raises((RuntimeError, array_module(xp.zeros(1)).cuda.compiler.CompileException)):
        kernels.launch("clip", (3,), xp.zeros(3, dtype="float32"))


# --- ep/train and the examples, on demand -------------------------------------------------------------------------------------

RANDOM = "tests/test_training.py::test_what_is_random_depends_on_seed_epoch_and_step"
OPTIONS, EXPERIMENT = "tests/test_options.py", "tests/test_experiment.py"


def acts(option):
    return f"{OPTIONS}::test_an_option_of_the_main_job_acts[{option}]"


def job(test, file, right, wrong):
    return Mutant(f"ep/train/{file}.py", right, wrong, (test,))


JOBS = {
    "schedule of the free phase in nudged ones": job(acts("--schedule-nudged"), "experiment", "Phase(config.steps_nudged, config."
                                                    "schedule_nudged,", "Phase(config.steps_nudged, config.schedule,"),
    "no tolerance": job(acts("--tolerance"), "experiment", "config.schedule, config.tolerance,", "config.schedule, 0.0,"),
    "always deviations": job(acts("--nudged-phases"), "experiment", 'deviations=config.nudged_phases == "deviations", '
                            "conventions=conventions(config)", "deviations=True"),
    "conventions forgotten": job(acts("--conventions"), "experiment", ", conventions=conventions(config))", ")"),
    "Kolen-Pollack forgotten": job(acts("--feedback-update"), "experiment", "combined(estimate.gradient)", "estimate.gradient"),
    "never transposed": job(f"{EXPERIMENT}::test_exact_updates_go_through_the_transpose", "experiment", "transposed=transposed",
                           "transposed=False"),
    "always EP": job(acts("--algorithm"), "experiment", 'if config.algorithm == "bptt":\n            one_chunk',
                    "if False:\n            one_chunk"),
    "Kolen-Pollack with BPTT": job(
        f"{EXPERIMENT}::test_backpropagation_through_time_gives_feedback_weights_their_own_gradient", "experiment",
        'connections="asymmetric"), dict(feedback_update="exact")', 'connections="asymmetric"), dict()'),
    "always symmetric": job(acts("--nudging"), "experiment", "NUDGINGS[config.nudging]", 'NUDGINGS["symmetric"]'),
    "beta forgotten": job(acts("--beta"), "experiment", "(config.beta, rng", "(0.1, rng"),
    "chunks of 16": job(acts("--chunk"), "experiment", "x, y, map, config.chunk)", "x, y, map)"),
    "scale forgotten": job(acts("--scale"), "experiment", "scale=config.scale,", ""),
    "gain forgotten": job(acts("--feedback"), "experiment", "feedback=config.feedback, ", ""),
    "seed of the weights forgotten": job(acts("--seed"), "experiment", "feedback=config.feedback, seed=config.seed)",
                                        "feedback=config.feedback)"),
    "cost forgotten": job(acts("--cost"), "experiment", "cost=COSTS[config.cost]", 'cost=COSTS["cross-entropy"]'),
    "never calibrated": job(acts("--initial-drive"), "experiment", "calibrate(network, x, config.initial_drive)", "pass"),
    "weight decay forgotten": job(acts("--weight-decay"), "experiment", "config.weight_decay, config.anneal",
                                 "0.02, config.anneal"),
    "annealing forgotten": job(f"{EXPERIMENT}::test_adam_is_annealed_over_all_steps", "experiment", "config.anneal_epochs, steps",
                              "1, steps"),
    "never warms up": job(acts("--warm-up"), "experiment", "config.warm_up)\n", "0)\n"),
    "a drift-free phase that is counted": job(f"{EXPERIMENT}::test_the_phases_that_are_counted_are_those_that_run", "experiment",
                                             ' or conventions(config).rest == "stays"', ""),
    "ignored options are let through": job(f"{EXPERIMENT}::test_settings_that_do_not_fit_together", "experiment",
                                          "        if so and options:", "        if False:"),
    "order from another seed": job(RANDOM, "loop", "default_rng([seed, epoch]).permutation",
                                  "default_rng([0, epoch]).permutation"),
    "augmentation from another seed": job(RANDOM, "loop", "default_rng([seed, epoch, step])",
                                         "default_rng([0, epoch, step])"),
    "the last batch is left out": job("tests/test_training.py", "loop", "return -(-images // batch_size)",
                                     "return images // batch_size"),
    "all test images": job(acts("--test-images"), "runs", "dataset.test_images[:n], dataset.test_labels[:n]",
                          "dataset.test_images, dataset.test_labels"),
    "one epoch": job(acts("--epochs"), "runs", "range(self.epoch, config.epochs)", "range(self.epoch, 1)"),
    "changed settings are let through": job("tests/test_main_job.py::test_resuming_names_what_differs", "commandline",
                                           "    if changed:", "    if False:"),
    "no augmentation": job(acts("--flip"), "job", "batch = datasets.augment(batch, rng, config.pad, config.flip)", "pass"),
    "no crops": job(acts("--pad"), "job", "rng, config.pad, config.flip)", "rng, 0, config.flip)"),
    "no mirror images": job(acts("--flip"), "job", "rng, config.pad, config.flip)", "rng, config.pad, False)"),
    "other training images": job(acts("--train-images"), "job", "dataset.train_images[:n])", "dataset.train_images[-n:])"),
    "nothing held out": job(acts("--validation-images"), "job", "datasets.hold_out(dataset, args.validation_images or 0)",
                            "dataset"),
    "the asymmetric recipe is symmetric": Mutant("examples/cifar10_asym_ep.py", ', connections="asymmetric")', ")",
                                                 (f"{OPTIONS}::test_the_asymmetric_recipe_is_the_main_job",)),
}


@pytest.mark.parametrize("name", MUTANTS | KERNELS | JOBS)
def test_every_mutant_is_up_to_date(name):
    """Its text stands in the source, once, in the place where it says."""
    mutated((MUTANTS | KERNELS | JOBS)[name])


def ignored():
    """{name: mutant} for every option of every example: the value on the command line is replaced by the default."""
    import test_options

    mutants, main_job = {}, "ep/train/job.py"
    for name in (test_options.MAIN, *test_options.OTHERS):
        try:
            actions = test_options.actions_of(name)
        except pytest.skip.Exception as reason:
            print(f"left out: {name} ({reason})")
            continue
        for action in actions:
            option = action.option_strings[0] if action.option_strings else action.dest
            uses = f"args.{action.dest}"
            own, shared = main_job if name == test_options.MAIN else f"examples/{name}.py", "examples/trained.py"
            lent = uses not in (ROOT / own).read_text() and uses in (ROOT / shared).read_text()
            file = shared if lent and "trained" in test_options.imports(name) else own
            test = acts(option) if name == test_options.MAIN else (
                f"{OPTIONS}::test_an_option_of_another_example_acts[{name}-{option}]")
            mutants[f"{name} {option}"] = Mutant(file, *without(action, (ROOT / file).read_text()), (test,))
    return mutants


def without(action, source):
    """(right, wrong): every use of an option in the source, and its default in that place."""
    default = f"__import__('pathlib').Path({str(action.default)!r})" if isinstance(action.default, Path) else repr(action.default)
    if f"args.{action.dest}" in source:
        return f"args.{action.dest}", default
    if "vars(experiment.Config()).keys() - {" in source:  # a setting of the main job
        return "vars(experiment.Config()).keys() - {", f'vars(experiment.Config()).keys() - {{"{action.dest}", '
    if f'"{action.dest}"' in source:  # in the list of those that are taken over
        return f'"{action.dest}"', '"nothing"'
    return f"parser.parse_args().{action.dest}", default


def without_option(mutant):
    """The source with every use of an option replaced, but no assignment to it and no longer name."""
    first, *parts = (ROOT / mutant.where).read_text(encoding="utf-8").split(mutant.right)
    result = first
    for part in parts:
        kept = mutant.right.startswith("args.") and (part[:1].isidentifier() or part.startswith(" = "))
        result += (mutant.right if kept else mutant.wrong) + part
    if mutant.wrong not in result or not parts:
        raise LookupError(f"'{mutant.right}' is not in {mutant.where} any more: bring this mutant up to date")
    return result


def fails(copy, *tests):
    """Whether one of the tests fails in the copy; anything but a pass or a failure is an error of this file."""
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")
    environment = {**os.environ, **one_thread, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"error: {' '.join(tests)} cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if " passed" not in done.stdout and " failed" not in done.stdout:
        return None  # skipped: it needs what is not installed
    return done.returncode == 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    args = parser.parse_args()
    sources = {name: (mutant, mutated(mutant)[1]) for name, mutant in JOBS.items()}
    sources |= {name: (mutant, without_option(mutant)) for name, mutant in ignored().items()}
    sources = {name: pair for name, pair in sources.items() if not args.words or any(word in name for word in args.words)}
    if args.list:
        print(*(f"{name:60} {mutant.checks[0]}" for name, (mutant, _) in sources.items()), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy, survived = Path(folder, "copy"), []
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "build", "__pycache__", ".pytest_cache"))
        if fails(copy, *dict.fromkeys(mutant.checks[0] for mutant, _ in sources.values())):
            raise SystemExit("error: one of these tests fails without any mutant; run pytest")
        for name, (mutant, source) in sources.items():
            file = copy / mutant.where.partition(":")[0]
            file.write_text(source, encoding="utf-8")
            caught = fails(copy, mutant.checks[0])
            shutil.copy(ROOT / file.relative_to(copy), file)
            print(f"{ {True: 'caught', False: 'SURVIVED', None: 'skipped'}[caught]:9} {name}", flush=True)
            survived += [name] if caught is False else []
    print(f"{len(survived)} of {len(sources)} survived" + ": " * bool(survived) + ", ".join(survived))
    raise SystemExit(bool(survived))


if __name__ == "__main__":
    main()
