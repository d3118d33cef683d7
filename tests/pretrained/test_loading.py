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
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN, know_toy, put_official
from safetensors.torch import load_file, save_file
from torch import Tensor

from vistok.config import TrainConfig
from vistok.losses import loss_weights
from vistok.networks import NETWORKS
from vistok.pretrained import (
    FORMATS,
    find_format,
    find_tokenizer,
    load_pretrained,
    official_file,
    reference_checkpoints,
)
from vistok.tokenizer import VisualTokenizer

MODELS = {
    "taming": "model_vqgan_taming",
    "llamagen": "model_vqgan_llamagen",
    "maskgit": "model_vqgan_maskgit",
    "maskbit": "model_maskbit_lfq",
    "vqgan-plus": "model_vqgan_plus_lookup",
    "ibq": "model_ibq",
    "open-magvit2": "model_open_magvit2",
    "var": "model_var",
    "visual-tokenizer-pytorch": "model_simple_cnn_vq",
}
FORMAT_OF = {"vqgan-plus": "maskbit"}  # where it has another name
UNIT_RANGE = ("maskgit", "maskbit", "vqgan-plus")  # their originals work on images in [0, 1]
SAID: dict[str, dict[str, object]] = {"var": {"levels": [1, 2, 3, 5, 8]}}  # what a toy's tensors do not tell
MANIFESTS = {
    "manifest_taming_f16_1024": ("taming", 1024, 256, 16),
    "manifest_taming_f16_16384": ("taming", 16384, 256, 16),
    "manifest_llamagen_vq16": ("llamagen", 16384, 8, 16),
    "manifest_llamagen_vq8": ("llamagen", 16384, 8, 8),
    "manifest_maskgit_vqgan": ("maskgit", 1024, 256, 16),
    "manifest_ibq_1024": ("ibq", 1024, 256, 16),
    "manifest_open_magvit2_18bit": ("open-magvit2", 2**18, 18, 16),
    "manifest_var": ("var", 4096, 32, 16),
    "manifest_maskbit_10bit": ("maskbit", 2**10, 10, 16),
    "manifest_maskbit_14bit": ("maskbit", 2**14, 14, 16),
    "manifest_maskbit_18bit": ("maskbit", 2**18, 18, 16),
}
every_format = pytest.mark.parametrize("format", MODELS)


