"""How does a network compute its gradient by relaxing, free and nudged?

    python examples/01_eqprop_by_hand.py         # a few seconds; NumPy only, nothing is imported from ep

A network of 2 inputs, 8 hidden and 2 output units learns XOR, after its gradient has been compared with finite differences of
the loss. The equations have the numbers of the README. It prints:

    largest error of the gradient, relative to its largest entry
        beta    one-sided    symmetric
         0.1      3.2e-02      2.1e-03
        0.01      3.3e-03      2.1e-05
       0.001      3.3e-04      2.1e-07
    after    0 updates: loss 0.3116, right answers 2 of 4
    after  400 updates: loss 0.2468, right answers 2 of 4
    after  800 updates: loss 0.2370, right answers 3 of 4
    after 1200 updates: loss 0.1842, right answers 3 of 4
    after 1600 updates: loss 0.0416, right answers 4 of 4
    after 2000 updates: loss 0.0153, right answers 4 of 4
"""

import numpy as np

rng = np.random.default_rng(0)

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])  # four examples, one per row
y = np.array([[1, 0], [0, 1], [0, 1], [1, 0.0]])  # XOR, one-hot

theta = {  # the parameters
    "W1": rng.normal(0, 1.0, (2, 8)), "b1": rng.normal(0, 0.5, 8),  # joins x and s1
    "W2": rng.normal(0, 0.5, (8, 2)), "b2": rng.normal(0, 0.5, 2),  # joins s1 and s2, in both directions
}

# s1 and s2 are the states of the hidden and of the output units:
#
#     Phi(x, s) = s1 . (W1 x + b1) + s2 . (W2 s1 + b2)       one number per example: how well neighbouring layers agree
#     (1)  s <- sigma( dPhi/ds - beta dC/ds )                a unit feels its own slope of Phi, and an output its cost C, too
#     (2)  E = G(s1) + G(s2) - Phi                           where (1) stops, E + beta C has the slope zero; G' inverts sigma
#
# In arrays an example is a row, so W1 x is x @ W1, and W2^T s2 is s2 @ W2.T.


def sigma(u):
    return 1 / (1 + np.exp(-u))


def cost(s, y):
    return 0.5 * ((s[1] - y) ** 2).sum(1).mean()  # the mean of C = 1/2 ||s2 - y||^2


def relax(theta, s, beta=0.0, steps=50):
    """The fixed point s^beta, by (1). beta = 0: free. beta > 0: the output is pulled towards y; beta < 0: pushed away."""
    s1, s2 = s
    for _ in range(steps):
        u1 = x @ theta["W1"] + theta["b1"] + s2 @ theta["W2"].T  # dPhi/ds1: from below, and from above
        u2 = s1 @ theta["W2"] + theta["b2"] + beta * (y - s2)  # dPhi/ds2 - beta dC/ds2
        s1, s2 = sigma(u1), sigma(u2)
    return s1, s2


def dPhi_dtheta(s):
    """What a connection knows: the product of the two states it joins (mean over the examples)."""
    s1, s2 = s
    N = len(x)
    return {"W1": x.T @ s1 / N, "b1": s1.mean(0), "W2": s1.T @ s2 / N, "b2": s2.mean(0)}


zeros = np.zeros((4, 8)), np.zeros((4, 2))


def eqprop(theta, points, weights):
    """(4): g = - sum_k c_k dPhi/dtheta (s^{beta_k}), with c_k in `weights`: by (3) about the gradient of L = C(s*, y)."""
    s_free = relax(theta, zeros)
    g = {name: 0.0 for name in theta}
    for beta, c in zip(points, weights):
        for name, dPhi in dPhi_dtheta(relax(theta, s_free, beta)).items():
            g[name] = g[name] - c * dPhi
    return g


def finite_differences(theta, h=1e-5):
    """The same gradient with no theory at all: move one weight, relax, look at the loss."""
    g = {name: np.zeros_like(w) for name, w in theta.items()}
    for name, w in theta.items():
        for i in np.ndindex(w.shape):
            keep = w[i]
            loss = []
            for w[i] in (keep + h, keep - h):
                loss.append(cost(relax(theta, zeros), y))
            w[i] = keep
            g[name][i] = (loss[0] - loss[1]) / (2 * h)
    return g


truth = finite_differences(theta)
print("largest error of the gradient, relative to its largest entry")
print(f"{'beta':>8} {'one-sided':>12} {'symmetric':>12}")
for beta in (0.1, 0.01, 0.001):
    errors = []
    for points, weights in [((0, beta), (-1 / beta, 1 / beta)), ((-beta, beta), (-0.5 / beta, 0.5 / beta))]:
        g = eqprop(theta, points, weights)
        errors.append(max(abs(g[name] - truth[name]).max() / abs(truth[name]).max() for name in theta))
    print(f"{beta:8} {errors[0]:12.1e} {errors[1]:12.1e}")  # falls like beta, and like beta^2

beta = 0.1
for update in range(2001):
    if update % 400 == 0:
        s = relax(theta, zeros)
        print(f"after {update:4} updates: loss {cost(s, y):.4f}, right answers {(s[1].argmax(1) == y.argmax(1)).sum()} of 4")
    g = eqprop(theta, (-beta, beta), (-0.5 / beta, 0.5 / beta))
    for name in theta:
        theta[name] -= 0.2 * g[name]  # descend
