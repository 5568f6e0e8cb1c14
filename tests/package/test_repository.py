"""`utils/check_repo.py` passes here, and finds what is missing elsewhere."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check_repo() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_repo", ROOT / "utils/check_repo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the script reads."""
    for folder in ("src", "docs/source", "tests/models", "conversion_scripts"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    return tmp_path


def test_repository_is_whole(check_repo: ModuleType) -> None:
    assert check_repo.check_repository() == []


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("docs/source/model_doc/snac.md", "snac: has no docs/source/model_doc/snac.md"),
        ("tests/models/snac/tester.py", "snac: has no tests/models/snac/tester.py"),
        ("conversion_scripts/convert_snac_to_hf.py", "snac: has no conversion_scripts/convert_snac_to_hf.py"),
    ],
)
def test_missing_file_is_found(check_repo: ModuleType, copy: Path, missing: str, message: str) -> None:
    (copy / missing).unlink()
    assert message in check_repo.check_repository(copy)


def test_unregistered_model_is_found(check_repo: ModuleType, copy: Path) -> None:
    folder = copy / "src/tts_models/models/example"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "modeling_example.py").write_text('class ExampleModel: ...\n\n\n__all__ = ["ExampleModel"]\n')
    problems = check_repo.check_repository(copy)
    assert "example: is not in REGISTERED_MODELS of registration.py" in problems
    assert "example: modeling_example.py: ExampleModel has no docstring" in problems
    assert "example: model_doc/example is not in docs/source/_toctree.yml" in problems


def test_page_outside_the_contents_is_found(check_repo: ModuleType, copy: Path) -> None:
    (copy / "docs/source/stray.md").write_text("# Stray\n")
    assert check_repo.check_repository(copy) == ["docs: stray is not in _toctree.yml"]
