"""The GPU path, on machines without a GPU too: what training computes, on fake CUDA tensors.

A fake tensor (PyTorch's FakeTensorMode) has a device, a type and a shape, but no values, so it needs no GPU;
operations on tensors of two devices are refused as on a GPU. Every module is built on the CPU and moved, so that a
tensor which was not moved with it is caught where it is used. Where a CUDA device is present the same checks run on
real tensors too.

What fake CUDA tensors lack without a GPU is stood in for (`pretend`):

- Autocast asks for a GPU, and would turn itself off.
- `Module.to` swaps the contents of two tensors, which fake ones refuse; new parameters take their place here.
- The autograd engine asks the driver about the device's streams. The graph is walked in Python instead; it has the same
  backward functions.

CUDA itself is never initialised, as fake tensors leave it alone where there is no GPU. What cannot be seen: kernels
that are missing for a type, memory, anything that depends on values.

An operation that makes the CPU wait for the device also shows here (`Waits`). One at every step leaves a GPU idle while
the CPU launches what comes next, so each that is there has its reason here.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import helpers.discriminators
import helpers.generators
import helpers.quantizers
import pytest
import torch
from accelerate import Accelerator
from helpers.quantizers import VARIANTS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics.functional.image.lpips import _NoTrainLpips

from vistok import networks, quantizers
from vistok.config import TrainConfig
from vistok.data import to_float
from vistok.generation.generator import GENERATORS
from vistok.losses import LeCam, r1_penalty
from vistok.metrics import PSNR
from vistok.networks import NETWORKS, discriminators
from vistok.networks.blocks import recompute_activations
from vistok.networks.lpips import BACKBONES, LPIPSNetwork
from vistok.networks.perceptual import CLASSIFIERS, ClassifierDistance, untrained_classifier
from vistok.quantizers import QUANTIZERS
from vistok.quantizers.usage import CodebookUsage
from vistok.runs import Run
from vistok.tokenizer import VisualTokenizer
from vistok.training import Trainer

CUDA = torch.device("cuda:0")
INDEXING = ("index", "index_put", "index_put_")
READ = "_local_scalar_dense"  # of one value: `.item()`, `int()`, `if`
VIT_OPTIONS = {"depth": 1, "num_heads": 2, "mlp_dim": 8, "patch_size": 4}
NETWORK_OPTIONS = {
    "simple_cnn": {"hidden_dim": 8, "num_res_blocks": 1},
    "simple_cnn-norm": {"hidden_dim": 8, "num_res_blocks": 1, "norm_out": True},
    "vqgan": {"hidden_dim": 32, "num_res_blocks": 1, "ch_mult": (1, 2)},
    "maskgit": {"hidden_dim": 32, "num_res_blocks": 1, "ch_mult": (1, 2)},
    "magvit2": {"hidden_dim": 32, "num_res_blocks": 1, "ch_mult": (1, 2)},
    "vit": VIT_OPTIONS | {"hidden_dim": 8},
    "vit-learned": VIT_OPTIONS | {"hidden_dim": 8, "positions": "learned"},
    "titok": {"hidden_dim": 8, "depth": 1, "num_heads": 2, "num_tokens": 3, "patch_size": 4},
}


# A GPU that is not there


class Waits(TorchDispatchMode):
    """Notes the operations that make the CPU wait for a CUDA device.

    Reading a value of a fake tensor is an error, unless there are answers: what is read, in this order.

    Attributes:
        found: names of the operations, in their order.
        dtypes: of all results.
    """

    def __init__(self, *answers: float) -> None:
        super().__init__()
        self.answers = list(answers)
        self.found: list[str] = []
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        waits = self._waits(name, args, kwargs)
        if waits:
            self.found.append(name)
        if waits and name == READ and isinstance(args[0], FakeTensor) and self.answers:
            return self.answers.pop(0)
        if name in INDEXING and any(i.is_cuda and not args[0].is_cuda for i in args[1] if i is not None):
            # Fake tensors allow it.
            raise RuntimeError("indices should be on the same device, but a CPU tensor has them on CUDA")
        result = func(*args, **kwargs)
        self.dtypes.update(leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _waits(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        devices = [leaf.device.type for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if name == "_to_copy":  # memory that is not pinned is copied with a wait, whichever way
            target = kwargs.get("device")
            return (
                target is not None and {devices[0], target.type} == {"cpu", "cuda"} and not kwargs.get("non_blocking")
            )
        if name == "copy_":
            return {"cpu", "cuda"} <= set(devices) and not (args[2:] and args[2])
        if "cuda" not in devices:
            return False
        if name in INDEXING:  # of a mask it must be known how many places it has, but to fill in one number
            indices = [i for i in args[1] if i is not None]
            is_masked = any(i.dtype == torch.bool for i in indices) and not (len(args) > 2 and args[2].numel() == 1)
            return is_masked or not all(i.is_cuda for i in indices)
        return name in (READ, "nonzero", "masked_select", "_unique2", "bincount", "equal")


def backward_order(roots: Iterable[Node]) -> list[Node]:
    """Return the functions of a backward graph, each before those that it hands its gradients to."""
    seen, order, stack = set(), [], [(root, False) for root in roots]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following is not None]
    return order[::-1]


def walk(output: Tensor, inputs: list[Tensor] | None = None, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Do what the autograd engine does for one output: return the gradients of inputs, or else set every leaf's."""
    root, wanted = get_gradient_edge(output), [get_gradient_edge(x) for x in inputs or ()]
    order, needed = backward_order([root.node]), {edge.node for edge in wanted}
    for node in reversed(order):
        if inputs is None or any(following in needed for following, _ in node.next_functions):
            needed.add(node)
    gradients: dict[Node, list[Any]] = {node: [None] * len(node._input_metadata) for node in needed}

    def add(node: Node, number: int, gradient: Tensor) -> None:
        expected = node._input_metadata[number]
        assert gradient.device == expected.device, f"{node.name()}: {gradient.device}, not {expected.device}"
        gradient = gradient.sum_to_size(expected.shape).to(expected.dtype)
        before = gradients[node][number]
        gradients[node][number] = gradient if before is None else before + gradient

    with torch.set_grad_enabled(create_graph):
        add(root.node, root.output_nr, torch.ones_like(output))
        for node in order:
            given = gradients.get(node)
            if given is None or all(gradient is None for gradient in given):
                continue
            if hasattr(node, "variable"):  # a leaf
                if inputs is None:
                    grad = node.variable.grad
                    node.variable.grad = given[0] if grad is None else grad + given[0]
                continue
            if not callable(node):  # a function written in Python, which is given zeros for what nobody used
                kinds = [{"dtype": m.dtype, "device": m.device} for m in node._input_metadata]
                shapes = [m.shape for m in node._input_metadata]
                given = [torch.zeros(s, **k) if g is None else g for g, s, k in zip(given, shapes, kinds, strict=True)]
            passed_on = node(*given) if callable(node) else node.apply(*given)
            passed_on = passed_on if isinstance(passed_on, tuple) else (passed_on,)
            for (following, number), gradient in zip(node.next_functions, passed_on, strict=True):
                if gradient is not None and following in gradients:
                    add(following, number, gradient)
    return tuple(gradients[edge.node][edge.output_nr] for edge in wanted)


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for what fake CUDA tensors lack without a GPU; see the top of this file."""

    def backward(self: Tensor) -> None:
        walk(self)

    def grad(
        outputs: Tensor, inputs: Tensor, retain_graph: bool | None = None, create_graph: bool = False
    ) -> tuple[Tensor, ...]:
        return walk(outputs, [inputs], create_graph)

    def apply(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for child in self.children():
            child._apply(function)
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                applied = parameter if parameter is None else function(parameter)
            if applied is not parameter:  # one that is there already stays itself, as an optimizer may have it
                self._parameters[name] = nn.Parameter(applied, parameter.requires_grad)
        for name, buffer in self._buffers.items():
            self._buffers[name] = function(buffer) if buffer is not None else None
        return self

    def deepcopy(self: FakeTensor, memo: dict[int, object]) -> Tensor:
        copied = self.detach().clone()
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(nn.Module, "_apply", apply)
    monkeypatch.setattr(FakeTensor, "__deepcopy__", deepcopy)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    # As without a GPU where there is one: else copies to it, of which `torch.tensor` makes some, are hidden from modes.
    monkeypatch.setattr(FakeTensorMode, "avoid_device_init", True)


@pytest.fixture(params=["fake", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A CUDA device, pretended or real; all tensors that the test makes without one are on the CPU."""
    if not torch.backends.cuda.is_built():
        pytest.skip("this PyTorch is built without CUDA, and its autograd knows no such device")
    monkeypatch.setattr(Accelerator, "device", property(lambda self: CUDA))
    if request.param == "fake":
        # Fake tensors leave a device behind for which an engine that starts later makes threads, and with these a
        # forked process cannot go backward. So it starts first.
        torch.ones(1, requires_grad=True).backward()
        pretend(monkeypatch)
    # Nothing real comes in from outside: it would be computed with as it is, on whatever device it is.
    with FakeTensorMode(allow_non_fake_inputs=False) if request.param == "fake" else contextlib.nullcontext():
        yield CUDA


