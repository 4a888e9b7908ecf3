"""`make zoo`: examines every instance, prints a table model x check, and writes it to docs/zoo.md.

python tests/zoo/sweep.py [--only PATTERN] [--resume] [--seconds 90] [--no-write]

`--only` rewrites the rows of these networks and keeps the others; `--resume` examines what the page has no row of.
"""

import argparse
import fnmatch
import logging
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from examine import Finding, examine  # noqa: E402
from instances import SKIPPED, instances  # noqa: E402

from workers.layers.taps import LeftOut, by_reason  # noqa: E402

_HEAD = """# Architectures that were tried

One or two networks of each family of transformers, timm and torchvision, with random weights, few blocks and a square
input. `make zoo` writes this page.

- **taps**: layers whose channels can be indexed; *reordered* are layers with tokens whose order was derived.
- **left out**: layers with channels that cannot be indexed; the reasons are listed below the table.
- **places**: of the taps that were compared with autograd, those where the center of the gradient moves right and
  down with the unit. With random weights, a unit that sees the whole image through attention has its gradient
  anywhere, so this number is a count and not a verdict. The verdict is that all pixels with a gradient lie in the
  stated box.
- **faults**: the checks that failed. They are: each layer is a tap or listed as left out; channels and map size are
  those of the layer; predictions are finite and do not change when taps are recorded; the receptive field contains
  the support of the gradient; the drawing of the network has no cycle.
"""

_NOT_REACHED = "the sweep was stopped before it"


@dataclass(frozen=True)
class Entry:
    """What the page says about a network: its table row and what is left out, or why it was not examined."""

    row: str | None = None
    left_out: str | None = None
    skipped: str | None = None


def main() -> int:
    """Examine, print and write; the exit status is the number of networks with a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="shell pattern for the names of networks")
    parser.add_argument(
        "--resume", action="store_true", help="keep the results on the page and examine the rest"
    )
    parser.add_argument("--seconds", type=int, default=90, help="time limit for each network")
    parser.add_argument("--no-write", action="store_true", help="leave docs/zoo.md as it is")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, _too_long)
    page = ROOT / "docs/zoo.md"
    keeps = options.resume or options.only != "*"
    entries = entries_of(page.read_text()) if keeps and page.exists() else {}
    examined = faulty = 0
    begun = time.perf_counter()
    for instance in instances():
        if not fnmatch.fnmatchcase(instance.name, options.only):
            continue
        if options.resume and instance.name in entries and entries[instance.name].row is not None:
            continue
        signal.alarm(options.seconds)
        try:
            found = examine(instance.name, instance.build, instance.size)
        except TimeoutError:
            found = Finding(instance.name, skipped=f"took more than {options.seconds} s")
        except Exception as error:  # anything our own code raises on a network is a fault to be listed
            found = Finding(instance.name, faults=[f"{type(error).__name__}: {error}".splitlines()[0]])
        finally:
            signal.alarm(0)
        entries[found.name] = entry_of(found)
        examined += 1
        faulty += bool(found.faults)
        print(
            f"{entries[found.name].row or f'{found.name}: {found.skipped}'} {found.seconds:.1f} s", flush=True
        )
        for fault in found.faults:
            print(f"    {fault}", flush=True)
        if not options.no_write:
            page.write_text(table(entries))
    print(f"{examined} networks in {time.perf_counter() - begun:.0f} s")
    return min(100, faulty)


def table(entries: Mapping[str, Entry]) -> str:
    """Return the page as Markdown."""
    names = [one.name for one in instances()]
    known = [(name, entries[name]) for name in names if name in entries]
    lines = [_HEAD, "| network | taps | left out | places | faults |", "|---|---|---|---|---|"]
    lines += [entry.row for _, entry in known if entry.row is not None]
    lines += ["", "## Left out, and why", ""]
    lines += [f"- {name}: {entry.left_out}" for name, entry in known if entry.left_out is not None]
    lines += ["", "## Not examined", ""]
    lines += [f"- {name}: {why}" for name, why in SKIPPED.items()]
    lines += [f"- {name}: {entry.skipped}" for name, entry in known if entry.skipped is not None]
    lines += [f"- {name}: {_NOT_REACHED}" for name in names if name not in entries]
    return "\n".join(lines) + "\n"


def entry_of(found: Finding) -> Entry:
    """Return what the page says about a finding."""
    if found.skipped is not None:
        return Entry(skipped=found.skipped)
    taps = f"{found.taps}" + (f" ({found.reordered} reordered)" if found.reordered else "")
    faults = "; ".join(found.faults[:2]) or "none"
    row = f"| {found.name} | {taps} | {len(found.left_out)} | {found.moved} of {found.examined} | {faults} |"
    return Entry(row, "; ".join(reasons(found.left_out)) if found.left_out else None)


def entries_of(page: str) -> dict[str, Entry]:
    """Return what an earlier page says, by network; networks that it did not reach are missing."""
    examined, _, rest = page.partition("## Left out, and why")
    left_out, _, skipped = rest.partition("## Not examined")
    rows = {row.split("|")[1].strip(): row for row in re.findall(r"^\| .* \|$", examined, re.M)[1:]}
    reasons_of = dict(re.findall(r"^- (.+?): (.*)$", left_out, re.M))
    found = {name: Entry(row, reasons_of.get(name)) for name, row in rows.items()}
    for name, why in re.findall(r"^- (.+?): (.*)$", skipped, re.M):
        if name not in SKIPPED and why != _NOT_REACHED:
            found[name] = Entry(skipped=why)
    return found


def reasons(left_out: tuple[LeftOut, ...]) -> list[str]:
    """Return how many of each kind, most frequent reason first, each with an example module."""
    grouped = sorted(by_reason(left_out).items(), key=lambda item: -len(item[1]))
    return [
        f"{len(modules)} x {reason} ({modules[0]}{', …' if len(modules) > 1 else ''})"
        for reason, modules in grouped
    ]


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())
