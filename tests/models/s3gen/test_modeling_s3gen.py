"""S3Gen beyond the common suite: references, batches, precision, and the faults of upstream that are not repeated."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.common.comparing import assert_close
from tests.models.s3gen.tester import MEL_BINS, PROMPT_TOKENS, Tester, generators, random_tokens, recording, voice
from tts_models import S3GenChunks, S3GenModel, load_s3gen_reference, save_s3gen_reference
from tts_models.models.s3gen.chunks_s3gen import FrameNoise


@pytest.fixture(scope="module")
def model() -> S3GenModel:
    """A tiny model."""
    return Tester().model()


@pytest.fixture(scope="module")
def meanflow_model() -> S3GenModel:
    """A tiny mean-flow model."""
    return Tester().model(meanflow=True)


# Shapes, and the faults of upstream


def test_mel_and_waveform_have_two_frames_and_960_samples_per_token(model: S3GenModel) -> None:
    tokens, reference = random_tokens(1, 11), voice(model.config)
    assert model(tokens, ref_dict=reference, finalize=True).shape == (1, MEL_BINS, 22)
    waveform, source = model.inference(tokens, ref_dict=reference)
    assert waveform.shape == (1, 11 * 960) and source.shape == (1, 1, 11 * 960)
    assert waveform.abs().max() <= 0.99


def test_unfinished_tokens_leave_out_three(model: S3GenModel) -> None:
    tokens, reference = random_tokens(2, 11), voice(model.config)
    for chunks in (None, S3GenChunks(4)):
        assert model(tokens, ref_dict=reference, chunks=chunks).shape == (2, MEL_BINS, 16)
    assert model(tokens[:, :3], ref_dict=reference).shape == (2, MEL_BINS, 0)


def test_unfinished_chunks_are_a_prefix_of_the_finished(model: S3GenModel) -> None:
    tokens, reference, chunks = random_tokens(1, 17), voice(model.config), S3GenChunks(4, first=None)
    noise = torch.randn(1, MEL_BINS, 2 * (PROMPT_TOKENS + 17))
    whole = model(tokens, ref_dict=reference, finalize=True, chunks=chunks, noise=noise)
    # 7 + 13 tokens are 5 whole chunks, and 3 more are heard ahead.
    part = model(tokens[:, :16], ref_dict=reference, finalize=False, chunks=chunks, noise=noise)
    assert torch.allclose(part, whole[..., :26], atol=1e-5)


def test_steps_have_a_default(meanflow_model: S3GenModel) -> None:
    for model, steps in (
        (Tester().model(num_flow_steps=None), 10),
        (Tester().model(num_flow_steps=None, meanflow=True), 2),
    ):
        assert model.flow.decoder.plan(None, None, model.device).steps == steps
    assert meanflow_model.flow.decoder.plan(None, None, meanflow_model.device).guidance == 0


def test_odd_prompt_frame_costs_no_output_frame(model: S3GenModel) -> None:
    tokens, reference = random_tokens(1, 5), voice(model.config)
    extra = reference | {"prompt_feat": torch.cat([reference["prompt_feat"], torch.ones(1, 1, MEL_BINS)], dim=1)}
    mels = [model(tokens, ref_dict=r, finalize=True, generator=generators(1)) for r in (reference, extra)]
    assert mels[1].shape[-1] == 10
    assert torch.equal(*mels)


def test_padding_of_a_batch_is_not_heard(model: S3GenModel) -> None:
    tokens, reference, lengths = random_tokens(3, 9), voice(model.config), torch.tensor([9, 5, 1])
    for chunks in (None, S3GenChunks(4)):
        together = model.inference(
            tokens, ref_dict=reference, speech_token_lens=lengths, chunks=chunks, generator=generators(3)
        )
        for row, length in enumerate(lengths.tolist()):
            alone = model.inference(
                tokens[row, :length], ref_dict=reference, chunks=chunks, generator=generators(3)[row]
            )
            for batched, single in zip(together, alone, strict=True):
                assert torch.allclose(batched[row : row + 1, ..., : 960 * length], single, atol=1e-5)
            assert not together[0][row, 960 * length :].any()


def test_rows_have_voices_of_different_lengths(model: S3GenModel) -> None:
    tokens, short, long = random_tokens(2, 6), voice(model.config, 3), voice(model.config, 8, seed=9)
    both: dict[str, Any] = {
        "prompt_token": torch.cat([torch.nn.functional.pad(short["prompt_token"], (0, 5)), long["prompt_token"]]),
        "prompt_token_len": torch.tensor([3, 8]),
        "prompt_feat": torch.cat(
            [torch.nn.functional.pad(short["prompt_feat"], (0, 0, 0, 10), value=5.0), long["prompt_feat"]]
        ),
        "embedding": torch.cat([short["embedding"], long["embedding"]]),
    }
    for chunks in (None, S3GenChunks(4, first=2)):
        together = model(tokens, ref_dict=both, finalize=True, chunks=chunks, generator=generators(2))
        for row, reference in enumerate((short, long)):
            alone = model(tokens[row], ref_dict=reference, finalize=True, chunks=chunks, generator=generators(2)[row])
            assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_a_row_without_tokens_is_silent(model: S3GenModel) -> None:
    waveform, _ = model.inference(
        random_tokens(2, 4), ref_dict=voice(model.config), speech_token_lens=torch.tensor([4, 0])
    )
    assert waveform.shape == (2, 3840) and waveform[0].any() and not waveform[1].any()


def test_mean_flow_speaks_batches_and_prints_nothing(meanflow_model: S3GenModel, capsys) -> None:
    tokens, reference = random_tokens(2, 6), voice(meanflow_model.config)
    together = meanflow_model(tokens, ref_dict=reference, finalize=True, generator=generators(2))
    alone = meanflow_model(tokens[1], ref_dict=reference, finalize=True, generator=generators(2)[1])
    assert torch.allclose(together[1:], alone, atol=1e-5)
    assert capsys.readouterr() == ("", "")


def test_no_guidance_is_the_conditional_velocity_alone(model: S3GenModel) -> None:
    tokens, reference = random_tokens(1, 6), voice(model.config)
    mels = {
        rate: model(tokens, ref_dict=reference, finalize=True, guidance_rate=rate, generator=generators(1))
        for rate in (0.0, 1e-7, 0.7)
    }
    assert torch.allclose(mels[0.0], mels[1e-7], atol=1e-4)
    assert not torch.allclose(mels[0.0], mels[0.7], atol=1e-3)


def test_gated_feed_forward() -> None:
    layer = Tester().model(decoder_act_fn="geglu").flow.decoder.estimator.down_blocks[0][1][0].ff
    inputs = torch.randn(2, 3, 16)
    values, gates = layer.net["0"]["proj"](inputs).split(64, dim=-1)
    assert_close(layer(inputs), layer.net["2"](values * torch.nn.functional.gelu(gates)), 1e-5)


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match="decoder_act_fn.*geglu.*square_root"):
        Tester().model(decoder_act_fn="square_root")


def test_a_single_token_is_spoken(model: S3GenModel) -> None:
    waveform, _ = model.inference(random_tokens(1, 1)[0], ref_dict=voice(model.config))
    assert waveform.shape == (1, 960) and not waveform[:, :480].any()


# References


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
def test_reference_of_any_rate(model: S3GenModel, rate: int) -> None:
    reference = model.embed_ref(recording(0.8, rate), rate)
    assert reference["prompt_token"].shape == (1, 20) and reference["prompt_feat"].shape == (1, 40, MEL_BINS)
    expected = model.embed_ref(recording(0.8, 24000), 24000)
    # The hum is the same at every rate; the noise beside it is not.
    assert (reference["prompt_feat"] - expected["prompt_feat"])[..., :2].abs().mean() < 0.5


@pytest.mark.parametrize("seconds", [0.3, 40.0])
def test_reference_of_any_length(model: S3GenModel, seconds: float) -> None:
    reference = model.embed_ref(recording(seconds, 16000).numpy(), 16000)
    assert reference["prompt_token"].shape[1] == int(25 * seconds)
    waveform, _ = model.inference(random_tokens(1, 2), ref_dict=reference, num_flow_steps=1)
    assert waveform.shape == (1, 1920) and waveform.isfinite().all()


def test_silent_reference(model: S3GenModel) -> None:
    reference = model.embed_ref(torch.zeros(12000), 24000)
    assert all(value.isfinite().all() for value in reference.values() if value is not None)
    assert model.inference(random_tokens(1, 3), ref_dict=reference)[0].isfinite().all()


def test_references_of_several_voices(model: S3GenModel) -> None:
    recordings = [recording(0.5, 24000), recording(0.8, 24000, seed=1)]
    together = model.embed_ref(recordings, 24000)
    assert together["prompt_token_len"].tolist() == [12, 20] and together["prompt_feat_len"].tolist() == [25, 40]
    for row, samples in enumerate(recordings):
        alone = model.embed_ref(samples[None], 24000)
        length = alone["prompt_token"].shape[1]
        assert torch.equal(together["prompt_token"][row, :length], alone["prompt_token"][0])
        assert torch.allclose(together["embedding"][row], alone["embedding"][0], atol=1e-5)
    waveform, _ = model.inference(random_tokens(2, 3), ref_dict=together)
    assert waveform.shape == (2, 2880)


def test_reference_is_reused_unchanged_and_saved(model: S3GenModel, tmp_path: Path) -> None:
    tokens, reference = random_tokens(1, 5), model.embed_ref(recording(0.5, 24000), 24000)
    before = {name: None if value is None else value.clone() for name, value in reference.items()}
    first = model(tokens, ref_dict=reference, finalize=True, generator=generators(1))
    save_s3gen_reference(reference, tmp_path / "voice.safetensors")
    loaded = load_s3gen_reference(tmp_path / "voice.safetensors")
    as_arrays = {name: None if value is None else value.numpy() for name, value in reference.items()}
    direct = {"ref_wav": recording(0.5, 24000), "ref_sr": 24000}
    for given in ({"ref_dict": reference}, {"ref_dict": loaded}, {"ref_dict": as_arrays}, direct):
        assert torch.equal(model(tokens, **given, finalize=True, generator=generators(1)), first)
    assert reference.keys() == before.keys() == loaded.keys()
    for name, value in before.items():
        assert (value is None and reference[name] is None) or torch.equal(value, reference[name])


def test_foreign_file_is_no_reference(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="prompt_token"):
        load_s3gen_reference(tmp_path / "other.safetensors")


def test_voice_conversion(model: S3GenModel) -> None:
    tokens, lengths = model.tokenizer.tokenize([recording(0.6, 16000), recording(0.3, 16000)])
    reference = model.embed_ref(recording(0.5, 24000, seed=5), 24000)
    waveform, _ = model.inference(tokens, ref_dict=reference, speech_token_lens=lengths)
    assert waveform.shape == (2, 960 * 15) and not waveform[1, 960 * int(lengths[1]) :].any()


# Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_ids_and_parts(tmp_path: Path, dtype: torch.dtype) -> None:
    Tester().model().save_pretrained(tmp_path)
    full, half = (S3GenModel.from_pretrained(tmp_path, dtype=d) for d in (torch.float32, dtype))
    assert half.flow.input_embedding.weight.dtype == dtype
    for part in (half.tokenizer, half.speaker_encoder, half.mel2wav):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    references = [m.embed_ref(recording(0.5, 24000), 24000) for m in (full, half)]
    assert torch.equal(references[0]["prompt_token"], references[1]["prompt_token"])
    # Neighbours among the ids that half precision cannot tell apart get embeddings of their own.
    tokens = torch.tensor([[6560, 6559, 4299, 4298, 2049, 257]])
    mels = [
        m(tokens, ref_dict=references[0], finalize=True, generator=generators(1), guidance_rate=0.0)
        for m in (full, half)
    ]
    assert mels[1].isfinite().all()
    assert (mels[0] - mels[1]).norm() < 0.1 * mels[0].norm()
    waveform, _ = half.inference(tokens, ref_dict=references[1])
    assert waveform.dtype == torch.float32 and waveform.isfinite().all()
    streamed = torch.cat(list(half.stream(tokens[0].tolist(), references[1])), dim=1)
    assert streamed.shape == waveform.shape and streamed.isfinite().all()


def test_estimator_in_half_precision(model: S3GenModel) -> None:
    tokens, reference = random_tokens(2, 6), voice(model.config)
    expected = model(tokens, ref_dict=reference, finalize=True, generator=generators(2))
    half = Tester().model().cast_estimator(torch.bfloat16)
    assert half.flow.encoder_proj.weight.dtype == torch.float32
    mel = half(
        tokens, ref_dict=reference, finalize=True, generator=generators(2), speech_token_lens=torch.tensor([6, 4])
    )
    assert mel.dtype == torch.float32
    assert (mel[0] - expected[0]).norm() < 0.05 * expected[0].norm()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_speaks_on_cuda(tmp_path: Path, dtype: torch.dtype) -> None:
    Tester().model().save_pretrained(tmp_path)
    model = S3GenModel.from_pretrained(tmp_path, dtype=dtype).cuda()
    tokens = random_tokens(2, 9).cuda()
    reference = model.embed_ref(recording(0.5, 24000), 24000)
    waveform, _ = model.inference(tokens, ref_dict=reference, speech_token_lens=torch.tensor([9, 4]))
    assert waveform.shape == (2, 8640) and waveform.isfinite().all()
    streamed = torch.cat(list(model.stream(tokens[0].tolist(), reference)), dim=1)
    assert streamed.shape == (1, 8640) and streamed.isfinite().all()


@pytest.mark.parametrize("chunks", [None, S3GenChunks(4)])
def test_buckets_of_graphs_change_nothing(model: S3GenModel, chunks: S3GenChunks | None) -> None:
    tokens, reference, lengths = random_tokens(2, 9), voice(model.config), torch.tensor([9, 4])
    bucketed = Tester().model().use_cuda_graphs(bucket_frames=50)
    shapes: list[int] = []
    hook = bucketed.flow.decoder.estimator.register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape[1]))
    given = {"ref_dict": reference, "speech_token_lens": lengths, "finalize": True, "chunks": chunks}
    expected = model(tokens, **given, generator=generators(2))
    assert torch.allclose(bucketed(tokens, **given, generator=generators(2)), expected, atol=1e-5)
    assert set(shapes) == {50}
    hook.remove()
    bucketed.use_cuda_graphs(None)
    assert torch.equal(bucketed(tokens, **given, generator=generators(2)), expected)
    with pytest.raises(ValueError, match="bucket_frames"):
        bucketed.use_cuda_graphs(0)


@pytest.mark.gpu
def test_graphs_on_cuda_change_nothing() -> None:
    model, tokens = Tester().model().cuda(), random_tokens(2, 9)
    given = {"ref_dict": voice(model.config), "finalize": True}
    expected = model(tokens, **given, generator=generators(2))
    model.use_cuda_graphs()
    for _ in range(3):  # the first call records
        assert torch.allclose(model(tokens, **given, generator=generators(2)), expected, atol=1e-3)
    assert model(tokens[:, :4], **given).isfinite().all()  # the same bucket


# Streaming


def test_stream_starts_small_and_hands_out_every_sample(model: S3GenModel) -> None:
    tokens, reference = random_tokens(1, 60), voice(model.config)
    chunks = S3GenChunks(25, first=15)
    sizes = [piece.shape[1] for piece in model.stream(tokens[0].tolist(), reference, chunks=chunks)]
    assert sum(sizes) == 60 * 960
    assert sizes[0] < 15 * 960 < max(sizes)


def test_a_prepared_stream_serves_many_requests(model: S3GenModel) -> None:
    reference, chunks = voice(model.config, tokens=23), S3GenChunks(5, first=4)
    prepared = model.start_stream(reference, chunks)
    assert prepared.mel.position == 20  # whole chunks of the prompt are computed already
    for seed in (0, 1):
        tokens, generator = random_tokens(1, 12, seed), torch.Generator().manual_seed(seed)
        streamed = torch.cat(list(model.stream(tokens.split(5, 1), prepared, generator=generator)), dim=1)
        generator = torch.Generator().manual_seed(seed)
        offline, _ = model.inference(tokens, ref_dict=reference, chunks=chunks, generator=generator)
        assert torch.allclose(streamed, offline, atol=1e-5)
    assert prepared.tokens_in == 0


def test_mean_flow_streams_exactly(meanflow_model: S3GenModel) -> None:
    tokens, reference, chunks = random_tokens(1, 14), voice(meanflow_model.config), S3GenChunks(5, first=3)
    offline, _ = meanflow_model.inference(tokens, ref_dict=reference, chunks=chunks, generator=generators(1))
    streamed = meanflow_model.stream(tokens[0].tolist(), reference, chunks=chunks, generator=generators(1)[0])
    assert torch.allclose(torch.cat(list(streamed), dim=1), offline, atol=1e-5)


def test_work_of_a_stream_does_not_grow(model: S3GenModel) -> None:
    """Every token goes through the estimator once; with a limit to the left, memory does not grow either."""
    frames: list[int] = []
    hook = model.flow.decoder.estimator.register_forward_pre_hook(lambda _, inputs: frames.append(inputs[0].shape[1]))
    try:
        stream = model.start_stream(voice(model.config), S3GenChunks(5, first=None, left=5))
        memory = []
        for token in random_tokens(1, 60)[0].tolist():
            stream.push(token)
            memory.append(stream.mel.num_bytes)
        stream.flush()
    finally:
        hook.remove()
    assert sum(frames) == stream.mel.plan.steps * 2 * (PROMPT_TOKENS + 60)
    assert memory[-1] == memory[30]


def test_a_stream_is_over_after_its_end(model: S3GenModel) -> None:
    stream = model.start_stream(voice(model.config))
    assert list(model.stream([], voice(model.config))) == []
    stream.push(5)
    assert stream.flush().shape == (1, 960)
    with pytest.raises(ValueError, match="flushed"):
        stream.push(5)
    with pytest.raises(ValueError, match="without tokens"):
        stream.copy()


def test_noise_belongs_to_frames() -> None:
    whole = FrameNoise(MEL_BINS, 5, torch.Generator().manual_seed(1)).between(0, 90)
    pieces = FrameNoise(MEL_BINS, 5, torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat([pieces.between(0, 7), pieces.between(7, 39), pieces.between(39, 90)]), whole)
    other = FrameNoise(MEL_BINS, 5, torch.Generator().manual_seed(2)).between(0, 90)
    assert torch.equal(other[:5], whole[:5]) and not torch.equal(other[5:], whole[5:])
    assert whole.mean().abs() < 0.1 and (whole.std() - 1).abs() < 0.1


# Training


def test_chunks_and_draws_change_the_loss(model: S3GenModel) -> None:
    losses = {
        chunks: model(**Tester().training_inputs(), chunks=chunks).loss.item() for chunks in (None, S3GenChunks(3))
    }
    assert losses[None] != losses[S3GenChunks(3)]
    inputs = Tester().training_inputs()
    inputs["labels"] = inputs["labels"].clone()
    inputs["labels"][1, :, 12:] = 100.0  # after the row's end
    assert model(**inputs).loss.item() == pytest.approx(losses[None], abs=1e-6)
