"""Speed of MegaTTS3's diffusion transformer and WaveVAE beside upstream's, with equal weights of the released sizes.

    python benchmarks/megatts3.py                                    # ours alone
    python benchmarks/megatts3.py --upstream /path/to/MegaTTS3       # beside upstream's: a clone of its repository
    python benchmarks/megatts3.py --upstream … --interpreter /path/to/its/python
    python benchmarks/megatts3.py --batch_sizes 1 4 --steps 32 10 --seconds 4 8 --products float32 int8

Every row is measured in turn for both sides, so that a busy machine is as busy for both; on one that is very busy,
`--threads 1 --clock cpu` counts processor time. The weights are drawn by a rule, so no checkpoint is needed: speed
does not depend on their values. RTF is seconds of work per second of new speech; the voice is known before, its prompt
is a part of every computation. `share of peak` is the transformer's arithmetic over what large matrix products reach
on the machine in the same dtype. With equal noise both sides compute equal audio: `difference` is the largest one of
the first samples. Upstream has no batches: its rows are counted as often as there are.
"""

import argparse
import sys
from pathlib import Path

import torch


REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src"), str(REPOSITORY / "conversion_scripts")]

from megatts3_parts import convert_transformer, convert_vae  # noqa: E402
from side_by_side import CLOCKS, Stopwatch, Upstream, peak  # noqa: E402

from tests.common.fill import fill_state_dict  # noqa: E402
from tts_models import (  # noqa: E402
    MegaTTS3TransformerConfig,
    MegaTTS3TransformerModel,
    MegaTTS3VAEConfig,
    MegaTTS3VAEModel,
)


LATENTS_PER_SECOND, FRAMES_PER_LATENT = 25, 4
# Speech has about ten phones a second.
FRAMES_PER_PHONE = 10
PRODUCTS = ("float32", "bfloat16", "float16", "int8")
# Keeps the waveform in range with drawn weights, as in the reference cases.
SCALES = [[r"^decoder\.model_up\.12\.weight_g$", 0.12]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", help="folder of upstream's repository")
    parser.add_argument("--interpreter", default=sys.executable, help="Python that can run it")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, nargs="+", default=[32])
    parser.add_argument("--seconds", type=float, nargs="+", default=[4.0], help="new speech per row")
    parser.add_argument("--prompt_seconds", type=float, default=6.0, help="reference recording")
    parser.add_argument("--layers", type=int, default=24, help="fewer than the released 24, for a slow machine")
    parser.add_argument("--products", nargs="+", default=["float32"], choices=PRODUCTS, help="of the transformer")
    parser.add_argument("--vae_dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--fast_convolutions", action="store_true", help="of the WaveVAE: on a CPU in float32")
    parser.add_argument("--sequential", action="store_true", help="the conditions of a step one after the other")
    parser.add_argument("--graphs", action="store_true", help="a solution as one CUDA graph")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="the best counts; one more warms up on CUDA")
    return parser.parse_args()


def build(
    upstream: Upstream | None, arguments: argparse.Namespace
) -> tuple[MegaTTS3TransformerModel, MegaTTS3VAEModel]:
    """The networks, with upstream's weights where it is there."""
    transformer = MegaTTS3TransformerModel(MegaTTS3TransformerConfig(num_hidden_layers=arguments.layers))
    vae = MegaTTS3VAEModel(MegaTTS3VAEConfig(has_encoder=upstream is not None))
    if upstream is not None:
        shapes = upstream.ready["shapes"]
        transformer.load_state_dict(convert_transformer(fill_state_dict(shapes[0])))
        vae.load_state_dict(convert_vae(fill_state_dict(shapes[1], SCALES)))
    vae.decoder.to(getattr(torch, arguments.vae_dtype))
    vae.to(arguments.device).use_fast_convolutions(arguments.fast_convolutions)
    return transformer.to(arguments.device).eval(), vae.eval()


