"""The optimizer of the default voice."""

import torch
from torch import nn

from tts_models.training.muon import MuonAdamW, orthogonalize


def test_orthogonalize_flattens_the_spectrum() -> None:
    for shape in ((16, 48), (48, 16), (32, 32)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.max() < 1.3 and values.median() > 0.6


def test_parameters_go_to_the_right_rule_and_learn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 8))
    optimizer = MuonAdamW(model, learning_rate=0.05, adam_learning_rate=0.01)
    muon, adam = (group["params"] for group in optimizer.param_groups)
    assert {tuple(p.shape) for p in muon} == {(16, 16), (8, 16)} and model[0].weight is adam[0]
    ids = torch.arange(8)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(ids), ids.flip(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_state_survives_saving() -> None:
    model = nn.Linear(4, 4)
    optimizer = MuonAdamW(model)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    other = MuonAdamW(model)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[model.weight]["momentum"], optimizer.state[model.weight]["momentum"])
