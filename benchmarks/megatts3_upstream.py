"""Upstream's MegaTTS3, run by `benchmarks/megatts3.py` as a process of its own.

The first request names a clone of upstream's repository; torch, numpy and einops are what its networks need. Reads one
request per line (JSON) from the standard input and answers each with one line. Only the diffusion transformer and the
WaveVAE are built: they are nearly all of the work of a call once the voice is known.
"""

import importlib.util
import json
import sys
import time
import types
from pathlib import Path


def import_networks(repository: str) -> tuple[type, type]:
    """Upstream's classes; a package that they import and do not use may be missing."""
    sys.path.insert(0, repository)
    if importlib.util.find_spec("librosa") is None:
        librosa, filters = types.ModuleType("librosa"), types.ModuleType("librosa.filters")
        filters.mel = librosa.filters = None
        sys.modules |= {"librosa": librosa, "librosa.filters": filters}
    from tts.modules.llm_dit.dit import Diffusion
    from tts.modules.wavvae.decoder.wavvae_v3 import WavVAE_V3

    return Diffusion, WavVAE_V3


def build(repository: str, layers: int, scales: list, device: str):
    """The networks with weights that their names alone decide."""
    import torch

    from tests.common.fill import fill_state_dict

    torch.set_grad_enabled(False)
    # Values that are replaced need not be drawn.
    for name in ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"):
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    diffusion_class, vae_class = import_networks(repository)
    networks = diffusion_class(), vae_class({"melgan_config": {"frame_shift": 240, "use_tanh": True}})
    networks[0].encoder.layers = networks[0].encoder.layers[:layers]
    for network in networks:
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        network.load_state_dict(fill_state_dict(shapes, scales), strict=True)
        network.to(device).eval()
    return networks


def main() -> None:
    import torch

    start = json.loads(sys.stdin.readline())
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    torch.set_num_threads(start["threads"])
    # Upstream prints: only answers may reach the standard output.
    answers, sys.stdout = sys.stdout, sys.stderr
    device = start["device"]
    transformer, vae = build(start["repository"], start["layers"], start["scales"], device)
    shapes = [{name: list(t.shape) for name, t in network.state_dict().items()} for network in (transformer, vae)]
    print(json.dumps({"shapes": shapes}), file=answers, flush=True)

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.process_time() if start["clock"] == "cpu" else time.perf_counter()

    for line in sys.stdin:
        request = json.loads(line)
        phones, tones, frame_map, prompt = (
            torch.tensor(request["inputs"][name], device=device)
            for name in ("phone_ids", "tone_ids", "frame_map", "prompt_latents")
        )
        count, steps = prompt.shape[1], frame_map.shape[1] // 4
        rows = {
            "phone": torch.cat([phones, phones, torch.full_like(phones, 301)]),
            "tone": torch.cat([tones, tones, torch.full_like(tones, 31)]),
            "dur": frame_map.repeat(3, 1),
        }
        padded = torch.nn.functional.pad(prompt, (0, 0, 0, steps - count))
        mask = (torch.arange(steps, device=device) < count).float()[None, :, None].repeat(3, 1, 1)
        latent_seconds, wave_seconds = [], []
        for _ in range(request["repeats"]):
            torch.manual_seed(request["seed"])
            given = rows | {"lat_ctx": torch.cat([padded, 0 * padded, 0 * padded]), "ctx_mask": mask}
            begin = now()
            with torch.autocast(device.partition(":")[0], torch.float16, enabled=device.startswith("cuda")):
                latents = transformer.inference(given, timesteps=request["steps"], seq_cfg_w=[1.6, 2.5]).float()
            middle = now()
            latents[:, :count] = prompt
            waveform = vae.decode(latents)[0, 0, 960 * count :].float()
            wave_seconds.append(now() - middle)
            latent_seconds.append(middle - begin)
        answer = {"latents": min(latent_seconds), "wave": min(wave_seconds), "waveform": waveform[:2400].tolist()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
