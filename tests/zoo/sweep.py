"""`make zoo`: examines every instance, prints a table model x check, and writes it to docs/zoo.md.

python tests/zoo/sweep.py [--only PATTERN] [--seconds 60] [--no-write]
"""

import argparse
import fnmatch
import logging
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from examine import Finding, examine  # noqa: E402
from instances import SKIPPED, instances  # noqa: E402

from workers.taps import LeftOut, by_reason  # noqa: E402

_HEAD = """# The zoo

What Convscope makes of one or two networks of each family of transformers, timm and torchvision. Made by
`make zoo`, with random weights and cut to few blocks; the input is square.

- **taps**: layers whose channels can be looked at; *reordered* are tokens whose order was derived.
- **left out**: layers that are no taps; their reasons are listed below the table.
- **places**: of the taps examined against autograd, those where the gradient's mass moves right and down with the
  unit. A unit that sees the whole image through attention looks anywhere with random weights, so that this is a
  count there and no verdict; the verdict is that the pixels with a gradient lie in the box that is claimed.
- **faults**: what failed among: a layer is neither a tap nor listed; channels or map size are not the layer's;
  predictions change when taps are recorded, or are not finite; a receptive field does not hold the gradient's
  support; the drawing of the network has a cycle.
"""


def main() -> int:
    """Examine, print, write; the number of networks with a fault is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="names to match as the shell does")
    parser.add_argument("--seconds", type=int, default=90, help="time limit for each network")
    parser.add_argument("--no-write", action="store_true", help="leave docs/zoo.md as it is")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, _too_long)
    findings = []
    begun = time.perf_counter()
    for instance in instances():
        if not fnmatch.fnmatchcase(instance.name, options.only):
            continue
        signal.alarm(options.seconds)
        try:
            found = examine(instance.name, instance.build, instance.size)
        except TimeoutError:
            found = Finding(instance.name, skipped=f"took more than {options.seconds} s")
        except Exception as error:  # what any network makes our own code raise is a fault to be listed
            found = Finding(instance.name, faults=[f"{type(error).__name__}: {error}".splitlines()[0]])
        finally:
            signal.alarm(0)
        findings.append(found)
        print(f"{_row(found)} {found.seconds:.1f} s", flush=True)
        for fault in found.faults:
            print(f"    {fault}", flush=True)
        if not options.no_write and options.only == "*":
            (ROOT / "docs/zoo.md").write_text(table(findings))
    print(f"{len(findings)} networks in {time.perf_counter() - begun:.0f} s")
    return min(100, sum(bool(found.faults) for found in findings))


def table(findings: list[Finding]) -> str:
    """The page, in Markdown."""
    lines = [_HEAD, "| network | taps | left out | places | faults |", "|---|---|---|---|---|"]
    lines += [_row(found) for found in findings if found.skipped is None]
    lines += ["", "## Left out, and why", ""]
    for found in findings:
        if found.left_out:
            lines.append(f"- {found.name}: {'; '.join(reasons(found.left_out))}")
    lines += ["", "## Not examined", ""]
    lines += [f"- {name}: {why}" for name, why in SKIPPED.items()]
    lines += [f"- {found.name}: {found.skipped}" for found in findings if found.skipped is not None]
    reached = {found.name for found in findings}
    lines += [
        f"- {one.name}: the sweep was stopped before it" for one in instances() if one.name not in reached
    ]
    return "\n".join(lines) + "\n"


def reasons(left_out: tuple[LeftOut, ...]) -> list[str]:
    """How many of what kind, the most frequent reason first, each with one of the modules."""
    grouped = sorted(by_reason(left_out).items(), key=lambda item: -len(item[1]))
    return [
        f"{len(modules)} x {reason} ({modules[0]}{', …' if len(modules) > 1 else ''})"
        for reason, modules in grouped
    ]


def _row(found: Finding) -> str:
    if found.skipped is not None:
        return f"| {found.name} | not examined: {found.skipped} |"
    taps = f"{found.taps}" + (f" ({found.reordered} reordered)" if found.reordered else "")
    faults = "; ".join(found.faults[:2]) or "none"
    return f"| {found.name} | {taps} | {len(found.left_out)} | {found.moved} of {found.examined} | {faults} |"


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())
