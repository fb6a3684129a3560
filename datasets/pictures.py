"""Check picture files by their header and their end; nothing is decoded."""

import io
import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from stag_datasets.errors import CorpusError

EIGHT_BIT = ("1", "L", "LA", "RGB", "RGBA", "P")
PNG = b"\x89PNG\r\n\x1a\n"
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the header of a frame
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
    kind, size = _header(data) or _pillow_header(path, data)
    if not _whole(data, kind):
        raise CorpusError(f"{path} is cut off")
    return data, size


def _header(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Return the format and (width, height) of a usual 8-bit picture; None if it is none, or of a rare kind.

    Pillow does the same and takes ten times as long, which counts where a million frames are looked at.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            start = 2
            while data[start] == 0xFF and data[start + 1] not in JPEG_FRAMES:
                start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
            precision, height, width, channels = struct.unpack_from(">BHHB", data, start + 4)
            usual = data[start] == 0xFF and precision == 8 and channels in (1, 3)
            return ("JPEG", (width, height)) if usual and width and height else None
        if data.startswith(PNG) and data[12:16] == b"IHDR":
            width, height, depth = struct.unpack_from(">IIB", data, 16)
            return ("PNG", (width, height)) if depth <= 8 and width and height else None
        if data.startswith(b"BM"):
            width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
            return ("BMP", (width, abs(height))) if bits in (8, 24) and not packing and width > 0 and height else None
    except (IndexError, struct.error):
        pass
    return None


def _pillow_header(path: Path, data: bytes) -> tuple[str | None, tuple[int, int]]:
    """Do the same for any 8-bit picture. Raises CorpusError if it is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode, size = image.format, image.mode, image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"{path} is no picture: its header cannot be read") from error
    # Pillow also calls colour of 16 bits per channel RGB.
    if mode not in EIGHT_BIT or (kind == "PNG" and data[PNG_DEPTH] > 8):
        raise CorpusError(f"{path} is no 8-bit picture (mode {mode})")
    return kind, size


def _whole(data: bytes, kind: str | None) -> bool:
    """Return whether the file has its end, which no decoder requires."""
    if kind == "JPEG":
        return b"\xff\xd9" in data[-1024:]  # some writers pad
    if kind == "PNG":
        return b"IEND" in data[-64:]
    if kind == "BMP":
        return len(data) >= struct.unpack("<I", data[2:6])[0]
    return False
