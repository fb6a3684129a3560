"""Pictures with known pixels: every depth, kind and orientation, and what cannot be read."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from stag_jax import media
from tests.films import assert_one_line

GREY = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11) * 3
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
DEEP = (np.random.default_rng(0).integers(0, 65536, (7, 11, 3))).astype(np.uint16)
DEEP[0, :4, 0] = 128, 129, 511, 65535  # 0.498, 0.502, 1.988, 255 by /257; 0, 0, 1, 255 by the upper byte
ALPHA = np.linspace(0, 255, 77).round().astype(np.uint8).reshape(7, 11)


def grey(values):
    return np.repeat(values[..., None], 3, axis=-1)


def on_black(colour, alpha):
    return np.rint(colour * (alpha[..., None] / 255)).astype(np.uint8)


def palette():
    """COLOUR by way of a table."""
    image = Image.fromarray(GREY).convert("P")
    table = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2], axis=-1)
    image.putpalette(table.astype(np.uint8).tobytes())
    return image


BITS = GREY % 2 == 0
EIGHT_BITS = {
    "grey.png": (Image.fromarray(GREY), grey(GREY)),
    "bits.png": (Image.fromarray(BITS), grey(BITS * np.uint8(255))),
    "bits.tif": (Image.fromarray(BITS), grey(BITS * np.uint8(255))),
    "grey_alpha.png": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), on_black(grey(GREY), ALPHA)),
    "colour.png": (Image.fromarray(COLOUR), COLOUR),
    "colour.bmp": (Image.fromarray(COLOUR), COLOUR),
    "colour.tif": (Image.fromarray(COLOUR), COLOUR),
    "colour.webp": (Image.fromarray(COLOUR), COLOUR),
    "alpha.png": (Image.fromarray(np.dstack([COLOUR, ALPHA])), on_black(COLOUR, ALPHA)),
    "palette.png": (palette(), COLOUR),
    "palette_clear.png": (palette(), np.where(GREY[..., None] == 0, np.uint8(0), COLOUR)),
}


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_every_kind_of_eight_bit_picture_becomes_rgb(name, tmp_path):
    image, expected = EIGHT_BITS[name]
    options = {"palette_clear.png": {"transparency": 0}, "colour.webp": {"lossless": True}}.get(name, {})
    image.save(tmp_path / name, **options)
    read = media.read_image(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected)
    read[0, 0] = 0  # writable: libraries ask for that


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_cut(suffix, tmp_path):
    expected = np.rint(DEEP / 257).astype(np.uint8)
    assert expected[0, :4, 0].tolist() == [0, 1, 2, 255]
    path = tmp_path / f"deep.{suffix}"
    cv2.imwrite(str(path), DEEP[..., ::-1])
    np.testing.assert_array_equal(media.read_image(path), expected)
    cv2.imwrite(str(path), DEEP[..., 0])
    np.testing.assert_array_equal(media.read_image(path), grey(expected[..., 0]))
    if suffix == "png":
        alpha = DEEP[..., 1:2]
        cv2.imwrite(str(path), np.dstack([DEEP[..., ::-1], alpha]))
        np.testing.assert_array_equal(media.read_image(path), np.rint(DEEP / 257 * (alpha / 65535)))


def test_cmyk_jpeg_is_no_negative(tmp_path):
    flat = np.full((17, 19, 4), (0, 200, 40, 30), np.uint8)  # ink: much magenta, little yellow and black
    Image.frombytes("CMYK", (19, 17), flat.tobytes()).save(tmp_path / "print.jpg", quality=100)
    ink = flat[0, 0] / 255
    np.testing.assert_allclose(
        media.read_image(tmp_path / "print.jpg")[8, 8], 255 * (1 - ink[:3]) * (1 - ink[3]), atol=3
    )


# Where the stored first row and first column belong when the picture is seen upright (EXIF 2.3, 4.6.4 A).
SIDES = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
SIDES |= {5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom"}


def stored_as(orientation, upright):
    """The stored picture that shows `upright` in that orientation, pixel by pixel."""
    row_side, column_side = SIDES[orientation].split()
    height, width = upright.shape[:2]
    aside = row_side in ("left", "right")
    stored = np.zeros((width, height, 3) if aside else upright.shape, upright.dtype)
    place = {
        "top": lambda i: i,
        "bottom": lambda i: height - 1 - i,
        "left": lambda i: i,
        "right": lambda i: width - 1 - i,
    }
    for r in range(stored.shape[0]):
        for c in range(stored.shape[1]):
            along_row, along_column = place[row_side](r), place[column_side](c)
            stored[r, c] = upright[(along_column, along_row) if aside else (along_row, along_column)]
    return stored


@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation(orientation, tmp_path):
    exif = Image.Exif()
    exif[media.ORIENTATION] = orientation
    stored = stored_as(orientation, COLOUR)
    for name in ("a.png", "a.tif"):
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
        np.testing.assert_array_equal(media.read_image(tmp_path / name), COLOUR, err_msg=name)
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(media.read_image(tmp_path / "a.jpg").astype(int) - COLOUR).max() < 12
    deep = stored_as(orientation, DEEP)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    data = (tmp_path / "deep.png").read_bytes()
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "deep.png").write_bytes(data[:33] + chunk + data[33:])
    np.testing.assert_array_equal(media.read_image(tmp_path / "deep.png"), np.rint(DEEP / 257))
    Image.fromarray(np.ascontiguousarray(deep[..., 0])).save(tmp_path / "deep.tif", exif=exif)
    np.testing.assert_array_equal(media.read_image(tmp_path / "deep.tif"), grey(np.rint(DEEP[..., 0] / 257)))


def bad_picture(folder, name):
    path = folder / name
    if name == "folder.png":
        path.mkdir()
    elif name == "text.png":
        path.write_text("not a picture\n" * 100)
    elif name == "empty.png":
        path.touch()
    elif name.startswith("cut."):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (41, 43, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "cut16.png":
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65535, (41, 43, 3)).astype(np.uint16))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "damaged.png":
        Image.fromarray(COLOUR).save(path)
        path.write_bytes(path.read_bytes()[:20] + bytes(30) + path.read_bytes()[50:])
    elif name == "negative16.tif":
        Image.fromarray(DEEP[..., 0]).save(path, tiffinfo={262: 0})
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[0, 3] == 65535  # which would show the negative
    elif name == "float.tif":
        Image.fromarray(GREY.astype(np.float32)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "is not a file"),
        ("folder.png", "is not a file"),
        ("empty.png", "is empty"),
        ("text.png", "cannot be read as a picture: not in a known format"),
        ("cut.png", "cannot be read as a picture"),
        ("cut.jpg", "cannot be read as a picture"),
        ("cut.bmp", "cannot be read as a picture"),
        ("cut.tif", "cannot be read as a picture"),
        ("cut16.png", "cannot be read as a picture"),
        ("damaged.png", "cannot be read as a picture"),
        ("negative16.tif", "16-bit TIFF in a rare layout; save it as PNG"),
        ("float.tif", "neither 8 nor 16 bit"),
    ],
)
def test_a_bad_picture_is_one_line(name, reason, tmp_path, capfd):
    assert_one_line(media.read_image, bad_picture(tmp_path, name), reason, capfd)
