"""Every Python example of the README and of the pages runs as it stands, in a folder of its own."""

from pathlib import Path

import pytest

from tests.common.page_examples import ROOT, code_blocks, run_example


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/source").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
    for page in PAGES
    for number, code in enumerate(code_blocks(page, "python"))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_example(code)
