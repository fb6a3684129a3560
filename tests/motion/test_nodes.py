import dataclasses

import numpy as np
import pytest

from stag_configs import base
from stag_jax.config import from_config_dict
from stag_jax.face import regions, template
from stag_jax.motion import extract, nodes
from stag_jax.motion import optical_flow as flows
from stag_jax.motion.sampling import bilinear
from stag_jax.types import ClipIdentity, FlowClip, UserError

CONFIG = from_config_dict(base.get_config())
MOTION = CONFIG.motion
GRID = dataclasses.replace(CONFIG.graph, kind="grid")


def flip(features, graph):
    """What the graph says the features become when the picture is flipped."""
    return features[:, graph.mirror][..., graph.feature_mirror] * graph.feature_sign


def test_bilinear_is_exact_between_pixels_and_holds_beyond_the_border():
    y, x = np.mgrid[:5, :7].astype(float)
    field = np.stack([2 * x - 3 * y, x * y], axis=-1)[None]
    points = np.array([[1.25, 2.5], [6.0, 4.0], [0.0, 0.0], [-3.0, 2.0], [9.0, 9.0]])
    expected = [(2 * a - 3 * b, a * b) for a, b in [(1.25, 2.5), (6, 4), (0, 0), (0, 2), (6, 4)]]
    np.testing.assert_allclose(bilinear(field, points), [expected])


