"""Code that all scripts share: flags, one-line errors, exit codes.

ml_collections, TFDS and everything that reads a corpus are imported inside the functions that need them, so that a
script without that need runs where they are not installed.
"""

import ast
import difflib
import errno
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import jax
from absl import app, flags, logging

from stag_experiments import interrupts
from stag_jax import config as config_lib
from stag_jax import processes
from stag_jax.allowed import Rule
from stag_jax.config import Config, from_config_dict
from stag_jax.training import hosts
from stag_jax.types import Preempted, UserError, WorkdirGone

if TYPE_CHECKING:
    from ml_collections import ConfigDict

USAGE_ERROR = 2
PLACES = ("data.data_dir", "data.manual_dir", "distil.teacher")
# Errors of the disk, not of the program: full, over quota, not writable, name too long, too many open files.
DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EMFILE),
    *(errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EISDIR),
)

flags.disclaim_key_flags()  # --help lists the flags that are defined here among those of the script


def config_flag(default: str | None = None) -> flags.FlagHolder:
    """Define --config=FILE with --config.a.b=value overrides."""
    from ml_collections import config_flags

    return config_flags.DEFINE_config_file("config", default, "Settings; --config.a.b=value overrides one.")


def read_settings(holder: flags.FlagHolder, example: str) -> "ConfigDict":
    """Return the settings of the --config file.

    Raises UserError if the flag is missing (the message names `example`) or the file cannot be used.
    """
    if holder.value is None:
        raise UserError(f"--config=FILE is missing, e.g. --config={example}")
    try:
        holder.value.keys()
    except OSError as error:  # ml_collections reports a file that failed to load only on first access
        raise UserError(f"--config: {_config_fault(str(error))}") from error
    return holder.value


def read_config(holder: flags.FlagHolder) -> Config:
    """Return the config of the flag as frozen dataclasses, checked.

    Raises UserError if it is missing, has an unknown key or a wrong setting (`validation.validate`).
    """
    return checked(from_config_dict(read_settings(holder, "configs/synth_me.py")))


def checked(config: Config) -> Config:
    """Return the config after every check that does not need to read a corpus.

    Raises UserError for a wrong setting, CorpusError for a corpus that does not exist.
    """
    from stag_datasets import corpus
    from stag_jax.training import validation

    validation.validate(config)
    for name in config.data.dataset.split("+"):
        corpus.builder(name, data_dir=config.data.data_dir)
    return config


def given_config() -> list[str]:
    """Return the --config arguments of the command line, to pass on to another script."""
    return [arg for arg in sys.argv[1:] if arg.startswith("--config")]


def named_config(dataset: str) -> "ConfigDict":
    """Return the settings of a corpus: configs/<name>_<variant>.py, else configs/<name>.py, else the defaults."""
    for name in (dataset.replace("/", "_"), dataset.partition("/")[0]):
        if importlib.util.find_spec(f"stag_configs.{name}"):
            return importlib.import_module(f"stag_configs.{name}").get_config()
    return importlib.import_module("stag_configs.base").get_config()


def workdir_flag() -> flags.FlagHolder:
    """Define --workdir=DIR."""
    return flags.DEFINE_string("workdir", None, "Folder of the run; created, or gone on with.")


def read_workdir(holder: flags.FlagHolder) -> Path:
    """Return the folder of --workdir. Raises UserError if the flag is missing."""
    if not holder.value:
        raise UserError("--workdir=DIR is missing")
    return Path(holder.value)


