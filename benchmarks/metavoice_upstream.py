"""Times upstream's two loops of MetaVoice's first stage and prints the result as JSON; `metavoice.py` runs it.

It runs from a checkout of metavoice-src at de3fa21. Packages that upstream imports for other purposes (reading audio,
tokenizing) may be missing: empty modules then stand in.
"""

import argparse
import contextlib
import io
import json
import sys
from typing import Any

import torch
from metavoice_common import (
    GUIDANCE,
    NO_END,
    POSITIONS,
    RELEASED,
    SPEAKER,
    TOP_P,
    VOCABULARY,
    fused,
    prompt_ids,
    speaker_embedding,
)
from qwen3_tts_common import time_frames
from seeded_weights import fill, uninitialised
from upstream_modules import stand_in_for_missing_modules


_UNUSED = ("librosa", "tiktoken", "einops", "webrtcvad", "soundfile", "librosa.feature")


def layer_names(layer: int) -> str:
    """Our names of a layer's linear layers, with the place of the last parts."""
    return f"model.layers.{layer}.{{}}.weight"


def attention_weights(layer: int) -> torch.Tensor:
    """Queries, keys and values below each other."""
    width = RELEASED["width"]
    return fused(layer_names(layer), [(f"self_attn.{kind}_proj", width) for kind in "qkv"], width)


def filled(name: str, like: torch.Tensor) -> torch.Tensor:
    values = torch.empty(like.shape)
    fill(name, values)
    return values


FAST = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "output.weight": "model.embed_tokens.weight",
    "pos_embeddings.weight": "model.embed_positions.weight",
    "speaker_cond_pos.weight": "model.speaker_projection.weight",
    "norm.weight": "model.norm.weight",
}
OLDER = {
    "transformer.wtes.0.weight": "model.embed_tokens.weight",
    "lm_heads.0.weight": "model.embed_tokens.weight",
    "transformer.wpe.weight": "model.embed_positions.weight",
    "speaker_cond_pos.weight": "model.speaker_projection.weight",
    "transformer.ln_f.weight": "model.norm.weight",
}
FAST_LAYER = {
    "attention.wo.weight": "self_attn.o_proj",
    "feed_forward.swiglu.w1.weight": "mlp.gate_proj",
    "feed_forward.swiglu.w3.weight": "mlp.up_proj",
    "feed_forward.w2.weight": "mlp.down_proj",
    "attention_norm.weight": "input_layernorm",
    "ffn_norm.weight": "post_attention_layernorm",
}
OLDER_LAYER = {
    "attn.c_proj.weight": "self_attn.o_proj",
    "mlp.swiglu.w1.weight": "mlp.gate_proj",
    "mlp.swiglu.w3.weight": "mlp.up_proj",
    "mlp.c_proj.weight": "mlp.down_proj",
    "ln_1.weight": "input_layernorm",
    "ln_2.weight": "post_attention_layernorm",
}


def load_weights(model: torch.nn.Module, names: dict[str, str], layer_map: dict[str, str], prefix: str) -> None:
    """The weights that our names seed."""
    joined = "attention.wqkv.weight" if layer_map is FAST_LAYER else "attn.c_attn.weight"
    for name, values in model.state_dict().items():
        if name in names:
            values.copy_(filled(names[name], values))
            continue
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if rest == joined:
            values.copy_(attention_weights(int(layer)))
        elif rest in layer_map:
            values.copy_(filled(layer_names(int(layer)).format(layer_map[rest]), values))
        elif values.is_floating_point():
            raise ValueError(f"no weight for {name}")


def fast_loop(options: argparse.Namespace) -> dict[str, Any]:
    """The loop that `TTS.synthesise` runs, compiled on CUDA as there."""
    from fam.llm import fast_inference_utils as loop
    from fam.llm.fast_model import ModelArgs, Transformer

    dtype = getattr(torch, options.dtype)
    config = ModelArgs(
        block_size=POSITIONS,
        vocab_size=VOCABULARY,
        n_layer=options.layers,
        n_head=RELEASED["heads"],
        dim=RELEASED["width"],
        speaker_emb_dim=SPEAKER,
    )
    # What caches are made in; upstream takes whatever half precision the machine has.
    config.dtype = dtype
    with uninitialised():
        model = Transformer(config).eval()
    load_weights(model, FAST, FAST_LAYER, "layers.")
    model = model.to(options.device, dtype)
    with torch.device(options.device):
        model.setup_spk_cond_mask()
        model.setup_caches(max_batch_size=2, max_seq_length=POSITIONS)
    if options.device == "cuda":
        loop.decode_one_token = torch.compile(loop.decode_one_token, mode="max-autotune", fullgraph=True)
    numbers = {"temperature": 1.0, "top_p": TOP_P, "guidance_scale": GUIDANCE}
    numbers = {name: torch.tensor(value, device=options.device, dtype=dtype) for name, value in numbers.items()}
    prompt = prompt_ids().to(options.device, torch.int)
    speaker = speaker_embedding().to(options.device, dtype)

    def speak(tokens: int) -> None:
        with quiet():
            ids = loop.generate(
                model, prompt, speaker, max_new_tokens=tokens, end_of_audio_token=NO_END, top_k=None, **numbers
            )
        assert len(ids) == len(prompt) + tokens

    with torch.no_grad():
        scores = model(prompt[None].repeat(2, 1), speaker, torch.arange(len(prompt), device=options.device))[:, -1]
    return time_frames(speak, options.tokens, options.device) | {"scores": scores[:, :8].float().tolist()}


def older_loop(options: argparse.Namespace) -> dict[str, Any]:
    """The loop of `inference.py`, with its cache."""
    from fam.llm.model import GPT, GPTConfig

    config = GPTConfig(
        block_size=POSITIONS,
        vocab_sizes=[VOCABULARY],
        n_layer=options.layers,
        n_head=RELEASED["heads"],
        n_embd=RELEASED["width"],
        bias=False,
        norm_type="rmsnorm",
        rmsnorm_eps=1e-5,
        nonlinearity_type="swiglu",
        swiglu_multiple_of=256,
    )
    with uninitialised(), quiet():
        model = GPT(config, speaker_emb_dim=SPEAKER).eval()
    load_weights(model, OLDER, OLDER_LAYER, "transformer.h.")
    dtype = getattr(torch, options.dtype)
    model = model.to(options.device, dtype)
    model.enable_kv_cache()
    prompt = prompt_ids().to(options.device)[None, None]
    speaker = speaker_embedding().to(options.device, dtype)[:, None]

    def speak(tokens: int) -> None:
        with quiet():
            ids = model.generate(
                prompt,
                tokens,
                seq_lens=[prompt.shape[-1]],
                temperature=1.0,
                top_p=TOP_P,
                speaker_embs=speaker,
                batch_size=1,
                guidance_scale=(GUIDANCE, 1.0),
                dtype=dtype,
                end_of_audio_token=NO_END,
            )
        assert ids.shape[-1] == prompt.shape[-1] + tokens

    return time_frames(speak, options.tokens, options.device)


def quiet() -> contextlib.AbstractContextManager:
    """Nothing of what upstream prints."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return stack


def main() -> None:
    """Both loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.path.insert(0, options.checkout)
    stand_in_for_missing_modules(_UNUSED)
    result = {"fast": fast_loop(options)}
    result["older"] = older_loop(options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
