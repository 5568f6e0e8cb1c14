"""The examples of S3Gen's page, and those of the draft it follows, on a tiny converted checkpoint."""

import sys
import types
from pathlib import Path

import convert_s3gen_to_hf as conversion
import pytest
import soundfile
import torch

from tests.common.page_examples import page_examples, run_example
from tests.conversion.test_convert_s3gen import released_state
from tests.models.s3gen.tester import recording
from tts_models import S3GenProcessor
from tts_models.audio import load_audio, save_audio


EXAMPLES = page_examples("s3gen")
# As the draft of the model's page in `transformers` has them, with our package's name.
DRAFT = """
from tts_models import S3GenModel
import torch
import torchaudio

model = S3GenModel.from_pretrained("s3gen-hf")
model.eval()
ref_wav, ref_sr = torchaudio.load("reference.wav")
speech_tokens = torch.randint(0, 6561, (1, 100))
with torch.no_grad():
    waveform, _ = model.inference(
        speech_tokens=speech_tokens,
        ref_wav=ref_wav,
        ref_sr=ref_sr,
        finalize=True
    )
torchaudio.save("output.wav", waveform.cpu(), 24000)

with torch.no_grad():
    mel_spectrograms = model(
        speech_tokens=speech_tokens,
        ref_wav=ref_wav,
        ref_sr=ref_sr,
        finalize=True
    )
from tts_models import HiFTNetModel

hiftnet = model.mel2wav  # or load separately
assert isinstance(hiftnet, HiFTNetModel)
cache_source = torch.zeros(1, 1, 0)
with torch.no_grad():
    waveform, _ = hiftnet.inference(
        speech_feat=mel_spectrograms,
        cache_source=cache_source
    )

tokens1, tokens2 = speech_tokens[:, :40], speech_tokens[:, 40:]
ref_dict = model.embed_ref(ref_wav, ref_sr)
with torch.no_grad():
    mel1 = model(tokens1, ref_dict=ref_dict, finalize=True)
    mel2 = model(tokens2, ref_dict=ref_dict, finalize=True)
"""


@pytest.fixture(scope="module")
def checkpoint() -> conversion.S3GenModel:
    """A tiny checkpoint in upstream's layout, converted."""
    return conversion.load_s3gen(released_state())


@pytest.fixture
def folder(checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with that checkpoint and two recordings, in which the examples run."""
    checkpoint.config.num_flow_steps = 1  # the examples take the default
    checkpoint.save_pretrained(tmp_path / "s3gen-hf")
    S3GenProcessor.from_config(checkpoint.config).save_pretrained(tmp_path / "s3gen-hf")
    for name, rate in (("reference.wav", 22050), ("source.wav", 16000)):
        save_audio(tmp_path / name, recording(0.8, rate).numpy(), rate)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_page_runs(number: int, folder: Path) -> None:
    run_example(EXAMPLES[number])


def test_examples_of_the_draft_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> tuple[torch.Tensor, int]:
        samples, rate = load_audio(path)
        return torch.from_numpy(samples)[None], rate

    def save(path: str, waveform: torch.Tensor, rate: int) -> None:
        save_audio(path, waveform, rate)

    # torchaudio is no dependency of the package: two functions take its place.
    monkeypatch.setitem(sys.modules, "torchaudio", types.SimpleNamespace(load=load, save=save))
    names: dict = {"__name__": "__main__"}
    exec(compile(DRAFT, "draft", "exec"), names)
    assert soundfile.info("output.wav").frames == 96000
    assert names["mel_spectrograms"].shape == (1, 80, 200) and names["waveform"].shape == (1, 96000)
    assert names["mel1"].shape[2] + names["mel2"].shape[2] == 200
