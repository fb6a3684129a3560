import colorsys

import numpy as np
import pytest

from stag_jax.motion import quality
from stag_jax.motion.quality import ClipReport

GOOD = ClipReport(
    id="corpus/s1/c1",
    subject="corpus_s1",
    frames=41,
    fps=200.0,
    refused=0,
    reason="",
    left=10,
    top=20,
    right=110,
    bottom=120,
    eyes_raw_px=90.0,
    confidence=0.9,
    jump=0.01,
    head_px=1.0,
    residual_px=0.05,
    peak_px=0.7,
    onset=5,
    apex=17,
    offset=30,
    annotated_onset=0,
    annotated_apex=18,
    annotated_offset=40,
    annotated_onset_ms=0.0,
    annotated_apex_ms=90.0,
    annotated_offset_ms=200.0,
)


def test_a_good_clip_has_no_doubts():
    assert quality.doubts(GOOD) == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"refused": 3, "reason": "partly hidden"}, "3 frames refused: partly hidden"),
        ({"eyes_raw_px": 31.4}, "outer eye corners only 31 px apart"),
        ({"jump": 0.2}, "landmarks jump by 0.20"),
        ({"residual_px": 0.8}, "0.80 px of head movement left"),
        ({"peak_px": 0.02}, "hardly moves (0.02 px)"),
        ({"apex": 40}, "largest movement at the end"),
    ],
)
def test_each_doubt_is_said(change, text):
    assert quality.doubts(GOOD._replace(**change)) == (text,)


@pytest.mark.parametrize(
    ("direction", "hue"), [((1, 0), 0.0), ((0, 1), 0.25), ((-1, 0), 0.5), ((0, -1), 0.75)], ids=["→", "↓", "←", "↑"]
)
def test_colour_says_direction_and_length(direction, hue):
    field = np.zeros((5, 7, 2), np.float32)
    field[1] = np.array(direction) * quality.FULL
    field[2] = np.array(direction) * quality.FULL / 3
    field[3] = np.array(direction) * quality.FULL * 9
    made = quality.coloured(field, np.full((5, 7), 255, np.uint8)) / 255
    found = [colorsys.rgb_to_hsv(*made[row, 3]) for row in range(5)]
    assert found[0][1] == found[4][1] == 0  # no motion, no colour
    for row, length in ((1, 1.0), (2, 1 / 3), (3, 1.0)):
        assert abs((found[row][0] - hue + 0.5) % 1 - 0.5) < 0.02
        assert abs(found[row][1] - length) < 0.02
