"""`VisualTokenizer`: encoder, quantizer and decoder as one module; images to a grid or a sequence of integer codes and back.

A saved tokenizer is a directory with `model.safetensors` and `config.json`; nothing in it is executed when it is loaded.
"""

import dataclasses
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from vistok import networks, quantizers
from vistok.config import TrainConfig
from vistok.images import as_images, begin_range_check, end_range_check
from vistok.quantizers.levels import Grid, as_indices, as_levels
from vistok.system.devices import eval_view, floating_dtype, usable_device, without_cached_casts
from vistok.system.hub import OnTheHub
from vistok.system.paths import resolve_path
from vistok.system.values import PositiveInt, call_with_options, checked, refuse_settings_among
from vistok.system.weights import check_weights, first_line, read_saved, write_saved
from vistok.tiling import InTiles


@dataclasses.dataclass
class TokenizerOutput:
    """One pass through a tokenizer.

    Attributes:
        reconstruction: float [B, 3, H, W], about [-1, 1]; where proxies were asked for their logits, float [B, K', h', w'].
        levels: int64 [B, h_l, w_l] of each level or group, a tuple also where there is one; empty without a codebook.
        codes: float32 [B, D, h, w], straight-through.
        z: float [B, D, h, w], the encoder's output.
        losses: name to unweighted scalar, the quantizer's.
    """

    reconstruction: Tensor
    levels: tuple[Tensor, ...]
    codes: Tensor
    z: Tensor
    losses: dict[str, Tensor]

    @property
    def indices(self) -> Tensor | tuple[Tensor, ...]:
        """The one tensor where there is one level, else all of them."""
        return as_indices(self.levels)


HINT_OF_POSITIONS = (
    " They are of another size of images. network_options say how positions are interpolated: of titok positions_size, the "
    "size that they were learned at; a vit is built at that size, with positions 'interpolated', and takes others."
)


