"""Two runs compared on the same clips: their difference, its uncertainty, and the settings that differ."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stag_jax import config as config_lib
from stag_jax.analysis import audit, loaded
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.protocol import compare
from stag_jax.training import workdir
from stag_jax.types import UserError

ONCE = ("label", "subject")  # columns that must be the same in both runs
FEATURES = ("data", "face", "motion", "graph", "model.strain")  # settings that change the network's input


class Change(NamedTuple):
    """A setting that differs."""

    key: str  # dotted
    first: Any
    second: Any


class Comparison(NamedTuple):
    """The difference of two runs: the first less the second."""

    names: tuple[str, str]
    clips: int
    seeds: tuple[int, int]
    differences: dict[str, compare.Difference]  # by score, mean over seeds
    per_class: dict[str, compare.ClassDifference]  # by class, mean over seeds
    mcnemar: compare.McNemar  # of the predictions averaged over seeds
    verdict: str  # on UF1, in one sentence
    changes: tuple[Change, ...]  # without those of `workdir.FREE`, which do not change the result
    warnings: tuple[str, ...]  # why the comparison may be unfair; empty if it is fair


def compare_runs(first: LoadedRun, second: LoadedRun, *, resamples: int | None = None, seed: int = 0) -> Comparison:
    """Compare two runs that tested the same clips.

    Args:
      first: a run.
      second: another run.
      resamples: number of resamples of subjects, for the intervals; None: as in the config of the first run.
      seed: of the resamples.

    Raises:
      UserError: the runs have other classes, clips, labels or subjects, and the first that differs is named; or a clip
        is in a table twice, or not for every seed.
    """
    if first.classes != second.classes:
        raise UserError(
            f"config.data.classes is {', '.join(first.classes)} in {first.folder} and "
            f"{', '.join(second.classes)} in {second.folder}"
        )
    tables = [_by_id(run) for run in (first, second)]
    tables[1] = _matched(first, second, *tables)
    ids, classes = tables[0].index, first.classes
    predictions = [_seeds_apart(run)[:, pd.Index(run.predictions["id"]).get_indexer(ids)] for run in (first, second)]
    names = _names(first, second)
    clips = loaded.evaluation_set(first, tables[0])
    clips = clips._replace(resamples=resamples or clips.resamples, seed=seed)
    differences = compare.paired_bootstrap(clips, *predictions)
    verdict_args = differences["uf1"], *names
    if differences["uf1"].mean < 0:  # the better one first, as `verdict` requires
        swapped = compare.paired_bootstrap(clips, *predictions[::-1])
        verdict_args = swapped["uf1"], *names[::-1]
    changes = tuple(_changes(first, second))
    return Comparison(
        names=names,
        clips=len(clips.label),
        seeds=(len(predictions[0]), len(predictions[1])),
        differences=differences,
        per_class=dict(zip(classes, compare.class_differences(clips, *predictions), strict=True)),
        mcnemar=compare.mcnemar(clips.label, *(loaded.labels(table, classes, "prediction") for table in tables)),
        verdict=compare.verdict(*verdict_args, resamples=clips.resamples),
        changes=changes,
        warnings=tuple(_warnings(first, second, tables, changes)),
    )


def _by_id(run: LoadedRun) -> pd.DataFrame:
    """Return the predictions indexed by clip."""
    ids = run.predictions["id"]
    if ids.duplicated().any():
        raise UserError(f"{run.folder / workdir.PREDICTIONS}: clip {ids[ids.duplicated()].iloc[0]} is there twice")
    return run.predictions.set_index("id")


def _matched(first: LoadedRun, second: LoadedRun, one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the second table with its rows in the order of the first."""
    for table, counterpart, run, other_run in ((one, other, first, second), (other, one, second, first)):
        if len(unmatched := table.index.difference(counterpart.index)):
            raise UserError(f"clip {unmatched[0]} is tested in {run.folder} and not in {other_run.folder}")
    other = other.loc[one.index]
    for column in ONCE:
        differs = one[column].astype(str) != other[column].astype(str)
        if differs.any():
            clip = one.index[differs][0]
            raise UserError(
                f"clip {clip} has {column} {one.loc[clip, column]} in {first.folder} and {other.loc[clip, column]} in "
                f"{second.folder}"
            )
    return other


