"""Encoder and decoder of TiTok: an image as a sequence of N tokens, none of which lies at a place of it.

After Yu et al. 2024 (arXiv:2406.07550, section 3.2) as implemented in 1d-tokenizer (`modeling/titok.py`, `modules/blocks.py`).
Patches of the image, a class token and N latent tokens go through one transformer; what the latents have become is z. The
decoder puts the N codes beside as many copies of a mask token as there are patches, and its head makes the image of what these
have become:

- `PixelHead` paints the pixels of each patch, and smooths them with a 3x3 convolution.
- `ProxyHead` predicts the codes that another tokenizer, of a grid, has for the patches, its *proxies*; the probabilities times
  that tokenizer's codebook go into its decoder. Stage 1 of the paper's training (section 3.3) teaches the predictions, stage 2
  trains both decoders for images. Both parts of the other tokenizer lie within this network, and are saved with it.

Things to know:

- `variant` "paper" is 1d-tokenizer's: class token, biases of q, k and v, positions added to the latent tokens, images in
  [0, 1]. "visual-tokenizer-pytorch" is that project's: none of these, images in [-1, 1]; only its head paints pixels alone.
- `legacy` repeats a mistake of 1d-tokenizer's first checkpoints (L-32, B-64, S-128): the latents [N, dim] are read as [dim, N]
  before they are projected to codes, so that every token of z is made of all. What it learned works, as it is a fixed shuffle.
- Positions are learned, so there is one size of images, which a sequence does not tell: the decoder knows no other. With
  `positions_size` the positions of patches that were learned on one size are interpolated for it, bicubic, as those of ViTs are
  (`vit.interpolated_positions`); the paper measures none. The decoder takes the first n <= N codes of a sequence as well.
- `prefixes` lets training decode the first n codes only, so that any beginning is a picture, a coarser one: with n uniform in
  1 ... N (One-D-Piece, Miwa et al. 2025, arXiv:2501.10064, section 3.1), or a power of two or N (FlexTok, Bachmann et al. 2025,
  arXiv:2502.13967, section 3.2). One n a batch, as in One-D-Piece's code, which never draws N; FlexTok draws one an image.
- Sizes: `SIZES`, or any. A checkpoint's name has the encoder's and the decoder's: BL is base and large.
- The original initialises a head with what it initialises all else; its MaskGIT decoder it loads.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from vistok.networks.blocks import ImageEncoder, check_sizes, initialise
from vistok.networks.vit import TransformerBlock, interpolated_positions, unpatchify
from vistok.system.values import call_with_options, check_known, refuse_settings_among

HEAD_DIM = 64  # channels of an attention head, where nothing else is said
VARIANTS = ("paper", "visual-tokenizer-pytorch")
PREFIXES = ("uniform", "powers")
Grid = tuple[int, int]  # (h, w), patches


class Size(NamedTuple):
    """The size of one side.

    Attributes:
        hidden_dim: channels of a token.
        depth: transformer blocks.
        num_heads: of attention.
    """

    hidden_dim: int
    depth: int
    num_heads: int


SIZES = {"small": Size(512, 8, 8), "base": Size(768, 12, 12), "large": Size(1024, 24, 16)}  # of the paper, table 1


class _Side(nn.Module):
    """What encoder and decoder share: the tokens of patches, and of the sequence, through one transformer.

    Attributes:
        patch_positions: of the class token, where there is one, and of all patches of `learned_grid`.
        latent_positions: of the sequence, or None.
        grid, learned_grid: (h, w), the patches that there are, and those whose positions were learned.
    """

    def __init__(
        self, size: Size, grids: tuple[Grid, Grid], num_tokens: int, paper: bool, latent_positions: bool
    ) -> None:
        super().__init__()
        self.grid, self.learned_grid = grids
        dim, num_patches = size.hidden_dim, math.prod(self.learned_grid)
        scale = dim**-0.5 if paper else 0.02
        self.class_token = nn.Parameter(scale * torch.randn(1, dim)) if paper else None
        self.patch_positions = nn.Parameter(scale * torch.randn(num_patches + paper, dim))
        self.latent_positions = nn.Parameter(scale * torch.randn(num_tokens, dim)) if latent_positions else None
        self.norm_in = nn.LayerNorm(dim)
        blocks = [TransformerBlock(dim, size.num_heads, 4 * dim, nn.GELU, qkv_bias=paper) for _ in range(size.depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)

    def forward(self, patches: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return what patches, [B, h*w, dim], and latents, [B, n, dim], become."""
        batch, length = len(patches), latents.shape[1]
        if self.class_token is not None:
            patches = torch.cat([self.class_token.expand(batch, -1, -1), patches], dim=1)
        if self.latent_positions is not None:
            latents = latents + self.latent_positions[:length]
        tokens = torch.cat([patches + self.positions(), latents], dim=1)  # [B, 1 + h*w + n, dim]
        tokens = self.norm(self.blocks(self.norm_in(tokens)))
        return tokens[:, int(self.class_token is not None) : -length], tokens[:, -length:]

    def positions(self) -> Tensor:
        """Return what is added to the class token, where there is one, and to the patches, [1 + h*w, dim]."""
        if self.grid == self.learned_grid:
            return self.patch_positions
        first = len(self.patch_positions) - math.prod(self.learned_grid)  # the class token lies at no place
        places = interpolated_positions(self.patch_positions[None, first:], self.learned_grid, self.grid)
        return torch.cat([self.patch_positions[:first], places[0]])


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] to continuous codes z [B, D, 1, N]."""

    is_sequence = True
    decodes_parts = False

    def __init__(
        self,
        codebook_dim: int,
        size: Size,
        patch_size: int,
        image_size: int,
        learned_grid: Grid,
        num_tokens: int,
        variant: str,
        legacy: bool,
    ) -> None:
        super().__init__()
        self.downsample_factor, self.image_size, self.num_tokens, self.legacy = (
            patch_size,
            image_size,
            num_tokens,
            legacy,
        )
        paper = variant == "paper"
        self.low, self.width = (0.0, 1.0) if paper else (-1.0, 2.0)  # of the range of images that the weights are for
        dim = size.hidden_dim
        self.from_pixels = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        grid = (image_size // patch_size, image_size // patch_size)
        self.side = _Side(size, (grid, learned_grid), num_tokens, paper, latent_positions=paper)
        self.latent_tokens = nn.Parameter((dim**-0.5 if paper else 0.02) * torch.randn(num_tokens, dim))
        self.to_codes = nn.Conv2d(dim, codebook_dim, 1)
        _initialise(self, paper)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (1, N); raises ValueError for images of another size than that whose positions were learned."""
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"Images of {height}x{width} pixels have no learned positions, only {self.image_size}x{self.image_size} have: "
                f"take images of the size trained on, or a network of another image_size with positions_size "
                f"{self.downsample_factor * self.side.learned_grid[0]}, which takes the same weights to images of that size."
            )
        return 1, self.num_tokens

    def draw_num_tokens(self) -> int | None:
        """Return n in 1 ... N as `prefixes` says; None: all tokens."""
        if self.prefixes is None:
            return None
        lengths = list(range(1, self.num_tokens + 1))
        if self.prefixes == "powers":
            lengths = [n for n in lengths if n.bit_count() == 1 or n == self.num_tokens]
        return lengths[int(torch.randint(len(lengths), ()))]

    def forward(self, images: Tensor) -> Tensor:
        self.grid(*images.shape[2:])
        pixels = self.low + self.width * (images + 1) / 2
        patches = self.from_pixels(pixels).flatten(2).transpose(1, 2)  # [B, h*w, dim]
        _, latents = self.side(patches, self.latent_tokens.expand(len(images), -1, -1))  # [B, N, dim]
        if self.legacy:
            latents = latents.reshape(len(latents), -1, 1, self.num_tokens)  # [B, dim, 1, N]: read, not transposed
        else:
            latents = latents.transpose(1, 2).unsqueeze(2)  # [B, dim, 1, N]
        return self.to_codes(latents)


