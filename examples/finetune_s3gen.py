"""Fine-tune S3Gen's flow (speech tokens to mel frames) on recordings of one voice or of many.

    python examples/finetune_s3gen.py --model s3gen-hf --audio my_recordings --output my_s3gen

Needs no texts: tokens, mel frames and speaker vectors are computed from the recordings, once, by the model's own
parts, which stay as they are. The loss is the flow-matching loss that the model was trained with; half of the batches
are limited to streaming chunks, so that both ways of speaking stay good (`--chunked_share`). The defaults are
CosyVoice 2's: a constant rate of 1e-5 after a warm-up, gradients clipped at 5. Train on a voice only with the consent
of the person it belongs to.

    model = S3GenModel.from_pretrained("my_s3gen")
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from tts_models import S3GenChunks, S3GenModel
from tts_models.audio import load_audio
from tts_models.audio.sinc_resample import sinc_resample
from tts_models.training.audio_dataset import find_audio_files
from tts_models.training.fine_tuning import add_training_options, hold_out, train_and_report, training_arguments


SHORTEST, LONGEST = 0.5, 30.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a converted S3Gen")
    parser.add_argument("--audio", type=Path, required=True, help="folder of wav, flac, ogg or mp3 files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--chunked_share", type=float, default=0.5, help="share of batches limited to chunks")
    parser.add_argument("--train_encoder", action=argparse.BooleanOptionalAction, default=True)
    add_training_options(
        parser,
        lora=False,
        epochs=10,
        warmup_steps=2500,
        gradient_accumulation_steps=2,
        learning_rate=1e-5,
        eval_share=0.05,
    )
    return parser.parse_args()


@torch.no_grad()
def make_example(model: S3GenModel, file: Path) -> dict[str, torch.Tensor] | None:
    """Tokens `(n,)`, mel frames `(2 n, mel_bins)` and speaker vector of a recording; `None` if its length is unfit."""
    samples, rate = load_audio(file)
    if not SHORTEST <= len(samples) / rate <= LONGEST:
        return None
    samples = torch.from_numpy(samples).to(model.device)
    low = sinc_resample(samples, rate, model.tokenizer.config.sampling_rate)
    mel = model.mel_spectrogram(sinc_resample(samples, rate, model.config.sampling_rate))
    tokens = model.tokenizer.tokenize([low])[0][0]
    ratio = model.config.token_mel_ratio
    length = min(len(tokens), len(mel) // ratio)
    return {
        "tokens": tokens[:length].cpu(),
        "mel": mel[: ratio * length].cpu(),
        "speaker": model.speaker_encoder.embed([low])[0].cpu(),
    }


class Collator:
    """Pads examples to a batch; those that carry a seed always get the same random draws."""

    def __init__(self, chunks: S3GenChunks, chunked_share: float, seed: int):
        self.chunks, self.chunked_share, self.random = chunks, chunked_share, random.Random(seed)

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        def padded(name: str) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence([example[name] for example in batch], batch_first=True)

        inputs: dict[str, Any] = {
            "speech_tokens": padded("tokens"),
            "speech_token_lens": torch.tensor([len(example["tokens"]) for example in batch]),
            "labels": padded("mel").transpose(1, 2),
            "speaker_embedding": torch.stack([example["speaker"] for example in batch]),
        }
        if "seed" in batch[0]:
            return inputs | {"generator": [torch.Generator().manual_seed(example["seed"]) for example in batch]}
        is_chunked = self.random.random() < self.chunked_share
        return inputs | ({"chunks": self.chunks} if is_chunked else {})


def main() -> None:
    args = parse_args()
    files = find_audio_files(args.audio)
    model = S3GenModel.from_pretrained(args.model, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    examples = [example for file in files if (example := make_example(model, file)) is not None]
    if len(examples) < 2:
        raise ValueError(
            f"`--audio` must hold at least two recordings of {SHORTEST} to {LONGEST} s, one of them to be held out; "
            f"got {len(examples)} among {len(files)} files."
        )
    train, held_out = hold_out(examples, args)
    model.requires_grad_(False)
    model.flow.requires_grad_(args.train_encoder)
    model.flow.decoder.requires_grad_(True)
    trainer = Trainer(
        model=model,
        args=training_arguments(args, lr_scheduler_type="constant_with_warmup", max_grad_norm=5.0),
        train_dataset=train,
        eval_dataset=[example | {"seed": number} for number, example in enumerate(held_out)],
        data_collator=Collator(S3GenChunks(model.config.chunk_size, first=None), args.chunked_share, args.seed),
    )
    train_and_report(trainer)
    model.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()
