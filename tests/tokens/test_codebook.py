"""What one code means: its neighbours on the map, what it decodes to alone, the poster, mixtures."""

import pytest
import torch
from torch import Tensor

from vistok import VisualTokenizer
from vistok.images import poster, to_uint8
from vistok.tokens.codebook import decode_alone, interpolate, nearest_codes, similarity_order


def tokenizer(**options: object) -> VisualTokenizer:
    torch.manual_seed(0)
    settings = {"network_options": {"hidden_dim": 8}, "image_size": 16}
    settings["quantizer_options"] = {"codebook_size": 32, "codebook_dim": 4}
    return VisualTokenizer(**(settings | options)).eval()


def test_the_order_of_similarity_is_a_permutation_that_puts_neighbours_together() -> None:
    # A plane of 12 x 12 codes, turned into 5 dimensions: the map must give its rows and columns back.
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    plane = torch.stack([3 * rows.flatten(), columns.flatten()], dim=1)  # [144, 2]
    turned = plane @ torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(1)))[0].T
    shuffle = torch.randperm(144, generator=torch.Generator().manual_seed(2))
    order = similarity_order(turned[shuffle], columns=12)
    assert order.sort().values.tolist() == list(range(144))
    back = plane[shuffle][order].view(12, 12, 2)
    steps = back.diff(dim=0).abs().sum(-1), back.diff(dim=1).abs().sum(-1)
    assert (steps[0] == 3).all() and (steps[1] == 1).all()


def test_an_order_of_codes_of_one_dimension_is_their_order() -> None:
    codebook = torch.tensor([[3.0], [1.0], [2.0], [0.0]])
    order = similarity_order(codebook, columns=2)
    assert codebook[order].flatten().tolist() in ([0, 1, 2, 3], [2, 3, 0, 1])


def test_nearest_codes_leave_the_code_itself_out() -> None:
    codebook = torch.tensor([[0.0], [1.0], [10.0], [11.5], [0.0]])
    near, distances = nearest_codes(codebook, 0, 3)
    assert near.tolist() == [4, 1, 2] and distances.tolist() == [0, 1, 10]
    assert len(nearest_codes(codebook, 0, 99)[0]) == 4


def test_a_code_alone_is_what_a_grid_of_it_decodes_to() -> None:
    model = tokenizer()
    codes = torch.tensor([3, 31, 0])
    alone = torch.cat(list(decode_alone(model, codes)))
    assert alone.shape == (3, 3, 4, 4) and alone.dtype == torch.uint8
    assert torch.equal(alone[1], to_uint8(model.decode(torch.tensor([[[31]]])))[0])
    inside = torch.cat(list(decode_alone(model, codes, context=5)))
    assert torch.equal(inside[2], to_uint8(model.decode(torch.zeros(1, 5, 5, dtype=torch.int64)))[0, :, 8:12, 8:12])


@pytest.mark.parametrize(
    ("quantizer", "options"),
    [
        ("residual", {"num_levels": 3, "codebook_size": 16, "codebook_dim": 4}),
        ("grouped", {"num_groups": 2, "codebook_size": 16, "codebook_dim": 4}),
        ("multiscale", {"scales": [1, 2, 4], "codebook_size": 16, "codebook_dim": 4}),
    ],
)
def test_a_code_alone_of_every_level(quantizer: str, options: dict[str, object]) -> None:
    model = tokenizer(quantizer=quantizer, quantizer_options=options)
    with torch.no_grad():
        for weight in model.quantizer.parameters():
            weight.mul_(100)  # at first all codes are near zero
    sizes = model.quantizer.codebook_sizes
    assert [len(book) for book in model.quantizer.codebooks] == list(sizes)
    assert len(model.token_grids()) == len(sizes)
    for level, size in enumerate(sizes):
        alone = torch.cat(list(decode_alone(model, torch.arange(size), level=level)))
        assert alone.shape == (size, 3, 4, 4)
        assert len(alone.flatten(1).unique(dim=0)) > 1  # the level matters


def test_a_vit_decodes_its_whole_grid() -> None:
    options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 4, "positions": "learned"}
    model = tokenizer(network="vit", network_options=options)
    assert torch.cat(list(decode_alone(model, torch.arange(3)))).shape == (3, 3, 4, 4)


def test_a_code_alone_in_a_sequence_is_an_image_made_small() -> None:
    options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": 6, "patch_size": 4}
    model = tokenizer(network="titok", network_options=options)
    alone = torch.cat(list(decode_alone(model, torch.tensor([3, 31]))))
    whole = model.decode(torch.tensor([3, 31])[:, None].expand(2, 6))
    assert torch.equal(alone, to_uint8(whole.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5))))
    assert model.token_grids() == [(1, 6)]


def test_an_image_is_encoded_once_to_learn_the_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tokenizer()
    encode, times = model.encode, []
    monkeypatch.setattr(model, "encode", lambda images: times.append(1) or encode(images))
    for code in (1, 2, 3):
        list(decode_alone(model, torch.tensor([code])))
    assert len(times) <= 1
    assert tokenizer(image_size=32).token_grids() == [(8, 8)] and model.token_grids() == [(4, 4)]  # each its own


@pytest.mark.parametrize("context", [0, 2])
def test_a_context_without_a_middle_is_refused(context: int) -> None:
    with pytest.raises(ValueError, match=f"context is {context}, but must be odd"):
        list(decode_alone(tokenizer(), torch.tensor([0]), context=context))


def test_the_poster_has_each_patch_in_its_place() -> None:
    tiles = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    plain = poster(tiles, columns=3)
    assert plain.shape == (4, 6, 3)
    assert plain[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 255]]
    ordered = poster(tiles, columns=3, order=torch.tensor([4, 3, 2, 1, 0]), gap=1)
    assert ordered.shape == (5, 8, 3)
    assert ordered[::3, ::3, 0].tolist() == [[4, 3, 2], [1, 0, 255]] and ordered[2].eq(255).all()


def test_a_mixture_begins_and_ends_at_the_images() -> None:
    model = tokenizer()
    generator = torch.Generator().manual_seed(0)
    a, b = ((torch.randint(0, 32, (1, 4, 4), generator=generator),) for _ in range(2))

    def same(x: Tensor, y: Tensor) -> bool:
        return torch.allclose(x, y, atol=1e-5)

    for snapped in (False, True):
        assert same(interpolate(model, a, b, 0.0, to_codes=snapped), model.decode(a[0]))
        assert same(interpolate(model, a, b, 1.0, to_codes=snapped), model.decode(b[0]))
    between = interpolate(model, a, b, 0.5)
    assert not same(between, model.decode(a[0])) and not same(between, interpolate(model, a, b, 0.5, to_codes=True))
