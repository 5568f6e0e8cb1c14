"""Runs the cases of MetaVoice's two stages: scores, loss, loops with recorded noise, the way from text to codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import metavoice_stages as conversion
import torch
from transformers import LogitsProcessorList

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tests.models.metavoice.tiny import tokenizer_from_table
from tts_models.acceleration.sampling import RowSampler
from tts_models.models.metavoice.configuration_metavoice import MetaVoiceFirstStageConfig
from tts_models.models.metavoice.decoding_metavoice_first_stage import (
    FirstStageBatch,
    FirstStageDecoding,
    Guidance,
    first_stage_processors,
)
from tts_models.models.metavoice.decoding_metavoice_second_stage import code_scores, complete_codes
from tts_models.models.metavoice.modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM
from tts_models.models.metavoice.modeling_metavoice_second_stage import MetaVoiceSecondStageModel
from tts_models.models.metavoice.text_metavoice import normalize_text
from tts_models.models.metavoice.tokens_metavoice import first_stage_ids, second_stage_ids, split_first_stage
from tts_models.models.metavoice.training_metavoice import optimizer_groups, train_last_blocks, training_batch


END_OF_AUDIO = 2048


def build_first_stage(
    case: ReferenceCase, keys: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> MetaVoiceFirstStageForCausalLM:
    """The case's first stage, filled in upstream's names and converted."""
    upstream = tied(case.state_dict(keys or case.spec["keys"]))
    offset = first_text_offset(case.spec.get("call", {}), len(upstream[conversion.TABLE]))
    ours = conversion.first_stage_config(upstream, config or case.spec["config"], offset)
    weights = conversion.convert_first_stage(upstream)
    with torch.device("meta"):
        model = MetaVoiceFirstStageForCausalLM(ours)
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, strict=True, assign=True)
    model.tie_weights()
    return model.eval().to(case.device)


def first_text_offset(call: dict[str, Any], rows: int) -> int | None:
    """Where text begins, which a checkpoint says and a case does not; `None` where the released layout fits.

    In a smaller vocabulary it follows the end of audio that the call names; else the end of text is all of it.
    """
    if rows > conversion.FIRST_STAGE_OFFSET:
        return None
    end = call.get("end_of_audio_token")
    return end + 1 if isinstance(end, int) and 0 < end < rows - 1 else rows - 1


def second_text_offset(upstream: dict[str, torch.Tensor]) -> int | None:
    """The same of the second stage, where text follows the one padding of codes."""
    tables = [len(tensor) for name, tensor in upstream.items() if name.startswith("transformer.wtes.")]
    fits = tables[0] > conversion.SECOND_STAGE_OFFSET and min(tables) >= conversion.SECOND_STAGE_OFFSET
    return None if fits else min(*tables, tables[0] - 1)


def tied(upstream: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The filled weights with the head that upstream ties to its table, whose own values are never used."""
    return upstream | {conversion.HEAD: upstream[conversion.TABLE]}


