"""What every script does around its work: flags, one-line errors, exit codes.

ml_collections, TFDS and all that reads a corpus are imported by the functions that need them, so that a script that
needs none of them runs where they are not installed.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import jax
from absl import app, flags, logging

from stag_jax import config as config_lib
from stag_jax.config import Config, from_config_dict
from stag_jax.training import hosts
from stag_jax.types import Preempted, UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

USAGE_ERROR = 2
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
PLACES = ("data.data_dir", "data.manual_dir", "distil.teacher")

flags.disclaim_key_flags()  # --help lists the flags that are defined here among those of the script


def config_flag(default: str | None = None) -> flags.FlagHolder:
    """Defines --config=FILE with --config.a.b=value overrides."""
    from ml_collections import config_flags

    return config_flags.DEFINE_config_file("config", default, "Settings; --config.a.b=value overrides one.")


def read_settings(holder: flags.FlagHolder, example: str) -> "ConfigDict":
    """What the file of the flag gives. Raises UserError where the flag is missing; `example` is one that would do."""
    if holder.value is None:
        raise UserError(f"--config=FILE is missing, e.g. --config={example}")
    return holder.value


def read_config(holder: flags.FlagHolder) -> Config:
    """The config of the flag as frozen dataclasses. Raises UserError where it is missing or has an unknown key."""
    return from_config_dict(read_settings(holder, "configs/synth_me.py"))


def given_config() -> list[str]:
    """The config and its overrides as they were given, to be handed on to another script."""
    return [arg for arg in sys.argv[1:] if arg.startswith("--config")]


def named_config(dataset: str) -> "ConfigDict":
    """The settings of a corpus: of configs/<name>_<variant>.py, of configs/<name>.py, or the defaults."""
    for name in (dataset.replace("/", "_"), dataset.partition("/")[0]):
        if importlib.util.find_spec(f"stag_configs.{name}"):
            return importlib.import_module(f"stag_configs.{name}").get_config()
    return importlib.import_module("stag_configs.base").get_config()


def workdir_flag() -> flags.FlagHolder:
    """Defines --workdir=DIR."""
    return flags.DEFINE_string("workdir", None, "Folder of the run; created, or gone on with.")


def read_workdir(holder: flags.FlagHolder) -> Path:
    """The folder of the flag. Raises UserError where it is missing."""
    if not holder.value:
        raise UserError("--workdir=DIR is missing")
    return Path(holder.value)


def host_flags() -> None:
    """Defines --distributed and what it may need; `set_up` and `connect` read them."""
    flags.DEFINE_bool("distributed", False, "Several processes as one run; Slurm, Open MPI and TPU pods are found.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process, where nothing tells of it.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


def connect(config: Config) -> None:
    """Fixes the devices: those of this process and, with --distributed, of all of them. Before any other use of jax.

    Raises:
      UserError: the others cannot be found.
    """
    # XLA on one CPU device leaves cores idle between small operations; members share nothing, so each core gets some.
    jax.config.update("jax_num_cpu_devices", config.parallel.cpu_devices or os.cpu_count() or 1)
    if "distributed" in flags.FLAGS and flags.FLAGS.distributed:
        hosts.connect(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)


def set_up(config: Config, folder: Path) -> tuple[Config, Path, list[Path]]:
    """What `loop.run` takes: the config, the workdir, and the folders of the corpora, which are built if missing.

    Raises:
      UserError: the workdir belongs to another config.
      CorpusError: the corpus cannot be built.
    """
    from stag_jax.training import workdir

    config = absolute(config)
    hosts.in_turn(lambda: workdir.check(folder, config))
    return config, folder, build(config)


def absolute(config: Config) -> Config:
    """The config with its folders noted whole, so that the run can be analysed from any folder."""
    places = {key: str(Path(value).absolute()) for key in PLACES if (value := config_lib.get(config, key))}
    return config_lib.replace(config, places)


def build(config: Config) -> list[Path]:
    """The folders of the corpora of a config, which are built if missing. Raises CorpusError where that cannot be."""
    from stag_datasets import corpus

    data = config.data
    return hosts.in_turn(lambda: corpus.build_all(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir))


def run(main: Callable[..., None], *, arguments: int = 0, about: ModuleType | None = None) -> None:
    """Parses the flags and runs `main`; an error that the user can mend is one line, and exit code 2.

    `main` gets the arguments that are no flags; more of them than `arguments` are an error. --help shows the docstring
    and the flags of `about`, or of the script.
    """

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        if len(argv) > 1 + arguments:
            fail(f"unexpected argument {argv[1 + arguments]!r}; options begin with --")
        try:
            main(*argv[1:])
        except _user_errors() as error:
            fail(str(error))
        except Preempted as notice:
            fail(str(notice), code=TRY_AGAIN)
        except KeyboardInterrupt:
            fail("interrupted; run the same command again to go on", code=130)

    app.run(guarded, flags_parser=lambda argv: _parse(argv, about))


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that the user can mend; those of a corpus only where the builders were imported."""
    corpus = sys.modules.get("stag_datasets.corpus")
    return (UserError, corpus.CorpusError) if corpus else (UserError,)


def fail(message: str, code: int = USAGE_ERROR) -> NoReturn:
    """Prints one line and leaves."""
    kind = "stopped" if code == TRY_AGAIN else "error"
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def wants_help(argv: Sequence[str]) -> bool:
    """Whether the command line asks for help. absl looks for that only where it parses itself."""
    return any(arg in ("-h", "-help", "--help") for arg in argv)


def _parse(argv: Sequence[str], about: ModuleType | None) -> list[str]:
    if wants_help(argv):
        print((about or sys.modules["__main__"]).__doc__)
        print(flags.FLAGS.module_help(about or sys.argv[0]))
        sys.exit(0)
    try:
        return flags.FLAGS(list(argv))
    # A config file is Python and an override reaches into it, so more than flags.Error can come up here.
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        message = str(error)
        if message[:1] in "'\"":
            message = str(ast.literal_eval(message))  # a KeyError prints the repr of its message
        fail(message)
