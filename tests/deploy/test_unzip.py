"""Exported networks that were made to do harm, or came to it: one line each, and memory that stays small."""

import io
import itertools
import json
import os
import random
import struct
import threading
import tracemalloc
import zipfile
import zlib

import pytest

from stag_jax.deploy import TO_TRY, artefact, load_export, unzip
from stag_jax.types import UserError

MB = 1 << 20
MOST = 48 * MB  # that reading may take at its peak, the runtime's own share left out


def zeros(size):
    """A deflate stream of `size` (a multiple of 1 MB) zeros, 1000 times smaller, made in a moment."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it can be repeated
    return block * (size // MB) + packer.flush()


def archive(members):
    """A ZIP by hand. `members`: (name, packed, unpacked size as claimed, flags, method), checksums all 0."""
    body, table = b"", b""
    for name, packed, size, flags, method in members:
        name, at = name.encode(), len(body)
        fields = (20, flags, method, 0, 33, 0, len(packed), size, len(name))
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *fields, 0) + name + packed
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0, at) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[len(members)] * 2, len(table), len(body), 0)
    return body + table + end


def plain(**members):
    """A ZIP as `zipfile` writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def changed(content, old, new, skip=0):
    """Bytes exchanged at their first place, or a later one."""
    at = -1
    for _ in range(skip + 1):
        at = content.index(old, at + 1)
    return content[:at] + new + content[at + len(old) :]


def with_64_bit_end(content, entries):
    """A table of contents whose real size stands in the 64-bit extension alone."""
    end = content[-22:]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, 1 << 40, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    return content[:-22] + record + locator + end


def manifest(**values):
    """A file whose manifest has these values beside version and checksums."""
    return plain(manifest__json=json.dumps({"version": 1, "sha256": {}} | values))


