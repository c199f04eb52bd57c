"""Can a deep ConvNet learn by relaxing instead of backpropagating?

    python examples/cifar10_sym_ep.py            # CIFAR-10 if it is here or can be downloaded, else embedded images

Symmetric equilibrium propagation, Laborieux et al. 2021 (arXiv:2006.03824), at full feedback, the paper's, with phases that
settle. On two CPU cores 15 to 20 minutes and 78.0% on CIFAR-10, less than a minute and 99% on the embedded images
(docs/results.md). --preset cpu has weak feedback: a step is 5 to 6 times faster, and nearly feed-forward.
It is `python -m ep.train` (ep/train/job.py), which needs no checkout. The run folder gets config.json, log.jsonl,
curves.png, checkpoint.npz, network.npz and result.json.
"""

try:
    from ep.train import job, parallel
except ImportError as error:
    raise SystemExit(f"error: the package is not installed ({error}); in the repository, run: pip install -e .") from None


def main(description=__doc__, **chosen):
    """The main job. chosen: settings that are not its own, where another example is a variant of it."""
    job.main(description, **chosen)


if __name__ == "__main__":
    parallel.run(main)