def make_inputs(batch_size: int, seconds: float, prompt_seconds: float) -> dict[str, torch.Tensor]:
    """Phones of equal length, and a prompt."""
    generator = torch.Generator().manual_seed(0)
    prompt = int(prompt_seconds * LATENTS_PER_SECOND)
    frames = FRAMES_PER_LATENT * (prompt + int(seconds * LATENTS_PER_SECOND))
    phones = -(-frames // FRAMES_PER_PHONE)
    return {
        "phone_ids": torch.randint(3, 146, (batch_size, phones), generator=generator),
        "tone_ids": torch.full((batch_size, phones), 3),
        "frame_map": torch.arange(1, phones + 1).repeat_interleave(FRAMES_PER_PHONE)[:frames].repeat(batch_size, 1),
        "prompt_latents": torch.randn(1, prompt, 32, generator=generator).repeat(batch_size, 1, 1),
    }


def draw_noise(steps: int, latents: int, seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise that upstream draws after this seed."""
    torch.manual_seed(seed)
    drawn = torch.stack([torch.randn(1, latents, 32, device=device) for _ in range(steps + 1)], dim=1)
    return drawn[:, 0], drawn[:, 1:]


@torch.no_grad()
def measure(
    transformer: MegaTTS3TransformerModel,
    vae: MegaTTS3VAEModel,
    inputs: dict[str, torch.Tensor],
    steps: int,
    arguments: argparse.Namespace,
    watch: Stopwatch,
) -> tuple[dict[str, float], torch.Tensor]:
    """Best seconds for latents and for the waveform, and the waveform of the first row."""
    given = {name: tensor.to(arguments.device) for name, tensor in inputs.items()}
    rows, prompt = inputs["prompt_latents"].shape[:2]
    initial, each_step = draw_noise(steps, inputs["frame_map"].shape[1] // FRAMES_PER_LATENT, 0, arguments.device)
    noise = {"initial_noise": initial.repeat(rows, 1, 1), "step_noise": each_step.repeat(rows, 1, 1, 1)}
    latent_seconds, wave_seconds = [], []
    for _ in range(arguments.repeats + watch.is_cuda):
        begin = watch()
        latents = transformer.solve(**given, **noise, num_inference_steps=steps, sequential=arguments.sequential)
        middle = watch()
        waveform = vae.decode(latents, first_latent=prompt).audio_values
        wave_seconds.append(watch() - middle)
        latent_seconds.append(middle - begin)
    return {"latents": min(latent_seconds), "wave": min(wave_seconds)}, waveform[0]


def transformer_operations(
    transformer: MegaTTS3TransformerModel, inputs: dict[str, torch.Tensor], steps: int
) -> float:
    """Floating-point operations of the layers: two per weight and latent, and the attention."""
    config = transformer.config
    rows, latents = len(inputs["frame_map"]), inputs["frame_map"].shape[1] // FRAMES_PER_LATENT
    weights = sum(p.numel() for name, p in transformer.layers.named_parameters() if "modulation" not in name)
    attention = 4 * latents * config.hidden_size * config.num_hidden_layers
    return float(steps * 3 * rows * latents * (2 * weights + attention))


def run_row(
    arguments: argparse.Namespace,
    networks: tuple[MegaTTS3TransformerModel, MegaTTS3VAEModel],
    upstream: Upstream | None,
    watch: Stopwatch,
    row: tuple[int, float, int],
    products: str,
) -> None:
    batch_size, seconds, steps = row
    inputs, spoken = make_inputs(batch_size, seconds, arguments.prompt_seconds), batch_size * seconds
    ours, waveform = measure(*networks, inputs, steps, arguments, watch)
    dtype = torch.float32 if products == "int8" else getattr(torch, products)
    rate = transformer_operations(networks[0], inputs, steps) / ours["latents"]
    share = rate / peak(dtype, arguments.device, watch)
    cells = [batch_size, f"{seconds:g}", steps, products, *(f"{value / spoken:.3f}" for value in ours.values())]
    cells += [f"{sum(ours.values()) / spoken:.3f}", f"{share:.0%}"]
    if upstream is not None:
        lists = {name: tensor[:1].tolist() for name, tensor in inputs.items()}
        theirs = upstream.ask({"inputs": lists, "steps": steps, "repeats": arguments.repeats, "seed": 0})
        expected = torch.tensor(theirs.pop("waveform"))
        difference = (waveform[: len(expected)].cpu() - expected).abs().max().item()
        theirs = {name: batch_size * value for name, value in theirs.items()}
        ratios = [theirs[name] / ours[name] for name in ours] + [sum(theirs.values()) / sum(ours.values())]
        cells += [f"{sum(theirs.values()) / spoken:.3f}", *(f"{ratio:.2f}×" for ratio in ratios), f"{difference:.1e}"]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    arguments = parse_arguments()
    watch = Stopwatch(arguments.clock, arguments.device)
    torch.set_num_threads(arguments.threads)
    upstream = None
    if arguments.upstream:
        names = {"threads", "clock", "device", "layers"}
        start = {name: value for name, value in vars(arguments).items() if name in names}
        start |= {"repository": arguments.upstream, "scales": SCALES}
        upstream = Upstream(arguments.interpreter, "megatts3_upstream.py", start)
    transformer, vae = build(upstream, arguments)
    columns = ["batch", "seconds", "steps", "products", "latents", "waveform", "RTF", "share of peak"]
    columns += ["upstream RTF", "latents faster", "waveform faster", "all faster", "difference"] if upstream else []
    settings = [
        f"{arguments.layers} layers",
        f"{arguments.threads} threads",
        arguments.device,
        f"{arguments.clock} time",
    ]
    print(f"{', '.join(settings)}, reference of {arguments.prompt_seconds:g} s\n")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for products in arguments.products:
        transformer.to(torch.float32 if products == "int8" else getattr(torch, products))
        transformer.use_int8_products(products == "int8")
        transformer.use_cuda_graphs(32 if arguments.graphs else None)
        for batch_size in arguments.batch_sizes:
            for seconds in arguments.seconds:
                for steps in arguments.steps:
                    row = (batch_size, seconds, steps)
                    run_row(arguments, (transformer, vae), upstream, watch, row, products)
    if upstream is not None:
        upstream.close()


if __name__ == "__main__":
    main()