def host_flags() -> None:
    """Define --distributed and the flags it may need; `set_up` and `connect` read them."""
    flags.DEFINE_bool("distributed", False, "Several processes as one run; Slurm, Open MPI and TPU pods are found.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process, where nothing tells of it.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


def connect(config: Config) -> None:
    """Configure the devices of this process and, with --distributed, join all processes. Call before any use of jax.

    Raises:
      UserError: the other processes cannot be found.
    """
    # With one CPU device XLA leaves cores idle between small operations; members are independent: each core gets some.
    jax.config.update("jax_num_cpu_devices", config.parallel.cpu_devices or processes.cores())
    if "distributed" in flags.FLAGS and flags.FLAGS.distributed:
        hosts.connect(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)


def set_up(config: Config, folder: Path) -> tuple[Config, Path, list[Path]]:
    """Return the arguments of `loop.run`: the config, the workdir, and the corpus folders, built if missing.

    Raises:
      UserError: the workdir belongs to another config, or is in use.
      CorpusError: the corpus cannot be built.
    """
    from stag_jax.training import lock, workdir

    config = absolute(config)

    def check() -> None:
        workdir.check(folder, config)
        if hosts.first():
            lock.require_free(folder)

    hosts.in_turn(check)
    return config, folder, build(config)


def absolute(config: Config) -> Config:
    """Return the config with absolute paths, so that the run can be analysed from any folder."""
    places = {key: str(Path(value).absolute()) for key in PLACES if (value := config_lib.get(config, key))}
    return config_lib.replace(config, places)


def build(config: Config) -> list[Path]:
    """Return the corpus folders of a config, built if missing. Raises CorpusError if one cannot be built."""
    from stag_datasets import corpus

    data = config.data
    return hosts.in_turn(lambda: corpus.build_all(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir))


def data_flags() -> None:
    """Define --data_dir and --rebuild, for scripts that read finished runs; `find` reads them."""
    flags.DEFINE_string("data_dir", None, "Where the run's corpus and features are now, if they were moved.")
    flags.DEFINE_bool("rebuild", False, "Build the corpus and extract its features again where they are missing.")


def find(config: Config) -> tuple[Config, list[Path]]:
    """Return the config of a finished run with the current location of its corpora, and their folders.

    Raises:
      UserError: corpus or features are missing, and --rebuild was not given.
    """
    from stag_datasets import corpus
    from stag_jax.corpora import features

    if flags.FLAGS.data_dir:
        config = config_lib.replace(config, {"data.data_dir": str(Path(flags.FLAGS.data_dir).absolute())})
    if not flags.FLAGS.rebuild:
        for name in config.data.dataset.split("+"):
            folder = corpus.prepared(name, data_dir=config.data.data_dir)
            if folder is None or not features.cache_path(folder, config).exists():
                fault = "is not" if folder is None else "has no features of this run"
                raise UserError(
                    f"corpus {name} {fault} in {config.data.data_dir}; --data_dir=DIR says where it is now, --rebuild "
                    "makes what is missing again"
                )
    return config, build(config)


def number_flag(name: str, default: float | None, help: str, rule: Rule) -> flags.FlagHolder:
    """Define a flag for a number that `rule` must accept."""
    holder = flags.DEFINE_float(name, default, help)
    flags.register_validator(name, lambda value: value is None or rule.accepts(value), message=f"must be {rule}")
    return holder


def run(main: Callable[..., None], *, arguments: int = 0, about: ModuleType | None = None) -> None:
    """Parse the flags and run `main`.

    An error that the user can fix, such as a full disk, prints one line and exits with 2; a workdir that disappeared
    prints one line and exits with 1; a signal prints one line and exits with 130 or 75 (`interrupts`). `main` gets the
    positional arguments; more than `arguments` of them are an error. --help shows the docstring and the flags of
    `about`, or of the script.
    """

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        if len(argv) > 1 + arguments:
            fail(f"unexpected argument {argv[1 + arguments]!r}; options begin with --")
        main(*argv[1:])

    try:
        interrupts.raise_them()
        app.run(lambda argv: _told(lambda: guarded(argv)), flags_parser=lambda argv: _parse(argv, about))
    except KeyboardInterrupt:
        interrupts.leave()
    finally:
        interrupts.end_at_once()  # nothing is left to clean up


def _told(work: Callable[[], None]) -> None:
    # Turns expected errors into one line and an exit code.
    try:
        work()
    except _user_errors() as error:
        fail(str(error))
    except Preempted as notice:
        fail(str(notice), code=interrupts.TRY_AGAIN)
    except WorkdirGone as error:
        fail(str(error), code=1)
    except Exception as error:
        line = _disk_fault(error)
        if line is None:
            raise
        fail(line)


def _user_errors() -> tuple[type[Exception], ...]:
    """Return the error types that the user can fix; CorpusError only if the builders were imported."""
    corpus = sys.modules.get("stag_datasets.corpus")
    return (UserError, corpus.CorpusError) if corpus else (UserError,)


def fail(message: str, code: int = USAGE_ERROR) -> NoReturn:
    """Print one line and exit with `code`."""
    kind = "stopped" if code == interrupts.TRY_AGAIN else "error"
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _disk_fault(error: BaseException) -> str | None:
    """Return a description of the disk fault that caused an error; None if it has another cause."""
    chain: list[BaseException] = [error]
    for link in chain:  # grows during the loop
        if isinstance(link, OSError) and link.errno in DISK:
            path_text = link.filename2 or link.filename
            return f"{path_text}: {link.strerror}" if path_text else str(link.strerror)
        inner = (link.__cause__, link.__context__, *getattr(link, "exceptions", ()))
        chain += [cause for cause in inner if cause is not None and cause not in chain]
    # Orbax, TFDS and their writers report it only in the text of the message.
    for link in chain:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            if os.strerror(number) in str(link):
                path = re.search(r"(/[^\s'\":\],]+)", str(link))
                return f"{path.group(1)}: {os.strerror(number)}" if path else os.strerror(number)
    return None


def wants_help(argv: Sequence[str]) -> bool:
    """Return whether the command line asks for help. absl checks this only when it parses the flags itself."""
    return any(arg in ("-h", "-help", "--help") for arg in argv)


def _parse(argv: Sequence[str], about: ModuleType | None) -> list[str]:
    if wants_help(argv):
        print((about or sys.modules["__main__"]).__doc__)
        print(flags.FLAGS.module_help(about or sys.argv[0]))
        if "config" in flags.FLAGS:
            print(_settings_help())
        sys.exit(0)
    try:
        return flags.FLAGS(list(argv))
    # A config file is Python code and an override reaches into it, so any exception can be raised here.
    except Exception as error:
        message = str(error)
        if not isinstance(error, flags.Error | OSError | AttributeError | KeyError | TypeError | ValueError):
            files = [arg.partition("=")[2] for arg in argv if arg.lstrip("-").startswith("config=")]
            message = f"--config={', '.join(files)}: {type(error).__name__}: {message}"
        if message[:1] in "'\"":
            message = str(ast.literal_eval(message))  # a KeyError prints the repr of its message
        fail(_flag_fault(message, argv))


def _settings_help() -> str:
    from stag_jax.training import validation

    base = importlib.import_module("stag_configs.base").settings()
    lines = (f"  {key} ({default}): {kind}, {rule}; {text}" for key, kind, default, rule, text in validation.rows(base))
    return "\n".join(["settings, --config.KEY=VALUE (default):", *lines])


def _flag_fault(message: str, argv: Sequence[str]) -> str:
    """Return one line: which key of an override does not exist, or why a config file failed."""
    if "Traceback" in message:  # a config file failed
        return f"{message.partition(':')[0]}: {message.strip().splitlines()[-1].strip()}"
    word = re.match(r"'?(\w+)'?(?:\s+Did you mean .*)?$", message)
    if word is None:
        return message
    for arg in argv:
        key = arg.lstrip("-").partition("=")[0]
        if key.startswith("config.") and word.group(1) in key.split("."):
            config_keys = [f"config.{setting.key}" for setting in config_lib.settings()]
            matches = difflib.get_close_matches(key, config_keys, n=1)
            return f"unknown config key {key}" + (f"; did you mean {matches[0]}?" if matches else "")
    return message


def _config_fault(message: str) -> str:
    """Return one line: why a config file could not be loaded."""
    missing = re.search(r"No such file or directory: '(.*)'", message)
    return f"there is no file {missing.group(1)}" if missing else message.splitlines()[-1].strip()
