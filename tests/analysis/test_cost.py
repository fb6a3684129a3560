import jax
import pytest

from stag_jax.analysis import cost
from stag_jax.model.network import Network


@pytest.mark.parametrize("name", ["stag", "apex_only", "two_stream"])
def test_the_blocks_add_up_to_the_network(name, make_config):
    config = make_config(model={"name": name, "gat_layers": 1})
    *rows, whole = cost.blocks(config)
    network, clip = cost._setting(config)
    params = jax.eval_shape(lambda: network.module.init(jax.random.key(0), clip, network.graph, train=False))
    assert whole.name == "all" and len(rows) > 5
    assert sum(row.parameters for row in rows) <= whole.parameters == sum(x.size for x in jax.tree.leaves(params))
    # What lies between the blocks is a node's own vector in two_stream, and a few additions.
    assert whole.parameters - sum(row.parameters for row in rows) in (0, 22 * config.model.width)
    assert cost.parameters(config) == whole.parameters
    assert 0.7 * whole.flops < sum(row.flops for row in rows) <= whole.flops


def test_operations_of_a_dense_block_by_hand(make_config):
    config = make_config(motion={"frames": 7})
    rows = {row.name: row for row in cost.blocks(config)}
    t, n, d, width, code = 7, 22, 70, config.model.width, 16
    assert rows["embed"].parameters == d * width + width + code * width + n * width
    products = 2 * t * n * d * width + 2 * t * code * width
    assert products < rows["embed"].flops < products + 5 * t * n * width


def test_the_key_frame_alone_is_cheaper(make_config):
    flops = {name: cost.blocks(make_config(model={"name": name}))[-1].flops for name in ("stag", "apex_only")}
    assert flops["apex_only"] < flops["stag"] / 3


def test_a_flow_image_is_one_frame(make_config):
    config = make_config(graph={"kind": "grid", "grid": 3})
    network, clip = cost._setting(config)
    assert clip.nodes.shape == (1, 1, 9, 70)
    assert isinstance(network, Network) and 0 < cost.forward(config).ms < 1e3
