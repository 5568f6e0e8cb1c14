"""The fast loops give what the library's slow ones give."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.common.comparing import assert_close
from tts_models.acceleration.kv_cache import ReservedCache
from tts_models.acceleration.lockstep import LockstepDecoder
from tts_models.acceleration.sampling import RowSampler
from tts_models.acceleration.small_llama import SmallLlama


def tiny_llama(**overrides: object) -> LlamaForCausalLM:
    """A seeded two-layer Llama."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.3,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes | overrides)).eval()
    with torch.no_grad():
        for layer in model.model.layers:  # a norm of ones would hide where it is applied
            layer.input_layernorm.weight.uniform_(0.5, 1.5)
            layer.post_attention_layernorm.weight.uniform_(0.5, 1.5)
    return model


PADDED_MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]])
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@torch.no_grad()
def hidden_states_of_whole_sequences(
    model: LlamaForCausalLM | Qwen3ForCausalLM, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The last hidden state of each row, alone and without a cache."""
    rows = [
        model.model(input_ids=row[keep.bool()][None]).last_hidden_state[0, -1]
        for row, keep in zip(ids, mask, strict=True)
    ]
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("overrides", [{}, {"rope_parameters": LLAMA3_ROPE}, {"num_key_value_heads": 4}])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mask", [PADDED_MASK, torch.ones_like(PADDED_MASK)])
def test_lockstep_decoding_equals_whole_sequences(overrides: dict, attention: str, mask: torch.Tensor) -> None:
    model = tiny_llama(**overrides)
    model.set_attn_implementation(attention)
    ids = torch.randint(50, (3, 6)) * mask
    decoder = LockstepDecoder(model.model, ids, mask)
    assert (decoder._has_fast_steps) == (attention == "sdpa")
    state = decoder.prefill()
    for step in range(5):
        assert_close(state, hidden_states_of_whole_sequences(model, ids, mask), 1e-4, f"step {step}")
        new = torch.randint(50, (len(ids),))
        state = decoder.step(new)
        ids, mask = torch.cat([ids, new[:, None]], 1), torch.nn.functional.pad(mask, (0, 1), value=1)
        if step == 2:  # a row leaves
            index = torch.tensor([2, 0])
            decoder.select(index)
            ids, mask, state = ids[index], mask[index], state[index]


@torch.no_grad()
@pytest.mark.parametrize("mask", [PADDED_MASK, torch.ones_like(PADDED_MASK)])
def test_lockstep_decoding_takes_rows_instead_of_ids(mask: torch.Tensor) -> None:
    model = tiny_llama()
    table, ids = model.model.embed_tokens, torch.randint(50, (3, 6)) * mask
    by_ids, by_rows = LockstepDecoder(model.model, ids, mask), LockstepDecoder(model.model, None, mask, table(ids))
    state, other = by_ids.prefill(), by_rows.prefill()
    for step in range(4):
        assert_close(other, state, 1e-5, f"step {step}")
        new = torch.randint(50, (len(state),))
        state, other = by_ids.step(new), by_rows.step_embeds(table(new))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_windows_hold_for_padded_rows(attention: str) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "initializer_range": 0.3}
    config = Qwen3Config(
        **sizes, **window, num_attention_heads=4, num_key_value_heads=2, attn_implementation=attention
    )
    model = Qwen3ForCausalLM(config).eval()
    ids, mask = torch.randint(50, (3, 6)) * PADDED_MASK, PADDED_MASK
    decoder = LockstepDecoder(model.model, ids, mask)
    state = decoder.prefill()
    for step in range(5):
        assert_close(state, hidden_states_of_whole_sequences(model, ids, mask), 1e-4, f"step {step}")
        new = torch.randint(50, (3,))
        state = decoder.step(new)
        ids, mask = torch.cat([ids, new[:, None]], 1), torch.nn.functional.pad(mask, (0, 1), value=1)


@torch.no_grad()
def test_reserved_cache_equals_the_librarys() -> None:
    model, ids = tiny_llama(), torch.randint(50, (2, 300))
    ours, theirs = ReservedCache(2), DynamicCache()
    for start, end in ((0, 130), (130, 131), (131, 290), (290, 300)):
        outputs = [model(input_ids=ids[:, start:end], past_key_values=cache).logits for cache in (ours, theirs)]
        assert_close(*outputs, 1e-5)
    assert ours.get_seq_length() == 300
    ours.batch_select_indices(torch.tensor([1]))
    again = model(input_ids=ids[1:, :1], past_key_values=ours).logits
    assert_close(again, model(input_ids=ids[:, :1], past_key_values=theirs).logits[1:], 1e-5)


def test_small_steps_are_left_out_where_they_would_differ() -> None:
    assert SmallLlama.suits(tiny_llama().model)
    assert not SmallLlama.suits(tiny_llama().train().model)
    assert not SmallLlama.suits(tiny_llama().to(torch.bfloat16).model)
    assert not SmallLlama.suits(tiny_llama(attention_bias=True).model)
    assert not SmallLlama.suits(tiny_llama(hidden_act="gelu").model)
    hooked = tiny_llama()
    hooked.model.layers[0].mlp.register_forward_hook(lambda *arguments: None)
    assert not SmallLlama.suits(hooked.model)
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny_llama(), peft.LoraConfig(target_modules=["q_proj"]))
    assert not SmallLlama.suits(adapted.base_model.model.model.eval())


@torch.no_grad()
def test_small_steps_go_on_beyond_the_room_they_reserved() -> None:
    model, ids = tiny_llama(), torch.randint(50, (2, 280))
    decoder = LockstepDecoder(model.model, ids[:, :3], torch.ones(2, 3, dtype=torch.long))
    decoder.prefill()
    for column in range(3, 280):
        state = decoder.step(ids[:, column])
    assert_close(state, model.model(input_ids=ids).last_hidden_state[:, -1], 1e-4)


def generators(rows: int) -> list[torch.Generator]:
    """One per row, always the same."""
    return [torch.Generator().manual_seed(row) for row in range(rows)]


def test_row_draws_do_not_depend_on_the_batch() -> None:
    scores = torch.randn(3, 20, generator=torch.Generator().manual_seed(9))
    together, alone = RowSampler(generators(3), scores.device), [RowSampler([g], scores.device) for g in generators(3)]
    for step in range(600):  # more than one block of random numbers
        drawn = together(scores)
        assert drawn.tolist() == [int(sampler(scores[row : row + 1])) for row, sampler in enumerate(alone)], step
        if step == 100:
            together.select(torch.tensor([2, 0]))
            alone, scores = [alone[2], alone[0]], scores[[2, 0]]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.0, 0.2, 0.0])
    sampler = RowSampler(generators(1), probabilities.device)
    counts = torch.bincount(torch.cat([sampler(probabilities.log()[None]) for _ in range(4000)]), minlength=5) / 4000
    assert_close(counts, probabilities, 0.03)
    assert counts[2] == counts[4] == 0


def test_greedy_takes_the_best() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert RowSampler(None, scores.device)(scores).tolist() == [1, 0]
