"""Official checkpoints into a `VisualTokenizer`: the format is found from the file, and nothing in the file is executed.

| format | projects and files | network | quantizer | images in the original |
|---|---|---|---|---|
| `taming` | taming-transformers (arXiv:2012.09841), `last.ckpt` | vqgan | vq | [-1, 1] |
| `llamagen` | LlamaGen (arXiv:2406.06525), `vq_ds16_c2i.pt`, `vq_ds8_c2i.pt` | vqgan | vq, l2 | [-1, 1] |
| `ibq` | IBQ of SEED-Voken (arXiv:2412.02692), `imagenet256_16384.ckpt` | vqgan | ibq | [-1, 1] |
| `maskgit` | MaskGIT-VQGAN of 1d-tokenizer (arXiv:2202.04200) | maskgit | vq | [0, 1] |
| `open-magvit2` | Open-MAGVIT2 of SEED-Voken (arXiv:2409.04410), `imagenet_256_L.ckpt` | magvit2 | lfq | [-1, 1] |
| `visual-tokenizer-pytorch` | that project's SimpleCNN, `model.pt` | simple_cnn | vq, ema, simvq, ibq, fsq, lfq | [-1, 1] |

A `VisualTokenizer` takes and gives images in [-1, 1] whatever the original does: the network `maskgit` maps between the two.

Names are taken as they are outside of containers ({"model": ...}) and wrappers (DistributedDataParallel, torch.compile, ...).

What visual-tokenizer-pytorch stores does not always tell the quantizer: `vq`, with l2-normalised codes or without, and `ibq`
have a codebook and nothing else, `fsq` and `lfq` have nothing at all. Then the configuration of its training says it,
`config-<time>.yaml` beside the checkpoint or where that project writes it, or whoever calls. Its l2 codes are normalised for
the distance and in the output, as those of `vq` with `l2_norm` are here: tokens and images are the same, but the losses here
are of a normalised z. An index of `lfq` has channel i as bit i, one of `fsq` the first channel as its least significant digit.
"""

import contextlib
import dataclasses
import os
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vistok.pretrained.reading import open_checkpoint, unreadable_as_value_error
from vistok.pretrained.unpickling import LazyTensor
from vistok.quantizers import QUANTIZERS
from vistok.system.devices import usable_device
from vistok.system.files import say, shown
from vistok.system.paths import PACKAGE, resolve_path, runs_root
from vistok.system.weights import first_line, unwrapped
from vistok.system.words import misspelt, nearest
from vistok.tokenizer import VisualTokenizer, floating_dtype

# ----------------------------------------------------------------------------------------------------------------------
# Formats: the names of tensors.


@dataclasses.dataclass(frozen=True)
class Format:
    """How a project names the tensors of a tokenizer.

    Attributes:
        network: a key of `networks.NETWORKS`.
        quantizer: a key of `quantizers.QUANTIZERS`.
        names: patterns of our names and what stands for them in the file, applied one after the other.
        decoder_from_image: whether the file counts the decoder's levels from the image on; ours counts from the codes on.
        l2_norm: whether codes and encoder outputs are on the unit sphere, which no tensor tells.
        image_size: pixels, of its training.
        several: whether `quantizer` is one of several that its files may have, all those of visual-tokenizer-pytorch.
    """

    network: str
    quantizer: str
    names: tuple[tuple[str, str], ...]
    decoder_from_image: bool = False
    l2_norm: bool = False
    image_size: int = 256
    several: bool = False

    def file_name(self, name: str, num_levels: int) -> str:
        """Return what the file calls our tensor `name`, in a network of `num_levels` levels."""
        if self.decoder_from_image:
            name = re.sub(r"(?<=^decoder\.)(levels|norms)\.(\d+)", lambda m: _mirrored(m, num_levels), name)
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        return name


def _mirrored(match: re.Match[str], num_levels: int) -> str:
    return f"{match[1]}.{num_levels - 1 - int(match[2])}"


