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
from tts_models.training.codec import CodebookRefresher, SpectrogramPretraining, WaveformTraining, widen_decoder
from tts_models.training.discriminators import WaveformDiscriminator
from tts_models.training.muon import MuonAdamW


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of wav, flac, ogg or mp3 files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of a codec to start from")
    parser.add_argument(
        "--config",
        type=json.loads,
        default={},
        help="JSON of SnacConfig arguments for a new codec; with --model, changes to its configuration: more levels "
        "of codes (what is new starts at random), or a wider decoder (which starts out decoding as before)",
    )
    parser.add_argument("--phase", choices=("joint", "spectrogram", "waveform"), default="joint")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--unquantized_steps", type=int, default=150, help="first steps of the spectrogram phase")
    parser.add_argument("--batch_size", type=int, default=12)
    parser.add_argument("--crop_seconds", type=float, default=0.5)
    parser.add_argument("--grid_samples", type=int, default=1, help="start crops at multiples of this many samples")
    parser.add_argument("--waveform_weight", type=float, default=0.0, help="compare samples: audio with a fixed phase")
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--muon_learning_rate", type=float, help="train dense weights with Muon at this rate")
    parser.add_argument("--adversarial", action="store_true", help="add multi-period and multi-scale discriminators")
    parser.add_argument("--max_files", type=int, help="use only the first files of the folder")
    parser.add_argument("--save_every", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_model(args: argparse.Namespace) -> SnacModel:
    if args.model is None:
        return SnacModel(SnacConfig(**args.config))
    known = SnacModel.from_pretrained(args.model)
    if not args.config:
        return known
    if args.config.get("decoder_hidden_size", 0) > known.config.decoder_hidden_size:
        known = widen_decoder(known, args.config["decoder_hidden_size"])
    model = SnacModel(SnacConfig(**known.config.to_dict() | args.config))
    model.load_state_dict(known.state_dict(), strict=False)
    return model


def save(model: SnacModel, output: Path) -> None:
    config = model.config
    model.save_pretrained(output)
    SnacFeatureExtractor(
        sampling_rate=config.sampling_rate, hop_length=config.hop_length, pad_to_multiple_of=config.pad_to_multiple_of
    ).save_pretrained(output)


def make_dataset(args: argparse.Namespace, config: SnacConfig) -> AudioCropDataset:
    multiple = config.pad_to_multiple_of
    crop = max(1, round(args.crop_seconds * config.sampling_rate / multiple)) * multiple
    files = find_audio_files(args.audio)[: args.max_files]
    items = args.steps * args.batch_size
    return AudioCropDataset(files, config.sampling_rate, crop, items, args.seed, args.grid_samples)


def make_network(args: argparse.Namespace, model: SnacModel) -> SpectrogramPretraining | WaveformTraining:
    if args.phase == "spectrogram":
        return SpectrogramPretraining(model)
    return WaveformTraining(model, train_encoder=args.phase == "joint", waveform_weight=args.waveform_weight)


def make_optimizer(module: torch.nn.Module, args: argparse.Namespace):
    """AdamW, or Muon for the dense weights and AdamW for the rest, with a one-cycle schedule for both rates."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if args.muon_learning_rate is None:
        optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.8, 0.99), weight_decay=0.0)
    else:
        optimizer = MuonAdamW(module, args.muon_learning_rate, args.learning_rate, weight_decay=0.0, betas=(0.8, 0.99))
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=args.steps, pct_start=0.05, cycle_momentum=False
    )
    return optimizer, schedule


class Training:
    """The loop: one step of the codec, and with `--adversarial` one of the discriminators."""

    def __init__(self, args: argparse.Namespace, model: SnacModel):
        self.args, self.model = args, model
        self.accelerator = Accelerator()
        network = make_network(args, model)
        if args.phase == "spectrogram":
            model.decoder.requires_grad_(False)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer, self.schedule = make_optimizer(network, args)
        loader = DataLoader(make_dataset(args, model.config), args.batch_size)
        self.network, self.optimizer, self.loader = self.accelerator.prepare(network, optimizer, loader)
        self.refresher = None if args.phase == "waveform" else CodebookRefresher(model)
        self.discriminator = None
        if args.adversarial and args.phase != "spectrogram":
            discriminator = WaveformDiscriminator()
            optimizer, self.discriminator_schedule = make_optimizer(discriminator, args)
            self.discriminator, self.discriminator_optimizer = self.accelerator.prepare(discriminator, optimizer)

    def step(self, number: int, input_values: torch.Tensor) -> float:
        if self.args.phase == "spectrogram":
            loss, audio = self.network(input_values, quantize=number > self.args.unquantized_steps)
        else:
            loss, audio = self.network(input_values, discriminator=self.discriminator)
        self.update(loss, self.parameters, self.optimizer, self.schedule)
        if self.discriminator is not None:
            judged = self.discriminator.discriminator_loss(audio, input_values.squeeze(1))
            parameters = list(self.discriminator.parameters())
            self.update(judged, parameters, self.discriminator_optimizer, self.discriminator_schedule)
        if self.refresher is not None and number < 0.7 * self.args.steps:
            self.refresher.step()
        return loss.item()

    def update(self, loss: torch.Tensor, parameters: list[torch.nn.Parameter], optimizer, schedule) -> None:
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()

    def run(self) -> None:
        started, total = time.time(), 0.0
        for number, batch in enumerate(self.loader, start=1):
            total += self.step(number, batch["input_values"])
            if number % 50 == 0:
                usage = "" if self.refresher is None else f"  codes used {self.refresher.last_usage}"
                print(f"step {number}  loss {total / 50:.4f}  {time.time() - started:.0f} s{usage}", flush=True)
                total = 0.0
            if number % self.args.save_every == 0 or number == self.args.steps:
                save(self.model, self.args.output)


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    Training(args, make_model(args).train()).run()


if __name__ == "__main__":
    main()
