"""Picture files by Pillow: upright, 8 bits per channel, on white paper, resized by one rule.

The rule: the largest middle part that has the shape asked for (a square for 32x32) is cut out and shrunk or enlarged to it with
Pillow's bicubic filter, which averages where it shrinks. The pictures of a folder and those of predict.py are read alike.
"""

import os
import warnings

import numpy as np
from PIL import Image, ImageOps

from ..errors import EPError
from .download import reason

ENDINGS = frozenset(
    ".bmp .gif .jpeg .jpg .jpe .jfif .jp2 .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp .avif .ico .pcx".split())


def read(path, shape=(32, 32, 3)):
    """The picture in a file as an array of `shape` (H, W, C), C 1 or 3, uint8. Raises EPError if there is none to be read."""
    height, width, channels = shape
    if channels not in (1, 3):
        raise EPError(f"a picture has 1 channel (grey) or 3 (red, green, blue), not {channels}")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # of damaged metadata, and of large pictures
            seen = on_white(eight_bits(ImageOps.exif_transpose(image)))  # of an animated file the first frame
            fitted = ImageOps.fit(seen.convert("RGB" if channels == 3 else "L"), (width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # decoders raise whatever a damaged file makes them raise, MemoryError too
        raise EPError(f"cannot read the picture {path}: {reason(error)}") from None
    return np.asarray(fitted, dtype=np.uint8).reshape(shape)


def is_picture(path):
    """Whether a path is a file with the ending of a picture."""
    return path.suffix.lower() in ENDINGS and os.path.isfile(path)


def eight_bits(image):
    """Grey pictures of 16 or 32 bits or of floats in 8 bits; every other picture as it is.

    0 ... 65535 is divided by 257; floats, and anything else, have no scale of their own: the darkest pixel becomes black, the
    lightest white.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    v = np.asarray(image).astype(np.float64)
    if not np.isfinite(v).all():
        raise ValueError("it has pixels that are no finite numbers")
    low, high = v.min(), v.max()
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0, 65535
    return Image.fromarray(np.round((v - low) * (255 / (high - low or 1))).astype(np.uint8))


def on_white(image):
    """What shows where it is transparent is white. Palettes become the colours they stand for."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
