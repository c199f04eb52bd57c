"""Equilibrium propagation (EP) for deep ConvNets, from scratch, on NumPy and CuPy.

Laborieux et al. 2021, "Scaling Equilibrium Propagation to Deep ConvNets by Drastically Reducing its Gradient Estimator
Bias" (arXiv:2006.03824). docs/code/overview.md has the files of the core in the order in which they build on each other, with the
equations of each; a first reading begins with synapse.py, dynamics.py and eqprop.py.

The core needs NumPy alone. The rest is never needed to understand it: ep.engine has synapses that are faster on a CPU or a GPU,
ep.datasets reads images, ep.train trains.

Symbols

    x        input, held fixed                    (N, H, W, C) or (N, units)
    s        states [s_1 ... s_L]                 layer 0 is x; a list of arrays, one per layer
    theta    parameters W, b of the synapses      flat dictionary {"1.W": array, ...}
    B        feedback weights, of W's shape       "2.B"; only in asymmetric networks
    Phi      primitive function                   one number per example, (N,)
    E        energy, sum w_n G(s_n) - Phi         (N,)
    sigma    activation, G' = sigma^-1
    u        drive of a layer; `Relaxation.u` is the argument of sigma, with the nudge in the last layer
    gamma    feedback gain; 1 is the paper's network
    w_n      factor of layer n in the energy, gamma^(depth_n - depth_L)
    D        Jacobian of the drives, at s* and its switches
    delta    deviation w_n (s_n^beta - s_n*)      like s
    y        targets                              (N,) labels or (N, classes)
    C, L     cost of a state; loss L = C(s*, y), and as an index the last layer
    beta     nudging strength; s^beta fixed point, s* = s^0
    T, K     steps of the free and of a nudged phase
    mu, lam  adjoint states of BPTT; the sum of all mu is the response to nudging, - sum_k c_k delta^{beta_k}
    c_k      weight of the nudged phase at beta_k in the estimate

Conventions: arguments in the order (pre, post); images channels-last (N, H, W, C), kernels (k, k, C_in, C_out); gradients are
dL/dtheta, batch mean, to be descended; a step updates every layer once; the residual is the largest change in one step.
"""

from importlib import import_module

from .activations import CLIP, HARD_SIGMOID, RELU6, SHIFTED_SIGMOID, TANH, Activation
from .backend import array_module, device_module, to_host
from .bptt import bptt_gradient, bptt_increments
from .builders import CONNECTIONS, convnet, load, mlp, resnet
from .checks import check_derivatives
from .cost import SoftmaxCrossEntropy, SquaredError
from .dynamics import deviate, relax, residual, response
from .eqprop import eqprop_from_states, eqprop_gradient
from .errors import EPError
from .gdu import eqprop_increments
from .imperfections import Imperfections, imperfect_gradient
from .network import Network
from .nudging import Nudging
from .ops import AVERAGE_POOL, MAX_POOL, NO_POOL, Pooling
from .papers_code import papers_gradient
from .phase import Phase, Phases
from .radius import best_omega, spectral_radius
from .rbp import rbp_gradient
from .synapse import Conv, Dense, Filtered, Identity, Nonlinear, Synapse
from .vectorfield import FEEDBACK_UPDATES, Asymmetric, alignment, asymmetric, kolen_pollack

__version__ = "0.1.0"

LATER = {  # names that are imported when they are first asked for, so that `import ep` needs NumPy alone
    **dict.fromkeys(("engine", "datasets", "train")),
    **dict.fromkeys(("evaluate", "in_chunks", "train_epoch", "worker_threads"), "train.loop"),
    **dict.fromkeys(("SGD", "Adam", "Muon"), "train.optimizers"),
}


def __getattr__(name):
    if name not in LATER:
        raise AttributeError(f"module 'ep' has no attribute '{name}'")
    module = LATER[name]
    return getattr(import_module(f".{module}", __name__), name) if module else import_module(f".{name}", __name__)


__all__ = [
    "AVERAGE_POOL", "Activation", "Asymmetric", "CLIP", "CONNECTIONS", "Conv", "Dense", "EPError", "FEEDBACK_UPDATES",
    "Filtered", "HARD_SIGMOID", "Identity", "Imperfections", "MAX_POOL", "NO_POOL", "Network", "Nonlinear", "Nudging",
    "Phase", "Phases", "Pooling", "RELU6", "SHIFTED_SIGMOID", "SoftmaxCrossEntropy", "SquaredError", "Synapse", "TANH",
    "alignment", "array_module", "asymmetric", "best_omega", "bptt_gradient", "bptt_increments", "check_derivatives",
    "convnet", "deviate", "device_module", "eqprop_from_states", "eqprop_gradient", "eqprop_increments",
    "imperfect_gradient", "kolen_pollack", "load", "mlp", "papers_gradient", "rbp_gradient", "relax", "residual", "resnet",
    "response", "spectral_radius", "to_host",
]
