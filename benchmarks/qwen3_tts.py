"""Speed of Qwen3-TTS beside upstream's, with equal weights: frames, first sound, codec, and the physical limit.

    python benchmarks/qwen3_tts.py --upstream ../qwen-tts/bin/python

`--upstream` names a Python interpreter with `qwen-tts` 0.1.1; without it only this package is timed. Weights are
seeded by name (`seeded_weights.py`), in the sizes of the released checkpoints, and the end is made impossible, so that
both sides write the same number of frames of noise. A table comes out, with clock and processor seconds: on a machine
that does other work as well, only the latter say much.

The limit is the time in which the weights that a frame needs can be read from memory once per pass: 28 talker layers
and the head once, the code predictor 15 times, at the bandwidth that `--bandwidth` states or a read of memory shows.
"""

import argparse
import gc
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from qwen3_tts_common import (
    FRAMES_PER_SECOND,
    Stopwatch,
    codec_config,
    forbid_end,
    model_config,
    prompt_ids,
    time_call,
    time_frames,
)
from seeded_weights import build
from torch.utils.flop_counter import FlopCounterMode

from tts_models import (
    Qwen3TTSConfig,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSTokenizerConfig,
    Qwen3TTSTokenizerModel,
)
from tts_models.models.qwen3_tts.windowed_qwen3_tts import WindowedStream
from tts_models.streaming.context import LeftContext


MODES: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "optimized": {},
    "compiled": {"use_compile": True},
    "int8": {"int8": True},
}


def build_codec(**decoder: int) -> Qwen3TTSTokenizerModel:
    """The codec in released size, or with other sizes of the decoder; quiet, so that nothing is clipped."""
    config = codec_config()
    config["decoder_config"] |= decoder
    codec = build(lambda: Qwen3TTSTokenizerModel(Qwen3TTSTokenizerConfig(**config)))
    last = [parameter for name, parameter in codec.decoder.named_parameters() if parameter.dim() == 3][-1]
    with torch.no_grad():
        last.mul_(0.02)
    return codec


def build_model(options: argparse.Namespace, codec: Qwen3TTSTokenizerModel) -> Qwen3TTSForConditionalGeneration:
    """The model in the size that is timed."""
    config = Qwen3TTSConfig(**model_config(options.size))
    model = build(lambda: Qwen3TTSForConditionalGeneration(config))
    forbid_end(model)
    model.attach_codec(codec)
    for part in (model.talker, model.speaker_encoder):
        if part is not None:
            part.to(getattr(torch, options.dtype))
    return model.to(options.device)


def time_upstream(options: argparse.Namespace) -> dict[str, Any]:
    """The same calls in upstream's environment."""
    script = Path(__file__).with_name("qwen3_tts_upstream.py")
    names = ("size", "frames", "line_frames", "threads", "device", "dtype")
    arguments = [f"--{name}={getattr(options, name)}" for name in names]
    output = subprocess.run(
        [options.upstream, str(script), *arguments], check=True, capture_output=True, text=True
    ).stdout
    print("upstream done", file=sys.stderr, flush=True)
    result = json.loads(output.splitlines()[-1])
    start, frame, codec = (result[name] for name in ("start", "frame", "codec"))
    # Upstream hands out a whole utterance at once.
    result["first_sound"] = {
        clock: start[clock] + options.line_frames * frame[clock] + codec[clock] for clock in frame
    }
    return result


def time_model(model: Qwen3TTSForConditionalGeneration, options: argparse.Namespace) -> dict[str, Any]:
    """Frames, and the time to the first sound of a stream."""
    ids = prompt_ids().to(options.device)

    def chunks(frames: int) -> Iterator[Any]:
        return model.generate_stream(
            ids, seed=0, max_frames=frames, first_chunk_emit_every=1, emit_every_frames=8, first_chunk_frames=2
        )

    def write_frames(frames: int) -> None:
        request = model._prepare_request(ids, None, {"seed": 0, "max_frames": frames})
        with torch.no_grad():
            assert sum(bool(step.rows) for step in model._frame_decoding(request)) == frames

    def first_sound() -> None:
        assert next(chunks(options.line_frames)).audio.shape[1]

    result = time_frames(write_frames, options.frames, options.device)
    result["first_sound"] = time_call(first_sound, options.device, repeats=1)
    watch = Stopwatch(options.device)
    streamed = sum(chunk.audio.shape[1] for chunk in chunks(options.frames))
    seconds = streamed / model.config.sampling_rate
    result["stream"] = {clock: value / seconds for clock, value in watch.read().items()}
    return result


def bytes_per_frame(model: Qwen3TTSForConditionalGeneration, bytes_per_weight: int) -> int:
    """What a frame must read: talker, head and the predictor's heads once, the predictor's layers 15 times."""

    def size(*modules: torch.nn.Module) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    talker, predictor = model.talker, model.talker.code_predictor
    once = size(*talker.model.layers, talker.codec_head, *predictor.lm_head)
    again = size(*predictor.model.layers, predictor.small_to_mtp_projection) * len(predictor.lm_head)
    return (once + again) * bytes_per_weight


