"""What looks like a run but learns nothing, less than it could, or by another gradient than it says: a sentence for each kind."""

import math

LARGEST = 1e6  # of all parameters: beyond it a unit is at a bound whatever it sees


def no_network(network, line=None):
    """A sentence about numbers that end a run: parameters that have exploded, a loss in its last line that is not finite."""
    largest = {name: float(abs(w).max()) for name, w in network.parameters().items()}
    largest |= {key: abs(line[key]) for key in ("train_loss", "test_loss") if line and not math.isfinite(line[key])}
    for name, number in largest.items():
        if not number <= LARGEST:
            return (f"the training has exploded: {name} is up to {number:.0e}, of which no network is made; try a smaller "
                    "learning rate or scale")


def quiet_failures(mean, config):
    """(kind, sentence) for everything that a line of the log `mean`, or its beginning within an epoch, gives away."""
    yield from stuck(mean)
    if config.tolerance > 0 and mean["converged"] < 0.5:
        yield "converged", (f"{1 - mean['converged']:.0%} of the images missed the tolerance {config.tolerance:g} within "
                            f"{config.steps_free} steps (residual up to {mean['residual']:.1g}): their gradients are "
                            "approximate, which early learning bears; more --steps-free makes them exact")
    if "fixed_point_accuracy" in mean:  # at the end of an epoch
        yield from out_of_equilibrium(mean, config)


def stuck(mean):
    for key, value in mean.items():
        kind, _, layer = key.rpartition("_")
        if kind == "stuck" and value > 0.95:
            yield key, (f"{value:.0%} of the units of layer {layer} sit at a bound in every image of a batch: they cannot "
                        "learn; try a smaller learning rate or another scale")
        if kind == "gradient_norm" and value == 0:
            yield key, f"the gradient of layer {layer} is exactly 0: it does not learn; try a larger scale or more steps"


def out_of_equilibrium(line, config):
    """Accuracies at T and at the fixed point that part, and a gradient estimate that is not the gradient there.

    Both accuracies are of the same images, so they differ by those that are right at only one of them. If each of these falls
    to either side by chance, the difference has the standard deviation sqrt(changed): twice that is noise, and what is more than
    a point beyond it is not.
    """
    n, at_T, at_end = line["fixed_point_images"], line["accuracy_at_T"], line["fixed_point_accuracy"]
    if abs(at_T - at_end) > 0.01 + 2 * math.sqrt(line["changed_images"] * n) / n:
        yield "fixed_point_accuracy", (
            f"{at_T:.1%} of {n} test images are right after {config.steps_free} steps, and {at_end:.1%} at the fixed point: the "
            "network does not settle, and what learns is not what the theorem is about; try a smaller --feedback, more "
            "--weight-decay, or more --steps-free")
    claims = config.connections == "symmetric" or config.feedback_update == "exact"  # the other rules are not the gradient
    if claims and line["smallest_cosine"] is not None and line["smallest_cosine"] < 0.9:
        yield "smallest_cosine", (
            f"the gradient of layer {worst(line)} has a cosine of {line['smallest_cosine']:.2f} with the exact one at the fixed "
            "point: try more --steps-free and --steps-nudged, a smaller --feedback or --beta, or --nudged-phases deviations")


def worst(line):
    """The layer whose cosine is the smallest."""
    return next(key.removeprefix("cosine_") for key in line
                if key.startswith("cosine_") and key != "cosine_one_pass" and line[key] == line["smallest_cosine"])


def in_words(line):
    """The distance to equilibrium and what the feedback is good for, for the line that ends an epoch."""
    accuracies = f"{line['accuracy_at_T']:.1%} at T and {line['fixed_point_accuracy']:.1%} at the fixed point"
    cosine = "no exact gradient" if line["smallest_cosine"] is None else (
        f"smallest cosine {line['smallest_cosine']:.3f} (layer {worst(line)})")
    radius = "" if line["spectral_radius"] is None else f", radius {line['spectral_radius']:.2f}"
    return (f"{accuracies} of {line['fixed_point_images']} ({line['accuracy_without_feedback']:.1%} without feedback), {cosine}"
            f"{radius}")