class PixelHead(nn.Module):
    """What each patch has become to its pixels, and a convolution over their borders."""

    def __init__(self, dim: int, patch_size: int, paper: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.to_patches = nn.Conv2d(dim, 3 * patch_size**2, 1)
        self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        _initialise(self, paper)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution."""
        return self.smooth.weight

    def forward(self, features: Tensor) -> Tensor:
        patches = self.to_patches(features).flatten(2).transpose(1, 2)  # [B, h*w, p * p * 3]
        patches = patches.unflatten(2, (self.patch_size**2, 3)).transpose(2, 3).flatten(2)  # [B, h*w, 3 * p * p]
        return self.smooth(unpatchify(patches, features.shape[2:], self.patch_size))  # [B, 3, H, W]


@dataclasses.dataclass(frozen=True)
class Proxies:
    """The tokenizer of a grid whose codes are predicted, as `pixel_decoder` describes it.

    Attributes:
        network, network_options: as of `VisualTokenizer`.
        codebook_size: K', codes.
        codebook_dim: D', channels of a code.
    """

    network: str
    codebook_size: int
    codebook_dim: int
    network_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("codebook_size", "codebook_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"pixel_decoder: {name} is {getattr(self, name)}, but must be at least 1.")

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """Return them of a dict of the attributes; ValueError or TypeError where it is none."""
        for name in ("network", "codebook_size", "codebook_dim"):
            if name not in settings:
                raise ValueError(
                    f"pixel_decoder has no {name!r}: it describes the tokenizer whose codes are predicted."
                )
        return call_with_options("pixel_decoder", cls, settings)


class ProxyHead(nn.Module):
    """What each patch has become to logits of its proxy; their softmax times the pixel codebook into the pixel decoder.

    Attributes:
        pixel_codebook: float [K', D'], the codes of the other tokenizer as its decoder sees them.
        pixel_decoder: its decoder.
        build_network: `networks.build`; the registry, which knows the names, hands it over.
    """

    build_network: ClassVar[Callable[..., tuple[nn.Module, nn.Module]]]

    def __init__(self, dim: int, image_size: int, grid: Grid, proxies: "Proxies") -> None:
        super().__init__()
        size, network_options = proxies.codebook_size, proxies.network_options or {}
        refuse_settings_among("network_options of pixel_decoder", network_options, ("codebook_dim", "image_size"))
        self.predict = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.Tanh(), nn.Conv2d(2 * dim, size, 1))
        _initialise(self.predict, paper=True)
        settings = {"codebook_dim": proxies.codebook_dim, "image_size": image_size}
        encoder, self.pixel_decoder = self.build_network(proxies.network, **settings, **network_options)
        if (found := encoder.grid(image_size, image_size)) != grid:
            other = "" if encoder.is_sequence else f", or patch_size {image_size // found[0]}"
            raise ValueError(
                f"pixel_decoder {proxies.network!r} has {found[0]}x{found[1]} tokens for images of {image_size} pixels, but "
                f"there are {grid[0]}x{grid[1]} patches: a tokenizer with a grid of that size is needed{other}."
            )
        self.pixel_codebook = nn.Parameter(torch.randn(size, proxies.codebook_dim))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the pixel decoder's last layer."""
        return self.pixel_decoder.last_layer

    def forward(self, features: Tensor) -> Tensor:
        shares = self.predict(features).softmax(1)  # [B, K', h, w]
        return self.pixel_decoder(torch.einsum("bkhw,kd->bdhw", shares, self.pixel_codebook.to(shares.dtype)))


class Decoder(nn.Module):
    """Codes [B, D, 1, n], the first n <= N of a sequence, to images [B, 3, H, W], about [-1, 1] and not bounded."""

    def __init__(
        self,
        codebook_dim: int,
        size: Size,
        grid: Grid,
        learned_grid: Grid,
        num_tokens: int,
        variant: str,
        head: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.grid, self.num_tokens, paper = grid, num_tokens, variant == "paper"
        dim = size.hidden_dim
        self.from_codes = nn.Linear(codebook_dim, dim)
        self.mask_token = nn.Parameter((dim**-0.5 if paper else 0.02) * torch.randn(1, *[1] * paper, dim))
        self.side = _Side(size, (grid, learned_grid), num_tokens, paper, latent_positions=True)
        _initialise(self, paper)
        self.head = head()
        self.paints_unit = isinstance(self.head, PixelHead) and paper  # in [0, 1], as its encoder sees images

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer, where the adaptive adversarial weight compares gradients."""
        return self.head.last_layer

    @property
    def has_proxies(self) -> bool:
        """Whether it predicts the codes of another tokenizer, which that one's decoder paints."""
        return isinstance(self.head, ProxyHead)

    def features(self, codes: Tensor) -> Tensor:
        """Return what the patches have become, [B, dim, h, w].

        Raises:
            ValueError: the codes are no sequence, or longer than N.
        """
        batch, _, height, length = codes.shape
        if height != 1 or not 1 <= length <= self.num_tokens:
            raise ValueError(
                f"Codes of {height}x{length} tokens are no sequence that this decoder takes: 1x1 to 1x{self.num_tokens} are."
            )
        latents = self.from_codes(codes.flatten(2).transpose(1, 2))  # [B, n, dim]
        patches = self.mask_token.expand(batch, self.grid[0] * self.grid[1], -1)
        patches, _ = self.side(patches, latents)
        return patches.transpose(1, 2).unflatten(2, self.grid)

    def take_painting(self, codebook: Tensor, decoder: nn.Module) -> None:
        """Copy the codebook, float [K', D'], and the weights of the decoder of the tokenizer whose codes are predicted."""
        with torch.no_grad():
            self.head.pixel_codebook.copy_(codebook)
        self.head.pixel_decoder.load_state_dict(decoder.state_dict())

    def freeze_painting(self) -> None:
        """Leave what `take_painting` copies out of training."""
        self.head.pixel_codebook.requires_grad_(False)
        self.head.pixel_decoder.requires_grad_(False)

    def predict(self, codes: Tensor) -> Tensor:
        """Return the logits of the proxies, float [B, K', h, w], of codes [B, D, 1, n], where the head is a `ProxyHead`."""
        return self.head.predict(self.features(codes))

    def forward(self, codes: Tensor) -> Tensor:
        images = self.head(self.features(codes))
        return 2 * images - 1 if self.paints_unit else images


def _initialise(side: nn.Module, paper: bool) -> None:
    """Draw weights as the originals do: normal with std 0.02, in the paper's code Xavier-uniform for q, k and v.

    The paper's code cuts the normal distribution off, but at 2, a hundred times its width.
    """

    def draw(name: str, weight: Tensor) -> None:
        if paper and name.endswith("to_qkv"):
            nn.init.xavier_uniform_(weight)
        else:
            nn.init.normal_(weight, std=0.02)

    initialise(side, draw)


def build(
    codebook_dim: int,
    hidden_dim: int = 512,
    depth: int = 8,
    num_heads: int | None = None,
    decoder_hidden_dim: int | None = None,
    decoder_depth: int | None = None,
    decoder_num_heads: int | None = None,
    num_tokens: int = 32,
    patch_size: int = 16,
    image_size: int = 256,
    positions_size: int | None = None,
    variant: str = "paper",
    legacy: bool = False,
    prefixes: str | None = None,
    pixel_decoder: dict[str, Any] | None = None,
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes.
        hidden_dim: channels of a token; a multiple of `num_heads`.
        depth: transformer blocks.
        num_heads: of attention; None: one for each 64 channels.
        decoder_hidden_dim, decoder_depth, decoder_num_heads: the same of the decoder; None: those of the encoder.
        num_tokens: N, tokens of an image.
        patch_size: p, pixels a patch along a side.
        image_size: pixels, height and width of all images; a multiple of `patch_size`.
        positions_size: pixels, height and width of the images whose positions were learned, where these are others than
            `image_size`: they are interpolated; None: none are.
        variant: "paper", or "visual-tokenizer-pytorch".
        legacy: shuffle the latents as the first published checkpoints do.
        prefixes: "uniform" or "powers", to train on beginnings of sequences; None: on whole ones.
        pixel_decoder: the tokenizer of a grid whose codes are predicted, one for each patch: its `network`,
            `network_options`, `codebook_size` and `codebook_dim`; None: pixels are painted.

    Raises:
        ValueError: an option is out of range; the sentence names the nearest valid one.
    """
    check_known("variant is", variant, VARIANTS)
    if prefixes is not None:
        check_known("prefixes is", prefixes, PREFIXES)
    if decoder_num_heads is None and decoder_hidden_dim is None:
        decoder_num_heads = num_heads
    dims = {
        "hidden_dim": hidden_dim,
        "decoder_hidden_dim": hidden_dim if decoder_hidden_dim is None else decoder_hidden_dim,
    }
    depths = {"depth": depth, "decoder_depth": depth if decoder_depth is None else decoder_depth}
    heads = {"num_heads": num_heads, "decoder_num_heads": decoder_num_heads}
    for name, dim in zip(heads, dims.values(), strict=True):
        heads[name] = max(1, dim // HEAD_DIM) if heads[name] is None else heads[name]
    images = {"image_size": image_size, "positions_size": image_size if positions_size is None else positions_size}
    others = {"num_tokens": num_tokens, "patch_size": patch_size}
    multiples = {"hidden_dim": "num_heads", "decoder_hidden_dim": "decoder_num_heads"} | dict.fromkeys(
        images, "patch_size"
    )
    check_sizes(depths | heads | others | dims | images, multiples)
    grid, learned_grid = ((size // patch_size, size // patch_size) for size in images.values())
    sizes = [Size(*side) for side in zip(dims.values(), depths.values(), heads.values(), strict=True)]

    def head() -> nn.Module:
        if pixel_decoder is None:
            return PixelHead(sizes[1].hidden_dim, patch_size, variant == "paper")
        return ProxyHead(sizes[1].hidden_dim, image_size, grid, Proxies.of(pixel_decoder))

    encoder = Encoder(codebook_dim, sizes[0], patch_size, image_size, learned_grid, num_tokens, variant, legacy)
    encoder.prefixes = prefixes
    return encoder, Decoder(codebook_dim, sizes[1], grid, learned_grid, num_tokens, variant, head)
