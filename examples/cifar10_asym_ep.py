"""Does a network learn whose feedback connections are not its forward connections?

    python examples/cifar10_asym_ep.py                               # full feedback, the main job's default
    python examples/cifar10_asym_ep.py --preset paper --data DIR     # the paper's experiment, on a GPU

The recipe of the paper's 13.2% test error (arXiv:2006.03824): asymmetric connections, both directions updated by the sum of
their own vector-field updates (Kolen-Pollack), cross-entropy, K = 30, beta = 1, everything else as for symmetric weights.
W - B shrinks by weight decay alone, learning makes W + B grow, so the angle between them falls: every epoch prints both.

At full feedback the network settles only if its radius is small: it starts at 0.5, with feedback that is unrelated to the forward
weights, and is scaled down where it is above 0.7 on training images, every 20 updates. After one epoch of 4,000 embedded images
it was right on 98.2% of 1,000 others by Kolen-Pollack (94.2% without its feedback), and on all by the exact rule (99.9%). All
images settled. Smallest cosines 0.59 and 1.00, largest of feed-forward backpropagation 0.70 and 0.44, radius 0.75 and 0.61, one
seed.

At the weak gain of --preset cpu what comes down hardly moves the free state; the rules differ in what carries the nudge down, W
for the exact gradient and B for the others. Of 500 held-out embedded images they were right on 93.8% (exact), 70.8%
(Kolen-Pollack) and 61.4% (own) after 250 updates, in which W and B have not aligned yet: --preset cpu --dataset synthetic
--epochs 4 --channels 16 32 64 64 --train-images 2000 --validation-images 500 (gain 0.01, one seed). The smallest cosines of
their updates with the exact gradient's were 0.995, 0.04 and -0.11: only the first is the gradient.

Every option of the main job is here too: it *is* the main job, cifar10_sym_ep.py, with one option given.
--feedback-update own: plain vector-field EP; --feedback-update exact: asymmetric EP (arXiv:2602.03670).
A step needs a third convolution, beside those up and down: the feedback chooses its max-pooling corners by itself.
"""

import cifar10_sym_ep as main_job

if __name__ == "__main__":
    main_job.parallel.run(lambda: main_job.main(__doc__, connections="asymmetric"))
