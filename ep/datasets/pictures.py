"""Picture files as a person sees them, by Pillow: upright, 8 bits per channel, in sRGB, on white paper, resized by one rule.

The rule: the largest middle part that has the shape asked for (a square for 32x32) is cut out and shrunk or enlarged to it with
Pillow's bicubic filter, which averages where it shrinks. The pictures of a folder and those of predict.py are read alike.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np

from ..errors import EPError
from .download import reason

ENDINGS = frozenset(
    ".bmp .gif .jpeg .jpg .jpe .jfif .jp2 .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp .avif .ico .pcx".split())
PILLOW = "reading pictures needs Pillow: pip install 'eqprop-convnets[images]', or pip install Pillow"


def read(path, shape=(32, 32, 3)):
    """The picture in a file as an array of `shape` (H, W, C), C 1 or 3, uint8. Raises EPError if there is none to be read."""
    Image, ImageOps = pillow()
    height, width, channels = shape
    if channels not in (1, 3):
        raise EPError(f"a picture has 1 channel (grey) or 3 (red, green, blue), not {channels}")
    if not Path(path).is_file():
        raise EPError(f"cannot read the picture {path}: {'it is no file' if Path(path).exists() else 'there is no such file'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which nobody needs here
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # of pictures above Image.MAX_IMAGE_PIXELS
            with Image.open(path) as image:
                seen = on_white(eight_bits(ImageOps.exif_transpose(image)))  # of an animated file the first frame
                seen = in_srgb(seen, image.info.get("icc_profile"))
                fitted = ImageOps.fit(seen.convert("RGB" if channels == 3 else "L"), (width, height), Image.Resampling.BICUBIC)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise EPError(f"the picture {path} is too large: save a smaller copy ({brief(error)})") from None
    except Exception as error:  # decoders raise whatever a damaged file makes them raise, MemoryError too
        raise EPError(f"cannot read the picture {path}: {brief(error)}") from None
    return np.asarray(fitted, dtype=np.uint8).reshape(shape)


def is_picture(path):
    """Whether a file has the ending of a picture, or is one for Pillow, which then looks at its first bytes alone."""
    if path.suffix.lower() in ENDINGS or not os.path.isfile(path):
        return os.path.isfile(path)
    try:
        with pillow()[0].open(path):
            return True
    except Exception:  # as above
        return False


def eight_bits(image):
    """Grey pictures of 16 or 32 bits or of floats in 8 bits; every other picture as it is.

    0 ... 65535 is divided by 257; floats from 0 to 1 are multiplied by 255, and those from 0 to 255 stay; anything else has no
    scale of its own: its darkest pixel becomes black, its lightest white.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    Image, _ = pillow()
    v = np.asarray(image).astype(np.float64)
    if not np.isfinite(v).all():
        raise ValueError("it has pixels that are no finite numbers")
    low, high = v.min(), v.max()
    if image.mode == "F" and low >= 0 and high <= 255:
        v = v * 255 if high <= 1 else v
    elif image.mode != "F" and low >= 0 and high <= 65535:
        v = v / 257
    else:
        v = (v - low) * (255 / (high - low or 1))
    return Image.fromarray(np.round(v).astype(np.uint8))


def on_white(image):
    """What shows where it is transparent is white. Palettes become the colours they stand for."""
    if not image.has_transparency_data:
        return image
    Image, _ = pillow()
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def in_srgb(image, profile):
    """The colours that an embedded profile (ICC) stands for; the image itself without one, with one that cannot be used, and with
    one that moves no colour by more than 2 of 255, as sRGB's own: rounding would be all that it does."""
    if not profile:
        return image
    from PIL import Image, ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[own.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
        samples = Image.frombytes(mode, (4096, 1), np.random.default_rng(0).bytes(4096 * len(mode)))
        moved = np.abs(np.subtract(transform.apply(samples), samples.convert("RGB"), dtype=np.int16)).max()
        return transform.apply(image.convert(mode)) if moved > 2 else image
    except (ImportError, OSError, KeyError, ValueError, ImageCms.PyCMSError):
        return image


def pillow():
    """Pillow's modules Image and ImageOps."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise EPError(PILLOW) from None
    return Image, ImageOps


def brief(error):
    """An exception of Pillow as part of a sentence, without the path, which the sentence has."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no picture, or of a kind that Pillow does not know"
    return reason(error)