def autocast() -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16)


def assert_on(device: torch.device, *things: object) -> None:
    """Every tensor in these things, modules and optimizers among them, and every gradient, is on a device."""
    for thing in things:
        if isinstance(thing, nn.Module):
            tensors = [*thing.named_parameters(), *thing.named_buffers()]
            tensors += [(f"gradient of {name}", p.grad) for name, p in thing.named_parameters() if p.grad is not None]
        elif isinstance(thing, torch.optim.Optimizer):
            tensors = [("state", leaf) for leaf in tree_leaves(list(thing.state.values()))]
        else:
            tensors = [(type(thing).__name__, leaf) for leaf in tree_leaves(thing)]
        assert tensors
        for name, tensor in tensors:
            assert tensor.device == device, f"{name} is on {tensor.device}"


def is_fake() -> bool:
    return isinstance(torch.empty(0), FakeTensor)


def assert_waits(waits: Waits, expected: list[str]) -> None:
    """On fake tensors the answers are the test's, and so is the course taken; on real ones it may be a shorter one."""
    if is_fake():
        assert waits.found == expected
    else:
        assert set(waits.found) <= set(expected)


def images_of(device: torch.device, size: int = 16, batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, size, size, device=device) * 2 - 1


# Networks


def test_every_registered_network_is_checked() -> None:
    assert {variant.partition("-")[0] for variant in NETWORK_OPTIONS} == set(NETWORKS)


