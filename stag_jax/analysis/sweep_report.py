"""Results of a sweep: the nested result, every trial's scores, and each setting against the inner score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from stag_jax import config as config_lib
from stag_jax import files
from stag_jax.analysis import comparison, drawing
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.protocol import nested
from stag_jax.protocol.splits import Splits, make_splits
from stag_jax.training import hosts, outcome, trial_groups, workdir
from stag_jax.types import UserError

NESTED, CHOSEN, FIGURE = "nested", "chosen.csv", "inner_scores"


class Findings(NamedTuple):
    """The results of a sweep, trials in the order of the plan."""

    names: tuple[str, ...]
    rows: list[comparison.ComparedRow]  # outer scores of each trial, compared with the first
    scores: nested.Scores | None  # None if nothing was chosen
    chosen: dict[str, str]  # trial of each outer fold; empty if nothing was chosen
    results: dict[str, dict[str, Any]]  # metrics of each trial
    nested: dict[str, Any] | None  # metrics of the nested result


def collect(
    plan: trial_groups.Plan,
    groups: Sequence[trial_groups.Group],
    results: Mapping[str, trial_groups.GroupResult],
    folder: Path,
    corpora: Path | Sequence[Path],
) -> Findings:
    """Score every trial and the nested choice, and write each as a workdir of its own.

    `trials/<name>/` is a run with the trial's settings. `nested/` holds, for each fold, the predictions of the trial
    chosen on inner subjects of its training set.

    Raises:
      UserError: the trials do not see the same clips.
    """
    corpus = hosts.in_turn(lambda: dataset.load(corpora, plan.settings))
    # Trials may differ in their features too, and each workdir records its own data.
    sources = {_features(plan.settings): corpus}
    for config in plan.trials.values():
        if _features(config) not in sources:
            sources[_features(config)] = hosts.in_turn(lambda config=config: dataset.load(corpora, config))
    splits = make_splits(plan.settings.protocol, corpus.clips)
    group_results = {name: (results[group.name], index) for group in groups for index, name in enumerate(group.tuned)}
    names = tuple(plan.trials)
    for name in names:
        if sources[_features(plan.trials[name])].ids != corpus.ids:
            raise UserError(f"trial {name} sees other clips than the settings of the sweep do")

    def of(name: str, field: str) -> Float[np.ndarray, "..."]:
        result, index = group_results[name]
        return getattr(result, field)[index]

    scores, chosen = None, {}
    if plan.inner_folds:
        scores = nested.Scores(*(np.stack([of(name, f"inner_{key}") for name in names]) for key in nested.SELECT))
        choice = nested.choose(scores, plan.select)
        chosen = {fold: names[index] for fold, index in zip(splits.names, choice, strict=True)}
        trial_groups.export_chosen(groups, chosen, folder)

    def write() -> Findings:
        metrics, models = {}, []
        tested = splits.test_mask.any(axis=0)
        for name in names:
            path, config = trial_groups.trial_folder(folder, name), plan.trials[name]
            probability = of(name, "probability")
            trial_corpus, au = sources[_features(config)], of(name, "au_probability")
            metrics[name] = _score(config, path, trial_corpus, splits, probability, au)
            models.append(comparison.ComparedModel(name, probability[:, tested]))
        rows = comparison.compare_all(models, corpus.take(tested), plan.settings)[: len(names)]
        nested_metrics = None
        if chosen:
            probability, au = (_by_choice(field, of, chosen, splits) for field in ("probability", "au_probability"))
            nested_metrics = _score(plan.settings, folder / NESTED, corpus, splits, probability, au)
            table = [
                [name, trial, scores.uf1[names.index(trial), number], scores.log_loss[names.index(trial), number]]
                for number, (name, trial) in enumerate(chosen.items())
            ]
            files.write_table(folder / NESTED / CHOSEN, ["fold", "trial", "inner_uf1", "inner_log_loss"], table)
        return Findings(names, rows, scores, chosen, metrics, nested_metrics)

    return hosts.in_turn(lambda: write() if hosts.first() else Findings(names, [], scores, chosen, {}, None))


def _features(config: Config) -> tuple[Any, ...]:
    """Return the settings that decide the clips of a config and their features."""
    return config.data, config.face, config.motion, config.graph, config.model.strain


def _score(
    config: Any, place: Path, corpus: dataset.Corpus, splits: Splits, probability: np.ndarray, au: np.ndarray
) -> dict[str, Any]:
    done = workdir.finished(place)
    if done is None:
        workdir.claim(place, config, corpus, splits)
        done = outcome.score(config, place, corpus, splits, probability, au)
        done = workdir.write_metrics(place, done)
    return done


def _by_choice(field: str, of: Any, chosen: Mapping[str, str], splits: Splits) -> Float[np.ndarray, "seed b x"]:
    """Return for each clip the output of the trial that was chosen for the fold that tests it."""
    pooled = np.full_like(of(next(iter(chosen.values())), field), np.nan)
    for trial, test in zip(chosen.values(), splits.test_mask, strict=True):
        pooled[:, test] = of(trial, field)[:, test]
    return pooled


def table(plan: trial_groups.Plan, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of trials.csv: one row per trial, in the order of the plan."""
    keys = _keys(plan)
    header = ["trial", *keys]
    if found.scores:
        header += ["inner_uf1", "inner_log_loss", "chosen_for_folds"]
    header += ["uf1", "uf1_low", "uf1_high", "uar", "accuracy", "uf1_seeds_averaged"]
    header += ["less_first", "less_first_low", "less_first_high"]
    rows = []
    for index, (name, row) in enumerate(zip(found.names, found.rows, strict=True)):
        cells = [name, *(_cell(plan, name, key) for key in keys)]
        if found.scores:
            inner = (found.scores.uf1[index].mean(), found.scores.log_loss[index].mean())
            cells += [*map(_digits, inner), str(list(found.chosen.values()).count(name))]
        means = found.results[name]["mean_over_seeds"]
        cells += [_digits(value) for value in (row.uf1, row.low, row.high)]
        cells += [_digits(means[key]["mean"]) for key in ("uar", "accuracy")] + [_digits(found.results[name]["uf1"])]
        # `difference` is the first trial less this one; the table has this one less the first.
        difference = row.difference
        cells += (
            [_digits(-value) for value in (difference.mean, difference.high, difference.low)]
            if difference
            else ["", "", ""]
        )
        rows.append(cells)
    return header, rows


