"""The comparison of `benchmark.py accuracy`: a run and plainer models on the same clips, folds and resamples."""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Float
from tqdm import tqdm

from stag_experiments import cli
from stag_experiments.benchmarks import output
from stag_jax.analysis import comparison
from stag_jax.config import Config
from stag_jax.corpora import dataset
from stag_jax.corpora.dataset import Corpus
from stag_jax.model.baselines import key_frame
from stag_jax.model.graph import mirror
from stag_jax.protocol.splits import ALL, Splits, make_splits
from stag_jax.training import loop, workdir
from stag_jax.types import ClipBatch, UserError

HIDDEN, EPOCHS = 64, 200


class AccuracyTable(NamedTuple):
    """All rows, and a line of how long it took."""

    rows: list[comparison.ComparedRow]
    clock: str


def define_flags() -> None:
    """Define the flags of `benchmark.py accuracy`."""
    cli.config_flag()
    cli.workdir_flag()
    flags.DEFINE_list("against", [], "Finished runs to compare with, by commas.")
    output.define_out("Folder for accuracy.csv, the table as numbers.")


def main() -> None:
    """Finish the run, compare, print the table."""
    check_installed()
    config = cli.read_config(flags.FLAGS["config"])
    cli.connect(config)
    run = cli.set_up(config, cli.read_workdir(flags.FLAGS["workdir"]))
    table = measure(*run, [Path(folder) for folder in flags.FLAGS.against])
    show(table)
    if folder := output.out_folder():
        print(comparison.write(table.rows, folder / "accuracy.csv"))


def show(table: AccuracyTable) -> None:
    """Print the comparison, and how long it took."""
    print(comparison.markdown(comparison.HEADER, map(comparison.cells, table.rows)))
    print(table.clock)


def check_installed() -> None:
    """Raises UserError where scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UserError(
            'the benchmark compares with scikit-learn, which the extra "test" brings: pip install -e ".[test]"'
        ) from error


def measure(
    config: Config, folder: Path, corpora: Path | Sequence[Path], against: Sequence[Path] = ()
) -> AccuracyTable:
    """Finishes the run of `config` in the workdir `folder` and compares it with classifiers and with other runs.

    Raises:
      UserError: whatever `loop.run` raises; one of `against` is no finished run, was split otherwise or is about other
        clips; or a fold's training clips are all of one class.
    """
    if config.protocol.split == ALL:
        raise UserError("config.protocol.split='all' tests no clip: there is nothing to compare")
    corpus = dataset.load(corpora, config)
    splits = make_splits(config.protocol, corpus.clips)
    tested = corpus.take(splits.test_mask.any(axis=0))
    others = [comparison.of_run(other, tested, config) for other in against]
    result = loop.run(config, folder, corpora)
    workdir.check_data(folder, corpus)
    begin = time.perf_counter()
    models = [comparison.of_run(folder, tested, config), *others, *_references(corpus, splits, config)]
    clock = (
        f"wall clock: {result['wall_s']:.0f} s of training, compiled in {result['compile_s']:.0f} s; "
        f"the classifiers {time.perf_counter() - begin:.0f} s"
    )
    return AccuracyTable(comparison.compare_all(models, tested, config), clock)


def _references(corpus: Corpus, splits: Splits, config: Config) -> list[comparison.ComparedModel]:
    """Plain classifiers of flattened node features, on the clips that are tested."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    def svm(seed: int) -> Any:
        return SVC(C=1, gamma="scale")

    def network(seed: int) -> Any:
        return MLPClassifier((HIDDEN,), max_iter=EPOCHS, random_state=seed)

    def oracle(seed: int) -> Any:
        return LogisticRegression(max_iter=EPOCHS * 10)

    key = _inputs(corpus, _key)
    plan = [("RBF SVM of the key frame", svm, (0,), key)]
    if (corpus.batch.frame_mask.sum(axis=1) > 1).any():
        plan.append(("RBF SVM of the key frame and the mean over frames", svm, (0,), _inputs(corpus, _mean_and_key)))
    plan.append((f"network of {HIDDEN} units of the key frame", network, config.seeds, key))
    au = corpus.batch.au * corpus.batch.au_mask
    if au.any():
        plan.append(("logistic regression of the annotated action units", oracle, (0,), (au, au)))
    classes = len(config.data.classes)
    return [
        comparison.ComparedModel(
            name, np.stack([_held_out(make, seed, inputs, corpus, splits, classes, name) for seed in seeds])
        )
        for name, make, seeds, inputs in plan
    ]


def _inputs(
    corpus: Corpus, cut: Callable[[ClipBatch], Float[np.ndarray, "b x"]]
) -> tuple[Float[np.ndarray, "b x"], Float[np.ndarray, "b x"]]:
    """What a classifier sees of the clips, and of their mirror images."""
    batch = jax.tree.map(jnp.asarray, corpus.batch)
    return cut(batch), cut(batch._replace(nodes=mirror(batch.nodes, corpus.graph)))


def _key(batch: ClipBatch) -> Float[np.ndarray, "b x"]:
    nodes = np.asarray(key_frame(batch).nodes)
    return nodes.reshape(len(nodes), -1)


def _mean_and_key(batch: ClipBatch) -> Float[np.ndarray, "b x"]:
    nodes, shown = np.asarray(batch.nodes), np.asarray(batch.frame_mask)
    mean = np.mean(nodes, axis=1, where=shown[:, :, None, None])
    return np.concatenate([mean.reshape(len(nodes), -1), _key(batch)], axis=1)


def _held_out(
    make: Callable[[int], Any],
    seed: int,
    inputs: tuple[np.ndarray, np.ndarray],
    corpus: Corpus,
    splits: Splits,
    classes: int,
    name: str,
) -> Float[np.ndarray, "b k"]:
    """Probabilities of the clips that are tested, 0 or 1 from a classifier without any, each from the fold that tests.

    The classifier and the scale of its inputs are learned from the fold's training clips and their mirror images.

    Raises:
      UserError: a fold whose training clips are all of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    plain, mirrored = inputs
    probability = np.zeros((len(plain), classes), np.float32)
    folds = zip(splits.names, splits.test_mask, splits.train_mask, strict=True)
    for held_out, test, train in tqdm(list(folds), desc=name, unit="fold"):
        if len(set(corpus.batch.label[train].tolist())) < 2:
            raise UserError(f"fold {held_out} has training clips of one class only, of which no classifier can learn")
        model = make_pipeline(StandardScaler(), make(seed))
        # Matrices are so small that threads would only wait for each other.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is meant
            model.fit(np.concatenate([plain[train], mirrored[train]]), np.tile(corpus.batch.label[train], 2))
        if hasattr(model, "predict_proba"):
            # Classes without a training clip have no column.
            probability[np.ix_(test, model.classes_)] = model.predict_proba(plain[test])
        else:
            probability[test] = np.eye(classes)[model.predict(plain[test])]
    return probability[splits.test_mask.any(axis=0)]
