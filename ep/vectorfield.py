"""Asymmetric networks: feedback weights B that are not the forward weights W. No Phi, no energy, only a vector field.

    u_n = P(W_n * s_{n-1}) + b_n  +  gamma B_{n+1}^T * P_B^T(s_{n+1})       the drives; s <- sigma( u - beta dC/ds )

gamma is the feedback gain (network.py). P_B chooses its corners by conv(pre, B), and not by conv(pre, W): with the switches of
W and another B, few free phases settle. So the switches of such a synapse are a pair, those of W and those of B. D is the
Jacobian of the drives at s* and at its switches.

Without a Phi there is no equation (4). But it is still known how a weight acts on the drives. So once we know mu, what a small
change of each layer's u costs at the fixed point, the gradient is

    dW = hebbian(s*_pre, mu_post)    db = sum mu_post    dB = gamma hebbian(mu_pre, s*_post)                    (7)

EP takes for mu the response of the layers to nudging, mu = - sum_k c_k delta^{beta_k}, where delta is the deviation of a nudged
state from s*. BPTT sends mu back through D^T, so (7) is the gradient if the response, too, goes through D^T. There are three
rules. They differ in what `dynamics.deviate` relaxes, written here for gamma = 1 (equation (11) has the factors of the layers):

    own            delta <- sigma( u* + D delta - beta dC/ds ) - sigma( u* ), transposed=False          (vector-field EP)
    Kolen-Pollack  the same response, but W and B both get dW + dB
    exact          delta <- sigma( u* + D^T delta - beta dC/ds ) - sigma( u* ), transposed=True                 (8)

The own rule is right only where B = W. So is Kolen-Pollack's, but it brings B to W: both receive the same update, so that only
weight decay acts on W - B. (8) is asymmetric EP (Scurria et al., arXiv:2602.03670) and right for any B: the response runs
backwards, which means that W leads down and B leads up.
"""

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Array, Gradient, array_module, to_host
from .checks import floats
from .errors import EPError
from .synapse import Synapse

if TYPE_CHECKING:
    from .network import Network  # for the hints alone


class Asymmetric(Synapse):
    """A synapse with feedback weights of its own: `forward`, a Dense or Conv, and B of the shape of its W.

    Bottom-up it is `forward`; top-down it is a second synapse like it, with B for W. Parameters W, b, B.
    Raises EPError if the shapes of W and B differ.
    """

    has_phi = False
    parts = ("forward", "feedback")

    def __init__(self, forward: Any, B: Array) -> None:
        B = floats(B, "B", forward.W.ndim)
        if B.shape != forward.W.shape:
            raise EPError(f"feedback weights have the shape of the forward weights, {forward.W.shape}: got {B.shape}")
        self.forward, self.feedback = forward, copy.copy(forward)
        self.feedback.W, self.feedback.b = B, 0.0  # the way down has no bias: that of the layer below is W's
        self.pre_shape, self.post_shape, self.holomorphic = forward.pre_shape, forward.post_shape, forward.holomorphic
        self.pool = getattr(forward, "pool", None)

    W = property(lambda self: self.forward.W, lambda self, W: setattr(self.forward, "W", W))
    b = property(lambda self: self.forward.b, lambda self, b: setattr(self.forward, "b", b))
    B = property(lambda self: self.feedback.W, lambda self, B: setattr(self.feedback, "W", B))

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b, "B": self.B}

    def phi(self, pre: Array, post: Array) -> Array:
        raise EPError("an asymmetric network has no Phi and no energy: its drives are the derivatives of no scalar, because "
                      "the influence of i on j is not that of j on i")

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        """(drive, switches): one convolution with W, and with max-pooling another with B, for the feedback's switches."""
        if switches is not None:
            return self.forward.drive_post(pre, switches[0])[0], switches
        up, of_W = self.forward.drive_post(pre)
        return up, (of_W, self.feedback.winners(pre))

    def linear_post(self, pre: Array, switches: Any) -> Array:
        return self.forward.linear_post(pre, switches[0])  # the way up without the bias

    def drive_pre(self, post: Array, switches: Any) -> Array:
        return self.feedback.drive_pre(post, switches[1])

    def drive_post_adjoint(self, post: Array, switches: Any) -> Array:
        return self.forward.drive_pre(post, switches[0])  # W^T: down through the forward weights

    def drive_pre_adjoint(self, pre: Array, switches: Any) -> Array:
        return self.feedback.linear_post(pre, switches[1])  # B: up through the feedback weights

    def hebbian(self, pre: Array, post: Array, switches: Any) -> Gradient:
        """d < drive_post(pre), post > / d(W, b)."""
        return self.forward.hebbian(pre, post, switches[0])

    def hebbian_down(self, pre: Array, post: Array, switches: Any) -> Gradient:
        """d < pre, drive_pre(post) > / dB."""
        return {"B": self.feedback.hebbian_down(pre, post, switches[1])["W"]}


