"""Members of a ZIP from somebody else, read within bounds: what it claims is checked before anything is unpacked."""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from stag_jax.types import UserError

MEMBERS = 16  # at most
DIRECTORY = 1 << 16  # bytes of the table of contents
UNPACKED = (4 << 30) - 1  # bytes of all members together; beyond it a ZIP needs its 64-bit extension
RATIO = 100  # of unpacked to packed bytes; deflate reaches 1032 on zeros, weights 1.1, programs and JSON 3 to 7 ...
SLACK = 1 << 20  # ... and so many bytes more, which are no danger
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no folder, nothing hidden
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others without a limit
END = struct.Struct("<4s4H2LH")  # of the central directory: APPNOTE.TXT 4.3.16
END_MARK, END_64_MARK, END_64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
ENCRYPTED = 1  # flag

# What reading a damaged file raises; RuntimeError is the parent of NotImplementedError.
FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Reads all members of a ZIP file: name to content.

    Memory stays within what the members claim to take, and that claim within `UNPACKED` and `RATIO`; a member with more
    in it than it claims is damaged.

    Args:
      path: the file.
      limits: largest unpacked size in bytes of some members, by name.

    Raises:
      UserError: no such file, no ZIP, a damaged one, or one that is out of bounds (number, names, sizes, ratio,
        encryption); the file is named.
    """
    try:
        status = path.stat()
        # To open a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise UserError(f"{path} cannot be read: not a regular file")
        with path.open("rb") as file:
            _check_directory(file, status.st_size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                if problem := _problem(members, status.st_size, limits):
                    raise UserError(f"{path} is not read: {problem}")
                return {member.filename: _read(archive, member) for member in members}
    except FAULTS as error:
        raise UserError(f"{path} is no exported network, or a damaged one: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_directory(file: BinaryIO, size: int) -> None:
    """Raises BadZipFile unless the file ends in the end of a table of contents of at most `DIRECTORY` bytes."""
    reach = min(size, END.size + END_64_BYTES + (1 << 16))
    file.seek(size - reach)
    tail = file.read(reach)
    at = tail.rfind(END_MARK)
    if at < 0 or len(tail) - at < END.size:
        raise zipfile.BadZipFile("its table of contents is missing")
    *_, directory, offset, _ = END.unpack_from(tail, at)
    if directory > DIRECTORY or tail[:at][-END_64_BYTES:].startswith(END_64_MARK):
        raise zipfile.BadZipFile(f"its table of contents is larger than {DIRECTORY} bytes")
    if offset + directory > size - len(tail) + at:
        raise zipfile.BadZipFile("its table of contents is not where it should be")
    file.seek(0)


def _problem(members: list[zipfile.ZipInfo], size: int, limits: Mapping[str, int]) -> str:
    """What is out of bounds; empty where nothing is.

    Args:
      members: as the table of contents lists them.
      size: of the file, bytes.
      limits: as in `read_members`.
    """
    if len(members) > MEMBERS:
        return f"it has {len(members)} members, more than {MEMBERS}"
    names = [member.filename for member in members]
    for member, name in zip(members, names, strict=True):
        if not NAME.fullmatch(name):
            return f"a member is called {name[:100]!r}"
        if names.count(name) > 1:
            return f"it has two members {name}"
        if member.flag_bits & ENCRYPTED:
            return f"{name} is encrypted"
        if member.compress_type not in METHODS:
            return f"{name} is not compressed by deflate"
        if member.file_size > limits.get(name, UNPACKED):
            return f"{name} unpacks to {member.file_size} bytes, more than {limits[name]}"
    total = sum(member.file_size for member in members)
    if total > min(UNPACKED, RATIO * size + SLACK):
        return f"its {size} bytes unpack to {total}"
    return ""


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The content of a member; its checksum is compared at its end."""
    with archive.open(member) as file:
        # With a number of bytes no more than that is unpacked, whatever is there; without one all of it is.
        content = file.read(member.file_size)
        if len(content) != member.file_size or file.read(1):
            raise zipfile.BadZipFile(f"{member.filename} has not the {member.file_size} bytes that it claims")
    return content