def _seeds_apart(run: LoadedRun) -> np.ndarray:
    """Return `loaded.seeds_apart`: int [seed, b]; raise UserError for missing or repeated clips."""
    ids = run.predictions["id"]
    for number, frame in run.by_seed.groupby("seed", sort=False):
        absent, twice = ids[~ids.isin(frame["id"])], frame["id"][frame["id"].duplicated()]
        if len(absent) or len(twice):
            problem = f"{twice.iloc[0]} twice" if len(twice) else f"{absent.iloc[0]} not at all"
            raise UserError(f"{run.folder / workdir.BY_SEED}: seed {number} has clip {problem}")
    return loaded.seeds_apart(run)


def _names(first: LoadedRun, second: LoadedRun) -> tuple[str, str]:
    if first.folder.name == second.folder.name:
        return str(first.folder), str(second.folder)
    return first.folder.name, second.folder.name


def _changes(first: LoadedRun, second: LoadedRun) -> list[Change]:
    first_settings, second_settings = (dict(_flat(config_lib.to_dict(run.config))) for run in (first, second))
    return [
        Change(key, first_settings.get(key), second_settings.get(key))
        for key in first_settings | second_settings
        if first_settings.get(key) != second_settings.get(key) and not _under(key, workdir.FREE)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, value) of every setting, in order."""
    pairs = []
    for key, value in tree.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def _under(key: str, groups: tuple[str, ...]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _warnings(
    first: LoadedRun, second: LoadedRun, tables: list[pd.DataFrame], changes: tuple[Change, ...]
) -> list[str]:
    warnings = [f"{run.folder} is not finished: {run.partial}" for run in (first, second) if run.partial]
    warnings += [f"{run.folder}: {name} was changed after the run" for run in (first, second) for name in run.changed]
    one, other = tables
    all_ids = sorted(set(first.splits["id"].astype(str)) | set(second.splits["id"].astype(str)))
    trained_on = [_trained_on(run, table, all_ids) for run, table in ((first, one), (second, other))]
    differs = (trained_on[0] != trained_on[1]).any(axis=1)
    renamed = (one["fold"].astype(str) != other["fold"].astype(str)).to_numpy()
    if differs.any():
        clip = one.index[differs][0]
        warnings.append(
            f"{differs.sum()} of {len(one)} clips were predicted by networks that were trained on other clips: {clip} "
            f"in fold {one.loc[clip, 'fold']} of {first.folder} and {other.loc[clip, 'fold']} of {second.folder}"
        )
    elif renamed.any():
        clip = one.index[renamed][0]
        warnings.append(
            f"folds have other names and the same clips: {clip} is tested in {one.loc[clip, 'fold']} of {first.folder} "
            f"and in {other.loc[clip, 'fold']} of {second.folder}"
        )
    fingerprints = [run.about.get("data_fingerprint") for run in (first, second)]
    if fingerprints[0] != fingerprints[1] and not any(_under(change.key, FEATURES) for change in changes):
        warnings.append("the features of the clips differ, and no setting says why: the corpora were prepared apart")
    return warnings


def _trained_on(run: LoadedRun, table: pd.DataFrame, everyone: list[str]) -> Bool[np.ndarray, "b b2"]:
    """Return, for each clip in `table`, on which of `everyone` the networks that predicted it were trained."""
    splits, position = audit.folds_of(run.splits), {name: index for index, name in enumerate(everyone)}
    # One extra row, all False, for a clip whose fold splits.csv does not name.
    trained = np.zeros((len(splits.names) + 1, len(everyone)), bool)
    trained[:-1, [position[name] for name in run.splits["id"].astype(str)]] = splits.train_mask
    index = {name: fold for fold, name in enumerate(splits.names)}
    return trained[[index.get(fold, -1) for fold in table["fold"].astype(str)]]