class VisualTokenizer(InTiles, OnTheHub, library_name="vistok", tags=["visual-tokenizer"]):
    """Encoder, quantizer and decoder.

    `system.hub` gives `push_to_hub`, `save_pretrained` and `from_pretrained`, on the files of `save`; `tiling` gives
    `encode_tiled` and `decode_tiled`, for pictures too large for one pass.

    Attributes:
        encoder, quantizer, decoder: the parts.
        image_size: pixels, the height and width it was trained on; other multiples of `downsample_factor` work too, unless
            its network has learned positions.
        downsample_factor: image pixels per token along a side; where tokens are a sequence, per patch.
        is_sequence: whether tokens are a sequence, [B, 1, N], of which none lies at a place of the image.
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
                enough, or would train on beginnings of levels of several lengths.
        """
        super().__init__()
        image_size = checked("image_size", PositiveInt, image_size)
        self.settings = {
            "network": network,
            "network_options": dict(network_options or {}),
            "quantizer": quantizer,
            "quantizer_options": dict(quantizer_options or {}),
            "image_size": image_size,
        }
        refuse_settings_among("network_options", self.settings["network_options"], ("codebook_dim", "image_size"))
        self.quantizer = quantizers.build(quantizer, **self.settings["quantizer_options"])
        self.encoder, self.decoder = networks.build(
            network,
            image_size=image_size,
            codebook_dim=self.quantizer.codebook_dim,
            **self.settings["network_options"],
        )
        self.image_size = image_size
        self.downsample_factor: int = self.encoder.downsample_factor
        self.is_sequence: bool = self.encoder.is_sequence
        self.check_size(image_size, image_size)
        if self.encoder.prefixes is not None and len(set(self.token_grids())) > 1:
            raise ValueError(
                f"prefixes is {self.encoder.prefixes!r}, but the levels of quantizer {quantizer!r} have several lengths, and "
                "so no beginning: leave it out."
            )
        if torch.get_default_dtype() != torch.float32:
            self.float()  # weights that are loaded keep their precision, and another one is asked for by name

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Return a new tokenizer as a training configuration describes it, with random weights."""
        options = {"codebook_size": config.codebook_size, "codebook_dim": config.codebook_dim}
        network_options = {"hidden_dim": config.hidden_dim}
        # Handed on only where they are taken or asked for: a part without them then refuses them by name.
        if not quantizers.has_codebook(config.quantizer) and config.codebook_size == TrainConfig().codebook_size:
            del options["codebook_size"]
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

    def forward(self, images: Tensor, num_tokens: int | None = None, proxies: bool = False) -> TokenizerOutput:
        """Encode, quantize and decode.

        Args:
            images: as of `encode`. In training mode their range is looked at on a CPU only: elsewhere that would wait for the
                device at every step.
            num_tokens: decode the first so many tokens of a sequence; None: all. Losses are of all.
            proxies: have the decoder predict the codes of its pixel decoder's tokenizer, and paint nothing.

        Raises:
            ValueError: as of `encode`, or of `check_num_tokens`; proxies of a network without a pixel decoder.
        """
        self.check_num_tokens(num_tokens)
        if proxies and not getattr(self.decoder, "has_proxies", False):
            raise ValueError(
                f"proxies are the codes that a pixel decoder takes, and network {self.settings['network']!r} has none here: "
                "a titok has one by network_options pixel_decoder."
            )
        images = self._as_images(images)
        looks = not self.training or images.device.type == "cpu"
        bounds = begin_range_check(images) if looks else None
        z = self.encoder(images)  # [B, D, h, w]
        quantized = self.quantizer(z)
        codes = quantized.codes[..., :num_tokens].to(_weight_of(self.decoder).dtype)
        reconstruction = self.decoder.predict(codes) if proxies else self.decoder(codes)  # [B, 3, H, W]
        end_range_check(bounds)
        return TokenizerOutput(reconstruction, quantized.levels, quantized.codes, z, quantized.losses)

    def encode(self, images: Tensor | np.ndarray) -> Tensor | tuple[Tensor, ...]:
        """Return the indices of images, as in eval mode; changes no state and no mode, in training mode neither.

        Another thread may train the tokenizer meanwhile: it trains what it would train alone.

        Args:
            images: float [B, 3, H, W] in [-1, 1], a little beyond for resampled ones; H and W multiples of
                `downsample_factor`. They are brought to the device and the dtype of the encoder.

        Returns:
            int64 [B, H/f, W/f] in [0, K), of a sequence [B, 1, N], or where there are several levels or groups a tuple of them.

        Raises:
            ValueError: the images have another shape or dtype, or are clearly out of range; or there is no codebook.
        """
        return as_indices(self.encode_levels(images))

    @torch.no_grad()
    def encode_levels(self, images: Tensor | np.ndarray) -> tuple[Tensor, ...]:
        """Return what `encode` does, int64 [B, h_l, w_l] of each level or group, as a tuple also where there is one."""
        self.quantizer.check_codebook()
        images = self._as_images(images)
        view = eval_view(self)
        with without_cached_casts(images.device):
            bounds = begin_range_check(images)
            levels = view.quantizer(view.encoder(images)).levels
            end_range_check(bounds)  # here, where whoever takes the indices waits for the device anyway
        return levels

    @torch.no_grad()
    def decode(self, indices: Tensor | np.ndarray | list | tuple) -> Tensor:
        """Return the images of indices, as in eval mode; changes no state and no mode.

        Args:
            indices: integers [B, h, w] in [0, K) of any dtype, or a tuple or list of one per level or group; on the
                tokenizer's own grid also [B, h*w], [h, w], or [B, tokens of all levels]. Arrays and lists are taken too. Of
                a sequence the first n tokens, [B, 1, n] or [B, n], give the picture that they hold, coarser where the
                tokenizer was trained for that.

        Returns:
            float [B, 3, f*h, f*w] in [-1, 1], in the dtype of the decoder.

        Raises:
            ValueError: an index is not an integer in [0, K), or it is not plain what the shape means; or there is no codebook.
        """
        return self.decode_codes(self.quantizer.indices_to_codes(*self.as_levels(indices)))

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """Return the images of codes, which need not be of the codebook, as in eval mode.

        Args:
            codes: float [B, D, h, w].

        Returns:
            float [B, 3, f*h, f*w] in [-1, 1], in the dtype of the decoder.

        Raises:
            ValueError: the codes have another shape.
        """
        if codes.ndim != 4 or codes.shape[1] != self.quantizer.codebook_dim:
            raise ValueError(f"Codes are {list(codes.shape)}, but must be [B, {self.quantizer.codebook_dim}, h, w].")
        with without_cached_casts(codes.device):
            return eval_view(self.decoder)(codes.to(_weight_of(self.decoder).dtype)).clamp(-1, 1)

    def as_levels(self, indices: object) -> tuple[Tensor, ...]:
        """Return indices as `decode` takes them as int64 [B, h_l, w_l], one tensor a level or group, on this device.

        Raises:
            ValueError: as of `decode`.
        """
        self.quantizer.check_codebook()
        levels = as_levels(indices, self.quantizer.codebook_sizes, self.token_grids(), self.is_sequence)
        return tuple(level.to(_weight_of(self.encoder).device) for level in levels)

    def token_grids(self, height: int | None = None, width: int | None = None) -> list[Grid]:
        """Return the height and width, in tokens, of each level; (1, N) of a sequence.

        Args:
            height, width: of images, in pixels; None: `image_size`.

        Raises:
            ValueError: as of `check_size`.
        """
        height, width = (self.image_size if size is None else size for size in (height, width))
        self.check_size(height, width)
        return self.quantizer.grids(*self.encoder.grid(height, width))

    def check_num_tokens(self, num_tokens: int | None) -> None:
        """Raise ValueError unless the tokens are a sequence of at least so many; None is always right."""
        if num_tokens is None:
            return
        checked("num_tokens", PositiveInt, num_tokens)
        if not self.is_sequence:
            raise ValueError(
                f"num_tokens is {num_tokens}, but tokens of {self.settings['network']!r} lie on a grid, which has no "
                "beginning: leave it out."
            )
        whole = self.encoder.grid(self.image_size, self.image_size)  # where there is no codebook, and so no level
        (_, length), *others = dict.fromkeys(self.token_grids() or [whole])
        if others:
            raise ValueError(
                f"num_tokens is {num_tokens}, but levels of several lengths have no beginning: leave it out."
            )
        if num_tokens > length:
            raise ValueError(f"num_tokens is {num_tokens}, but an image is {length} tokens: the most is {length}.")

    def train_only(self, config: TrainConfig) -> None:
        """Leave out of training what a configuration leaves as it is: `train_parts`, and with `proxy_from` what paints."""
        if config.train_parts == "decoder":
            self.encoder.requires_grad_(False)
            self.quantizer.requires_grad_(False)
        if config.proxy_from is not None:
            self.decoder.freeze_painting()

    def save(self, path: str | Path) -> None:
        """Write `model.safetensors` and `config.json` into a directory, each replaced whole or not at all."""
        write_saved(resolve_path(path), self.state_dict(), self.settings)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None) -> Self:
        """Load a tokenizer, in eval mode.

        Args:
            path: a directory written by `save`, or a run directory.
            device: where to put it.
            dtype: of the encoder and the decoder, for instance torch.bfloat16 or "bfloat16"; None: float32, which the
                quantizer is in any case.

        Raises:
            FileNotFoundError: there is no tokenizer in `path`.
            ValueError: the weights do not fit the configuration beside them; there is no such device or dtype.
        """
        device, dtype = usable_device(device), floating_dtype(dtype)
        path = resolve_path(path)
        directory = path / "tokenizer" if (path / "tokenizer").is_dir() else path
        if not (directory / "model.safetensors").is_file() or not (directory / "config.json").is_file():
            hint = "Committed records have no weights; train the row again to get them."
            if (path.parent / "tokenizer").is_dir():  # of a run it is another folder, as that of its checkpoints
                hint = f"Did you mean '{path.parent}'?"
            raise FileNotFoundError(
                f"There is no tokenizer in {path}: model.safetensors and config.json are expected there or in its "
                f"tokenizer/. {hint}"
            )
        settings, state = read_saved(directory)
        try:
            with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
                check_weights(call_with_options("tokenizer", cls, settings).state_dict(), state, directory)
        except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond any tensor's, settings of another type
            raise ValueError(f"The tokenizer in {directory} cannot be built: {first_line(error)}.") from error
        tokenizer = call_with_options("tokenizer", cls, settings)
        tokenizer.load_weights(state, source=directory)
        return tokenizer.to(device, dtype).eval()

    def load_weights(self, state: dict[str, Tensor], source: object) -> None:
        """Take over a state dict whose names and shapes are this tokenizer's own; ValueError where they are not."""
        own = self.state_dict()
        moved = [name for name, tensor in state.items() if name in own and tensor.shape != own[name].shape]
        hint = (
            HINT_OF_POSITIONS
            if moved and own.keys() == state.keys() and all("positions" in name for name in moved)
            else ""
        )
        check_weights(own, state, source, hint)
        self.load_state_dict(state)

    def check_images(self, images: Tensor | np.ndarray, tile: int | None = None) -> Tensor:
        """Return images as `encode` takes them, in the dtype and on the device of the encoder.

        Args:
            images: as of `encode`.
            tile: as of `check_size`.

        Raises:
            ValueError: as of `encode`.
        """
        images = self._as_images(images, tile)
        end_range_check(begin_range_check(images))
        return images

    def _as_images(self, images: Tensor | np.ndarray, tile: int | None = None) -> Tensor:
        images = as_images(images, like=_weight_of(self.encoder))
        self.check_size(*images.shape[2:], tile)
        return images

    def check_size(self, height: int, width: int, tile: int | None = None) -> None:
        """Raise ValueError where images of this height and width, in pixels, cannot be encoded.

        Args:
            height, width: of the images.
            tile: pixels, height and width of the parts that are encoded by themselves; None: they are encoded whole.
        """
        for size in (height, width):
            if size < self.downsample_factor or size % self.downsample_factor:
                valid = max(self.downsample_factor, round(size / self.downsample_factor) * self.downsample_factor)
                raise ValueError(
                    f"image_size {size} is not divisible by the downsample factor {self.downsample_factor} of "
                    f"{self.settings['network']!r}; the nearest that is: {valid}."
                )
        self.encoder.grid(*(size if tile is None else min(size, tile) for size in (height, width)))


def _weight_of(network: nn.Module) -> Tensor:
    """Return a weight of a network: where it is, and in which dtype."""
    return next(network.parameters())
