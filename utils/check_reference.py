"""Runs every reference case below the given paths and prints a table of errors.

    python utils/check_reference.py PATH…

A reference case holds what an upstream implementation computed (see `tests/common/reference.py`). The exit status is 0
when every case reproduces within its tolerance, 1 when a case fails, has no runner or holds an output that no runner
compares, and 2 when a path does not exist.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch


REPOSITORY = Path(__file__).resolve().parents[1]
# The runners live beside the tests and use the conversion scripts; both also work from an uninstalled clone.
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src"), str(REPOSITORY / "conversion_scripts")]

from tests.common.reference import Check, ReferenceCase, find_cases, run_case  # noqa: E402


COLUMNS = ("case", "quantity", "max abs error", "relative L2", "tolerance", "verdict")
WIDTHS = (24, 36, 13, 11, 9)


def format_row(cells: Iterable[str]) -> str:
    """One line of the table; the first two cells are left-aligned, numbers right-aligned."""
    *head, verdict = cells
    padded = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(head, WIDTHS, strict=True))]
    return "  ".join([*padded, verdict])


def format_check(case: ReferenceCase, check: Check) -> str:
    """The table's line for one compared quantity."""
    tolerance = check.tolerance if isinstance(check.tolerance, str) else f"{check.tolerance:.1e}"
    verdict = "ok" if check.passed else "FAILED"
    verdict = f"{verdict}  {check.note}" if check.note else verdict
    errors = (f"{check.max_abs_error:.2e}", f"{check.relative_l2_error:.2e}")
    return format_row((case.name, check.quantity, *errors, tolerance, verdict))


def check_cases(cases: Iterable[ReferenceCase]) -> tuple[int, int]:
    """Runs and prints the cases; returns how many passed and how many failed."""
    passed = failed = 0
    print(format_row(COLUMNS))
    for case in cases:
        case_passed = True
        for check in run_case(case):
            print(format_check(case, check), flush=True)
            case_passed = case_passed and check.passed
        passed, failed = passed + case_passed, failed + (not case_passed)
    return passed, failed


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folder of cases, case or table")
    parser.add_argument("--device", default="cpu", help="where the models run (default: cpu)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    missing = [str(path) for path in options.paths if not path.exists()]
    if missing:
        print(f"no such file or folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    # The cases are float32; a faster, coarser matrix product would fail them for no fault of the port.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    start = time.perf_counter()
    passed, failed = check_cases(find_cases(options.paths, options.device))
    print(f"\n{passed} cases passed, {failed} failed, {time.perf_counter() - start:.1f} s")
    if passed + failed == 0:
        print("no reference case found", file=sys.stderr)
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