@pytest.mark.parametrize(
    ("variant", "recompute"),
    [
        pytest.param(variant, recompute, id=variant + "-recomputed" * recompute)
        for variant in NETWORK_OPTIONS
        for recompute in (False, True)
        if not (recompute and variant.startswith("simple_cnn"))  # has nothing to recompute
    ],
)
def test_networks_stay_on_the_device(variant: str, recompute: bool, device: torch.device) -> None:
    options = {"codebook_dim": 4, "image_size": 16} | NETWORK_OPTIONS[variant]
    network = nn.ModuleList(networks.build(variant.partition("-")[0], **options)).to(device)
    if recompute:
        recompute_activations(network)
    encoder, decoder = network
    with Waits() as waits:
        with autocast():
            z = encoder(images_of(device))
            reconstruction = decoder(z.float())  # codes are float32
        reconstruction.float().square().mean().backward()
        network.eval()
        with autocast(), torch.no_grad():
            images = images_of(
                device, 16 if variant in ("vit-learned", "titok") else 24
            )  # another grid than that trained on
            evaluated = decoder(encoder(images).float())
    assert z.shape[:2] == (4, 4) and reconstruction.shape == (4, 3, 16, 16) and evaluated.shape == images.shape
    assert z.dtype == reconstruction.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert_on(device, network, z, reconstruction, evaluated, decoder.last_layer.grad)
    assert_waits(waits, [])


@pytest.mark.parametrize("variant", helpers.discriminators.SMALL)
def test_discriminators_and_their_gradient_penalty_stay_on_the_device(variant: str, device: torch.device) -> None:
    discriminator = helpers.discriminators.build(variant).to(device)
    images = images_of(device, 32).requires_grad_()
    with Waits() as waits:
        with autocast():
            logits = discriminator(images)
        penalty = r1_penalty(discriminator, images)
        (logits.float().mean() + penalty).backward()
    assert logits.dtype == torch.bfloat16 and penalty.dtype == images.grad.dtype == torch.float32
    assert_on(device, discriminator, logits, penalty, images.grad)
    assert_waits(waits, [])


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("grid", helpers.generators.GRIDS)
def test_generators_stay_on_the_device(kind: str, grid: str, device: torch.device) -> None:
    generator = helpers.generators.generator(kind, grid, classes=["a", "b"], class_dropout=0.5, dropout=0.1).to(device)
    places = torch.zeros(2, generator.layout.num_places, len(generator.layout.sizes), dtype=torch.int64, device=device)
    labels = torch.ones(2, dtype=torch.int64, device=device)
    with Waits() as waits, autocast():
        loss = generator.train()(places, labels)
    with waits:
        loss.backward()
    drawn = generator.sample(range(2), 1, guidance=2.0, top_k=3, top_p=0.9)
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in generator.parameters())
    assert_on(device, generator, loss, drawn)
    assert_waits(waits, [])


