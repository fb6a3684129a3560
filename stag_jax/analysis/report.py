"""The report of a run: what a careful paper needs, put together from the files of a workdir."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stag_jax import config as config_lib
from stag_jax.analysis import (
    attributions,
    audit,
    charts,
    drawing,
    embedding,
    loaded,
    optimism,
    page,
    reasons,
    tables,
    thumbnails,
    versus,
)
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.corpora import dataset, features
from stag_jax.protocol import calibration
from stag_jax.training import workdir
from stag_jax.types import UserError

REPORT = "report"
MISTAKES = 12  # shown with their frames; the table has all
NETWORKS = 3  # folds whose view of all clips is asked for subjects
STATUS = {"ok": "", "not checked": "", "warning": "mark", "leak": "mark"}


def write(
    run: LoadedRun, corpora: Path | Sequence[Path], *, against: LoadedRun | None = None, quiet: bool = False
) -> list[Path]:
    """Writes `<workdir>/report`: index.html, and its figures and tables one by one (docs/report.md); returns the paths.

    Of an unfinished run, or one with missing folds, it reports what is there, and says what is not.

    Args:
      run: the run.
      corpora: where its corpora were prepared.
      against: another run on the same clips.
      quiet: no progress bar.

    Raises:
      UserError: other data than the run's; `against` is about other clips.
    """
    corpora = [corpora] if isinstance(corpora, Path) else list(corpora)
    # Once for all sections: each time would hash the whole corpus again.
    prepared = [features.prepare(folder, run.config) for folder in corpora]
    everything = dataset.assemble(corpora, prepared, run.config)
    workdir.check_data(run.folder, everything)
    corpus = everything.take(np.isin(everything.ids, run.predictions["id"]))
    found = attributions.collect(run, corpus, quiet=quiet)
    small = thumbnails.make(corpora, prepared, corpus.ids)
    head = tables.headline(run)
    with drawing.style():
        sections = [
            _results(run, head),
            _subjects(run),
            _calibration(run),
            *_training(run),
            *([_comparison(run, against)] if against else []),
            _audit(run, everything, small, found),
            _mistakes(run, small),
            *reasons.sections(run, corpora, prepared, found),
            *_embedding(run, corpus),
            _provenance(run),
        ]
    return page.write(
        page.Page(
            title=f"{run.config.model.name} on {run.config.data.dataset}",
            subtitle=_subtitle(run),
            big=[
                (row.score, row.value, row.low, row.high)
                for row in head.itertuples()
                if row.of in ("", "mean over seeds") and row.score != tables.SCORES["weighted_f1"]
            ],
            banners=_banners(run, found),
            sections=sections,
        ),
        run.folder / REPORT,
    )


def _subtitle(run: LoadedRun) -> str:
    frame, seeds = run.predictions, run.by_seed["seed"].nunique()
    return (
        f"{len(frame)} clips of {frame['subject'].nunique()} subjects, {len(run.classes)} classes; protocol "
        f"{run.config.protocol.split}, {frame['fold'].nunique()} folds, {seeds} seed{'s' * (seeds > 1)}; "
        f"{run.config.train.steps} steps"
    )


def _banners(run: LoadedRun, found: attributions.Evidence | None) -> list[str]:
    lines = []
    if run.partial:
        lines.append(
            f"PARTIAL: the run is not finished ({run.partial}). Scores are those after its last recorded dispatch; "
            "networks are exported at the end, so nothing is explained here."
        )
    if run.missing:
        lines.append(f"Missing folds, whose clips are not explained: {', '.join(run.missing)}.")
    for name in run.changed:
        lines.append(f"{name} is not the file that the run wrote: it was changed afterwards, or is gone.")
    if found and found.differing:
        some = ", ".join(found.differing[:5])
        lines.append(f"The networks do not say what predictions.csv says of {len(found.differing)} clips: {some}.")
    if run.metrics and not run.metrics["subject_independent"]:
        lines.append("NOT subject-independent: clips of one subject were trained on and tested in the same fold.")
    return lines


def _results(run: LoadedRun, head: pd.DataFrame) -> page.Section:
    counts = tables.confusion(run)
    blocks: list[page.Block] = [
        page.Table("headline", _tidy(head), "All held-out clips pooled; 95% bootstrap over subjects."),
        page.Figure(
            "confusion",
            charts.confusion_figure(counts, run.classes),
            "Clips by true and predicted class, seeds averaged: counts, and the rate of each true class.",
        ),
        page.Table("confusion", tables.confusion_frame(counts, run.classes), "The same as numbers."),
        page.Table("per_class", tables.per_class(counts, run.classes), "Each class."),
    ]
    if run.predictions["dataset"].nunique() > 1:
        blocks.append(
            page.Table("per_corpus", tables.per_corpus(run), "Each corpus, seeds averaged; the interval is of UF1.")
        )
    units = tables.action_units(run)
    if len(units):
        blocks.append(page.Table("action_units", units, "Action units, over the clips whose label of them is known."))
    return page.Section("Results", blocks)


def _tidy(head: pd.DataFrame) -> pd.DataFrame:
    return head if (head["of"] != "").any() else head.drop(columns="of")


def _subjects(run: LoadedRun) -> page.Section:
    frame = tables.per_subject(run)
    return page.Section(
        "Subjects",
        [
            page.Figure("subjects", charts.subject_figure(frame), "Accuracy of each subject's clips, seeds averaged."),
            page.Table("per_subject", frame, "Every subject, the hardest first."),
        ],
    )


def _calibration(run: LoadedRun) -> page.Section:
    label, probability = loaded.labels(run.predictions, run.classes), loaded.probabilities(run.predictions, run.classes)
    bins = calibration.reliability(label, probability)
    error = calibration.calibration_error(label, probability)
    return page.Section(
        "Calibration",
        [
            page.Figure(
                "calibration",
                charts.calibration_figure(bins, error),
                "Whether it is as often right as it is sure; seeds averaged.",
            ),
            page.Table("calibration", tables.calibrated(run), "Of held-out clips; nothing was fitted to them."),
        ],
    )


def _training(run: LoadedRun) -> list[page.Section]:
    past = run.history
    if past is None:
        return [
            page.Section("Learning curves", [page.Note("Nothing was recorded along the way (checkpoint.history).")])
        ]
    names = sorted(set(run.predictions["fold"]))
    fold = run.predictions["fold"].map(names.index).to_numpy(int)
    label = loaded.labels(run.predictions, run.classes)
    claims = optimism.table(run)
    frame = pd.DataFrame(claims.rows, columns=optimism.OptimismRow._fields)
    frame = frame.assign(mark=~frame.pop("honest")).rename(columns=tables.SCORES | {"name": "scored by"})
    return [
        page.Section(
            "Learning curves",
            [
                page.Figure(
                    "learning",
                    charts.learning_figure(past, label, fold, names),
                    "All folds, seeds averaged. Folds that end far above the others are named. Held-out clips were "
                    "looked at for this picture only.",
                )
            ],
        ),
        page.Section(
            "What this run could have claimed",
            [
                page.Note(
                    "Not for publication. Figures that this same run would have reported had it chosen its epoch on "
                    "the test subjects, or averaged over folds; to hold an honest figure against one so obtained.",
                    "warning",
                ),
                page.Table(
                    "optimism",
                    frame,
                    "Means over seeds, from what was recorded every "
                    f"{run.config.parallel.steps_per_dispatch} steps; the first row is the honest one. Excess: UF1 "
                    "above it. Averaged over folds with absent classes as 0, a perfect classifier would have "
                    f"{claims.ceiling:.3f}.",
                    signed=("excess",),
                ),
            ],
        ),
    ]


def _comparison(run: LoadedRun, other: LoadedRun) -> page.Section:
    found = versus.compare_runs(run, other)
    scores = pd.DataFrame(
        [(tables.SCORES[name], *each) for name, each in found.differences.items()],
        columns=["score", "difference", "low", "high", "p"],
    )
    classes = pd.DataFrame(
        [(name, measure, *each) for name, pair in found.per_class.items() for measure, each in pair._asdict().items()],
        columns=["class", "measure", "difference", "low", "high", "p"],
    )
    signed = ("difference", "low", "high")
    first, second = found.names
    blocks: list[page.Block] = [
        *(page.Note(text, "warning") for text in found.warnings),
        page.Note(found.verdict, "verdict"),
        page.Figure(
            "difference",
            charts.difference_figure(scores["score"], scores["difference"], scores["low"], scores["high"]),
            f"{first} less {second}.",
        ),
        page.Table(
            "difference",
            scores,
            f"{first} less {second}, mean over seeds; 95% paired bootstrap over subjects; p: share of the resamples in "
            "which the first is no better.",
            signed=signed,
        ),
        page.Table("difference_per_class", classes, "The same of each class.", signed=signed),
        page.Note(
            f"McNemar, exact, seeds averaged: only {first} is right on {found.mcnemar.only_first} clips, only {second} "
            f"on {found.mcnemar.only_second}; p = {found.mcnemar.p:.4g}. It takes clips as independent, which those of "
            "one subject are not: the interval above is the one to trust."
        ),
    ]
    if found.changes:
        rows = pd.DataFrame([(key, str(a), str(b)) for key, a, b in found.changes], columns=["setting", first, second])
        blocks.append(page.Table("settings", rows, "Settings that differ."))
    return page.Section("Comparison", blocks)


def _audit(
    run: LoadedRun, corpus: dataset.Corpus, small: dict[str, thumbnails.Thumbnail], found: attributions.Evidence | None
) -> page.Section:
    tiles = {name: each.picture for name, each in small.items() if not each.flow_only}
    rows = []
    for each in audit.audit(run, corpus, tiles or None):
        where = ", ".join(each.where[:5]) + (f" and {len(each.where) - 5} more" if len(each.where) > 5 else "")
        rows.append((each.name, each.status, each.text, where, bool(STATUS[each.status])))
    if found is not None:
        text = "the exported networks give the probabilities of predictions.csv on the clips they hold out"
        some = ", ".join(found.differing[:5])
        rows.append(("networks", "warning" if found.differing else "ok", text, some, bool(found.differing)))
    frame = pd.DataFrame(rows, columns=["check", "status", "what was found", "where", "mark"])
    return page.Section("Audit", [page.Table("audit", frame, "Ways in which held-out clips could have had a say.")])


def _mistakes(run: LoadedRun, small: dict[str, thumbnails.Thumbnail]) -> page.Section:
    frame = tables.mistakes(run)
    shown = [row for row in frame.itertuples() if row.id in small][:MISTAKES]
    blocks: list[page.Block] = [
        page.Note(f"{len(frame)} of {len(run.predictions)} clips were taken for another class.")
    ]
    if shown:
        items = [
            (
                small[row.id].data,
                (row.id, f"{row.label}, taken for {row.prediction} ({row.p_predicted:.2f} against {row.p_label:.2f})"),
            )
            for row in shown
        ]
        flows = (
            "Motion from onset to apex in colour, and its strain."
            if small[shown[0].id].flow_only
            else ("First frame with regions, frame of largest movement, and that movement in colour.")
        )
        data = {"ids": [row.id for row in shown]}
        data |= {f"picture_{index:02d}": small[row.id].picture for index, row in enumerate(shown)}
        blocks.append(page.Pictures("mistakes", items, f"The surest of them. {flows}", data))
    blocks.append(page.Table("mistakes", frame, "All of them, the surest first."))
    return page.Section("Mistakes", blocks)


def _embedding(run: LoadedRun, corpus: dataset.Corpus) -> list[page.Section]:
    names = sorted(set(run.folds) & set(run.predictions["fold"]))
    if not names:
        return []
    chosen = [
        names[index] for index in np.unique(np.linspace(0, len(names) - 1, min(NETWORKS, len(names))).astype(int))
    ]
    found = attributions.features(run, chosen, corpus)
    label = corpus.batch.label
    shown = corpus.batch.frame_mask[:, :, None, None]
    raw = (corpus.batch.nodes * shown).sum(axis=1).reshape(len(label), -1) / shown.sum(axis=1).reshape(len(label), -1)
    seen = {"what goes in: node features, mean over frames": raw}
    seen |= {f"network of fold {name}": each for name, each in found.items()}
    try:
        rows = [(name, *embedding.leak(each, corpus.subjects, label)) for name, each in seen.items()]
    except UserError as error:
        return [page.Section("Embedding of clips", [page.Note(f"{error}.")])]
    frame = pd.DataFrame(
        rows, columns=["clips as seen by", *(name.replace("_", " ") for name in embedding.Leak._fields)]
    )
    points = embedding.project(found[chosen[0]])
    drawn = charts.embedding_figure(points, label, run.classes, corpus.subjects, corpus.ids)
    return [
        page.Section(
            "Embedding of clips",
            [
                page.Figure(
                    "embedding",
                    drawn,
                    f"All clips as the classifier of fold {chosen[0]} sees them, on their two principal components. It "
                    "was trained on all of them but those of its own fold.",
                ),
                page.Table(
                    "subject_leak",
                    frame,
                    "How well the nearest clip tells the subject, and the nearest clip of another subject the emotion: "
                    "balanced accuracy, 0 at chance and 1 at best, then as it is. The networks were trained on the "
                    "emotions of these clips (not of those of their own fold) and never told a subject.",
                ),
            ],
        )
    ]


def _provenance(run: LoadedRun) -> page.Section:
    about = {key: value for key, value in run.about.items() if not isinstance(value, dict | list)}
    rows = [(key.replace("_", " "), str(value)) for key, value in about.items()]
    rows += [(name, version) for name, version in run.about.get("packages", {}).items()]
    rows += [("seeds", ", ".join(map(str, run.config.seeds))), ("devices", ", ".join(run.about.get("devices", [])))]
    if run.metrics:
        rows += [
            (f"{name} (s)", str(run.metrics[name])) for name in ("wall_s", "compile_s", "save_s") if name in run.metrics
        ]
    settings = json.dumps(config_lib.to_dict(run.config), indent=2)
    settings = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", settings)
    return page.Section(
        "Provenance",
        [
            page.Table("provenance", pd.DataFrame(rows, columns=["what", "value"]), "What this run was made with."),
            page.Note("All settings", "fold", settings),
        ],
    )
