"""Headers read here are those that Pillow reads, for every kind of picture that it writes."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stag_datasets import pictures
from stag_datasets.errors import CorpusError

MODES = {"JPEG": ("L", "RGB"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB", "RGBA")}


def encoded(kind, mode, size=(11, 7), **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
@pytest.mark.parametrize("size", [(11, 7), (1, 1), (300, 2), (640, 480)])
def test_every_kind_is_read_with_its_size(tmp_path, kind, mode, size):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(kind, mode, size))
    data, found = pictures.picture(path)
    assert found == size and data == path.read_bytes()
    if mode in ("L", "RGB"):  # the usual ones are read without Pillow
        assert pictures._header(data) == (kind, size)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(CorpusError, match=r"is cut off|is no picture"):
        pictures.picture(path)


@pytest.mark.parametrize("options", [{"progressive": True}, {"exif": bytes(40000)}, {"icc_profile": bytes(3000)}])
def test_odd_jpegs(tmp_path, options):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", "RGB", **options))
    assert pictures.picture(tmp_path / "a.jpg")[1] == (11, 7)


def test_what_has_other_channels_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", "CMYK"))
    with pytest.raises(CorpusError, match=r"no 8-bit picture \(mode CMYK\)"):
        pictures.picture(tmp_path / "a.jpg")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"BM", pictures.PNG]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, head):
    path = tmp_path_factory.mktemp("fuzz") / "a.jpg"
    path.write_bytes(head + data)
    try:
        pictures.picture(path)
    except CorpusError as error:
        assert "\n" not in str(error)