def measure_bandwidth(device: str) -> float:
    """Bytes per processor (or device) second when a large tensor is summed up."""
    values = torch.ones(2**28 // (1 if device == "cuda" else 4), device=device)
    seconds = time_call(values.sum, device)
    return values.numel() * 4 / seconds["wall" if device == "cuda" else "cpu"]


def compare_codec_work(windows: tuple[int, ...] = (25, 80)) -> None:
    """Operations of one more frame: from the kept state, or with a window of frames decoded anew.

    They are counted on tensors without values, as nothing depends on them.
    """
    with torch.device("meta"):
        codec = Qwen3TTSTokenizerModel(Qwen3TTSTokenizerConfig(**codec_config())).eval()

    def operations(frames: int, context: LeftContext) -> int:
        codes = torch.zeros(1, frames, 16, dtype=torch.long, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            codec.decode_piece(codes, context)
        return counter.get_total_flops()

    context = LeftContext(1)
    operations(90, context)
    exact = operations(1, context)
    print(f"\none more frame of the codec: {exact / 1e9:.2f} GFLOP from its state", end="")
    for window in windows:
        again = operations(window, LeftContext(1))
        print(f"; {again / 1e9:.1f} GFLOP ({again / exact:.1f} times) with a window of {window} frames", end="")
    print(flush=True)


@torch.no_grad()
def compare_streams(device: str, frames: int = 100, chunk: int = 8) -> None:
    """Signal to noise of streamed sound against all frames decoded at once, with a codec of an eighth of the width."""
    codec = build_codec(decoder_dim=192).to(device)
    codes = torch.randint(2048, (1, frames, 16), generator=torch.Generator().manual_seed(0)).to(device)
    offline = codec.decode(codes).audio_values.flatten()
    streams: dict[str, Any] = {"exact": codec.decoder_stream(1)}
    for window in (25, 48, 80):
        streams[f"window of {window}"] = WindowedStream(codec, [None], window)
    streams["window of 80, cross-fade of 512"] = WindowedStream(codec, [None], 80, 512)
    print(f"\n| stream of {frames} frames in chunks of {chunk} | SNR against offline |\n|---|---|")
    for name, stream in streams.items():
        pieces = [stream.push(codes[:, start : start + chunk]) for start in range(0, frames, chunk)]
        if isinstance(stream, WindowedStream):
            pieces.append(stream.flush())
        streamed, fade = torch.cat(pieces, dim=1).flatten(), 512
        noise = (streamed - offline)[fade:-fade].square().mean()
        ratio = 10 * torch.log10(offline[fade:-fade].square().mean() / noise)
        print(f"| {name} | {ratio.item():.0f} dB |", flush=True)


def print_table(results: dict[str, Any], limits: dict[str, float], clock: str) -> None:
    """One row per way of running."""
    base = results.get("upstream", results["plain"])
    whose = "upstream's" if "upstream" in results else "the plain loop's"
    print(f"| {clock} seconds | ms per frame | frames per second | times {whose} | real-time factor |", end="")
    print(" share of the limit | first sound, s | sooner |\n|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        frame, first = result["frame"][clock], result["first_sound"][clock]
        cells = [
            name,
            f"{frame * 1e3:.0f}",
            f"{1 / frame:.2f}",
            f"{base['frame'][clock] / frame:.2f}",
            f"{frame * FRAMES_PER_SECOND:.2f}"
            + (f" ({result['stream'][clock]:.2f} with prompt and codec)" if "stream" in result else ""),
            f"{limits[name] / frame:.0%}",
            f"{first:.2f}",
            f"{base['first_sound'][clock] / first:.1f}",
        ]
        print("| " + " | ".join(cells) + " |")


def main(arguments: list[str] | None = None) -> None:
    """Time everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cuda = torch.cuda.is_available()
    parser.add_argument("--upstream", help="interpreter of an environment with qwen-tts 0.1.1")
    parser.add_argument("--size", default="0.6b", choices=("0.6b", "1.7b", "tiny"))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["plain", "optimized", "int8"])
    parser.add_argument("--frames", type=int, default=10, help="frames that are timed")
    parser.add_argument("--line_frames", type=int, default=63, help="frames of the line whose first sound is timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if on_cuda else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if on_cuda else "float32", choices=("bfloat16", "float32"))
    parser.add_argument("--bandwidth", type=float, help="bytes per second that memory can be read at")
    parser.add_argument("--only_codec", action="store_true", help="only what concerns the codec alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not options.only_codec:
        compare_speed(options, build_codec().to(options.device))
    compare_codec_work()
    compare_streams(options.device)


def compare_speed(options: argparse.Namespace, codec: Qwen3TTSTokenizerModel) -> None:
    """The tables of frames and first sounds."""
    bandwidth = options.bandwidth or measure_bandwidth(options.device)
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(f"{options.size}, {options.dtype}, {device}, {options.threads} threads, torch {torch.__version__}, ", end="")
    print(f"memory read at {bandwidth / 1e9:.1f} GB/s\n", flush=True)
    results: dict[str, Any] = {"upstream": time_upstream(options)} if options.upstream else {}
    model = build_model(options, codec)
    width = torch.finfo(getattr(torch, options.dtype)).bits // 8
    limits = {"upstream": bytes_per_frame(model, width) / bandwidth}
    for name in options.modes:
        if name == "int8" and options.device != "cpu":
            continue
        model.disable_streaming_optimizations()
        gc.collect()
        if MODES[name] is not None:
            model.enable_streaming_optimizations(**MODES[name])
        results[name] = time_model(model, options)
        limits[name] = bytes_per_frame(model, 1 if name == "int8" else width) / bandwidth
        print(f"{name} done", file=sys.stderr, flush=True)
    for clock in ("wall",) if options.device == "cuda" else ("cpu", "wall"):
        print_table(results, limits, clock)
        print()


if __name__ == "__main__":
    main()