_QUANT_CONVS = (
    (r"^quantizer\.weight$", "quantize.embedding.weight"),
    (r"^encoder\.to_codes\.", "quant_conv."),
    (r"^decoder\.from_codes\.", "post_quant_conv."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
_LEVELS = (
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.(down|up)\.(\d+)\.block_(\d+)\.", r".\1.\2.block.\3."),
)
_TAMING = (
    *_QUANT_CONVS,
    *_LEVELS,
    (r"\.mid\.block_1\.", ".mid.block_2."),
    (r"\.mid\.block_0\.", ".mid.block_1."),
    (r"\.mid\.attention_0\.", ".mid.attn_1."),
    (r"\.attention_(\d+)\.", r".attn.\1."),
)
_LLAMAGEN = (
    *_QUANT_CONVS,
    (r"\.mid\.block_1\.", ".mid.2."),
    (r"\.mid\.attention_0\.", ".mid.1."),
    (r"\.mid\.block_0\.", ".mid.0."),
    (r"\.levels\.", ".conv_blocks."),
    (r"\.block_(\d+)\.", r".res.\1."),
    (r"\.attention_(\d+)\.", r".attn.\1."),
)
_NO_QUANT_CONVS = (
    (r"^quantizer\.weight$", "quantize.embedding.weight"),
    (r"^encoder\.to_codes\.", "encoder.conv_out."),
    (r"^decoder\.from_codes\.", "decoder.conv_in."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
_MASKGIT = (
    *_NO_QUANT_CONVS,
    *_LEVELS,
    (r"\.mid\.block_(\d+)\.", r".mid.\1."),
    (r"\.upsample\.conv\.", ".upsample_conv."),
)
_MAGVIT2 = (
    *_NO_QUANT_CONVS,
    *_LEVELS,
    (r"\.mid\.block_(\d+)\.", r".mid_block.\1."),
    (r"\.upsample\.conv\.", ".upsample.conv1."),
    (r"^decoder\.norms\.", "decoder.adaptive."),
)
_SIMPLE_CNN = (
    (r"^quantizer\.weight$", "quantizer.codebook.weight"),
    (r"^quantizer\.projection\.", "quantizer.codebook_proj."),
    (r"^quantizer\.ema_sum$", "quantizer.ema_sumz"),
    (r"^quantizer\.ema_count$", "quantizer.ema_sumn"),
    (r"^encoder\.to_codes\.", "enc2code."),
    (r"^decoder\.from_codes\.", "code2dec."),
    (r"^encoder\.down\.", "encoder.downblocks."),
    (r"^decoder\.up\.", "decoder.upblocks."),
    (r"\.res_blocks\.(\d+)\.conv1\.", r".resblocks.\1.blocks.1."),
    (r"\.res_blocks\.(\d+)\.conv2\.", r".resblocks.\1.blocks.3."),
)
FORMATS = {
    "taming": Format("vqgan", "vq", _TAMING, decoder_from_image=True),
    "llamagen": Format("vqgan", "vq", _LLAMAGEN, l2_norm=True),
    "ibq": Format("vqgan", "ibq", _TAMING, decoder_from_image=True),
    "maskgit": Format("maskgit", "vq", _MASKGIT, decoder_from_image=True),
    "open-magvit2": Format("magvit2", "lfq", _MAGVIT2, decoder_from_image=True),
    "visual-tokenizer-pytorch": Format("simple_cnn", "vq", _SIMPLE_CNN, image_size=64, several=True),
}

# One of these is in every file of a known format, and in none twice; what stands before it stands before all of its tensors.
_FIRST_TENSORS = (
    "encoder.conv_blocks.0.res.0.conv1.weight",
    "encoder.down.0.block.0.conv1.weight",
    "encoder.downblocks.0.weight",
)
_OF_THIS_PACKAGE = ".encoder.to_codes.weight"

# Losses with their networks (LPIPS, discriminator), moving averages (chosen before), and a buffer of LlamaGen's usage.
_NOT_OF_THE_TOKENIZER = re.compile(r"^(loss|model_ema)\.|^quantize\.codebook_used$")


def find_format(names: Collection[str]) -> str | None:
    """Return the format of a file with tensors of these names; None where it is none of `FORMATS`.

    taming-transformers and IBQ share all names. IBQ is what has moving averages or four residual blocks a level, as all
    its published tokenizers have and none of taming-transformers'.
    """
    if "encoder.conv_blocks.0.res.0.conv1.weight" in names:
        return "llamagen"
    if "decoder.adaptive.0.gamma.weight" in names:
        return "open-magvit2"
    if "enc2code.weight" in names and "encoder.downblocks.0.weight" in names:
        return "visual-tokenizer-pytorch"
    if "encoder.down.0.block.0.conv1.weight" not in names:
        return None
    if "encoder.mid.0.conv1.weight" in names:
        return "maskgit"
    of_ibq = "encoder.down.0.block.3.conv1.weight" in names or any(name.startswith("model_ema.") for name in names)
    return "ibq" if of_ibq else "taming"


# ----------------------------------------------------------------------------------------------------------------------
# Loading.


def load_pretrained(
    path: str | Path,
    format: str | None = None,
    *,
    weights: str | None = None,
    l2_norm: bool | None = None,
    quantizer: str | None = None,
    levels: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> VisualTokenizer:
    """Load an official checkpoint, or a tokenizer of this package; executes nothing in it, prints what it found.

    Args:
        path: a checkpoint (.pt, .ckpt, .bin, .pth or .safetensors), or a run directory, a directory written by
            `VisualTokenizer.save`, or the `model.safetensors` in it; or the name of an official checkpoint whose file is
            where `official_file` expects it.
        format: a key of `FORMATS`, to insist; None: found from the tensors' names.
        weights: "model", or "ema", the moving average, or another name that the file has for some; None: the average where the
            file has one.
        l2_norm: whether codes and encoder outputs are on the unit sphere; None: as the configuration beside the file says, or
            else as the format's official files.
        quantizer: a key of `QUANTIZERS`, where the tensors do not tell (visual-tokenizer-pytorch); None: as that
            configuration says, or else `vq` where there is a codebook.
        levels: of `fsq`, an integer for each channel; None: as that configuration says.
        device, dtype: as of `VisualTokenizer.load`.

    Returns:
        the tokenizer, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, or broken, or of no known format (the sentence names the nearest), or tensors
            are missing, unexpected or of another shape (named as in the file), or it has no such weights, or what it is of
            must be said.
    """
    device, dtype = usable_device(device), floating_dtype(dtype)
    if format is not None and format not in FORMATS:
        raise ValueError(f"There is no checkpoint format {format!r}; {nearest(format, FORMATS)}")
    path = checkpoint_path(path)
    if path.is_dir() or (path.name == "model.safetensors" and (path.parent / "config.json").is_file()):
        if any(given is not None for given in (format, weights, l2_norm, quantizer, levels)):
            raise ValueError(
                f"{path} is a tokenizer of this package: format, weights, l2_norm, quantizer and levels are in it; leave "
                "them out."
            )
        return VisualTokenizer.load(path if path.is_dir() else path.parent, device, dtype)

    with contextlib.ExitStack() as files:
        with unreadable_as_value_error(path):
            content = open_checkpoint(path, files)
        available = _state_dicts(content, path)
        tensors, chosen = _choose_weights(available, weights, path)
        name = format or find_format(set().union(*available.values()))
        if name is None:
            raise ValueError(_of_no_format(tensors, path))
        said = _said(FORMATS[name], path, quantizer=quantizer, levels=levels, l2_norm=l2_norm)
        settings = _settings(FORMATS[name], tensors, said, path)
        try:
            expected = _expected(FORMATS[name], settings)
        except (RuntimeError, OverflowError) as error:  # sizes beyond what any tensor has
            raise ValueError(f"{path} describes no tokenizer that can be built: {first_line(error)}.") from error
        if wrong := _misfits(tensors, dict(expected.values())):
            raise ValueError(f"The tensors of {path} are not those of the format {name!r}: {wrong}.")
        with torch.device(device):
            tokenizer = VisualTokenizer(**settings)
        own = tokenizer.state_dict()
        with unreadable_as_value_error(path), torch.no_grad():
            for ours, target in own.items():
                target.copy_(tensors[expected[ours][0]].read())
    say(
        f"{path.name}: {name}, {chosen} weights, K = {tokenizer.quantizer.codebook_size}, "
        f"D = {tokenizer.quantizer.codebook_dim}, downsample factor {tokenizer.downsample_factor}, quantizer "
        f"{settings['quantizer']}."
    )
    if FORMATS[name].several and settings["quantizer"] == "vq" and not said:
        say(
            "Nothing says how this codebook is searched: it is read as vq, by distance. Give l2_norm=True where its codes are "
            "l2-normalised, quantizer='ibq' where the largest dot product counts, or keep its config-<time>.yaml beside it."
        )
    return tokenizer.to(dtype).eval() if dtype else tokenizer.eval()


def reference_checkpoints() -> dict[str, dict[str, Any]]:
    """Return what is known of the official checkpoints, by name: file, address, and the numbers reported for them.

    Every number is beside the project that reported it and the convention it used; see `official.toml`.
    """
    return tomllib.loads((PACKAGE / "pretrained" / "official.toml").read_text(encoding="utf-8"))


def checkpoint_path(given: str | Path) -> Path:
    """Return where a checkpoint lies that is given by its place or, an official one, by its name.

    Raises:
        FileNotFoundError: there is nothing; of an official one the sentence says where it is to be had.
    """
    official = reference_checkpoints()
    path = official_file(str(given)) if str(given) in official else resolve_path(given)
    if not path.exists():
        found = [known for name, known in official.items() if official_file(name) == path]
        where = f" It is to be had from {found[0]['address']}." if found else ""
        meant = misspelt(given, official) or _run_meant(path)
        where += f" Did you mean {meant!r}?" if meant and not found else ""
        raise FileNotFoundError(f"There is no checkpoint {path}.{where}")
    return path


def _run_meant(path: Path) -> str | None:
    """Return the run that has a tokenizer and whose name this path misspells or begins."""
    runs = {tokenizer.parent.name: str(tokenizer.parent) for tokenizer in runs_root().glob("*/tokenizer")}
    name = misspelt(path.name, runs)
    return None if name is None else runs[name]


def official_file(name: str) -> Path:
    """Return where the file of an official checkpoint is expected: `checkpoints/<name>/<file>` of the repository.

    Raises:
        ValueError: there is no official checkpoint of that name.
    """
    known = reference_checkpoints()
    if name not in known:
        raise ValueError(f"There is no official checkpoint {name!r}; {nearest(name, known)}")
    return resolve_path(f"checkpoints/{name}/{known[name]['file']}")


def _choose_weights(
    available: dict[str, dict[str, LazyTensor]], weights: str | None, path: Path
) -> tuple[dict[str, LazyTensor], str]:
    """The wanted tensors of a checkpoint, and whose they are: the moving average's where there is one and none is asked for."""
    if not available:
        raise ValueError(f"{path} holds no tensors that could be a tokenizer's.")
    chosen = weights or ("ema" if "ema" in available else "model")
    if chosen not in available:
        raise ValueError(f"{path} has no {chosen!r} weights; {nearest(chosen, available)}")
    return available[chosen], chosen


# What stands before the tensors of a tokenizer, such as "state_dict." or "ema.", is called a root here.
_AVERAGE = re.compile(r"(^|[._])(ema|averaged?)[._]")  # in the root of a moving average
_PLAIN_ROOTS = ("state_dict.", "model.", "", "ema.")  # of the weights that count, where there are several
_MOST_VISITS = 4  # of one dict: the same weights under two names, but no dict that contains itself without end
_MOST_NESTING = 16  # dots in the keys that lead to a dict


def _state_dicts(content: object, path: Path) -> dict[str, dict[str, LazyTensor]]:
    """The state dicts of tokenizers in a checkpoint: of the model, and of its moving average; others by their roots."""
    tensors = unwrapped(_flat(content), path)
    roots = sorted(_roots(tensors)) or [_common_root(tensors)]
    available = {}
    for name, root in _called(roots).items():
        inner = tuple(other for other in roots if other != root and other.startswith(root))
        own = {n.removeprefix(root): t for n, t in tensors.items() if n.startswith(root) and not n.startswith(inner)}
        available[name] = own
    if "model" in available and "ema" not in available:  # Lightning's: as model_ema.<name without its dots>
        model = available["model"]
        flat = {name: f"model_ema.{name.replace('.', '')}" for name in model}
        available["ema"] = {name: model[flat[name]] for name in model if flat[name] in model}
    return {name: found for name, found in available.items() if found}


def _flat(content: object) -> dict[str, LazyTensor]:
    """Every tensor in a dict and the dicts in it, by the keys that lead to it."""
    found: dict[str, LazyTensor] = {}
    waiting = [("", content)] if isinstance(content, dict) else []
    visits: Counter[int] = Counter()
    for prefix, container in waiting:  # it grows meanwhile
        visits[id(container)] += 1
        for key, value in container.items() if visits[id(container)] <= _MOST_VISITS else ():
            if isinstance(key, str) and isinstance(value, LazyTensor):
                found[prefix + key] = value
            elif isinstance(key, str) and isinstance(value, dict) and prefix.count(".") < _MOST_NESTING:
                waiting.append((f"{prefix}{key}.", value))
    return found


def _roots(names: Collection[str]) -> set[str]:
    """What stands before the tensors of known formats."""
    return {n.removesuffix(t) for t in _FIRST_TENSORS for n in names if n == t or n.endswith(f".{t}")}


def _common_root(names: Collection[str]) -> str:
    """What all names begin with, up to a dot."""
    common = os.path.commonprefix([min(names), max(names)]) if names else ""
    return common[: common.rfind(".") + 1]


def _called(roots: list[str]) -> dict[str, str]:
    """The roots by what their tensors are called: "ema" and "model" where it is plain which these are, else as they are."""
    called = {}
    for kind, of_average in (("ema", True), ("model", False)):
        group = [root for root in roots if bool(_AVERAGE.search(root)) == of_average]
        plain = group if len(group) == 1 else [root for root in _PLAIN_ROOTS if root in group]
        called |= {root.rstrip("."): root for root in group if root not in plain[:1]}
        if plain:
            called[kind] = plain[0]
    return called


def _said(form: Format, path: Path, **given: Any) -> dict[str, Any]:
    """What is said of a quantizer beside its tensors, as `quantizer`, `levels` and `l2_norm`: by the caller, or by a file."""
    given = {name: value for name, value in given.items() if value is not None}
    if (name := given.get("quantizer", form.quantizer)) not in QUANTIZERS:
        raise ValueError(f"There is no quantizer {name!r}; {nearest(name, QUANTIZERS)}")
    if "levels" in given and given.setdefault("quantizer", "fsq") != "fsq":
        raise ValueError(f"levels are of 'fsq', but the quantizer is said to be {name!r}: give one of them.")
    return given if "quantizer" in given or not form.several else _said_beside(path) | given


# Classes of visual-tokenizer-pytorch, an older one among them.
_ITS_QUANTIZERS = {
    "VectorQuantizer": "vq",
    "VectorQuantizerEMA": "ema",
    "SimVQQuantizer": "simvq",
    "IndexBackpropagationQuantizer": "ibq",
    "FiniteScalarQuantizer": "fsq",
    "LookupFreeQuantizer": "lfq",
}


def _said_beside(path: Path) -> dict[str, Any]:
    """What visual-tokenizer-pytorch's configuration says, in its checkpoint's folder or two above, where it writes it."""
    found = []
    for folder in (path.parent, *path.parents[2:3]):
        for file in sorted(folder.glob("config*.yaml")):
            try:
                quantizer = yaml.safe_load(file.read_bytes())["quantizer"]
                name = _ITS_QUANTIZERS[quantizer["target"].rpartition(".")[2]]
                options = dict(quantizer.get("params") or {})
            except (yaml.YAMLError, OSError, RecursionError, ValueError, TypeError, KeyError, AttributeError):
                continue  # of another program
            name = "ema" if options.get("use_ema_update") else name
            found.append({"quantizer": name} | {key: options[key] for key in ("levels", "l2_norm") if options.get(key)})
    if any(one != found[0] for one in found):
        raise ValueError(
            f"The configurations beside {path} differ in the quantizer: {' and '.join(map(shown, found))}. Say which it is: "
            "quantizer, levels, l2_norm."
        )
    return found[0] if found else {}


def _settings(form: Format, tensors: dict[str, LazyTensor], said: dict[str, Any], path: Path) -> dict[str, Any]:
    """The arguments of `VisualTokenizer`, read off the tensors' shapes, and what is said of the quantizer."""

    def shape(ours: str) -> tuple[int, ...]:
        # Of these names none depends on the number of levels.
        if (name := form.file_name(ours, 0)) not in tensors:
            raise ValueError(f"The tensor {name} is missing in {path}: it tells the size of the network.")
        if len(dims := tensors[name].shape) < 2 or 0 in dims:
            raise ValueError(f"The tensor {name} of {path} is {list(dims)}: no network has that.")
        return dims

    def count(ours: str) -> int:
        shape(ours.format(0))
        i = 1
        while form.file_name(ours.format(i), 0) in tensors:
            i += 1
        return i

    network: dict[str, Any]
    if form.network == "simple_cnn":
        network = {
            "hidden_dim": shape("encoder.to_codes.weight")[1],
            "num_res_blocks": count("encoder.res_blocks.{}.conv1.weight"),
        }
    else:
        width = shape("encoder.conv_in.weight")[0]
        levels = range(count("encoder.levels.{}.block_0.conv1.weight"))
        network = {
            "hidden_dim": width,
            "num_res_blocks": count("encoder.levels.0.block_{}.conv1.weight"),
            "ch_mult": [shape(f"encoder.levels.{i}.block_0.conv1.weight")[0] // width for i in levels],
        }
    if form.network == "vqgan":
        network["z_channels"] = shape("encoder.conv_out.weight")[0]
    num_channels = shape("encoder.to_codes.weight")[0]
    name = _quantizer(form, tensors, said, num_channels, path)
    quantizer: dict[str, Any] = {"codebook_dim": num_channels}
    if name == "fsq":
        quantizer["levels"] = _checked_levels(said.get("levels"), num_channels, path)
    else:
        quantizer["codebook_size"] = 2**num_channels if name == "lfq" else shape("quantizer.weight")[0]
    if said.get("l2_norm", form.l2_norm):
        quantizer["l2_norm"] = True
    return {
        "network": form.network,
        "network_options": network,
        "quantizer": name,
        "quantizer_options": quantizer,
        "image_size": form.image_size,
    }


def _quantizer(
    form: Format, tensors: dict[str, LazyTensor], said: dict[str, Any], num_channels: int, path: Path
) -> str:
    """The quantizer of a file: the only one that its tensors may be of, or which of these is said to be."""
    own = [name for name in tensors if name.startswith("quantizer.")]
    if not form.several:
        possible, because = [form.quantizer], "as all files of its format"
    elif not own:
        possible, because = ["lfq", "fsq"], "for it has no codebook"
    elif "quantizer.ema_sumz" in own:
        possible, because = ["ema"], "for it has moving sums of codes"
    elif any(name.startswith("quantizer.codebook_proj.") for name in own):
        possible, because = ["simvq"], "for it has a projection of its codebook"
    else:
        possible, because = ["vq", "ibq"], "for it has a codebook and nothing else"
    if possible == ["lfq", "fsq"] and "quantizer" not in said:
        raise ValueError(
            f"{path} has no codebook, so its quantizer is lfq or fsq, which store nothing. Say quantizer='lfq', for "
            f"2^{num_channels} codes; or the levels of fsq, an integer for each of its {num_channels} channels, as "
            "levels=[8, 5, 5, 5] is for four; or keep its training's config-<time>.yaml beside it."
        )
    name = said.get("quantizer", possible[0])
    if name not in possible:
        raise ValueError(f"The quantizer of {path} is {' or '.join(possible)}, {because}, but {name!r} is said to be.")
    return name


def _checked_levels(levels: Any, num_channels: int, path: Path) -> list[int]:
    if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) != num_channels:
        raise ValueError(
            f"levels is {shown(levels)}, but must be {num_channels} integers of 3 or more, one for each channel of {path}."
        )
    return list(levels)


def _expected(form: Format, settings: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The name in the file, and the shape, of each of our tensors."""
    num_levels = len(settings["network_options"].get("ch_mult", ()))
    with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
        own = VisualTokenizer(**settings).state_dict()
    return {ours: (form.file_name(ours, num_levels), tuple(tensor.shape)) for ours, tensor in own.items()}


def _misfits(tensors: dict[str, LazyTensor], expected: dict[str, tuple[int, ...]]) -> str:
    """How a file's tensors differ from those of a format, named as the file does; empty where they do not."""
    missing = [f"{n} is missing" for n in expected if n not in tensors]
    others = [f"{n} is not expected" for n in tensors if n not in expected and not _NOT_OF_THE_TOKENIZER.search(n)]
    shapes = [
        f"{n} is {list(tensors[n].shape)}, not {list(shape)}"
        for n, shape in expected.items()
        if n in tensors and tensors[n].shape != shape
    ]
    told = [*missing[:4], *others[:4], *shapes[:4]]
    more = len(missing) + len(others) + len(shapes) - len(told)
    return "; ".join(told) + (f", and {more} more" if more else "")


def _of_no_format(tensors: dict[str, LazyTensor], path: Path) -> str:
    """The sentence for a file of no known format: some of its names, the known formats, and what it lacks of the nearest."""
    if any(f".{name}".endswith(_OF_THIS_PACKAGE) for name in tensors):
        return (
            f"The tensors of {path} are named as this package's own, but no config.json beside them says what they are of: "
            "give the run's directory, or one that VisualTokenizer.save wrote; or make the VisualTokenizer and use its "
            "load_state_dict."
        )
    likeness, reason = max((_compared(name, tensors, path) for name in FORMATS), key=lambda compared: compared[0])
    return (
        f"The tensors of {path} ({', '.join(list(tensors)[:3])}, ...) are named as in no known format. Known: "
        f"{', '.join(FORMATS)}.{f' {reason}' if likeness else ''}"
    )


def _compared(name: str, tensors: dict[str, LazyTensor], path: Path) -> tuple[float, str]:
    """How alike a file and a format are, in [0, 1], and a sentence on what differs."""
    form = FORMATS[name]
    try:
        settings = _settings(form, tensors, {"quantizer": form.quantizer}, path)
        expected = dict(_expected(form, settings).values())
        differs = f"The nearest is {name!r}: {_misfits(tensors, expected)}."
    except (ValueError, RuntimeError, OverflowError) as error:
        small = {} if form.network == "simple_cnn" else {"ch_mult": [1, 2]}
        codes = {"codebook_size": 2, "codebook_dim": 1}
        settings = {"network": form.network, "network_options": small, "quantizer": form.quantizer}
        expected = dict(
            _expected(form, settings | {"quantizer_options": codes, "image_size": form.image_size}).values()
        )
        differs = f"The nearest is {name!r}. {first_line(error)}."
    return len(expected.keys() & tensors.keys()) / len(expected.keys() | tensors.keys()), differs
