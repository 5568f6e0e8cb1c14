"""Texts and voices of MetaVoice."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.models.metavoice.tester import END_OF_TEXT, SPEAKER, TEXT_OFFSET, Tester, prepared_voice, recording
from tts_models import MetaVoiceForConditionalGeneration, MetaVoiceProcessor, MetaVoiceVoice
from tts_models.audio import save_audio


@pytest.fixture(scope="module")
def processor() -> MetaVoiceProcessor:
    return Tester().processor()


@pytest.fixture(scope="module")
def model() -> MetaVoiceForConditionalGeneration:
    return Tester().model()


# Texts


def test_ids_of_a_text(processor: MetaVoiceProcessor) -> None:
    given = processor(text=["the end", "a"])
    assert given["input_ids"].shape == given["attention_mask"].shape
    row = given["input_ids"][0, given["attention_mask"][0].bool()].tolist()
    assert row[-1] == END_OF_TEXT and all(TEXT_OFFSET <= each < END_OF_TEXT for each in row[:-1])
    assert processor.tokenizer.decode([each - TEXT_OFFSET for each in row[:-1]]) == "the end"
    assert given["part_counts"].tolist() == [1, 1] and "continued_ids" not in given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s “quoted” — really…", 'It\'s "quoted" - really...'),
        ("  Café\tat\nhalf past *two*  ", "Café at half past two"),
        ("£5 for ½ a day", "£5 for ½ a day"),
        ("A sign™", "A signTM"),
    ],
)
def test_texts_are_normalised(processor: MetaVoiceProcessor, text: str, expected: str) -> None:
    assert processor.prepare_text(text) == expected


@pytest.mark.parametrize(("text", "named"), [("Привет", "U+041F"), ("你好", "U+4F60"), ("smile 😀", "U+1F600")])
def test_unknown_characters_are_named(processor: MetaVoiceProcessor, text: str, named: str) -> None:
    with pytest.raises(ValueError) as error:
        processor(text=["Good.", text])
    assert named in str(error.value)


def test_the_end_of_text_in_a_text_is_text(processor: MetaVoiceProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    for each in (processor, MetaVoiceProcessor.from_pretrained(tmp_path)):
        ids = each(text=["a <|endoftext|> b"])["input_ids"][0].tolist()
        assert ids.count(END_OF_TEXT) == 1 and ids[-1] == END_OF_TEXT and len(ids) > 10


def test_long_texts_are_split_at_sentences(processor: MetaVoiceProcessor) -> None:
    short, long = "A short one.", "This is a sentence of some length, " * 3 + "and its end. And another. " * 5
    given = processor(text=[short, long])
    assert given["part_counts"].tolist() == [1, 3]
    assert given["continued_ids"].shape[0] == given["input_ids"].shape[0] == 4
    parts = [
        processor.tokenizer.decode((row[mask.bool()][:-1] - TEXT_OFFSET).tolist())
        for row, mask in zip(given["continued_ids"], given["continued_mask"], strict=True)
    ]
    assert parts[0] == f" {short}" and max(map(len, parts)) <= 101
    assert "".join(parts[1:]).strip() == processor.prepare_text(long)
    assert processor(text=[long], split_long_text=False)["part_counts"].tolist() == [1]


# Recordings


@pytest.mark.parametrize("seconds", [1, 31, 200])
def test_lengths_of_references(
    processor: MetaVoiceProcessor,
    model: MetaVoiceForConditionalGeneration,
    seconds: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        voice = processor.prepare_voice(model, recording(seconds), sampling_rate=16000)
    assert (f"lasts {seconds}.0 s" in caplog.text) == (seconds < 30)
    assert voice.speaker_embedding.shape == (SPEAKER,)
    torch.testing.assert_close(voice.speaker_embedding.norm(), torch.tensor(1.0))


def test_a_short_reference_is_refused_where_that_is_wanted(processor: MetaVoiceProcessor) -> None:
    strict = Tester().processor(strict_reference=True)
    with pytest.raises(ValueError, match="at least 30 s"):
        strict(text=["Hello."], voice=(recording(29.9), 16000))
    strict(text=["Hello."], voice=(recording(29.9), 16000), strict_reference=False)
    # Several recordings count together.
    strict(text=["Hello."], voice=((recording(20), 16000), (recording(11, seed=1), 16000)))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_kinds_of_files(processor: MetaVoiceProcessor, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"voice{suffix}"
    save_audio(path, recording(2.0, rate=22050), 22050)
    features = processor(text=["Hello."], voice=path)["voice_features"]
    plain = processor(text=["Hello."], voice=(recording(2.0, rate=22050), 22050))["voice_features"]
    assert features.shape == plain.shape
    assert (features - plain).abs().mean() < 0.2 * plain.abs().mean()


def test_stereo_files_are_mixed(processor: MetaVoiceProcessor, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.stack([recording()] * 2, axis=1), 16000)
    assert processor(text=["Hello."], voice=tmp_path / "stereo.wav")["voice_counts"].tolist() == [1]


def test_several_references_are_averaged(
    processor: MetaVoiceProcessor, model: MetaVoiceForConditionalGeneration
) -> None:
    sounds = [(recording(seed=seed), 16000) for seed in (0, 1)]
    one, other, both = (processor.prepare_voice(model, each).speaker_embedding for each in (*sounds, sounds))
    expected = torch.nn.functional.normalize(one + other, dim=0)
    torch.testing.assert_close(both, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("address", ["http://a.org/b.wav", "HTTPS://a.org/b.wav", "s3://a/b.wav"])
def test_nothing_is_fetched(processor: MetaVoiceProcessor, address: str) -> None:
    with pytest.raises(ValueError, match="nothing is fetched"):
        processor(text=["Hello."], voice=address)


# Prepared voices


def test_voices_are_kept_by_content(
    processor: MetaVoiceProcessor, model: MetaVoiceForConditionalGeneration, tmp_path: Path, monkeypatch
) -> None:
    path, kept = tmp_path / "voice.wav", tmp_path / "voices"
    save_audio(path, recording(seed=0), 16000)
    first = processor.prepare_voice(model, path, cache_dir=kept)
    save_audio(path, recording(seed=1), 16000)
    second = processor.prepare_voice(model, path, cache_dir=kept)
    assert len(list(kept.iterdir())) == 2
    assert not torch.equal(first.speaker_embedding, second.speaker_embedding)
    monkeypatch.setattr(type(model), "embed_voice", lambda *_: pytest.fail("computed again"))
    again = processor.prepare_voice(model, path, cache_dir=kept)
    assert torch.equal(again.speaker_embedding, second.speaker_embedding)


def test_another_encoder_makes_another_voice(processor: MetaVoiceProcessor, tmp_path: Path) -> None:
    sound = (recording(), 16000)
    for seed in (0, 1):
        model = Tester().model()
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.speaker_encoder.projection.weight)
        processor.prepare_voice(model, sound, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_saved_voices_speak(processor: MetaVoiceProcessor, tmp_path: Path) -> None:
    voice = prepared_voice(3)
    voice.save(tmp_path / "friend.safetensors")
    given = processor(text=["Hello.", "Hello."], voice=[tmp_path / "friend.safetensors", None])
    assert torch.equal(given["speaker_embeddings"][0], voice.speaker_embedding)
    assert torch.equal(given["speaker_embeddings"][1], processor.default_voice.speaker_embedding)


def test_the_default_voice_lies_in_the_folder(tmp_path: Path) -> None:
    processor = Tester().processor()
    processor.default_voice = prepared_voice(4)
    processor.save_pretrained(tmp_path)
    reloaded = MetaVoiceProcessor.from_pretrained(tmp_path)
    assert torch.equal(reloaded.default_voice.speaker_embedding, prepared_voice(4).speaker_embedding)


def test_files_that_are_no_voice(processor: MetaVoiceProcessor, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no voice")
    with pytest.raises(ValueError, match="not a safetensors file"):
        processor(text=["Hello."], voice=tmp_path / "text.safetensors")
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        MetaVoiceVoice.load(tmp_path / "none.safetensors")
