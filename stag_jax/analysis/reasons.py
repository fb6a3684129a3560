"""The part of a report on what predictions rest on: connectivity, attention, saliency, and whether to trust them."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float

from stag_jax.analysis import attributions, charts, connections, examples, explain, faithfulness, page
from stag_jax.analysis.attributions import INTEGRATED, ROLLOUT, Evidence
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.analysis.playback import faces
from stag_jax.corpora import features

MARKS = ("onset", "apex", "offset")


def sections(
    run: LoadedRun, corpora: Sequence[Path], prepared: Sequence[features.Prepared], found: Evidence | None
) -> list[page.Section]:
    """Return all sections; none if there are no networks."""
    if found is None:
        return []
    shares = attributions.by_method(found)
    return [
        *_connectivity(run, found, shares),
        *_time(run, prepared, found),
        *_units(run, found, shares),
        _examples(run, corpora, prepared, found, shares),
        _faithfulness(run, found),
    ]


def _connectivity(run: LoadedRun, found: Evidence, spread: dict[str, Float[np.ndarray, "b t n"]]) -> list[page.Section]:
    if "connectivity" not in found.aux or not run.config.model.dynamic:
        return []
    graph, label = found.corpus.graph, found.corpus.batch.label
    links = connections.by_class(found.aux["connectivity"], found.seen, label, len(run.classes))
    places = connections.region_places(run.config.graph, graph)
    size = np.nan_to_num(explain.mean_by_class(spread[INTEGRATED].sum(axis=1), label, len(run.classes)))
    unit_links = connections.of_units(links, graph.incidence)
    return [
        page.Section(
            "Connectivity",
            [
                page.Figure(
                    "regions",
                    connections.figure(links, run.classes, places, graph.node_names, size=size),
                    "Links between regions in clips of each class, against an average clip: red where stronger, blue "
                    f"where weaker, the thickest by {connections.scale(links):.2f} in the logarithm of the attention "
                    f"weight. Dots: share in the answer ({INTEGRATED}).",
                ),
                page.Figure(
                    "units",
                    connections.figure(
                        unit_links,
                        run.classes,
                        connections.unit_places(places, graph.incidence),
                        [f"{unit}" for unit in graph.units],
                        written=True,
                    ),
                    "The same between action units, each drawn amid its regions on the subject's left; the thickest by "
                    f"{connections.scale(unit_links):.2f}.",
                ),
                page.Table(
                    "connectivity_of_units",
                    _pairs(unit_links, graph.units, run.classes),
                    "Links between units, as numbers.",
                    signed=tuple(run.classes),
                ),
            ],
        )
    ]


def _pairs(between: Float[np.ndarray, "k u u2"], units: Sequence[int], classes: Sequence[str]) -> pd.DataFrame:
    mean_links = connections.symmetric(between)
    rows, columns = np.triu_indices(len(units), 1)
    frame = pd.DataFrame({"units": [f"{units[i]} and {units[j]}" for i, j in zip(rows, columns, strict=True)]})
    for index, name in enumerate(classes):
        frame[name] = mean_links[index, rows, columns]
    order = np.argsort(-np.abs(frame[list(classes)].to_numpy()).max(axis=1), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def annotated(prepared: Sequence[features.Prepared], ids: Sequence[str]) -> dict[str, Float[np.ndarray, " b"]]:
    """Return annotated onset, apex and offset of each clip in milliseconds after its first frame; NaN where missing."""
    row_of = {name: index for index, name in enumerate(ids)}
    times = {mark: np.full(len(ids), np.nan) for mark in MARKS}
    for corpus in prepared:
        for report in corpus.reports:
            for mark in MARKS:
                time_ms = getattr(report, f"annotated_{mark}_ms")
                if report.id in row_of and time_ms >= 0:
                    times[mark][row_of[report.id]] = time_ms
    return times


def _time(run: LoadedRun, prepared: Sequence[features.Prepared], found: Evidence) -> list[page.Section]:
    weight, batch = found.aux.get("temporal_attention"), found.corpus.batch
    if weight is None or weight.shape[1] < 2:
        return []
    marks = annotated(prepared, found.corpus.ids)
    attention_centre = (weight * batch.times_ms * found.seen).sum(axis=1)
    frame_centre = (batch.times_ms * found.seen).sum(axis=1) / found.seen.sum(axis=1)
    rows = []
    for index, name in enumerate(run.classes):
        mask = batch.label == index
        apexes = marks["apex"][mask]
        apex = float(np.nanmedian(apexes)) if (~np.isnan(apexes)).any() else None
        rows.append((name, float(np.median(attention_centre[mask])), float(np.median(frame_centre[mask])), apex))
    frame = pd.DataFrame(rows, columns=["class", "attention (ms)", "kept frames (ms)", "annotated apex (ms)"])
    return [
        page.Section(
            "Attention over time",
            [
                page.Figure(
                    "time",
                    charts.time_figure(batch.times_ms, weight, found.seen, batch.label, run.classes, marks),
                    "Where in time the final pooling looks, by class; dashed, were all kept frames alike. The network "
                    "is never told where onset, apex or offset lie.",
                ),
                page.Table(
                    "time", frame, "Medians over clips: centre of the attention, of the kept frames, and the apex."
                ),
            ],
        )
    ]


def _units(run: LoadedRun, found: Evidence, spread: dict[str, Float[np.ndarray, "b t n"]]) -> list[page.Section]:
    if "au_probability" not in found.aux:
        return []
    batch, graph = found.corpus.batch, found.corpus.graph
    peak = explain.peak(found.aux["au_probability"], found.seen)
    means = explain.mean_by_class(peak, batch.label, len(run.classes))
    by_class = pd.DataFrame(means.T, columns=list(run.classes))
    by_class.insert(0, "unit", [f"AU {unit}" for unit in graph.units])
    blocks: list[page.Block] = [
        page.Figure(
            "units_by_class",
            charts.unit_figure(np.nan_to_num(means), graph.units, run.classes),
            "Probability of each unit, largest over the frames of a clip, mean over the clips of a class.",
        ),
        page.Table("units_by_class", by_class, "The same as numbers."),
    ]
    table = agreement_table(found, spread, run.config.protocol.bootstrap)
    if table is not None:
        text = (
            "How well each way of reading the network tells the units that moved (as annotated) from those that did "
            "not: average precision, the area under the precision-recall curve, over all pairs of clip and unit, by "
            "unit and by clip. Explained units: the probability of the unit times the saliency of its regions, as a "
            "share of what an average region has."
        )
        blocks.append(page.Table("explained_units", table, text))
    else:
        blocks.append(
            page.Note("The corpus has no action units: those above are latent, and their numbers mean nothing.")
        )
    return [page.Section("Action units", blocks)]


def agreement_table(
    found: Evidence, spread: dict[str, Float[np.ndarray, "b t n"]], resamples: int
) -> pd.DataFrame | None:
    """Return average precision of units by the head, by each saliency, and explained; None without positive labels."""
    batch, graph = found.corpus.batch, found.corpus.graph
    probability = found.aux["au_probability"]
    scores = {"action unit head alone": explain.peak(probability, found.seen)}
    for name, saliency in spread.items():
        scores[f"{name} alone"] = explain.relevance(saliency, graph.incidence)
        scores[f"explained units, {name}"] = explain.explained(probability, found.seen, saliency, graph.incidence)
    rows = []
    for name, score in scores.items():
        agreement = explain.agreement(score, batch.au, batch.au_mask, found.corpus.subjects, resamples=resamples)
        if agreement is None:
            return None
        rows.append((name, *agreement))
    rows.append(("chance", float(batch.au[batch.au_mask].mean()), *[np.nan] * 4))
    return pd.DataFrame(rows, columns=["read from", "all pairs", "95% low", "95% high", "by unit", "by clip"])


def _examples(
    run: LoadedRun,
    corpora: Sequence[Path],
    prepared: Sequence[features.Prepared],
    found: Evidence,
    spread: dict[str, Float[np.ndarray, "b t n"]],
) -> page.Section:
    batch, ids = found.corpus.batch, found.corpus.ids
    correct = found.probability.argmax(axis=1) == batch.label
    kept = {clip.identity.id: clip.frame_index for corpus in prepared for clip in corpus.clips}
    blocks: list[page.Block] = [
        page.Note(
            "Of each class the clip that was recognised with the median confidence among those recognised: no "
            "showpiece."
        )
    ]
    for index, name in enumerate(run.classes):
        recognised = np.flatnonzero(correct & (batch.label == index))
        if not len(recognised):
            blocks.append(page.Note(f"No clip of {name} was recognised."))
            continue
        order = recognised[np.argsort(found.probability[recognised, index], kind="stable")]
        clip = int(order[len(order) // 2])
        face = faces(run, corpora, ids[clip], kept[ids[clip]])
        blocks.append(
            page.Figure(
                f"saliency_{page.slug(name)}",
                examples.strip(
                    face.pictures,
                    face.centres,
                    {method: saliency[clip] for method, saliency in spread.items()},
                    batch.times_ms[clip],
                    batch.frame_mask[clip],
                    id=ids[clip],
                    nodes=found.corpus.graph.node_names,
                ),
                f"{name}: {ids[clip]}, p = {found.probability[clip, index]:.2f}. Saliency of regions in kept frames; "
                "where the two methods differ, neither is the truth.",
            )
        )
        if "au_probability" in found.aux and found.aux["au_probability"].shape[1] > 1:
            mask = batch.frame_mask[clip]
            units = [
                unit for unit, present in zip(found.corpus.graph.units, batch.au[clip] > 0, strict=True) if present
            ]
            chart = examples.units_over_time(
                batch.times_ms[clip][mask],
                found.aux["au_probability"][clip][mask],
                found.corpus.graph.units,
                units,
                face.marks_ms,
                id=ids[clip],
            )
            blocks.append(
                page.Figure(f"units_{page.slug(name)}", chart, f"{name}: action units of the same clip over time.")
            )
    return page.Section("Single clips", blocks)


def _faithfulness(run: LoadedRun, found: Evidence) -> page.Section:
    subjects = np.asarray(found.corpus.subjects)[found.curved].tolist()
    ids = np.asarray(found.corpus.ids)[found.curved].tolist()
    areas = faithfulness.areas(found.curves, subjects, resamples=run.config.protocol.bootstrap)
    frame = pd.DataFrame(areas, columns=faithfulness.Area._fields)
    frame = frame.rename(columns={"better": "better than random", "low": "95% low", "high": "95% high"})
    methods = [method for method in (INTEGRATED, ROLLOUT) if method in found.saliency]
    blocks: list[page.Block] = [
        page.Figure(
            "faithfulness",
            charts.area_figure(found.curves, ids),
            "Regions of frames are made still (deletion) or brought to life in a still face (insertion), the most "
            f"salient first; mean over {len(found.curved)} of {len(found.target)} held-out clips, of whole folds.",
        ),
        page.Table(
            "faithfulness", frame, "Area under these curves.", signed=("better than random", "95% low", "95% high")
        ),
    ]
    if len(methods) == 2:
        flat = [jax.tree.map(np.asarray, found.saliency[method]).reshape(len(found.target), -1) for method in methods]
        correlations = [
            np.corrcoef(*map(_ranked, pair))[0, 1]
            for pair in zip(*flat, strict=True)
            if np.ptp(pair[0]) and np.ptp(pair[1])
        ]
        blocks.append(
            page.Note(f"Rank correlation of the two methods within a clip: median {np.median(correlations):.2f}.")
        )
    return page.Section("Faithfulness", blocks)


def _ranked(values: Float[np.ndarray, " x"]) -> Float[np.ndarray, " x"]:
    return np.argsort(np.argsort(values)).astype(float)