def build_second_stage(
    case: ReferenceCase, keys: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> MetaVoiceSecondStageModel:
    """The case's second stage, filled in upstream's names and converted."""
    upstream = case.state_dict(keys or case.spec["keys"])
    ours = conversion.second_stage_config(upstream, config or case.spec["config"], second_text_offset(upstream))
    with torch.device("meta"):
        model = MetaVoiceSecondStageModel(ours)
    model.load_state_dict(conversion.convert_second_stage(upstream), strict=True, assign=True)
    return model.eval().to(case.device)


class RecordedNoise(RowSampler):
    """Picks by upstream's rule, the largest of probability over exponential noise, from recorded noise.

    Args:
        noise: `(steps, vocab_size)`, or `(steps, rows, vocab_size)`.
        starts: Of each row, the step at which it begins.
        columns: Of each row, its place in the noise.
    """

    def __init__(self, noise: torch.Tensor, starts: Sequence[int] = (0,), columns: Sequence[int] = (0,)) -> None:
        super().__init__(None, noise.device)
        self.noise = noise if noise.dim() == 3 else noise[:, None]
        self.starts, self.columns, self.step = list(starts), list(columns), 0

    def __call__(self, scores: torch.Tensor) -> torch.LongTensor:
        places = zip(self.starts, self.columns, strict=True)
        noise = torch.stack([self.noise[start + self.step, column] for start, column in places])
        self.step += 1
        return (scores.softmax(-1) / noise).argmax(-1)

    def select(self, index: torch.LongTensor) -> None:
        self.starts = [self.starts[place] for place in index.tolist()]
        self.columns = [self.columns[place] for place in index.tolist()]


@dataclass(frozen=True)
class CaseGuidance(Guidance):
    """Guidance by the ids that a case's call names, and by scales below 1, which ours refuses and upstream takes.

    Args:
        end_of_audio: The ids above it are text.
        end_of_text: Stands for them in the rows without text.
    """

    end_of_audio: int = END_OF_AUDIO
    end_of_text: int = 2561

    def __post_init__(self) -> None:
        pass

    @property
    def factors(self) -> list[float]:
        return [self.speaker + self.prompt - 1, *(1 - each for each in (self.speaker, self.prompt) if each != 1)]

    def repeat_ids(self, ids: torch.LongTensor, config: MetaVoiceFirstStageConfig) -> torch.LongTensor:
        if self.prompt == 1:
            return self.repeat(ids)
        hidden = ids.masked_fill(ids > self.end_of_audio, self.end_of_text)
        return torch.cat([ids] * (len(self.factors) - 1) + [hidden])

    def repeat_speakers(self, speaker_embeddings: torch.Tensor) -> torch.Tensor:
        rows = [speaker_embeddings]
        rows += [torch.zeros_like(speaker_embeddings)] if self.speaker != 1 else []
        return torch.cat(rows + ([speaker_embeddings] if self.prompt != 1 else []))


def guidance_of(call: dict[str, Any], scale: float | Sequence[float]) -> CaseGuidance:
    """The guidance of a case's call."""
    end = call.get("end_of_audio_token", END_OF_AUDIO)
    scales = map(float, [scale] if isinstance(scale, int | float) else scale)
    ids = {"end_of_audio": end if isinstance(end, int) else END_OF_AUDIO}
    return CaseGuidance(*scales, **ids, end_of_text=call.get("end_of_text_token", 2561))


# The first stage


def forced_scores(case: ReferenceCase, model: MetaVoiceFirstStageForCausalLM) -> torch.Tensor:
    """Scores `(2, 1 + forced, vocab_size)` with and without the speaker: after the prompt, and after forced ids."""
    guidance, prompt = Guidance(3.0), case.input("prompt").long()
    batch = FirstStageBatch.build(model, [prompt], prompt_speaker(case, model), guidance)
    runner = model.make_runner(batch)
    scores = [runner.prefill()]
    forced = case.input("forced").tolist() if case.holds("inputs.forced") else []
    for token in forced:
        scores.append(runner.step(torch.full((2,), token, device=model.device)))
    return torch.stack(scores, dim=1)


@reference_runner(
    "metavoice",
    kinds=("first_stage_prefill*", "first_stage_decode*", "first_stage_full_width*"),
    needs=("inputs.prompt", "outputs.logits|outputs.argmax"),
)
def run_scores(case: ReferenceCase) -> Iterator[Check]:
    """Scores after the prompt and after every forced id, with the speaker and without."""
    scores = forced_scores(case, build_first_stage(case))
    stride = case.spec.get("vocabulary_stride", 1)
    shown = scores[..., ::stride] if case.holds("inputs.forced") else scores[:, 0, ::stride]
    yield case.check("logits", shown, "logits")
    if case.holds("outputs.argmax"):
        best = scores.argmax(-1)
        yield case.check("argmax", best.view(case.tensors["outputs.argmax"].shape), "argmax", "logits")


def processors_of(call: dict[str, Any]) -> LogitsProcessorList:
    """The processors of a case's call."""
    return first_stage_processors(call.get("temperature", 1.0), call.get("top_p"), call.get("top_k"))


@reference_runner(
    "metavoice",
    kinds=("first_stage_greedy*", "first_stage_sampled*", "first_stage_stop*"),
    needs=("inputs.prompt", "outputs.sequence"),
)
def run_loop(case: ReferenceCase) -> Iterator[Check]:
    """The guided loop over one prompt: greedy, sampled with recorded noise, stopped by a token."""
    model, call = build_first_stage(case), case.spec.get("call", {})
    yield case.check("sequence", spoken_sequence(case, model, call, case.input("prompt").long()), "sequence")


def prompt_speaker(case: ReferenceCase, model: MetaVoiceFirstStageForCausalLM) -> torch.Tensor:
    """The speaker of a single prompt `(1, size)`, zeros where there is none."""
    if case.holds("inputs.speaker_embedding"):
        return case.input("speaker_embedding").view(1, -1)
    return torch.zeros(1, model.config.speaker_embed_size, device=model.device)


def spoken_sequence(
    case: ReferenceCase, model: MetaVoiceFirstStageForCausalLM, call: dict[str, Any], prompt: torch.LongTensor
) -> torch.LongTensor:
    """Prompt and picked ids of one row."""
    is_drawn = case.holds("inputs.exponential_noise")
    sampler = RecordedNoise(case.input("exponential_noise")) if is_drawn else RowSampler(None, model.device)
    end = call.get("end_of_audio_token", END_OF_AUDIO)
    decoding = FirstStageDecoding(
        model,
        [prompt],
        prompt_speaker(case, model),
        processors_of(call),
        sampler,
        [call.get("max_new_tokens") or model.config.max_position_embeddings],
        guidance_of(call, call.get("guidance_scale", 3.0)),
        end_token_id=end if isinstance(end, int) else -1,
        enforce_alternation=False,
    )
    for _ in decoding:
        pass
    return torch.cat([prompt.cpu(), torch.tensor(decoding.picked[0])])


@reference_runner(
    "metavoice",
    kinds=("first_stage_batch*",),
    needs=("call", "inputs.prompts", "outputs.sequences"),
)
def run_batch(case: ReferenceCase) -> Iterator[Check]:
    """Prompts of different lengths, guided by speaker and text; upstream ends all rows at the same length."""
    model, call = build_first_stage(case), case.spec["call"]
    lengths, expected = call["seq_lens"], case.tensors["outputs.sequences"]
    total, end = expected.shape[-1], call.get("end_of_audio_token", END_OF_AUDIO)
    prompts = [row[:length] for row, length in zip(case.input("prompts")[:, 0].long(), lengths, strict=True)]
    # A prompt that reaches the end of upstream's rows is cut there and gets nothing.
    spoken = [row for row, length in enumerate(lengths) if length < total]
    speakers = speakers_of(case)
    if speakers is None:
        speakers = torch.zeros(len(lengths), model.config.speaker_embed_size, device=model.device)
    sampler = RowSampler(None, model.device)
    if case.holds("inputs.exponential_noise"):
        # Upstream's rows follow ascending lengths; its draws begin with the shortest.
        order = case.spec.get("order") or sorted(range(len(lengths)), key=lengths.__getitem__)
        starts = [length - min(lengths) for length in lengths]
        sampler = RecordedNoise(
            case.input("exponential_noise"), [starts[row] for row in spoken], [order.index(row) for row in spoken]
        )
    decoding = FirstStageDecoding(
        model,
        [prompts[row] for row in spoken],
        speakers[spoken],
        processors_of(call),
        sampler,
        [total - lengths[row] for row in spoken],
        guidance_of(call, call.get("guidance_scale") or 1.0),
        end_token_id=end,
        enforce_alternation=False,
    )
    for _ in decoding:
        pass
    rows = [prompt.cpu()[:total] for prompt in prompts]
    for row, more in zip(spoken, decoding.picked, strict=True):
        rows[row] = torch.cat([rows[row], torch.tensor(more)])
    padded = [torch.nn.functional.pad(row, (0, total - len(row)), value=end) for row in rows]
    yield case.check("sequences", torch.stack(padded)[:, None], "sequences")


@reference_runner(
    "metavoice", kinds=("first_stage_loss*",), needs=("inputs.tokens", "inputs.targets", "outputs.logits_last")
)
@reference_runner(
    "metavoice", kinds=("first_stage_loss*",), needs=("inputs.tokens", "outputs.loss|outputs.logits_last")
)
def run_loss(case: ReferenceCase) -> Iterator[Check]:
    """The mean cross entropy over every position, and the scores of the last."""
    model = build_first_stage(case)
    targets = ignoring(case.input("targets")[:, 0]) if case.holds("inputs.targets") else None
    output = model(
        input_ids=case.input("tokens")[:, 0].long(), speaker_embeddings=speakers_of(case), shift_labels=targets
    )
    if targets is not None:
        yield case.check("loss", output.loss[None], "loss")
    yield case.check("logits_last", output.logits[:, -1], "logits")


def speakers_of(case: ReferenceCase) -> torch.Tensor | None:
    """The case's speakers `(rows, size)`, where it has any."""
    return case.input("speaker_embeddings")[:, 0] if case.holds("inputs.speaker_embeddings") else None


def ignoring(targets: torch.Tensor) -> torch.LongTensor:
    """Targets with our mark of what is left out, in place of upstream's -1."""
    return targets.long().masked_fill(targets < 0, -100)


# The cases' own number, where they record nothing of a step.
_TRAINING_STEPS = 3
# What upstream's fine-tuning does where a call says nothing.
TRAINING = {
    "learning_rate": 3e-5,
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.1,
    "grad_clip": 1.0,
    "last_n_blocks_to_finetune": 1,
}


@reference_runner("metavoice", kinds=("first_stage_finetune*",), needs=("inputs.codes_0", "inputs.tokens"))
def run_finetuning(case: ReferenceCase) -> Iterator[Check]:
    """The layout of the data, and a few steps of training: losses, norms of the gradient, changes of the weights."""
    model, call = build_first_stage(case), TRAINING | case.spec.get("call", {})
    tokens, voices = case.input("tokens")[:, 0].long(), case.input("speaker_embeddings")[:, 0]
    rows = range(len(tokens))
    batch = training_batch(
        model.config,
        [case.input(f"text_ids_{row}").tolist() for row in rows],
        [case.input(f"codes_{row}") for row in rows],
        voices,
        tokens.shape[1] - 1,
    )
    batch = {name: value.to(case.device) for name, value in batch.items()}
    yield compare("tokens", torch.cat([batch["input_ids"], batch["shift_labels"][:, -1:]], dim=1), tokens)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_last_blocks(model, call["last_n_blocks_to_finetune"])
    groups = optimizer_groups(model, call["weight_decay"])
    trained = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=call["learning_rate"], betas=tuple(call["betas"]), eps=call["eps"])
    losses, norms = [], []
    with torch.enable_grad():
        for _ in range(recorded_steps(case)):
            output = model(**batch)
            output.loss.backward()
            if call["grad_clip"]:
                norms.append(torch.nn.utils.clip_grad_norm_(trained, call["grad_clip"]))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(output.loss.detach())
    if case.holds("outputs.losses"):
        yield case.check("losses", torch.stack(losses), "losses")
    if case.holds("outputs.grad_norms"):
        yield case.check("grad_norms", torch.stack(norms), "grad_norms")
    for name in [name.removeprefix("outputs.") for name in case.tensors if name.startswith("outputs.after.")]:
        yield case.check(name, weight_change(model, before, name.removeprefix("after.")), "after.*")