def golden(format: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The original's outputs, and its state dict."""
    tensors = load_file(GOLDEN / f"{MODELS[format]}.safetensors")
    return tensors, {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}


def images_of(expected: dict[str, Tensor], format: str) -> Tensor:
    """The images that the original was given, in [-1, 1]."""
    return 2 * expected["x"] - 1 if format in UNIT_RANGE else expected["x"]


def levels_of(expected: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The indices of each level, int64 [B, h, w]: one that VAR's code gives in a row is square."""
    if "indices" in expected:
        return (expected["indices"],)
    rows = [expected[f"indices.{level}"] for level in range(sum(name.startswith("indices.") for name in expected))]
    return tuple(row.unflatten(1, (round(row.shape[1] ** 0.5), -1)) for row in rows)


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
    "parameters": lambda state: {"model": {k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in state.items()}},
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
    images, target = images_of(expected, format), expected["reconstruction"]
    target = 2 * target - 1 if format in UNIT_RANGE else target
    with torch.no_grad():
        output = tokenizer(images)
        for found, indices in zip(output.levels, levels_of(expected), strict=True):
            assert torch.equal(found, indices)
        torch.testing.assert_close(output.z, expected["z"], atol=1e-4, rtol=0)
        torch.testing.assert_close(output.codes, expected["codes"], atol=1e-5, rtol=0)
        clamped = target.clamp(-1, 1) if format in UNIT_RANGE else target
        clamps = format == "var"  # and so does its golden file, but not the network
        found = [output.reconstruction, tokenizer.train()(images).reconstruction]
        found = [image.clamp(-1, 1) for image in found] if clamps else found
        torch.testing.assert_close(found[0], clamped, atol=1e-4, rtol=0)
        torch.testing.assert_close(found[1], target, atol=1e-4, rtol=0)
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
    tokenizer = load_pretrained(path, insist, **SAID.get(format, {}))
    average = container in ("ema", "model_ema")
    name = FORMAT_OF.get(format, format)
    assert f"last.ckpt: {name}, {'ema' if average else 'model'} weights, K = " in capsys.readouterr().out
    assert not tokenizer.training
    check_parity(tokenizer, expected, format)

    tokenizer.save(tmp_path / "saved")
    for saved in (tmp_path / "saved", tmp_path / "saved" / "model.safetensors"):
        found = load_pretrained(saved).encode_levels(images_of(expected, format)[:1])
        assert all(torch.equal(a, b[:1]) for a, b in zip(found, levels_of(expected), strict=True))


@every_format
@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_other_kinds_of_files(format: str, kind: str, written: Callable[..., Path], tmp_path: Path) -> None:
    expected, state = golden(format)
    if kind == "legacy":
        path = written(lightning(state), legacy=True)
    else:
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    insist = "ibq" if format == "ibq" else None
    check_parity(load_pretrained(path, insist, **SAID.get(format, {})), expected, format)


@every_format
def test_a_training_can_begin_at_every_format(format: str, written: Callable[..., Path]) -> None:
    """What a configuration says of the model, with `init_from` and without, is the model of the file."""
    insist = "ibq" if format == "ibq" else None
    tokenizer = load_pretrained(written(golden(format)[1]), insist, **SAID.get(format, {}))
    config = TrainConfig(**tokenizer.config_settings())
    again = VisualTokenizer.from_config(TrainConfig.from_dict(json.loads(config.to_json())))
    again.load_weights(tokenizer.state_dict(), source="the file")
    assert again.quantizer.loss_names == tokenizer.quantizer.loss_names
    assert set(again.quantizer.loss_names) <= loss_weights(config, again.quantizer).keys()


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
    with pytest.raises(ValueError, match="levels are of 'fsq' or 'multiscale', but the quantizer is said to be 'lfq'"):
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


@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_of_this_package_s_own_without_its_configuration(network: str, written: Callable[..., Path]) -> None:
    codes = {"codebook_size": 4, "codebook_dim": 4}
    options = {"vit": {"num_heads": 2, "depth": 1}, "titok": {"num_heads": 2, "depth": 1}, "simple_cnn": {}}
    options = options.get(network, {"ch_mult": [1, 1], "num_res_blocks": 1}) | {"hidden_dim": 32}
    with torch.device("meta"):
        own = VisualTokenizer(network=network, network_options=options, quantizer_options=codes).state_dict()
    path = written({"tokenizer": {name: torch.zeros(tensor.shape) for name, tensor in own.items()}})
    with pytest.raises(ValueError, match="named as this package's own, but no config.json .*VisualTokenizer.save"):
        load_pretrained(path)
    (path.parent / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="own, but the config.json beside them is only read with .* model.safetensors"):
        load_pretrained(path)


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


def test_losses_of_var(written: Callable[..., Path]) -> None:
    expected, state = golden("var")
    tokenizer = load_pretrained(written(state), **SAID["var"]).train()
    losses = tokenizer(expected["x"]).losses
    total = losses["codebook"] + 0.25 * losses["commitment"]
    torch.testing.assert_close(total, expected["loss.vq"], atol=1e-6, rtol=1e-4)
    total.backward()  # codes, convolutions and encoder learn from it
    for part in (tokenizer.quantizer.members[0], tokenizer.quantizer.phis, tokenizer.encoder):
        assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_losses_of_maskbit_and_vqgan_plus(written: Callable[..., Path]) -> None:
    expected, state = golden("maskbit")
    losses = load_pretrained(written(state)).train()(images_of(expected, "maskbit")).losses
    torch.testing.assert_close(0.25 * losses["commitment"], expected["loss.commitment_loss"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(0.02 * losses["entropy"], expected["loss.entropy_loss"], atol=1e-5, rtol=0)
    total = 0.25 * losses["commitment"] + 0.02 * losses["entropy"]
    torch.testing.assert_close(total, expected["loss.quantizer_loss"], atol=1e-5, rtol=0)

    expected, state = golden("vqgan-plus")
    settings = load_pretrained(written(state)).settings
    with_entropy = {"quantizer_options": settings["quantizer_options"] | {"entropy_temperature": 0.01}}
    tokenizer = VisualTokenizer(**settings | with_entropy)
    tokenizer.load_state_dict(load_pretrained(written(state)).state_dict())
    losses = tokenizer.train()(images_of(expected, "vqgan-plus")).losses
    for name, weight in (("codebook", 1.0), ("commitment", 0.25), ("entropy", 0.02)):
        torch.testing.assert_close(weight * losses[name], expected[f"loss.{name}_loss"], atol=1e-5, rtol=0)


# What is of the newer families alone.


def test_every_scale_of_var_adds_what_the_original_adds(written: Callable[..., Path]) -> None:
    expected, state = golden("var")
    quantizer = load_pretrained(written(state), **SAID["var"]).quantizer
    codes = [quantizer.members[0].indices_to_codes(level) for level in levels_of(expected)]
    for level, found in enumerate(quantizer._sums(codes)):
        torch.testing.assert_close(found, expected[f"codes.{level}"], atol=1e-5, rtol=0)


def test_scales_that_var_does_not_tell_are_said(written: Callable[..., Path]) -> None:
    _, state = golden("var")
    path = written(state)
    for given in ({}, {"levels": [1, 8]}):
        with pytest.raises(
            ValueError, match=r"has 5 scales, but nothing .*give as many growing integers.*levels=\[1, 2, 3"
        ):
            load_pretrained(path, **given)
    with pytest.raises(ValueError, match=r"scales is \[8, 5, 3, 2, 1\], but must grow"):
        load_pretrained(path, levels=[8, 5, 3, 2, 1])
    with pytest.raises(
        ValueError, match="quantizer of .* is multiscale, as all files of its format, but 'fsq' is said"
    ):
        load_pretrained(path, quantizer="fsq", levels=[1, 2, 3, 5, 8])
    del state["quantize.ema_vocab_hit_SV"]  # as files are that somebody cleaned: the official scales
    assert load_pretrained(written(state)).quantizer.grids(16, 16)[1:3] == [(2, 2), (3, 3)]


def test_tensors_that_hold_several_of_ours_are_checked_whole(written: Callable[..., Path]) -> None:
    _, state = golden("var")
    name = "encoder.mid.attn_1.qkv.weight"
    whole = state.pop(name)
    with pytest.raises(ValueError, match=rf"format 'var': {re.escape(name)} is missing\.$"):
        load_pretrained(written(state), **SAID["var"])
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is \[64, 64, 1, 1\], not \[192, 64, 1, 1\]"):
        load_pretrained(written(state | {name: whole[:64]}), **SAID["var"])


def test_the_legacy_decoder_of_maskbit_counts_from_the_image(written: Callable[..., Path]) -> None:
    expected, state = golden("vqgan-plus")
    legacy = {re.sub(r"^decoder\.up\.(\d)", lambda m: f"decoder.up.{2 - int(m[1])}", n): t for n, t in state.items()}
    assert find_format(state) == "maskbit" and find_format(legacy) == "maskbit-legacy"
    check_parity(load_pretrained(written(legacy)), expected, "vqgan-plus")


def test_maskbit_says_its_quantizer_and_takes_codes_on_the_sphere(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(golden("vqgan-plus")[1])
    assert not load_pretrained(path).quantizer.l2_norm
    assert "Nothing says whether these codes are l2-normalised" in capsys.readouterr().out
    quantizer = load_pretrained(path, l2_norm=True).quantizer
    assert quantizer.l2_norm and not quantizer.l2_search_only and "Nothing says" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="quantizer of .* is vq, for it has a codebook, but 'lfq' is said"):
        load_pretrained(path, quantizer="lfq")
    assert load_pretrained(written(golden("maskbit")[1])).settings["quantizer"] == "lfq"
    assert "Nothing says" not in capsys.readouterr().out


def test_a_gumbel_tokenizer_takes_the_likeliest_code(written: Callable[..., Path]) -> None:
    expected, state = golden("taming")
    num_codes, dim = state.pop("quantize.embedding.weight").shape
    torch.manual_seed(0)
    codes, logits = torch.randn(num_codes, dim), torch.nn.Conv2d(dim, num_codes, 1).requires_grad_(False)
    of_gumbel = {
        "quantize.embed.weight": codes,
        "quantize.proj.weight": logits.weight,
        "quantize.proj.bias": logits.bias,
    }
    assert find_format(state | of_gumbel) == "taming-gumbel"
    tokenizer = load_pretrained(written(lightning(state | of_gumbel)))
    assert tokenizer.settings["quantizer"] == "gumbel"
    with torch.no_grad():
        output = tokenizer(expected["x"])
        torch.testing.assert_close(output.z, expected["z"], atol=1e-4, rtol=0)
        assert torch.equal(output.indices, logits(expected["z"]).argmax(1))
        torch.testing.assert_close(output.codes, F.embedding(output.indices, codes).permute(0, 3, 1, 2))


def test_a_simvq_tokenizer_with_averages_keeps_its_frozen_codes(written: Callable[..., Path]) -> None:
    expected, state = golden("open-magvit2")  # the same encoder
    of_codes_ = of_codes("simvq")
    state = {name: tensor for name, tensor in state.items() if "adaptive" not in name} | {
        "quantize.embedding.weight": of_codes_["param.codebook"],
        "quantize.embedding_proj.weight": of_codes_["param.projection.weight"],
        "quantize.embedding_proj.bias": of_codes_["param.projection.bias"],
    }
    content = with_average(state)
    content["state_dict"]["quantize.embedding.weight"] = of_codes_["param.codebook"]
    del content["state_dict"]["model_ema.quantizeembeddingweight"]  # what takes no gradient has no average
    tokenizer = load_pretrained(written(content))
    assert (tokenizer.settings["quantizer"], tokenizer.image_size) == ("simvq", 128)
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.encoder(expected["x"]), expected["z"], atol=1e-4, rtol=0)
        assert torch.equal(tokenizer.quantizer(of_codes_["z"]).indices, of_codes_["indices"])


VQGAN_OF_VTP = (  # names of visual-tokenizer-pytorch's VQGAN for those of the golden file: two levels, a block on each
    (r"\.mid\.block_1\.", ".bottleneck_block.0."),
    (r"\.mid\.attn_1\.", ".bottleneck_block.1."),
    (r"\.mid\.block_2\.", ".bottleneck_block.2."),
    (r"^quant_conv\.", "enc2code."),
    (r"^post_quant_conv\.", "code2dec."),
    (r"^quantize\.embedding\.", "quantizer.codebook."),
    (r"^encoder\.norm_out\.", "encoder.out_block.0."),
    (r"^encoder\.conv_out\.", "encoder.out_block.2."),
    (r"^decoder\.conv_in\.", "decoder.in_block."),
    (r"^decoder\.conv_out\.", "decoder.conv_out.2."),
    (r"^decoder\.norm_out\.", "decoder.conv_out.0."),
    (r"\.norm1\.", ".block.0."),
    (r"\.conv1\.", ".block.2."),
    (r"\.norm2\.", ".block.3."),
    (r"\.conv2\.", ".block.6."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".proj."),
)


def as_vtp_vqgan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """taming-transformers' tensors as visual-tokenizer-pytorch names them: the parts of a level are numbered."""
    levels = 1 + max(int(m[1]) for m in (re.match(r"encoder\.down\.(\d+)", name) for name in state) if m)
    renamed = {}
    for name, tensor in state.items():
        if m := re.match(r"(encoder|decoder)\.(down|up)\.(\d+)\.(block|attn|downsample|upsample)\.(\d+)?\.?(.*)", name):
            side, _, level, part, number, rest = m.groups()
            num_blocks = sum(bool(re.match(rf"{side}\.{m[2]}\.{level}\.block\.\d+\.conv1\.weight", n)) for n in state)
            lowest = int(level) == levels - 1
            each = 2 if lowest else 1
            place = num_blocks * each if number is None else each * int(number) + (part == "attn")
            level = int(level) if side == "encoder" else levels - 1 - int(level)
            name = f"{side}.{'down' if side == 'encoder' else 'up'}_blocks.{level}.{place}.{rest}"
        for pattern, replacement in VQGAN_OF_VTP:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def test_the_vqgan_of_visual_tokenizer_pytorch_is_taming_s_but_for_an_epsilon(written: Callable[..., Path]) -> None:
    expected, state = golden("taming")
    state = as_vtp_vqgan(state)
    assert "decoder.up_blocks.0.1.q.weight" in state and find_format(state) == "visual-tokenizer-pytorch-vqgan"
    tokenizer = load_pretrained(written({"model": state}))
    norms = {name: m.eps for name, m in tokenizer.named_modules() if isinstance(m, torch.nn.GroupNorm)}
    assert {eps for name, eps in norms.items() if "attention" in name} == {1e-5}
    assert {eps for name, eps in norms.items() if "attention" not in name} == {1e-6}
    assert tokenizer.image_size == 256
    for module in tokenizer.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6
    check_parity(tokenizer, expected, "taming")
    codes = {
        "codebook.weight": state["quantizer.codebook.weight"],
        "ema_sumz": torch.zeros(1),
        "ema_sumn": torch.zeros(1),
    }
    sizes = {"ema_sumz": codes["codebook.weight"] * 1, "ema_sumn": torch.ones(len(codes["codebook.weight"]))}
    state |= {f"quantizer.{name}": tensor for name, tensor in sizes.items()}
    assert load_pretrained(written({"model": state})).settings["quantizer"] == "ema"
    quantizer = load_pretrained(written({"model": as_vtp_vqgan(golden("taming")[1])}), l2_norm=True).quantizer
    assert quantizer.l2_norm and quantizer.l2_search_only


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_name_and_shape_of_the_official_files_is_accepted(
    manifest: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    format, num_codes, dim, factor = MANIFESTS[manifest]
    shapes = json.loads((GOLDEN / f"{manifest}.json").read_text())["tensors"]
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}  # one number a tensor
    tokenizer = load_pretrained(written({"state_dict": state}), device="meta")
    assert (tokenizer.quantizer.codebook_sizes[-1], tokenizer.quantizer.codebook_dim) == (num_codes, dim)
    assert len(tokenizer.quantizer.codebook_sizes) == (10 if format == "var" else 1)
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
    with pytest.raises(FileNotFoundError, match="There is no run, tokenizer or checkpoint"):
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


@every_format
def test_damaged_files_of_every_format_are_refused(format: str, written: Callable[..., Path]) -> None:
    _, state = golden(format)
    content = written(state).read_bytes()
    path = written(state)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_pretrained(path, **SAID.get(format, {}))
    name = next(name for name in state if name.startswith("decoder."))
    damaged = {n: t for n, t in state.items() if n != name} | {"decoder.extra": torch.ones(1)}
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is missing; decoder\.extra is not expected\.$"):
        load_pretrained(written(damaged), **SAID.get(format, {}))


def of_no_size(shape: tuple[int, ...]) -> object:
    """A tensor of a file that claims a shape which no file could hold."""
    layout = (torch.ones(1)._typed_storage(), 0, shape, (0,) * len(shape), False, {})
    return Call(torch._utils._rebuild_tensor_v2, *layout)


@pytest.mark.parametrize(
    ("format", "name", "shape", "sentence"),
    [
        ("maskbit", "encoder.conv_out.weight", (10**12, 64, 1, 1), "bits a token, but must be at most"),
        ("open-magvit2", "encoder.conv_out.weight", (10**12, 64, 1, 1), "bits a token, but must be at most"),
        ("vqgan-plus", "quantize.embedding.weight", (10**15, 16), "bits a token, but must be at most"),
        ("var", "quant_conv.weight", (8, 8, 2, 2), "code_kernel is 2, but must be odd"),
        ("var", "quant_conv.weight", (8, 8, 10**9 + 1, 10**9 + 1), "describes no tokenizer that can be built"),
        ("var", "quantize.ema_vocab_hit_SV", (10**12, 128), "has 1000000000000 scales, but nothing"),
    ],
)
def test_shapes_that_nobody_has_are_refused_at_once(
    format: str, name: str, shape: tuple[int, ...], sentence: str, written: Callable[..., Path]
) -> None:
    _, state = golden(format)
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(written(state | {name: of_no_size(shape)}), **SAID.get(format, {}))


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


@every_format
def test_nothing_in_a_file_of_any_format_is_executed(format: str, written: Callable[..., Path], tmp_path: Path) -> None:
    expected, state = golden(format)
    path = written({"state_dict": state, "callbacks": list(attacks(tmp_path / "victim").values())})
    insist = "ibq" if format == "ibq" else None
    check_parity(load_pretrained(path, insist, **SAID.get(format, {})), expected, format)
    assert not (tmp_path / "victim").exists()


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


def test_a_run_that_is_not_trained_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path))
    missing = tmp_path / "titok-32-stage1-smoke-photos-s77-d533c954"
    sentence = f"checkpoint {missing}. It would be a run of titok-32-stage1, with seed 77, and is not trained yet."
    with pytest.raises(FileNotFoundError, match=re.escape(sentence)):
        load_pretrained(missing)


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


def test_an_official_checkpoint_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    expected = official_file("llamagen-ds16")
    assert expected == tmp_path / "checkpoints/llamagen-ds16/vq_ds16_c2i.pt"

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    for given in ("llamagen-ds16", expected, "checkpoints/llamagen-ds16/vq_ds16_c2i.pt"):
        with pytest.raises(
            FileNotFoundError,
            match=r"no checkpoint .*vq_ds16_c2i\.pt, and it could not be downloaded \(no network in this test\)\. "
            r"It is to be had from https://\S+: put it there\.",
        ):
            load_pretrained(given)
    assert not expected.parent.exists()
    with pytest.raises(ValueError, match="no official checkpoint 'llamagen-ds17'; did you mean 'llamagen-ds16'"):
        official_file("llamagen-ds17")
    put_official(monkeypatch)
    assert load_pretrained("llamagen-ds16").quantizer.l2_norm


def test_another_checkpoint_has_not_the_name_of_an_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    file = put_official(monkeypatch)
    other = official_file("llamagen-ds8")
    other.parent.mkdir()
    file.rename(other)
    for given in ("llamagen-ds8", other):
        with pytest.raises(
            ValueError,
            match=r"another checkpoint than the 'llamagen-ds8' that belongs there: codebook_size is 128, not 16384, "
            r"downsample_factor is 4, not 8\. Put that one there, from https://\S+, and this one elsewhere\.",
        ):
            load_pretrained(given)
    other.rename(tmp_path / other.name)
    assert load_pretrained(other.name).downsample_factor == 4  # elsewhere it is what it is
    tokenizer, own = load_pretrained(other.name), official_file("titok-l32")
    tokenizer.save(own.parent)
    with pytest.raises(ValueError, match="codebook_size is 128, not 4096, .*num_tokens is None, not 32"):
        load_pretrained("titok-l32")
    file.parent.mkdir(exist_ok=True)
    torch.save(golden("taming")[1], file)
    with pytest.raises(ValueError, match="that belongs there: format is taming, not llamagen"):
        load_pretrained("llamagen-ds16")


def test_an_official_checkpoint_that_is_not_here_is_downloaded(
    written: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path / "repository")
    know_toy(monkeypatch)
    source, opened = written(golden("llamagen")[1]), []
    open_url = urllib.request.urlopen

    def served(url: str, timeout: float) -> object:
        opened.append(url)
        return open_url(source.as_uri(), timeout=timeout)

    monkeypatch.setattr("urllib.request.urlopen", served)
    check_parity(load_pretrained("llamagen-ds16"), golden("llamagen")[0], "llamagen")
    assert f"vq_ds16_c2i.pt is not here yet: downloading {opened[0]} to " in capsys.readouterr().out
    load_pretrained("llamagen-ds16")
    assert opened == [reference_checkpoints()["llamagen-ds16"]["address"]]  # once
    source = tmp_path / "page.html"
    source.write_text("<html>Sign in</html>")
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(what came is a web page\)"):
        load_pretrained("ibq-1024")


class FakeHub:
    """The Hub with one model, as far as it is asked."""

    def __init__(self, folder: Path, online: bool = True) -> None:
        self.folder, self.online, self.cached = folder, online, False

    def model_info(self, repository: str, timeout: float) -> types.SimpleNamespace:
        if not self.online or repository != "owner/name":
            raise OSError(f"404 Client Error: {repository}")
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")]
        return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(self, repository: str, local_files_only: bool = False, **_: object) -> str:
        if repository != "owner/name" or not (self.cached or (self.online and not local_files_only)):
            raise OSError("offline")
        self.cached = True
        return str(self.folder)  # without a network too, once it is there


def test_a_model_of_the_hub_is_had_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    hub = FakeHub(tmp_path / "cache")
    monkeypatch.setattr("vistok.system.hub.HfApi", lambda: hub)
    monkeypatch.setattr("vistok.system.hub.snapshot_download", hub.snapshot_download)
    hub.folder.mkdir()
    expected, state = golden("llamagen")
    (hub.folder / "config.json").write_text('{"model": {"vq_model": {}}}')  # of another project's mixin
    save_file(state, hub.folder / "model.safetensors")
    check_parity(load_pretrained("owner/name"), expected, "llamagen")
    hub.online = False  # the cache has it
    check_parity(load_pretrained("owner/name"), expected, "llamagen")
    with pytest.raises(
        FileNotFoundError, match=r"checkpoint someone/else here, and .*Hub \(404 Client Error: someone/else"
    ):
        load_pretrained("someone/else")

    hub.online = True
    load_pretrained(hub.folder / "model.safetensors").save(hub.folder)  # as one of this package
    check_parity(load_pretrained("owner/name"), expected, "llamagen")
    for name in ("model.safetensors", "config.json"):
        (hub.folder / name).unlink()
    with pytest.raises(ValueError, match="Of weights files owner/name has none"):
        load_pretrained("owner/name")
    torch.save(state, hub.folder / "a.pt")
    check_parity(load_pretrained("owner/name"), expected, "llamagen")
    (hub.folder / "more").mkdir()
    torch.save(golden("taming")[1], hub.folder / "more" / "b.ckpt")
    with pytest.raises(
        ValueError, match=r"owner/name has several: a\.pt, more/b\.ckpt\. Give one, as 'owner/name/a\.pt'"
    ):
        load_pretrained("owner/name")
    check_parity(load_pretrained("owner/name/more/b.ckpt"), golden("taming")[0], "taming")
    with pytest.raises(FileNotFoundError, match=r"Hub has no c\.pt in owner/name"):
        load_pretrained("owner/name/c.pt")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("checkpoints/llamagen-ds16", "llamagen-ds16"),
        ("owner/name@main", "owner/name"),
        ("owner/name/a.pt@main", "owner/name/a.pt"),
        ("celeba64/ema-d4", "ema-d4-laptop-s0-754f9643"),
        ("runs/ema-d4-laptop-s0-754f9643/checkpoint", "ema-d4-laptop-s0-754f9643"),
    ],
)
def test_what_is_nearest_to_a_name_is_said(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    for folder in ("tokenizer", "checkpoint"):
        (tmp_path / "runs/ema-d4-laptop-s0-754f9643" / folder).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=rf"Did you mean '(/\S*/)?{re.escape(meant)}'\?$"):
        load_pretrained(given)


