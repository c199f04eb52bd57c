"""The third door: images. `load` opens every data set, official ones and one's own; preparation and augmentation."""

from .augment import augment, normalise
from .choose import NAMES, load
from .cifar import CLASSES
from .dataset import Dataset, banner, hold_out, measured

__all__ = ["CLASSES", "Dataset", "NAMES", "augment", "banner", "hold_out", "load", "measured", "normalise"]
