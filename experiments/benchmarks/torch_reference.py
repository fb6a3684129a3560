"""This project's network and training recipe in eager PyTorch: what the benchmark compares its speed with.

As a PyTorch user would write it to be fast: one member after the other, fused kernels where torch has them, and no
named intermediates. Tests hold it to the numbers of `stag_jax`. The module can be imported without torch.
"""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from stag_jax.config import AugmentConfig, Config, LossConfig, ModelConfig, TrainConfig
from stag_jax.model import graph as graph_ops
from stag_jax.types import ClipBatch, FaceGraph, UserError

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
except ImportError:
    torch = None

Module = torch.nn.Module if torch else object
CODE_WIDTH, SLOPE, FLOOR, EPSILON = 16, 0.2, 1e-2, 1e-6  # as in stag_jax
FLIP = ("mirror", "feature_mirror", "feature_sign")  # fields of the graph that become tensors
Mask = Float[np.ndarray, " b"]
WARM_UP = 3  # steps of each member that are not timed


def available() -> bool:
    """Whether torch can be imported."""
    return torch is not None


def make_model(config: ModelConfig, graph: FaceGraph, classes: int, features: int) -> torch.nn.Module:
    """The network for nodes of so many `features`, with new parameters drawn as Flax draws them.

    Called with normalised nodes [b, t, n, d], times_ms [b, t] and frame_mask [b, t], of which each clip must show a
    frame, it returns the logits of classes [b, k] and of action units [b, u].

    Raises UserError for a network other than "stag" and a dtype other than float32.
    """
    if config.name != "stag" or config.dtype != "float32":
        raise UserError(f"in torch there is stag in float32 only, not {config.name} in {config.dtype}")
    return TorchStag(config, graph, classes, features)


def load_params(model: torch.nn.Module, params: Mapping[str, Any]) -> None:
    """Copies the parameters of the Flax network. Raises RuntimeError for a name or shape that the two do not share."""
    state = {}
    for name, value in flatten_dict(params, sep=".").items():
        value = np.array(value, np.float32)
        if name.endswith((".kernel", "au.weight")):
            # Torch has them transposed. Heads are axes of the result, or, in `out`, of what comes in.
            shape = (-1, value.shape[-1]) if name.endswith("out.kernel") else (len(value), -1)
            value = value.reshape(shape).T.copy()
        if name.endswith(".bias"):
            value = value.reshape(-1)
        name = re.sub(r"_(\d+)\.", r".\1.", re.sub("(kernel|scale)$", "weight", name))
        state[name] = torch.from_numpy(value)
    model.load_state_dict(state)


def steps_per_second(
    config: Config,
    graph: FaceGraph,
    batch: ClipBatch,
    train_masks: Float[np.ndarray, "m b"],
    *,
    steps: int,
    device: str = "cpu",
) -> float:
    """Trains each member of `train_masks` for `steps` steps, one after the other; returns member-steps per second.

    Wall clock of the steps alone: setting up, and the first few steps of each member, are not counted. Raises as
    `make_model` does.
    """
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds = 0.0
    for train_mask in train_masks:
        step = make_member(config, graph, batch, train_mask, device=device)
        for index in range(-WARM_UP, steps):
            if index == 0:
                wait()
                begin = time.perf_counter()
            step()
        wait()
        seconds += time.perf_counter() - begin
    return len(train_masks) * steps / seconds


def make_member(
    config: Config, graph: FaceGraph, batch: ClipBatch, train_mask: Mask, device: str = "cpu", mode: str | None = None
) -> Callable[[], Tensor]:
    """One member before its first step. Each call of the result is a step and returns its loss, a scalar.

    `mode` is that of `torch.compile` for the network and its loss; None leaves them eager. Raises as `make_model` does.
    """
    clips = ClipBatch(*(torch.from_numpy(np.asarray(field)[train_mask > 0]).to(device) for field in batch))
    clips = clips._replace(label=clips.label.long())
    count, classes = len(clips.label), len(config.data.classes)
    model = make_model(config.model, graph, classes, clips.nodes.shape[-1]).to(device).train()
    graph = graph._replace(**{name: torch.from_numpy(getattr(graph, name)).to(device) for name in FLIP})
    mean, scale, class_weight = measure(clips, graph, classes, float(config.loss.class_balance))
    together = graph_ops.cooccurrence(*map(jnp.asarray, (batch.au, batch.au_mask, np.float32(train_mask))))
    with torch.no_grad():
        model.connectivity.cooccurrence.copy_(before_softplus(np.asarray(together)))
    optimizer, schedule = make_optimizer(config.train, model)
    order = batches(count, min(config.train.batch_size, count), device)
    parameters = list(model.parameters())
    objective = loss_of if mode is None else torch.compile(loss_of, mode=mode)

    def step() -> Tensor:
        chosen = next(order)
        mixed = augment(ClipBatch(*(field[chosen] for field in clips)), mean, scale, graph, config.augment)
        loss = objective(model, mixed, class_weight, config.loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, float(config.train.clip_norm))
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


