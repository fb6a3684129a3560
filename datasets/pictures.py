"""Check picture files by their header and their end; nothing is decoded."""

import io
import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from stag_datasets.errors import CorpusError

EIGHT_BIT = ("1", "L", "LA", "RGB", "RGBA", "P")
PNG_DEPTH = 24  # offset of the byte with the bits per channel of a PNG


def picture(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Return the bytes of a picture file and its (width, height).

    Raises:
      CorpusError: the file cannot be read, is no picture, is cut off, or has more than 8 bits a channel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise CorpusError(f"{path} is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode, size = image.format, image.mode, image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"{path} is no picture: its header cannot be read") from error
    # Pillow also calls colour of 16 bits per channel RGB.
    if mode not in EIGHT_BIT or (kind == "PNG" and data[PNG_DEPTH] > 8):
        raise CorpusError(f"{path} is no 8-bit picture (mode {mode})")
    if not _whole(data, kind):
        raise CorpusError(f"{path} is cut off")
    return data, size


def _whole(data: bytes, kind: str | None) -> bool:
    """Return whether the file has its end, which no decoder requires."""
    if kind == "JPEG":
        return b"\xff\xd9" in data[-1024:]  # some writers pad
    if kind == "PNG":
        return b"IEND" in data[-64:]
    if kind == "BMP":
        return len(data) >= struct.unpack("<I", data[2:6])[0]
    return False
