"""Equilibrium propagation (EP) for deep ConvNets, from scratch, on NumPy and CuPy.

Laborieux et al. 2021, "Scaling Equilibrium Propagation to Deep ConvNets by Drastically Reducing its Gradient Estimator
Bias" (arXiv:2006.03824). Read the files in this order; each imports only from those before it.

    checks.py      what a caller passes, as the package keeps it
    nudging.py     which nudged phases to run, and how to combine them      equation (4)
    ops.py         convolution and pooling, and their adjoints
    activations.py sigma, sigma' and the G of the energy
    synapse.py     Phi_n(pre, post) and its three derivatives
    cost.py        C(s, y) and the force -dC/ds
    vectorfield.py asymmetric synapses: feedback weights of their own       equations (7), (8)
    network.py     Phi, E, their derivatives; weights of the layers         equations (2), (10), (12)
    builders.py    mlp(), convnet(), resnet(), load()
    dynamics.py    relax: s* and s^beta; deviate: their difference          equations (1), (11)
    eqprop.py      the gradient by EP                                       equations (3), (4), (5), (12)
    bptt.py        the gradient by backpropagation through time             equation (6)
    rbp.py         the same at the fixed point, without the time            equation (9)

Symbols

    x        input, held fixed                    (N, H, W, C) or (N, units)
    s        states [s_1 ... s_L]                 layer 0 is x; a list of arrays, one per layer
    theta    parameters W, b of the synapses      flat dictionary {"1.W": array, ...}
    B        feedback weights, of W's shape       "2.B"; only in asymmetric networks
    Phi      primitive function                   one number per example, (N,)
    E        energy, sum w_n G(s_n) - Phi         (N,)
    sigma    activation, G' = sigma^-1
    u        argument of sigma: the drive of a layer, plus the nudge in the last
    gamma    feedback gain; 1 is the paper's network
    w_n      weight of layer n in the energy, gamma^(depth_n - depth_L)
    D        Jacobian of the drives, at s* and its switches
    delta    deviation w_n (s_n^beta - s_n*)      like s
    y        targets                              (N,) labels or (N, classes)
    C, L     cost of a state; loss L = C(s*, y)
    beta     nudging strength; s^beta fixed point, s* = s^0
    T, K     steps of the free and of a nudged phase
    mu, lam  adjoint states of BPTT; mu is also the response to nudging, - sum_k c_k delta^{beta_k}

Conventions: arguments in the order (pre, post); images channels-last (N, H, W, C), kernels (k, k, C_in, C_out); gradients are
dL/dtheta, batch mean, to be descended; a step updates every layer once; the residual is the largest change in one step.
"""

from . import fast
from .activations import CLIP, HARD_SIGMOID, RELU6, SIGMOID, TANH
from .backend import array_module, device_module, to_host
from .bptt import bptt_gradient, bptt_increments
from .builders import CONNECTIONS, convnet, load, mlp, resnet
from .cost import SoftmaxCrossEntropy, SquaredError
from .dynamics import (
    PAPERS_CODE,
    PAPERS_COMMON_UPDATE,
    READABLE,
    Conventions,
    Phase,
    Phases,
    Solver,
    deviate,
    relax,
    residual,
)
from .eqprop import eqprop_gradient, eqprop_increments
from .errors import EPError
from .network import Network
from .nudging import Nudging
from .ops import AVERAGE_POOL, MAX_POOL, NO_POOL
from .rbp import rbp_gradient
from .synapse import Conv, Dense, Identity
from .train.loop import evaluate, in_chunks, train_epoch, worker_threads
from .train.optimizers import SGD, Adam
from .vectorfield import FEEDBACK_UPDATES, Asymmetric, alignment, asymmetric, kolen_pollack

__version__ = "0.1.0"

__all__ = [
    "AVERAGE_POOL", "Adam", "Asymmetric", "CLIP", "CONNECTIONS", "Conv", "Conventions", "Dense", "EPError",
    "FEEDBACK_UPDATES", "HARD_SIGMOID", "Identity", "MAX_POOL", "NO_POOL", "Network", "Nudging", "PAPERS_CODE",
    "PAPERS_COMMON_UPDATE", "Phase", "Phases", "READABLE", "RELU6", "SGD", "SIGMOID", "SoftmaxCrossEntropy", "Solver",
    "SquaredError", "TANH", "alignment", "array_module", "asymmetric", "bptt_gradient", "bptt_increments", "convnet",
    "deviate", "device_module", "eqprop_gradient", "eqprop_increments", "evaluate", "fast", "in_chunks", "kolen_pollack",
    "load", "mlp", "rbp_gradient", "relax", "residual", "resnet", "to_host", "train_epoch", "worker_threads",
]
