"""Speed of S3Gen beside upstream's, with equal weights of the released sizes, in one run.

    python benchmarks/s3gen.py                                       # ours alone
    python benchmarks/s3gen.py --upstream /path/to/its/python        # beside upstream's: chatterbox-tts is there
    python benchmarks/s3gen.py --batch_sizes 1 4 --steps 10 4 --seconds 2 8 --dtypes float32 bfloat16
    python benchmarks/s3gen.py --meanflow --steps 2

Every row is measured in turn for both sides, so that a busy machine is as busy for both; on one that is very busy,
`--threads 1 --clock cpu` counts processor time. The weights are drawn by a rule, so no checkpoint is needed: speed
does not depend on their values. RTF is seconds of work per second of audio, waveform included; `share of peak` is the
estimator's arithmetic over what large matrix products reach on the machine in the same dtype. Upstream has no batches:
its rows are spoken one after another.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src"), str(REPOSITORY / "conversion_scripts")]

from s3gen_parts import convert_vocoder, part_of  # noqa: E402
from side_by_side import CLOCKS, Stopwatch, Upstream, peak  # noqa: E402

from tests.common.fill import fill_state_dict  # noqa: E402
from tts_models import S3GenChunks, S3GenConfig, S3GenModel  # noqa: E402


TOKENS_PER_SECOND = 25
# Keeps the vocoder's activations in range with drawn weights, as in the reference cases.
SCALES = (
    (r"f0_predictor\.classifier\.(weight|bias)$", 250.0),
    (r"conv_post\.parametrizations\.weight\.original0$", 0.35),
    (r"resblocks\.\d+\.convs2\.\d+\.parametrizations\.weight\.original0$", 0.35),
    (r"m_source\.l_linear\.weight$", 3.0),
)
# Parts that only a reference needs are not measured, and small.
SMALL_PARTS = {
    "tokenizer_config": {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 64, "num_hidden_layers": 1},
    "speaker_encoder_config": {"block_layers": [1, 1, 1]},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", help="Python interpreter of an environment with chatterbox-tts")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, nargs="+", default=[10])
    parser.add_argument("--seconds", type=float, nargs="+", default=[4.0], help="speech per row")
    parser.add_argument("--prompt_seconds", type=float, default=3.0, help="reference recording")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--meanflow", action="store_true", help="the Turbo network")
    parser.add_argument("--stream", action="store_true", help="also stream each row, chunk by chunk")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="the best counts; one more warms up on CUDA")
    return parser.parse_args()


def make_weights(meanflow: bool) -> dict[str, torch.Tensor]:
    """Flow and vocoder in upstream's names."""
    file = "s3gen_meanflow.safetensors" if meanflow else "s3gen.safetensors"
    released = json.loads((REPOSITORY / "tests/fixtures/s3gen/released.json").read_text(encoding="utf-8"))[file]
    keys = {name: entry for name, entry in released.items() if name.startswith(("flow.", "mel2wav."))}
    return fill_state_dict(keys, SCALES)


def build(weights: dict[str, torch.Tensor], meanflow: bool, device: str) -> S3GenModel:
    with torch.device("meta"):
        model = S3GenModel(S3GenConfig(meanflow=meanflow, **SMALL_PARTS))
    model.to_empty(device=device)
    model.flow.load_state_dict(part_of(weights, "flow."))
    model.mel2wav.load_state_dict(convert_vocoder(part_of(weights, "mel2wav.")))
    return model.eval()


