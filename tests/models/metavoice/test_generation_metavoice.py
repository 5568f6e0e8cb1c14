"""What is MetaVoice's own in speaking: two stages, parts that go on from one another, what makes the sound."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, pipeline

from tests.models.metavoice.tester import ALL_PARTS, END, FRAME, RATE, SPEAKER, EndAfter, Tester, recording
from tts_models import MetaVoiceForConditionalGeneration, SpeechOutput
from tts_models.models.metavoice.request_metavoice import MetaVoiceChunks
from tts_models.models.metavoice.streaming_metavoice import pair_codes
from tts_models.speech_generation import collect_stream


LONG = "The first one. And the second. This is the last."


class EndBias(LogitsProcessor):
    """Makes ends likely, so that the rows of a batch stop at times of their own."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, END] += 4.0
        return scores


@pytest.fixture(scope="module")
def model() -> MetaVoiceForConditionalGeneration:
    return Tester().model()


@pytest.fixture(scope="module")
def whole_model() -> MetaVoiceForConditionalGeneration:
    """With diffusion and enhancer."""
    return Tester().model(**ALL_PARTS)


def inputs(*texts: str) -> dict[str, torch.Tensor]:
    """Of texts that are split into parts so small that several fit into the tiny model."""
    processor = Tester().processor(max_pass_characters=30, part_characters=18)
    return dict(processor(text=list(texts) or ["One, two, three."]))


def speak(model: MetaVoiceForConditionalGeneration, *texts: str, **options: Any) -> SpeechOutput:
    return model.generate(**inputs(*texts), **{"seed": 0, "max_new_tokens": 60} | options)


def rows_of(output: SpeechOutput) -> list[torch.Tensor]:
    lengths = output.audio_lengths.tolist()
    return [row[:length] for row, length in zip(output.audio, lengths, strict=True)]


# Rows and ends


def test_rows_end_at_their_own_times(model: MetaVoiceForConditionalGeneration) -> None:
    texts = ["One.", "Two words.", "Three more words.", "Four."]
    options = {"seed": [1, 2, 3, 4], "max_new_tokens": 150, "logits_processor": [EndBias()]}
    together = speak(model, *texts, **options)
    assert len(set(together.audio_lengths.tolist())) > 2 and "stop" in together.finish_reason
    for row, text in enumerate(texts):
        alone = speak(model, text, **options | {"seed": row + 1})
        torch.testing.assert_close(rows_of(together)[row], alone.audio[0], atol=1e-5, rtol=0)
        assert torch.equal(together.audio_codes[row][0], alone.audio_codes[0][0])
        assert together.finish_reason[row] == alone.finish_reason[0]


def test_an_end_at_once_is_silence(model: MetaVoiceForConditionalGeneration) -> None:
    options = {"logits_processor": [EndAfter(0)]}
    output = speak(model, "One.", "Two.", **options)
    assert output.audio.shape == (2, 0) and output.finish_reason == ["stop", "stop"]
    assert output.sequences.tolist() == [[END], [END]]
    chunks = list(model.generate_stream(**inputs("One.", "Two."), seed=0, **options))
    assert chunks[-1].is_final.all() and collect_stream(chunks).audio.shape == (2, 0)


def test_one_row_ends_at_once(whole_model: MetaVoiceForConditionalGeneration) -> None:
    class EndFirst(LogitsProcessor):
        def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            if len(scores) == 2:
                scores[0] = -float("inf")
                scores[0, END] = 0.0
            return scores

    output = speak(whole_model, "One.", "Two.", max_new_tokens=20, logits_processor=[EndFirst()])
    assert output.audio_lengths.tolist() == [0, 10 * FRAME * 2] and not output.audio[0].any()


@pytest.mark.parametrize("frames", [1, 3, 6, 7])
def test_very_short_speech(model: MetaVoiceForConditionalGeneration, frames: int) -> None:
    options = {"logits_processor": [EndAfter(2 * frames)], "second_stage": "chunked"}
    output = speak(model, **options)
    assert output.audio_lengths.tolist() == [frames * FRAME] and output.finish_reason == ["stop"]
    del options["second_stage"]
    streamed = collect_stream(model.generate_stream(**inputs(), seed=0, **options))
    torch.testing.assert_close(streamed.audio, output.audio, atol=1e-5, rtol=0)


def test_a_token_without_its_partner_is_left_out(model: MetaVoiceForConditionalGeneration) -> None:
    output = speak(model, max_new_tokens=7)
    assert output.audio_codes[0][0].shape == (4, 3) and output.sequences.shape == (1, 7)
    assert output.finish_reason == ["length"]


def test_codes_pair_up_in_their_order() -> None:
    config = Tester().config().first_stage_config
    assert list(pair_codes(config, [1, 9, 2, 3, 10, 11, 16, 300])) == [[1, 1], [2, 2], [3, 3]]


