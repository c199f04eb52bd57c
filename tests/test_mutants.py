"""Wrong rules, each of which an ordinary test of this suite must catch: the tests are tested.

A mutant is one replacement in the source of one function of `ep`. Each test passes as it is and fails with the mutant.
"""

import inspect
import textwrap

import numpy as np
import pytest
import test_activations
import test_bptt
import test_cost
import test_deviations
import test_dynamics
import test_eqprop
import test_fast
import test_gain
import test_gdu
import test_network
import test_ops
import test_papers_code
import test_rbp
import test_resnet
import test_synapse
import test_vectorfield

from ep import activations, bptt, builders, cost, dynamics, eqprop, network, ops, rbp, synapse, vectorfield
from ep.fast import chain, pooling, synapses, winograd
from ep.fast.response import Deviations

CE, SE = "cross-entropy", "squared-error"
GRADIENT = (test_eqprop.test_eqprop_and_bptt_give_the_gradient_of_the_loss, "average", "sigmoid", CE, True)
MAX_GRADIENT = (test_eqprop.test_eqprop_and_bptt_give_the_gradient_of_the_loss, "max", "sigmoid", SE, True)
TWO_STATES = (test_eqprop.test_eqprop_and_bptt_give_the_gradient_of_the_loss, "average", "sigmoid", CE, False)
GDU = (test_gdu.test_every_increment_is_bptts, "max", "sigmoid", CE, True)
GDU_TWO_STATES = (test_gdu.test_every_increment_is_bptts, "max", "sigmoid", CE, False)
FACES, ADJOINT = test_synapse.test_three_faces_of_one_number, test_synapse.test_linear_post_is_the_adjoint_of_drive_pre
UNROLLED = (test_bptt.test_bptt_is_the_derivative_of_the_unrolled_loss, "max", "sigmoid", SE, 6, 3)
SWEEP = (test_bptt.test_the_sweep_from_a_random_state, "max", "sigmoid", SE)
ASYMMETRIC_SWEEP = (test_vectorfield.test_the_sweep_from_a_random_state, "max", "sigmoid", SE)
EXACT = (test_vectorfield.test_asymmetric_ep_is_the_gradient_of_the_loss, "max", "sigmoid", SE)
PLAIN = (test_deviations.test_asymmetric_deviations_are_differences_of_frozen_states, "max", "sigmoid", 1.0)
DOWN = test_vectorfield.test_the_way_down_and_its_adjoint
RBP = (test_rbp.test_rbp_is_the_gradient_of_the_loss, "max", "sigmoid", SE)
STATIONARY = test_dynamics.test_the_free_fixed_point_is_stationary_for_the_energy
FAST = (test_fast.test_every_phase, 4, "symmetric", "checkerboard", CE, "max")
FAST_ASYMMETRIC = (test_fast.test_every_phase, 1, "asymmetric", "synchronous", SE, "max")
WEIGHTS = (test_gain.test_the_three_faces_with_weights, "average", "sigmoid")
ENERGY = (test_gain.test_the_slope_of_the_energy_anywhere, "average", "sigmoid")
AT_REST = (test_gain.test_the_free_fixed_point_is_stationary_for_the_energy, "average", "sigmoid", 0.3)
GAIN_GRADIENT = (test_gain.test_every_gradient_is_that_of_the_loss, "average", "sigmoid", CE, 0.3)
GAIN_GDU = (test_gain.test_every_increment_is_bptts, "average", "sigmoid", CE, 0.3)
FROZEN = (test_deviations.test_deviations_are_differences_of_frozen_states, "average", "sigmoid", CE)
PAPERS_CODE = (test_papers_code.test_with_its_conventions_the_published_code_is_reproduced,)
DOWN_AND_UP = """down(layers[j], sw)
        if j in group:
            result[j] = result[j] + times(gain, up(layers[i], sw))"""
