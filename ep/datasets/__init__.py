"""The third door: images. CIFAR-10, IDX files and the embedded set; preparation and augmentation."""

from .cifar import CLASSES, Dataset, augment, banner, cifar10, hold_out, load, normalise

__all__ = ["CLASSES", "Dataset", "augment", "banner", "cifar10", "hold_out", "load", "normalise"]
