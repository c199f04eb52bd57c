"""Wrong rules, each of which an ordinary test of this suite must catch: the tests are tested.

A mutant is one replacement in the source of the core, its engine or a training step, and the checks that must notice it: each
passes as the source is, and fails with it. They are planted in this process, one after the other. A mutant whose text has left
the source is an error of its own: bring it up to date. What code for a GPU can do wrong is in test_planted_gpu_bugs.py.
"""

import ast
import functools
import importlib
import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_activations
import test_builders
import test_cost
import test_engine as E
import test_gdu as D
import test_gradients as G
import test_identities as I
import test_ops
import test_own_energy as O
import test_papers_code
import test_radius as R
import test_resnet
import test_training as T
from cases import ANGLE, SE, Case

from ep.activations import CLIP, HARD_SIGMOID, TANH
from ep.engine.cpu import LOCAL

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    where: str  # a file from ROOT, and ":qualified.name" of the function in it
    right: str
    wrong: str
    checks: tuple  # of (test, *arguments)


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

STEP = I.test_a_step_is_sigma_of_the_drives
GAIN, GAINS = (I.test_a_drive_that_comes_down_is_multiplied_by_its_gain,), (I.test_weights_and_gains,)
SENT = (I.test_a_message_is_sent_once_and_none_by_a_layer_that_is_zero,)
SWEEP_DOWN = (I.test_one_sweep_down_carries_the_nudge_to_the_first_layer,)
OVER_RELAXED = (R.test_the_fixed_point_and_the_gradient_are_the_same, 1.3, "symmetric")
RADIUS = (R.test_it_is_the_largest_eigenvalue_of_the_jacobian, "chain", 1.0)
ENGINE_ASYMMETRIC = (E.test_every_relaxation_and_gradient, "asymmetric", "synchronous", SE, "max", HARD_SIGMOID)
TIES = (E.test_max_pooling_from_zero, "symmetric", "synchronous", (4, 4, 4, 4), 40)
BATCH = (T.test_a_batch_from_its_chunks,)
BOTH_ENDS = (O.test_a_step_hears_both_ends_as_they_are_now, O.nonlinear, 1.0, "checkerboard")
OF_EACH_LAYER = (O.test_each_layer_has_its_own, (HARD_SIGMOID, CLIP, TANH))


def convolutions():
    E.test_every_method_of_a_convolution({}, None)


SYNAPSES = (convolutions,)
DOWN_AND_UP = """terms.append((1.0, down(delta[j], sw)))
            if j == n and delta[i] is not None:
                up = synapse.drive_pre_adjoint if transposed else synapse.linear_post
                terms.append((gain, up(delta[i], sw)))"""
ADDED_UP = "[m - c * d for m, d in zip(mu, nudged.states)] if mu else [-c * d for d in nudged.states]"
TOGETHER = """drives = {n: drive(n) for n in group}
            for n, terms in drives.items():
                update(n, terms)"""
LATER = ("for (states, u, _), switches in zip(reversed(trajectory), [network.drives(x, s)[1] for s in "
         "[final_states, *[t[0] for t in reversed(trajectory)]]]):")

# --- the core and its engine ------------------------------------------------------------------------------------------------

