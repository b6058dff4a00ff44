"""The line protocol between the driver and the processes it times: one JSON line each way.

    {"cmd":"describe"}                          -> {"name":..,"engine":..,"version":..,"model":..,"device":..,"dtype":..,
                                                    "threads":..,"input":[3,224,224],"options":[..]}
    {"cmd":"logits","batch":2,"salt":"zoo"}     -> {"logits":[[..],[..]]}
                ..,"dtype":"f64"}               -> the same in a wider format than the one it runs in (PyTorch eager alone)
    {"cmd":"block","batch":8,"seconds":0.25}    -> {"first_s":..,"times_s":[..],"cpu_s":..}
    {"cmd":"quit"}                              -> (the worker ends; also at the end of its input)
    anything that fails                         -> {"error":"what and why"}

`first_s` is the first call, which finds the machine as the worker before left it; `times_s` are the calls after it, until
`seconds` are over; `cpu_s` is the CPU time the process spent in the block. `zoo bench --worker` speaks it too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Protocol, TextIO

Json = dict[str, Any]


class Engine(Protocol):
    """What a worker serves."""

    def describe(self) -> Json: ...

    def logits(self, batch: int, salt: str) -> list[list[float]]: ...

    def run_once(self, batch: int) -> None:
        """One forward pass; returns when the result is there."""
        ...


def take_stdout() -> TextIO:
    """The output for answers. What libraries print goes to stderr from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def serve(engine: Engine, answers: TextIO) -> None:
    """Answers requests on stdin until `quit` or its end."""
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if request["cmd"] == "quit":
                return
            answer = _answer(engine, request)
        except Exception as error:  # an engine fails in its own ways; the other side is told which
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(engine: Engine, request: Json) -> Json:
    match request["cmd"]:
        case "describe":
            return engine.describe()
        case "logits":
            wider = {"dtype": request["dtype"]} if "dtype" in request else {}
            return {"logits": engine.logits(request["batch"], request["salt"], **wider)}
        case "block":
            return _block(engine, request["batch"], request["seconds"])
        case other:
            raise ValueError(f"unknown cmd {other!r}")


def _block(engine: Engine, batch: int, seconds: float) -> Json:
    if batch < 1 or not 0 < seconds <= 60:
        raise ValueError(f"batch {batch} and {seconds} s: a batch of 1 or more and 0 to 60 s are allowed")
    cpu = time.process_time()
    before = time.perf_counter()
    engine.run_once(batch)
    start = last = time.perf_counter()
    times_s = []
    while last - start < seconds:
        engine.run_once(batch)
        now = time.perf_counter()
        times_s.append(now - last)
        last = now
    return {"first_s": start - before, "times_s": times_s, "cpu_s": time.process_time() - cpu}


class WorkerFailed(Exception):
    """A worker said so, or died."""


class WorkerProcess:
    """A worker, from the driver's side. It has its own session, so that Ctrl-C reaches the driver alone."""

    def __init__(self, label: str, command: list[str], env: dict[str, str]) -> None:
        self.label = label
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env, text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed(f"cannot start {command[0]}: {error.strerror}") from error

    def ask(self, request: Json, patience_s: float | None = None) -> Json:
        """Sends a request and waits for the answer, for `patience_s` at most; a worker that was too slow is ended."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            if patience_s is not None and not select.select([self._process.stdout], [], [], patience_s)[0]:
                self._kill()
                raise WorkerFailed(f"no answer to {request['cmd']} within {patience_s:.0f} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"ended with status {self._process.wait()}: {self._last_words()}")
        try:
            answer: Json = json.loads(line)
        except json.JSONDecodeError as error:
            raise WorkerFailed(f"answered with something that is not JSON: {line.strip()[:200]}") from error
        if "error" in answer:
            raise WorkerFailed(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def _kill(self) -> None:
        """Ends it and the processes it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def close(self, grace_s: float = 5.0) -> None:
        """Asks it to end; ends it when it does not within `grace_s`. Closing twice does nothing more."""
        assert self._process.stdin and self._process.stdout
        try:
            if self._process.poll() is None:
                self._process.stdin.write('{"cmd":"quit"}\n')
            self._process.stdin.close()
            self._process.wait(timeout=grace_s)
        except (BrokenPipeError, ValueError, subprocess.TimeoutExpired):
            self._kill()
        finally:
            self._process.stdout.close()
            self._log.close()
