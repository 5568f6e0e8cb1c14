"""Weights of fewer bits, through `quantization_config`: they reach the first stage, and nothing else."""

from pathlib import Path

import pytest
import torch
from transformers import TorchAoConfig

from tests.models.metavoice.test_first_stage_metavoice import speak
from tests.models.metavoice.tiny import TINY
from tts_models import MetaVoiceConfig, MetaVoiceForConditionalGeneration


torchao = pytest.importorskip("torchao.quantization")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    MetaVoiceForConditionalGeneration(MetaVoiceConfig(**TINY)).save_pretrained(path)
    return path


def load_int8(folder: Path) -> MetaVoiceForConditionalGeneration:
    config = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    return MetaVoiceForConditionalGeneration.from_pretrained(folder, quantization_config=config)


def quantized_names(model: torch.nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if hasattr(value, "qdata")]


def test_eight_bits(folder: Path, tmp_path: Path) -> None:
    model, plain = load_int8(folder), MetaVoiceForConditionalGeneration.from_pretrained(folder)
    names = quantized_names(model)
    assert len(names) == 14 and all(".layers." in name and name.startswith("first_stage.") for name in names)
    with torch.no_grad():
        ids = torch.arange(20, 40)[None]
        difference = (model(ids).logits - plain(ids).logits).norm() / plain(ids).logits.norm()
    assert 0 < difference < 0.03
    spoken = speak(model.first_stage, seeds=None)
    model.save_pretrained(tmp_path)
    again = MetaVoiceForConditionalGeneration.from_pretrained(tmp_path)
    assert quantized_names(again) == names
    assert speak(again.first_stage, seeds=None) == spoken


def test_eight_bits_in_lean_steps(folder: Path) -> None:
    """The lean steps read the same codes; only their inputs are quantised besides."""
    model = load_int8(folder)
    spoken = speak(model.first_stage, seeds=None)
    model.enable_fast_steps(int8=True)
    fast = speak(model.first_stage, seeds=None)
    same = [one == other for a, b in zip(spoken, fast, strict=True) for one, other in zip(a, b, strict=False)]
    assert sum(same) / len(same) > 0.3
    model.enable_fast_steps()
    assert speak(model.first_stage, seeds=None) == spoken
    model.disable_fast_steps()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_four_bits_need_a_gpu(folder: Path) -> None:
    config = TorchAoConfig(torchao.Int4WeightOnlyConfig(group_size=32))
    with pytest.raises(ValueError, match="Int4WeightOnlyConfig: 4-bit weights need a CUDA device"):
        MetaVoiceForConditionalGeneration.from_pretrained(folder, quantization_config=config)
