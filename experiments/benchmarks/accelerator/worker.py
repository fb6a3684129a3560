"""The process that measures: reads one command a line, answers with facts and rows, one JSON object a line.

A command without a module only finds the devices.

It ends when the pipe of its commands is closed, whatever it is doing, so that nothing is left behind when the process
that started it is killed. jax is imported by the parts, after a command has come.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

PACKAGE = "stag_experiments.benchmarks.accelerator"

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Measure what is asked for until nothing more is asked."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    commands: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    bench = None
    while True:
        command = commands.get()
        try:
            bench = bench or _open(command)
            bench.facts.update(command["facts"])
            if "module" in command:
                _measure(command, bench, send)
            send({"facts": bench.facts})
            send({"done": True})
        except Exception as error:
            traceback.print_exc()
            send({"failed": _reason(error)})


def _listen(commands: queue.Queue) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    if os.getpgrp() == os.getpid():  # as the session starts it: what this process has started is to end as well
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _open(command: dict[str, Any]) -> Any:
    """Find the devices; return what the parts share."""
    import jax

    from stag_experiments.benchmarks.accelerator import bench, product_rates, sizes

    facts = command["facts"]
    if "_platform" not in facts:
        facts |= {"_platform": jax.default_backend()}
        facts |= product_rates.device_facts()
    size = sizes.choose(command["size"], facts["_platform"] != "cpu")
    return bench.Bench(size, facts | {"sizes": size.note, "_size": size.name})


def _measure(command: dict[str, Any], bench: Any, send: Send) -> None:
    from stag_experiments.benchmarks.accelerator.bench import Clock

    part = importlib.import_module(f"{PACKAGE}.{command['module']}")
    for row in part.measure(bench, Clock(command["seconds"])):
        send({"facts": bench.facts})
        send({"row": _plain(row)})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with numbers that JSON knows; what is not finite becomes a word."""
    plain = {}
    for key, value in row.items():
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
            plain[key] = value
        else:
            plain[key] = str(value) if isinstance(value, float) else value
    return plain


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


if __name__ == "__main__":
    main()
