"""A saved model is the same model: whole, sharded, in another dtype, on a device map, with another attention."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from .comparing import assert_outputs_equal
from .model_tester import ModelTester


@torch.no_grad()
def _assert_same_forward(
    tester: ModelTester, model: PreTrainedModel, other: PreTrainedModel, atol: float = 0.0
) -> None:
    assert_outputs_equal(other(**tester.inputs()), model(**tester.inputs()), atol)


def _in_half(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _weight_files(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.suffix in {".safetensors", ".bin", ".pt", ".pth", ".pkl"})


class SavingTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    def test_save_load_round_trip(self, tester: ModelTester, tmp_path: Path) -> None:
        model = tester.model()
        model.save_pretrained(tmp_path)
        reloaded, info = tester.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        assert not reloaded.training
        _assert_same_forward(tester, model, reloaded)

    def test_auto_model_loads_the_class(self, tester: ModelTester, tmp_path: Path) -> None:
        tester.model().save_pretrained(tmp_path)
        assert type(AutoModel.from_pretrained(tmp_path)) is tester.model_class

    def test_only_safetensors_are_written(self, tester: ModelTester, tmp_path: Path) -> None:
        tester.model().save_pretrained(tmp_path)
        assert _weight_files(tmp_path) == ["model.safetensors"]

    def test_sharded_round_trip(self, tester: ModelTester, tmp_path: Path) -> None:
        model = tester.model()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        model.save_pretrained(tmp_path, max_shard_size=max(size // 3, 1))
        assert len(_weight_files(tmp_path)) > 1
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(_weight_files(tmp_path))
        # Where in a file a weight lies decides its alignment in memory, and with it the last bit of a product.
        _assert_same_forward(tester, model, tester.model_class.from_pretrained(tmp_path), atol=1e-6)

    def test_saving_twice_writes_the_same_weights(self, tester: ModelTester, tmp_path: Path) -> None:
        tester.model().save_pretrained(tmp_path / "first")
        tester.model_class.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
        first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()

    def test_loads_in_half_precision(self, tester: ModelTester, tmp_path: Path) -> None:
        tester.model().save_pretrained(tmp_path)
        model = tester.model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert torch.bfloat16 in {p.dtype for p in model.parameters()}
        inputs = {name: _in_half(value) for name, value in tester.inputs().items()}
        with torch.no_grad():
            output = model(**inputs)
        floats = [v for v in output.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
        assert floats and all(v.isfinite().all() for v in floats)

    def test_loads_on_a_device_map(self, tester: ModelTester, tmp_path: Path) -> None:
        pytest.importorskip("accelerate")
        model = tester.model()
        model.save_pretrained(tmp_path)
        placed = tester.model_class.from_pretrained(tmp_path, device_map="cpu")
        assert {p.device.type for p in placed.parameters()} == {"cpu"}
        _assert_same_forward(tester, model, placed)

    def test_attention_implementations_agree(self, tester: ModelTester, tmp_path: Path) -> None:
        if not tester.attn_implementations:
            pytest.skip("a network without attention")
        tester.model().save_pretrained(tmp_path)
        first, *others = (
            tester.model_class.from_pretrained(tmp_path, attn_implementation=name)
            for name in tester.attn_implementations
        )
        for other in others:
            _assert_same_forward(tester, first, other, atol=1e-5)

    def test_can_be_built_without_memory(self, tester: ModelTester) -> None:
        with torch.device("meta"):
            model = tester.model_class(tester.config())
        assert {p.device.type for p in model.parameters()} == {"meta"}

    def test_foreign_weights_never_load_silently(self, tester: ModelTester, tmp_path: Path) -> None:
        """Weights under other names leave every parameter random: that must be an error."""
        from safetensors.torch import load_file, save_file

        tester.model().save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        foreign = {f"somewhere.else.{name}": tensor for name, tensor in weights.items()}
        save_file(foreign, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises((ValueError, OSError, RuntimeError), match="convert_"):
            tester.model_class.from_pretrained(tmp_path)

    def test_truncated_weights_are_refused(self, tester: ModelTester, tmp_path: Path) -> None:
        tester.model().save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(Exception, match=r"(?i)safetensors|header|incomplete|corrupt"):
            tester.model_class.from_pretrained(tmp_path)
