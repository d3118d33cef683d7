"""Official checkpoints into a `VisualTokenizer`: the format is found from the file, and nothing in the file is executed.

| format | projects and files | network | quantizer | images in the original |
|---|---|---|---|---|
| `taming` | taming-transformers (arXiv:2012.09841), `last.ckpt` | vqgan | vq | [-1, 1] |
| `llamagen` | LlamaGen (arXiv:2406.06525), `vq_ds16_c2i.pt`, `vq_ds8_c2i.pt` | vqgan | vq, l2 | [-1, 1] |
| `ibq` | IBQ of SEED-Voken (arXiv:2412.02692), `imagenet256_16384.ckpt` | vqgan | ibq | [-1, 1] |
| `maskgit` | MaskGIT-VQGAN of 1d-tokenizer (arXiv:2202.04200) | maskgit | vq | [0, 1] |
| `open-magvit2` | Open-MAGVIT2 of SEED-Voken (arXiv:2409.04410), `imagenet_256_L.ckpt` | magvit2 | lfq | [-1, 1] |
| `visual-tokenizer-pytorch` | that project's SimpleCNN with a VQ codebook | simple_cnn | vq | [-1, 1] |

A `VisualTokenizer` takes and gives images in [-1, 1] whatever the original does: the network `maskgit` maps between the two.

Checkpoints of PyTorch are pickles, and a pickle can name any function of the machine and call it. Here a pickle is read by an
unpickler that knows tensors, ordered dictionaries and the values of Python itself; every other name in it stands for a
placeholder that takes whatever is done to it and does nothing. So a Lightning checkpoint full of callbacks and settings
loads without the packages it was written with, and a malicious one only yields placeholders. `torch.load` is not called.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pickle
import re
import struct
import tomllib
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import safetensors
import torch
from torch import Tensor

from vistok.config import PACKAGE, nearest, resolve_path
from vistok.devices import usable_device
from vistok.tokenizer import VisualTokenizer, floating_dtype
from vistok.weights import first_line


class LazyTensor(NamedTuple):
    """A tensor of a file that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


# ----------------------------------------------------------------------------------------------------------------------
# Formats: the names of tensors.


@dataclasses.dataclass(frozen=True)
class Format:
    """How a project names the tensors of a tokenizer.

    Attributes:
        network, quantizer: keys of `networks.NETWORKS` and `quantizers.QUANTIZERS`.
        names: patterns of our names and what stands for them in the file, applied one after the other.
        decoder_from_image: whether the file counts the decoder's levels from the image on; ours counts from the codes on.
        l2_norm: whether codes and encoder outputs are on the unit sphere, which no tensor tells.
        image_size: pixels, of its training.
    """

    network: str
    quantizer: str
    names: tuple[tuple[str, str], ...]
    decoder_from_image: bool = False
    l2_norm: bool = False
    image_size: int = 256

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
    "visual-tokenizer-pytorch": Format("simple_cnn", "vq", _SIMPLE_CNN, image_size=64),
}

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
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> VisualTokenizer:
    """Load an official checkpoint, or a tokenizer of this package; executes nothing in it, prints what it found.

    Args:
        path: a checkpoint (.pt, .ckpt, .bin, .pth or .safetensors), or a run directory, a directory written by
            `VisualTokenizer.save`, or the `model.safetensors` in it; or the name of an official checkpoint whose file is
            where `official_file` expects it.
        format: a key of `FORMATS`, to insist; None: found from the tensors' names.
        weights: "model", or "ema", the moving average; None: the average where the file has one.
        l2_norm: whether codes and encoder outputs are on the unit sphere; None: as the format's official files.
        device, dtype: as of `VisualTokenizer.load`.

    Returns:
        the tokenizer, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, or broken, or of no known format, or tensors are missing, unexpected or
            of another shape (named as in the file), or it has no such weights.
    """
    device, dtype = usable_device(device), floating_dtype(dtype)
    path = official_file(str(path)) if str(path) in reference_checkpoints() else resolve_path(path)
    if format is not None and format not in FORMATS:
        raise ValueError(f"There is no checkpoint format {format!r}; {nearest(format, FORMATS)}")
    if not path.exists():
        found = [known for name, known in reference_checkpoints().items() if official_file(name) == path]
        where = f" It is to be had from {found[0]['address']}." if found else ""
        raise FileNotFoundError(f"There is no checkpoint {path}.{where}")
    if path.is_dir() or (path.name == "model.safetensors" and (path.parent / "config.json").is_file()):
        if (format, weights, l2_norm) != (None, None, None):
            raise ValueError(
                f"{path} is a tokenizer of this package: format, weights and l2_norm are in it; leave them out."
            )
        return VisualTokenizer.load(path if path.is_dir() else path.parent, device, dtype)

    with contextlib.ExitStack() as files:
        with _unreadable_as_value_error(path):
            content = _open_checkpoint(path, files)
        available = _state_dicts(content)
        tensors, chosen = _choose_weights(available, weights, path)
        name = format or find_format(set().union(*available.values()))
        if name is None:
            some = ", ".join(list(tensors)[:3])
            raise ValueError(
                f"The tensors of {path} ({some}, ...) are named as in no known format. Known: {', '.join(FORMATS)}."
            )
        settings = _settings(FORMATS[name], tensors, l2_norm, path)
        try:
            with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
                shapes = {
                    ours: tuple(tensor.shape) for ours, tensor in VisualTokenizer(**settings).state_dict().items()
                }
        except (RuntimeError, OverflowError) as error:  # sizes beyond what any tensor has
            raise ValueError(f"{path} describes no tokenizer that can be built: {first_line(error)}.") from error
        num_levels = len(settings["network_options"].get("ch_mult", ()))
        names = {ours: FORMATS[name].file_name(ours, num_levels) for ours in shapes}
        _check_tensors(tensors, {names[ours]: shape for ours, shape in shapes.items()}, name, path)
        with torch.device(device):
            tokenizer = VisualTokenizer(**settings)
        own = tokenizer.state_dict()
        with _unreadable_as_value_error(path), torch.no_grad():
            for ours, target in own.items():
                target.copy_(tensors[names[ours]].read())
    print(
        f"{path.name}: {name}, {chosen} weights, K = {tokenizer.quantizer.codebook_size}, "
        f"D = {tokenizer.quantizer.codebook_dim}, downsample factor {tokenizer.downsample_factor}."
    )
    return tokenizer.to(dtype).eval() if dtype else tokenizer.eval()


