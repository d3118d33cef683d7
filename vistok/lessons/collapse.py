"""Why a codebook collapses: where the encoder's outputs and the codes are, step by step, while a training begins."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from vistok.system.devices import eval_view
from vistok.tokenizer import VisualTokenizer


@dataclasses.dataclass(frozen=True)
class Moment:
    """Encoder outputs and codes at one step.

    Attributes:
        step: optimiser steps taken.
        outputs: root mean square of the outputs' distances from the origin.
        dimensions: in how many dimensions the outputs spread, in [1, D]: the participation ratio of the eigenvalues of their
            covariance, (sum e)^2 / sum e^2. 1: they lie on a line.
        brightness: correlation, in [0, 1], of their places along their main direction with the brightness of their patches.
        codes: the same as `outputs`, of the code that each output chooses.
        chosen: number of codes that the outputs choose.
        moved: number of codes that training has moved at all so far.
    """

    step: int
    outputs: float
    dimensions: float
    brightness: float
    codes: float
    chosen: int
    moved: int


class CollapseWatch:
    """Looks at one tokenizer again and again while it is trained.

    watch = CollapseWatch(trainer.tokenizer, images)
    for report in trainer:
        watch.look(report.step)

    Attributes:
        moments: what was seen so far; the first one, of step 0, when the watch was made.
    """

    def __init__(self, tokenizer: VisualTokenizer, images: Tensor) -> None:
        """Take a first look.

        Args:
            tokenizer: with one codebook; on any device.
            images: float [N, 3, H, W] in [-1, 1], whose tokens are looked at.

        Raises:
            ValueError: there are several codebooks; the images do not fit.
        """
        if len(tokenizer.quantizer.codebook_sizes) != 1:
            raise ValueError(
                f"The tokenizer has {len(tokenizer.quantizer.codebook_sizes)} codebooks, but only one can be watched."
            )
        self._tokenizer, self._images = tokenizer, tokenizer.check_images(images)
        self._first = tokenizer.quantizer.codebook.detach().clone()
        self.moments: list[Moment] = []
        self.look(0)

    @torch.no_grad()
    def look(self, step: int) -> Moment:
        """Add a moment to `moments`, and return it."""
        output = eval_view(self._tokenizer)(self._images)  # an EMA codebook would move otherwise
        outputs = output.z.permute(0, 2, 3, 1).flatten(0, 2).float()  # [N*h*w, D]
        codebook = self._tokenizer.quantizer.codebook
        variances, directions = torch.linalg.eigh(
            outputs.T.cov().reshape(outputs.shape[1], -1)
        )  # the largest comes last
        variances = variances.clamp(min=0)
        patches = F.adaptive_avg_pool2d(self._images.mean(1), output.z.shape[2:])  # [N, h, w]
        brightness = patches.flatten().to(outputs)
        indices = output.indices.flatten()
        moment = Moment(
            step=step,
            outputs=float(outputs.square().sum(1).mean().sqrt()),
            dimensions=float(variances.sum().square() / variances.square().sum()),
            brightness=float(torch.stack([outputs @ directions[:, -1], brightness]).corrcoef()[0, 1].abs()),
            codes=float(codebook[indices].square().sum(1).mean().sqrt()),
            chosen=len(indices.unique()),
            moved=int((codebook != self._first).any(1).sum()),
        )
        self.moments.append(moment)
        return moment
