"""Scripts as a user runs them, but imported once: each command line is a fork of a process that has imported all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SERVER = """
import importlib.util, json, os, sys, tempfile, traceback, warnings
warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
path = sys.argv[1]
spec = importlib.util.spec_from_file_location("the_script", path)
script = importlib.util.module_from_spec(spec)
sys.modules["__main__"] = script
spec.loader.exec_module(script)
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            os.chdir(request["folder"])
            sys.argv = [path, *request["arguments"]]
            code = 0
            try:
                script.cli.run(script.main, **request["options"])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
        print(json.dumps([code, *texts]), flush=True)
"""


class Done(NamedTuple):
    """What became of one command line."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The lines that tell of an error."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]


class Script:
    """One script of experiments/, imported; a context manager."""

    def __init__(self, name: str, **options: int) -> None:
        self.options = options  # of `cli.run`
        command = [sys.executable, "-c", SERVER, str(ROOT / "experiments" / f"{name}.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Script":
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(self, *arguments: object, folder: Path | str = ".") -> Done:
        """Run it with these arguments, in a folder."""
        request = {"arguments": [str(each) for each in arguments], "folder": str(folder), "options": self.options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Done(*json.loads(self._process.stdout.readline()))