def recorded_steps(case: ReferenceCase) -> int:
    """How many steps of training a case holds."""
    per_step = [case.tensors[name] for name in ("outputs.losses", "outputs.grad_norms") if name in case.tensors]
    return len(per_step[0]) if per_step else _TRAINING_STEPS


def weight_change(
    model: MetaVoiceFirstStageForCausalLM, before: dict[str, torch.Tensor], upstream_name: str
) -> torch.Tensor:
    """How far the parameter that upstream calls `upstream_name` has moved."""
    joined = [upstream_name.replace("c_attn", f"{kind}_proj") for kind in "qkv"]
    names = joined if "c_attn" in upstream_name else [upstream_name]
    ours = [conversion.renamed({name: torch.empty(0)}, conversion.FIRST_STAGE_RULES).popitem()[0] for name in names]
    state = model.state_dict()
    return torch.cat([state[name] - before[name] for name in ours])


# The second stage


def is_clear(scores: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Where the two best scores differ by more than the cases' 1e-3."""
    best = scores.topk(2, dim).values
    return (best.select(dim, 0) - best.select(dim, 1)) > 1e-3


@reference_runner("metavoice", kinds=("second_stage*",), needs=("inputs.tokens", "inputs.targets", "outputs.codes"))
@reference_runner("metavoice", kinds=("second_stage*",), needs=("inputs.tokens",))
def run_second_stage(case: ReferenceCase) -> Iterator[Check]:
    """Scores of the first and last head, the best codes, the loss."""
    model = build_second_stage(case)
    targets = ignoring(case.input("targets")) if case.holds("inputs.targets") else None
    output = model(case.input("tokens").long(), speakers_of(case), labels=targets)
    sizes = model.config.target_vocab_sizes
    first, last = output.logits[:, 0, :, : sizes[0]], output.logits[:, -1, :, : sizes[-1]]
    yield case.check("logits_first_head", first, "logits")
    if case.holds("outputs.logits_last_head"):
        # The last head's scores are thinned out over the positions, mostly to every seventh.
        length, kept = last.shape[1], case.tensors["outputs.logits_last_head"].shape[1]
        stride = 7 if -(-length // 7) == kept else -(-length // kept)
        yield case.check("logits_last_head", last[:, ::stride], "logits")
    yield from check_best(case, "codes", output.logits)
    if targets is not None:
        yield case.check("loss", output.loss[None], "loss")


def check_best(case: ReferenceCase, name: str, logits: torch.Tensor) -> Iterator[Check]:
    """The best codes, wherever the two best scores are apart; nothing where the case holds none."""
    if not case.holds(f"outputs.{name}"):
        return
    clear = is_clear(logits).cpu()
    yield compare(name, logits.argmax(-1).cpu()[clear], case.output(name)[clear])


@reference_runner("metavoice", kinds=("second_stage_full*",), needs=("inputs.tokens", "outputs.logits|outputs.argmax"))
def run_second_stage_full(case: ReferenceCase) -> Iterator[Check]:
    """Scores at some positions, the best codes at all."""
    model = build_second_stage(case)
    logits = model(case.input("tokens").long(), speakers_of(case)).logits
    positions = case.spec.get("positions", range(logits.shape[2]))
    yield case.check("logits", logits[:, :, list(positions)], "logits")
    yield from check_best(case, "argmax", logits)


def drawn_codes(logits: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None) -> torch.LongTensor:
    """Codes picked by upstream's rule, at every position."""
    return (code_scores(logits, temperature, top_k).softmax(-1) / noise).argmax(-1)


@reference_runner(
    "metavoice", kinds=("second_stage_sampled*",), needs=("inputs.tokens", "inputs.exponential_noise", "outputs.codes")
)
def run_second_stage_sampled(case: ReferenceCase) -> Iterator[Check]:
    """Codes drawn with recorded noise."""
    model, call = build_second_stage(case), case.spec.get("call", {})
    logits = model(case.input("tokens").long(), speakers_of(case)).logits
    noise = case.input("exponential_noise")
    yield case.check("codes", drawn_codes(logits, noise, call.get("temperature", 1.0), call.get("top_k")), "codes")


# Both


@reference_runner(
    "metavoice",
    kinds=("pipeline*",),
    needs=("text", "config", "keys"),
)
def run_pipeline(case: ReferenceCase) -> Iterator[Check]:
    """Text to ids, through the first stage to two codes a frame, through the second to the others."""
    keys, configs, call = case.spec["keys"], case.spec["config"], case.spec.get("call", {})
    first = build_first_stage(case, keys["first_stage"], configs["first_stage"])
    second = build_second_stage(case, keys["second_stage"], configs["second_stage"])
    text = normalize_text(case.spec["text"])
    yield compare("normalised", text, case.spec.get("normalised"))
    tokenizer = tokenizer_from_table(case.path.parent / "bpe.json")
    text_ids = tokenizer(text, add_special_tokens=False).input_ids
    prompt = first_stage_ids(first.config, text_ids)
    yield compare("prompt", prompt, case.tensors.get("inputs.prompt"))
    sequence = spoken_sequence(case, first, call, prompt)
    yield case.check("sequence", sequence, "sequence")
    _, codes = split_first_stage(first.config, sequence)
    yield case.check("codes", codes, "codes")
    read = second_stage_ids(second.config, text_ids, codes)
    yield case.check("second_input", read, "second_input")
    # What does not fit into the second stage is cut.
    room, second_text = second.config.max_position_embeddings, case.spec.get("text_ids_second")
    ours = [token + second.config.text_token_offset for token in text_ids] + [second.config.end_of_text_token_id]
    yield compare("text_ids_second", ours, second_text)
    yield compare("text_ids_second, as read", read[0, : len(text_ids) + 1].tolist(), ours[:room])
    speaker = prompt_speaker(case, first)
    logits = second(read[None].to(second.device), speaker).logits
    name = "second_exponential_noise"
    noise = case.input(name) if case.holds(f"inputs.{name}") else torch.ones_like(logits)  # the best
    filled = drawn_codes(logits, noise, call.get("second_temperature", 1.0), call.get("second_top_k"))[0].cpu()
    rows = torch.cat([read, filled])
    yield case.check("rows", rows, "rows")
    yield case.check("stripped", stripped(rows, second.config.num_codes), "stripped")
    if len(text_ids) + codes.shape[1] + 2 > room:
        return  # Ours reads such audio in windows instead of cutting it.
    # Ours cuts the audio out by its place; at the places of audio it is the same.
    span = slice(len(text_ids) + 1, len(text_ids) + 1 + codes.shape[1])
    best = logits[0, :, span, : second.config.num_codes].argmax(-1)
    (whole,) = complete_codes(second, [text_ids], [codes], speaker, top_k=call.get("second_top_k"))
    yield compare("codes of the audio", whole.cpu(), torch.cat([codes, best.cpu()]))


def stripped(rows: torch.LongTensor, num_codes: int) -> torch.LongTensor:
    """Upstream's way back: every row drops what is no code, all are cut to the shortest."""
    kept = [row[row < num_codes] for row in rows]
    frames = min(map(len, kept))
    return torch.stack([row[:frames] for row in kept])