FAST_GAIN = (test_fast.test_feedback, 0.3, "symmetric", "up")
FAST_TIES = (test_fast.test_max_pooling_from_zero, 4, "symmetric", "synchronous", (4, 4, 4, 4), 40)
FAST_RESPONSE = (test_fast.test_response_and_products, "max", activations.HARD_SIGMOID, CE, "symmetric", True)
FAST_WIRING = (test_resnet.test_every_wiring_fast, "two ways down from one layer, two inputs", "synchronous")
FAST_TRANSPOSED = (test_fast.test_response_and_products, "max", activations.HARD_SIGMOID, CE, "asymmetric", True)
LATER = ("for (states, u, _), switches in zip(reversed(trajectory), [network.drives(x, s)[1] for s in "
         "[final_states, *[t[0] for t in reversed(trajectory)]]]):")

MUTANTS = {  # name: (function, right, wrong, (test, *arguments), ...)
    "sign of the response": (dynamics.response, "mu_n - c *", "mu_n + c *", GRADIENT, MAX_GRADIENT),
    "factor 2 in the response": (dynamics.response, "mu_n - c *", "mu_n - 2 * c *", GRADIENT),
    "sign of the increments": (eqprop.eqprop_increments, "m - c * d for", "m + c * d for", GDU),
    "sign of the nudging": (dynamics.deviate, "d[L] + beta *", "d[L] - beta *", GRADIENT, GDU),
    "nudge at s*, not at the nudged state": (
        dynamics.deviate, "free.states[-1] + delta[-1]", "free.states[-1]", FROZEN),
    "sign of the difference of states": (eqprop.difference_of_states, "- c * dPhi[name]", "+ c * dPhi[name]", TWO_STATES),
    "factor 2 in the difference of states": (eqprop.difference_of_states, "- c * dPhi[name]", "- 2 * c * dPhi[name]",
                                             TWO_STATES),
    "one-sided against s_T": (eqprop.difference_of_states, 'free.converged or conventions.rest == "stays"', "True",
                              (test_eqprop.test_what_has_not_settled_cancels,)),
    "sign of the increments of states": (eqprop._increments_of_states, "- c * (dPhi_new", "+ c * (dPhi_new", GDU_TWO_STATES),
    "sign of the nudging of states": (dynamics.relax, "drives[L] + beta *", "drives[L] - beta *", TWO_STATES, GDU_TWO_STATES),
    "factor 2 in the batch mean": (dynamics.estimate, "gradient[name] / N", "gradient[name] / (2 * N)", GRADIENT),
    "sum over the batch": (dynamics.estimate, "gradient[name] / N", "gradient[name]", GRADIENT,
                           (test_eqprop.test_the_gradient_is_a_batch_mean, "eqprop")),
    "readout's gradient at a nudged state": (
        eqprop.eqprop_gradient, "network.readout_gradient(free.states, y)",
        "network.readout_gradient(relax(network, x, 9, y, 0.1, start=free.states).states, y)", GRADIENT),
    "readout's gradient not weighted by beta": (eqprop._readout, "c * beta * g", "c * g",
                                                (*PAPERS_CODE, "symmetric", "symmetric")),
    "both readouts from s*": (eqprop._readout, 'where == "free"', "True", (*PAPERS_CODE, "symmetric", "symmetric")),
    "common update twice": (eqprop._asymmetric_products, "0.5 * g if", "g if", (*PAPERS_CODE, "kolen-pollack", "symmetric")),
    "common update from s*": (eqprop._asymmetric_products, 'phase if products == "common" else free', "free",
                              (*PAPERS_CODE, "kolen-pollack", "symmetric")),
    "own dB at the switches of s*": (eqprop._asymmetric_products, "(of[0], own[1])", "of", (*PAPERS_CODE, "own", "symmetric")),
    "one half of a gradient that replaces the other": (
        network.Network.parameter_adjoint, "g[name] + gain * dW if name in g else gain * dW", "gain * dW",
        (test_vectorfield.test_both_halves_of_a_gradient_that_is_not_called_W,)),
    "kernel not flipped": (ops.conv_adjoint_input, "W.reshape(-1", "W[::-1, ::-1].reshape(-1", (FACES, "conv-none"),
                           (test_ops.test_conv_derivatives, 3, 1, 1), GRADIENT, GDU),
    "last of equals wins": (ops.max_pool, "corner > v", "corner >= v", (test_ops.test_ties_first_wins,)),
    "top-down by average unpooling": (synapse.Conv.drive_pre, "self.pool.unpool", "ops.average_unpool",
                                      (FACES, "conv-max"), (ADJOINT, "conv-max"), MAX_GRADIENT, SWEEP),
    "top-down always to the first corner": (synapse.Conv.drive_pre, "unpool(post, switches,", "unpool(post, 0 * switches,",
                                           (FACES, "conv-max"), (ADJOINT, "conv-max"), MAX_GRADIENT, SWEEP),
    "adjoint at live switches": (synapse.Conv.linear_post, "self.pool.pool_at(self._conv(pre), switches)",
                                 "self.pool.pool(self._conv(pre))[0]", (ADJOINT, "conv-max"), GDU),
    "bias in the adjoint": (network.Network.transposed_drives, "up(layers[i], sw)", "synapse.drive_post(layers[i], sw)[0]",
                            GDU, GRADIENT, SWEEP),
    "bias divided by the window": (synapse.Conv.hebbian, "post.sum((0, 1, 2))", "0.25 * post.sum((0, 1, 2))",
                                       (FACES, "conv-max"), GRADIENT),
    "stale switches in BPTT (those of s_{t+1})": (bptt.sweep, "for states, u, switches in reversed(trajectory):", LATER,
                                                  SWEEP),
    "dW without its second half": (network.Network.parameter_adjoint, "g[name] + gain * dW", "g[name]", GRADIENT, SWEEP),
    "mu without sigma'": (bptt.sweep, "dsigma(u_n) * lam_n", "lam_n", GDU, GRADIENT, SWEEP),
    "BPTT that starts too late": (bptt.bptt_gradient, "solver.relax(network, x, T - K)", "solver.relax(network, x, T)", UNROLLED),
    "RBP without sigma'": (rbp.rbp_gradient, "slopes[n - 1] * (lam", "(lam", RBP),
    "RBP that pushes away from the target": (rbp.rbp_gradient, "dC = -network", "dC = network", RBP),
    "RBP whose nudge does not stay": (rbp.rbp_gradient, "lam[n] + dC if", "lam[n] + dC * (not mu[-1].any()) if", RBP),
    "RBP through D": (network.Network.transposed_drives, "synapse.drive_post_adjoint", "synapse.drive_pre",
                      (test_rbp.test_rbp_goes_through_the_transposed_jacobian, "average", "sigmoid")),
    "sigma' without 1/2": (activations.HARD_SIGMOID.dsigma, activations.CLIP.dsigma, None,
                           (test_activations.test_dsigma_is_the_derivative_of_sigma, "hard-sigmoid")),
    "G = 1/2 s^2 for clip(u/2, 0, 1)": (activations.HARD_SIGMOID.G, activations.CLIP.G, None,
                                        (test_activations.test_G_is_the_integral_of_the_inverse, "hard-sigmoid"),
                                        (STATIONARY, "average", "hard-sigmoid")),
    "no top-down drives": (network.Network.drives_of, "u[i] = u[i] +", "u[i] = u[i] + 0.0 *",
                           (test_network.test_drives_and_hebbian_are_the_derivatives_of_phi, "dense", "tanh", CE),
                           (test_dynamics.test_the_energy_itself_is_stationary_along_random_directions, "average")),
    "synchronous steps from new values": (dynamics.relax, "SCHEDULES[phase.schedule](network)",
                                          "[[n] for n in range(1, 1 + len(states))]", GDU_TWO_STATES,
                                          (test_dynamics.test_a_step_is_sigma_of_the_drives, "average", "sigmoid")),
    "frozen switches that thaw": (network.Network.drives_of, "if frozen else None", "if False else None",
                                  (test_dynamics.test_frozen_switches_are_kept_throughout,)),
    "softmax without the shift": (cost.SoftmaxCrossEntropy._logits, "z - z.real.max(1, keepdims=True)", "z",
                                  (test_cost.test_large_logits_do_not_overflow, "float64")),
    "force of the squared error": (cost.SquaredError.force, "y - s", "s - y",
                                   (test_cost.test_the_force_is_minus_the_derivative_of_the_cost, "squared error")),
    "forward switches on the way down": (vectorfield.Asymmetric.drive_pre, "switches[1]", "switches[0]",
                                         (DOWN, "conv-max"), ASYMMETRIC_SWEEP, EXACT),
    "feedback that pools by the forward convolution": (
        vectorfield.Asymmetric.drive_post, "self.feedback.winners", "self.forward.winners",
        (test_vectorfield.test_up_through_W_and_down_through_B, "conv-max")),
    "W instead of B in the reverse sweep": (vectorfield.Asymmetric.drive_pre_adjoint, "self.feedback", "self.forward",
                                            (DOWN, "dense"), ASYMMETRIC_SWEEP, EXACT),
    "B instead of W in the reverse sweep": (
        vectorfield.Asymmetric.drive_post_adjoint, "self.forward.drive_pre(post, switches[0])",
        "self.feedback.drive_pre(post, switches[1])",
        (test_vectorfield.test_the_way_up_and_its_adjoint, "dense"), ASYMMETRIC_SWEEP, EXACT),
    "reverse sweep not transposed": (network.Network.transposed_drives, "synapse.drive_post_adjoint", "synapse.drive_pre",
                                     ASYMMETRIC_SWEEP, EXACT),
    "forward switches for both products": (vectorfield.Asymmetric.linear_hebbian, "switches[1]", "switches[0]",
                                           (DOWN, "conv-max"), EXACT),
    "transposed ignored in deviate": (dynamics.deviate, "free.switches, group, transposed)", "free.switches, group)", PLAIN),
    "transposed lost on the way to deviate": (dynamics.response, "phase, transposed)", "phase)",
                                              (test_vectorfield.test_asymmetric_ep_is_the_gradient_of_the_loss, "average",
                                               "sigmoid", CE)),
    "bias in the plain deviations": (vectorfield.Asymmetric.linear_post, "self.forward.linear_post(pre, switches[0])",
                                     "self.forward.drive_post(pre, switches[0])[0]", PLAIN,
                                     (test_vectorfield.test_plain_deviations_are_differences_of_drives, "conv-max")),
    "w_n forgotten in hebbian": (network.Network.hebbian, "= w[j] * g", "= g", WEIGHTS, GAIN_GRADIENT),
    "w_n forgotten in Phi": (network.Network.phi, "w[j] * synapse.phi", "synapse.phi", WEIGHTS, ENERGY),
    "w_n forgotten in the energy": (network.Network.energy, "w_n * G(s)", "G(s)", WEIGHTS, ENERGY, AT_REST),
    "w_n forgotten in the increments of states": (eqprop._increments_of_states, "- c * w *", "- c *", (
        *GAIN_GDU, False)),
    "w_n forgotten in the deviations": (dynamics.deviate, "delta[n - 1] = w *", "delta[n - 1] =", GAIN_GRADIENT, FROZEN),
    "w_n forgotten inside sigma": (dynamics.deviate, "d[n] / w", "d[n]", FROZEN),
    "gain applied twice on the way down": (network.Network.drives_of, "times(gain,", "times(gain * gain,", WEIGHTS, ENERGY,
                                           AT_REST, (test_gain.test_a_drive_that_comes_down_is_multiplied_by_its_gain,)),
    "gain forgotten on the way down": (network.Network.drives_of, "times(gain,", "times(1.0,", WEIGHTS, ENERGY, AT_REST),
    "the same gain on every way down": (network.Network.gains.fget, "self.depths[j] - self.depths[i]", "1",
                                        (test_gain.test_a_drive_that_comes_down_is_multiplied_by_its_gain,),
                                        (test_gain.test_a_skip_connection, None, 0.3)),
    "gain down instead of up in D^T": (
        network.Network.transposed_drives, DOWN_AND_UP,
        DOWN_AND_UP.replace("times(gain", "times(1.0").replace("down(", "gain * down("),
        GAIN_GRADIENT, FROZEN, (test_deviations.test_transposed_drives_are_the_transposed_jacobian, "symmetric", 0.3)),
    "gain forgotten in D^T": (network.Network.transposed_drives, "times(gain,", "times(1.0,", GAIN_GRADIENT, FROZEN),
    "gain forgotten in the second half of dW": (
        network.Network.parameter_adjoint, "g[name] + gain * dW", "g[name] + dW", GAIN_GRADIENT, (*GAIN_GDU, False)),
    "gain forgotten in dB": (network.Network.parameter_adjoint, "else gain * dW", "else dW",
                             (test_gain.test_asymmetric_ep_is_the_gradient_of_the_loss, "average", "sigmoid", SE, 0.3)),
    "cancellation put back, clipped": (activations._clip_difference, "_clip(e + (v - c), -c, high - c)",
                                       "_clip(v + e, 0.0, high) - c",
                                       (test_activations.test_the_difference_for_tiny_steps, "hard-sigmoid", "float32", 1e-30),
                                       (test_deviations.test_deviations_keep_the_digits_that_a_difference_of_states_loses,)),
    "cancellation put back, smooth": (activations._tanh_difference, "xp.tanh(e) * (1.0 - xp.tanh(v) * xp.tanh(v + e))",
                                      "xp.tanh(v + e) - xp.tanh(v)",
                                      (test_activations.test_the_difference_for_tiny_steps, "sigmoid", "float32", 1e-30)),
    "difference without bounds": (activations._clip_difference, "_clip(e + (v - c), -c, high - c)", "e",
                                  (test_activations.test_the_difference_for_large_steps, "clip"),
                                  (test_deviations.test_deviations_are_differences_of_frozen_states, "max", "hard-sigmoid", SE)),
    "downward sweep that uses old values": (dynamics.down, "up(network)[::-1]", "synchronous(network)",
                                            (test_deviations.test_one_sweep_carries_the_nudge_to_the_first_layer,),
                                            (test_gain.test_weak_feedback_is_backpropagation, "dense", "tanh", CE)),
    "downward sweep that goes up": (dynamics.down, "up(network)[::-1]", "up(network)",
                                    (test_deviations.test_one_sweep_carries_the_nudge_to_the_first_layer,)),
    "colours by parity": (dynamics.checkerboard, "next(c for c in range(len(network.shapes)) if c not in neighbours)",
                          "(n + 1) % 2", (test_gain.test_steps_on_a_triangle_never_raise_the_energy, "checkerboard")),
    "fast: kernel not flipped": (winograd.transform_flipped, "np.ascontiguousarray(W[::-1, ::-1]",
                                 "np.ascontiguousarray(W[:, :]", FAST, FAST_RESPONSE),
    "fast: W on the way down": (synapses.FastConv.start, "self.of_B.down, gain", "self.of_W.down, gain", FAST_ASYMMETRIC),
    "fast: no gain on the way down": (synapses.FastConv.start, "self.of_B.down, gain", "self.of_B.down", FAST_GAIN),
    "fast: a drive of old states": (chain.Chain.step, "self.fresh[k] = False", "pass", FAST),
    "fast: a copy of an old state": (chain.Chain.step, "self.fed.discard(k)", "pass",
                                     (test_resnet.test_every_wiring_fast, "13 layers", "up")),
    "fast: zero for ever": (chain.Chain.step, "self.zero[n], self.reached[n] = False,",
                            "self.zero[n], self.reached[n] = self.zero[n],", FAST_GAIN),
    "fast: ties left to rounding": (chain.Chain.drive_post, "not self.reached[pre]", "False", FAST_TIES),
    "fast: an image that arrives at once": (chain.Chain.clear, "[True] + [False] * L", "[True] + [True] * L", FAST_TIES),
    "fast: last of equals wins": (pooling.MaxPool.pool, "y_1 > y_0, y_3 > y_2", "y_1 >= y_0, y_3 > y_2",
                                  (test_fast.test_ties_first_wins,)),
    "fast: the last of several ways down only": (chain.added, "for rows, part in stripes:", "for rows, part in ():",
                                                 FAST_WIRING),
    "fast: an identity without its gain": (synapses.FastIdentity.drive_pre, "self.gain * post", "post", FAST_WIRING),
    "calibrate: identities for nothing": (builders.calibrate, "identities**-0.5", "1.0", (test_resnet.test_calibrated_drives,)),
    "resnet: blocks that are left over": (builders.resnet, "(blocks + stage) // stages", "blocks // stages",
                                          (test_resnet.test_the_wiring,)),
    "fast: bottom row to the top": (pooling.MaxPool.pool, "bottom = low > top", "bottom = low < top", FAST),
    "fast: frozen switches that thaw": (synapses.FastConv.drive_post, "pool.at_switches if frozen", "pool.pool if frozen", FAST),
    "fast: tiles without overlap": (winograd.overlapping, "m * row", "length * row",
                                    (test_fast.test_convolution, 4, 8, 8, 1, None)),
    "fast: rows that come too late": (pooling.Feed.__call__, "-(-rows // self.size)", "rows // self.size - 1",
                                      FAST, FAST_RESPONSE),
    "fast: kernel's gradient not transformed back": (winograd.transform_gradient, "_GG(m, dU.dtype).T",
                                                     "_GG(m, dU.dtype)[::-1].T", FAST_RESPONSE),
    "fast: one product for two": (synapses.FastConv.products, "result(fill)", "result(fill, (0,))", FAST_RESPONSE),
    "fast: product without the gain": (synapses.FastConv.products, "np.multiply(mu_pre, self.gain", "np.multiply(mu_pre, 1",
                                       FAST_RESPONSE),
    "fast: response through D": (synapses.FastConv.start_response, "(self.of_W, self.of_B) if transposed",
                                 "(self.of_B, self.of_W) if transposed", FAST_TRANSPOSED),
    "fast: response at the other switches": (synapses.FastConv.start_response, "pools if transposed", "pools[::-1] if transposed",
                                             FAST_TRANSPOSED),
    "fast: response with the gain downwards": (synapses.FastConv.start_response, "self.down.set(down.down, scale)",
                                               "self.down.set(down.down, scale * self.gain)", FAST_RESPONSE),
    "fast: deviations that do not return": (Deviations.step, "self.moved[n] = moves", "pass", FAST_RESPONSE),
    "fast: weights forgotten": (Deviations.clipped, "self.weights[n - 1]", "1.0", FAST_RESPONSE),
    "fast: every unit inside its bounds": (Deviations.clipped, "offset += low", "offset *= 0", FAST_RESPONSE),
    "fast: buffers of other images": (chain.Chain.holds, "all(a is b for a, b in zip(wanted, self.held))", "True",
                                      (test_fast.test_results_are_not_overwritten,)),
    "fast: an image of another batch": (synapses.FirstConv.product, "self.x is not x", "self.x is None",
                                      (test_fast.test_products_of_any_states,)),
    "Kolen-Pollack with the difference": (
        vectorfield.kolen_pollack, "+ g for name", "- g for name", (test_vectorfield.test_kolen_pollack_touches_only_pairs,),
        (test_vectorfield.test_equal_weights_gradient_by_gradient, "average", "sigmoid", CE)),
    "Kolen-Pollack for W alone": (vectorfield.kolen_pollack, 'in "WB"', 'in "W"', (
        test_vectorfield.test_kolen_pollack_touches_only_pairs,)),
}


def mutated(function, right, wrong):
    """The code object of `function` with `right` replaced by `wrong` in its source (or that of another function)."""
    if callable(right):
        return right.__code__
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(right) == 1, f"'{right}' is not in {function.__qualname__} any more: bring this mutant up to date"
    scope = dict(function.__globals__)
    exec(source.replace(right, wrong), scope)
    return getattr(scope[function.__name__], "fget", scope[function.__name__]).__code__  # fget: of a property


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what overflows in a mutant is the point of it
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_caught(name, monkeypatch):
    """The tests pass on the library as it is, and each of them fails on the mutant."""
    function, right, wrong, *tests = MUTANTS[name]
    for test, *arguments in tests:
        arguments = (np, *arguments) if "xp" in inspect.signature(test).parameters else arguments
        test(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(function, "__code__", mutated(function, right, wrong))
            with pytest.raises(AssertionError):
                test(*arguments)
