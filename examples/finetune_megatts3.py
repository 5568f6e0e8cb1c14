"""Fine-tune MegaTTS3's diffusion transformer (phones with durations and a voice to latents) on recordings.

    python examples/finetune_megatts3.py --model megatts3-hf --audio my_recordings --output my_megatts3

Needs no texts: the model's own aligner hears which phones are said and how long each lasts. Latents come from an
`.npy` file beside a recording (`one.wav`, `one.npy`), else from the WaveVAE's encoder, which the official release
lacks. The beginning of each recording is its prompt, of another length each time; some rows lose it, and some the
phones too, so that speech can still be guided by both. The other networks stay as they are. Train on a voice only with
the consent of the person it belongs to.

    model = AutoModelForTextToWaveform.from_pretrained("my_megatts3")
    processor = AutoProcessor.from_pretrained("my_megatts3")
    speech = model.generate(**processor(text="Hello.", voice=("reference.wav", "reference.npy")))
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from tts_models import MegaTTS3ForConditionalGeneration, MegaTTS3Processor
from tts_models.audio.files import load_audio
from tts_models.models.megatts3.durations_megatts3 import expand_durations
from tts_models.training.audio_dataset import find_audio_files
from tts_models.training.fine_tuning import (
    add_training_options,
    hold_out,
    merged_model,
    train_and_report,
    training_arguments,
    with_adapters,
)


ADAPTED_LAYERS = r"layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|o_proj)|mlp\.fc[12])"
SHORTEST, LONGEST = 1.0, 28.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a converted checkpoint")
    parser.add_argument("--audio", type=Path, required=True, help="folder of wav, flac, ogg or mp3 files")
    parser.add_argument("--output", type=Path, required=True)
    add_training_options(
        parser, epochs=10, gradient_accumulation_steps=2, learning_rate=1e-5, warmup_steps=200, eval_share=0.05
    )
    return parser.parse_args()


def make_example(
    model: MegaTTS3ForConditionalGeneration, processor: MegaTTS3Processor, file: Path
) -> dict[str, torch.Tensor] | None:
    """Phones, tones, frames and latents of a recording; `None` if its length is unfit."""
    samples, rate = load_audio(file)
    if not SHORTEST <= len(samples) / rate <= LONGEST:
        return None
    latents = file.with_suffix(".npy")
    voice = processor.prepare_voice(model, (file, latents) if latents.is_file() else file)
    # A reference is followed by silence, which must not be learned.
    steps = min(int(len(samples) / rate * processor.sampling_rate) // model.vae.config.hop_length, len(voice.latents))
    frame_map = expand_durations(voice.durations[None])[0, : steps * model.config.frames_per_latent]
    heard = int(frame_map.max())
    return {
        "phone_ids": voice.phone_ids[:heard],
        "tone_ids": voice.tone_ids[:heard],
        "frame_map": frame_map,
        "labels": voice.latents[:steps],
    }


def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Pads examples to a batch; those that carry a seed always get the same random draws."""
    inputs: dict[str, Any] = {
        name: torch.nn.utils.rnn.pad_sequence([example[name] for example in batch], batch_first=True)
        for name in ("phone_ids", "tone_ids", "frame_map", "labels")
    }
    if "seed" in batch[0]:
        inputs["generator"] = [torch.Generator().manual_seed(example["seed"]) for example in batch]
    return inputs


def main() -> None:
    args = parse_args()
    files = find_audio_files(args.audio)
    processor = MegaTTS3Processor.from_pretrained(args.model)
    model = MegaTTS3ForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    examples = [example for file in files if (example := make_example(model, processor, file)) is not None]
    if len(examples) < 2:
        raise ValueError(
            f"`--audio` must hold at least two recordings of {SHORTEST} to {LONGEST} s, one of them to be held out; "
            f"got {len(examples)} among {len(files)} files."
        )
    train, held_out = hold_out(examples, args)
    trainer = Trainer(
        model=with_adapters(model.transformer, ADAPTED_LAYERS, args),
        args=training_arguments(args, lr_scheduler_type="constant_with_warmup"),
        train_dataset=train,
        eval_dataset=[example | {"seed": number} for number, example in enumerate(held_out)],
        data_collator=collate,
    )
    train_and_report(trainer)
    model.transformer = merged_model(trainer.model, args)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()
