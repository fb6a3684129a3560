"""A whole run: corpus, members, steps, predictions, files. Python owns the loop and nothing else."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from stag_jax.config import Config
from stag_jax.protocol import metrics as metrics_lib
from stag_jax.protocol import splits as splits_lib
from stag_jax.training import checkpoint, dataset, fold, loggers, members, workdir
from stag_jax.types import UserError


def run(config: Config, folder: Path, corpora: Path | Sequence[Path]) -> dict[str, Any]:
    """Trains and scores every fold of `config` on what is prepared in `corpora`, and returns the metrics.

    Everything is written to the workdir `folder`; what is there is gone on with, and a finished run is left as it is.

    Raises:
      UserError: the workdir belongs to another config or other data, the corpus cannot be used, or a loss is not
        finite; the line names the thing at fault.
    """
    workdir.check(folder, config)
    done = workdir.finished(folder)
    if done is not None:
        logging.warning("%s is finished; nothing to do", folder)
        return done

    corpus = dataset.load(corpora, config)
    splits = splits_lib.make_splits(config.protocol, corpus.clips)
    for name, missing in splits_lib.untrained_classes(splits, corpus.batch.label, config.data.classes):
        logging.warning("fold %s has no training clip of class %s and cannot predict it", name, missing)
    who = members.roster(splits, config.seeds)
    task = fold.make_task(config, corpus.graph, int(splits.train_mask.sum(axis=1).min()))
    # The workdir is taken only now, when all that could be wrong with the settings has had its say.
    workdir.claim(folder, config, corpus)
    study = members.build(task, corpus.batch, who, config.parallel)
    print(f"{len(corpus.ids)} clips, {len(splits.names)} folds; {study.layout}; compiled in {study.compile_s:.0f} s")

    states, elapsed = _train(config, folder, study, who)
    each = study.gather([{"params": state.params, "statistics": state.statistics} for state in states])
    for index, name in enumerate(splits.names):
        # One folder a fold; its leaves have a leading axis of seeds.
        seeds = np.arange(len(config.seeds)) * len(splits.names) + index
        checkpoint.save_fold(folder, name, jax.tree.map(lambda x, seeds=seeds: x[seeds], each))

    result = _score(config, folder, corpus, splits, who, study.predict(states))
    result |= _independence(splits, corpus.subjects)
    result |= {
        "n_subjects": len(set(corpus.subjects)),
        "n_folds": len(splits.names),
        "wall_s": round(elapsed, 3),
        "compile_s": round(study.compile_s, 3),
    }
    workdir.write_metrics(folder, result)
    return result


def _train(
    config: Config, folder: Path, study: members.Study, who: members.Roster
) -> tuple[list[fold.MemberState], float]:
    """All steps of all members, saved every few seconds; returns the final states and the seconds it took."""
    total, per_dispatch = config.train.steps, config.parallel.steps_per_dispatch
    with checkpoint.StateStore(folder, config.checkpoint.keep) as store:
        # Ways to start, in this order: 1. the newest checkpoint of this workdir; 2. from scratch.
        states = study.init()
        step, before = 0, 0.0
        latest = store.latest()
        if latest is not None:
            saved = store.load(latest, {"states": states, "elapsed_s": jnp.zeros(())})
            states, step, before = saved["states"], latest, float(saved["elapsed_s"])
            logging.warning("resuming at step %d of %d", step, total)
        start = last_save = time.perf_counter()
        log = loggers.RunLog(folder / workdir.LOG, step)
        with contextlib.closing(log), loggers.progress(total, step) as bar:
            while step < total:
                # Dispatches end at multiples of `per_dispatch`, so a resumed run takes the very same ones.
                count = min(per_dispatch - step % per_dispatch, total - step)
                states, metrics = study.train(states, count)
                step += count
                now = time.perf_counter()
                _check_finite(states, study, who)
                log.write(step, before + now - start, metrics)
                bar.update(count)
                bar.set_postfix(loss=f"{np.mean(metrics['loss']):.4f}", acc=f"{np.mean(metrics['train_accuracy']):.2f}")
                if step == total or now - last_save > config.checkpoint.every_s:
                    elapsed = jnp.asarray(before + now - start)
                    store.save(step, {"states": states, "elapsed_s": elapsed})
                    last_save = now
        return states, before + time.perf_counter() - start


def _check_finite(states: list[fold.MemberState], study: members.Study, who: members.Roster) -> None:
    bad = study.gather([state.bad_step for state in states])
    for index in np.flatnonzero(bad >= 0):
        raise UserError(f"loss is not finite at step {bad[index]} of fold {who.names[index]}")


def _independence(splits: splits_lib.Splits, subjects: Sequence[str]) -> dict[str, Any]:
    """Whether nobody is on both sides of a fold; where somebody is, how many are, fold by fold."""
    shared = splits_lib.shared_subjects(splits, subjects)
    if not any(shared):
        return {"subject_independent": True}
    return {"subject_independent": False, "shared_subjects": dict(zip(splits.names, map(len, shared), strict=True))}


def _score(
    config: Config,
    folder: Path,
    corpus: dataset.Corpus,
    splits: splits_lib.Splits,
    who: members.Roster,
    predicted: fold.Prediction,
) -> dict[str, Any]:
    """Writes what the members say of the clips that they did not see, and returns how good that is."""
    tested = splits.test_mask.any(axis=0)
    probability = _pool(np.asarray(jax.nn.softmax(predicted.logits)), who, tested)
    workdir.write_splits(folder, corpus, config.data.classes, splits)
    corpus = corpus.take(tested)
    classes, label = config.data.classes, corpus.batch.label
    workdir.write_predictions(folder, corpus, classes, config.seeds, probability)
    by_seed = probability.argmax(axis=-1)
    result = metrics_lib.report(
        label,
        probability.mean(axis=0).argmax(axis=-1),
        by_seed,
        corpus.subjects,
        corpus.datasets,
        classes,
        resamples=config.protocol.bootstrap,
    )
    if len(config.seeds) > 1:
        scores = (metrics_lib.mean_scores(label, each, len(classes)) for each in by_seed)
        result["per_seed"] = dict(zip(map(str, config.seeds), scores, strict=True))
    if corpus.batch.au_mask.any():
        of_seeds = _pool(np.asarray(jax.nn.sigmoid(predicted.au_logits)), who, tested)
        au = of_seeds.mean(axis=0)
        workdir.write_au_predictions(folder, corpus, au)
        result["au"] = metrics_lib.unit_report(corpus.batch.au, corpus.batch.au_mask, au, corpus.graph.units)
    return result


def _pool(
    each: Float[np.ndarray, "m j x"], who: members.Roster, tested: Bool[np.ndarray, " b"]
) -> Float[np.ndarray, "seed b2 x"]:
    """What the members say of the clips that are tested, from their padded test rows."""
    folds = int(who.members.fold.max()) + 1
    pooled = np.full((len(who.names) // folds, len(tested), each.shape[-1]), np.nan, np.float32)
    member, place = np.nonzero(who.test_mask)
    pooled[member // folds, who.test_rows[member, place]] = each[member, place]
    pooled = pooled[:, tested]
    if np.isnan(pooled).any():
        raise ValueError("a clip was predicted by no fold")
    return pooled


def summary(result: dict[str, Any]) -> str:
    """The short table at the end of a run: of the ensemble of seeds and, where there are several, of their mean."""
    rows = [f"{'':12}{'UF1':>8}{'UAR':>8}{'accuracy':>10}{'clips':>8}"]
    parts = {"all": result, **result["per_dataset"]}
    if len(result["per_dataset"]) == 1:
        del parts[next(iter(result["per_dataset"]))]
    for name, part in parts.items():
        rows.append(f"{name:12}{part['uf1']:8.3f}{part['uar']:8.3f}{part['accuracy']:10.3f}{part['n_clips']:8d}")
    low, high = result["ci95"]["uf1"]
    interval = f"UF1 95% interval over subjects: {low:.3f} to {high:.3f}"
    if "per_seed" in result:
        mean = result["mean_over_seeds"]
        uf1, uar, accuracy = (mean[name]["mean"] for name in ("uf1", "uar", "accuracy"))
        rows.insert(2, f"{'seed mean':12}{uf1:8.3f}{uar:8.3f}{accuracy:10.3f}{result['n_clips']:8d}")
        low, high = mean["uf1"]["ci95"]
        interval += f"; of the mean over {len(result['per_seed'])} seeds: {low:.3f} to {high:.3f}"
    rows.append(interval)
    if not result["subject_independent"]:
        most = max(result["shared_subjects"].values())
        rows.append(f"NOT subject-independent: up to {most} of {result['n_subjects']} subjects on both sides of a fold")
    if "au" in result and result["au"]["mean_f1"] is not None:
        scored = [unit for unit in result["au"]["per_unit"].values() if unit["f1"] is not None]
        rows.append(f"mean F1 of {len(scored)} action units: {result['au']['mean_f1']:.3f}")
    rows.append(f"confusion (rows true, {', '.join(result['classes'])}): {json.dumps(result['confusion'])}")
    return "\n".join(rows)
