"""The reference checker itself: what it finds, what it runs, and that it fails when it should."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.common.fill import fill_array, fill_state_dict
from tests.common.reference import ReferenceCase, compare, find_cases, find_runner, run_case
from utils import check_reference


FIXTURES = Path(__file__).parents[1] / "fixtures"


def _copy(name: str, target: Path) -> Path:
    shutil.copytree(FIXTURES / "snac" / "tiny_dense", target / name)
    return target / name


def _edit(case: Path, **fields: object) -> None:
    file = case / "case.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_passing_case_exits_zero(capsys: pytest.CaptureFixture) -> None:
    assert check_reference.main([str(FIXTURES / "snac" / "tiny_dense")]) == 0
    output = capsys.readouterr().out
    assert "max abs error" in output and "relative L2" in output and "tolerance" in output
    assert "snac/tiny_dense" in output and "1 cases passed, 0 failed" in output


@pytest.mark.parametrize("name", ["tiny_dense2", "full_48khz", "an_unheard_of_name"])
def test_case_of_another_name_runs_by_its_content(name: str, tmp_path: Path) -> None:
    assert check_reference.main([str(_copy(name, tmp_path))]) == 0


def test_changed_number_fails(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    case = _copy("tiny_dense", tmp_path)
    tensors = load_file(case / "tensors.safetensors")
    tensors["outputs.decoded"][0, 0, 7] += 1e-3
    save_file(tensors, case / "tensors.safetensors")
    assert check_reference.main([str(tmp_path)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(failed) == 1 and "decoded" in failed[0] and "1.00e-03" in failed[0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_small_integers_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"inputs.ids": torch.tensor([3, 4], dtype=dtype)}, tmp_path / "tensors.safetensors")
    (tmp_path / "case.json").write_text("{}")
    assert ReferenceCase(tmp_path).input("ids").dtype == torch.int64


def test_case_without_runner_fails(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _edit(_copy("tiny_dense", tmp_path), family="unknown")
    assert check_reference.main([str(tmp_path)]) == 1
    assert "no runner" in capsys.readouterr().out


def test_output_that_nothing_compares_fails(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    case = _copy("tiny_dense", tmp_path)
    tensors = load_file(case / "tensors.safetensors") | {"outputs.surprise": torch.zeros(1)}
    save_file(tensors, case / "tensors.safetensors")
    assert check_reference.main([str(tmp_path)]) == 1
    assert "outputs.surprise" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", '{"family": "snac"}'])
def test_broken_case_fails_without_stopping_the_others(content: str, tmp_path: Path) -> None:
    (_copy("a_broken_one", tmp_path) / "case.json").write_text(content)
    _copy("tiny_dense", tmp_path)
    checks = {case.label: [check.passed for check in run_case(case)] for case in find_cases([tmp_path])}
    assert checks["a_broken_one"] == [False]
    assert all(checks["tiny_dense"])


def test_missing_path_and_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert check_reference.main([str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert check_reference.main([str(tmp_path)]) == 1
    assert "no reference case found" in capsys.readouterr().err


def test_table_without_runner_fails(tmp_path: Path) -> None:
    folder = tmp_path / "snac"
    folder.mkdir()
    (folder / "something_new.json").write_text("{}")
    assert [check.note for case in find_cases([folder]) for check in run_case(case)] == ["no runner"]


def test_files_beside_a_case_belong_to_it() -> None:
    found = [case.name for case in find_cases([FIXTURES / "maya1"])]
    assert "maya1/prompt_ids" in found and "maya1/code_unpacking" in found
    assert not [name for name in found if "tokenizer" in name]
    by_file = find_cases([FIXTURES / "maya1" / "prompt_ids" / "case.json", FIXTURES / "maya1" / "prompt_ids"])
    assert [case.name for case in by_file] == ["maya1/prompt_ids"]


def test_every_fixture_has_a_runner() -> None:
    assert not [case.name for case in find_cases([FIXTURES]) if find_runner(case) is None]


def test_compare_measures_both_errors() -> None:
    check = compare("x", torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]), 0.1)
    assert (check.max_abs_error, check.passed) == (0.5, False)
    assert check.relative_l2_error == pytest.approx(0.1)
    assert compare("x", torch.tensor([1, 2]), torch.tensor([1, 3])).max_abs_error == 1
    assert not compare("x", torch.tensor([float("nan")]), torch.tensor([1.0]), 1.0).passed
    assert not compare("x", torch.zeros(2), torch.zeros(3), 1.0).passed
    assert compare("x", torch.zeros(0), torch.zeros(0), 0.0).passed
    assert not compare("x", [1, 2], [1, 3]).passed


def test_fill_follows_the_name_and_the_shape() -> None:
    """The numbers of the rule, so that a change of it cannot go unnoticed."""
    generator = np.random.Generator(np.random.Philox(key=3270937745))  # CRC-32 of "decoder.weight"
    noise = generator.standard_normal((4, 3, 2), dtype=np.float32)
    assert np.array_equal(fill_array("decoder.weight", (4, 3, 2)), (noise / np.sqrt(6)).astype(np.float32))
    vector = fill_array("norm.weight", (1000,))
    assert abs(vector.mean() - 1.0) < 0.02 and abs(vector.std() - 0.1) < 0.01
    assert abs(fill_array("norm.bias", (1000,)).std() - 0.1) < 0.01
    assert fill_array("snake.alpha", (1, 1000, 1)).min() >= 1.0
    assert fill_array("scalar", ()).shape == ()


def test_fill_scales_by_pattern_and_leaves_counters_at_zero() -> None:
    keys = {"a.weight": [2, 2], "b.weight": ["float32", [2, 2]], "b.num_batches_tracked": ["int64", []]}
    filled = fill_state_dict(keys, [(r"^b\.w", 0.5), (r"weight$", 2.0)])
    assert torch.equal(filled["a.weight"], 2 * torch.from_numpy(fill_array("a.weight", (2, 2))))
    assert torch.equal(filled["b.weight"], torch.from_numpy(fill_array("b.weight", (2, 2))))
    assert filled["b.num_batches_tracked"].item() == 0


def test_one_of_several_needs_is_enough(tmp_path: Path) -> None:
    case = ReferenceCase(_copy("tiny_dense", tmp_path))
    held = next(iter(case.tensors))
    assert case.holds_any(held) and case.holds_any(f"outputs.nothing|{held}") and case.holds_any("family|nothing")
    assert not case.holds_any("outputs.nothing|nothing")


def test_stored_weights_replace_filled_ones(tmp_path: Path) -> None:
    case = _copy("tiny_dense", tmp_path)
    tensors = load_file(case / "tensors.safetensors") | {"weights.decoder.model.0.bias": torch.full((32,), 7.0)}
    save_file(tensors, case / "tensors.safetensors")
    state_dict = ReferenceCase(case).state_dict()
    assert state_dict["decoder.model.0.bias"].eq(7).all()
    assert not state_dict["encoder.block.0.bias"].eq(7).any()
