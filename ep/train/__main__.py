"""Train a ConvNet by symmetric equilibrium propagation, from anywhere.

    python -m ep.train                           CIFAR-10 if it is here or can be downloaded, else embedded images
    python -m ep.train --data DIR                what is in DIR: a data set, or a folder with one sub-folder of pictures per class
    python -m ep.train --resume RUN_DIR          go on with a run, bit for bit

A run leaves a folder in runs/, with its log, curves, checkpoint, network and result.
"""

from . import parallel
from .job import main

if __name__ == "__main__":
    parallel.run(lambda: main(__doc__))
