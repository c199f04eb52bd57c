"""The third door: images. `load` opens every data set, official ones and one's own; preparation and augmentation."""

from .augment import CIFAR10_MEAN, CIFAR10_STD, augment, normalise
from .choose import NAMES, load
from .cifar import CLASSES
from .dataset import Dataset, banner, check_seen, hold_out, measured

__all__ = ["CIFAR10_MEAN", "CIFAR10_STD", "CLASSES", "NAMES", "Dataset", "augment", "banner", "check_seen", "hold_out", "load",
           "measured", "normalise"]
