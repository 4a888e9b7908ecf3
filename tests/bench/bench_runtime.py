"""What `workers.models.speedups.runtime` is worth: `python tests/bench/bench_runtime.py [--rounds N]`.

Forward passes of a full-size ConvNeXt-tiny with random weights, in batches of 16, in separate processes that
differ only in their environment. The variants alternate, on an idle machine and with one busy process
alongside.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from workers.models.speedups.runtime import SETTINGS

PASSES = """
import statistics, sys, time, torch
sys.path[:0] = [{bench!r}, {root!r}]
from bench_topk import convnext_tiny
model, pixels, times = convnext_tiny(), torch.rand(16, 3, 224, 224), []
with torch.inference_mode():
    for _ in range(8):
        started = time.perf_counter()
        model(pixels)
        times.append(time.perf_counter() - started)
print(statistics.median(times[2:]) / 16 * 1000)
"""
BUSY = "while True: pass"


def milliseconds(names: list[str]) -> float:
    """Return milliseconds per image in a process whose environment has only the given settings."""
    bench = Path(__file__).parent
    bare = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    script = PASSES.format(bench=str(bench), root=str(bench.parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=bare | {name: SETTINGS[name] for name in names},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    allocator = [name for name in SETTINGS if name.startswith("MALLOC")]
    ways: dict[str, list[str]] = {
        "as the system has it": [],
        "allocator": allocator,
        "allocator and OpenMP": list(SETTINGS),
    }
    print(f"forward pass of ConvNeXt-tiny, float32, medians of {given.rounds} processes")
    for beside, commands in (("idle", []), ("beside a busy process", [[sys.executable, "-c", BUSY]])):
        others = [subprocess.Popen(command) for command in commands]
        try:
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(given.rounds):
                for name, settings in ways.items():
                    times[name].append(milliseconds(settings))
        finally:
            for other in others:
                other.kill()
                other.wait()
        base = statistics.median(times["as the system has it"])
        for name in ways:
            each = statistics.median(times[name])
            print(f"{beside:24} {name:24} {each:8.2f} ms/image  {base / each:5.2f}x as quick")


if __name__ == "__main__":
    main()