def reference_checkpoints() -> dict[str, dict[str, Any]]:
    """Return what is known of the official checkpoints, by name: file, address, and the numbers reported for them.

    Every number is beside the project that reported it and the convention it used; see `pretrained.toml`.
    """
    return tomllib.loads((PACKAGE / "pretrained.toml").read_text(encoding="utf-8"))


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


def _state_dicts(content: object) -> dict[str, dict[str, LazyTensor]]:
    """The state dicts in a checkpoint: of the model, and of its moving average."""
    containers = content if isinstance(content, dict) else {}
    model = next((found for key in ("state_dict", "model") if (found := _tensors(containers.get(key)))), None)
    model = model or _tensors(content)
    average = _tensors(containers.get("ema"))
    if not average:  # Lightning's: beside the model, as model_ema.<name without its dots>
        flat = {name: f"model_ema.{name.replace('.', '')}" for name in model}
        average = {name: model[flat[name]] for name in model if flat[name] in model}
    return {name: tensors for name, tensors in (("model", model), ("ema", average)) if tensors}


def _tensors(container: object) -> dict[str, LazyTensor]:
    if not isinstance(container, dict):
        return {}
    return {k: v for k, v in container.items() if isinstance(k, str) and isinstance(v, LazyTensor)}


def _settings(form: Format, tensors: dict[str, LazyTensor], l2_norm: bool | None, path: Path) -> dict[str, Any]:
    """The arguments of `VisualTokenizer`, read off the tensors' shapes."""

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
    num_codes = 2**num_channels if form.quantizer == "lfq" else shape("quantizer.weight")[0]
    quantizer: dict[str, Any] = {"codebook_size": num_codes, "codebook_dim": num_channels}
    if form.l2_norm if l2_norm is None else l2_norm:
        quantizer["l2_norm"] = True
    return {
        "network": form.network,
        "network_options": network,
        "quantizer": form.quantizer,
        "quantizer_options": quantizer,
        "image_size": form.image_size,
    }


def _check_tensors(tensors: dict[str, LazyTensor], expected: dict[str, tuple[int, ...]], name: str, path: Path) -> None:
    """Raise ValueError where the file has not exactly the tensors of the format; names them as the file does."""
    wrong = [f"{n} is missing" for n in expected if n not in tensors]
    wrong += [f"{n} is not expected" for n in tensors if n not in expected and not _NOT_OF_THE_TOKENIZER.search(n)]
    wrong += [
        f"{n} is {list(tensors[n].shape)}, not {list(shape)}"
        for n, shape in expected.items()
        if n in tensors and tensors[n].shape != shape
    ]
    if wrong:
        more = f", and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"The tensors of {path} are not those of the format {name!r}: {'; '.join(wrong[:8])}{more}.")


