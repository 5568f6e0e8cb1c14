"""The training scripts, run as a user runs them, and what comes out of them."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.models.qwen3_tts.tester import RATE, recording
from tests.models.qwen3_tts.tester import Tester as Qwen3TTSTester
from tts_models import DEFAULT_VOICE, SnacFeatureExtractor, SnacModel, default_voice
from tts_models.audio import save_audio
from tts_models.models.maya1 import Maya1ForConditionalGeneration, Maya1Processor
from tts_models.models.qwen3_tts import Qwen3TTSForConditionalGeneration, Qwen3TTSProcessor


EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(monkeypatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Six recordings of one sentence by the default voice, with their table."""
    folder = tmp_path_factory.mktemp("recordings")
    model, processor = default_voice()
    lines = []
    for seed in range(6):
        speech = model.generate(**processor(text="The cat is here.", voice="female"), seed=seed)
        processor.save_audio(speech, folder / f"{seed}.wav")
        lines.append(f"{seed}.wav|The cat is here.|Female voice.")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("extra", [[], ["--lora", "--lora_rank", 4]])
def test_fine_tuning_the_default_voice_lowers_the_loss(recordings, tmp_path, monkeypatch, capsys, extra) -> None:
    run_example(
        monkeypatch, "finetune_maya1.py",
        "--metadata", recordings / "metadata.csv", "--output", tmp_path, "--max_steps", 6, "--batch_size", 5,
        "--learning_rate", 1e-3, "--warmup_steps", 1, *extra,
    )  # fmt: skip
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", capsys.readouterr().out))
    assert after < before
    model, processor = (
        Maya1ForConditionalGeneration.from_pretrained(tmp_path),
        Maya1Processor.from_pretrained(tmp_path),
    )
    assert model.generate(**processor(text="The cat."), seed=0).audio_lengths > 0
    original = Maya1ForConditionalGeneration.from_pretrained(DEFAULT_VOICE).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, original[name])}
    assert changed and not any(name.startswith("codec_model") for name in changed)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory) -> Path:
    """A tiny Qwen3-TTS Base model with four recordings of two speakers, `train.jsonl` beside it."""
    folder = tmp_path_factory.mktemp("qwen3_tts")
    Qwen3TTSTester().model(kind="base").save_pretrained(folder)
    Qwen3TTSTester().processor("base").save_pretrained(folder)
    lines = []
    for number in range(4):
        save_audio(folder / f"{number}.wav", recording(1.0, seed=number), RATE)
        line = {"audio": f"{number}.wav", "text": f"Text {number}.", "speaker": ["ann", "ben"][number % 2]}
        lines.append(json.dumps(line | ({"ref_audio": "0.wav", "language": "english"} if number == 2 else {})))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("extra", [[], ["--lora", "--lora_rank", 4]])
def test_fine_tuning_qwen3_tts_lowers_the_loss(base_model, tmp_path, monkeypatch, capsys, extra) -> None:
    run_example(
        monkeypatch, "finetune_qwen3_tts.py", "--model", base_model, "--data", base_model / "train.jsonl",
        "--output", tmp_path, "--max_steps", 8, "--batch_size", 3, "--gradient_accumulation_steps", 1,
        "--learning_rate", 5e-3, "--first_speaker_row", 70, *extra,
    )  # fmt: skip
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", capsys.readouterr().out))
    assert after < before
    model = Qwen3TTSForConditionalGeneration.from_pretrained(tmp_path)
    processor = Qwen3TTSProcessor.from_pretrained(tmp_path)
    assert processor.voices == ["ann", "ben"] and model.speaker_encoder is None
    speech = model.generate(**processor(text="Hello.", voice="ben"), seed=0, max_frames=4)
    assert speech.audio_lengths > 0
    original = Qwen3TTSForConditionalGeneration.from_pretrained(base_model)
    voice = Qwen3TTSProcessor.from_pretrained(base_model).prepare_voice(original, base_model / "0.wav")
    row = model.talker.model.codec_embedding.weight[70]
    assert torch.allclose(row, voice.speaker_embedding, atol=1e-5)  # ann: recordings 0 and, by `ref_audio`, 0 again


@pytest.mark.parametrize("line", ['{"audio": "0.wav"}', '{"audio": "none.wav", "text": "a"}', "[1]"])
def test_fine_tuning_qwen3_tts_names_the_bad_line(base_model, tmp_path, monkeypatch, line: str) -> None:
    data = base_model / "bad.jsonl"
    data.write_text((base_model / "train.jsonl").read_text() + line)
    with pytest.raises(ValueError, match="line 5"):
        run_example(
            monkeypatch, "finetune_qwen3_tts.py", "--model", base_model, "--data", data, "--output", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


CODEC = (
    '{"sampling_rate": 16000, "encoder_hidden_size": 4, "downsampling_ratios": [4, 4, 4], '
    '"decoder_hidden_size": 32, "codebook_size": 16, "vq_strides": [2, 1]}'
)


def test_codec_is_trained_in_two_phases_with_fixed_codes(recordings, tmp_path, monkeypatch) -> None:
    common = ["--audio", recordings, "--batch_size", 2, "--steps", 3, "--save_every", 3, "--crop_seconds", 0.2]
    first, second = tmp_path / "codes", tmp_path / "codec"
    run_example(
        monkeypatch, "train_snac.py", "--phase", "spectrogram", "--unquantized_steps", 1,
        "--config", CODEC, "--output", first, *common,
    )  # fmt: skip
    run_example(
        monkeypatch, "train_snac.py", "--phase", "waveform", "--model", first, "--output", second,
        "--config", '{"decoder_hidden_size": 64}', *common,
    )  # fmt: skip
    before, after = SnacModel.from_pretrained(first), SnacModel.from_pretrained(second)
    audio = SnacFeatureExtractor.from_pretrained(second)(torch.randn(4000).numpy(), sampling_rate=16000)
    for one, other in zip(before.encode(**audio).audio_codes, after.encode(**audio).audio_codes, strict=True):
        assert torch.equal(one, other)
    assert after.config.decoder_hidden_size == 2 * before.config.decoder_hidden_size
    assert not torch.equal(
        before.decoder.conv2.weight, after.decoder.conv2.weight[:, : before.decoder.conv2.in_channels]
    )


def test_codec_is_trained_at_once_against_discriminators(recordings, tmp_path, monkeypatch) -> None:
    run_example(
        monkeypatch, "train_snac.py", "--audio", recordings, "--output", tmp_path, "--adversarial", "--steps", 2,
        "--batch_size", 2, "--save_every", 2, "--crop_seconds", 0.2, "--config", CODEC,
    )  # fmt: skip
    assert SnacModel.from_pretrained(tmp_path).config.codebook_size == 16
