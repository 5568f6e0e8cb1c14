"""Folders as released load as they are, whole, and never with silently random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForTextToWaveform, AutoProcessor

from tests.common.comparing import assert_close
from tests.models.qwen3_tts.tester import TALKER, Tester, prepared_voice, write_released_folder
from tts_models import (
    Qwen3TTSConfig,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSSpeakerEncoder,
    Qwen3TTSTalkerConfig,
)


@pytest.fixture(scope="module", params=["base", "custom_voice", "voice_design"])
def kind(request: pytest.FixtureRequest) -> str:
    """The three kinds of checkpoint."""
    return request.param


@pytest.fixture
def released(kind: str, tmp_path: Path) -> Path:
    """A tiny folder in the released layout."""
    write_released_folder(Tester().model(kind=kind), tmp_path / "released")
    return tmp_path / "released"


def speak(model: Qwen3TTSForConditionalGeneration, folder: Path, kind: str) -> torch.Tensor:
    """A few frames."""
    voice = prepared_voice() if kind == "base" else None
    inputs = AutoProcessor.from_pretrained(folder)(text="Hello.", voice=voice, language="english")
    return model.generate(**inputs, seed=0, max_frames=4, min_new_tokens=5).audio


def test_released_folder_loads_and_speaks(released: Path, kind: str) -> None:
    model = AutoModelForTextToWaveform.from_pretrained(released)
    original = Tester().model(kind=kind)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in original.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.speech_tokenizer.parameters())
    assert torch.equal(speak(model, released, kind), speak(original, released, kind))


def test_released_folder_saves_as_one(released: Path, kind: str, tmp_path: Path) -> None:
    model = AutoModelForTextToWaveform.from_pretrained(released)
    model.save_pretrained(tmp_path / "joined")
    AutoProcessor.from_pretrained(released).save_pretrained(tmp_path / "joined")
    joined = AutoModelForTextToWaveform.from_pretrained(tmp_path / "joined")
    assert joined.config.speech_tokenizer_config is not None
    assert torch.equal(speak(joined, tmp_path / "joined", kind), speak(model, released, kind))


def test_half_precision_keeps_the_codec_whole(released: Path, kind: str) -> None:
    model = AutoModelForTextToWaveform.from_pretrained(released, dtype=torch.bfloat16)
    assert {p.dtype for p in model.talker.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.speech_tokenizer.parameters()} == {torch.float32}
    assert speak(model, released, kind).isfinite().all()


@pytest.mark.parametrize("lost", ["talker.codec_head.weight", "talker.code_predictor.lm_head.1.weight"])
def test_missing_weights_are_refused(released: Path, lost: str) -> None:
    weights = load_file(released / "model.safetensors")
    weights.pop(lost)
    save_file(weights, released / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="convert_qwen3_tts_to_hf"):
        AutoModelForTextToWaveform.from_pretrained(released)


def test_missing_codec_is_refused(released: Path) -> None:
    shutil.rmtree(released / "speech_tokenizer")
    with pytest.raises(ValueError, match="codec"):
        AutoModelForTextToWaveform.from_pretrained(released)


def test_speaker_encoder_loads_alone(tmp_path: Path) -> None:
    encoder = Tester().model(kind="base").speaker_encoder
    encoder.save_pretrained(tmp_path)
    reloaded = Qwen3TTSSpeakerEncoder.from_pretrained(tmp_path)
    features = torch.randn(2, 9, 16)
    with torch.no_grad():
        assert_close(reloaded(features).speaker_embeddings, encoder(features).speaker_embeddings, 1e-6)
    for wrong in (torch.randn(1, 4, 16), torch.randn(1, 9, 15), torch.randn(9, 16)):
        with pytest.raises(ValueError, match="input_features"):
            encoder(wrong)


def test_released_configuration_is_read(tmp_path: Path) -> None:
    """Keys as in the released files, among them some that mean nothing to the network."""
    talker = {
        "model_type": "qwen3_tts_talker",
        "rope_theta": 500000,
        "rope_scaling": {"interleaved": True, "mrope_section": [2, 1, 1], "rope_type": "default", "type": "default"},
        "position_id_per_seconds": 13,
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "code_predictor_config": {"model_type": "qwen3_tts_talker_code_predictor", "rope_scaling": None},
    }
    content = {"model_type": "qwen3_tts", "tts_model_type": "base", "talker_config": talker}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, Qwen3TTSConfig)
    assert config.talker_config.rope_parameters == {"rope_type": "default", "rope_theta": 500000.0}
    assert config.talker_config.code_predictor_config.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    assert config.talker_config.code_predictor_config.talker_hidden_size == 64
    assert config.speaker_encoder_config.enc_dim == 64
    assert config.sampling_rate == 24000 and config.samples_per_frame == 1920


def test_stretched_rotation_and_windows_are_kept() -> None:
    stretched = {"type": "linear", "factor": 2.0, "mrope_section": [2, 1, 1]}
    config = Qwen3TTSTalkerConfig(**TALKER, rope_scaling=stretched, rope_theta=5.0)
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    config = Qwen3TTSTalkerConfig(**TALKER, use_sliding_window=True, sliding_window=6)
    assert set(config.layer_types) == {"sliding_attention"}
    model = Tester().model()
    model.talker.model.config = config
    with pytest.raises(ValueError, match="sliding"):
        model.enable_streaming_optimizations()
