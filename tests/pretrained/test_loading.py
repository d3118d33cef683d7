"""Official checkpoints: parity with the originals, every container, every name of the full-size files, and hostile files."""

import collections
import dataclasses
import functools
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN
from safetensors.torch import load_file, save_file
from torch import Tensor

from vistok.pretrained import FORMATS, find_format, load_pretrained, official_file, reference_checkpoints
from vistok.tokenizer import VisualTokenizer

MODELS = {
    "taming": "model_vqgan_taming",
    "llamagen": "model_vqgan_llamagen",
    "maskgit": "model_vqgan_maskgit",
    "ibq": "model_ibq",
    "open-magvit2": "model_open_magvit2",
    "visual-tokenizer-pytorch": "model_simple_cnn_vq",
}
MANIFESTS = {
    "manifest_taming_f16_1024": ("taming", 1024, 256, 16),
    "manifest_taming_f16_16384": ("taming", 16384, 256, 16),
    "manifest_llamagen_vq16": ("llamagen", 16384, 8, 16),
    "manifest_llamagen_vq8": ("llamagen", 16384, 8, 8),
    "manifest_maskgit_vqgan": ("maskgit", 1024, 256, 16),
    "manifest_ibq_1024": ("ibq", 1024, 256, 16),
    "manifest_open_magvit2_18bit": ("open-magvit2", 2**18, 18, 16),
}
every_format = pytest.mark.parametrize("format", MODELS)


def golden(format: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The original's outputs, and its state dict."""
    tensors = load_file(GOLDEN / f"{MODELS[format]}.safetensors")
    return tensors, {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}


class Callback:
    """Something of another package that a checkpoint holds."""

    def __init__(self) -> None:
        self.best, self.paths = torch.ones(3), ["a", "b"]


def lightning(state: dict[str, Tensor]) -> dict[str, object]:
    """What Lightning writes: weights among losses, optimizers, and objects of packages that a reader may not have."""
    package = types.ModuleType("a_package_that_is_not_installed")
    package.Callback = type("Callback", (Callback,), {"__module__": package.__name__})
    package.Options = type("Options", (dict,), {"__module__": package.__name__})
    package.Steps = type("Steps", (list,), {"__module__": package.__name__})
    package.Names = type("Names", (set,), {"__module__": package.__name__})
    sys.modules[package.__name__] = package
    return {
        "epoch": 3,
        "state_dict": collections.OrderedDict(state | {"loss.discriminator.main.0.weight": torch.ones(4, 3)}),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(5)}}, "param_groups": [{"lr": 1e-4}]}],
        "callbacks": {package.Callback: package.Callback(), "other": package.Callback()},
        "hyper_parameters": [package.Options(lr=1, path=Path("x")), package.Steps([1, 2]), package.Names({"a"})],
        "rng": [torch.get_rng_state(), torch.Generator, torch.float16, torch.Size([2]), torch.device("cpu")],
    }


def with_average(state: dict[str, Tensor]) -> dict[str, object]:
    """As SEED-Voken: the weights that count are the moving average, under names without their dots."""
    average = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in state.items()}
    others = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    return lightning(others | average | {"model_ema.decay": torch.tensor(0.999)})


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"lr": 1e-4}, "steps": 400},
    "parameters": lambda state: {"model": {k: torch.nn.Parameter(v) for k, v in state.items()}},
    "ema": lambda state: {"model": {k: torch.zeros_like(v) for k, v in state.items()}, "ema": state},
    "lightning": lightning,
    "model_ema": with_average,
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(content: object, legacy: bool = False, name: str = "last.ckpt") -> Path:
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        sys.modules.pop("a_package_that_is_not_installed", None)
        return tmp_path / name

    return write


def check_parity(tokenizer: VisualTokenizer, expected: dict[str, Tensor], format: str) -> None:
    unit_range = format == "maskgit"  # its original works on images in [0, 1]
    images = 2 * expected["x"] - 1 if unit_range else expected["x"]
    target = 2 * expected["reconstruction"] - 1 if unit_range else expected["reconstruction"]
    with torch.no_grad():
        output = tokenizer(images)
        assert torch.equal(output.indices, expected["indices"])
        torch.testing.assert_close(output.z, expected["z"], atol=1e-4, rtol=0)
        torch.testing.assert_close(output.codes, expected["codes"], atol=1e-5, rtol=0)
        clamped = target.clamp(-1, 1) if unit_range else target
        torch.testing.assert_close(output.reconstruction, clamped, atol=1e-4, rtol=0)
        torch.testing.assert_close(tokenizer.train()(images).reconstruction, target, atol=1e-4, rtol=0)
    tokenizer.eval()


