"""Train a SNAC codec from a folder of audio.

    python examples/train_snac.py --audio data/audio --output codec --steps 12000

On a CPU the two-phase route is several times faster: first the encoder and the codes, through spectrograms, then the
waveform decoder on the fixed codes (see `tts_models.training.codec`).

    python examples/train_snac.py --phase spectrogram --audio data/audio --output codec_codes --steps 1500
    python examples/train_snac.py --phase waveform --model codec_codes --audio data/audio --output codec --steps 12000

Writes a `SnacModel.from_pretrained` folder, and another every `--save_every` steps.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from tts_models.models.snac.configuration_snac import SnacConfig
from tts_models.models.snac.feature_extraction_snac import SnacFeatureExtractor
from tts_models.models.snac.modeling_snac import SnacModel
from tts_models.training.audio_dataset import AudioCropDataset, find_audio_files
from tts_models.training.codec import CodebookRefresher, SpectrogramPretraining, WaveformTraining


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of wav, flac, ogg or mp3 files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of a codec to start from")
    parser.add_argument("--config", type=json.loads, default={}, help="JSON of SnacConfig arguments for a new codec")
    parser.add_argument("--phase", choices=("joint", "spectrogram", "waveform"), default="joint")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--unquantized_steps", type=int, default=150, help="first steps of the spectrogram phase")
    parser.add_argument("--batch_size", type=int, default=12)
    parser.add_argument("--crop_seconds", type=float, default=0.5)
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--max_files", type=int, help="use only the first files of the folder")
    parser.add_argument("--save_every", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def save(model: SnacModel, output: Path) -> None:
    config = model.config
    model.save_pretrained(output)
    SnacFeatureExtractor(
        sampling_rate=config.sampling_rate, hop_length=config.hop_length, pad_to_multiple_of=config.pad_to_multiple_of
    ).save_pretrained(output)


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    accelerator = Accelerator()
    model = SnacModel.from_pretrained(args.model) if args.model else SnacModel(SnacConfig(**args.config))
    config = model.config
    crop = max(1, round(args.crop_seconds * config.sampling_rate / config.pad_to_multiple_of))
    dataset = AudioCropDataset(
        find_audio_files(args.audio)[: args.max_files],
        config.sampling_rate,
        crop * config.pad_to_multiple_of,
        length=args.steps * args.batch_size,
        seed=args.seed,
    )
    network = (
        SpectrogramPretraining(model)
        if args.phase == "spectrogram"
        else WaveformTraining(model, args.phase == "joint")
    )
    unused = model.decoder if args.phase == "spectrogram" else None
    parameters = [p for p in network.parameters() if p.requires_grad]
    if unused is not None:
        skipped = set(map(id, unused.parameters()))
        parameters = [p for p in parameters if id(p) not in skipped]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.8, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=args.steps, pct_start=0.05
    )
    network, optimizer, loader = accelerator.prepare(network, optimizer, DataLoader(dataset, args.batch_size))
    refresher = None if args.phase == "waveform" else CodebookRefresher(model)

    started, total = time.time(), 0.0
    for step, batch in enumerate(loader, start=1):
        quantize = {"quantize": step > args.unquantized_steps} if args.phase == "spectrogram" else {}
        loss = network(batch["input_values"], **quantize)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if refresher is not None and step < 0.7 * args.steps:
            refresher.step()
        total += loss.item()
        if step % 50 == 0:
            usage = "" if refresher is None else f"  codes used {[round(u, 2) for u in refresher.usage()]}"
            print(f"step {step}  loss {total / 50:.4f}  {time.time() - started:.0f} s{usage}", flush=True)
            total = 0.0
        if step % args.save_every == 0 or step == args.steps:
            save(model, args.output)


if __name__ == "__main__":
    main()