def make_inputs(batch_size: int, seconds: float, prompt_seconds: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prompt = int(prompt_seconds * TOKENS_PER_SECOND)
    return {
        "tokens": torch.randint(0, 6561, (batch_size, int(seconds * TOKENS_PER_SECOND)), generator=generator),
        "prompt_token": torch.randint(0, 6561, (1, prompt), generator=generator),
        "prompt_feat": torch.randn(1, 2 * prompt, 80, generator=generator),
        "embedding": torch.randn(1, 192, generator=generator),
    }


@torch.no_grad()
def measure(
    model: S3GenModel, inputs: dict[str, torch.Tensor], steps: int, repeats: int, device: str, watch: Stopwatch
) -> dict:
    """Best seconds for mel frames and for the waveform."""
    reference = {name: tensor.to(device) for name, tensor in inputs.items() if name != "tokens"}
    tokens, mel_seconds, wave_seconds = inputs["tokens"].to(device), [], []
    for _ in range(repeats + device.startswith("cuda")):
        begin = watch()
        mel = model(tokens, ref_dict=reference, finalize=True, num_flow_steps=steps)
        middle = watch()
        model.mel2wav.inference(mel)
        wave_seconds.append(watch() - middle)
        mel_seconds.append(middle - begin)
    return {"mel": min(mel_seconds), "wave": min(wave_seconds)}


@torch.no_grad()
def measure_stream(
    model: S3GenModel, inputs: dict[str, torch.Tensor], steps: int, device: str, watch: Stopwatch
) -> dict[str, float]:
    """Seconds to the first piece and in all for one row, the voice prepared before."""
    reference = {name: tensor.to(device) for name, tensor in inputs.items() if name != "tokens"}
    prepared = model.start_stream(reference, S3GenChunks(), num_flow_steps=steps)
    begin, first = watch(), None
    for _ in model.stream(inputs["tokens"][0].tolist(), prepared):
        first = first or watch() - begin
    return {"first": first, "all": watch() - begin}


def estimator_operations(model: S3GenModel, inputs: dict[str, torch.Tensor], steps: int) -> float:
    """Floating-point operations of the estimator: two per weight and frame, and the attention."""
    estimator, config = model.flow.decoder.estimator, model.config
    frames = 2 * (inputs["tokens"].shape[1] + inputs["prompt_token"].shape[1])
    rows = inputs["tokens"].shape[0] * (1 if config.meanflow else 2)
    weights = sum(
        p.numel() for name, p in estimator.named_parameters() if not name.startswith("time") and ".mlp." not in name
    )
    layers = (config.decoder_num_mid_blocks + 2) * config.decoder_n_blocks
    attention = 4 * frames * config.decoder_num_heads * config.decoder_attention_head_dim * layers
    return float(steps * rows * frames * (2 * weights + attention))


def run_row(
    arguments: argparse.Namespace,
    model: S3GenModel,
    upstream: Upstream | None,
    watch: Stopwatch,
    row: tuple[int, float, int],
    dtype: str,
) -> None:
    batch_size, seconds, steps = row
    inputs = make_inputs(batch_size, seconds, arguments.prompt_seconds)
    ours = measure(model, inputs, steps, arguments.repeats, arguments.device, watch)
    spoken = batch_size * seconds
    rate = estimator_operations(model, inputs, steps) / ours["mel"]
    share = rate / peak(getattr(torch, dtype), arguments.device, watch)
    cells = [batch_size, f"{seconds:g}", steps, dtype, *(f"{value / spoken:.3f}" for value in ours.values())]
    cells += [f"{sum(ours.values()) / spoken:.3f}", f"{share:.0%}"]
    if upstream is not None:
        lists = {name: tensor.tolist() for name, tensor in inputs.items()}
        theirs = upstream.ask({"inputs": lists, "steps": steps, "repeats": arguments.repeats})
        ratios = [theirs["mel"] / ours["mel"], sum(theirs.values()) / sum(ours.values())]
        cells += [f"{sum(theirs.values()) / spoken:.3f}", *(f"{ratio:.2f}×" for ratio in ratios)]
    if arguments.stream:
        streamed = measure_stream(model, inputs, steps, arguments.device, watch)
        cells += [f"{streamed['first']:.2f} s", f"{streamed['all'] / seconds:.3f}"]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    arguments = parse_arguments()
    watch = Stopwatch(arguments.clock, arguments.device)
    torch.set_num_threads(arguments.threads)
    weights = make_weights(arguments.meanflow)
    model, upstream = build(weights, arguments.meanflow, arguments.device), None
    with tempfile.TemporaryDirectory() as folder:
        if arguments.upstream:
            file = Path(folder) / "weights.safetensors"
            save_file(weights, file)
            start = {"weights": str(file), "meanflow": arguments.meanflow, "device": arguments.device}
            start |= {"threads": arguments.threads, "clock": arguments.clock}
            upstream = Upstream(arguments.upstream, "s3gen_upstream.py", start)
        del weights
    columns = ["batch", "seconds", "steps", "estimator", "mel", "waveform", "RTF", "share of peak"]
    columns += ["upstream RTF", "mel faster", "all faster"] if upstream else []
    columns += ["first piece", "streamed RTF"] if arguments.stream else []
    settings = [f"{arguments.threads} threads", arguments.device, f"{arguments.clock} time"]
    print(f"{', '.join(settings)}, reference of {arguments.prompt_seconds:g} s\n")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for dtype in arguments.dtypes:
        model.cast_estimator(getattr(torch, dtype))
        for batch_size in arguments.batch_sizes:
            for seconds in arguments.seconds:
                for steps in arguments.steps:
                    run_row(arguments, model, upstream, watch, (batch_size, seconds, steps), dtype)
    if upstream is not None:
        upstream.close()


if __name__ == "__main__":
    main()