def test_every_discriminator_is_checked() -> None:
    assert {variant.partition("-")[0] for variant in helpers.discriminators.SMALL} == set(discriminators.DISCRIMINATORS)


def random_lpips(net: str, *args: object, **options: object) -> LPIPSNetwork:
    """What `build_lpips` returns, with random weights: none are downloaded."""
    network = _NoTrainLpips(net=net, pnet_rand=True)
    return LPIPSNetwork(network.to(memory_format=torch.channels_last), BACKBONES[net][2], "")


def random_classifier(name: str, *args: object, **options: object) -> ClassifierDistance:
    """What `build_classifier` returns, with random weights: none are downloaded."""
    return ClassifierDistance(untrained_classifier(name).to(memory_format=torch.channels_last))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_stay_on_the_device(name: str, device: torch.device) -> None:
    distance = random_classifier(name).to(device)
    reconstructions = images_of(device, 32, 1).requires_grad_()
    with Waits() as waits:
        with autocast():
            distances = distance(images_of(device, 32, 1), reconstructions)
        distances.mean().backward()
    assert distances.shape == (1,) and distances.dtype == reconstructions.grad.dtype == torch.float32
    assert_on(device, distance, distances, reconstructions.grad)
    assert_waits(waits, [])


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_stays_on_the_device(net: str, device: torch.device) -> None:
    network = random_lpips(net).to(device)
    reconstructions = images_of(device, 32).requires_grad_()
    with Waits() as waits:
        with autocast():
            distances = network(images_of(device, 32), reconstructions)
        distances.float().mean().backward()
    assert distances.shape == (4,) and reconstructions.grad.dtype == torch.float32
    assert_on(device, network, distances, reconstructions.grad)
    assert_waits(waits, [])


# Quantizers


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_quantizers_stay_on_the_device_in_float32(variant: str, training: bool, device: torch.device) -> None:
    """Most never wait. k-means waits at the first batch only; revival at every one, for whether a code is dead: only
    then are tokens drawn at random.
    """
    quantizer = quantizers.build(variant.partition("-")[0], **helpers.quantizers.options_of(variant)).to(device)
    quantizer.train(training)
    remedied = training and variant.endswith("remedies")
    z = torch.randn(4, quantizer.codebook_dim, 8, 8, device=device).requires_grad_()
    if remedied:
        # Not started; 256 tokens in all processes; there are dead codes; 3 of them.
        with Waits(False, 256, True, 3) as waits, autocast():
            quantizer(z)
        placed = ["index_put_"] * len({"weight", "ema_sum"} & quantizer.state_dict().keys())
        assert_waits(waits, [READ, "_to_copy", READ, *placed, READ, READ, *placed])
    halved = z.bfloat16()
    with Waits(*[False] * remedied) as waits, autocast():  # the second batch: no code is dead
        quantized = quantizer(halved)
    assert_waits(waits, [READ] * remedied)
    assert torch.bfloat16 not in waits.dtypes
    with Waits() as waits:
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
        with autocast():
            codes = quantizer.indices_to_codes(quantized.indices) if quantized.levels else quantized.codes
            codebooks = quantizer.codebooks
    assert_waits(waits, [])
    assert quantized.codes.shape == codes.shape == z.shape
    for tensor in (quantized.codes, codes, z.grad, *codebooks, *quantized.losses.values()):
        assert tensor.dtype == torch.float32
    assert all(level.dtype == torch.int64 for level in quantized.levels)
    assert_on(device, vars(quantized), codes, *codebooks, z.grad)
    if quantizer.state_dict() or list(quantizer.buffers()):
        assert_on(device, quantizer)


