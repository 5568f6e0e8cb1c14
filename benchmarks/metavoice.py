"""Speed of MetaVoice's first stage beside upstream's two loops, with equal weights, guidance included.

    git clone https://github.com/metavoiceio/metavoice-src ../metavoice-src
    python benchmarks/metavoice.py --upstream ../metavoice-src

`--upstream` names a checkout of metavoice-src; without it only this package is timed. `--python` is the interpreter
that runs it (this one by default). Weights are seeded by name (`seeded_weights.py`), in the width of the released
checkpoint with `--layers` of its 24 layers; the end is made impossible, so that both sides write the same number of
tokens of noise. The scores after the prompt are compared. Every token costs two rows: with the speaker and without.

The limit is the time in which the weights can be read from memory once, at the bandwidth that `--bandwidth` states or
a read of memory shows. 150 tokens make a second of speech.
"""

import argparse
import gc
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from metavoice_common import (
    GUIDANCE,
    NO_END,
    POSITIONS,
    RELEASED,
    SPEAKER,
    TOKENS_PER_SECOND,
    TOP_P,
    VOCABULARY,
    prompt_ids,
    speaker_embedding,
)
from qwen3_tts_common import time_call, time_frames
from seeded_weights import build

from tts_models.acceleration.sampling import RowSampler
from tts_models.models.metavoice import MetaVoiceFirstStageConfig, MetaVoiceFirstStageForCausalLM
from tts_models.models.metavoice.decoding_metavoice_first_stage import FirstStageDecoding, first_stage_processors


MODES: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "fast steps": {},
    "packed": {"pack_weights": True},
    "int8": {"int8": True},
}


def build_model(options: argparse.Namespace) -> MetaVoiceFirstStageForCausalLM:
    """The first stage in the size that is timed."""
    config = MetaVoiceFirstStageConfig(
        vocab_size=VOCABULARY,
        hidden_size=RELEASED["width"],
        intermediate_size=RELEASED["inner"],
        num_hidden_layers=options.layers,
        num_attention_heads=RELEASED["heads"],
        max_position_embeddings=POSITIONS,
        speaker_embed_size=SPEAKER,
    )
    model = build(lambda: MetaVoiceFirstStageForCausalLM(config))
    model.tie_weights()
    return model.to(options.device, getattr(torch, options.dtype))


def speaker(model: MetaVoiceFirstStageForCausalLM) -> Callable[[int], None]:
    """A function that writes so many tokens."""
    prompt, voice = prompt_ids(), speaker_embedding()

    @torch.no_grad()
    def speak(tokens: int) -> None:
        decoding = FirstStageDecoding(
            model,
            [prompt],
            voice,
            first_stage_processors(1.0, TOP_P),
            RowSampler([torch.Generator().manual_seed(0)], model.device),
            [tokens],
            GUIDANCE,
            end_token_id=NO_END,
            enforce_alternation=False,
        )
        assert sum(len(step.tokens) for step in decoding) == tokens

    return speak


@torch.no_grad()
def scores_after_prompt(model: MetaVoiceFirstStageForCausalLM) -> torch.Tensor:
    """The first eight scores of the row with the speaker and of the one without, `(2, 8)`."""
    voice = speaker_embedding().to(model.device, model.dtype)
    ids = prompt_ids().to(model.device)[None].repeat(2, 1)
    return model(input_ids=ids, speaker_embeddings=torch.cat([voice, 0 * voice])).logits[:, -1, :8].float().cpu()


def time_upstream(options: argparse.Namespace) -> dict[str, Any]:
    """Both of upstream's loops, in a process of their own."""
    script = Path(__file__).with_name("metavoice_upstream.py")
    names = ("layers", "tokens", "threads", "device", "dtype")
    arguments = [f"--{name}={getattr(options, name)}" for name in names]
    command = [options.python, str(script), f"--checkout={options.upstream}", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print("upstream done", file=sys.stderr, flush=True)
    return json.loads(output.splitlines()[-1])


def bytes_per_token(model: MetaVoiceFirstStageForCausalLM, bytes_per_weight: int) -> int:
    """What a token must read: the layers and the head, once for both rows."""
    read = [*model.model.layers.parameters(), *model.lm_head.parameters()]
    return sum(parameter.numel() for parameter in read) * bytes_per_weight


def measure_bandwidth(device: str) -> float:
    """Bytes per processor (or device) second when a large tensor is summed up."""
    values = torch.ones(2**28 // (1 if device == "cuda" else 4), device=device)
    seconds = time_call(values.sum, device)
    return values.numel() * 4 / seconds["wall" if device == "cuda" else "cpu"]


def print_table(results: dict[str, Any], limits: dict[str, float], clock: str) -> None:
    """One row per way of running."""
    base = next(iter(results.values()))
    print(f"| {clock} seconds | ms per token | tokens per second | times {next(iter(results))} |", end="")
    print(" real-time factor | share of the limit | prompt, ms |\n|---|---|---|---|---|---|---|")
    for name, result in results.items():
        token = result["frame"][clock]
        cells = [
            name,
            f"{token * 1e3:.1f}",
            f"{1 / token:.1f}",
            f"{base['frame'][clock] / token:.2f}",
            f"{token * TOKENS_PER_SECOND:.2f}",
            f"{limits[name] / token:.0%}",
            f"{result['start'][clock] * 1e3:.0f}",
        ]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Time everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cuda = torch.cuda.is_available()
    parser.add_argument("--upstream", help="checkout of metavoice-src")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs upstream")
    parser.add_argument("--layers", type=int, default=24, help="layers of the first stage; the release has 24")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--tokens", type=int, default=50, help="tokens that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if on_cuda else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if on_cuda else "float32", choices=("bfloat16", "float32"))
    parser.add_argument("--bandwidth", type=float, help="bytes per second that memory can be read at")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    bandwidth = options.bandwidth or measure_bandwidth(options.device)
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(f"{options.layers} of 24 layers, {options.dtype}, {device}, {options.threads} threads, ", end="")
    print(f"torch {torch.__version__}, memory read at {bandwidth / 1e9:.1f} GB/s\n", flush=True)
    upstream = time_upstream(options) if options.upstream else {}
    results: dict[str, Any] = {f"upstream, {name} loop": result for name, result in upstream.items()}
    model = build_model(options)
    if upstream:
        difference = (scores_after_prompt(model) - torch.tensor(upstream["fast"]["scores"])).abs().max()
        print(f"scores after the prompt differ from upstream's by at most {difference.item():.1e}\n", flush=True)
    width = torch.finfo(getattr(torch, options.dtype)).bits // 8
    limits = {name: bytes_per_token(model, width) / bandwidth for name in results}
    for name in options.modes:
        if name == "int8" and options.device != "cpu":
            continue
        model.disable_fast_steps()
        gc.collect()
        if MODES[name] is not None:
            model.enable_fast_steps(**MODES[name])
        results[name] = time_frames(speaker(model), options.tokens, options.device)
        limits[name] = bytes_per_token(model, 1 if name == "int8" else width) / bandwidth
        print(f"{name} done", file=sys.stderr, flush=True)
    for clock in ("wall",) if options.device == "cuda" else ("cpu", "wall"):
        print_table(results, limits, clock)


if __name__ == "__main__":
    main()
