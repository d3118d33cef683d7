"""`VisualTokenizer`: encoder, quantizer and decoder as one module; images to a grid of integer codes and back.

A saved tokenizer is a directory with `model.safetensors` and `config.json`; nothing in it is executed when it is loaded.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor, nn

from vistok import networks, quantizers
from vistok.config import TrainConfig, call_with_options, resolve_path
from vistok.files import replace_file, strict_json
from vistok.weights import first_line, unwrapped


@dataclasses.dataclass
class TokenizerOutput:
    """One pass through a tokenizer.

    Attributes:
        reconstruction: float [B, 3, H, W], about [-1, 1].
        indices: int64 [B, h, w], or a tuple of one per level or group.
        codes: float32 [B, D, h, w], straight-through.
        z: float [B, D, h, w], the encoder's output.
        losses: name to unweighted scalar, the quantizer's.
    """

    reconstruction: Tensor
    indices: Tensor | tuple[Tensor, ...]
    codes: Tensor
    z: Tensor
    losses: dict[str, Tensor]


class VisualTokenizer(nn.Module, ModelHubMixin, library_name="vistok", tags=["visual-tokenizer"]):
    """Encoder, quantizer and decoder.

    The Hugging Face Hub's mixin gives `push_to_hub`, `save_pretrained` and `from_pretrained`, on the files of `save`.

    Attributes:
        encoder, quantizer, decoder: the parts.
        image_size: pixels, the height and width it was trained on; other multiples of `downsample_factor` work too.
        downsample_factor: image pixels per token along a side.
    """

    def __init__(
        self,
        *,
        network: str = "simple_cnn",
        network_options: dict[str, Any] | None = None,
        quantizer: str = "vq",
        quantizer_options: dict[str, Any] | None = None,
        image_size: int = 64,
    ) -> None:
        """Build a tokenizer with random weights.

        Args:
            network: a key of `networks.NETWORKS`.
            network_options: its options, `codebook_dim` aside.
            quantizer: a key of `quantizers.QUANTIZERS`.
            quantizer_options: its options, `codebook_size` and `codebook_dim` among them.
            image_size: pixels, height and width.

        Raises:
            ValueError: a part or an option is unknown or out of range, or the network cannot halve `image_size` often
                enough.
        """
        super().__init__()
        self.settings = {
            "network": network,
            "network_options": dict(network_options or {}),
            "quantizer": quantizer,
            "quantizer_options": dict(quantizer_options or {}),
            "image_size": image_size,
        }
        self.quantizer = quantizers.build(quantizer, **self.settings["quantizer_options"])
        self.encoder, self.decoder = networks.build(
            network,
            image_size=image_size,
            codebook_dim=self.quantizer.codebook_dim,
            **self.settings["network_options"],
        )
        self.image_size = image_size
        self.downsample_factor: int = self.encoder.downsample_factor
        self.check_size(image_size, image_size)

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Return a new tokenizer as a training configuration describes it, with random weights."""
        options = {"codebook_size": config.codebook_size, "codebook_dim": config.codebook_dim}
        network_options = {"hidden_dim": config.hidden_dim}
        # Handed on only where they are taken or asked for: a part without them then refuses them by name.
        if config.l2_norm:
            options["l2_norm"] = True
        if config.network in networks.WITH_RES_BLOCKS or config.num_res_blocks != TrainConfig().num_res_blocks:
            network_options["num_res_blocks"] = config.num_res_blocks
        return cls(
            network=config.network,
            network_options=network_options | config.network_options,
            quantizer=config.quantizer,
            quantizer_options=options | config.quantizer_options,
            image_size=config.image_size,
        )

    def config_settings(self) -> dict[str, Any]:
        """Return the fields of `TrainConfig` that describe this tokenizer: `from_config` the other way round."""
        network, quantizer = dict(self.settings["network_options"]), dict(self.settings["quantizer_options"])
        fields = {name: self.settings[name] for name in ("network", "quantizer", "image_size")}
        for options, names in (
            (network, ("hidden_dim", "num_res_blocks")),
            (quantizer, ("codebook_size", "codebook_dim", "l2_norm")),
        ):
            fields |= {name: options.pop(name) for name in names if name in options}
        return fields | {"network_options": network, "quantizer_options": quantizer}

    def forward(self, images: Tensor) -> TokenizerOutput:
        """Encode, quantize and decode.

        Args:
            images: float [B, 3, H, W] in [-1, 1], H and W multiples of `downsample_factor`.
        """
        self._check_images(images)
        z = self.encoder(images)  # [B, D, h, w]
        quantized = self.quantizer(z)
        reconstruction = self.decoder(quantized.codes)  # [B, 3, H, W]
        return TokenizerOutput(reconstruction, quantized.indices, quantized.codes, z, quantized.losses)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the indices of images; changes no state, in training mode neither.

        Args:
            images: float [B, 3, H, W] in [-1, 1], H and W multiples of `downsample_factor`.

        Returns:
            int64 [B, H/f, W/f] in [0, K), or a tuple of one per level or group.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        self._check_images(images)
        with self._evaluating():
            return self.quantizer(self.encoder(images)).indices

    @torch.no_grad()
    def decode(self, indices: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the images of indices.

        Args:
            indices: int64 [B, h, w] in [0, K), or a tuple of one per level or group.

        Returns:
            float [B, 3, f*h, f*w] in [-1, 1].

        Raises:
            ValueError: an index is not in [0, K).
        """
        levels = indices if isinstance(indices, tuple) else (indices,)
        for level, size in zip(levels, self.quantizer.codebook_sizes, strict=True):
            if level.numel() and not ((low := int(level.min())) >= 0 and (high := int(level.max())) < size):
                wrong = low if low < 0 else high
                raise ValueError(f"Index {wrong} is outside of this tokenizer's codebook: [0, {size}).")
        with self._evaluating():
            return self.decoder(self.quantizer.indices_to_codes(indices)).clamp(-1, 1)

    def save(self, path: str | Path) -> None:
        """Write `model.safetensors` and `config.json` into a directory, each replaced whole or not at all."""
        path = resolve_path(path)
        path.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        replace_file(path / "model.safetensors", safetensors.torch.save(state))
        replace_file(path / "config.json", json.dumps(self.settings, indent=2).encode())

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load a tokenizer, in eval mode.

        Args:
            path: a directory written by `save`, or a run directory.
            device: where to put it.

        Raises:
            FileNotFoundError: there is no tokenizer in `path`.
            ValueError: the weights do not fit the configuration beside them.
        """
        path = resolve_path(path)
        directory = path / "tokenizer" if (path / "tokenizer").is_dir() else path
        if not (directory / "model.safetensors").is_file() or not (directory / "config.json").is_file():
            raise FileNotFoundError(
                f"There is no tokenizer in {path}: model.safetensors and config.json are expected there or in its "
                "tokenizer/. Committed records have no weights; train the row again to get them."
            )
        try:
            settings = strict_json((directory / "config.json").read_bytes())
            state = safetensors.torch.load_file(directory / "model.safetensors")
        except (ValueError, safetensors.SafetensorError) as error:
            raise ValueError(f"The tokenizer in {directory} cannot be read: {error}.") from error
        if not isinstance(settings, dict):
            raise ValueError(f"The tokenizer in {directory} cannot be read: its config.json holds no settings.")
        try:
            state = unwrapped(state, directory)
            with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
                call_with_options("tokenizer", cls, settings).check_weights(state, directory)
        except (RuntimeError, OverflowError) as error:  # sizes beyond what any tensor has
            raise ValueError(f"The tokenizer in {directory} cannot be built: {first_line(error)}.") from error
        tokenizer = call_with_options("tokenizer", cls, settings)
        tokenizer.load_weights(state, source=directory)
        return tokenizer.to(device).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory.absolute())

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **settings: Any,  # of config.json, which `load` reads itself
    ) -> Self:
        if Path(model_id).is_dir():
            return cls.load(Path(model_id).absolute())
        return cls.load(
            snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=["config.json", "model.safetensors"],
            )
        )

    def load_weights(self, state: dict[str, Tensor], source: object) -> None:
        """Take over a state dict whose names and shapes are this tokenizer's own; ValueError as of `check_weights`."""
        self.check_weights(state, source)
        self.load_state_dict(state)

    def check_weights(self, state: dict[str, Tensor], source: object) -> None:
        """Compare names and shapes of a state dict with this tokenizer's own.

        Raises:
            ValueError: a tensor is missing, is not expected or has another shape; the sentence names `source` and them.
        """
        own = self.state_dict()
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is not expected" for name in state if name not in own]
        wrong += [
            f"{name} is {list(tensor.shape)}, not {list(own[name].shape)}"
            for name, tensor in state.items()
            if name in own and tensor.shape != own[name].shape
        ]
        if wrong:
            more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise ValueError(f"The weights in {source} are of another architecture: {'; '.join(wrong[:4])}{more}.")

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while: a quantizer that learns inside `forward` must not learn from encoding."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"Images must be float [B, 3, H, W] in [-1, 1], not {images.dtype} {list(images.shape)}."
                + (" vistok.data.to_float converts uint8." if images.dtype == torch.uint8 else "")
            )
        self.check_size(*images.shape[2:])

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError where images of this height and width, in pixels, do not divide into tokens."""
        for size in (height, width):
            if size < self.downsample_factor or size % self.downsample_factor:
                valid = max(self.downsample_factor, round(size / self.downsample_factor) * self.downsample_factor)
                raise ValueError(
                    f"image_size {size} is not divisible by the downsample factor {self.downsample_factor} of "
                    f"{self.settings['network']!r}; the nearest that is: {valid}."
                )