@every_format
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_format_in_every_container_equals_the_original(
    format: str, container: str, written: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, state = golden(format)
    path = written(CONTAINERS[container](state), legacy=container == "parameters")
    # At toy size nothing but a moving average tells IBQ from taming-transformers.
    insist = format if format in ("taming", "ibq") else None
    tokenizer = load_pretrained(path, insist)
    average = container in ("ema", "model_ema")
    assert f"last.ckpt: {format}, {'ema' if average else 'model'} weights, K = " in capsys.readouterr().out
    assert not tokenizer.training
    check_parity(tokenizer, expected, format)

    tokenizer.save(tmp_path / "saved")
    for saved in (tmp_path / "saved", tmp_path / "saved" / "model.safetensors"):
        images = expected["x"][:1] * (2 if format == "maskgit" else 1) - (1 if format == "maskgit" else 0)
        assert torch.equal(load_pretrained(saved).encode(images), expected["indices"][:1])


@every_format
@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_other_kinds_of_files(format: str, kind: str, written: Callable[..., Path], tmp_path: Path) -> None:
    expected, state = golden(format)
    if kind == "legacy":
        path = written(lightning(state), legacy=True)
    else:
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    check_parity(load_pretrained(path, "ibq" if format == "ibq" else None), expected, format)


# visual-tokenizer-pytorch's quantizers.


def simple_cnn(dim: int, **quantizer: Tensor) -> dict[str, Tensor]:
    """A state dict of the SimpleCNN of the golden file, with `dim` channels of codes, and these tensors of a quantizer."""
    _, state = golden("visual-tokenizer-pytorch")
    torch.manual_seed(0)
    del state["quantizer.codebook.weight"]
    shapes = {"enc2code.weight": (dim, 32, 1, 1), "enc2code.bias": (dim,), "code2dec.weight": (32, dim, 1, 1)}
    return (
        state | {k: torch.randn(v) / 4 for k, v in shapes.items()} | {f"quantizer.{k}": v for k, v in quantizer.items()}
    )


def of_codes(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"quantizer_{name}.safetensors")


def check_quantizer(tokenizer: VisualTokenizer, z: Tensor, indices: Tensor, codes: Tensor) -> None:
    """The quantizer gives these indices and codes, and a decoder that knows only indices sees the same codes."""
    with torch.no_grad():
        found = tokenizer.quantizer(z)
        assert torch.equal(found.indices, indices)
        torch.testing.assert_close(found.codes, codes, atol=1e-5, rtol=0)
        torch.testing.assert_close(tokenizer.quantizer.indices_to_codes(indices), codes, atol=1e-5, rtol=0)
        images = torch.rand(2, 3, 32, 32) * 2 - 1
        output = tokenizer(images)
        torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), output.reconstruction.clamp(-1, 1))


@pytest.mark.parametrize("step", [1, 4])
def test_an_ema_tokenizer_goes_on_as_the_original(step: int, written: Callable[..., Path]) -> None:
    expected = of_codes("ema")
    before = {"codebook.weight": "codebook", "ema_sumz": "ema_sum", "ema_sumn": "ema_count"}
    state = simple_cnn(8, **{theirs: expected[f"{ours}.{step - 1}"] for theirs, ours in before.items()})
    tokenizer = load_pretrained(written({"model": state}))
    indices = expected[f"indices.{step}"]
    codes = F.embedding(indices, expected[f"codebook.{step - 1}"]).permute(0, 3, 1, 2)
    check_quantizer(tokenizer, expected[f"z.{step}"], indices, codes)
    tokenizer.train().quantizer(expected[f"z.{step}"])
    for name, ours in (("codebook", "weight"), ("ema_sum", "ema_sum"), ("ema_count", "ema_count")):
        torch.testing.assert_close(getattr(tokenizer.quantizer, ours), expected[f"{name}.{step}"], atol=1e-5, rtol=1e-5)


def test_a_simvq_tokenizer_equals_the_original(written: Callable[..., Path]) -> None:
    expected = of_codes("simvq")
    state = simple_cnn(
        8,
        **{
            "codebook.weight": expected["param.codebook"],
            "codebook_proj.weight": expected["param.projection.weight"],
            "codebook_proj.bias": expected["param.projection.bias"],
        },
    )
    tokenizer = load_pretrained(written({"model": state}))
    check_quantizer(tokenizer, expected["z"], expected["indices"], expected["codes"])


