"""Speaking with Qwen3-TTS: prompt modes, ends, limits, penalties, batches, and streams that equal the whole."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor

from tests.common.comparing import assert_close
from tests.models.qwen3_tts.tester import GROUPS, Tester, prepared_voice
from tts_models import Qwen3TTSForConditionalGeneration, SpeechOutput
from tts_models.models.qwen3_tts.prompt_qwen3_tts import PromptBuilder
from tts_models.speech_generation import collect_stream
from tts_models.streaming.pcm import pcm_chunks


TEXTS = ["One, two.", "A longer sentence, so that rows differ.", "Three."]
SAMPLES = 24
LIMIT = {"max_frames": 9, "min_new_tokens": 10}
GREEDY = {"do_sample": False, "max_frames": 8}


@pytest.fixture(scope="module")
def named() -> Qwen3TTSForConditionalGeneration:
    """A tiny model with named speakers."""
    return Tester().model()


@pytest.fixture(scope="module")
def base() -> Qwen3TTSForConditionalGeneration:
    """A tiny model that clones."""
    return Tester().model(kind="base")


@pytest.fixture(scope="module")
def design() -> Qwen3TTSForConditionalGeneration:
    """A tiny model that follows a description."""
    return Tester().model(kind="voice_design")


def prompts(kind: str, texts: list[str] | str = "One, two.", **options: Any) -> dict[str, torch.Tensor]:
    """Inputs for some texts."""
    return dict(Tester().processor(kind)(text=texts, **options))


def spoken_rows(output: SpeechOutput) -> list[torch.Tensor]:
    """The valid samples of each row."""
    return [row[:length] for row, length in zip(output.audio, output.audio_lengths.tolist(), strict=True)]


class EndAt(LogitsProcessor):
    """Lets each row end at a given frame, and not before."""

    def __init__(self, frames: list[int], end_id: int = 42) -> None:
        self.frames, self.end_id = frames, end_id
        self.active = list(range(len(frames)))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1]
        self.active = [row for row in self.active if self.frames[row] >= step]
        scores = scores.clone()
        for place, row in enumerate(self.active):
            if self.frames[row] == step:
                scores[place] = -float("inf")
                scores[place, self.end_id] = 0.0
            else:
                scores[place, [42, self.end_id]] = -float("inf")
        return scores


def modes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way of asking for a voice."""
    yield "custom_voice", {"voice": "alice", "language": "en"}
    yield "custom_voice", {"voice": "Bob", "language": "chinese", "instruct": "Very happy."}
    yield "voice_design", {"voice": "A calm, deep voice.", "language": "de-DE"}
    yield "voice_design", {}
    yield "base", {"voice": prepared_voice(transcript=None)}
    yield "base", {"voice": prepared_voice(frames=30), "language": "english"}
    yield "base", {"voice": prepared_voice(frames=2), "instruct": "Whisper."}