# ----------------------------------------------------------------------------------------------------------------------
# Files: bytes to named tensors, without executing anything.

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since 1.6 and before
_MAGIC_NUMBER, _PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001  # PyTorch's, of files before 1.6
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in (
        *(("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16), ("BFloat16", torch.bfloat16)),
        *(("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8)),
        *(("Byte", torch.uint8), ("Bool", torch.bool)),
        *(("ComplexFloat", torch.complex64), ("ComplexDouble", torch.complex128)),
    )
}


@contextlib.contextmanager
def _unreadable_as_value_error(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a broken or hostile file raises whatever its bytes spell
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}). If it should be one, its download "
            "may have broken off: compare its size."
        ) from error


def _open_checkpoint(path: Path, files: contextlib.ExitStack) -> object:
    """What a file holds, tensors as `LazyTensor`; what must stay open to read them is closed by `files`."""
    file = files.enter_context(path.open("rb"))
    head = file.read(9)
    file.seek(0)
    if head.startswith(_ZIP):
        return _open_zip(files.enter_context(zipfile.ZipFile(file)))
    if head.startswith(_PICKLE):
        return _open_legacy(file)
    if head[8:] == b"{":
        tensors = files.enter_context(safetensors.safe_open(path, framework="pt"))
        return {
            name: LazyTensor(tuple(tensors.get_slice(name).get_shape()), functools.partial(tensors.get_tensor, name))
            for name in tensors.keys()  # noqa: SIM118 (no mapping)
        }
    raise ValueError("it begins like none")


def _open_zip(archive: zipfile.ZipFile) -> object:
    """A file of PyTorch since 1.6: a pickle, and one record a storage."""
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without PyTorch's data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{folder}data/{key}"))
    return unpickler.load()


def _open_legacy(file: BinaryIO) -> object:
    """A file of PyTorch before 1.6: five pickles, then the storages one after the other, each after its length."""
    places: dict[str, tuple[int, int]] = {}  # offset and bytes of each storage

    def read_storage(key: str) -> bytes:
        offset, num_bytes = places[key]
        file.seek(offset)
        return file.read(num_bytes)

    header = [_Unpickler(file, read_storage).load() for _ in range(3)]  # the third describes the machine
    if header[:2] != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise ValueError("it is a pickle, but not one of PyTorch's")
    unpickler = _Unpickler(file, read_storage)
    content = unpickler.load()
    for key in _Unpickler(file, read_storage).load():
        (length,) = struct.unpack("<q", file.read(8))
        places[key] = (file.tell(), length * unpickler.dtypes[key].itemsize)
        file.seek(places[key][1], os.SEEK_CUR)
    return content


class _Storage(NamedTuple):
    """The numbers of one or more tensors."""

    dtype: torch.dtype
    read: Callable[[], bytes]


class _Ignored:
    """Stands for every class and function that a pickle names and that is not needed: takes anything, does nothing.

    `__setstate__` is what keeps a pickle from setting attributes, on the class as well as on its instances.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def _nothing(self, *args: object, **kwargs: object) -> Self:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _nothing


class _RebuildTensor(_Ignored):
    """Called as PyTorch's function of this name is, gives a tensor that lies in a storage, to be read later."""

    def __new__(cls, storage: _Storage, offset: int, size: Any, stride: Any, *_: object) -> LazyTensor:
        return LazyTensor(tuple(int(n) for n in size), functools.partial(_read_tensor, storage, offset, size, stride))


class _RebuildParameter(_Ignored):
    """Called as PyTorch's function of this name is, gives the tensor of a parameter."""

    def __new__(cls, tensor: LazyTensor, *_: object) -> LazyTensor:
        return tensor


def _read_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    data = bytearray(storage.read())
    numbers = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    return torch.as_strided(numbers, size, stride, offset)  # refuses to leave the storage


_KNOWN = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor,
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter,
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, name): dtype for name, dtype in _STORAGES.items() for module in ("torch", "torch.cuda")},
}


class _Unpickler(pickle.Unpickler):
    """Reads tensors, containers and plain values; whatever else a pickle names becomes `_Ignored`.

    What `find_class` returns is all that a pickle can call or alter: the values of `_KNOWN` and the placeholder. None of them
    reaches further.
    """

    def __init__(self, file: BinaryIO, read_storage: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="latin1")  # text of Python 2; no byte of it is invalid
        self.read_storage = read_storage
        self.dtypes: dict[str, torch.dtype] = {}  # of each storage that was named

    def find_class(self, module: str, name: str) -> object:
        return _KNOWN.get((module, name), _Ignored)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, _length, *view = pid
        if kind != "storage" or (view and view[0] is not None):
            raise pickle.UnpicklingError(f"a {kind} with a view {view} is older than PyTorch 0.4, and not supported")
        self.dtypes[key] = dtype
        return _Storage(dtype, functools.partial(self.read_storage, key))
