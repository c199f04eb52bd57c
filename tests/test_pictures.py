"""Picture files as a person sees them: upright, in sRGB, on white, 8 bits, the first frame; what is broken is one sentence."""

import struct
import sys
import zlib

import numpy as np
import pytest
from helpers import sentence
from PIL import Image, ImageCms

from ep.datasets import pictures

GRADIENT = np.linspace(0, 1, 32 * 32).reshape(32, 32)  # dark at the top, light at the bottom


def colours(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def saved(path, array, mode=None, **options):
    """The picture that is read from a file written with Pillow."""
    Image.fromarray(array, mode).save(path, **options)
    return pictures.read(path)


def test_the_middle_square_is_shrunk(tmp_path):
    """Of 32x32 pixels all, of 96x32 the middle 32 columns; of 64x64 every pixel is the mean of about four, in any shape."""
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = colours()
    for picture in (colours(), wide):
        found = saved(tmp_path / "a.png", picture)
        assert found.dtype == np.uint8 and np.array_equal(found, colours())
    saved(tmp_path / "large.png", np.full((64, 64, 3), (10, 200, 30), np.uint8))
    assert (pictures.read(tmp_path / "large.png", (8, 16, 3)) == (10, 200, 30)).all()
    assert pictures.read(tmp_path / "large.png", (28, 28, 1)).shape == (28, 28, 1)


def exchanged():
    """An sRGB profile with red and green exchanged: its tags of both colours have each other's names."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red:red + 4], profile[green:green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_embedded_profiles(tmp_path):
    """Colours are those that the profile stands for, transparency or not; sRGB's own and broken ones leave every bit as it is."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"broken", exchanged()[:300]):
        assert np.array_equal(saved(tmp_path / "a.png", colours(), icc_profile=profile), colours())
    found = saved(tmp_path / "b.png", colours(), icc_profile=exchanged())
    assert abs(found.astype(int) - colours()[..., [1, 0, 2]]).max() <= 2
    for opaque, name in ((np.dstack([colours(), np.full((32, 32), 255, np.uint8)]), "rgba.png"), (colours(), "a.jpg")):
        quality = dict(quality=100, subsampling=0) if name == "a.jpg" else {}
        found = saved(tmp_path / name, opaque, icc_profile=exchanged(), **quality)
        assert abs(found.astype(int) - colours()[..., [1, 0, 2]]).mean() <= 2
    grey = np.round(255 * GRADIENT).astype(np.uint8)
    assert abs(saved(tmp_path / "grey.png", grey, icc_profile=exchanged())[..., 0].astype(int) - grey).max() <= 2


@pytest.mark.parametrize("orientation,seen", [(1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (4, np.flipud),
                                              (6, lambda a: np.rot90(a, -1)), (8, np.rot90)])
def test_exif_orientation(tmp_path, orientation, seen):
    """A phone writes how it was held: the picture is turned upright."""
    image = Image.fromarray(colours())
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(pictures.read(tmp_path / "phone.png"), seen(colours()))


def test_transparency_is_white(tmp_path):
    """Alpha of RGB, of grey, and the transparent colour of a palette."""
    rgba = np.dstack([colours(), np.full((32, 32), 255, np.uint8)])
    rgba[:16, :, 3], rgba[16:20, :, 3] = 0, 128
    found = saved(tmp_path / "rgba.png", rgba)
    assert (found[:16] == 255).all() and np.array_equal(found[20:], colours()[20:])
    assert abs(found[16:20].astype(int) - (colours()[16:20].astype(int) + 255) / 2).max() <= 2
    assert (saved(tmp_path / "la.png", np.zeros((32, 32, 2), np.uint8), "LA") == 255).all()
    flat = Image.fromarray(np.tile(np.repeat([0, 1], 16).astype(np.uint8), (32, 1)), "P")
    flat.putpalette([255, 0, 0, 0, 0, 255])
    for options, left in ((dict(transparency=0), (255, 255, 255)), ({}, (255, 0, 0))):
        flat.save(tmp_path / "palette.png", **options)
        found = pictures.read(tmp_path / "palette.png")
        assert (found[:, :16] == left).all() and (found[:, 16:] == (0, 0, 255)).all()


@pytest.mark.parametrize("name,array", [
    ("16.png", (GRADIENT * 65535).astype(np.uint16)), ("16.tiff", (GRADIENT * 65535).astype(np.uint16)),
    ("unit.tiff", GRADIENT.astype(np.float32)), ("bytes.tiff", (GRADIENT * 255).astype(np.float32)),
    ("any.tiff", (GRADIENT * 7 - 3000).astype(np.float32)), ("32.tiff", (GRADIENT * 2**31 * 0.9 - 2**30).astype(np.int32))])
def test_greys_of_other_scales(tmp_path, name, array):
    """16 bits, floats from 0 to 1, from 0 to 255 or from anywhere, 32 bits: the same gradient from black to white."""
    found = saved(tmp_path / name, array)
    assert abs(found - 255 * GRADIENT[..., None]).max() <= 1 and found.shape == (32, 32, 3)


def test_a_constant_float_picture_and_one_with_nan(tmp_path):
    assert (saved(tmp_path / "flat.tiff", np.full((32, 32), -5, np.float32)) == 0).all()
    message = sentence(saved, tmp_path / "nan.tiff", np.full((32, 32), np.nan, np.float32))
    assert "no finite numbers" in message and "nan.tiff" in message


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes(tmp_path, mode):
    """White is white in every colour space that a TIFF file can have."""
    Image.new("RGB", (40, 40), "white").convert(mode).save(tmp_path / "a.tiff")
    assert (pictures.read(tmp_path / "a.tiff") >= 254).all()


@pytest.mark.parametrize("ending", ["gif", "tiff"])
def test_the_first_frame_of_an_animation(tmp_path, ending):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"film.{ending}", save_all=True, append_images=[blue])
    assert abs(pictures.read(tmp_path / f"film.{ending}").astype(int) - (255, 0, 0)).max() < 5


def png(width, height, data=b""):
    """A PNG file that claims a size and holds `data`."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def truncated(path):
    Image.fromarray(colours(side=64)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-800])


def holding(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize("name, write, match", [
    ("a.jpg", holding(b""), "it is no picture"), ("a.png", holding(b"text"), "it is no picture"),
    ("a.png", holding(png(32, 32, b"short")), "cannot read"), ("a.jpg", truncated, "cannot read"),
    ("a.gif", holding(b"GIF89a" + bytes(20)), "cannot read"), ("a", lambda path: path.mkdir(), "it is no file"),
    ("a", lambda path: None, "there is no such file"), ("bomb.png", holding(png(10_000, 10_000)), "is too large"),
    ("bomb.png", holding(png(100_000, 100_000)), "is too large")])
def test_broken_files(tmp_path, name, write, match):
    """And a few bytes that claim to be hundreds of millions of pixels: refused before anything is unpacked."""
    write(tmp_path / name)
    message = sentence(pictures.read, tmp_path / name)
    assert match in message and str(tmp_path / name) in message


def test_channels_that_no_picture_has(tmp_path):
    assert "not 2" in sentence(pictures.read, tmp_path / "a.png", (32, 32, 2))


def test_without_pillow(tmp_path, monkeypatch):
    """One sentence with the command that installs it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").write_bytes(png(1, 1))
    assert "pip install 'eqprop-convnets[images]'" in sentence(pictures.read, tmp_path / "a.png")
