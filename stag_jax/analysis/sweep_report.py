"""What a sweep has found: the nested result, every trial's scores, and each setting against the inner score."""

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
from stag_jax.training import hosts, outcome, trials, workdir
from stag_jax.types import UserError

NESTED, CHOSEN, FIGURE = "nested", "chosen.csv", "inner_scores"


class Findings(NamedTuple):
    """All of a sweep, trials in the order of the plan."""

    names: tuple[str, ...]
    rows: list[comparison.ComparedRow]  # outer scores of each trial, compared with the first
    scores: nested.Scores | None  # None where nothing was chosen
    chosen: dict[str, str]  # trial of each outer fold; empty where nothing was chosen
    results: dict[str, dict[str, Any]]  # metrics of each trial
    nested: dict[str, Any] | None  # metrics of the nested result


def collect(
    plan: trials.Plan,
    groups: Sequence[trials.Group],
    results: Mapping[str, trials.GroupResult],
    folder: Path,
    corpora: Path | Sequence[Path],
) -> Findings:
    """Scores every trial and the nested choice, and writes each as a workdir of its own.

    `trials/<name>/` is a run with the trial's settings; `nested/` holds the predictions of whatever trial was chosen
    for each fold on inner subjects of its training set.

    Raises:
      UserError: the trials do not see the same clips.
    """
    corpus = hosts.in_turn(lambda: dataset.load(corpora, plan.settings))
    # Trials may differ in their features too, and each workdir notes the data of its own.
    shown = {_features(plan.settings): corpus}
    for config in plan.trials.values():
        if _features(config) not in shown:
            shown[_features(config)] = hosts.in_turn(lambda config=config: dataset.load(corpora, config))
    splits = make_splits(plan.settings.protocol, corpus.clips)
    found = {name: (results[group.name], index) for group in groups for index, name in enumerate(group.tuned)}
    names = tuple(plan.trials)
    for name in names:
        if shown[_features(plan.trials[name])].ids != corpus.ids:
            raise UserError(f"trial {name} sees other clips than the settings of the sweep do")

    def of(name: str, field: str) -> Float[np.ndarray, "..."]:
        result, index = found[name]
        return getattr(result, field)[index]

    scores, chosen = None, {}
    if plan.inner_folds:
        scores = nested.Scores(*(np.stack([of(name, f"inner_{key}") for name in names]) for key in nested.SELECT))
        best = nested.choose(scores, plan.select)
        chosen = {fold: names[index] for fold, index in zip(splits.names, best, strict=True)}
        trials.export_chosen(groups, chosen, folder)

    def write() -> Findings:
        metrics, models = {}, []
        tested = splits.test_mask.any(axis=0)
        for name in names:
            place, config = trials.trial_folder(folder, name), plan.trials[name]
            probability = of(name, "probability")
            own, au = shown[_features(config)], of(name, "au_probability")
            metrics[name] = _score(config, place, own, splits, probability, au)
            models.append(comparison.ComparedModel(name, probability[:, tested]))
        rows = comparison.compare_all(models, corpus.take(tested), plan.settings)[: len(names)]
        together = None
        if chosen:
            probability, au = (_by_choice(field, of, chosen, splits) for field in ("probability", "au_probability"))
            together = _score(plan.settings, folder / NESTED, corpus, splits, probability, au)
            table = [
                [name, trial, scores.uf1[names.index(trial), number], scores.log_loss[names.index(trial), number]]
                for number, (name, trial) in enumerate(chosen.items())
            ]
            files.write_table(folder / NESTED / CHOSEN, ["fold", "trial", "inner_uf1", "inner_log_loss"], table)
        return Findings(names, rows, scores, chosen, metrics, together)

    return hosts.in_turn(lambda: write() if hosts.first() else Findings(names, [], scores, chosen, {}, None))


