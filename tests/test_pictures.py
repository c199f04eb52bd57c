"""Picture files as a person sees them: upright, on white, 8 bits, the first frame; what is broken is one sentence."""

import struct
import zlib

import numpy as np
import pytest
from helpers import sentence
from PIL import Image

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


def test_exif_orientation(tmp_path):
    """A phone writes how it was held: the picture is turned upright."""
    image = Image.fromarray(colours())
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(pictures.read(tmp_path / "phone.png"), np.rot90(colours(), -1))


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
    ("16.png", (GRADIENT * 65535).astype(np.uint16)), ("any.tiff", (GRADIENT * 7 - 3000).astype(np.float32)),
    ("32.tiff", (GRADIENT * 2**31 * 0.9 - 2**30).astype(np.int32))])
def test_greys_of_other_scales(tmp_path, name, array):
    """16 bits, floats, 32 bits: the same gradient from black to white."""
    found = saved(tmp_path / name, array)
    assert abs(found - 255 * GRADIENT[..., None]).max() <= 1 and found.shape == (32, 32, 3)


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    assert (saved(tmp_path / "a.png", np.full((32, 32), 2570, np.uint16)) == 10).all()


def test_a_constant_float_picture_and_one_with_nan(tmp_path):
    assert (saved(tmp_path / "flat.tiff", np.full((32, 32), -5, np.float32)) == 0).all()
    message = sentence(saved, tmp_path / "nan.tiff", np.full((32, 32), np.nan, np.float32))
    assert "no finite numbers" in message and "nan.tiff" in message


def test_the_first_frame_of_an_animation(tmp_path):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "film.gif", save_all=True, append_images=[blue])
    assert abs(pictures.read(tmp_path / "film.gif").astype(int) - (255, 0, 0)).max() < 5


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


@pytest.mark.parametrize("write, match", [
    (holding(b"text"), "cannot identify"), (holding(png(32, 32, b"short")), "truncated"), (truncated, "truncated"),
    (lambda path: path.mkdir(), "Is a directory"), (lambda path: None, "No such file"),
    (holding(png(100_000, 100_000)), "exceeds limit")])
def test_broken_files(tmp_path, write, match):
    """And a few bytes that claim to be thousands of millions of pixels: refused before anything is unpacked."""
    write(tmp_path / "a.png")
    message = sentence(pictures.read, tmp_path / "a.png")
    assert match in message and f"cannot read the picture {tmp_path / 'a.png'}" in message


def test_channels_that_no_picture_has(tmp_path):
    assert "not 2" in sentence(pictures.read, tmp_path / "a.png", (32, 32, 2))


def test_a_fine_pattern_is_averaged(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert abs(pictures.read(tmp_path / "a.png")[:, 1:-1].astype(int) - 100).max() <= 8
