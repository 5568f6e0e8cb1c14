"""The first stage: positions, the speaker, labels, the loop over rows of their own, guidance, lean steps."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LogitsProcessorList

from tests.models.metavoice.tiny import TINY
from tts_models import MetaVoiceFirstStageConfig, MetaVoiceFirstStageForCausalLM
from tts_models.acceleration.decoder_step import layer_step
from tts_models.acceleration.sampling import RowSampler
from tts_models.models.metavoice import program_metavoice
from tts_models.models.metavoice.acceleration_metavoice import FastStepOptions
from tts_models.models.metavoice.decoding_metavoice_first_stage import (
    FirstStageDecoding,
    Guidance,
    first_stage_processors,
)


CONFIG = TINY["first_stage_config"]
END, TEXT, SPEAKER = CONFIG["eos_token_id"], CONFIG["text_token_offset"], CONFIG["speaker_embed_size"]


# Neither guidance nor a grammar, and no end.
FREE: dict[str, Any] = {"guidance_scale": 1.0, "enforce_alternation": False, "end_token_id": -1}


def make_model(**overrides: Any) -> MetaVoiceFirstStageForCausalLM:
    torch.manual_seed(0)
    return MetaVoiceFirstStageForCausalLM(MetaVoiceFirstStageConfig(**CONFIG | overrides)).eval()


@pytest.fixture(scope="module")
def model() -> MetaVoiceFirstStageForCausalLM:
    return make_model()


@pytest.fixture
def tuned(model: MetaVoiceFirstStageForCausalLM) -> MetaVoiceFirstStageForCausalLM:
    """The same model; whatever a test switches on is switched off after it."""
    yield model
    model.disable_fast_steps()


def prompts(*lengths: int) -> list[torch.LongTensor]:
    return [torch.randint(TEXT, 280, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]


def speakers(rows: int) -> torch.Tensor:
    return torch.rand(rows, SPEAKER, generator=torch.Generator().manual_seed(0))


def sampler(seeds: Sequence[int] | None) -> RowSampler:
    generators = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
    return RowSampler(generators, torch.device("cpu"))


@torch.no_grad()
def speak(
    model: MetaVoiceFirstStageForCausalLM,
    lengths: Sequence[int] = (5, 9, 7),
    seeds: Sequence[int] | None = (1, 2, 3),
    limits: Sequence[int] = (24, 24, 24),
    voices: torch.Tensor | None = None,
    processors: LogitsProcessorList | None = None,
    given: Sequence[torch.LongTensor] | None = None,
    **options: Any,
) -> list[list[int]]:
    voices = speakers(len(lengths)) if voices is None else voices
    processors = first_stage_processors() if processors is None else processors
    given = prompts(*lengths) if given is None else given
    decoding = FirstStageDecoding(model, given, voices, processors, sampler(seeds), limits, **options)
    for _ in decoding:
        pass
    return decoding.picked


# The network


def test_cached_steps_equal_the_whole(model: MetaVoiceFirstStageForCausalLM) -> None:
    ids, voice, cache = prompts(12)[0][None], speakers(1), DynamicCache()
    whole = model(ids, speaker_embeddings=voice).logits
    pieces = [
        model(part, speaker_embeddings=voice, past_key_values=cache, use_cache=True).logits for part in ids.split(5, 1)
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count_as_a_position(model: MetaVoiceFirstStageForCausalLM, side: str) -> None:
    rows, voices = prompts(5, 9), speakers(2)
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END, padding_side=side)
    mask = torch.ones_like(ids)
    mask[0, slice(0, 4) if side == "left" else slice(5, 9)] = 0
    batch = model(ids, attention_mask=mask, speaker_embeddings=voices).logits[0][mask[0].bool()]
    torch.testing.assert_close(
        batch, model(rows[0][None], speaker_embeddings=voices[:1]).logits[0], atol=1e-5, rtol=1e-4
    )


def test_zeros_are_no_speaker(model: MetaVoiceFirstStageForCausalLM) -> None:
    ids = prompts(6)[0][None]
    without = model(ids).logits
    assert torch.equal(model(ids, speaker_embeddings=torch.zeros(1, SPEAKER)).logits, without)
    assert not torch.allclose(model(ids, speaker_embeddings=speakers(1)).logits, without)


OTHER_BLOCKS = [
    {"norm_type": "layer_norm"},
    {"norm_type": "layer_norm", "use_norm_bias": True, "use_gated_mlp": False, "hidden_act": "gelu"},
    {"use_gated_mlp": False, "attention_bias": True, "mlp_bias": True},
]


HEADS_OF_ODD_WIDTH = {"hidden_size": 30, "num_attention_heads": 10}


@pytest.mark.parametrize("blocks", [*OTHER_BLOCKS, HEADS_OF_ODD_WIDTH, {"speaker_start_token_id": 20}])
def test_other_blocks_speak_as_they_score(blocks: dict) -> None:
    """Rows that are decoded together pick what a pass over the whole row scores highest."""
    model, lengths, voices = make_model(**blocks), (5, 9), speakers(2)
    given = prompts(*lengths)
    given[1][3] = 20
    picked = speak(model, lengths, None, (12, 12), voices, LogitsProcessorList(), given=given, **FREE)
    if "speaker_start_token_id" in blocks:  # and where the speaker comes in behind the prompt
        model.config.speaker_start_token_id = picked[0][4]
        picked = speak(model, lengths, None, (12, 12), voices, LogitsProcessorList(), given=given, **FREE)
    for row, more in enumerate(picked):
        ids = torch.cat([given[row], torch.tensor(more)])
        scores = model(ids[None], speaker_embeddings=voices[row : row + 1]).logits[0]
        assert scores[lengths[row] - 1 : -1].argmax(-1).tolist() == more
    if model.config.has_llama_blocks:
        model.enable_fast_steps()
        assert speak(model, lengths, None, (12, 12), voices, LogitsProcessorList(), given=given, **FREE) == picked
        return
    with pytest.raises(ValueError, match="Llama's blocks"):
        model.enable_fast_steps()


def test_a_text_without_the_speaker() -> None:
    start, voice, ids = 30, speakers(1), prompts(8)[0][None]
    ids[0, 3] = ids[0, 6] = start
    model, plain = make_model(speaker_start_token_id=start), make_model()
    scores = model(ids, speaker_embeddings=voice).logits
    assert torch.allclose(scores[:, :3], plain(ids).logits[:, :3], atol=1e-6)
    assert not torch.isclose(scores[:, 3:], plain(ids).logits[:, 3:], atol=1e-4).all(-1).any()
    unheard = ids.masked_fill(ids == start, start + 1)
    assert torch.equal(model(unheard, speaker_embeddings=voice).logits, plain(unheard).logits)
    cache = DynamicCache()
    parts = [model(part, speaker_embeddings=voice, past_key_values=cache).logits for part in ids.split(4, 1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), scores, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="input_ids"):
        model(inputs_embeds=model.model.embed_tokens(ids), speaker_embeddings=voice)


def test_both_kinds_of_labels(model: MetaVoiceFirstStageForCausalLM) -> None:
    ids = torch.stack([*prompts(8), *prompts(8)])
    labels = ids.clone()
    labels[1, 4:] = -100
    aligned = model(ids, labels=labels).loss
    shifted = model(ids[:, :-1], shift_labels=labels[:, 1:]).loss
    torch.testing.assert_close(aligned, shifted)
    with pytest.raises(ValueError, match="not both"):
        model(ids, labels=labels, shift_labels=labels)


def test_dropout_of_speakers_in_training_only() -> None:
    model = make_model(speaker_dropout=1.0, dropout=0.0)
    ids, voice = prompts(6)[0][None], speakers(1)
    assert not torch.allclose(model(ids, speaker_embeddings=voice).logits, model(ids).logits)
    model.train()
    assert torch.equal(model(ids, speaker_embeddings=voice).logits, model(ids).logits)


def test_dropout_in_training_only() -> None:
    model, ids = make_model(dropout=0.5), prompts(6)[0][None]
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)


def test_too_many_positions(model: MetaVoiceFirstStageForCausalLM) -> None:
    room = model.config.max_position_embeddings
    ids = torch.full((1, room + 1), TEXT)
    with pytest.raises(ValueError, match=f"the model has {room}"):
        model(ids)
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    assert model(ids, attention_mask=mask).logits.shape[1] == room + 1
    with pytest.raises(ValueError, match="Exactly one"):
        model(None)


# The loop


def test_rows_get_what_they_get_alone(model: MetaVoiceFirstStageForCausalLM) -> None:
    batch, voices = speak(model, limits=(24, 9, 17)), speakers(3)
    for row, (length, limit) in enumerate(zip((5, 9, 7), (24, 9, 17), strict=True)):
        alone = speak(model, [length], [row + 1], [limit], voices[row : row + 1])
        assert alone[0] == batch[row]
        assert len(batch[row]) == limit or batch[row][-1] == END


def test_lean_steps_pick_what_the_layers_pick(model: MetaVoiceFirstStageForCausalLM, monkeypatch: Any) -> None:
    lean = speak(model)
    monkeypatch.setattr(
        "tts_models.models.metavoice.modeling_metavoice_first_stage.is_in_one_place", lambda first_stage: False
    )
    assert speak(model) == lean


@pytest.mark.parametrize("scale", [3.0, (2.0, 1.5), (1.0, 2.0)])
def test_guidance_is_its_formula(model: MetaVoiceFirstStageForCausalLM, scale: Any) -> None:
    """The first pick by hand: the model run with both, without the speaker, without the text."""
    (prompt,), voice, guidance = prompts(6), speakers(1), Guidance.of(scale)
    end_of_text = model.config.end_of_text_token_id
    full = model(prompt[None], speaker_embeddings=voice).logits[0, -1]
    no_speaker = model(prompt[None]).logits[0, -1]
    no_text = model(torch.full_like(prompt, end_of_text)[None], speaker_embeddings=voice).logits[0, -1]
    s, p = guidance.speaker, guidance.prompt
    expected = (s + p - 1) * full + (1 - s) * no_speaker + (1 - p) * no_text
    (picked,) = speak(
        model, [6], None, [1], voice, LogitsProcessorList(), guidance_scale=scale, enforce_alternation=False
    )
    assert picked == [int(expected.argmax())]


def test_no_guidance_runs_no_second_row(model: MetaVoiceFirstStageForCausalLM) -> None:
    assert Guidance.of(1.0).factors == [1.0]
    assert Guidance.of((3.0, 1.0)).factors == [3.0, -2.0]
    assert Guidance.of((2.5, 1.5)).factors == [3.0, -1.5, -0.5]
    with pytest.raises(ValueError, match="at least 1"):
        Guidance.of(0.5)
    with pytest.raises(ValueError, match="one number or two"):
        Guidance.of((1.0, 1.0, 1.0))


def test_codes_alternate(model: MetaVoiceFirstStageForCausalLM) -> None:
    codes = CONFIG["num_codes"]
    for row in speak(model):
        row = row[:-1] if row[-1] == END else row
        assert all(token // codes == place % 2 for place, token in enumerate(row))
    loose = speak(model, enforce_alternation=False)
    assert any(token // codes != place % 2 for row in loose for place, token in enumerate(row))


def test_the_positions_end_a_row(model: MetaVoiceFirstStageForCausalLM) -> None:
    room = model.config.max_position_embeddings
    (row,) = speak(model, [room - 3], [1], [50], end_token_id=-1)
    assert len(row) == 3
    for lengths, limits, message in (
        ([room], [5], "split the text"),
        ([4], [0], "at least 1"),
        ([4], [5, 5], "one entry per row"),
    ):
        with pytest.raises(ValueError, match=message):
            speak(model, lengths, [1], limits)


# Fast steps


@pytest.mark.parametrize("options", [{}, {"pack_weights": True}, {"int8": True}])
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_joined_and_quantized_steps(tuned: MetaVoiceFirstStageForCausalLM, options: dict, scale: float) -> None:
    plain = speak(tuned, seeds=None, guidance_scale=scale)
    weights = {name: value.clone() for name, value in tuned.state_dict().items()}
    tuned.enable_fast_steps(**options)
    fast = speak(tuned, seeds=None, guidance_scale=scale)
    same = [one == other for a, b in zip(plain, fast, strict=True) for one, other in zip(a, b, strict=False)]
    assert sum(same) / len(same) > (0.3 if "int8" in options else 0.99)
    assert all(torch.equal(value, weights[name]) for name, value in tuned.state_dict().items())


@pytest.mark.parametrize("scale", [3.0, (2.0, 1.5), 1.0])
@pytest.mark.parametrize("alternates", [True, False])
def test_fixed_shapes_pick_the_same(
    tuned: MetaVoiceFirstStageForCausalLM, scale: Any, alternates: bool, monkeypatch: Any
) -> None:
    """The loop that is compiled or recorded, run as it is, with a cache that must grow twice."""
    arguments = {"limits": (40, 12, 30), "guidance_scale": scale, "enforce_alternation": alternates}
    plain = speak(tuned, **arguments)
    monkeypatch.setattr(program_metavoice, "_FIRST_ROOM", 16)
    monkeypatch.setattr(torch, "compile", lambda function, **options: layer_step)
    tuned.enable_fast_steps(use_compile=True)
    assert speak(tuned, **arguments) == plain
    programs = tuned._optimizer.steps(tuned).programs
    assert {program.room for program in programs} == {16, 32, 64}
    # The second run takes the same programs.
    assert speak(tuned, **arguments) == plain
    assert len(tuned._optimizer.steps(tuned).programs) == 3


def test_new_weights_make_new_steps(tuned: MetaVoiceFirstStageForCausalLM) -> None:
    model = make_model()
    model.enable_fast_steps(int8=True)
    before = speak(model, seeds=None)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-3)
    assert speak(model, seeds=None) != before


def test_options_that_do_not_fit(model: MetaVoiceFirstStageForCausalLM) -> None:
    with pytest.raises(ValueError, match="CUDA device"):
        model.enable_fast_steps(use_cuda_graphs=True)
    with pytest.raises(ValueError, match="neither compilation nor CUDA graphs"):
        FastStepOptions(int8=True, use_compile=True)
    with pytest.raises(ValueError, match="no other option"):
        FastStepOptions(int8=True, pack_weights=True)


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_graphs_pick_the_same(scale: float) -> None:
    model = make_model().to("cuda")
    plain = speak_on(model, scale)
    model.enable_fast_steps()
    assert speak_on(model, scale) == plain
    assert speak_on(model, scale) == plain


@torch.no_grad()
def speak_on(model: MetaVoiceFirstStageForCausalLM, scale: float) -> list[list[int]]:
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    decoding = FirstStageDecoding(
        model,
        prompts(5, 9, 7),
        speakers(3),
        first_stage_processors(),
        RowSampler(generators, model.device),
        (24, 9, 17),
        scale,
    )
    for _ in decoding:
        pass
    return decoding.picked