SMALL = ("weights.bin", zlib.compress(b"x" * 50, wbits=-15), 50, 0, 8)
HARM = {
    "3 GB of zeros": (lambda: archive([("weights.bin", zeros(3 << 30), 3 << 30, 0, 8)]), r"bytes unpack to 3221225472"),
    "as many in 16 parts": (
        lambda: archive([(f"part{i}", zeros(200 * MB), 200 * MB, 0, 8) for i in range(16)]),
        r"bytes unpack to 3355443200",
    ),
    "3 GB that claim to be 50 bytes": (
        lambda: archive([("weights.bin", zeros(3 << 30), 50, 0, 8)]),
        r"damaged one: Bad CRC-32 for file 'weights.bin'",
    ),
    "50 bytes that claim to be 90": (
        lambda: archive([("weights.bin", SMALL[1], 90, 0, 8)]),
        r"damaged one: (weights.bin has not the 90 bytes|Bad CRC-32)",
    ),
    "manifest of 2 MB": (lambda: plain(manifest__json=os.urandom(2 * MB)), r"manifest.json unpacks to 2097152 bytes"),
    "17 members": (lambda: plain(**{f"m{i}": b"" for i in range(17)}), r"it has 17 members, more than 16"),
    "2000 members": (
        lambda: archive([(f"m{i}", b"", 0, 0, 0) for i in range(2000)]),
        r"table of contents is larger than 65536 bytes",
    ),
    "members in the 64-bit table": (
        lambda: with_64_bit_end(archive([SMALL]), 1 << 30),
        r"table of contents is larger than 65536 bytes",
    ),
    "two of a name": (lambda: archive([SMALL, SMALL]), r"it has two members weights.bin"),
    "a folder": (lambda: archive([("a/b", *SMALL[1:])]), r"a member is called 'a/b'"),
    "a way out": (lambda: archive([("../../x", *SMALL[1:])]), r"a member is called '\.\./\.\./x'"),
    "a line break": (lambda: archive([("a\nb", *SMALL[1:])]), r"a member is called 'a\\nb'"),
    "no name": (lambda: archive([("", *SMALL[1:])]), r"a member is called ''"),
    "encrypted": (lambda: archive([(*SMALL[:3], 1, 8)]), r"weights.bin is encrypted"),
    "bzip2": (lambda: archive([(*SMALL[:4], 12)]), r"weights.bin is not compressed by deflate"),
    "method 99": (lambda: archive([(*SMALL[:4], 99)]), r"weights.bin is not compressed by deflate"),
    "beginning cut off": (lambda: archive([SMALL])[30:], r"table of contents is not where it should be"),
    "table cut off": (lambda: archive([SMALL])[:-23] + archive([SMALL])[-22:], r"or a damaged one"),
    "table missing": (lambda: archive([SMALL])[:-22], r"its table of contents is missing"),
    "nothing": (lambda: b"", r"its table of contents is missing"),
    "other name in front": (lambda: changed(archive([SMALL]), b"weights", b"heights"), r"or a damaged one"),
    "half a stream": (
        lambda: archive([("weights.bin", zlib.compress(os.urandom(5000), wbits=-15)[:2500], 5000, 0, 8)]),
        r"or a damaged one",
    ),
    "deep manifest": (lambda: plain(manifest__json=b"[" * (MB // 2)), r"manifest.json is not to be understood"),
    "wide manifest": (
        lambda: plain(manifest__json=b"[" + b"[]," * (MB // 3 - 2) + b"[]]"),
        r"manifest.json is not to be understood",
    ),
    "long number": (
        lambda: plain(manifest__json=b'{"version": ' + b"9" * (MB // 2) + b"}"),
        r"manifest.json is not to be understood",
    ),
    "infinite version": (lambda: manifest(version=float("inf")), r"manifest.json is not to be understood"),
    "manifest of a list": (lambda: plain(manifest__json=b"[1, 2]"), r"manifest.json is not to be understood"),
    "checksums of a list": (lambda: manifest(sha256=[[1, 2], ["a", 3]]), r"manifest.json is not to be understood"),
    "checksum of a line": (lambda: manifest(sha256={"a\nb": "0"}), r"is damaged: a b is missing"),
    "not UTF-8": (lambda: plain(manifest__json=b"\xff\xfe\x00{"), r"manifest.json is not to be understood"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), HARM.values(), ids=HARM)
def test_harm_is_one_line_and_takes_no_room(tmp_path, make, message):
    path = tmp_path / "net.stag"
    path.write_bytes(make())
    with pytest.raises(UserError, match=message) as caught, bounded(path.stat().st_size):
        load_export(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and len(text) < len(str(path)) + 300


class bounded:
    """Fails where what is in it takes more memory than `MOST` and twice the size of the file."""

    def __init__(self, size):
        self.most = MOST + 2 * size

    def __enter__(self):
        tracemalloc.start()

    def __exit__(self, *_):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.most, f"{peak / MB:.0f} MB"


def test_nothing_is_unpacked_before_all_is_checked(tmp_path, monkeypatch):
    """The last of the members is out of bounds, and none is opened."""
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("a member was opened"))
    path = tmp_path / "net.stag"
    path.write_bytes(archive([SMALL, ("more", zeros(1 << 30), 1 << 30, 0, 8)]))
    with pytest.raises(UserError, match="unpack to 1073741874"):
        artefact.read(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "net.stag")
    told = []

    def ask():
        try:
            artefact.read(tmp_path / "net.stag")
        except UserError as error:
            told.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(10)
    assert told == [f"{tmp_path / 'net.stag'} cannot be read: not a regular file"]


def test_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        artefact.read(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_any_damage_is_one_line_or_none(tmp_path, seed):
    """The network that is shipped, some bytes changed or its end cut off, is read or refused in one line."""
    whole, rng = TO_TRY.read_bytes(), random.Random(seed)
    path = tmp_path / "net.stag"
    for _ in range(40):
        content = bytearray(whole)
        # The ends are where what the file says of itself stands.
        for _ in range(rng.choice((1, 1, 3, 20))):
            place = rng.choice((rng.randrange(len(content)), rng.randrange(60), len(content) - 1 - rng.randrange(250)))
            content[place] = rng.randrange(256)
        path.write_bytes(content[: rng.choice((len(content), len(content), rng.randrange(len(content))))])
        try:
            found = artefact.read(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert found.members.keys() == artefact.read(TO_TRY).members.keys()


def test_what_is_within_bounds_is_read(tmp_path):
    """Compressed or not, with a comment, and as zeros as an untrained network is."""
    whole = artefact.read(TO_TRY)
    for method, comment in itertools.product((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), (b"", b"re-packed")):
        path = tmp_path / f"{method}.stag"
        with zipfile.ZipFile(TO_TRY) as old, zipfile.ZipFile(path, "w", method) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
            new.comment = comment
        found = artefact.read(path)
        assert found.members == whole.members and found.manifest == whole.manifest
    weights = bytes(unzip.SLACK * 3 // 4)
    artefact.write(tmp_path / "zeros.stag", {}, {artefact.WEIGHTS: weights})
    assert artefact.read(tmp_path / "zeros.stag").members[artefact.WEIGHTS] == weights


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(unzip, "UNPACKED", artefact.LIMITS[artefact.MANIFEST] + 10)
    with pytest.raises(UserError, match=r"x\.stag is not written: 0\.0 GB is more than one file holds"):
        artefact.write(tmp_path / "x.stag", {}, {artefact.WEIGHTS: bytes(11)})
    assert not list(tmp_path.iterdir())
