"""Read the members of an untrusted ZIP within bounds: its declared sizes are checked before anything is unpacked."""

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
RATIO = 100  # unpacked to packed bytes; deflate reaches 1032 on zeros, weights 1.1, programs and JSON 3 to 7 ...
SLACK = 1 << 20  # ... plus this many bytes, which are harmless
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no folders, no hidden files
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python cannot limit the unpacked size of the others
END = struct.Struct("<4s4H2LH")  # of the central directory: APPNOTE.TXT 4.3.16
END_MARK, END_64_MARK, END_64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
ENCRYPTED = 1  # flag

# Errors from reading a damaged file; RuntimeError is the parent of NotImplementedError.
FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Read all members of a ZIP file; return name -> content.

    Memory stays within the members' declared sizes, and these within `UNPACKED` and `RATIO`; a member that is larger
    than declared is treated as damaged.

    Args:
      path: the file.
      limits: largest unpacked size in bytes of some members, by name.

    Raises:
      UserError: the file is missing, not a ZIP, damaged or out of bounds (number, names, sizes, ratio, encryption);
        names the file.
    """
    try:
        status = path.stat()
        # Opening a pipe would block until another process writes into it.
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
    """Raise BadZipFile unless the file ends with a table of contents of at most `DIRECTORY` bytes."""
    reach = min(size, END.size + END_64_BYTES + (1 << 16))
    file.seek(size - reach)
    tail = file.read(reach)
    end = tail.rfind(END_MARK)
    if end < 0 or len(tail) - end < END.size:
        raise zipfile.BadZipFile("its table of contents is missing")
    *_, directory, offset, _ = END.unpack_from(tail, end)
    if directory > DIRECTORY or tail[:end][-END_64_BYTES:].startswith(END_64_MARK):
        raise zipfile.BadZipFile(f"its table of contents is larger than {DIRECTORY} bytes")
    if offset + directory > size - len(tail) + end:
        raise zipfile.BadZipFile("its table of contents is not where it should be")
    file.seek(0)


def _problem(members: list[zipfile.ZipInfo], size: int, limits: Mapping[str, int]) -> str:
    """Return what is out of bounds; empty if nothing is.

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
    """Return the content of a member; its checksum is compared at the end of reading."""
    with archive.open(member) as file:
        # `read(n)` unpacks at most n bytes, whatever the member holds; `read()` would unpack all of it.
        content = file.read(member.file_size)
        if len(content) != member.file_size or file.read(1):
            raise zipfile.BadZipFile(f"{member.filename} has not the {member.file_size} bytes that it claims")
    return content
