"""What benchmarks share that measure beside upstream's code, which runs in a process of its own."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Stopwatch:
    """Reads one of the [`CLOCKS`] once a device is done."""

    def __init__(self, clock: str, device: str):
        self.clock, self.is_cuda = CLOCKS[clock], device.startswith("cuda")

    def __call__(self) -> float:
        """Seconds."""
        if self.is_cuda:
            torch.cuda.synchronize()
        return self.clock()


class Upstream:
    """The other process: a script in upstream's interpreter that answers each line of JSON with one.

    Args:
        interpreter: Of upstream's environment.
        script: What it runs, beside this file.
        start: The first request, which the script answers once it is ready; its answer is kept.
    """

    def __init__(self, interpreter: str, script: str, start: dict[str, Any]):
        command = [interpreter, str(Path(__file__).with_name(script))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.ask(start)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("upstream's process ended; its message is above")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def peak(dtype: torch.dtype, device: str, watch: Stopwatch) -> float:
    """Operations per second of a large matrix product."""
    size = 4096 if watch.is_cuda else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(4):
        begin = watch()
        left @ right
        times.append(watch() - begin)
    return 2 * size**3 / min(times)
