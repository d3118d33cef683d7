"""Options of `vq` and `ema`: entropy loss, k-means, revival and the rotation trick, each against a direct computation."""

from pathlib import Path

import pytest
import torch
from helpers.golden import GOLDEN, relative_error
from helpers.processes import run_two
from safetensors.torch import load_file
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from vistok import TrainConfig, VisualTokenizer, quantizers
from vistok.losses import loss_weights
from vistok.quantizers import EMAQuantizer, VectorQuantizer, entropy, remedies


def clusters(num_clusters: int, tokens_each: int) -> tuple[Tensor, Tensor]:
    """Centres [n, 2], far apart on a circle, and z [1, 2, 1, N] close around them."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.arange(num_clusters) * 2 * torch.pi / num_clusters
    centres = 10 * torch.stack([angles.cos(), angles.sin()], dim=1)
    tokens = centres.repeat(tokens_each, 1) + 0.01 * torch.randn(num_clusters * tokens_each, 2, generator=generator)
    return centres, tokens.T[None, :, None]


def test_defaults_have_no_state_of_the_options() -> None:
    assert list(VectorQuantizer(16, 4).state_dict()) == ["weight"]
    assert list(EMAQuantizer(16, 4).state_dict()) == ["weight", "ema_sum", "ema_count"]


def test_entropy_loss_matches_the_original() -> None:
    golden = load_file(GOLDEN / "quantizer_vq_l2_entropy.safetensors")
    quantizer = VectorQuantizer(64, 8, l2_norm=True, entropy_temperature=0.01)
    with torch.no_grad():
        quantizer.weight.copy_(golden["param.codebook"])
    z = golden["z"].clone().requires_grad_()
    quantized = quantizer(z)
    weights = {"codebook": 1.0, "commitment": 0.25, "entropy": 0.1}
    losses = {name: weights[name] * loss for name, loss in quantized.losses.items()}

    assert torch.equal(quantized.indices, golden["indices"])
    torch.testing.assert_close(quantized.codes, golden["codes"], atol=1e-5, rtol=0)
    for name in weights:
        torch.testing.assert_close(losses[name], golden[f"loss.{name}"], atol=1e-5, rtol=0)
    ((quantized.codes * golden["cotangent"]).sum() + sum(losses.values())).backward()
    assert relative_error(z.grad, golden["grad.z"]) < 1e-4
    assert relative_error(quantizer.weight.grad, golden["grad.codebook"]) < 1e-4


@pytest.mark.parametrize("tile", [2**8, 2**20])
def test_entropy_loss_equals_the_direct_computation(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entropy._TILE_SCORES, "cpu", tile)
    torch.manual_seed(0)
    tokens, codebook = torch.randn(70, 4, requires_grad=True), torch.randn(33, 4, requires_grad=True)
    loss = entropy.entropy_of_distances(tokens, codebook, temperature=0.5)
    p = (-(tokens.double().unsqueeze(1) - codebook.double()).square().sum(2) / 0.5).softmax(1)
    mean = p.mean(0)
    expected = -(p * p.log()).sum(1).mean() + (mean * (mean + 1e-5).log()).sum()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    for ours, direct in zip(
        torch.autograd.grad(loss, (tokens, codebook)), torch.autograd.grad(expected, (tokens, codebook)), strict=True
    ):
        torch.testing.assert_close(ours, direct, atol=1e-5, rtol=1e-4)


def test_the_entropy_loss_has_a_weight_only_where_there_is_one() -> None:
    sizes = {"codebook_size": 16, "hidden_dim": 8, "image_size": 16}
    plain = TrainConfig(**sizes, entropy_weight=0.3)
    with pytest.raises(ValueError, match="entropy_weight is 0.3, but quantizer 'vq' has no such loss"):
        loss_weights(plain, VisualTokenizer.from_config(plain).quantizer)
    config = TrainConfig(**sizes, entropy_weight=0.3, quantizer_options={"entropy_temperature": 0.01})
    assert loss_weights(config, VisualTokenizer.from_config(config).quantizer)["entropy"] == 0.3
    assert VectorQuantizer.loss_names == ("codebook", "commitment")


@pytest.mark.parametrize("name", ["vq", "ema"])
def test_kmeans_finds_clusters_in_the_first_training_batch_only(name: str) -> None:
    centres, z = clusters(num_clusters=6, tokens_each=40)
    torch.manual_seed(0)
    quantizer = quantizers.build(name, codebook_size=24, codebook_dim=2, init="kmeans")
    small = quantizer.codebook.abs().max()
    quantizer.eval()(z)
    assert small < 1 and quantizer.codebook.abs().max() == small and not quantizer.initialized
    quantizer.train()(z)
    assert quantizer.initialized
    distances = torch.cdist(centres, quantizer.codebook.detach())
    assert distances.min(1).values.max() < 0.1  # every cluster has a code, every code a cluster
    assert distances.min(0).values.max() < 0.1
    before = quantizer.codebook.detach().clone()
    quantizer(-5 * z)
    if name == "vq":
        assert torch.equal(quantizer.codebook, before)
    else:
        unchanged = (quantizer.codebook == before).all(1)
        assert unchanged.any() and not unchanged.all()


def test_kmeans_steps_lower_the_distortion_to_a_fixed_point_of_the_means() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(400, 3)

    def distortion(codes: Tensor) -> float:
        return torch.cdist(tokens, codes).min(1).values.square().mean().item()

    torch.manual_seed(1)
    start = remedies.draw_tokens(tokens, 8)
    torch.manual_seed(1)
    codes = remedies.kmeans(tokens, 8, l2_norm=False)
    assert distortion(codes) < 0.8 * distortion(start)
    chosen = torch.cdist(tokens, codes).argmin(1)
    means = torch.stack([tokens[chosen == k].mean(0) for k in range(8)])
    assert (means - codes).norm(dim=1).max() < 0.1 < (means - start).norm(dim=1).max()


def test_kmeans_of_normalised_tokens_stays_on_the_sphere() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 4, l2_norm=True, init="kmeans")
    quantizer(torch.randn(2, 4, 8, 8))
    torch.testing.assert_close(quantizer.weight.norm(dim=1), torch.ones(16))


def test_ema_counts_start_at_one_after_kmeans() -> None:
    _, z = clusters(num_clusters=4, tokens_each=25)
    quantizer = EMAQuantizer(4, 2, decay=0.9, init="kmeans")
    torch.manual_seed(0)
    codes = remedies.kmeans(z[0, :, 0].T, 4, l2_norm=False)
    torch.manual_seed(0)
    indices = quantizer(z).indices.flatten()
    counts = indices.bincount(minlength=4)
    torch.testing.assert_close(quantizer.ema_count, 0.9 + 0.1 * counts)
    sums = torch.zeros(4, 2).index_add_(0, indices, z[0, :, 0].T)
    torch.testing.assert_close(quantizer.ema_sum, 0.9 * codes + 0.1 * sums)
    torch.testing.assert_close(quantizer.weight, quantizer.ema_sum / quantizer.ema_count.unsqueeze(1))


def test_kmeans_of_fewer_tokens_than_codes_is_refused() -> None:
    with pytest.raises(
        ValueError, match="first batch has 9 tokens for 16 codes: take a larger batch, or init 'uniform'"
    ):
        VectorQuantizer(16, 4, init="kmeans")(torch.randn(1, 4, 3, 3))


@pytest.mark.parametrize("name", ["vq", "ema"])
def test_dead_codes_become_tokens_of_the_batch_after_so_many_steps(name: str) -> None:
    torch.manual_seed(0)
    quantizer = quantizers.build(name, codebook_size=8, codebook_dim=2, revive_after=3)
    with torch.no_grad():
        quantizer.weight.fill_(100.0)
        quantizer.weight[0] = 0.0
    batches = torch.randn(5, 1, 2, 4, 4)
    for step in range(3):
        assert (quantizer(batches[step]).indices == 0).all()
        assert quantizer.unused_steps.tolist() == [0] + [step + 1] * 7
        assert (quantizer.codebook[1:] == 100).all()
    quantizer.eval()(batches[3])
    assert (quantizer.codebook[1:] == 100).all() and quantizer.unused_steps[1] == 3
    indices = quantizer.train()(batches[4]).indices
    tokens = batches[4, 0].flatten(1).T  # [16, 2]
    if name == "vq":
        assert all((tokens == code).all(1).any() for code in quantizer.codebook[1:])
    else:  # a token with count 1, then one update
        counts = indices.flatten().bincount(minlength=8)
        torch.testing.assert_close(quantizer.ema_count[1:], 0.99 + 0.01 * counts[1:])
        torch.testing.assert_close(quantizer.weight[1:], (quantizer.ema_sum / quantizer.ema_count[:, None])[1:])
        assert quantizer.weight.abs().max() < 10
    assert len(indices.unique()) == 8  # 7 tokens drawn without replacement are the nearest to themselves
    assert (quantizer.unused_steps == 0).all()


def test_a_dead_code_revives_at_the_same_step_however_many_parts_a_batch_has() -> None:
    revived = []
    for num_parts in (1, 4):
        quantizer = VectorQuantizer(4, 2, revive_after=3)
        with torch.no_grad():
            quantizer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [90.0, 90.0]]))
        steps = [0]
        while quantizer.weight[3, 0] == 90:
            z = torch.rand(8, 2, 2, 2)
            for number, part in enumerate(z.chunk(num_parts)):
                quantizer.set_part(first=number == 0, last=number == num_parts - 1)
                quantizer(part)
            steps[0] += 1
        revived.append(steps[0])
    assert revived == [4, 4]


def test_a_revived_code_has_all_its_steps_before_it_dies_again() -> None:
    quantizer = VectorQuantizer(4, 2, revive_after=2)
    found = []
    for _ in range(5):  # equal tokens make equal codes, of which the search takes one
        quantizer(torch.ones(1, 2, 2, 2))
        found.append(quantizer.unused_steps.max().item())
    assert found == [1, 2, 1, 2, 1]


def test_revival_leaves_a_backward_pass_whole_and_codes_in_use_alone() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 4, l2_norm=True, revive_after=1, entropy_temperature=0.1)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.0)
    for _ in range(4):
        before, in_use = quantizer.weight.detach().clone(), quantizer.unused_steps == 0
        quantized = quantizer(torch.randn(1, 4, 2, 2))
        assert torch.equal(quantizer.weight[in_use], before[in_use])
        assert not in_use.any() or (quantizer.weight[~in_use] != before[~in_use]).any(1).all()
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
        optimizer.step()


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_rotation_matches_the_installed_peer(dim: int) -> None:
    torch.manual_seed(0)
    z, codes, cotangent = torch.randn(3, 2, dim, 4, 4).unbind()
    z.requires_grad_()
    ours = remedies.rotated(z, codes)
    theirs = rotate_to(z.movedim(1, -1), codes.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(ours, codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (grad,) = torch.autograd.grad((ours * cotangent).sum(), z)
    (expected,) = torch.autograd.grad((theirs * cotangent).sum(), z)
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["vq", "ema"])
def test_rotation_turns_the_gradient_as_it_turns_z_and_keeps_the_codes(name: str) -> None:
    torch.manual_seed(0)
    straight, turned = (
        quantizers.build(name, codebook_size=16, codebook_dim=4, gradient=gradient).eval()
        for gradient in ("straight-through", "rotation")
    )
    turned.load_state_dict(straight.state_dict())
    z = torch.randn(1, 4, 1, 50, requires_grad=True)
    first, second = straight(z), turned(z)
    assert torch.equal(first.indices, second.indices) and torch.equal(first.codes, second.codes)
    (along_code,) = torch.autograd.grad((second.codes * second.codes.detach()).sum(), z)
    ratio = second.codes.norm(dim=1) / z.norm(dim=1)
    # A gradient along the code comes out along z: the angle between gradient and vector is kept, and its length scaled.
    torch.testing.assert_close(along_code, (ratio**2).unsqueeze(1) * z.detach(), atol=1e-6, rtol=1e-4)
    (copied,) = torch.autograd.grad((first.codes * first.codes.detach()).sum(), z)
    torch.testing.assert_close(copied, first.codes.detach())


def test_rotation_is_finite_for_opposite_and_zero_vectors() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0]]).view(2, 2, 1, 1).requires_grad_()
    codes = torch.tensor([[-2.0, -4.0], [1.0, 0.0]]).view(2, 2, 1, 1)
    turned = remedies.rotated(z, codes)
    turned.sum().backward()
    torch.testing.assert_close(turned[0], codes[0])
    assert z.grad.isfinite().all()


def test_bad_options_are_refused() -> None:
    for name in ("vq", "ema"):
        with pytest.raises(ValueError, match="init is 'k-means', but must be 'uniform' or 'kmeans'"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, init="k-means")
        with pytest.raises(ValueError, match="gradient is 'rotate', but must be 'straight-through' or 'rotation'"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, gradient="rotate")
        with pytest.raises(ValueError, match="revive_after is 0, but must be at least 1 step"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, revive_after=0)
    with pytest.raises(ValueError, match=r"entropy_temperature is 0\.0, but must be above 0; 0\.01 is usual"):
        quantizers.build("vq", codebook_size=16, codebook_dim=4, entropy_temperature=0)
    with pytest.raises(ValueError, match="no option 'entropy_temperature'"):
        quantizers.build("ema", codebook_size=16, codebook_dim=4, entropy_temperature=0.01)


TWO_PROCESSES = """
import sys, torch
from vistok import quantizers
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
z = torch.randn(2, 2, 1, 60, generator=torch.Generator().manual_seed(0))
z[1] += 20  # what the second process sees is elsewhere
for name in ("vq", "ema"):
    torch.manual_seed(0)  # one codebook to start from, as data-parallel training has it
    quantizer = quantizers.build(name, codebook_size=16, codebook_dim=2, init="kmeans", revive_after=2)
    torch.manual_seed(rank)  # and draws of their own
    for step in range(6):
        quantizer(z[rank:rank + 1] if step < 3 else z[rank:rank + 1] - 200)
        for value in quantizer.state_dict().values():
            both = [torch.empty_like(value) for _ in range(2)]
            torch.distributed.all_gather(both, value.detach().clone())
            assert torch.equal(*both), (name, step)
        if step == 0:
            near = quantizer.codebook.detach().mean(1) > 10
            assert 4 <= near.sum() <= 12, near  # codes for the tokens of both
    assert quantizer.codebook.detach().mean(1).min() < -150  # revived on what both see now
    assert (quantizer.codebook.detach().mean(1) > -190).sum() >= 2
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_start_and_revive_the_same_codes_from_the_tokens_of_both(tmp_path: Path) -> None:
    run_two(TWO_PROCESSES, tmp_path / "store")
