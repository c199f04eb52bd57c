"""What looks like a run but learns nothing, or less than it could: one sentence for each kind."""


def quiet_failures(mean, config):
    """(kind, sentence) for everything that looks like a run but learns nothing, or less than it could."""
    for key, value in mean.items():
        kind, _, layer = key.rpartition("_")
        if kind == "stuck" and value > 0.95:
            yield key, (f"{value:.0%} of the units of layer {layer} sit at a bound in every image of a batch: they cannot "
                        "learn; try a smaller learning rate or another scale")
        if kind == "gradient_norm" and value == 0:
            yield key, f"the gradient of layer {layer} is exactly 0: it does not learn; try a larger scale or more steps"
    if config.tolerance > 0 and mean["converged"] < 0.5:
        yield "converged", (f"{1 - mean['converged']:.0%} of the images missed the tolerance {config.tolerance:g} within "
                            f"{config.steps_free} steps (residual up to {mean['residual']:.1g}): their gradients are "
                            "approximate, which early learning bears; more --steps-free makes them exact")
