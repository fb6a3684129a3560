"""The tables of a report as data frames, and their files for a paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from stag_jax.analysis import loaded
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.files import write_atomically
from stag_jax.protocol import calibration, metrics

SCORES = {"uf1": "UF1", "uar": "UAR", "accuracy": "accuracy", "weighted_f1": "weighted F1"}
DIGITS = 3


def headline(run: LoadedRun) -> pd.DataFrame:
    """Return each score with its 95% interval over subjects: mean over seeds, and of the seeds' mean probabilities."""
    clips, seeds = loaded.evaluation_set(run, run.predictions), loaded.seeds_apart(run)
    pooled = loaded.labels(run.predictions, run.classes, "prediction")
    rows = []
    for name, predictions in (("mean over seeds", seeds), ("seeds averaged", pooled[None])):
        if name == "mean over seeds" and len(seeds) == 1:
            continue
        estimates = metrics.mean_scores(clips.label, predictions, clips.classes)
        bounds = metrics.subject_bootstrap(clips, predictions)
        kind = name if len(seeds) > 1 else ""
        rows += [(kind, title, estimates[key], *bounds[key]) for key, title in SCORES.items()]
    return pd.DataFrame(rows, columns=["of", "score", "value", "low", "high"])


def confusion(run: LoadedRun) -> Int[np.ndarray, "k k2"]:
    """Count clips by true and predicted class, seeds averaged."""
    label, prediction = (loaded.labels(run.predictions, run.classes, column) for column in ("label", "prediction"))
    return metrics.confusion_matrix(label, prediction, len(run.classes))


def confusion_frame(counts: Int[np.ndarray, "k k2"], classes: Sequence[str]) -> pd.DataFrame:
    """Return the counts under the predicted classes, and the rate of each in its row."""
    frame = pd.DataFrame(counts, columns=list(classes))
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for index, name in enumerate(classes):
        frame[f"{name} rate"] = rates[:, index]
    frame.insert(0, "true", list(classes))
    return frame


def per_class(counts: Int[np.ndarray, "k k2"], classes: Sequence[str]) -> pd.DataFrame:
    """Return clips, precision, recall and F1 of each class; 0 where a class was never predicted."""
    hit, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return pd.DataFrame(
        {
            "class": list(classes),
            "clips": true,
            "predicted": predicted,
            "precision": hit / np.maximum(predicted, 1),
            "recall": hit / np.maximum(true, 1),
            "F1": 2 * hit / np.maximum(true + predicted, 1),
        }
    )


def per_corpus(run: LoadedRun) -> pd.DataFrame:
    """Return the scores of each corpus, seeds averaged, with the interval of UF1 over its subjects."""
    rows = []
    for name, frame in run.predictions.groupby("dataset", sort=True):
        clips, prediction = loaded.evaluation_set(run, frame), loaded.labels(frame, run.classes, "prediction")
        scores = metrics.mean_scores(clips.label, prediction, clips.classes)
        bounds = metrics.subject_bootstrap(clips, prediction)
        rows.append(
            (
                name,
                len(frame),
                frame["subject"].nunique(),
                scores["uf1"],
                *bounds["uf1"],
                scores["uar"],
                scores["accuracy"],
            )
        )
    return pd.DataFrame(rows, columns=["corpus", "clips", "subjects", "UF1", "low", "high", "UAR", "accuracy"])


def per_subject(run: LoadedRun) -> pd.DataFrame:
    """Return clips, hits and accuracy of each subject, lowest first, and the mean probability of the true class."""
    frame = run.predictions
    label, probability = loaded.labels(frame, run.classes), loaded.probabilities(frame, run.classes)
    frame = frame.assign(right=frame["label"] == frame["prediction"], own=probability[np.arange(len(label)), label])
    by_subject = frame.groupby("subject").agg(
        fold=("fold", lambda names: "|".join(sorted(set(names)))),
        clips=("id", "size"),
        right=("right", "sum"),
        accuracy=("right", "mean"),
        mean_probability_of_label=("own", "mean"),
    )
    return by_subject.reset_index().sort_values(["accuracy", "subject"], ignore_index=True)


def mistakes(run: LoadedRun) -> pd.DataFrame:
    """Return every clip with a wrong prediction, the most confident mistakes first."""
    frame = run.predictions
    label, probability = loaded.labels(frame, run.classes), loaded.probabilities(frame, run.classes)
    frame = frame.assign(p_predicted=probability.max(axis=1), p_label=probability[np.arange(len(label)), label])
    columns = ["id", "subject", "fold", "label", "prediction", "p_predicted", "p_label"]
    wrong = frame[frame["label"] != frame["prediction"]][columns]
    return wrong.sort_values(["p_predicted", "id"], ascending=[False, True], ignore_index=True)


def calibrated(run: LoadedRun) -> pd.DataFrame:
    """Return ECE, log loss and Brier score, seeds averaged."""
    label, probability = loaded.labels(run.predictions, run.classes), loaded.probabilities(run.predictions, run.classes)
    rows = [
        (f"expected calibration error, {calibration.BINS} bins", calibration.calibration_error(label, probability)),
        ("log loss", calibration.log_loss(label, probability)),
        ("Brier score", calibration.brier(label, probability)),
    ]
    return pd.DataFrame(rows, columns=["measure", "value"])


def action_units(run: LoadedRun) -> pd.DataFrame:
    """Return F1 and average precision of each action unit from metrics.json; empty without action units."""
    per_unit = run.metrics.get("au", {}).get("per_unit", {})
    rows = [
        (f"AU {unit}", scores["positives"], scores["clips"], scores["f1"], scores["average_precision"])
        for unit, scores in per_unit.items()
    ]
    return pd.DataFrame(rows, columns=["unit", "positives", "clips", "F1", "average precision"])


def write(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Write the frame as `<stem>.csv`, all digits, and as `<stem>.tex`, rounded, for a paper that loads booktabs."""
    paths = [stem.with_suffix(".csv"), stem.with_suffix(".tex")]
    with write_atomically(paths[0]) as temporary:
        frame.to_csv(temporary, index=False)
    with write_atomically(paths[1]) as temporary:
        frame.to_latex(temporary, index=False, escape=True, float_format=f"%.{DIGITS}f", na_rep="")
    return paths