def test_ibq_and_lfq_tokenizers_equal_the_originals(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = of_codes("ibq")
    path = written({"model": simple_cnn(8, **{"codebook.weight": expected["param.codebook"]})})
    tokenizer = load_pretrained(path, quantizer="ibq")
    check_quantizer(tokenizer, expected["z"], expected["indices"], expected["codes"])
    assert "Nothing says" not in capsys.readouterr().out
    assert load_pretrained(path).settings["quantizer"] == "vq"  # and that is said
    assert "Nothing says how this codebook is searched: it is read as vq" in capsys.readouterr().out
    with pytest.raises(ValueError, match="quantizer of .* is vq or ibq, for it has a codebook.*but 'lfq' is said"):
        load_pretrained(path, quantizer="lfq")

    expected = of_codes("lfq")
    tokenizer = load_pretrained(written({"model": simple_cnn(8)}), quantizer="lfq")
    assert tokenizer.quantizer.codebook_size == 256
    check_quantizer(tokenizer, expected["z"], expected["indices"], expected["codes"])


def test_codes_that_are_normalised_for_the_distance_and_in_the_output(written: Callable[..., Path]) -> None:
    expected = of_codes("vq_l2_search")
    path = written({"model": simple_cnn(16, **{"codebook.weight": expected["param.codebook.weight"]})})
    tokenizer = load_pretrained(path, l2_norm=True)
    check_quantizer(tokenizer, expected["z"], expected["indices"], expected["codes"])


@pytest.mark.parametrize("levels", [[8, 8, 8], [8, 5, 5, 5], [8, 8, 8, 6, 5], [3, 4, 7]])
def test_an_fsq_tokenizer_equals_the_definition(levels: list[int], written: Callable[..., Path]) -> None:
    path = written({"model": simple_cnn(len(levels))})
    tokenizer = load_pretrained(path, levels=levels)
    z = torch.randn(2, len(levels), 4, 5) * 2
    codes, indices, place = torch.empty_like(z), torch.zeros(2, 4, 5, dtype=torch.int64), 1
    for channel, count in enumerate(levels):  # one at a time, the first the least significant digit
        half_range, offset = (count - 1) * 0.999 / 2, 0.5 * (count % 2 == 0)
        shift = torch.atanh(torch.tensor(offset / half_range))
        digits = ((z[:, channel] + shift).tanh() * half_range - offset).round().long()
        codes[:, channel] = digits / (count // 2)
        indices += (digits + count // 2) * place
        place *= count
    check_quantizer(tokenizer, z, indices, codes)
    assert tokenizer.quantizer.codebook_size == place


def test_a_file_without_a_codebook_is_not_guessed(written: Callable[..., Path]) -> None:
    path = written({"model": simple_cnn(3)})
    with pytest.raises(ValueError, match=r"no codebook.*quantizer='lfq', for 2\^3 codes; or the levels of fsq.*config"):
        load_pretrained(path)
    with pytest.raises(ValueError, match="levels are of 'fsq', but the quantizer is said to be 'lfq'"):
        load_pretrained(path, quantizer="lfq", levels=[8, 8, 8])
    for levels in ([8, 8], "888", 8):
        with pytest.raises(ValueError, match=r"levels is .* but must be 3 integers of 3 or more"):
            load_pretrained(path, levels=levels)
    with pytest.raises(ValueError, match="fsq needs integers of 3 or more"):
        load_pretrained(path, levels=[8, 8, 2])
    with pytest.raises(ValueError, match="is lfq or fsq, for it has no codebook, but 'ema' is said"):
        load_pretrained(path, quantizer="ema")
    with pytest.raises(ValueError, match="There is no quantizer 'lfk'; did you mean 'lfq'"):
        load_pretrained(path, quantizer="lfk")
    with pytest.raises(ValueError, match="quantizer of .* is vq, as all files of its format, but 'fsq' is said"):
        load_pretrained(written(golden("taming")[1]), levels=[8, 8, 8])


@pytest.mark.parametrize(
    ("target", "params", "dim", "expected"),
    [
        ("FiniteScalarQuantizer", "levels: [8, 5, 5, 5]", 4, ("fsq", False)),
        ("LookupFreeQuantizer", "dim: 9", 9, ("lfq", False)),
        ("VectorQuantizer", "l2_norm: true", 8, ("vq", True)),
        ("VectorQuantizer", "l2_norm: false", 8, ("vq", False)),
        ("IndexBackpropagationQuantizer", "use_entropy_reg: true", 8, ("ibq", False)),
    ],
)
def test_the_configuration_of_its_training_says_the_quantizer(
    target: str, params: str, dim: int, expected: tuple[str, bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment" / "ckpt" / "step0009999" / "model.pt"
    path.parent.mkdir(parents=True)
    codebook = (
        {} if target in ("FiniteScalarQuantizer", "LookupFreeQuantizer") else {"codebook.weight": torch.ones(4, dim)}
    )
    torch.save({"model": simple_cnn(dim, **codebook)}, path)
    config = f"seed: 8888\nquantizer:\n  target: models.quantizer.{target}\n  params:\n    {params}\n"
    (path.parents[2] / "config-2025-01-01.yaml").write_text(config)
    (path.parents[2] / "config-of-another-program.yaml").write_text("quantizer: [1, 2]")
    tokenizer = load_pretrained(path)
    assert (tokenizer.settings["quantizer"], getattr(tokenizer.quantizer, "l2_norm", False)) == expected
    assert "Nothing says" not in capsys.readouterr().out

    other = config.replace(target, "SimVQQuantizer")
    (path.parent / "config.yaml").write_text(other)
    with pytest.raises(ValueError, match="configurations beside .* differ in the quantizer"):
        load_pretrained(path)


def test_ema_codes_on_the_unit_sphere_are_refused(written: Callable[..., Path]) -> None:
    tensors = {"codebook.weight": torch.ones(4, 8), "ema_sumz": torch.ones(4, 8), "ema_sumn": torch.ones(4)}
    with pytest.raises(ValueError, match="'ema' has no option 'l2_norm'"):
        load_pretrained(written({"model": simple_cnn(8, **tensors)}), l2_norm=True)


# Wrapped modules, and containers within containers.

WRAPPED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "DDP": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
    "compiled DDP": lambda state: {"ema": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}},
    "DDP of compiled": lambda state: lightning({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}),
    "compiled parts": lambda state: {
        re.sub(r"^(encoder|decoder)\.", r"\1._orig_mod.", name): tensor for name, tensor in state.items()
    },
    "averaged": lambda state: {
        "model": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
        "model_ema": {"n_averaged": torch.tensor(7)} | {f"module.{name}": tensor for name, tensor in state.items()},
    },
    "part of a module": lambda state: lightning({f"model.vq.{name}": tensor for name, tensor in state.items()}),
    "nested": lambda state: {"checkpoint": {"net": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}},
    "deepspeed": lambda state: {"module": state, "global_steps": 3},
    "timm": lambda state: {"state_dict": {k: torch.zeros_like(v) for k, v in state.items()}, "state_dict_ema": state},
}


@pytest.mark.parametrize("format", ["llamagen", "visual-tokenizer-pytorch"])
@pytest.mark.parametrize("wrapping", WRAPPED)
def test_names_of_wrapped_models_are_read(format: str, wrapping: str, written: Callable[..., Path]) -> None:
    expected, state = golden(format)
    check_parity(load_pretrained(written(WRAPPED[wrapping](state)), format), expected, format)


def test_wrapped_names_in_safetensors_and_in_our_own_files(written: Callable[..., Path], tmp_path: Path) -> None:
    expected, state = golden("visual-tokenizer-pytorch")
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "weights.safetensors")
    tokenizer = load_pretrained(tmp_path / "weights.safetensors")
    check_parity(tokenizer, expected, "visual-tokenizer-pytorch")

    tokenizer.save(tmp_path / "saved")
    own = tokenizer.state_dict()
    save_file({f"_orig_mod.module.{name}": t for name, t in own.items()}, tmp_path / "saved" / "model.safetensors")
    for load in (load_pretrained, VisualTokenizer.load):
        check_parity(load(tmp_path / "saved"), expected, "visual-tokenizer-pytorch")
    both = {f"module.{name}": t.clone() for name, t in own.items()} | own
    save_file(both, tmp_path / "saved" / "model.safetensors")
    with pytest.raises(ValueError, match=r"has \S+ and module\.\S+, which name one tensor"):
        load_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="named as this package's own, but no config.json .*VisualTokenizer.save"):
        load_pretrained(written({"step": 3, "tokenizer": own}))


def test_several_tokenizers_in_a_file_are_not_guessed(written: Callable[..., Path]) -> None:
    expected, state = golden("visual-tokenizer-pytorch")
    others = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    path = written({"first": others, "second": state})
    with pytest.raises(ValueError, match="has no 'model' weights; Known: first, second"):
        load_pretrained(path)
    check_parity(load_pretrained(path, weights="second"), expected, "visual-tokenizer-pytorch")
    path = written({"model": state, "teacher": others})
    check_parity(load_pretrained(path), expected, "visual-tokenizer-pytorch")
    for own, other in (("llamagen", "visual-tokenizer-pytorch"), ("visual-tokenizer-pytorch", "open-magvit2")):
        path = written({"model": golden(own)[1], "teacher": golden(other)[1]})
        check_parity(load_pretrained(path), golden(own)[0], own)
        check_parity(load_pretrained(path, weights="teacher"), golden(other)[0], other)


def test_a_dict_that_contains_itself_has_an_end(written: Callable[..., Path]) -> None:
    expected, state = golden("visual-tokenizer-pytorch")
    content: dict[str, object] = {"model": state, "ema": state}
    content["again"] = content
    check_parity(load_pretrained(written(content)), expected, "visual-tokenizer-pytorch")


def test_what_is_of_no_format_is_compared_with_the_nearest(written: Callable[..., Path]) -> None:
    _, state = golden("taming")
    del state["encoder.down.0.block.0.conv1.weight"]
    with pytest.raises(
        ValueError,
        match=r"no known format\. Known: taming.* The nearest is 'taming'\. The tensor encoder\.down\.0\.block\.0",
    ):
        load_pretrained(written({"model": state}))
    _, state = golden("visual-tokenizer-pytorch")
    state["encoder.downblocks.1.weight"] = state.pop("encoder.downblocks.0.weight")
    missing = r"encoder\.downblocks\.0\.weight is missing; encoder\.downblocks\.1\.weight is not expected"
    with pytest.raises(ValueError, match=f"The nearest is 'visual-tokenizer-pytorch': {missing}"):
        load_pretrained(written({f"model.{name}": tensor for name, tensor in state.items()}))
    for number in range(9):
        state[f"encoder.downblocks.{number}.scale"] = torch.ones(1)
        del state[next(name for name in state if name.startswith("decoder."))]
    with pytest.raises(ValueError, match=r"(\S+ is missing; ){4}(\S+ is not expected[;,] ){4}and \d+ more"):
        load_pretrained(written(state))
    with pytest.raises(ValueError, match=r"Known: [\w, -]+\.$"):  # nothing in common
        load_pretrained(written({"layer.weight": torch.ones(2, 2)}))


def test_the_next_family_is_one_format(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected, state = golden("maskgit")
    renamed = {re.sub("^encoder", "analysis", re.sub("^decoder", "synthesis", n)): t for n, t in state.items()}
    path = written({"net": renamed | {"history": torch.ones(3)}})
    with pytest.raises(ValueError, match="named as in no known format"):
        load_pretrained(path)
    first_tensor = "analysis.down.0.block.0.conv1.weight"
    form = dataclasses.replace(
        FORMATS["maskgit"],
        names=(*FORMATS["maskgit"].names, ("^encoder", "analysis"), ("^decoder", "synthesis")),
        first_tensor=first_tensor,
        found_in=lambda names: first_tensor in names,
        ignored=("^history$",),
    )
    monkeypatch.setitem(FORMATS, "mirrored", form)
    check_parity(load_pretrained(path), expected, "maskgit")


def test_what_is_known_of_checkpoints_is_had_without_pytorch() -> None:
    program = "import sys, vistok.pretrained as p; p.reference_checkpoints(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert answer.stdout == "False\n"


def test_losses_of_the_original_vqgans(written: Callable[..., Path]) -> None:
    expected, state = golden("taming")
    losses = load_pretrained(written(state))(expected["x"]).losses
    total = losses["commitment"] + 0.25 * losses["codebook"]  # its documented "legacy" weights
    torch.testing.assert_close(total, expected["loss.quantizer_legacy"], atol=1e-6, rtol=1e-4)
    expected, state = golden("llamagen")
    losses = load_pretrained(written(state))(expected["x"]).losses
    torch.testing.assert_close(losses["codebook"], expected["loss.codebook"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(0.25 * losses["commitment"], expected["loss.commitment_weighted"], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_name_and_shape_of_the_official_files_is_accepted(
    manifest: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    format, num_codes, dim, factor = MANIFESTS[manifest]
    shapes = json.loads((GOLDEN / f"{manifest}.json").read_text())["tensors"]
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}  # one number a tensor
    tokenizer = load_pretrained(written({"state_dict": state}), device="meta")
    assert (tokenizer.quantizer.codebook_size, tokenizer.quantizer.codebook_dim) == (num_codes, dim)
    assert tokenizer.downsample_factor == factor and tokenizer.image_size == 256
    assert find_format(shapes) == format
    assert tokenizer.settings["quantizer_options"].get("l2_norm", False) == (format == "llamagen")

    name = next(iter(state))
    del state[name]
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + " is missing"):
        load_pretrained(written({"state_dict": state}), format, device="meta")


def test_the_average_can_be_declined_and_tells_ibq(written: Callable[..., Path]) -> None:
    expected, state = golden("ibq")
    path = written(with_average(state))
    check_parity(load_pretrained(path), expected, "ibq")
    raw = load_pretrained(path, weights="model")
    assert raw.settings["quantizer"] == "ibq" and not raw.quantizer.weight.any()
    with pytest.raises(ValueError, match="has no 'ema' weights; Known: model"):
        load_pretrained(written(state), "ibq", weights="ema")


def test_l2_norm_can_be_insisted_on(written: Callable[..., Path]) -> None:
    _, state = golden("llamagen")
    assert load_pretrained(written(state)).quantizer.l2_norm
    assert not load_pretrained(written(state), l2_norm=False).quantizer.l2_norm
    _, state = golden("visual-tokenizer-pytorch")
    quantizer = load_pretrained(written(state), l2_norm=True).quantizer
    assert quantizer.l2_norm and quantizer.l2_search_only  # trained on goes on as it was


def test_other_dtypes_and_shared_storages(written: Callable[..., Path]) -> None:
    expected, state = golden("taming")
    tokenizer = load_pretrained(written({name: tensor.double() for name, tensor in state.items()}))
    check_parity(tokenizer, expected, "taming")
    together = torch.cat([tensor.flatten() for tensor in state.values()])  # all tensors are views of one storage
    views = together.split([tensor.numel() for tensor in state.values()])
    state = {name: view.view(tensor.shape) for (name, tensor), view in zip(state.items(), views, strict=True)}
    state["quant_conv.weight"] = state["quant_conv.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    check_parity(load_pretrained(written(state)), expected, "taming")


def test_tensors_that_do_not_fit_are_listed_by_their_names_in_the_file(written: Callable[..., Path]) -> None:
    _, state = golden("taming")
    state["decoder.up.1.extra.weight"] = torch.ones(1)
    state["decoder.up.2.block.1.conv1.bias"] = torch.ones(7)
    del state["decoder.up.0.block.0.norm1.weight"]
    with pytest.raises(ValueError) as caught:
        load_pretrained(written(state))
    message = str(caught.value)
    assert "decoder.up.0.block.0.norm1.weight is missing" in message
    assert "decoder.up.1.extra.weight is not expected" in message
    assert "decoder.up.2.block.1.conv1.bias is [7], not [64]" in message
    assert "not those of the format 'taming'" in message


def test_a_format_can_be_insisted_on_but_must_fit(written: Callable[..., Path]) -> None:
    _, state = golden("llamagen")
    path = written(state)
    with pytest.raises(ValueError, match=r"The tensor encoder\.down\.0\.block\.0\.conv1\.weight is missing"):
        load_pretrained(path, "taming")
    with pytest.raises(ValueError, match="no checkpoint format 'lamagen'; did you mean 'llamagen'"):
        load_pretrained(path, "lamagen")
    with pytest.raises(ValueError, match="named as in no known format. Known: taming, llamagen"):
        load_pretrained(written({"layer.weight": torch.ones(2, 2)}))
    with pytest.raises(ValueError, match=r"encoder\.conv_in\.weight of .* is \[\]: no network has that"):
        load_pretrained(written(golden("taming")[1] | {"encoder.conv_in.weight": torch.ones(())}))


def test_files_that_are_no_checkpoints_are_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        load_pretrained(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match="There is no tokenizer in"):
        load_pretrained(tmp_path)
    for content in (b"", b"<!DOCTYPE html>", b"\x80\x04N.", b"PK\x03\x04 and so on", pickle.dumps({"a": 1})):
        (tmp_path / "page.pt").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            load_pretrained(tmp_path / "page.pt")
    with pytest.raises(ValueError, match="holds no tensors"):
        load_pretrained(written({"steps": 3, "state_dict": None}))
    VisualTokenizer(quantizer_options={"codebook_size": 2, "codebook_dim": 2}, image_size=16).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="leave them out"):
        load_pretrained(tmp_path / "saved", "taming")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(kind: str, written: Callable[..., Path], tmp_path: Path) -> None:
    _, state = golden("visual-tokenizer-pytorch")
    path = tmp_path / "weights.safetensors"
    if kind == "safetensors":
        save_file(state, path)
    else:
        path = written(state, legacy=kind == "legacy")
    content = path.read_bytes()
    for length in (len(content) - 1000, len(content) // 2, 60, 9):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read as a checkpoint .* its download may have broken off"):
            load_pretrained(path)


# Hostile files. Each `attack` is something whose unpickling would create the file `victim`.


class Call:
    """Unpickles by calling a function: the classic attack."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


class Stateful:
    """Unpickles by a state that is set on something else."""

    def __init__(self, target: object, state: object) -> None:
        self.target, self.state = target, state

    def __reduce__(self) -> tuple[object, ...]:
        return (Call, (self.target,), self.state)


def attacks(victim: Path) -> dict[str, object]:
    source = f"open({str(victim)!r}, 'w').write('owned')"
    inner = io.BytesIO()
    torch.save(Call(os.system, f"touch {victim}"), inner)
    return {
        "system": Call(os.system, f"touch {victim}"),
        "open": Call(open, str(victim), "w"),
        "eval": Call(eval, source),
        "exec": Call(exec, source),
        "nested": {"model": {"a": [({1: Call(eval, source)},)]}},
        "subprocess": Call(subprocess.Popen, ["touch", str(victim)]),
        "torch.load": Call(functools.partial(torch.load, weights_only=False), io.BytesIO(inner.getvalue())),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(eval, source))),
        "dict": collections.OrderedDict({"a": Call(eval, source)}),
        "default factory": Call(collections.defaultdict, eval),
        "key": {Call(eval, source): 1},
        "tensor's hooks": Call(torch._utils._rebuild_parameter, torch.ones(1), False, Call(eval, source)),
        "tensor of a call": Call(torch._utils._rebuild_tensor_v2, Call(eval, source), 0, (1,), (1,), False, {}),
        "type of a tensor": Call(torch._tensor._rebuild_from_type_v2, eval, Tensor, (source,), {}),
    }


ATTACKS = list(attacks(Path("/nowhere")))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_file_is_executed(attack: str, legacy: bool, written: Callable[..., Path], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    expected, state = golden("visual-tokenizer-pytorch")
    path = written({"state_dict": state, "callbacks": attacks(victim)[attack]}, legacy=legacy)
    check_parity(load_pretrained(path), expected, "visual-tokenizer-pytorch")  # the weights load, the rest is ignored
    assert not victim.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    for attack in ("system", "open", "eval", "exec", "nested", "pickle.loads", "dict", "key", "tensor's hooks"):
        victim = tmp_path / attack.replace(" ", "-")
        pickle.loads(pickle.dumps(attacks(victim)[attack]))
        assert victim.exists(), attack


def handmade(tmp_path: Path, body: bytes, legacy: bool) -> Path:
    """A file of PyTorch around a pickle that no pickler would write."""
    path = tmp_path / "handmade.pt"
    if legacy:
        start = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {})]
        path.write_bytes(b"".join(start) + body + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", body)
    return path


def string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickles_that_alter_what_they_may_name_do_nothing(legacy: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    evaluated = string(f"open({str(victim)!r}, 'w')")
    rebuild, ordered = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"
    storage = b"ctorch\nFloatStorage\n"
    bodies = {
        # GLOBAL function, then BUILD with a state and with a state of slots: attributes set on the function itself.
        "state": rebuild + b"}" + string("__code__") + b"cos\nsystem\nsb.",
        "slots": rebuild + b"N}" + string("__defaults__") + b"cos\nsystem\ns\x86b.",
        "slots of a class": ordered + b"N}" + string("__setitem__") + b"cbuiltins\neval\ns\x86b.",
        "slots of a dtype": storage + b"N}" + string("itemsize") + b"cbuiltins\neval\ns\x86b.",
        "call of a dtype": storage + b"(" + evaluated + b"tR.",
        # INST and OBJ name and call at once; STACK_GLOBAL walks dots.
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n("
        + (string("os") + b"tR" + string("system") + b"tR(" + string(f"touch {victim}") + b"tR."),
        "inst": b"(" + evaluated + b"ibuiltins\neval\n.",
        "obj": b"(cbuiltins\neval\n" + evaluated + b"o.",
        "dots": b"\x80\x04" + string("torch") + string("os.system") + b"\x93(" + evaluated + b"tR.",
        "dots of an allowed name": b"\x80\x04"
        + string("collections")
        + string("OrderedDict.__class__.__subclasses__")
        + b"\x93(" + evaluated + b"tR.",
        # Persistent identifiers: what torch.load looks the sources of modules up with.
        "module": b"(" + string("module") + b"cbuiltins\neval\n" + string("a") + string("b") + b"tQ.",
        "deep storage": b"(" + string("storage") + b"cbuiltins\neval\n" + string("0") + string("cpu") + b"K\x01tQ.",
        "extension": b"\x82\x01.",
        "memory": b"j\xff\xff\xff\x7f.",
    }  # fmt: skip
    for name, body in bodies.items():
        prefix = b"" if body.startswith(b"\x80") else b"\x80\x02"
        with pytest.raises(ValueError, match="cannot be read as a checkpoint|holds no tensors"):
            load_pretrained(handmade(tmp_path, prefix + body, legacy))
        assert not victim.exists(), name
    expected, state = golden("taming")  # and the next file loads as ever
    torch.save(state, tmp_path / "next.pt")
    check_parity(load_pretrained(tmp_path / "next.pt"), expected, "taming")


def test_a_tensor_cannot_leave_its_storage(tmp_path: Path) -> None:
    _, state = golden("visual-tokenizer-pytorch")
    name, tensor = next(iter(state.items()))
    for offset, stride in ((10**6, 1), (0, 10**6), (-1, 1), (0, -1)):
        content = {
            **state,
            name: Call(torch._utils._rebuild_tensor_v2, torch.ones(3).untyped_storage(), 0, (), (), False, {}),
        }
        layout = (torch.ones(3)._typed_storage(), offset, tuple(tensor.shape), (stride,) * tensor.ndim, False, {})
        content[name] = Call(torch._utils._rebuild_tensor_v2, *layout)
        torch.save({"model": content}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            load_pretrained(tmp_path / "a.pt")


def test_torchscript_archives_are_refused_unexecuted(tmp_path: Path) -> None:
    path = handmade(tmp_path, b"\x80\x02c__torch__\nModule\n)\x81}b.", legacy=False)
    with zipfile.ZipFile(path, "a") as archive:  # what torch.load takes a TorchScript archive by, and executes
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
    with pytest.raises(ValueError, match="holds no tensors"):
        load_pretrained(path)


@pytest.mark.parametrize("given", ["ema-d4", "runs/ema-d4-laptop-s0-754f964"])
def test_a_run_is_named_that_is_begun_or_misspelt(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path))
    run = tmp_path / "ema-d4-laptop-s0-754f9643"
    (run / "tokenizer").mkdir(parents=True)
    (tmp_path / "ema-d4-laptop-s1-0123abcd").mkdir()  # a record without weights
    with pytest.raises(FileNotFoundError, match=re.escape(f"Did you mean '{run}'?")):
        load_pretrained(given)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt\.$"):
        load_pretrained("nothing.pt")


def test_an_official_checkpoint_can_be_named(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    expected = official_file("llamagen-ds16")
    assert expected == tmp_path / "checkpoints/llamagen-ds16/vq_ds16_c2i.pt"
    with pytest.raises(
        FileNotFoundError, match=r"There is no checkpoint .*vq_ds16_c2i\.pt\. It is to be had from https://"
    ):
        load_pretrained("llamagen-ds16")
    with pytest.raises(ValueError, match="no official checkpoint 'llamagen-ds17'; did you mean 'llamagen-ds16'"):
        official_file("llamagen-ds17")
    expected.parent.mkdir(parents=True)
    written(golden("llamagen")[1]).rename(expected)
    assert load_pretrained("llamagen-ds16").quantizer.l2_norm


def test_the_table_of_official_checkpoints() -> None:
    table = reference_checkpoints()
    for name, entry in table.items():
        assert entry["format"] in FORMATS and entry["address"].startswith("https://"), name
        assert entry["reported"] and all(0 < r["rfid"] < 10 and r["by"] and r["convention"] for r in entry["reported"])
        assert all(0 < r.get("usage", 1) <= 1 for r in entry["reported"])
    by_file = {entry["file"]: entry for entry in table.values()}
    for manifest, (format, num_codes, _, factor) in MANIFESTS.items():
        file = json.loads((GOLDEN / f"{manifest}.json").read_text())["file"]
        assert by_file[file]["format"] == format and by_file[file]["downsample_factor"] == factor
        assert num_codes in [e["codebook_size"] for e in table.values() if e["file"] == file]