def test_features_of_a_linear_field():
    t, patch, spacing = 2, 3, 2.0
    y, x = np.mgrid[:41, :47].astype(np.float32)
    flow = np.stack([np.stack([0.1 * x + 1, 0.2 * y - 2], -1), np.stack([0 * x + 3, 0 * y + 4], -1)])
    strain = np.stack([0.5 * x, 0 * x])
    centres = np.array([[20.0, 15.0], [11.5, 30.25], [30.0, 7.0], [25.0, 25.0], [5.0, 5.0]])
    features = nodes.node_features(flow, strain, centres, patch, spacing)
    assert features.shape == (t, 5, 42) and features.dtype == np.float32
    cx, cy = centres.T
    squares = features[0, :, :36].reshape(5, 3, 3, 4)  # n rows columns channels
    for row in range(3):
        for column in range(3):
            px, py = cx + (column - 1) * spacing, cy + (row - 1) * spacing
            np.testing.assert_allclose(squares[:, row, column, 0], 0.1 * px + 1, rtol=1e-5)
            np.testing.assert_allclose(squares[:, row, column, 1], 0.2 * py - 2, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(squares[:, row, column, 2], 0.5 * px, rtol=1e-5)
    # Between pixels the length is that of the pixels around, so it is near that of the flow there and never below.
    excess = squares[..., 3] - np.linalg.norm(squares[..., :2], axis=-1)
    assert (excess > -1e-5).all() and excess.max() < 0.02
    pooled = features[0, :, 36:]
    np.testing.assert_allclose(pooled[:, 0], 0.1 * cx + 1, rtol=1e-5)
    np.testing.assert_allclose(pooled[:, 1], 0.2 * cy - 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooled[:, 2], 0.5 * cx, rtol=1e-5)
    deviation = spacing * np.sqrt(2 / 3)
    np.testing.assert_allclose(pooled[:, 4], 0.1 * deviation, rtol=1e-4)
    np.testing.assert_allclose(pooled[:, 5], 0.2 * deviation, rtol=1e-4)
    np.testing.assert_allclose(features[1, :, 36:], np.tile([3, 4, 0, 5, 0, 0], (5, 1)), atol=1e-5)
    magnitude = nodes.node_magnitude(flow, centres, patch, spacing)
    np.testing.assert_allclose(magnitude, features[..., nodes.MEAN_MAGNITUDE], rtol=1e-5)


@pytest.mark.parametrize("patch", [1, 3, 4])
def test_the_feature_mirror_is_an_involution(patch):
    index, sign = nodes.patch_mirror(patch)
    assert len(index) == len(sign) == 4 * patch**2 + 6
    np.testing.assert_array_equal(index[index], np.arange(len(index)))
    np.testing.assert_array_equal(sign[index] * sign, 1)
    assert (sign < 0).sum() == patch**2 + 1


@pytest.mark.parametrize("patch", [3, 4])
def test_a_mirrored_face_gives_permuted_features(patch):
    motion = dataclasses.replace(MOTION, patch=patch)
    rng = np.random.default_rng(patch)
    size = 97
    flow = rng.normal(size=(3, size, size, 2)).astype(np.float32)
    face = template.to_pixels(template.in_canonical(template.mean_face()), size, size)
    face = face + rng.normal(scale=2, size=(68, 2))
    flipped_flow = flow[:, :, ::-1] * np.float32((-1, 1))
    flipped_face = ((face * (-1, 1)) + (size - 1, 0))[template.MIRROR]

    def features(flow, face):
        return nodes.node_features(flow, flows.strain(flow), regions.roi_centres(face), patch, motion.spacing)

    graph = nodes.graph(CONFIG.graph, motion)
    expected = flip(features(flow, face), graph)
    np.testing.assert_allclose(features(flipped_flow, flipped_face), expected, atol=2e-4)


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", ["grid", "roi"])
@pytest.mark.parametrize("clip_norm", [True, False])
@pytest.mark.parametrize(("height", "width", "grid", "patch"), [(28, 28, 6, 4), (31, 37, 5, 3), (64, 64, 7, 2)])
def test_a_mirrored_flow_image_gives_permuted_features(kind, clip_norm, height, width, grid, patch):
    graph_config = dataclasses.replace(CONFIG.graph, kind=kind, grid=grid)
    motion = dataclasses.replace(MOTION, clip_norm=clip_norm, patch=patch)
    plain = image(height, width)
    flipped = plain[:, ::-1].copy()
    flipped[..., 0] = 255 - flipped[..., 0]
    graph = nodes.graph(graph_config, motion)
    features = nodes.flow_image_nodes(plain, graph_config, motion)
    assert features.shape == (1, len(graph.node_names), len(graph.feature_sign))
    expected = flip(features, graph)
    np.testing.assert_allclose(nodes.flow_image_nodes(flipped, graph_config, motion), expected, atol=2e-5)


def test_grid_patches_are_the_overlapping_windows_pooled_two_by_two():
    plain = image(28, 28)
    motion = dataclasses.replace(MOTION, clip_norm=False)
    features = nodes.flow_image_nodes(plain, GRID, motion)[0]
    field = plain.astype(float) / 255 * (2, 2, 1) - (1, 1, 0)
    # Lengths are taken before the pooling, where opposed movements do not cancel.
    field = np.dstack([field, np.hypot(field[..., 0], field[..., 1])])
    for n, (r, c) in enumerate(np.ndindex(6, 6)):
        window = field[4 * r : 4 * r + 8, 4 * c : 4 * c + 8]
        pooled = window.reshape(4, 2, 4, 2, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(features[n, :64], pooled.ravel(), atol=1e-6)
        np.testing.assert_allclose(features[n, 64:68], window.mean(axis=(0, 1)), atol=1e-6)


def test_clip_norm_forgets_offset_and_contrast():
    motion = dataclasses.replace(MOTION, clip_norm=True)
    plain = image(28, 28) // 4
    stretched = np.uint8(plain * np.uint8(3) + np.uint8(40))
    first, second = (nodes.flow_image_nodes(i, GRID, motion) for i in (plain, stretched))
    np.testing.assert_allclose(first, second, atol=1e-5)
    still = nodes.flow_image_nodes(np.full((28, 28, 3), 77, np.uint8), GRID, motion)
    np.testing.assert_array_equal(still, 0)


def test_the_graph_fits_the_features():
    for kind, n in (("roi", 22), ("grid", 36)):
        graph = nodes.graph(dataclasses.replace(CONFIG.graph, kind=kind), MOTION)
        assert len(graph.node_names) == n
        assert graph.units == CONFIG.graph.units
        assert len(graph.feature_mirror) == 4 * MOTION.patch**2 + 6


def test_a_flow_image_gives_the_regions_that_are_kept():
    few = dataclasses.replace(CONFIG.graph, nodes=("chin", "lip_corner_r", "lip_corner_l"), units=(12, 17))
    names = nodes.graph(few, MOTION).node_names
    at = [nodes.graph(CONFIG.graph, MOTION).node_names.index(name) for name in names]
    clip = FlowClip(ClipIdentity("a/b/c", "b", "a", ""), None, image(28, 31))
    whole, part = (extract.extract(clip, dataclasses.replace(CONFIG, graph=each)) for each in (CONFIG.graph, few))
    np.testing.assert_array_equal(part.nodes, whole.nodes[:, at])
    np.testing.assert_array_equal(part.magnitude, whole.magnitude)
    with pytest.raises(UserError, match=r"^config\.graph\.nodes names regions of the face; config\.graph\.kind='grid'"):
        nodes.graph(dataclasses.replace(few, kind="grid"), MOTION)