@pytest.mark.parametrize(
    "given",
    ["llamagen-ds17", "runs/nothing-like-it", "folder/last.ckpt", "./a/b", "../a/b", "celeba64/vq-d8", "a/b@main"],
)
def test_what_is_no_name_of_the_hub_asks_no_network(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.system.hub.HfApi", lambda: pytest.fail("the Hub was asked"))
    with pytest.raises(FileNotFoundError, match="There is no run, tokenizer or checkpoint") as failed:
        load_pretrained(given)
    assert given != "llamagen-ds17" or str(failed.value).endswith("Did you mean 'llamagen-ds16'?")


def test_whether_codes_are_normalised_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="l2_norm is 'no' .str., but must be of type bool or None"):
        load_pretrained("llamagen-ds16", l2_norm="no")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/tree/main/", "owner/name"),
        ("https://huggingface.co/owner/a.b/blob/main/more/b.ckpt?download=true", "owner/a.b/more/b.ckpt"),
    ],
)
def test_an_address_of_the_hub_is_answered_with_its_name(address: str, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"Did you mean {name!r}?")):
        find_tokenizer(address)


def test_what_lies_in_the_working_directory_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path / "repository")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "tokenizer").mkdir(parents=True)
    (tmp_path / "last.ckpt").touch()
    for given in ("last.ckpt", "some/tokenizer"):  # the second would be a name of the Hub
        with pytest.raises(FileNotFoundError, match=f"counts from the repository: did you mean '{tmp_path / given}'"):
            find_tokenizer(given)


