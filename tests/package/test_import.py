"""`import tts_models` is cheap, and its public names are complete."""

import json
import subprocess
import sys

import pytest

import tts_models


MEASURE = """
import json, sys, time
import transformers
before, start = set(sys.modules), time.perf_counter()
import tts_models
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before), "torch": "torch" in sys.modules}))
"""


def run_python(code: str) -> str:
    """Standard output of `code`, run by a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_is_lazy() -> None:
    measured = json.loads(run_python(MEASURE).splitlines()[-1])
    assert not measured["torch"]
    assert len(measured["modules"]) <= 30
    assert measured["seconds"] <= 0.1


def test_help_imports_no_torch() -> None:
    code = "import sys\nfrom tts_models.cli.main import build_parser\nbuild_parser().format_help()\n"
    assert run_python(code + "print('torch' in sys.modules)").strip() == "False"


def test_public_names_are_listed_once() -> None:
    listed = [name for names in tts_models._PUBLIC_NAMES.values() for name in names]
    assert sorted(listed) == sorted(tts_models.__all__)
    assert set(tts_models.__all__) <= set(dir(tts_models))


@pytest.mark.parametrize("name", sorted(tts_models.__all__))
def test_public_name_resolves(name: str) -> None:
    assert getattr(tts_models, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'NoSuchModel'"):
        _ = tts_models.NoSuchModel