def make_optimizer(
    config: TrainConfig, model: torch.nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with weight decay on kernels alone, and its linear warm-up and cosine decay."""
    kernels = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    groups = [
        {"params": [p for p in model.parameters() if p in kernels], "weight_decay": float(config.weight_decay)},
        {"params": [p for p in model.parameters() if p not in kernels], "weight_decay": 0.0},
    ]
    warm_up = min(config.warmup_steps, max(config.steps - 1, 1))

    def share(step: int) -> float:
        if step < warm_up:
            return step / warm_up
        return (1 + math.cos(math.pi * min((step - warm_up) / max(config.steps - warm_up, 1), 1))) / 2

    optimizer = torch.optim.AdamW(groups, lr=float(config.learning_rate), fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def batches(count: int, size: int, device: str) -> Iterator[Tensor]:
    """Rows of one step after the other, [size]: all clips in a new random order every epoch, none left out."""
    queue = torch.randperm(count, device=device)
    while True:
        if len(queue) < size:
            queue = torch.cat([queue, torch.randperm(count, device=device)])
        yield queue[:size]
        queue = queue[size:]


def measure(clips: ClipBatch, graph: FaceGraph, classes: int, balance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and scale [d] of each feature, averaged with its mirror image, and class weights [k], of training clips."""
    shown = clips.nodes[clips.frame_mask].flatten(0, 1)
    mean = shown.mean(dim=0)
    mean = (mean + graph.feature_sign * mean[graph.feature_mirror]) / 2
    variance = (shown - mean).square().mean(dim=0)
    scale = ((variance + variance[graph.feature_mirror]) / 2 + EPSILON).sqrt()
    count = torch.bincount(clips.label, minlength=classes).float()
    weight = torch.where(count > 0, count.clamp_min(1) ** -balance, 0.0)
    return mean, scale, weight * count.sum() / (weight * count).sum()


Mixed = tuple[ClipBatch, "Tensor", "Tensor"]  # normalised clips, the label of the other one [b], share of its own [b]


def augment(clips: ClipBatch, mean: Tensor, scale: Tensor, graph: FaceGraph, config: AugmentConfig) -> Mixed:
    """Raw clips flipped, scaled, with hidden frames; then normalised, with noise, each mixed with the one before it."""
    nodes, magnitude, mask = clips.nodes, clips.magnitude, clips.frame_mask
    b, device = len(nodes), nodes.device
    if config.mirror > 0:
        flipped = nodes.index_select(2, graph.mirror).index_select(3, graph.feature_mirror) * graph.feature_sign
        nodes = torch.where(torch.rand(b, 1, 1, 1, device=device) < float(config.mirror), flipped, nodes)
    if config.magnitude > 0:
        gain = (float(config.magnitude) * torch.randn(b, 1, device=device)).exp()
        nodes, magnitude = nodes * gain[:, :, None, None], magnitude * gain
    if config.frame_drop > 0 and mask.shape[1] > 1:
        strongest = magnitude.masked_fill(~mask, -math.inf).argmax(dim=1, keepdim=True)
        mask = (mask & (torch.rand_like(magnitude) >= float(config.frame_drop))).scatter(1, strongest, True)
    nodes = ((nodes - mean) / scale).masked_fill(~mask[:, :, None, None], 0.0)
    if config.noise > 0:
        nodes = torch.randn_like(nodes).mul_(float(config.noise)).add_(nodes)
    clips = clips._replace(nodes=nodes, magnitude=magnitude, frame_mask=mask)
    if config.mixup <= 0:
        return clips, clips.label, torch.ones(b, device=device)
    alpha = torch.full((b,), float(config.mixup), device=device)
    share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
    share = torch.maximum(share, 1 - share)
    nodes, au, au_mask, label = (x.roll(1, dims=0) for x in (clips.nodes, clips.au, clips.au_mask, clips.label))
    nodes = nodes.lerp(clips.nodes, share[:, None, None, None])
    clips = clips._replace(nodes=nodes, au=au.lerp(clips.au, share[:, None]), au_mask=clips.au_mask & au_mask)
    return clips, label, share


def loss_of(model: torch.nn.Module, mixed: Mixed, class_weight: Tensor, config: LossConfig) -> Tensor:
    """The loss of a step, a scalar: focal loss over classes plus lambda_au times that over action units."""
    clips, other_label, share = mixed
    gamma, smoothing = float(config.gamma), float(config.label_smoothing)
    logits, au_logits = model(clips.nodes, clips.times_ms, clips.frame_mask)
    log_prob = logits.log_softmax(dim=-1)

    def focal(label: Tensor) -> Tensor:
        hot = F.one_hot(label, logits.shape[-1]).float()
        miss = (log_prob.exp() * (1 - hot)).sum(dim=-1)
        cross = -(log_prob * (hot * (1 - smoothing) + smoothing / hot.shape[-1])).sum(dim=-1)
        return class_weight[label] * (miss + 1e-8) ** gamma * cross

    each = torch.lerp(focal(other_label), focal(clips.label), share)
    log_p, log_not = F.logsigmoid(au_logits), F.logsigmoid(-au_logits)
    unit = -clips.au * (gamma * log_not).exp() * log_p - (1 - clips.au) * (gamma * log_p).exp() * log_not
    au = (unit * clips.au_mask).sum() / clips.au_mask.sum().clamp_min(1)
    return each.mean() + float(config.lambda_au) * au


class TorchStag(Module):
    """The whole network: see `make_model`. Modules bear the names of the Flax ones."""

    def __init__(self, c: ModelConfig, graph: FaceGraph, classes: int, features: int) -> None:
        super().__init__()
        d, self.guided, self.cross_layers = c.width, c.au_guidance, c.cross_layers
        periods = np.geomspace(40.0, 2000.0, CODE_WIDTH // 2)
        self.register_buffer("frequency", torch.from_numpy(2 * np.pi / periods).float(), persistent=False)
        self.embed = nn.ModuleDict({"patch": linear(features, d), "time": linear(CODE_WIDTH, d, bias=False)})
        self.embed.node = nn.Parameter(torch.randn(len(graph.node_names), d) * 0.02)
        self.au = TorchActionUnitHead(d, graph)
        self.connectivity = TorchConnectivity(c.dynamic, graph)
        self.gat = nn.ModuleList(TorchGraphAttention(c, graph) for _ in range(c.gat_layers))
        self.over_time, self.over_nodes = TorchPool(d, c.temporal_attention), TorchPool(d)
        self.time_code = linear(CODE_WIDTH, d)
        self.encoder = nn.ModuleList(TorchAttend(c, cross=False) for _ in range(c.transformer_layers))
        self.to_space = nn.ModuleList(TorchAttend(c, cross=True) for _ in range(c.cross_layers * c.cross_to_space))
        self.to_time = nn.ModuleList(TorchAttend(c, cross=True) for _ in range(c.cross_layers * c.cross_to_time))
        self.pool = TorchPool(d, c.temporal_attention)
        self.readout = stack(norm=nn.LayerNorm(d, EPSILON), node=linear(d, c.readout_dim), gelu=nn.GELU("tanh"))
        self.drop = nn.Dropout(float(c.dropout))
        self.logits = linear(len(graph.node_names) * c.readout_dim + d, classes)

    def forward(self, nodes: Tensor, times_ms: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        angle = times_ms[..., None] * self.frequency
        code = torch.cat([angle.sin(), angle.cos()], dim=-1)
        h = self.embed.patch(nodes) + self.embed.time(code)[:, :, None] + self.embed.node
        frame_logits = self.au(h)
        bias = self.connectivity(frame_logits.sigmoid() if self.guided else torch.ones_like(frame_logits))
        for layer in self.gat:
            h = layer(h, bias, times_ms, frame_mask)
        space = self.over_time(h.transpose(1, 2), frame_mask[:, None])
        time = self.over_nodes(h) + self.time_code(code)
        frames = frame_mask[:, None, None]
        for layer in self.encoder:
            time = layer(time, mask=frames)
        for index in range(self.cross_layers):
            # Both directions read the other stream as it was.
            space_before, time_before = space, time
            if self.to_space:
                space = self.to_space[index](space_before, time_before, frames)
            if self.to_time:
                time = self.to_time[index](time_before, space_before)
        read = torch.cat([self.readout(space).flatten(1), self.pool(time, frame_mask)], dim=-1)
        shown = frame_logits.masked_fill(~frame_mask[..., None], -math.inf)
        au_logits = shown.logsumexp(dim=1) - frame_mask.sum(dim=1, keepdim=True).log()
        return self.logits(self.drop(read)), au_logits


class TorchActionUnitHead(Module):
    def __init__(self, width: int, graph: FaceGraph) -> None:
        super().__init__()
        share = torch.from_numpy(graph.incidence / graph.incidence.sum(axis=1, keepdims=True))
        self.register_buffer("share", share, persistent=False)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.weight = linear(width, len(share)).weight
        self.bias = nn.Parameter(torch.full((len(share),), -2.0))

    def forward(self, h: Tensor) -> Tensor:
        pooled = self.share @ F.gelu(self.norm(h), approximate="tanh")  # b t u d
        return (pooled * self.weight).sum(dim=-1) + self.bias


class TorchConnectivity(Module):
    def __init__(self, dynamic: bool, graph: FaceGraph) -> None:
        super().__init__()
        self.dynamic = dynamic
        self.register_buffer("incidence", torch.from_numpy(graph.incidence), persistent=False)
        self.adjacency = nn.Parameter(before_softplus(graph.adjacency))
        self.cooccurrence = nn.Parameter(before_softplus(np.eye(len(graph.units))))

    def forward(self, guide: Tensor) -> Tensor:
        link = FLOOR + F.softplus(self.adjacency)
        if self.dynamic:
            active = guide[..., None] * self.incidence  # b t u n
            link = link + active.mT @ (F.softplus(self.cooccurrence) @ active)
        return link.log()


class TorchGraphAttention(Module):
    def __init__(self, c: ModelConfig, graph: FaceGraph) -> None:
        super().__init__()
        self.heads, self.window, self.edge_dropout = c.heads, c.window, float(c.edge_dropout)
        scores = c.heads * c.score_dim
        self.register_buffer("edges", torch.from_numpy(graph_ops.space_edge_features(graph)), persistent=False)
        self.norm = nn.LayerNorm(c.width, EPSILON)
        self.query, self.key = linear(c.width, scores), linear(c.width, scores, bias=False)
        self.value, self.out = linear(c.width, c.width), linear(c.width, c.width)
        self.score = linear(c.score_dim, c.heads).weight
        self.space_edge, self.time_edge = linear(5, scores, bias=False), linear(3, scores)
        self.drop, self.mlp = nn.Dropout(float(c.dropout)), mlp(c.width, c.mlp_ratio * c.width)

    def forward(self, h: Tensor, bias: Tensor, times_ms: Tensor, frame_mask: Tensor) -> Tensor:
        b, t, n, _ = h.shape
        reach, heads = min(self.window, t - 1), (self.heads, -1)  # one frame alone has no time edges
        z = self.norm(h)
        query, key, value = (x.unflatten(-1, heads) for x in (self.query(z), self.key(z), self.value(z)))
        # In the largest tensor of the network the node axes are the inner ones: b t h d n n2.
        edge = self.space_edge(self.edges).unflatten(-1, heads).permute(2, 3, 0, 1).contiguous()
        outer, inner = (x.permute(0, 1, 3, 4, 2).contiguous() for x in (query, key))
        mixed = F.leaky_relu((outer[..., None] + inner[..., None, :]).add_(edge), SLOPE, inplace=True)
        scores = (self.score[:, None] @ mixed.flatten(-2)).view(b, t, -1, n, n) + bias[..., None, :, :]
        mask = frame_mask[:, :, None, None].expand(b, t, n, n)
        if reach > 0:
            delta = (around(times_ms, reach) - times_ms[:, :, None]) / 100
            edge = self.time_edge(torch.stack([delta.sign(), delta, delta.tanh()], dim=-1)).unflatten(-1, heads)
            mixed = (query[:, :, None] + around(key, reach)).add_(edge[:, :, :, None])
            in_time = (F.leaky_relu(mixed, SLOPE, inplace=True) * self.score).sum(dim=-1)  # b t w n h
            scores = torch.cat([scores, in_time.permute(0, 1, 4, 3, 2)], dim=-1)
            mask = torch.cat([mask, around(frame_mask, reach)[:, :, None].expand(b, t, n, -1)], dim=-1)
        if self.training and self.edge_dropout > 0:
            kept = torch.rand(mask.shape, device=h.device) >= self.edge_dropout
            kept.diagonal(dim1=-2, dim2=-1).fill_(True)  # a node always hears itself
            mask = mask & kept
        weights = masked_softmax(scores, mask[:, :, None])
        message = torch.einsum("bthnm,btmhd->btnhd", weights[..., :n], value)
        if reach > 0:
            message = message + (weights[..., n:].permute(0, 1, 4, 3, 2)[..., None] * around(value, reach)).sum(dim=2)
        h = h + locked(self.drop, self.out(message.flatten(-2)))
        return h + locked(self.drop, self.mlp(h))


class TorchAttend(Module):
    def __init__(self, c: ModelConfig, *, cross: bool) -> None:
        super().__init__()
        self.heads = c.heads
        self.norm = nn.LayerNorm(c.width, EPSILON)
        self.source_norm = nn.LayerNorm(c.width, EPSILON) if cross else None
        self.query, self.key = linear(c.width, c.width), linear(c.width, c.width, bias=False)
        self.value, self.out = linear(c.width, c.width), linear(c.width, c.width)
        self.drop, self.mlp = nn.Dropout(float(c.dropout)), mlp(c.width, c.mlp_ratio * c.width)

    def forward(self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        z = self.norm(x)
        tokens = z if source is None else self.source_norm(source)
        parts = (self.query(z), self.key(tokens), self.value(tokens))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        message = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(-2)
        x = x + locked(self.drop, self.out(message))
        return x + locked(self.drop, self.mlp(x))


class TorchPool(Module):
    def __init__(self, d: int, learned: bool = True) -> None:
        super().__init__()
        self.norm, self.score = (nn.LayerNorm(d, EPSILON), linear(d, 1, bias=False)) if learned else (None, None)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        score = x.new_zeros(x.shape[:-1]) if self.score is None else self.score(self.norm(x).tanh()).squeeze(-1)
        weights = score.softmax(dim=-1) if mask is None else masked_softmax(score, mask)
        return (weights.unsqueeze(-2) @ x).squeeze(-2)


def locked(drop: torch.nn.Dropout, x: Tensor) -> Tensor:
    """Dropout of whole features: all tokens of the last axis but one lose the same ones."""
    return x * drop(x.new_ones(*x.shape[:-2], 1, x.shape[-1]))


def around(x: Tensor, reach: int) -> Tensor:
    """The frames around each one, itself left out: [b, t, ...] to [b, t, w, ...], zeros beyond the ends."""
    ends = x.new_zeros(len(x), reach, *x.shape[2:])
    padded = torch.cat([ends, x, ends], dim=1)
    return torch.stack([padded[:, i : i + x.shape[1]] for i in range(2 * reach + 1) if i != reach], dim=2)


def before_softplus(value: np.ndarray) -> Tensor:
    """What softplus makes `value` of, or 0.01 where that is more."""
    value = np.maximum(value, 1e-2)
    return torch.from_numpy(value + np.log(-np.expm1(-value))).float()


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis; what `mask` hides gets 0, and where it hides all, all are alike and never read."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)


def mlp(d: int, inner: int) -> torch.nn.Sequential:
    return stack(norm=nn.LayerNorm(d, EPSILON), up=linear(d, inner), gelu=nn.GELU("tanh"), down=linear(inner, d))


def stack(**modules: torch.nn.Module) -> torch.nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def linear(inputs: int, outputs: int, *, bias: bool = True) -> torch.nn.Linear:
    """A layer that starts as in Flax: bias 0, weights of variance 1 / inputs, normal but cut off at two deviations."""
    layer, deviation = nn.Linear(inputs, outputs, bias=bias), inputs**-0.5 / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
