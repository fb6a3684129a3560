"""Train the trials of a sweep in few programs: trials that differ only in numbers are members of one program."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from stag_jax import config as config_lib
from stag_jax import files
from stag_jax.config import Config
from stag_jax.model import network
from stag_jax.model.network import Outputs
from stag_jax.protocol import nested
from stag_jax.protocol.splits import ALL
from stag_jax.training import checkpoint, hosts, lock, naming, stepping, validation, workdir
from stag_jax.training import study as study_lib
from stag_jax.training.roster import by_fold
from stag_jax.types import UserError

PLAN, RESULT, GROUPS, BEST, TRIALS = "sweep.json", "result.npz", "groups", "best", "trials"


class Plan(NamedTuple):
    """All settings of a sweep."""

    settings: Config  # base config of the trials
    trials: dict[str, Config]  # by name, in order
    changed: dict[str, dict[str, Any]]  # for each trial, the settings that it changes, by dotted key
    inner_folds: int  # 0: no selection
    select: str  # one of `nested.SELECT`
    export_all: bool  # export the folds of every trial, not only the selected ones


class Group(NamedTuple):
    """Trials that are trained in one program."""

    name: str
    config: Config
    tuned: dict[str, dict[str, float]]  # for each trial, the numbers that differ between trials


class GroupResult(NamedTuple):
    """Predictions and scores of held-out clips by the members of a group."""

    probability: Float[np.ndarray, "trial seed b k"]  # NaN for untested clips
    au_probability: Float[np.ndarray, "trial seed b u"]
    inner_uf1: Float[np.ndarray, "trial s"]  # s = 0 without selection
    inner_log_loss: Float[np.ndarray, "trial s"]
    best: Int[np.ndarray, " s"]  # index of the trial whose fold was kept


def make_groups(plan: Plan) -> list[Group]:
    """Group trials by program: those of one group differ only in `config.tunable_keys`. In order of first trials.

    A group's name depends only on its settings.
    """
    keys = config_lib.tunable_keys()
    grouped: dict[str, dict[str, Config]] = {}
    for name, config in plan.trials.items():
        tree = config_lib.to_dict(config_lib.replace(config, dict.fromkeys(keys, 0.0)))
        for free in workdir.FREE:
            *parents, last = free.split(".")
            del functools.reduce(dict.__getitem__, parents, tree)[last]
        digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
        grouped.setdefault(f"group_{digest}", {})[name] = config
    groups = []
    for name, trials in grouped.items():
        differing = [key for key in keys if len({config_lib.get(config, key) for config in trials.values()}) > 1]
        tuned = {trial: {key: config_lib.get(config, key) for key in differing} for trial, config in trials.items()}
        groups.append(Group(name, next(iter(trials.values())), tuned))
    return groups


def check(folder: Path, plan: Plan) -> None:
    """Check the settings of all trials, and that the folder does not belong to another sweep.

    Raises:
      UserError: a trial has a wrong setting, or trials could not be compared; or the folder belongs to another sweep.
    """
    if plan.inner_folds < 0 or plan.inner_folds == 1:
        raise UserError(f"a sweep's `inner_folds` must be 0, or 2 or more, got {plan.inner_folds}")
    for name, config in plan.trials.items():
        try:
            validation.validate(config)
        except UserError as error:
            raise UserError(f"trial {name}: {error}") from error
        if config.protocol.split == ALL:
            raise UserError(f"trial {name} has config.protocol.split='all', which tests nothing to compare trials by")
        if config.distil.teacher and plan.inner_folds:
            raise UserError(
                f"trial {name} has a teacher, whose networks have seen the subjects of inner folds: use inner_folds=0"
            )
    if (folder / PLAN).exists():
        workdir.check_same(folder / PLAN, _about(plan), "sweep")


@contextlib.contextmanager
def claimed(folder: Path, plan: Plan) -> Iterator[None]:
    """Claim the folder for this sweep; release it if the sweep fails with a UserError before any result.

    Raises:
      UserError: as `check` does, and errors of the block.
    """
    check(folder, plan)
    path = folder / PLAN
    begun = path.exists()
    if hosts.first() and not begun:
        files.write_text(path, json.dumps(_about(plan), indent=2) + "\n")
    try:
        yield
    except UserError:
        if hosts.first() and not begun and not any((folder / GROUPS).glob(f"*/{RESULT}")):
            path.unlink(missing_ok=True)
        raise


def _about(plan: Plan) -> dict[str, Any]:
    about = {
        "settings": config_lib.to_dict(plan.settings),
        "trials": plan.changed,
        "inner_folds": plan.inner_folds,
        "select": plan.select,
    }
    # Convert to what will be read from the file: tuples become lists.
    return json.loads(json.dumps(about))


def trial_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the trials of a sweep, in order. Raise UserError if there is no sweep in the folder."""
    path = folder / PLAN
    if not path.exists():
        raise UserError(f"{folder} is no folder of a sweep: {PLAN} is missing")
    return tuple(json.loads(path.read_text(encoding="utf-8"))["trials"])


