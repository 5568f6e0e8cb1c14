"""The examples of DeepFilterNet's page run."""

import re
from pathlib import Path

import pytest


PAGE = Path(__file__).parents[3] / "docs/source/model_doc/deepfilternet.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example: str) -> None:
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102