def test_where_results_of_a_tokenizer_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    assert find_tokenizer("llamagen-ds16").results == tmp_path / "checkpoints/llamagen-ds16"
    of_hub = find_tokenizer("owner/name")
    assert (of_hub.path, of_hub.results) == (None, tmp_path / "checkpoints/owner/name")
    (tmp_path / "last.ckpt").touch()
    assert find_tokenizer("last.ckpt")[2:] == (tmp_path, "last.")
    assert find_tokenizer(tmp_path)[2:] == (tmp_path, "")


def test_the_table_of_official_checkpoints() -> None:
    table = reference_checkpoints()
    for name, entry in table.items():
        assert entry["format"] in FORMATS and entry["address"].startswith("https://"), name
        assert entry["paper"].startswith("arXiv:") and entry["licence"], name
        unit_range = FORMATS[entry["format"]].network in ("maskgit", "titok")
        assert entry["images"].startswith("[0, 1]" if unit_range else "[-1, 1]"), name
        assert entry["reported"] and all(0 < r["rfid"] < 10 and r["by"] and r["convention"] for r in entry["reported"])
        assert all(0 < r.get("usage", 1) <= 1 for r in entry["reported"])
    known = {(e["file"], e["format"], e["codebook_size"], e["downsample_factor"]) for e in table.values()}
    for manifest, (format, num_codes, _, factor) in MANIFESTS.items():
        file = json.loads((GOLDEN / f"{manifest}.json").read_text())["file"]
        assert (file, format, num_codes, factor) in known