MUTANTS = {  # name: (file:function, right, wrong, check, ...)
    # equations (1), (4), (11), (12): nudging, response, products
    "sign of the response": of(
        "dynamics:response", ADDED_UP, ADDED_UP.replace("-c", "c").replace("m -", "m +"), (EP, AVERAGE), (EP, MAX)),
    "factor 2 in the response": of(
        "dynamics:response", ADDED_UP, ADDED_UP.replace("c *", "2 * c *"), (EP, AVERAGE)),
    "sign of the nudging": of(
        "dynamics:deviate", "(1.0, beta * network.cost.force", "(1.0, -beta * network.cost.force", (EP, AVERAGE), (GDU, MAX)),
    "nudge at s*, not at the nudged state": of(
        "dynamics:deviate", "else free.states[-1] + delta[-1]", "else free.states[-1]", (FROZEN, AVERAGE)),
    "sign of the nudging of states": of(
        "dynamics:relax", "terms.append((beta,", "terms.append((-beta,", (STATES, AVERAGE), (GDU_OF_STATES, MAX)),
    "sign of the difference of states": of(
        "eqprop:difference_of_states", "- c * dPhi[name]", "+ c * dPhi[name]", (STATES, AVERAGE)),
    "factor 2 in the difference of states": of(
        "eqprop:difference_of_states", "- c * dPhi[name]", "- 2 * c * dPhi[name]", (STATES, AVERAGE)),
    "one-sided against s_T": of(
        "eqprop:nudged_phases", "free if beta == 0 and", "free if beta == 0 or", (G.test_what_has_not_settled_cancels, False)),
    "factor 2 in the batch mean": of(
        "dynamics:estimate", "gradient[name] / len(y)", "gradient[name] / (2 * len(y))", (EP, AVERAGE)),
    "sum over the batch": of(
        "dynamics:estimate", "gradient[name] / len(y)", "gradient[name]", (G.test_the_gradient_is_a_batch_mean, "eqprop")),
    "readout's gradient at a nudged state": of(
        "eqprop:eqprop_gradient", "network.readout_gradient(free.states, y)",
        "network.readout_gradient(relax(network, x, 9, y, 0.1, start=free.states).states, y)", (EP, AVERAGE)),
    "transposed ignored in deviate": of(
        "dynamics:deviate", "delta, free.switches, transposed)", "delta, free.switches)", (FROZEN, TILTED_MAX)),
    "transposed lost on the way to deviate": of(
        "dynamics:response", "free, phase, transposed)", "free, phase)", (OWN_RULE, TILTED)),
    "dW without its second half": of(
        "synapse:Synapse.hebbian_pair", "g[name] + gain * dW", "g[name]", (RBP, AVERAGE), (SWEEP, MAX)),
    "one half of a gradient that replaces the other": of(
        "synapse:Synapse.hebbian_pair", "g[name] + gain * dW if name in g else gain * dW", "gain * dW",
        (G.test_both_halves_of_a_gradient_that_is_not_called_W,), (RBP, OWN)),
    "deviations that move once": of("dynamics:deviate", "if terms:", "if terms and delta[n - 1] is None:", (FROZEN, AVERAGE)),
    "difference without bounds": of(
        "activations:_clip_difference", "_clip(e + (v - c), -c, high - c)", "e",
        (test_activations.test_the_difference_for_large_steps, "clip"), (FROZEN, CLIPPED)),
    "cancellation put back, clipped": of(
        "activations:_clip_difference", "_clip(e + (v - c), -c, high - c)", "_clip(v + e, 0.0, high) - c",
        (test_activations.test_the_difference_for_tiny_steps, "hard-sigmoid", "float32", 1e-30),
        (G.test_deviations_keep_the_digits_that_a_difference_of_states_loses,)),
    "cancellation put back, smooth": of(
        "activations:_tanh_difference", "xp.tanh(e) * (1.0 - xp.tanh(v) * xp.tanh(v + e))", "xp.tanh(v + e) - xp.tanh(v)",
        (test_activations.test_the_difference_for_tiny_steps, "sigmoid", "float32", 1e-30)),

    # steps and messages
    "synchronous steps from new values": of(
        "dynamics:iterate", TOGETHER, "for n in group:\n                update(n, drive(n))", (STEP, AVERAGE),
        (GDU_OF_STATES, MAX)),
    "a message kept although its sender has moved": of(
        "dynamics:Messages.move", "self.sent.pop(k, None)", "pass", (AT_REST, AVERAGE)),
    "only one message of a sender is made anew": of(
        "dynamics:Messages.move", "self.sent.pop(k, None)", "self.sent.pop(k, None)\n                break", (AT_REST, SKIP)),
    "every message is forgotten": of("dynamics:Messages.move", "if i == n:", "if i > 0:", SENT),
    "a zero layer's message": of("dynamics:Messages.terms", "gain and self.moved[j]", "gain", SENT),
    "zero for ever": of("dynamics:Messages.move", "= s, True", "= s, self.moved[n]", (AT_REST, AVERAGE)),
    "a start that is taken for zero": of("dynamics:Messages.__init__", "[start is not None]", "[False]", (STEP, AVERAGE)),
    "the last of several ways down only": of(
        "dynamics:Messages.terms", "downs.append((gain, down))", "downs = [(gain, down)]", (STEP, SKIP)),
    "no top-down drives": of(
        "network:Network.drives", "gain * synapse.drive_pre", "0.0 * synapse.drive_pre", (DERIVATIVES, DENSE)),
    "no top-down messages": of("dynamics:Messages.terms", "downs.append((gain,", "downs.append((0.0,", (AT_REST, AVERAGE)),
    "one state for all images": of(
        "dynamics:relax", "(for_each_image(arrays, len(x)) for arrays in (states, before, u))", "(states, before, u)",
        (STEP, Case("dense", "tanh", SE))),
    "ties left to rounding": of("dynamics:once", "return s[:1]", "return s", TIES),
    "an image that arrives at once": of(
        "dynamics:Messages.__init__", "[once(s) for s in given]", "[spread(s, self.N) for s in given]", TIES),
    "downward sweep that uses old values": of(
        "phase:down", "up(network)[::-1]", "synchronous(network)", SWEEP_DOWN,
        (G.test_weak_feedback_is_backpropagation, Case("dense", "tanh", scale=1.5))),
    "downward sweep that goes up": of("phase:down", "up(network)[::-1]", "up(network)", SWEEP_DOWN),
    "colours by parity": of(
        "phase:checkerboard", "next(c for c in range(len(network.shapes)) if c not in neighbours)", "(n + 1) % 2",
        (I.test_steps_of_some_layers_at_a_time_never_raise_the_energy, I.DECIDED_BY_ITS_SKIP, "checkerboard")),

    # energies of one's own
    "a nonlinear message of old states": of(
        "dynamics:Messages.terms", "*self.states]", "*vars(self).setdefault('old', list(self.states))]", BOTH_ENDS),
    "nothing comes down from a nonlinear synapse": of(
        "network:Network.nonlinear_terms", "(gain, 1.0)", "(0.0, 1.0)",
        (O.test_drives_and_products_are_the_derivatives_of_phi, O.nonlinear, 1.0)),
    "gain of a nonlinear synapse forgotten": of(
        "network:Network.nonlinear_terms", "(gain, 1.0)", "(1.0, 1.0)",
        (O.test_drives_and_products_are_the_derivatives_of_phi, O.nonlinear, 0.5)),
    "a nonlinear synapse that waits until its layer has moved": of(
        "network:Network.nonlinear_terms", "if end == n]", "if end == n and layers[ends[1]].any()]",
        (O.test_from_zero_a_nonlinear_synapse_speaks_at_once,)),
    "the first sigma for all layers, relaxing": of("dynamics:relax", "sigmas[n - 1].respond", "sigmas[0].respond", OF_EACH_LAYER),
    "the first sigma for all layers, deviations": of(
        "dynamics:deviate", "sigmas[n - 1].deviate", "sigmas[0].deviate", OF_EACH_LAYER),
    "the first sigma for all layers, BPTT": of(
        "bptt:backward", "zip(slopes, u, lam)", "zip(3 * slopes[:1], u, lam)", OF_EACH_LAYER),
    "the first sigma for all layers, RBP": of(
        "rbp:rbp_gradient", "zip(network.activations, u)", "zip(3 * network.activations[:1], u)", OF_EACH_LAYER),
    "the first sigma for all layers, energy": of(
        "network:Network.energy", "in self.activations]", "in 3 * self.activations[:1]]", OF_EACH_LAYER),
    "the first sigma for all layers, radius": of(
        "radius:spectral_radius", "zip(network.activations, u)", "zip(3 * network.activations[:1], u)",
        (O.test_the_radius_is_that_of_each_layers_sigma,)),
    "the first sigma for all layers, bounds": of(
        "train/step:part", "in network.activations]", "in 2 * network.activations[:1]]",
        (O.test_the_log_knows_the_bounds_of_each_layer,)),

    # over-relaxation, and the spectral radius
    "over-relaxation: wrong factor of s": of("dynamics:over_relaxed", "(1 - omega) / slope", "1 - omega", OVER_RELAXED),
    "over-relaxation forgotten in the free phase": of(
        "dynamics:relax", "over_relaxed(terms, omega,", "over_relaxed(terms, 1,", OVER_RELAXED),
    "over-relaxation forgotten in nudged ones": of(
        "dynamics:deviate", "over_relaxed(terms, omega,", "over_relaxed([(1.0, a) for _, a in terms], 1,", OVER_RELAXED),
    "u* not taken back": of("dynamics:relax", "1 / omega", "1.0", OVER_RELAXED),
    "u* not stretched": of("dynamics:deviate", "stretched(u_n, s, omega,", "stretched(u_n, s, 1.0,", OVER_RELAXED),
    "RBP: omega forgotten": of("rbp:rbp_gradient", "+ omega * new", "+ new", OVER_RELAXED),
    "radius: one step for two": of("radius:spectral_radius", "Phase(2)", "Phase(1)", RADIUS),
    "radius: D without slopes": of("radius:spectral_radius", "slopes[n - 1] * total(terms)", "total(terms)", RADIUS),
    "identities: the gain forgotten": of("radius:identities_alone", "slopes[i - 1] * gain", "slopes[i - 1]", (
        test_resnet.test_identities_alone, HARD_SIGMOID, 3, 0.3)),
    "identities: the slope forgotten": of("radius:identities_alone", "+= slopes[j - 1]", "+= 1.0", (
        test_resnet.test_identities_alone, HARD_SIGMOID, 3, 1.0)),
    "best omega of r, not of r^2": of(
        "radius:best_omega", "1 - r * r", "1 - r", (R.test_best_omega_settles_fastest_and_large_radii_are_refused,)),

    # BPTT, RBP, and the theorem step by step
    "sign of the increments": of("gdu:eqprop_increments", "[new - old for", "[old - new for", (GDU, MAX)),
    "sign of the increments of states": of(
        "gdu:increments_of_states", "- c * (dPhi_new", "+ c * (dPhi_new", (GDU_OF_STATES, MAX)),
    "w_n forgotten in the increments of states": of("gdu:increments_of_states", "- c * w *", "- c *", (GDU_OF_STATES, WEAK)),
    "stale switches in BPTT (those of s_{t+1})": of(
        "bptt:backward", "for states, u, switches in reversed(trajectory):", LATER, (SWEEP, MAX)),
    "a trajectory with the switches of s_{t+1}": of(
        "bptt:unroll", "(s, _, switches), (_, u, _)", "(s, _, _), (_, u, switches)", (SWEEP, MAX)),
    "mu without sigma'": of("bptt:backward", "dsigma(u_n) * lam_n", "lam_n", (GDU, MAX), (SWEEP, MAX)),
    "BPTT that starts too late": of(
        "bptt:bptt_gradient", "relax(network, x, T - K)", "relax(network, x, T)",
        (G.test_bptt_is_the_derivative_of_the_unrolled_loss, MAX, 7, 4)),
    "RBP without sigma'": of("rbp:rbp_gradient", "slopes[n - 1] * total", "total", (RBP, MAX)),
    "RBP that pushes away from the target": of("rbp:rbp_gradient", "-network.cost", "network.cost", (RBP, MAX)),
    "RBP whose nudge does not stay": of(
        "rbp:rbp_gradient", "if n == len(mu)", "if n == len(mu) and not mu[-1].any()", (RBP, MAX)),
    "down through D, not D^T": of(
        "network:Network.deviation_terms", "synapse.drive_post_adjoint if transposed else synapse.drive_pre", "synapse.drive_pre",
        (SWEEP, TILTED_MAX), (RBP, TILTED), (JACOBIAN, TILTED)),
    "up through D, not D^T": of(
        "network:Network.deviation_terms", "synapse.drive_pre_adjoint if transposed else synapse.linear_post",
        "synapse.linear_post", (SWEEP, TILTED_MAX), (JACOBIAN, TILTED)),
    "bias in the adjoint": of(
        "network:Network.deviation_terms", "up(delta[i], sw)", "synapse.drive_post(delta[i], sw)[0]", (GDU, MAX),
        (JACOBIAN, AVERAGE), (SWEEP, MAX)),

    # the feedback gain, equation (10)
    "w_n forgotten in hebbian": of(
        "network:Network.hebbian", "= w[j] * g", "= g", (PHI, WEAK), (DERIVATIVES, WEAK), (STATES, WEAK)),
    "w_n forgotten in Phi": of("network:Network.phi", "w[j] * synapse.phi", "synapse.phi", (PHI, WEAK), (ENERGY, WEAK)),
    "w_n forgotten in the energy": of(
        "network:Network.energy", "w_n * G(s)", "G(s)", (PHI, WEAK), (ENERGY, WEAK), (AT_REST, WEAK)),
    "w_n forgotten in the deviations": of(
        "activations:Activation.deviate", "w * self.difference", "self.difference", (EP, WEAK), (FROZEN, WEAK)),
    "w_n forgotten inside sigma": of("activations:Activation.deviate", "total(terms) / w", "total(terms)", (FROZEN, WEAK)),
    "w_n forgotten in a difference without Phi": of(
        "eqprop:difference_of_states", "c * w_n * s_n for", "c * s_n for", (OWN_RULE, TILTED_WEAK)),
    "w_n without a bound below": of(
        "dynamics:deviate", "min(max(w, 1 / LARGEST_FACTOR), LARGEST_FACTOR)", "min(w, LARGEST_FACTOR)",
        (G.test_without_feedback_all_factors_are_numbers,)),
    "w_n without a bound above": of(
        "dynamics:deviate", "min(max(w, 1 / LARGEST_FACTOR), LARGEST_FACTOR)", "max(w, 1 / LARGEST_FACTOR)",
        (G.test_without_feedback_all_factors_are_numbers,)),
    "gain applied twice on the way down": of(
        "network:Network.drives", "gain * synapse.drive_pre", "gain * gain * synapse.drive_pre", (DERIVATIVES, SKIP),
        (ENERGY, WEAK), GAIN),
    "gain forgotten on the way down": of(
        "network:Network.drives", "gain * synapse.drive_pre", "synapse.drive_pre", (DERIVATIVES, WEAK), (ENERGY, WEAK)),
    "gain of a message applied twice": of(
        "dynamics:Messages.terms", "downs.append((gain,", "downs.append((gain * gain,", (STEP, WEAK), (AT_REST, WEAK)),
    "gain of a message forgotten": of(
        "dynamics:Messages.terms", "downs.append((gain,", "downs.append((1.0,", (STEP, WEAK), (AT_REST, WEAK)),
    "the same gain on every way down": of(
        "network:Network._power", "self.feedback**n", "self.feedback**min(n, 1)", GAIN, GAINS, (STATES, SKIP)),
    "gain down instead of up in D^T": of(
        "network:Network.deviation_terms", DOWN_AND_UP,
        DOWN_AND_UP.replace("(gain", "(a").replace("(1.0", "(gain").replace("(a", "(1.0"), (RBP, WEAK), (FROZEN, WEAK),
        (JACOBIAN, WEAK)),
    "gain forgotten in D^T": of(
        "network:Network.deviation_terms", "terms.append((gain,", "terms.append((1.0,", (RBP, WEAK), (FROZEN, WEAK)),
    "gain forgotten in the second half of dW": of(
        "synapse:Synapse.hebbian_pair", "g[name] + gain * dW", "g[name] + dW", (RBP, WEAK), (EP, WEAK)),
    "gain forgotten in dB": of("synapse:Synapse.hebbian_pair", "else gain * dW", "else dW", (RBP, TILTED_WEAK)),

    # the published code
    "readout's gradient not weighted by beta": of(
        "papers_code:papers_gradient", "c * beta * g", "c * g", (PAPERS_CODE, "symmetric", "symmetric")),
    "both readouts from s*": of(
        "papers_code:papers_gradient", "readout_gradient(phase.states", "readout_gradient(free.states",
        (PAPERS_CODE, "symmetric", "symmetric")),
    "a phase at 0 that moves on": of(
        "papers_code:papers_gradient", "if beta == 0 else", "if False else", (PAPERS_CODE, "symmetric", "one-sided")),
    "common update twice": of(
        "papers_code:asymmetric_products", "0.5 * g if", "g if", (PAPERS_CODE, "kolen-pollack", "symmetric")),
    "common update from s*": of(
        "papers_code:asymmetric_products", "phase if common else free", "free", (PAPERS_CODE, "kolen-pollack", "symmetric")),
    "own dB at the switches of s*": of(
        "papers_code:asymmetric_products", "(of[0], own[1])", "of", (PAPERS_CODE, "own", "symmetric")),

    # synapses, activations, costs
    "kernel not flipped": of(
        "ops:conv_adjoint_input", "W.reshape(-1", "W[::-1, ::-1].reshape(-1", (FACES, "conv, no pooling"),
        (test_ops.test_conv_adjoints, 3, 1, 1, 7, 6, "float64"), (JACOBIAN, AVERAGE)),
    "last of equals wins": of("ops:max_pool", "y_1 > y_0, y_3 > y_2", "y_1 >= y_0, y_3 > y_2", (test_ops.test_ties_first_wins,)),
    "bottom row to the top": of(
        "ops:max_pool", "bottom > top, y_1", "bottom < top, y_1", (test_ops.test_pooling_is_its_loops, (6, 6))),
    "top-down by average unpooling": of(
        "synapse:Conv.drive_pre", "self.pool.unpool", "ops.average_unpool", (FACES, "conv, max"), (UP, "conv, max"),
        (DOWN, "conv, max"), (SWEEP, MAX)),
    "top-down always to the first corner": of(
        "synapse:Conv.drive_pre", "unpool(post, switches,", "unpool(post, 0 * switches,", (FACES, "conv, max"),
        (DOWN, "conv, max"), (SWEEP, MAX)),
    "adjoint at live switches": of(
        "synapse:Conv.linear_post", "self.pool.pool_at(self._conv(pre), switches)", "self.pool.pool(self._conv(pre))[0]",
        (UP, "conv, max"), (GDU, MAX)),
    "bias divided by the window": of(
        "synapse:Conv.hebbian", "post.sum((0, 1, 2))", "0.25 * post.sum((0, 1, 2))", (FACES, "conv, max"), (RBP, AVERAGE)),
    "sigma' without 1/2": of(
        "activations:_hard_sigmoid_slope", "0.5 * _between(u, 0.0, 2.0)", "_between(u, 0.0, 1.0)",
        (test_activations.test_dsigma_is_the_derivative_of_sigma, "hard-sigmoid")),
    "G = 1/2 s^2 for clip(u/2, 0, 1)": of(
        "activations:_hard_sigmoid_G", "s * s", "0.5 * s * s",
        (test_activations.test_G_is_the_integral_of_the_inverse, "hard-sigmoid"), (AT_REST, Case("average", "hard-sigmoid")),
        (ENERGY, Case("average", "hard-sigmoid"))),
    "only the last two terms of a drive": of("activations:total", "result = result +", "result = a +", (STEP, SKIP)),
    "softmax without the shift": of(
        "cost:SoftmaxCrossEntropy._logits", "z - z.real.max(1, keepdims=True)", "z",
        (test_cost.test_large_logits_do_not_overflow, "float64")),
    "force of the squared error": of(
        "cost:SquaredError.force", "y - s", "s - y",
        (test_cost.test_the_force_is_minus_the_derivative_of_the_cost, "squared error")),
    "calibrate: identities for nothing": of(
        "builders:calibrate", "identities**-0.5", "1.0", (test_builders.test_calibrated_drives, Case("residual", gain=0.0))),
    "resnet: blocks that are left over": of(
        "builders:resnet", "(blocks + stage) // stages", "blocks // stages",
        (test_builders.test_the_wiring_of_a_residual_network,)),

    # asymmetric networks
    "forward switches on the way down": of(
        "vectorfield:Asymmetric.drive_pre", "switches[1]", "switches[0]", (DOWN, "asymmetric conv, max"), (SWEEP, TILTED_MAX)),
    "feedback that pools by the forward convolution": of(
        "vectorfield:Asymmetric.drive_post", "self.feedback.winners", "self.forward.winners",
        (I.test_up_through_W_and_down_through_B, "conv, max")),
    "W instead of B in the reverse sweep": of(
        "vectorfield:Asymmetric.drive_pre_adjoint", "self.feedback", "self.forward", (DOWN, "asymmetric dense"),
        (SWEEP, TILTED_MAX)),
    "B instead of W in the reverse sweep": of(
        "vectorfield:Asymmetric.drive_post_adjoint", "self.forward.drive_pre(post, switches[0])",
        "self.feedback.drive_pre(post, switches[1])", (UP, "asymmetric dense"), (SWEEP, TILTED_MAX), (RBP, TILTED_MAX)),
    "response at the other switches": of(
        "vectorfield:Asymmetric.drive_pre_adjoint", "switches[1]", "switches[0]", (DOWN, "asymmetric conv, max"),
        (SWEEP, TILTED_MAX)),
    "forward switches for both products": of(
        "vectorfield:Asymmetric.hebbian_down", "switches[1]", "switches[0]", (DOWN, "asymmetric conv, max"), (RBP, TILTED_MAX)),
    "bias in the plain deviations": of(
        "vectorfield:Asymmetric.linear_post", "self.forward.linear_post(pre, switches[0])",
        "self.forward.drive_post(pre, switches[0])[0]", (FROZEN, TILTED_MAX),
        (I.test_given_switches_are_kept, "asymmetric conv, max")),
    "Kolen-Pollack with the difference": of(
        "vectorfield:kolen_pollack", "+ g for name", "- g for name", (G.test_kolen_pollack_touches_only_pairs,),
        (OWN_RULE, TILTED)),
    "Kolen-Pollack for W alone": of("vectorfield:kolen_pollack", 'in "WB"', 'in "W"', (G.test_kolen_pollack_touches_only_pairs,)),

    # the engine of a CPU
    "engine: kernel not flipped": of(
        "engine/winograd:transform_flipped", "np.ascontiguousarray(W[::-1, ::-1]", "np.ascontiguousarray(W[:, :]",
        (E.test_tiles_and_kernels, 4), SYNAPSES),
    "engine: kernel's gradient not transformed back": of(
        "engine/winograd:transform_gradient", "_GG(m, dU.dtype).T", "_GG(m, dU.dtype)[::-1].T", (E.test_tiles_and_kernels, 4),
        SYNAPSES),
    "engine: tiles that overlap too much": of(
        "engine/winograd:overlapping", "m * row", "(m - 1) * row", (E.test_a_convolution_is_that_of_the_loops, 4, 8, 8, 1, None)),
    "engine: W on the way down": of(
        "engine/cpu:exchanged", "exchanged(getattr(synapse, name))", "exchanged(getattr(synapse, synapse.parts[0]))",
        ENGINE_ASYMMETRIC),
    "engine: a stale kernel": of(
        "engine/cpu:TiledConv.kernel", "is not self.W", "is None",
        (E.test_kernels_follow_new_weights_but_not_a_change_in_place,)),
    "engine: images of the last call": of(
        "engine/cpu:TiledConv.products", "np.multiply(inside(pre), factor, out=x)", "pass", SYNAPSES),
    "engine: one product for two": of("engine/cpu:TiledConv.products", "result(len(terms))", "result(1)", SYNAPSES),
    "engine: product without the gain": of(
        "engine/cpu:TiledConv.products", "inside(pre), factor", "inside(pre), 1", SYNAPSES),
    "engine: results that are overwritten": of(
        "engine/winograd:Winograd.result", "if own else", "if False else", (E.test_results_are_not_overwritten,)),
    "engine: another synapse's rows": of(
        "engine/cpu:TiledConv.convolutions", "self.padding, self.pool", "self.padding",
        (E.test_what_a_pooling_leaves_out_stays_zero,)),
    "engine: ties left to rounding": of("engine/cpu:TiledConv.plain", "len(first) == 1 or ", "", TIES),

    # a training step
    "a mean over chunks": of("train/step:merged", "(one.images / N) * one.gradient", "(1 / len(parts)) * one.gradient", BATCH),
    "steps: a mean over chunks": of("train/step:step", "one.steps * one.images / N", "one.steps / len(parts)", BATCH),
    "stuck in one chunk is stuck": of("train/step:merged", "reduce(and_,", "reduce(lambda a, b: a | b,", BATCH),
    "a NaN that is lost": of("train/step:step", "float(np.maximum(residual, changes[-1]))", "max(residual, changes[-1])",
                             (T.test_merging_keeps_a_nan,)),
}


