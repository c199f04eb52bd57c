"""Picture files as a person sees them: upright, on white, 8 bits, the first frame; whatever is broken or huge is one sentence."""

import builtins
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ep.datasets import pictures
from ep.errors import EPError

GRADIENT = np.linspace(0, 1, 32 * 32).reshape(32, 32)  # dark at the top, light at the bottom


def sentence(path, *arguments):
    with pytest.raises(EPError) as error:
        pictures.read(path, *arguments)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def colours(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm"])
def test_a_picture_of_the_right_size_is_itself(tmp_path, ending):
    Image.fromarray(colours()).save(tmp_path / f"a.{ending}")
    found = pictures.read(tmp_path / f"a.{ending}")
    assert found.dtype == np.uint8 and np.array_equal(found, colours())


def test_the_middle_square_is_shrunk(tmp_path):
    """Of 96x32 pixels the middle 32 columns; of 64x64 every pixel is the mean of about four, in the shape that is asked for."""
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = colours()
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(pictures.read(tmp_path / "wide.png"), colours())
    Image.fromarray(np.full((64, 64, 3), (10, 200, 30), np.uint8)).save(tmp_path / "large.png")
    assert (pictures.read(tmp_path / "large.png", (8, 16, 3)) == (10, 200, 30)).all()
    assert pictures.read(tmp_path / "large.png", (28, 28, 1)).shape == (28, 28, 1)


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
    rgba[:16, :, 3] = 0
    rgba[16:20, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    found = pictures.read(tmp_path / "rgba.png")
    assert (found[:16] == 255).all() and np.array_equal(found[20:], colours()[20:])
    assert abs(found[16:20].astype(int) - (colours()[16:20].astype(int) + 255) / 2).max() <= 2
    Image.fromarray(np.dstack([np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)]), "LA").save(tmp_path / "la.png")
    assert (pictures.read(tmp_path / "la.png") == 255).all()
    flat = Image.fromarray(np.tile(np.repeat([0, 1], 16).astype(np.uint8), (32, 1)), "P")
    flat.putpalette([255, 0, 0, 0, 0, 255])
    flat.save(tmp_path / "palette.png", transparency=0)
    found = pictures.read(tmp_path / "palette.png")
    assert (found[:, :16] == 255).all() and (found[:, 16:] == (0, 0, 255)).all()
    flat.save(tmp_path / "opaque.png")
    assert (pictures.read(tmp_path / "opaque.png")[:, :16] == (255, 0, 0)).all()


@pytest.mark.parametrize("name,array", [
    ("16.png", (GRADIENT * 65535).astype(np.uint16)), ("16.tiff", (GRADIENT * 65535).astype(np.uint16)),
    ("unit.tiff", GRADIENT.astype(np.float32)), ("bytes.tiff", (GRADIENT * 255).astype(np.float32)),
    ("any.tiff", (GRADIENT * 7 - 3000).astype(np.float32)), ("32.tiff", (GRADIENT * 2**31 * 0.9 - 2**30).astype(np.int32))])
def test_greys_of_other_scales(tmp_path, name, array):
    """16 bits, floats from 0 to 1, from 0 to 255 or from anywhere, 32 bits: the same gradient from black to white."""
    Image.fromarray(array).save(tmp_path / name)
    found = pictures.read(tmp_path / name)
    assert abs(found - 255 * GRADIENT[..., None]).max() <= 1 and found.shape == (32, 32, 3)


def test_a_constant_float_picture_and_one_with_nan(tmp_path):
    Image.fromarray(np.full((32, 32), -5, np.float32)).save(tmp_path / "flat.tiff")
    assert (pictures.read(tmp_path / "flat.tiff") == 0).all()
    Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    assert "no finite numbers" in sentence(tmp_path / "nan.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV"])
def test_other_modes(tmp_path, mode):
    """White is white in every colour space that a TIFF or PNG file can have."""
    image = Image.new("RGB", (40, 40), "white").convert(mode)
    image.save(tmp_path / "a.tiff") if mode != "HSV" else image.convert("RGB").save(tmp_path / "a.tiff")
    assert (pictures.read(tmp_path / "a.tiff") >= 254).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_the_first_frame_of_an_animation(tmp_path, ending):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / f"film.{ending}", save_all=True, append_images=frames[1:], **(
        dict(lossless=True) if ending == "webp" else {}))
    red, green, blue = pictures.read(tmp_path / f"film.{ending}").reshape(-1, 3).mean(0)
    assert red > 250 and green < 5 and blue < 5


def png(width, height, data=b""):
    """A PNG file that claims a size and holds `data`."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_decompression_bombs(tmp_path, side):
    """A few bytes that claim to be hundreds of millions of pixels: refused before anything is unpacked."""
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    assert "is too large" in sentence(tmp_path / "bomb.png")


def truncated(path):
    Image.fromarray(colours(side=64)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-800])


@pytest.mark.parametrize("name,write,match", [
    ("a.jpg", lambda path: path.write_bytes(b""), "it is no picture"),
    ("a.png", lambda path: path.write_text("text"), "it is no picture"),
    ("a.png", lambda path: path.write_bytes(png(32, 32, b"short")), "cannot read"), ("a.jpg", truncated, "cannot read"),
    ("a", lambda path: path.mkdir(), "it is no file"), ("a", lambda path: None, "there is no such file"),
    ("a.gif", lambda path: path.write_bytes(b"GIF89a" + bytes(20)), "cannot read")])
def test_broken_files(tmp_path, name, write, match):
    write(tmp_path / name)
    assert match in sentence(tmp_path / name)


def test_channels_that_no_picture_has(tmp_path):
    with pytest.raises(EPError, match="not 2"):
        pictures.read(tmp_path / "a.png", (32, 32, 2))


def test_without_pillow(tmp_path, monkeypatch):
    """One sentence with the command that installs it."""
    plain = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("PIL"):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EPError, match=r"pip install 'eqprop-convnets\[images\]'"):
        pictures.read(tmp_path / "a.png")