def test_a_state_from_before_the_start_by_k_means_starts_again() -> None:
    """Whether a codebook has started is not asked again once it has, unless a state was loaded."""
    quantizer = quantizers.build("vq", codebook_size=16, codebook_dim=4, init="kmeans")
    fresh = {name: value.clone() for name, value in quantizer.state_dict().items()}
    z = torch.randn(1, 4, 8, 8)
    quantizer(z)
    started = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(z)
    assert torch.equal(quantizer.weight, started["weight"])
    quantizer.load_state_dict(started)
    quantizer(z + 1)
    assert torch.equal(quantizer.weight, started["weight"])
    quantizer.load_state_dict(fresh)
    quantizer(z + 10)
    assert quantizer.initialized and quantizer.weight.mean() > 9


def test_every_quantizer_is_checked() -> None:
    assert {variant.partition("-")[0] for variant in VARIANTS} == set(QUANTIZERS)


@pytest.mark.parametrize("quantizer", ["vq", "lfq", "residual", "multiscale"])
def test_images_become_indices_and_images_again_on_the_device(quantizer: str, device: torch.device) -> None:
    options = {"codebook_size": 16, "codebook_dim": 4} | ({"scales": [1, 2, 4]} if quantizer == "multiscale" else {})
    tokenizer = VisualTokenizer(
        network_options=NETWORK_OPTIONS["simple_cnn"], quantizer=quantizer, quantizer_options=options, image_size=16
    ).to(device)
    with Waits() as waits, autocast():
        indices = tokenizer.encode(images_of(device))
    assert_waits(waits, [] if is_fake() else [READ])  # the range of images is looked at, at the end
    num_levels = len(tokenizer.quantizer.codebook_sizes)
    with Waits(*[0, 15] * num_levels) as waits, autocast():  # the lowest and the highest index of each level
        images = tokenizer.decode(indices)
    assert_waits(waits, [READ] * 2 * num_levels)
    assert images.shape == (4, 3, 16, 16)
    assert_on(device, indices, images)


