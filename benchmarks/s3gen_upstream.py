"""Upstream's S3Gen, run by `benchmarks/s3gen.py` as a process of its own, in an environment with `chatterbox-tts`.

Reads one request per line (JSON) from the standard input and answers each with one line. Only the flow and the vocoder
are built: what a request runs once the reference is known.
"""

import contextlib
import importlib.util
import json
import os
import sys
import time
import types


def import_parts() -> types.SimpleNamespace:
    """Upstream's classes, without running the package's own imports, which load every model it has."""
    for name in ("chatterbox", "chatterbox.models", "chatterbox.models.s3gen"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"this interpreter has no {name}: install chatterbox-tts")
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package
    from chatterbox.models.s3gen import decoder, f0_predictor, flow, flow_matching, hifigan
    from chatterbox.models.s3gen.transformer import upsample_encoder

    return types.SimpleNamespace(
        CausalConditionalCFM=flow_matching.CausalConditionalCFM,
        CausalMaskedDiffWithXvec=flow.CausalMaskedDiffWithXvec,
        ConditionalDecoder=decoder.ConditionalDecoder,
        ConvRNNF0Predictor=f0_predictor.ConvRNNF0Predictor,
        HiFTGenerator=hifigan.HiFTGenerator,
        UpsampleConformerEncoder=upsample_encoder.UpsampleConformerEncoder,
    )


def build(weights: str, meanflow: bool, device: str):
    """Flow and vocoder of the released sizes with the weights of a file."""
    import torch
    from safetensors.torch import load_file

    parts = import_parts()
    encoder = parts.UpsampleConformerEncoder(
        output_size=512, attention_heads=8, linear_units=2048, num_blocks=6, dropout_rate=0.1,
        positional_dropout_rate=0.1, attention_dropout_rate=0.1, normalize_before=True, input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet", selfattention_layer_type="rel_selfattn", input_size=512,
        use_cnn_module=False, macaron_style=False,
    )  # fmt: skip
    estimator = parts.ConditionalDecoder(
        in_channels=320, out_channels=80, causal=True, channels=[256], dropout=0.0, attention_head_dim=64,
        n_blocks=4, num_mid_blocks=12, num_heads=8, act_fn="gelu", meanflow=meanflow,
    )  # fmt: skip
    flow = parts.CausalMaskedDiffWithXvec(
        encoder=encoder, decoder=parts.CausalConditionalCFM(spk_emb_dim=80, estimator=estimator)
    )
    vocoder = parts.HiFTGenerator(
        sampling_rate=24000, upsample_rates=[8, 5, 3], upsample_kernel_sizes=[16, 11, 7],
        source_resblock_kernel_sizes=[7, 7, 11], source_resblock_dilation_sizes=[[1, 3, 5]] * 3,
        f0_predictor=parts.ConvRNNF0Predictor(),
    )  # fmt: skip
    tensors = load_file(weights)
    for module, prefix in ((flow, "flow."), (vocoder, "mel2wav.")):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        module.load_state_dict(own, strict=True)
        module.to(device).eval()
    torch.set_grad_enabled(False)
    return flow, vocoder


def main() -> None:
    import torch

    start = json.loads(sys.stdin.readline())
    torch.set_num_threads(start["threads"])
    device, meanflow = start["device"], start["meanflow"]
    # Upstream prints and shows progress bars: only answers may reach the standard output.
    answers, sys.stdout = sys.stdout, sys.stderr
    flow, vocoder = build(start["weights"], meanflow, device)
    print(json.dumps({"ready": True}), file=answers, flush=True)

    def synchronize() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.process_time() if start["clock"] == "cpu" else time.perf_counter()

    for line in sys.stdin:
        request = json.loads(line)
        arrays = {name: torch.tensor(value, device=device) for name, value in request["inputs"].items()}
        tokens, mel_seconds, wave_seconds = arrays.pop("tokens"), [], []
        reference = {
            **arrays,
            "prompt_token_len": torch.tensor([arrays["prompt_token"].shape[1]], device=device),
            "prompt_feat_len": None,
        }
        for _ in range(request["repeats"]):
            mels, begin = [], synchronize()
            for row in tokens:  # upstream speaks one row at a time
                with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                    mel, _ = flow.inference(
                        token=row[None],
                        token_len=torch.tensor([len(row)], device=device),
                        finalize=True,
                        n_timesteps=request["steps"],
                        meanflow=meanflow,
                        noised_mels=torch.randn(1, 80, 2 * len(row), device=device) if meanflow else None,
                        **reference,
                    )
                mels.append(mel)
            middle = synchronize()
            for mel in mels:
                vocoder.inference(speech_feat=mel, cache_source=torch.zeros(1, 1, 0, device=device))
            wave_seconds.append(synchronize() - middle)
            mel_seconds.append(middle - begin)
        print(json.dumps({"mel": min(mel_seconds), "wave": min(wave_seconds)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
