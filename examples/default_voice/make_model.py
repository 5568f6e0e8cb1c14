"""Make the untrained default voice: tokenizer, processor, a small Llama with random weights, and the trained codec.

    python examples/default_voice/make_model.py --codec codec --lexicon lexicon.txt.gz --output untrained

The folder is the `--model` that `examples/finetune_maya1.py` trains.
"""

import argparse
import random
from pathlib import Path

import torch
from make_speech_data import DESCRIPTION_STYLES, VOICES, describe
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from tts_models.models.maya1 import Maya1Config, Maya1ForConditionalGeneration, Maya1Processor
from tts_models.models.snac import SnacFeatureExtractor, SnacModel
from tts_models.text.pronunciation import PHONEMES


FEMALE, MALE = "Female voice, clear American accent.", "Male voice, calm American accent."


def sample_descriptions(count: int) -> list[str]:
    """Descriptions as the training data has them, for the tokenizer's vocabulary."""
    rng = random.Random(0)
    return [describe(rng.choice(sorted(VOICES)), rng.randrange(DESCRIPTION_STYLES), rng) for _ in range(count)]


def make_tokenizer(codebook_size: int, slots: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE for descriptions, one token per phoneme, and the control and audio tokens of Maya1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\{[a-z]+\}| ?[A-Za-z]+|[^A-Za-z{}]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator([f'<description="{text}"> ' for text in sample_descriptions(5000)], trainer)
    tokenizer.add_tokens([f"{{{phoneme}}}" for phoneme in PHONEMES])
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    tokenizer.add_tokens([f"<custom_token_{n}>" for n in range(10 + slots * codebook_size)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<custom_token_2>",
        pad_token="<custom_token_7>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path, required=True, help="folder of a trained SnacModel")
    parser.add_argument("--lexicon", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hidden_size", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--intermediate_size", type=int, default=512)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    codec = SnacModel.from_pretrained(args.codec)
    tokenizer = make_tokenizer(codec.config.codebook_size, codec.config.tokens_per_frame)
    processor = Maya1Processor(
        tokenizer,
        SnacFeatureExtractor.from_pretrained(args.codec),
        codebook_size=codec.config.codebook_size,
        vq_strides=codec.config.vq_strides,
        text_frontend="phonemes",
        lexicon_file=str(args.lexicon),
        prepend_bos=False,
        default_voice=FEMALE,
        voices={"female": FEMALE, "male": MALE},
        max_part_characters=70,
        next_text_token="<custom_token_9>",
    )
    text_config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    config = Maya1Config(text_config=text_config, codec_config=codec.config, **processor.config_token_ids)
    model = Maya1ForConditionalGeneration(config)
    model.codec_model.load_state_dict(codec.state_dict())
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"{sum(p.numel() for p in model.language_model.parameters()) / 1e6:.2f} M parameters in {args.output}")


if __name__ == "__main__":
    main()