def _keys(plan: trial_groups.Plan) -> list[str]:
    return list(dict.fromkeys(key for changes in plan.changed.values() for key in changes))


def _cell(plan: trial_groups.Plan, name: str, key: str) -> str:
    return str(config_lib.get(plan.trials[name], key))


def _digits(value: float) -> str:
    return f"{value + 0.0:.6f}"


def ranked(plan: trial_groups.Plan, found: Findings, most: int = 20) -> str:
    """Format the trials as a short table, best first: by the inner score, or by the outer one if nothing was chosen."""
    header, rows = table(plan, found)
    column = {"uf1": "inner_uf1", "log_loss": "inner_log_loss"}[plan.select] if found.scores else "uf1"
    sign = 1 if column == "inner_log_loss" else -1
    order = sorted(rows, key=lambda row: (sign * float(row[header.index(column)]), row[0]))
    rounded = [[cell if "." not in cell[-7:] else _rounded(cell) for cell in row] for row in order[:most]]
    return comparison.markdown(header, rounded)


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def verdict(plan: trial_groups.Plan, found: Findings) -> str:
    """Return the lines that a paper may quote, and the one that it may not."""
    best = max(zip(found.rows, found.names, strict=True), key=lambda pair: pair[0].uf1)
    row, name = best
    single = f"UF1 {row.uf1:.3f} [{row.low:.3f}, {row.high:.3f}] of trial {name}"
    if not found.nested:
        return f"best single trial, chosen on the very subjects that score it, so OPTIMISTIC: {single}"
    uf1 = found.nested["mean_over_seeds"]["uf1"]
    low, high = uf1["ci95"]
    return (
        f"nested, each fold's trial chosen on inner subjects of its training set: UF1 {uf1['mean']:.3f} "
        f"[{low:.3f}, {high:.3f}]\n"
        f"OPTIMISTIC, not for publication: the best single trial, chosen on the very subjects that score it: {single}"
    )


def chart(plan: trial_groups.Plan, found: Findings) -> drawing.Chart | None:
    """Draw each varying setting against the inner score of the trials: mean and deviation over outer folds.

    None if nothing was chosen or nothing varies.
    """
    keys = _keys(plan)
    if not found.scores or not keys:
        return None
    score = getattr(found.scores, plan.select)
    label = {"uf1": "inner UF1", "log_loss": "inner log loss"}[plan.select]
    columns = min(3, len(keys))
    grid_rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * grid_rows), layout="constrained")
    axes = figure.subplots(grid_rows, columns, squeeze=False, sharey=True)
    for axis, key in zip(axes.flat, keys, strict=False):
        values = [config_lib.get(plan.trials[name], key) for name in found.names]
        numeric = all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
        options = sorted(set(map(str, values)))
        positions = values if numeric else [options.index(str(value)) for value in values]
        axis.errorbar(positions, score.mean(axis=1), score.std(axis=1), fmt="o", ms=4, lw=0.8, capsize=2, alpha=0.8)
        if numeric and min(values) > 0 and max(values) / min(values) >= 10:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())  # their labels would overlap
        if not numeric:
            axis.set_xticks(range(len(options)), options, rotation=20)
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(label)
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    figure.suptitle("mean and standard deviation over outer folds, on subjects inside their training sets", fontsize=9)
    data = {"trials": found.names, "folds": list(found.chosen), "score": score, "scored_by": label}
    data |= {"mean": score.mean(axis=1), "standard_deviation": score.std(axis=1)}
    data |= {"settings": keys, "values": [[_cell(plan, name, key) for key in keys] for name in found.names]}
    return drawing.Chart(figure, data)


def write(plan: trial_groups.Plan, found: Findings, folder: Path) -> list[Path]:
    """Write trials.csv and, if trials were chosen, the figure with its arrays; return their paths."""
    paths = [files.write_table(folder / "trials.csv", *table(plan, found))]
    with drawing.style():
        figure = chart(plan, found)
        return paths + (drawing.save(figure, folder / FIGURE)[0] if figure else [])
