"""Join the trained language model and the trained codec into the folder that ships, its weights stored in half
precision.

    python examples/default_voice/pack_checkpoint.py --model speaking --codec codec --output
    src/tts_models/default_voice

`config.json` says float32, so `from_pretrained` computes in float32 as in training; rounding to half precision is the
only loss.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tts_models.models.maya1 import Maya1ForConditionalGeneration, Maya1Processor
from tts_models.models.snac import SnacModel


GENERATION = {"temperature": 0.3, "top_p": 0.9, "repetition_penalty": 1.0}


def check_same_codes(model: Maya1ForConditionalGeneration, codec: SnacModel) -> None:
    """The language model speaks in the codes it was trained on: encoder and quantizers must be the same."""
    ours, theirs = model.codec_model.state_dict(), codec.state_dict()
    changed = [name for name in ours if not name.startswith("decoder.") and not torch.equal(ours[name], theirs[name])]
    if changed:
        raise ValueError(f"`--codec` has another encoder or quantizer than `--model`: {changed[:3]} …")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    model = Maya1ForConditionalGeneration.from_pretrained(args.model)
    codec = SnacModel.from_pretrained(args.codec)
    check_same_codes(model, codec)
    # Its decoder may have been widened since. The folder it was read from is of no use elsewhere.
    codec.config.name_or_path = ""
    model.codec_model, model.config.codec_config = codec, codec.config
    model.generation_config.update(**GENERATION)
    model.save_pretrained(args.output)
    Maya1Processor.from_pretrained(args.model).save_pretrained(args.output)

    weights = args.output / "model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(weights).items()}
    temporary = weights.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(weights)
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"{args.output}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