def plain(network: "Network") -> list:
    """The synapses of a network; of one that consists of others, these."""
    return [one for synapse in network.synapses
            for one in ([getattr(synapse, name) for name in synapse.parts] or [synapse])]


def asymmetric(network: "Network", angle: float = 90.0, seed: int = 0) -> "Network":
    """A copy of `network` in which every synapse, except from the input, has feedback weights at `angle` degrees to W.

        B = cos(angle) W + sin(angle) R       R: the numbers of W in an order drawn from `seed`, so as large and unrelated

    90: feedback drawn independently; 0: B = W, the same dynamics as `network`. Raises EPError if it is asymmetric already, or
    has another kind of synapse that cannot be doubled.
    """
    if any(name.endswith(".B") for name in network.parameters()):
        raise EPError("this network is asymmetric already: start from a symmetric one")
    other, turn = copy.deepcopy(network), math.radians(angle)
    for k, (i, _) in enumerate(network.wiring):
        if i > 0 and network.synapses[k].parameters():  # nothing is fed back to the input, and an `Identity` has no weights
            if missing := [name for name in ("W", "b") if not hasattr(network.synapses[k], name)]:
                raise EPError(f"synapse {k + 1} cannot have feedback weights of its own: it has no {', no '.join(missing)}")
            network.check_bilinear()
            W = network.synapses[k].W
            R = np.random.default_rng([seed, k]).permutation(to_host(W).ravel()).reshape(W.shape)
            B = math.cos(turn) * W + math.sin(turn) * array_module(W).asarray(R)
            other.synapses[k] = Asymmetric(other.synapses[k], B)
    return other


def kolen_pollack(gradient: Gradient) -> Gradient:
    """{"2.W": dW, "2.B": dB, ...} -> both replaced by dW + dB: with B = W, the gradient of the symmetric network."""
    both = {name[:-1]: gradient[f"{name[:-1]}W"] + g for name, g in gradient.items() if name.endswith(".B")}
    return {**gradient, **{layer + end: g for layer, g in both.items() for end in "WB"}}


FEEDBACK_UPDATES = {  # the three rules: (`transposed` of eqprop_gradient, what is made of its gradient)
    "own": (False, dict),
    "kolen-pollack": (False, kolen_pollack),
    "exact": (True, dict),
}


def alignment(parameters: Gradient) -> dict[str, tuple[float, float]]:
    """{layer: (angle between W and B in degrees, |W - B|)} of the synapses that have a B; empty if none has."""
    pairs = {name[:-2]: (parameters[f"{name[:-1]}W"], B) for name, B in parameters.items() if name.endswith(".B")}
    return {layer: (_angle(W, B), _norm(W - B)) for layer, (W, B) in pairs.items()}


def _angle(W, B):
    w, b = _norm(W), _norm(B)
    return math.degrees(2 * math.atan2(_norm(b * W - w * B), _norm(b * W + w * B)))  # arccos loses small angles


def _norm(a):
    return float((a * a).sum()) ** 0.5
