"""Every reference case in `tests/fixtures` reproduces; `utils/check_reference.py` runs larger ones the same way."""

from pathlib import Path

import pytest

from tests.common.reference import ReferenceCase, find_cases, run_case


FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("case", find_cases([FIXTURES]), ids=lambda case: case.name)
def test_reference_case(case: ReferenceCase) -> None:
    checks = list(run_case(case))
    assert checks, "the runner compared nothing"
    assert not [check for check in checks if not check.passed]
