"""The embedded images are honest: neither pixels, nor neighbours, nor a random network's features solve them.

Fixed splits, 4,000 training and 1,000 test images. The opposite limit, that symmetric EP learns them, is the main
example's test.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from ep.builders import convnet
from ep.datasets import normalise, synthetic
from ep.datasets.synthetic import CLASSES, synthetic_images
from ep.dynamics import Phase, relax

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def splits():
    """(x, labels, test x, test labels), normalised as for training."""
    images, labels, test_images, test_labels = synthetic_images(4000, 1000, seed=0)
    return normalise(images), labels, normalise(test_images), test_labels


def logistic_regression(features, labels, penalty):
    """Multinomial logistic regression with penalty/2 ||W||^2 to convergence; returns predict(features)."""
    mean, std = features.mean(0), features.std(0) + 1e-8

    def prepare(f):
        return np.column_stack([(f - mean) / std, np.ones(len(f))]).astype(np.float64)

    F, Y = prepare(features), np.eye(len(CLASSES))[labels]

    def value_and_gradient(w):
        W = w.reshape(-1, len(CLASSES))
        log_p = log_softmax(F @ W, axis=1)
        return (penalty / 2 * (w @ w) - (Y * log_p).sum() / len(F),
                (F.T @ (np.exp(log_p) - Y) / len(F) + penalty * W).ravel())

    result = minimize(value_and_gradient, np.zeros(F.shape[1] * len(CLASSES)), jac=True, method="L-BFGS-B",
                      options=dict(maxiter=10_000, maxfun=20_000, gtol=1e-6))
    assert result.success, result.message
    return lambda f: (prepare(f) @ result.x.reshape(-1, len(CLASSES))).argmax(1)


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_pixels_are_not_linearly_separable_by_class(splits, penalty):
    """Converged logistic regression on pixels: at most 60% (here about 40%)."""
    x, y, test_x, test_y = (a.reshape(len(a), -1).squeeze() for a in splits)
    assert (logistic_regression(x, y, penalty)(test_x) == test_y).mean() <= 0.60


def test_nearest_neighbour(splits):
    """The label of the nearest training image (Euclidean, pixels): at most 70% (here about 50%)."""
    x, y, test_x, test_y = (a.reshape(len(a), -1).squeeze() for a in splits)
    distances = (x**2).sum(1) - 2 * test_x @ x.T  # up to a constant per test image
    assert (y[distances.argmin(1)] == test_y).mean() <= 0.70


@pytest.mark.parametrize("penalty", [1e-2, 1e-4, 1e-6])
def test_readout_of_random_features(penalty, features):
    """Only the readout trained, on the free fixed points of the initial network: at most 75% (here about 58%)."""
    s, y, test_s, test_y = features
    assert (logistic_regression(s, y, penalty)(test_s) == test_y).mean() <= 0.75


@pytest.fixture(scope="module")
def features(splits):
    """The last layer of the main example's initial network, relaxed, for both splits."""
    network = convnet((32, 64, 128, 128), scale=(6, 2, 2, 2, 2), seed=0)

    def last_layer(x):
        parts = np.array_split(x, len(x) // 20)
        with ThreadPoolExecutor(2) as pool:
            states = pool.map(lambda part: relax(network, part, Phase(8, "checkerboard")).states[-1], parts)
            return np.concatenate(list(states)).reshape(len(x), -1)

    x, y, test_x, test_y = splits
    return last_layer(x), y, last_layer(test_x), test_y


def test_shapes_are_lighter_and_stripes_have_their_period():
    back, front = synthetic._colours(1000, np.random.default_rng(0))
    assert ((front - back) @ synthetic.LIGHTNESS).min() >= 0.3
    assert np.allclose(synthetic._waves(np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5])), [-0.5, 0.0, 0.5, 0.0, -0.5, 0.5])
