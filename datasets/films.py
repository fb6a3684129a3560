"""Look into film files without decoding them whole."""

from pathlib import Path
from typing import NamedTuple

import av

from stag_datasets.errors import CorpusError


class Film(NamedTuple):
    """What a film file tells."""

    frames: int  # counted, not as its header has it
    fps: float  # 0 if the file has none


def look(path: Path) -> Film:
    """Count the frames of a film, and decode its first and its last ones; those between are not looked at.

    Raises:
      CorpusError: no film, an empty one, or frames at its ends that cannot be decoded.
    """
    if not path.stat().st_size:
        raise CorpusError(f"{path} is empty")
    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            if not container.streams.video:
                raise CorpusError(f"{path} is no film, or cut off: it has no pictures")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            count, key = 0, 0
            for packet in container.demux(stream):
                count += packet.size > 0
                if packet.is_keyframe and packet.pts is not None:
                    key = packet.pts
            if count < stream.frames:
                raise CorpusError(f"{path} is cut off: it has {count} of {stream.frames} frames")
            container.seek(0, stream=stream)
            if next(container.decode(stream), None) is None:
                raise CorpusError(f"{path} has no frame that can be read")
            container.seek(key, stream=stream)
            if not any(True for _ in container.decode(stream)):
                raise CorpusError(f"{path} ends in frames that cannot be read")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CorpusError(f"{path} cannot be read as a film: {reason}") from error
    return Film(count, fps)