def test_the_range_of_images_costs_a_training_step_nothing_and_encoding_no_wait_amid_it(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VisualTokenizer(quantizer_options={"codebook_size": 16, "codebook_dim": 4}, image_size=16).to(device)
    done: list[str] = []
    monkeypatch.setattr("vistok.tokenizer.begin_range_check", lambda images: done.append("begin") or images)
    monkeypatch.setattr("vistok.tokenizer.end_range_check", lambda bounds: bounds is None or done.append("end"))
    model.encoder.register_forward_hook(lambda *_: done.append("encoder"))
    model.train()(images_of(device))
    assert done == ["encoder"]
    for look in (model.encode, model.eval()):
        done.clear()
        look(images_of(device))
        assert done == ["begin", "encoder", "end"]


# Whole steps

ADVERSARIAL = {"discriminator": "patchgan", "discriminator_options": {"hidden_dim": 8, "num_layers": 1}}
STEPS = {
    "float32": {"precision": "float32"},
    "ema": {"quantizer": "ema", "gradient_clip": 1.0},
    "recomputed": {
        **{"network": "magvit2", "hidden_dim": 32, "network_options": {"ch_mult": [1, 2]}},
        "checkpoint_activations": True,
    },
    "vit": {"network": "vit", "network_options": VIT_OPTIONS, "num_res_blocks": TrainConfig().num_res_blocks},
    "titok": {
        "network": "titok",
        "network_options": {"depth": 1, "num_heads": 2, "num_tokens": 3, "patch_size": 4},
        "num_res_blocks": TrainConfig().num_res_blocks,
    },
    "parts": {"accumulate": 2, "optimizer": "adamw", "weight_decay": 0.1, "warmup_steps": 2, "lr_schedule": "cosine"},
    "losses": {"reconstruction_error": "l1", "logit_laplace_weight": 0.1, "lpips_weight": 0.1},
    "average": {"ema_decay": 0.9},
    "average-warmed-up": {"ema_decay": 0.9, "ema_warmup": "power"},
    "kernels": {"optimizer": "adamw", "weight_decay": 0.1, "weight_decay_on": "kernels", "lr_schedule": "linear"},
    "adversarial": ADVERSARIAL | {"adversarial_weight": 0.5, "adversarial_adaptive": True},
    "regularised": {
        **ADVERSARIAL,
        **{"adversarial_weight": 0.5, "adversarial_adaptive": True, "accumulate": 2, "gradient_clip": 1.0},
        **{"lecam_weight": 0.1, "r1_weight": 1.0, "r1_every": 2, "lpips_weight": 0.1},
    },
    "float16": {"precision": "float16", "gradient_clip": 1.0},
    "float16-adversarial": {
        **ADVERSARIAL,
        **{"precision": "float16", "adversarial_weight": 0.5, "adversarial_adaptive": True, "accumulate": 2},
    },
    "maskbit": {
        **{"discriminator": "maskbit", "discriminator_options": {"hidden_dim": 8, "num_stages": 2}},
        **{"adversarial_weight": 0.5, "classifier_weight": 0.1},
    },
    "stylegan2": {
        **{"discriminator": "stylegan2", "discriminator_options": {"channel_multiplier": 1 / 64}},
        **{"adversarial_weight": 0.5, "adversarial_loss": "non-saturating"},
    },
}
# PyTorch's average counts its updates on the CPU, and copies the count to the device at each but the first.
STEP_WAITS = {"average": ["_to_copy"], "average-warmed-up": ["_to_copy"]}
# In float16 both steps read what became of the scale of a side's loss; an adaptive weight whether its two gradients
# overflowed, of each of two parts.
STEP_READS: dict[str, list[float]] = {"float16": [65536.0] * 2, "float16-adversarial": ([True] * 4 + [65536.0] * 2) * 2}


@pytest.mark.parametrize("name", STEPS)
def test_whole_training_steps_stay_on_the_device(
    name: str, device: torch.device, toy: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.training.building.build_lpips", random_lpips)
    monkeypatch.setattr("vistok.training.building.build_classifier", random_classifier)
    config = toy(**{"precision": "bfloat16"} | STEPS[name])
    trainer = Trainer(Run.open(config=config), progress=False)
    assert trainer.device == device
    batches = [torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8).to(device) for _ in range(2)]
    with Waits(*STEP_READS.get(name, [])) as waits:
        for images in batches:
            losses = trainer.train_step(to_float(images))
            trainer.step += 1
            assert all(loss.dtype == torch.float32 and loss.shape == () for loss in losses.values())
            assert_on(device, losses)
    assert_waits(waits, STEP_WAITS.get(name, [READ] * len(STEP_READS.get(name, []))))
    assert losses.keys() > {"reconstruction", "total"}
    assert_on(device, trainer.tokenizer, trainer.optimizer)
    assert trainer.optimizer.defaults["fused"]
    assert_on(device, *(value for level in trainer._usage.state() for value in level.values()))
    if trainer.adversary:
        assert_on(device, trainer.adversary.discriminator, trainer.adversary.optimizer)
    if trainer._average:
        assert_on(device, trainer._average.module)


def test_lecam_moves_its_averages_on_the_device(device: torch.device) -> None:
    lecam = LeCam().to(device)
    logits = torch.randn(2, 4, 1, 3, 3, device=device).requires_grad_()
    with Waits() as waits:
        penalty = lecam(*logits)
        penalty.backward()
        lecam.update(torch.stack([side.mean() for side in logits.detach()]))
    assert_on(device, lecam, penalty, logits.grad)
    assert_waits(waits, [])


def test_codes_are_counted_on_the_device_without_a_wait(device: torch.device) -> None:
    usage = CodebookUsage([16], device=device)
    indices = torch.randint(16, (2, 4, 4), device=device)
    with Waits() as waits:
        usage.update([indices])
    (state,) = usage.state()
    assert_on(device, *state.values())
    assert {value.dtype for value in state.values()} == {torch.int64}
    assert_waits(waits, [])


def test_an_image_metric_adds_up_on_the_device(device: torch.device) -> None:
    metric = PSNR().to(device)
    images = [images_of(device) / 2 + 0.5 for _ in range(2)]
    with Waits(*[True] * 4) as waits:  # the range of both is checked, at either end
        metric.update(*images)
    assert_waits(waits, [READ] * 4)
    assert_on(device, metric.total, metric.num_images)
    assert metric.total.dtype == torch.float64


# That all this can fail


class MakesOnCPU(nn.Module):
    """Forgets where its input is."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape[-1])


class KeepsOnCPU(nn.Module):
    """Has a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class WrongInBackward(torch.autograd.Function):
    """Returns a gradient on another device than its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros(gradient.shape)


@pytest.mark.parametrize("kind", [MakesOnCPU, KeepsOnCPU])
def test_a_tensor_left_on_the_cpu_is_caught(kind: type[nn.Module], device: torch.device) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        kind().to(device)(torch.ones(2, 3, device=device))


def test_a_gradient_on_the_cpu_is_caught(device: torch.device) -> None:
    x = torch.ones(3, device=device).requires_grad_()
    with pytest.raises((AssertionError, RuntimeError), match="cpu"):
        WrongInBackward.apply(x).sum().backward()


def test_a_buffer_that_was_not_moved_is_caught(device: torch.device) -> None:
    module = nn.BatchNorm2d(3).to(device)
    assert_on(device, module)
    module.running_mean = torch.zeros(3)
    with pytest.raises(AssertionError, match="running_mean is on cpu"):
        assert_on(device, module)


WAITING: dict[str, tuple[Callable[[Tensor], object], list[str]]] = {
    "item": (lambda x: x.sum().item(), [READ]),
    "if": (lambda x: 1 if (x > 0).any() else 0, [READ]),
    "mask": (lambda x: x.__setitem__(x > 0, torch.ones(2, device=x.device)), ["index_put_"]),
    "indices": (lambda x: x[torch.tensor([0, 1])], ["index"]),
    "indices-there": (lambda x: x[torch.arange(2, device=x.device)], []),
    "to-cpu": (lambda x: x.cpu(), ["_to_copy"]),
    "from-cpu": (lambda x: torch.tensor([1.0, 2.0], device=x.device), ["_to_copy"]),
    "one-number": (lambda x: x.__setitem__(x > 0, 1.0), []),
    "none": (lambda x: torch.where(x > 0, x, 0.0).clamp(min=x.mean()), []),
}


@pytest.mark.parametrize("name", WAITING)
def test_waits_for_the_device_are_found(name: str, device: torch.device) -> None:
    function, expected = WAITING[name]
    x = torch.tensor([1.0, -1.0, 1.0]).to(device)
    with Waits(1) as waits:
        function(x)
    assert_waits(waits, expected)


def test_indices_that_are_not_where_the_indexed_tensor_is_are_caught(device: torch.device) -> None:
    indices = torch.arange(2, device=device)
    with Waits(), pytest.raises(RuntimeError, match="same device"):
        torch.ones(3)[indices]


def test_reading_a_value_that_no_test_has_foreseen_is_an_error() -> None:
    with FakeTensorMode(), Waits(), pytest.raises(RuntimeError, match="_local_scalar_dense"):
        torch.ones(3).to(CUDA).sum().item()


@pytest.mark.parametrize("network", ["vqgan", "vit", "magvit2"])
def test_the_walk_gives_the_gradients_of_the_engine(network: str) -> None:
    """On real tensors, through recomputed blocks and a function written in Python."""
    torch.manual_seed(0)
    tokenizer = VisualTokenizer(
        network=network,
        network_options=NETWORK_OPTIONS[network],
        quantizer_options={"codebook_size": 16, "codebook_dim": 4, "entropy_temperature": 0.1},
        image_size=16,
    )
    recompute_activations(tokenizer)
    images = images_of(torch.device("cpu")).requires_grad_()
    output = tokenizer(images)
    loss = output.reconstruction.square().mean() + sum(output.losses.values())
    walk(loss)
    found = [p.grad for p in tokenizer.parameters()]
    tokenizer.zero_grad()
    (of_last,) = walk(loss, [tokenizer.decoder.last_layer])
    assert all(p.grad is None for p in tokenizer.parameters())
    torch.testing.assert_close(of_last, torch.autograd.grad(loss, tokenizer.decoder.last_layer, retain_graph=True)[0])
    loss.backward()
    torch.testing.assert_close(found, [p.grad for p in tokenizer.parameters()])


def test_the_walk_gives_the_gradients_of_gradients_of_the_engine() -> None:
    discriminator = helpers.discriminators.build("patchgan-group").double()
    images = images_of(torch.device("cpu"), 32).double().requires_grad_()
    (slope,) = walk(discriminator(images).sum(), [images], create_graph=True)
    (expected,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    torch.testing.assert_close(slope, expected)
    parameters = [p for name, p in discriminator.named_parameters() if not name.endswith("11.bias")]
    found = walk(slope.square().sum(), parameters)
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), parameters))