def _features(config: Config) -> tuple[Any, ...]:
    """What the clips of a config, and their features, follow from."""
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
    """Of each clip what the trial says that was chosen for the fold that tests it."""
    pooled = np.full_like(of(next(iter(chosen.values())), field), np.nan)
    for trial, test in zip(chosen.values(), splits.test_mask, strict=True):
        pooled[:, test] = of(trial, field)[:, test]
    return pooled


def table(plan: trials.Plan, found: Findings) -> tuple[list[str], list[list[str]]]:
    """One row a trial, in the order of the plan: header and cells of trials.csv."""
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
        # The comparison is of the first less the trial; here it is the other way round.
        far = row.difference
        cells += [_digits(-value) for value in (far.mean, far.high, far.low)] if far else ["", "", ""]
        rows.append(cells)
    return header, rows


def _keys(plan: trials.Plan) -> list[str]:
    return list(dict.fromkeys(key for changes in plan.changed.values() for key in changes))


def _cell(plan: trials.Plan, name: str, key: str) -> str:
    return str(config_lib.get(plan.trials[name], key))


def _digits(value: float) -> str:
    return f"{value + 0.0:.6f}"


def ranked(plan: trials.Plan, found: Findings, most: int = 20) -> str:
    """The trials as a short table, best first: by the inner score, or by the outer one where nothing was chosen."""
    header, rows = table(plan, found)
    by = {"uf1": "inner_uf1", "log_loss": "inner_log_loss"}[plan.select] if found.scores else "uf1"
    sign = 1 if by == "inner_log_loss" else -1
    order = sorted(rows, key=lambda row: (sign * float(row[header.index(by)]), row[0]))
    shown = [[cell if "." not in cell[-7:] else _rounded(cell) for cell in row] for row in order[:most]]
    return comparison.markdown(header, shown)


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def verdict(plan: trials.Plan, found: Findings) -> str:
    """The lines that a paper may quote, and the one that it may not."""
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


def chart(plan: trials.Plan, found: Findings) -> drawing.Chart | None:
    """Each setting that varies against the inner validation score of the trials, mean and spread over outer folds.

    None where nothing was chosen or nothing varies.
    """
    keys = _keys(plan)
    if not found.scores or not keys:
        return None
    score = getattr(found.scores, plan.select)
    label = {"uf1": "inner UF1", "log_loss": "inner log loss"}[plan.select]
    columns = min(3, len(keys))
    lines = -(-len(keys) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axis, key in zip(axes.flat, keys, strict=False):
        values = [config_lib.get(plan.trials[name], key) for name in found.names]
        numbers = all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
        kinds = sorted(set(map(str, values)))
        where = values if numbers else [kinds.index(str(value)) for value in values]
        axis.errorbar(where, score.mean(axis=1), score.std(axis=1), fmt="o", ms=4, lw=0.8, capsize=2, alpha=0.8)
        if numbers and min(values) > 0 and max(values) / min(values) >= 10:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())  # their labels would overlap
        if not numbers:
            axis.set_xticks(range(len(kinds)), kinds, rotation=20)
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    for line in axes:
        line[0].set_ylabel(label)
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    figure.suptitle("mean and standard deviation over outer folds, on subjects inside their training sets", fontsize=9)
    data = {"trials": found.names, "folds": list(found.chosen), "score": score, "scored_by": label}
    data |= {"mean": score.mean(axis=1), "standard_deviation": score.std(axis=1)}
    data |= {"settings": keys, "values": [[_cell(plan, name, key) for key in keys] for name in found.names]}
    return drawing.Chart(figure, data)


def write(plan: trials.Plan, found: Findings, folder: Path) -> list[Path]:
    """Writes trials.csv and, where something was chosen, the figure with its arrays; returns their paths."""
    paths = [files.write_table(folder / "trials.csv", *table(plan, found))]
    with drawing.style():
        drawn = chart(plan, found)
        return paths + (drawing.save(drawn, folder / FIGURE)[0] if drawn else [])
