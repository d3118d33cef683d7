"""The transformer against torch's own parts with the same weights; causal; the cache changes nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.generators import GRIDS, generator, places_of
from torch import Tensor, nn

from vistok.generation.transformer import Shape, Transformer, rotary_angles, rotate


def embedded(transformer: Transformer, classes: Tensor, places: Tensor) -> Tensor:
    """The class and the places as vectors, before any block."""
    parts = [F.one_hot(classes, len(transformer.classes.weight)).float() @ transformer.classes.weight]
    for place in range(places.shape[1]):
        parts.append(sum(e.weight[places[:, place, level]] for level, e in enumerate(transformer.tokens)))
    x = torch.stack(parts, dim=1)
    return x if transformer.positions is None else x + transformer.positions[: x.shape[1]]


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def by_hand(transformer: Transformer, x: Tensor, turn: Tensor | None) -> Tensor:
    """The blocks from torch.nn.MultiheadAttention, or, where keys are turned, from complex numbers and a softmax."""
    length, dim = x.shape[1:]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1) if transformer.causal else None
    for block in transformer.blocks:
        y = rms_norm(x, block.attention_norm.weight)
        if turn is None:
            attention = nn.MultiheadAttention(dim, block.num_heads, bias=False, batch_first=True)
            attention.in_proj_weight.data, attention.out_proj.weight.data = block.wqkv.weight, block.wo.weight
            mixed = attention(y, y, y, attn_mask=hidden, need_weights=False)[0]
        else:
            query, key, value = (
                (y @ part.T).unflatten(2, (block.num_heads, -1)).transpose(1, 2)  # [B, heads, T, d]
                for part in block.wqkv.weight.chunk(3)
            )
            query, key = (
                torch.view_as_real(torch.view_as_complex(q.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
                for q in (query, key)
            )
            scores = query @ key.mT / math.sqrt(dim // block.num_heads)
            scores = scores if hidden is None else scores.masked_fill(hidden, -torch.inf)
            mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2) @ block.wo.weight.T
        x = x + mixed
        y, part = rms_norm(x, block.ffn_norm.weight), block.feed_forward
        w1, w3 = part.w13.weight.chunk(2)
        x = x + (F.silu(y @ w1.T) * (y @ w3.T)) @ part.w2.weight.T
    return rms_norm(x, transformer.norm.weight)


def turns(grid: tuple[int, int], head_dim: int) -> Tensor:
    """e^(i angle) of the class, which is not turned, and of each place: one frequency after the other, rows then columns."""
    found = [torch.ones(head_dim // 2, dtype=torch.complex64)]
    for row in range(grid[0]):
        for column in range(grid[1]):
            angles = [at / 10000 ** (2 * n / (head_dim // 2)) for at in (row, column) for n in range(head_dim // 4)]
            found.append(torch.polar(torch.ones(len(angles)), torch.tensor(angles)))
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
@pytest.mark.parametrize("grid", ["sequence", "plane", "scales", "levels"])
def test_it_computes_what_torchs_own_parts_do(kind: str, grid: str) -> None:
    made = generator(kind, grid, hidden_dim=32, num_heads=2, classes=["a", "b"])
    places, classes = places_of(made), torch.tensor([0, 1, 2])
    turn = turns(made.layout.grid, 16) if made.layout.grid else None
    with torch.no_grad():
        ours = made.transformer(classes, places)
        expected = by_hand(made.transformer, embedded(made.transformer, classes, places), turn)
    assert ours.std() > 0.5
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_it_is_llama_where_transformers_is_installed() -> None:
    """With learned positions: Llama turns along a line and not in a plane, so all of its places are 0, which turns nothing."""
    llama = pytest.importorskip("transformers", reason="transformers, whose Llama is the peer, is not installed")
    made = generator("autoregressive", "sequence", hidden_dim=32, num_heads=2)
    ours = made.transformer
    config = llama.LlamaConfig(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=ours.blocks[0].feed_forward.w2.in_features,
        num_hidden_layers=len(ours.blocks),
        num_attention_heads=2,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
    )
    peer = llama.LlamaModel(config).eval()
    for block, layer in zip(ours.blocks, peer.layers, strict=True):
        parts = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        for part, weight in zip(parts, block.wqkv.weight.chunk(3), strict=True):
            part.weight.data = weight.data
        layer.self_attn.o_proj.weight.data = block.wo.weight.data
        layer.mlp.gate_proj.weight.data, layer.mlp.up_proj.weight.data = block.feed_forward.w13.weight.data.chunk(2)
        layer.mlp.down_proj.weight.data = block.feed_forward.w2.weight.data
        layer.input_layernorm.weight.data = block.attention_norm.weight.data
        layer.post_attention_layernorm.weight.data = block.ffn_norm.weight.data
    peer.norm.weight.data = ours.norm.weight.data
    places, classes = places_of(made), torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        x = embedded(ours, classes, places)
        expected = peer(inputs_embeds=x, position_ids=torch.zeros(x.shape[:2], dtype=torch.int64)).last_hidden_state
        torch.testing.assert_close(ours(classes, places), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_turning_is_the_same_where_it_is_compiled(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = rotary_angles((3, 4), 8)
    turn = torch.stack([angles.cos(), angles.sin()]).to(torch.promote_types(dtype, torch.float32))
    x = (
        torch.randn(2, 12, 3, 8, dtype=dtype).transpose(1, 2).requires_grad_()
    )  # [B, heads, T, d] of a layer's [B, T, heads, d]
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        y = rotate(x, turn)
        found += [y, *torch.autograd.grad(y.square().sum() + y[..., 0].sum(), x)]
        assert y.dtype == dtype
    torch.testing.assert_close(found[:2], found[2:])
    torch.testing.assert_close(found[0].float().norm(dim=-1), x.float().norm(dim=-1), rtol=1e-2, atol=1e-2)


def test_what_turned_channels_make_of_two_places_depends_on_how_they_lie_to_each_other() -> None:
    angles = rotary_angles((4, 5), 8).view(4, 5, 4)
    query, key = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def product(one: tuple[int, int], other: tuple[int, int]) -> float:
        q, k = (
            rotate(x.view(1, 1, 1, 8), torch.stack([angles[at].cos(), angles[at].sin()])[:, None])
            for x, at in ((query, one), (key, other))
        )
        return float((q * k).sum())

    assert product((0, 0), (1, 2)) == pytest.approx(product((2, 1), (3, 3)))
    assert abs(product((0, 0), (1, 2)) - product((0, 0), (2, 1))) > 1e-3


@pytest.mark.parametrize("grid", GRIDS)
def test_a_later_token_changes_no_earlier_logit(grid: str) -> None:
    made = generator(grid=grid)
    places = places_of(made, 2)
    losses = made.token_losses(places).detach()  # [B, S, L]
    sizes, last = made.layout.sizes, places.shape[1] - 1
    for place in range(places.shape[1]):
        for level, size in enumerate(sizes):
            changed = places.clone()
            changed[:, place, level] = (changed[:, place, level] + 1) % size
            now = made.token_losses(changed).detach()
            assert torch.equal(now[:, :place], losses[:, :place])
            assert torch.equal(now[:, place, :level], losses[:, place, :level])
            if place < last:
                assert not torch.equal(now[:, place + 1], losses[:, place + 1]), "the next token sees it"
            if level + 1 < len(sizes):
                assert not torch.equal(now[:, place, level + 1], losses[:, place, level + 1])


def test_without_a_cause_every_place_sees_every_other() -> None:
    made = generator("masked")
    places, masked = places_of(made, 1), torch.zeros(1, 16, dtype=torch.bool)
    before = made.token_losses(places, masked).detach()
    places[:, -1] = (places[:, -1] + 1) % 16
    assert (made.token_losses(places, masked).detach() != before).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_the_cache_changes_nothing(grid: str) -> None:
    made = generator(grid=grid, classes=["a", "b"]).transformer
    places = places_of(generator(grid=grid))
    classes, cache = torch.tensor([0, 1, 2]), made.new_cache(3)
    with torch.no_grad():
        whole = made(classes, places)
        parts = [made(classes, None, cache)]
        parts += [made(None, places[:, n : n + 1], cache, first=n) for n in range(places.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5)
    assert cache.length == places.shape[1] + 1


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((20, 1, 2), "hidden_dim is 20, but must be a multiple of 4 for each of num_heads 2: the nearest is 16."),
        ((0, 1, 1), "hidden_dim is 0, but must be at least 1."),
        ((16, 0, 1), "depth is 0, but must be at least 1."),
    ],
)
def test_widths_that_do_not_fit(sizes: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        Shape(*sizes)
    assert str(error.value) == sentence
