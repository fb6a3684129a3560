"""One small picture per clip, for a person to recognise it by."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.corpora import features, records
from stag_jax.motion import nodes, quality

SIDE = 96


class Thumbnail(NamedTuple):
    """A picture as a file and as pixels."""

    data: bytes  # JPEG
    picture: UInt8[np.ndarray, "y x 3"]  # RGB
    flow_only: bool  # the corpus has no frames


def make(folders: Sequence[Path], each: Sequence[features.Prepared], ids: Collection[str]) -> dict[str, Thumbnail]:
    """Make a picture of each requested clip: `quality.tile`, or of a flow image its motion and strain.

    Args:
      folders: prepared corpora.
      each: what `features.prepare` returns for each.
      ids: the requested clips.
    """
    wanted, by_id = set(ids), {}
    for folder, prepared in zip(folders, each, strict=True):
        for report, tile in zip(prepared.reports, prepared.tiles, strict=True):
            if report.id in wanted:
                picture = cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
                by_id[report.id] = Thumbnail(tile, np.ascontiguousarray(picture), False)
        if not prepared.reports:
            for record in records.read_clips(folder):
                clip = records.to_clip(record)
                if clip.identity.id in wanted:
                    picture = flow_picture(clip.flow)
                    _, data = cv2.imencode(
                        ".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, features.TILE_QUALITY)
                    )
                    by_id[clip.identity.id] = Thumbnail(data.tobytes(), picture, True)
    return by_id


def flow_picture(flow: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y2 x2 3"]:
    """Draw the motion of a flow image in colour (as `quality.coloured`), and beside it its strain in grey."""
    motion = flow_field(flow)
    coloured = quality.coloured(motion, np.full(flow.shape[:2], 255, np.uint8))
    strain = flow[..., nodes.STRAIN].astype(np.float32)
    grey = np.uint8(255 * (strain - strain.min()) / max(float(np.ptp(strain)), 1.0))
    pictures = (coloured, np.repeat(grey[..., None], 3, axis=2))
    return np.concatenate([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for p in pictures], axis=1)


def flow_field(flow: UInt8[np.ndarray, "y x 3"]) -> Float[np.ndarray, "y x 2"]:
    """Return u and v of a flow image less their median, scaled so that the 98th percentile has the fullest colour."""
    motion = flow[..., :2].astype(np.float32)
    motion = motion - np.median(motion, axis=(0, 1))
    length = np.linalg.norm(motion, axis=-1)
    return motion * (quality.FULL / max(float(np.quantile(length, 0.98)), 1e-6))