def test_order_of_the_codes_is_enforced_by_default(model: MetaVoiceForConditionalGeneration) -> None:
    for enforced in (True, False):
        output = speak(model, max_new_tokens=40, enforce_alternation=enforced)
        codebooks = (output.sequences[0] // 8).tolist()
        assert (codebooks == [0, 1] * 20) == enforced


# Parameters


def test_greedy_speech_needs_no_seed(model: MetaVoiceForConditionalGeneration) -> None:
    first, again = (speak(model, seed=seed, do_sample=False) for seed in (0, 1))
    assert torch.equal(first.audio, again.audio)


def test_guidance_changes_speech_and_can_be_left_out(model: MetaVoiceForConditionalGeneration) -> None:
    codes = [
        speak(model, do_sample=False, guidance_scale=scale, max_new_tokens=80).sequences.tolist()
        for scale in (1.0, 3.0, [3.0, 2.0])
    ]
    assert codes[0] != codes[1] and codes[1] != codes[2]


def test_recordings_speak_as_prepared_voices(model: MetaVoiceForConditionalGeneration) -> None:
    processor, sound = Tester().processor(), [(recording(2.0, seed=seed), 16000) for seed in (0, 1)]
    mixed = processor(text=["One.", "Two."], voice=[sound, processor.default_voice])
    assert mixed["voice_counts"].tolist() == [2, 0] and not mixed["speaker_embeddings"][0].any()
    prepared = processor(text=["One.", "Two."], voice=[processor.prepare_voice(model, sound), None])
    options = {"seed": 0, "max_new_tokens": 20}
    one, other = model.generate(**mixed, **options), model.generate(**prepared, **options)
    torch.testing.assert_close(one.audio, other.audio, atol=1e-6, rtol=0)


def test_half_precision_speaks(tmp_path: Path) -> None:
    Tester().model().save_pretrained(tmp_path)
    model = MetaVoiceForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.first_stage.dtype == torch.bfloat16 and model.codec_model.dtype == torch.float32
    output = speak(model, max_new_tokens=30)
    assert output.audio.dtype == torch.float32 and output.audio.isfinite().all() and output.audio.any()


# What makes the sound


def test_diffusion_and_enhancer_are_the_default(whole_model: MetaVoiceForConditionalGeneration) -> None:
    best, plain = speak(whole_model), speak(whole_model, decoder="encodec")
    assert (best.sampling_rate, plain.sampling_rate) == (48000, RATE)
    assert best.audio.shape == (1, 2 * plain.audio.shape[1]) and best.audio.isfinite().all()
    assert torch.equal(best.audio_codes[0][0], plain.audio_codes[0][0])
    diffused = speak(whole_model, enhance=False)
    assert diffused.sampling_rate == RATE and diffused.audio.shape == plain.audio.shape
    cleaned = speak(whole_model, decoder="encodec", enhance=True)
    assert cleaned.sampling_rate == 48000


def test_diffused_rows_do_not_know_of_each_other(whole_model: MetaVoiceForConditionalGeneration) -> None:
    texts, options = ["One.", "Two words."], {"max_new_tokens": 90, "logits_processor": [EndBias()]}
    together = speak(whole_model, *texts, seed=[1, 2], **options)
    for row, text in enumerate(texts):
        alone = speak(whole_model, text, seed=row + 1, **options)
        torch.testing.assert_close(rows_of(together)[row], alone.audio[0], atol=1e-5, rtol=0)


def test_pipeline_knows_the_rate(whole_model: MetaVoiceForConditionalGeneration, tmp_path: Path) -> None:
    whole_model.save_pretrained(tmp_path)
    Tester().processor().save_pretrained(tmp_path)
    spoken = pipeline("text-to-speech", model=str(tmp_path))("One.", generate_kwargs={"max_new_tokens": 20})
    assert spoken["sampling_rate"] == 48000 and spoken["audio"].shape == (10 * FRAME * 2,)


# Streams


@pytest.mark.parametrize("enhance", [False, True])
@pytest.mark.parametrize("continuation", [False, True])
def test_streams_of_long_texts(
    whole_model: MetaVoiceForConditionalGeneration, enhance: bool, continuation: bool
) -> None:
    options = {"seed": [3, 4], "enhance": enhance, "continuation": continuation, "logits_processor": [EndAfter(30)]}
    given = inputs(LONG, "A short one.")
    assert given["part_counts"].tolist() == [3, 1]
    whole = whole_model.generate(**given, decoder="encodec", second_stage="chunked", **options)
    chunks = list(whole_model.generate_stream(**given, **options))
    streamed = collect_stream(chunks)
    assert len(chunks) > 3 and {chunk.sampling_rate for chunk in chunks} == {48000 if enhance else RATE}
    torch.testing.assert_close(streamed.audio, whole.audio, atol=1e-4, rtol=0)
    assert torch.equal(streamed.audio_lengths, whole.audio_lengths)


def test_chunks_do_not_grow(model: MetaVoiceForConditionalGeneration) -> None:
    # EnCodec waits for its first seven frames.
    sizes = MetaVoiceChunks(first=4, steady=10, first_until=8, lookahead=3)
    chunks = list(model.generate_stream(**inputs(), seed=0, max_new_tokens=150, chunks=sizes))
    frames = [chunk.audio.shape[1] // FRAME for chunk in chunks if chunk.audio.shape[1]]
    assert frames[:-1] == [14, 10, 10, 10, 10, 10] and sum(frames) == 75


def test_chunks_need_no_more_room_than_there_is() -> None:
    """Frames beyond the second stage's positions are read in windows, in streams and otherwise."""
    model = Tester().model(second_stage_config={"max_position_embeddings": 40})
    options = {"seed": 0, "max_new_tokens": 150}
    for sizes in (MetaVoiceChunks(), MetaVoiceChunks(first=5, steady=20, first_until=9, lookahead=2)):
        whole = model.generate(**inputs("One."), **options, second_stage="chunked", chunks=sizes)
        streamed = collect_stream(model.generate_stream(**inputs("One."), **options, chunks=sizes))
        assert whole.audio_codes[0][0].shape == (4, 75)
        torch.testing.assert_close(streamed.audio, whole.audio, atol=1e-5, rtol=0)
    assert speak(model, "One.", **options).audio_codes[0][0].shape == (4, 75)


def test_the_first_two_codes_do_not_depend_on_the_second_stage(model: MetaVoiceForConditionalGeneration) -> None:
    full, chunked = (speak(model, second_stage=mode).audio_codes[0][0] for mode in ("full", "chunked"))
    assert torch.equal(full[:2], chunked[:2]) and full.shape == chunked.shape


def test_a_chunk_of_everything_is_the_full_second_stage(model: MetaVoiceForConditionalGeneration) -> None:
    chunked = speak(model, second_stage="chunked", chunks=MetaVoiceChunks(first=1000, steady=1000))
    assert torch.equal(chunked.audio_codes[0][0], speak(model).audio_codes[0][0])


# Long texts


def test_parts_go_on_from_one_another(model: MetaVoiceForConditionalGeneration) -> None:
    options = {"logits_processor": [EndAfter(20)]}
    together, apart = (speak(model, LONG, continuation=flag, **options) for flag in (True, False))
    assert [part.shape[1] for part in together.audio_codes[0]] == [10, 10, 10]
    # Decoded as one: nothing is cut or faded.
    assert together.audio_lengths.tolist() == [30 * FRAME] and apart.audio_lengths[0] < 30 * FRAME
    assert torch.equal(together.audio_codes[0][0], apart.audio_codes[0][0])
    assert not torch.equal(together.audio_codes[0][1], apart.audio_codes[0][1])
    assert together.finish_reason == ["stop"]


def test_a_part_that_was_cut_is_nothing_to_go_on_from(model: MetaVoiceForConditionalGeneration) -> None:
    together, apart = (speak(model, LONG, continuation=flag, max_new_tokens=20) for flag in (True, False))
    for one, other in zip(together.audio_codes[0], apart.audio_codes[0], strict=True):
        assert torch.equal(one, other)
    assert together.finish_reason == ["length"]


def test_diffused_parts_are_joined(whole_model: MetaVoiceForConditionalGeneration) -> None:
    output = speak(whole_model, LONG, enhance=False, logits_processor=[EndAfter(20)])
    assert 25 * FRAME < output.audio_lengths[0] < 30 * FRAME and output.audio.isfinite().all()


def test_twenty_thousand_characters(model: MetaVoiceForConditionalGeneration) -> None:
    text = ("This is one of very many sentences, and every one of them is spoken, for as long as it takes. " * 220)[
        :20_000
    ]
    given = Tester().processor()(text=text)
    parts = int(given["part_counts"])
    assert parts > 150
    # A frame each: what two of them share when they are joined is a hundredth of a second.
    output = model.generate(**given, seed=0, guidance_scale=1.0, logits_processor=[EndAfter(2)])
    assert len(output.audio_codes[0]) == parts and output.finish_reason == ["stop"]
    assert output.audio.isfinite().all() and output.audio_lengths[0] >= parts * (FRAME - RATE // 100)


def test_parts_per_batch_changes_nothing(model: MetaVoiceForConditionalGeneration) -> None:
    options = {"continuation": False, "logits_processor": [EndBias()]}
    one, other = (speak(model, LONG, parts_per_batch=count, **options) for count in (1, 16))
    torch.testing.assert_close(one.audio, other.audio, atol=1e-5, rtol=0)


def test_a_voice_of_zeros_is_no_voice(model: MetaVoiceForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="Text 1 has no voice"):
        given = inputs("One.", "Two.") | {"speaker_embeddings": torch.eye(2, SPEAKER) * torch.tensor([[1.0], [0.0]])}
        model.generate(**given)