@pytest.mark.parametrize("non_streaming_mode", [None, True, False])
@pytest.mark.parametrize(("kind", "options"), list(modes()))
def test_every_mode_speaks_and_streams_the_same(
    kind: str, options: dict, non_streaming_mode: bool | None, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue({"custom_voice": "named", "base": "base", "voice_design": "design"}[kind])
    arguments = {"seed": 3, "non_streaming_mode": non_streaming_mode, **LIMIT}
    inputs = prompts(kind, **options)
    whole = model.generate(**inputs, **arguments)
    assert whole.audio_lengths.tolist() == [9 * SAMPLES] and whole.finish_reason == ["length"]
    assert whole.audio_codes[0].shape == (9, GROUPS)
    streamed = collect_stream(model.generate_stream(**inputs, **arguments))
    assert_close(streamed.audio, whole.audio, 1e-5)


def test_cloned_in_context_goes_on_from_the_reference(base: Qwen3TTSForConditionalGeneration) -> None:
    """The sound is what the codec makes of reference and speech together, without the reference's part."""
    voice = prepared_voice(frames=13)
    output = base.generate(**prompts("base", voice=voice), seed=0, **LIMIT)
    codes = torch.cat([voice.reference_codes, output.audio_codes[0]])[None]
    expected = base.speech_tokenizer.decode(codes).audio_values.flatten()[13 * SAMPLES :]
    assert_close(output.audio[0], expected.detach(), 1e-5)


def test_batch_of_different_voices_equals_single_rows(base: Qwen3TTSForConditionalGeneration) -> None:
    """One voice each, with references of different lengths and without; rows that end at different frames."""
    voices = [prepared_voice(0, 5), prepared_voice(1, transcript=None), prepared_voice(2, 40)]
    frames, seeds = [3, 11, 6], [4, 5, 6]
    inputs = prompts("base", TEXTS, voice=voices)
    options = {"emit_every_frames": 4, "first_chunk_emit_every": 1, "first_chunk_frames": 3}
    together = base.generate(**inputs, seed=seeds, logits_processor=[EndAt(frames)])
    chunks = list(base.generate_stream(**inputs, seed=seeds, logits_processor=[EndAt(frames)], **options))
    streamed = collect_stream(chunks)
    assert together.finish_reason == streamed.finish_reason == ["stop"] * 3
    assert together.audio_lengths.tolist() == [count * SAMPLES for count in frames]
    for row, voice in enumerate(voices):
        inputs = prompts("base", TEXTS[row], voice=voice)
        alone = base.generate(**inputs, seed=seeds[row], logits_processor=[EndAt([frames[row]])])
        assert torch.equal(together.audio_codes[row], alone.audio_codes[0])
        assert_close(spoken_rows(together)[row], alone.audio[0], 1e-5)
        assert_close(spoken_rows(streamed)[row], alone.audio[0], 1e-5)


def test_one_voice_is_broadcast(base: Qwen3TTSForConditionalGeneration) -> None:
    voice = prepared_voice()
    shared = base.generate(**prompts("base", TEXTS, voice=voice), seed=0, **LIMIT)
    single = base.generate(**prompts("base", TEXTS, voice=[voice] * 3), seed=0, **LIMIT)
    assert torch.equal(shared.audio, single.audio)


def test_end_on_the_first_frame_is_silence(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice", TEXTS[:2])
    options = {"seed": 0, "min_new_tokens": 0}
    output = named.generate(**inputs, logits_processor=[EndAt([0, 4])], **options)
    assert output.audio_lengths.tolist() == [0, 4 * SAMPLES]
    assert output.audio_codes[0].shape == (0, GROUPS)
    chunks = list(named.generate_stream(**inputs, logits_processor=[EndAt([0, 4])], **options))
    assert chunks[0].is_final.tolist() == [True, False] and chunks[-1].is_final.all()
    only = named.generate(**prompts("custom_voice"), logits_processor=[EndAt([0])], **options)
    assert only.audio.shape == (1, 0) and only.finish_reason == ["stop"]


def test_minimum_length_holds_the_end_back(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice")
    output = named.generate(**inputs, seed=0, min_new_tokens=7, max_frames=6)
    assert output.finish_reason == ["length"] and len(output.audio_codes[0]) == 6


def test_token_limit_counts_the_one_that_is_not_spoken(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice")
    by_tokens = named.generate(**inputs, seed=0, max_new_tokens=6, min_new_tokens=6)
    by_frames = named.generate(**inputs, seed=0, max_frames=5, min_new_tokens=6)
    assert len(by_tokens.audio_codes[0]) == 5 and torch.equal(by_tokens.audio, by_frames.audio)


def test_several_ends_stop_a_row(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice", TEXTS[:2])
    output = named.generate(
        **inputs, seed=0, eos_token_id=[42, 46], logits_processor=[EndAt([3, 5], end_id=46)], max_frames=9
    )
    assert output.finish_reason == ["stop", "stop"]
    assert [len(codes) for codes in output.audio_codes] == [3, 5]


def test_special_rows_are_never_spoken(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice", TEXTS)
    output = named.generate(**inputs, seed=0, temperature=5.0, top_k=0, **LIMIT)
    assert max(int(codes.max()) for codes in output.audio_codes) < 32


def test_context_limits_the_speech() -> None:
    inputs = prompts("custom_voice")
    length = int(inputs["attention_mask"].sum()) + 1
    model = Tester().model(talker={"max_position_embeddings": length + 6})
    output = model.generate(**inputs, seed=0, min_new_tokens=500)
    assert output.finish_reason == ["length"] and 0 < len(output.audio_codes[0]) <= 7


@pytest.mark.parametrize("window", [0, 2, 5])
def test_repetition_penalty_looks_back_as_far_as_its_window(
    named: Qwen3TTSForConditionalGeneration, window: int
) -> None:
    """A penalty beyond every score forbids what it sees: no first code repeats within the window."""
    output = named.generate(
        **prompts("custom_voice"), do_sample=False, repetition_penalty=1e6, repetition_penalty_window=window, **LIMIT
    )
    first = output.audio_codes[0][:, 0].tolist()
    reach = window or len(first)
    for frame, code in enumerate(first):
        assert code not in first[max(frame - reach, 0) : frame]
    free = named.generate(**prompts("custom_voice"), do_sample=False, repetition_penalty=1.0, **LIMIT)
    assert len(set(free.audio_codes[0][:, 0].tolist())) < len(first)


def test_greedy_is_greedy_in_both_networks(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice")
    one, two = (named.generate(**inputs, seed=seed, **GREEDY) for seed in (0, 1))
    assert torch.equal(one.audio_codes[0], two.audio_codes[0])
    sampled = [named.generate(**inputs, seed=seed, subtalker_dosample=True, **GREEDY) for seed in (0, 1)]
    assert not torch.equal(sampled[0].audio_codes[0], sampled[1].audio_codes[0])


def test_predictor_has_its_own_sampling(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice")
    cold = named.generate(**inputs, seed=0, do_sample=False, subtalker_dosample=True, subtalker_top_k=1, max_frames=6)
    greedy = named.generate(**inputs, seed=0, do_sample=False, max_frames=6)
    assert torch.equal(cold.audio_codes[0], greedy.audio_codes[0])


def test_greedy_configuration_equals_the_keyword(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice")
    config = GenerationConfig(do_sample=False, max_new_tokens=9)
    by_config = named.generate(**inputs, generation_config=config, seed=1)
    assert torch.equal(by_config.audio_codes[0], named.generate(**inputs, seed=0, **GREEDY).audio_codes[0])


@pytest.mark.parametrize("non_streaming_mode", [True, False])
@pytest.mark.parametrize(("kind", "options"), list(modes()))
def test_length_of_a_prompt_is_known_before_it_is_built(
    kind: str, options: dict, non_streaming_mode: bool, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue({"custom_voice": "named", "base": "base", "voice_design": "design"}[kind])
    inputs = prompts(kind, **options) | {"non_streaming_mode": non_streaming_mode}
    row = model._prepare_request(inputs.pop("input_ids"), None, inputs).rows[0]
    assert len(PromptBuilder(model).build(row)[0]) == row.length


def test_prompt_beyond_the_context_is_refused_before_the_first_chunk() -> None:
    model = Tester().model(kind="base", talker={"max_position_embeddings": 64})
    inputs = prompts("base", voice=prepared_voice(frames=60))
    with pytest.raises(ValueError, match="context"):
        model.generate_stream(**inputs)


def test_streaming_text_reads_a_token_per_frame(named: Qwen3TTSForConditionalGeneration) -> None:
    """The first frame depends on the first token alone."""
    options = {"do_sample": False, "non_streaming_mode": False, "max_frames": 1}
    one, other = (named.generate(**prompts("custom_voice", text), **options) for text in ("Aha.", "Abc def."))
    assert torch.equal(one.audio_codes[0], other.audio_codes[0])


def test_chunks_follow_the_schedule(named: Qwen3TTSForConditionalGeneration) -> None:
    options = {"seed": 0, "max_frames": 14, "min_new_tokens": 15}
    chunks = named.generate_stream(
        **prompts("custom_voice"), emit_every_frames=5, first_chunk_emit_every=2, first_chunk_frames=5, **options
    )
    assert [int(chunk.audio_lengths[0]) // SAMPLES for chunk in chunks if chunk.audio_lengths[0]] == [2, 2, 5, 5]
    shrinking = named.generate_stream(
        **prompts("custom_voice"), emit_every_frames=2, first_chunk_emit_every=5, first_chunk_frames=8, **options
    )
    assert [int(chunk.audio_lengths[0]) // SAMPLES for chunk in shrinking if chunk.audio_lengths[0]] == [5, 3, 2, 2, 2]


def windowed(model: Qwen3TTSForConditionalGeneration, **options: Any) -> SpeechOutput:
    """A batch of rows with and without a reference, that end at different frames, decoded by windows."""
    voices = [prepared_voice(0, 5), prepared_voice(1, transcript=None), prepared_voice(2, 9)]
    inputs = prompts("base", TEXTS, voice=voices)
    return collect_stream(
        model.generate_stream(
            **inputs, seed=[4, 5, 6], logits_processor=[EndAt([3, 11, 6])], emit_every_frames=4, **options
        )
    )


@pytest.mark.parametrize("overlap", [0, 10, SAMPLES])
def test_window_that_holds_everything_equals_the_exact_stream(
    base: Qwen3TTSForConditionalGeneration, overlap: int
) -> None:
    """But for the fades at both ends; nothing is lost or heard twice."""
    exact, window = windowed(base), windowed(base, decode_window_frames=64, overlap_samples=overlap)
    assert torch.equal(window.audio_lengths, exact.audio_lengths) and window.finish_reason == exact.finish_reason
    for one, other in zip(spoken_rows(window), spoken_rows(exact), strict=True):
        assert_close(one[overlap : len(one) - overlap], other[overlap : len(other) - overlap], 1e-5)
        if overlap:
            assert one[0] == 0 and one[-1] == 0


def test_short_window_only_comes_close(base: Qwen3TTSForConditionalGeneration) -> None:
    exact, window = windowed(base), windowed(base, decode_window_frames=4, overlap_samples=8)
    assert torch.equal(window.audio_lengths, exact.audio_lengths)
    assert not torch.allclose(window.audio[1, 100:200], exact.audio[1, 100:200], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode_window_frames": 0}, "decode_window_frames"),
        ({"decode_window_frames": 8, "overlap_samples": SAMPLES + 1}, "overlap_samples"),
        ({"overlap_samples": 8}, "overlap_samples"),
    ],
)
def test_windows_that_make_no_sense_are_refused(
    named: Qwen3TTSForConditionalGeneration, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        named.generate_stream(**prompts("custom_voice"), **options)


def test_stream_as_bytes(named: Qwen3TTSForConditionalGeneration) -> None:
    inputs = prompts("custom_voice", TEXTS[:2])
    whole = named.generate(**inputs, seed=0, **LIMIT)
    pcm = b"".join(pcm_chunks(named.generate_stream(**inputs, seed=0, **LIMIT), row=1))
    assert len(pcm) == 2 * int(whole.audio_lengths[1])


def test_model_without_a_codec_says_so() -> None:
    model = Tester().model(speech_tokenizer_config=None)
    with pytest.raises(ValueError, match="codec"):
        model.generate(**prompts("custom_voice"))
