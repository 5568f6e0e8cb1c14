"""S3Gen's processor: rows of tokens, voices of every form, files, errors."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from transformers import AutoProcessor

from tests.models.s3gen.tester import Tester, generators, random_tokens, recording, voice
from tts_models import S3GenModel, S3GenProcessor, save_s3gen_reference


RATE = 24000


@pytest.fixture(scope="module")
def model() -> S3GenModel:
    return Tester().model().eval()


@pytest.fixture(scope="module")
def processor(model: S3GenModel) -> S3GenProcessor:
    return S3GenProcessor.from_config(model.config)


def hum() -> tuple[torch.Tensor, int]:
    return recording(0.4, RATE), RATE


def spoken(model: S3GenModel, inputs: Any) -> torch.Tensor:
    return model.inference(**inputs, generator=generators(len(inputs["speech_tokens"])))[0]


def test_rows_of_a_batch_equal_single_rows(model: S3GenModel, processor: S3GenProcessor) -> None:
    rows = [random_tokens(1, 12)[0].tolist(), random_tokens(1, 7, seed=1)[0].tolist()]
    together = spoken(model, processor(rows, voice=hum()))
    alone = spoken(model, processor(rows[0], voice=hum()))
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)
    assert not together[1, 7 * 960 :].any() and together[1, : 7 * 960].any()


def test_prepared_voice_speaks_as_its_recording(model: S3GenModel, processor: S3GenProcessor, tmp_path: Path) -> None:
    """Given as a dictionary, and as the file it was saved to."""
    prepared = processor.prepare_voice(model, hum())
    save_s3gen_reference(prepared, tmp_path / "voice.safetensors")
    tokens = random_tokens(1, 9)
    expected = spoken(model, processor(tokens, voice=hum()))
    for each in (prepared, tmp_path / "voice.safetensors"):
        torch.testing.assert_close(spoken(model, processor(tokens, voice=each)), expected, atol=1e-5, rtol=0)


def test_a_voice_for_every_row(model: S3GenModel, processor: S3GenProcessor) -> None:
    """References of different lengths stand beside each other, and each row hears its own."""
    voices = [voice(model.config), voice(model.config, tokens=11, seed=5)]
    tokens = random_tokens(2, 8)
    together = spoken(model, processor(tokens, voice=voices))
    for row in range(2):
        inputs = processor(tokens[row], voice=voices[row])
        alone = model.inference(**inputs, generator=generators(2)[row : row + 1])[0]
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=0)


def test_marks_are_left_out(processor: S3GenProcessor) -> None:
    inputs = processor([5, 6561, 7, 8, 6562, 9], voice=hum())
    assert inputs["speech_tokens"].tolist() == [[7, 8]] and inputs["speech_token_lens"].tolist() == [2]


def test_files(model: S3GenModel, processor: S3GenProcessor, tmp_path: Path) -> None:
    processor.save_audio(spoken(model, processor(random_tokens(1, 5), voice=hum())), tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").samplerate == RATE


def test_round_trip(model: S3GenModel, processor: S3GenProcessor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(reloaded) is S3GenProcessor and reloaded.to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speech_tokens": []}, "`speech_tokens` must be"),
        ({"speech_tokens": [[1], []]}, "`speech_tokens` 1 holds no speech token"),
        ({"speech_tokens": [6561, 6562]}, "`speech_tokens` 0 holds no speech token"),
        ({"speech_tokens": [7000]}, "`speech_tokens` 0 must lie in 0 … 6562"),
        ({"speech_tokens": [0.5]}, "`speech_tokens` 0 must hold integers"),
        ({"voice": None}, "`voice` is needed"),
        ({"voice": "none.wav"}, "`voice` 'none.wav' is no file"),
        ({"voice": (torch.zeros(100), RATE)}, "`voice` lasts 0.00 s"),
        ({"voice": [hum(), hum()]}, "`voice` holds 2 entries for 1 rows"),
        ({"voice": {"prompt_token": torch.zeros(1, 3)}}, "`ref_dict` must hold"),
        ({"voice": torch.zeros(RATE)}, "`sampling_rate` is needed"),
        ({"return_tensors": "np"}, "`return_tensors` must be 'pt'"),
    ],
)
def test_errors(processor: S3GenProcessor, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**({"speech_tokens": [1, 2], "voice": hum()} | changes))


def test_recordings_and_references_do_not_mix(model: S3GenModel, processor: S3GenProcessor) -> None:
    with pytest.raises(ValueError, match="`voice` mixes"):
        processor([[1], [2]], voice=[hum(), voice(model.config)])