def trial_folder(folder: Path, trial: str) -> Path:
    """Return the workdir of one trial of the sweep in `folder`."""
    return naming.find(folder / TRIALS, trial)


def run_group(
    group: Group, plan: Plan, folder: Path, corpora: Path | Sequence[Path], *, profile: bool = False
) -> GroupResult:
    """Train all members of a group, outer and inner folds, and return their result; a finished group is only read.

    Raises:
      UserError: as a run does.
      Preempted: the scheduler has asked the run to stop; the same call resumes it.
    """
    group_folder = folder / GROUPS / group.name
    path = group_folder / RESULT
    if hosts.same(np.asarray(path.exists())):
        return read_result(path)
    with lock.held(group_folder) as check:
        study = study_lib.assemble(group.config, corpora, tuned=group.tuned, inner_folds=plan.inner_folds)
        trained = study_lib.train(study, group_folder, check=check, profile=profile)
        check()
        result = _result(study, trained.program.predict(trained.states), plan)
        _keep(study, trained, group, plan, result, folder)
        hosts.in_turn(lambda: _write(result, group_folder))
    return result


def _result(study: study_lib.Study, predicted: Outputs, plan: Plan) -> GroupResult:
    outer, roster = len(study.outer.names), study.roster
    trials, _, folds = roster.shape
    scores, best = nested.Scores(np.zeros((trials, 0)), np.zeros((trials, 0))), np.zeros(0, int)
    if plan.inner_folds:
        probability = by_fold(np.asarray(network.probabilities(predicted)[0]), roster)[:, :, outer:]
        rows, mask = roster.test_rows[outer:folds], roster.test_mask[outer:folds]
        scores = nested.score(probability, rows, mask, study.corpus.batch.label, outer)
        best = nested.choose(scores, plan.select)
    return GroupResult(*study_lib.held_out(study, predicted), scores.uf1, scores.log_loss, best)


def _keep(
    study: study_lib.Study,
    trained: stepping.Trained,
    group: Group,
    plan: Plan,
    result: GroupResult,
    folder: Path,
) -> None:
    """Export the folds of all trials, or only the best trial of each outer fold."""
    exported = jax.tree.map(lambda x: by_fold(x, study.roster), stepping.parameters(trained))
    names = study.outer.names
    if plan.export_all:
        for index, trial in enumerate(group.tuned):
            for number, name in enumerate(names):
                weights = jax.tree.map(lambda x, at=(index, number): x[at[0], :, at[1]], exported)
                checkpoint.save_fold(trial_folder(folder, trial), name, weights)
    elif plan.inner_folds:
        pick = (result.best, slice(None), np.arange(len(names)))
        # With an index array on each side of a slice, folds become the first axis, then seeds.
        checkpoint.save_fold(folder / GROUPS / group.name, BEST, jax.tree.map(lambda x: x[pick], exported))


def _write(result: GroupResult, place: Path) -> None:
    if hosts.first():
        with files.write_atomically(place / RESULT) as temporary:
            np.savez(temporary, **result._asdict())
        checkpoint.remove_state(place)


def read_result(path: Path) -> GroupResult:
    """Read the result of a finished group. Raise UserError if the file is damaged."""
    try:
        with np.load(path) as arrays:
            return GroupResult(**{name: arrays[name] for name in GroupResult._fields})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to train the group again") from error


def export_chosen(groups: Sequence[Group], chosen: Mapping[str, str], folder: Path) -> None:
    """Copy the selected folds to `trials/<trial>/folds/<fold>`.

    Args:
      groups: all groups of the sweep.
      chosen: the selected trial of each outer fold, by fold name, in the order of folds.
      folder: folder of the sweep.
    """
    for group in groups:
        folds = [(index, name) for index, (name, trial) in enumerate(chosen.items()) if trial in group.tuned]
        if folds:
            kept = checkpoint.load_fold(folder / GROUPS / group.name, BEST)
            for index, name in folds:
                weights = jax.tree.map(lambda x, index=index: x[index], kept)
                checkpoint.save_fold(trial_folder(folder, chosen[name]), name, weights)


def each_group(groups: Sequence[Group], work: Callable[[Group], GroupResult]) -> dict[str, GroupResult]:
    """Call `work` for one group after the other; return the results by group name."""
    results = {}
    for number, group in enumerate(groups, start=1):
        hosts.say(f"program {number} of {len(groups)}: {len(group.tuned)} trials ({', '.join(group.tuned)})")
        results[group.name] = work(group)
        jax.clear_caches()  # the next group is another program
    return results
