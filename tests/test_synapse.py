"""The contract of a synapse: three faces of one number Phi_n(pre, post), and each face is a derivative of it."""

import numpy as np
import pytest
from helpers import dot, normal, relative, slope

from ep import ops
from ep.backend import to_host
from ep.errors import EPError
from ep.synapse import Conv, Dense, inner

SYNAPSES = {  # name: (make(W, b), shape of W, shape of b)
    "dense": (lambda W, b: Dense(W, b, (6,)), (6, 4), (4,)),
    "dense-image": (lambda W, b: Dense(W, b, (2, 3, 2)), (12, 4), (4,)),
    **{f"conv-{name}": (lambda W, b, pool=pool: Conv(W, b, (6, 5, 3), pool=pool), (3, 3, 3, 4), (4,))
       for name, pool in ops.POOLINGS.items()},
    "conv-stride": (lambda W, b: Conv(W, b, (8, 7, 3), stride=2, padding=1, pool=ops.AVERAGE_POOL), (3, 3, 3, 4), (4,)),
    "conv-valid": (lambda W, b: Conv(W, b, (6, 6, 3), padding=0, pool=ops.MAX_POOL), (3, 3, 3, 4), (4,)),
    "conv-stride-valid": (lambda W, b: Conv(W, b, (9, 8, 3), stride=2, padding=0, pool=ops.MAX_POOL), (2, 2, 3, 4), (4,)),
}
every_synapse = pytest.mark.parametrize("name", SYNAPSES)


def case(xp, name):
    """(synapse, pre, post) with random numbers everywhere, the bias included."""
    make, W_shape, b_shape = SYNAPSES[name]
    synapse = make(normal(xp, W_shape, 0), normal(xp, b_shape, 1))
    return synapse, normal(xp, (2, *synapse.pre_shape), 2), normal(xp, (2, *synapse.post_shape), 3)


@every_synapse
def test_three_faces_of_one_number(xp, name):
    """Phi_n = < drive_post(pre), post > = < pre, drive_pre(post) > + < b, post > = < theta, hebbian >."""
    synapse, pre, post = case(xp, name)
    up, switches = synapse.drive_post(pre)
    phi = dot(synapse.phi(pre, post), xp.ones(2))
    bias_term = dot(synapse.b + 0.0 * post, post)
    assert dot(up, post) == pytest.approx(phi, rel=1e-12)
    assert dot(pre, synapse.drive_pre(post, switches)) + bias_term == pytest.approx(phi, rel=1e-12)
    assert dot(synapse.parameters(), synapse.hebbian(pre, post, switches)) == pytest.approx(phi, rel=1e-12)


@every_synapse
def test_every_face_is_a_derivative_of_phi(xp, name):
    """drive_post = dPhi/dpost, drive_pre = dPhi/dpre, hebbian = dPhi/dtheta, by finite differences of Phi."""
    synapse, pre, post = case(xp, name)
    d_pre, d_post, d_W, d_b = (normal(xp, a.shape, 10 + k) for k, a in enumerate((pre, post, synapse.W, synapse.b)))
    up, switches = synapse.drive_post(pre)
    grads = synapse.hebbian(pre, post, switches)

    def phi(pre, post, dW=0.0, db=0.0):
        moved = SYNAPSES[name][0](synapse.W + dW, synapse.b + db)
        return to_host(moved.phi(pre, post).sum()).item()

    assert slope(lambda t: phi(pre, post + t * d_post)) == pytest.approx(dot(up, d_post), rel=1e-9)
    down = synapse.drive_pre(post, switches)
    assert slope(lambda t: phi(pre + t * d_pre, post)) == pytest.approx(dot(down, d_pre), rel=1e-9)
    assert slope(lambda t: phi(pre, post, dW=t * d_W)) == pytest.approx(dot(grads["W"], d_W), rel=1e-9)
    assert slope(lambda t: phi(pre, post, db=t * d_b)) == pytest.approx(dot(grads["b"], d_b), rel=1e-9)


@every_synapse
def test_linear_post_is_the_adjoint_of_drive_pre(xp, name):
    """< linear_post(v, switches), post > = < v, drive_pre(post, switches) > at the switches of *another* array."""
    synapse, pre, post = case(xp, name)
    switches, v = synapse.drive_post(pre)[1], normal(xp, pre.shape, 4)
    value = dot(synapse.linear_post(v, switches), post)
    assert dot(v, synapse.drive_pre(post, switches)) == pytest.approx(value, rel=1e-12)
    assert dot(synapse.W, synapse.linear_hebbian(v, post, switches)["W"]) == pytest.approx(value, rel=1e-12)


@every_synapse
def test_given_switches_are_kept(xp, name):
    """drive_post(pre, switches) = linear_post(pre, switches) + b, and returns those very switches."""
    synapse, pre, _ = case(xp, name)
    switches = synapse.drive_post(normal(xp, pre.shape, 5))[1]
    up, kept = synapse.drive_post(pre, switches)
    assert kept is switches
    assert relative(up, synapse.linear_post(pre, switches) + synapse.b) < 1e-14


@every_synapse
def test_phi_is_per_example(xp, name):
    """Phi_n of a batch = Phi_n of each example; post_shape is the shape of the drive."""
    synapse, pre, post = case(xp, name)
    assert synapse.drive_post(pre)[0].shape == (2, *synapse.post_shape)
    singles = [to_host(synapse.phi(pre[n:n + 1], post[n:n + 1])).item() for n in range(2)]
    assert np.allclose(to_host(synapse.phi(pre, post)), singles, rtol=1e-12, atol=0)


def test_inner_does_not_conjugate(xp):
    """< a, b > is bilinear, so that Phi stays holomorphic: < i, i > = -1."""
    i = xp.asarray([[1j]])
    assert to_host(inner(i, i)).item() == -1


def test_a_kernel_that_does_not_fit_is_refused():
    """A convolution that leaves nothing of the image is one clear error."""
    with pytest.raises(EPError, match="leaves nothing of a 3x3 image"):
        Conv(np.zeros((3, 3, 1, 1)), np.zeros(1), (3, 3, 1), padding=0)