def definition(source, function):
    """Where "name" or "Class.name" is defined."""
    node = ast.parse(source)
    for name in function.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == name), None)
        if node is None:
            raise LookupError(f"there is no {function} any more: bring this mutant up to date")
    return node


def mutated(mutant):
    """The whole file with the replacement."""
    name, _, function = mutant.where.partition(":")
    source = (ROOT / name).read_text(encoding="utf-8")
    part = ast.get_source_segment(source, definition(source, function))
    if part.count(mutant.right) != 1:
        raise LookupError(f"'{mutant.right}' is not in {mutant.where} any more, or not once: bring this mutant up to date")
    return source.replace(part, part.replace(mutant.right, mutant.wrong))


def plant(patch, mutant):
    """The live function gets the code that it would have in the file with the replacement."""
    name, _, function = mutant.where.partition(":")
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    live = functools.reduce(inspect.getattr_static, function.split("."), module)
    live = getattr(live, "fget", getattr(live, "__func__", live))  # of a property, of a class method
    patch.setattr(live, "__code__", code_of(compile(mutated(mutant), name, "exec"), function))


def code_of(code, function):
    """The code of "name" or "Class.name" inside of that of its module."""
    for name in function.split("."):
        code = next(inner for inner in code.co_consts if inspect.iscode(inner) and inner.co_name == name)
    return code


def run(check):
    test, *arguments = check
    test(*((np, *arguments) if "xp" in inspect.signature(test).parameters else arguments))


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
        LOCAL.__dict__.clear()  # buffers of the mutant
