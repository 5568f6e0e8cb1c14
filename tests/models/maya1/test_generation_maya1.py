"""Speaking with Maya1: the slot constraint, limits, long texts, chunk schedules, other frame layouts."""

import warnings
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, LogitsProcessor, StoppingCriteria

from tests.common.comparing import assert_close
from tests.models.maya1.tester import VOICE, Tester, load_tokenizer, tiny_processor
from tts_models import Maya1Config, Maya1ForConditionalGeneration, SpeechOutput
from tts_models.speech_generation import collect_stream


TEXTS = ["One, two, three.", "A longer sentence, so that rows differ."]
GREEDY = {"do_sample": False, "max_new_tokens": 70, "seed": 0}


@pytest.fixture(scope="module")
def model() -> Maya1ForConditionalGeneration:
    """A tiny model."""
    return Tester().model()


def prompts(texts: list[str] = TEXTS, **options: object) -> dict[str, torch.Tensor]:
    """Prompts for some texts."""
    return dict(tiny_processor(**options)(text=texts, voice=VOICE))


def new_ids(output: SpeechOutput, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What was generated, without the prompts."""
    return output.sequences[:, inputs["input_ids"].shape[1] :]


class KeepScores(LogitsProcessor):
    """Changes nothing, but is one that has to see the whole vocabulary."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


class StopAfter(StoppingCriteria):
    """Stops every row at some length."""

    def __init__(self, length: int):
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


# The slot constraint


def test_every_token_lies_in_its_slot(model: Maya1ForConditionalGeneration) -> None:
    inputs = prompts()
    output = model.generate(**inputs, seed=1, max_new_tokens=70, temperature=3.0, top_p=1.0)
    layout = model.config.audio_token_layout
    for row, samples in zip(new_ids(output, inputs).tolist(), output.audio_lengths.tolist(), strict=True):
        levels, info = layout.unpack(row, policy="strict")
        assert info.frames == len(levels[0]) > 0 and info.dropped_tokens == 0
        assert samples == 96 * info.frames


@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        GREEDY | {"repetition_penalty": 1.4},
        {"seed": 3, "max_new_tokens": 70},
        {"seed": 3, "max_new_tokens": 70, "temperature": 1.5, "top_k": 5, "top_p": 1.0},
        {"seed": 3, "max_new_tokens": 70, "min_new_tokens": 0, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
)
def test_sliced_head_equals_the_masked_vocabulary(model: Maya1ForConditionalGeneration, options: dict) -> None:
    inputs = prompts()
    sliced = model.generate(**inputs, **options)
    masked = model.generate(**inputs, **options, logits_processor=[KeepScores()])
    assert torch.equal(sliced.sequences, masked.sequences)
    assert_close(sliced.audio, masked.audio, 1e-5)


def test_greedy_equals_the_librarys_own_loop(model: Maya1ForConditionalGeneration) -> None:
    """Without the constraint, the tokens are those of `LlamaForCausalLM.generate`."""
    inputs = prompts()
    options = {"do_sample": False, "max_new_tokens": 30, "repetition_penalty": 1.1}
    ours = model.generate(**inputs, **options, seed=0, constrain_slots=False, min_new_tokens=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = model.language_model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            eos_token_id=393,
            pad_token_id=398,
            **options,
        )
    width = min(ours.sequences.shape[1], plain.shape[1])
    assert torch.equal(ours.sequences[:, :width], plain[:, :width])


def test_audio_only_allows_nothing_else(model: Maya1ForConditionalGeneration) -> None:
    inputs = prompts()
    output = model.generate(**inputs, seed=0, max_new_tokens=40, constrain_slots=False, audio_only=True)
    allowed = set(range(401, 401 + 7 * 16)) | {393, 398}
    assert set(new_ids(output, inputs).flatten().tolist()) <= allowed


def test_unconstrained_codes_follow_the_policy(model: Maya1ForConditionalGeneration) -> None:
    inputs = prompts(TEXTS[:1])
    options = {"seed": 0, "max_new_tokens": 42, "constrain_slots": False, "audio_only": True, "top_p": 1.0}
    resync, upstream = (model.generate(**inputs, **options, unpack_policy=policy) for policy in ("resync", "upstream"))
    assert torch.equal(resync.sequences, upstream.sequences)
    layout, ids = model.config.audio_token_layout, new_ids(resync, inputs)[0].tolist()
    for output, policy in ((resync, "resync"), (upstream, "upstream")):
        levels, info = layout.unpack(ids, policy)
        assert [level.tolist() for level in output.audio_codes[0][0]] == levels
        assert output.audio_lengths.item() == 96 * info.frames
    with pytest.raises(ValueError, match="Row 0, position"):
        model.generate(**inputs, **options, unpack_policy="strict")


# Limits


def test_speech_is_not_cut_at_a_fixed_number_of_tokens(model: Maya1ForConditionalGeneration) -> None:
    inputs = prompts(TEXTS[:1]) | {"duration_budget": torch.tensor([1200])}
    output = model.generate(**inputs, do_sample=False, seed=0, min_new_tokens=10_000)
    assert output.audio_lengths.item() == 100 * 96 and output.finish_reason == ["length"]
    # Without an expectation, the context is the limit.
    inputs["duration_budget"] = torch.tensor([10**9])
    output = model.generate(**inputs, do_sample=False, seed=0, min_new_tokens=10_000)
    room = (model.config.text_config.max_position_embeddings - inputs["input_ids"].shape[1]) // 7
    assert output.audio_lengths.item() == room * 96


def test_minimum_length_is_kept(model: Maya1ForConditionalGeneration) -> None:
    for frames in (2, 9):
        output = model.generate(**prompts(), seed=0, min_new_tokens=7 * frames, max_new_tokens=7 * frames)
        assert output.audio_lengths.tolist() == [96 * frames] * 2


def test_row_may_be_silent(model: Maya1ForConditionalGeneration) -> None:
    """A row that ends at once has no samples, alone and beside others."""

    class EndAtOnce(LogitsProcessor):
        """Forces the end of the first row."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            scores[0, 393] = 1e4
            return scores

    options = {"seed": [0, 1], "min_new_tokens": 0, "max_new_tokens": 42, "logits_processor": [EndAtOnce()]}
    output = model.generate(**prompts(), **options)
    assert output.audio_lengths[0] == 0 and output.finish_reason[0] == "stop"
    chunks = list(model.generate_stream(**prompts(), **options))
    assert_close(collect_stream(chunks).audio, output.audio, 1e-4)
    options["seed"] = 0
    assert model.generate(**prompts(TEXTS[:1]), **options).audio.shape == (1, 0)
    assert collect_stream(model.generate_stream(**prompts(TEXTS[:1]), **options)).audio.shape == (1, 0)


def test_stopping_criteria_end_a_row(model: Maya1ForConditionalGeneration) -> None:
    inputs = prompts()
    length = inputs["input_ids"].shape[1] + 21
    output = model.generate(**inputs, **GREEDY | {"min_new_tokens": 70}, stopping_criteria=[StopAfter(length)])
    assert output.audio_lengths.tolist() == [3 * 96] * 2


# Long texts


def test_long_text_is_one_continuous_output(model: Maya1ForConditionalGeneration) -> None:
    long_text = "This is the first one. Here is a second one! And is this a third?"
    inputs = prompts([long_text, "Short."], max_part_characters=30)
    count = int(inputs["part_counts"][0])
    assert count == 3
    options = {"seed": [4, 5], "max_new_tokens": 42, "min_new_tokens": 42, "part_gap": 0.01}
    output = model.generate(**inputs, **options)
    gap = 80
    assert output.audio.shape[0] == 2
    assert output.audio_lengths.tolist() == [count * 6 * 96 + (count - 1) * gap, 6 * 96]
    assert [len(parts) for parts in output.audio_codes] == [count, 1]
    assert not output.audio[0, 6 * 96 : 6 * 96 + gap].any()
    for batch in (1, 2):
        assert_close(model.generate(**inputs, **options, parts_per_batch=batch).audio, output.audio, 1e-5)
    assert_close(collect_stream(model.generate_stream(**inputs, **options)).audio, output.audio, 1e-4)


def test_start_may_be_trimmed(model: Maya1ForConditionalGeneration) -> None:
    inputs, options = prompts(), {"seed": [1, 2], "max_new_tokens": 42, "min_new_tokens": 42}
    whole = model.generate(**inputs, **options).audio
    assert torch.equal(model.generate(**inputs, **options, trim_start_samples=100).audio, whole[:, 100:])
    streamed = collect_stream(model.generate_stream(**inputs, **options, trim_start_samples=100))
    assert_close(streamed.audio, whole[:, 100:], 1e-4)


def test_other_output_rate(model: Maya1ForConditionalGeneration) -> None:
    options = {"seed": 1, "max_new_tokens": 42, "min_new_tokens": 42}
    output = model.generate(**prompts(TEXTS[:1]), **options, output_sampling_rate=16000)
    assert output.sampling_rate == 16000 and output.audio_lengths.item() == 2 * 6 * 96


# Chunks


@pytest.mark.parametrize(("first", "steady"), [(1, 1), (6, 2), (5, 50)])
def test_chunk_schedule_changes_no_sample(model: Maya1ForConditionalGeneration, first: int, steady: int) -> None:
    options = {"seed": [0, 1], "max_new_tokens": 105, "min_new_tokens": 105}
    whole = model.generate(**prompts(), **options)
    chunks = list(model.generate_stream(**prompts(), **options, first_chunk_frames=first, chunk_frames=steady))
    assert_close(collect_stream(chunks).audio, whole.audio, 1e-4)


def test_first_sound_needs_only_the_look_ahead(model: Maya1ForConditionalGeneration) -> None:
    stream = model.generate_stream(**prompts(TEXTS[:1]), seed=0, max_new_tokens=105, min_new_tokens=105)
    look_ahead = model.codec_model.decoder_stream().look_ahead
    frames = look_ahead // 96 + 1
    assert next(stream).audio.shape == (1, frames * 96 - look_ahead)


def test_rows_that_end_at_different_times(model: Maya1ForConditionalGeneration) -> None:
    texts, options = [*TEXTS, "Three."], {"seed": [0, 1, 2], "min_new_tokens": 0, "temperature": 2.0}
    inputs = prompts(texts) | {"duration_budget": torch.tensor([120, 400, 250])}
    whole = model.generate(**inputs, **options)
    assert len(set(whole.audio_lengths.tolist())) == 3
    streamed = collect_stream(model.generate_stream(**inputs, **options, chunk_frames=2))
    assert streamed.audio_lengths.tolist() == whole.audio_lengths.tolist()
    assert streamed.finish_reason == whole.finish_reason
    assert_close(streamed.audio, whole.audio, 1e-4)


# Frame layouts and codecs of other checkpoints


@pytest.mark.parametrize("vq_strides", [[2, 1], [1], [8, 4, 2, 1]])
def test_other_frame_layouts_speak(vq_strides: list[int]) -> None:
    codec = {"vq_strides": vq_strides, "codebook_size": 7}
    model = Tester().model(codec=codec)
    slots = model.config.slots_per_frame
    assert slots == sum(vq_strides[0] // stride for stride in vq_strides)
    options = {"seed": [0, 1], "max_new_tokens": 9 * slots, "min_new_tokens": 9 * slots}
    inputs = prompts()
    output = model.generate(**inputs, **options)
    assert output.audio_lengths.tolist() == [9 * 24 * vq_strides[0]] * 2
    levels, _ = model.config.audio_token_layout.unpack(new_ids(output, inputs)[0].tolist(), "strict")
    assert [len(level) for level in levels] == [9 * vq_strides[0] // stride for stride in vq_strides]
    assert_close(collect_stream(model.generate_stream(**inputs, **options)).audio, output.audio, 1e-4)


def test_attention_in_the_codec_streams_whole_windows() -> None:
    codec = {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "attention_window_size": 4}
    model, options = Tester().model(codec=codec), {"seed": 0, "max_new_tokens": 70, "min_new_tokens": 70}
    whole = model.generate(**prompts(TEXTS[:1]), **options)
    assert_close(collect_stream(model.generate_stream(**prompts(TEXTS[:1]), **options)).audio, whole.audio, 1e-4)


# Checkpoints


def test_unconverted_folder_is_refused(tmp_path: Path) -> None:
    """The released folder is a plain Llama's, without a codec."""
    LlamaForCausalLM(Tester().config().text_config).save_pretrained(tmp_path)
    load_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="convert_maya1_to_hf.py"):
        Maya1ForConditionalGeneration.from_pretrained(tmp_path)


def test_codec_stays_in_single_precision(tmp_path: Path) -> None:
    Tester().model().save_pretrained(tmp_path)
    model = Maya1ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in model.codec_model.parameters()} == {torch.float32}
    output = model.generate(**prompts(), seed=0, max_new_tokens=42)
    assert output.audio.dtype == torch.float32 and output.audio.isfinite().all()


def test_released_configuration() -> None:
    config = Maya1Config()
    assert config.text_config.vocab_size == 156960 and config.slots_per_frame == 7
    assert config.audio_token_layout.offset + config.audio_token_layout.num_ids == 156938
    assert config.tokens_per_second == pytest.approx(82.03, abs=0.01)
    with torch.device("meta"):
        model = Maya1ForConditionalGeneration(config)
    assert sum(p.numel() for p in model.language_model.parameters()) == 3_300_928_512


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    model, inputs = Tester().model(), prompts()
    expected = model.generate(**inputs, **GREEDY)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    output = model.cuda().generate(**inputs, **GREEDY)
    assert torch.equal(output.sequences.cpu(), expected.sequences)
    assert_close(output.audio.cpu(), expected.audio, 1e-4)
