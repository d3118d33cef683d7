"""The discriminator's side of adversarial training: its network, its optimiser and its loss.

Both sides use one pass of the tokenizer: the reconstructions that the tokenizer is taught by are those that the
discriminator learns from, before the tokenizer's step. (taming-transformers makes them anew after it.)
"""

import torch
from torch import Tensor

from vistok.config import TrainConfig
from vistok.losses import DiscriminatorLoss
from vistok.networks import discriminators
from vistok.system.processes import share_model
from vistok.training.optimization import LossScale, build_optimizer


class Adversary:
    """A discriminator that learns to tell images from reconstructions.

    Attributes:
        discriminator: the network.
        optimizer: of its weights.
        loss: what it learns by.
        scale: of that loss, in float16.
    """

    def __init__(self, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Build the discriminator and its optimiser.

        Args:
            config: with `discriminator` set.
            device: of the training.
            dtype: of the convolutions; losses are float32 whatever it is.

        Raises:
            ValueError: the discriminator or an option of it is unknown.
        """
        self.config = config
        self.discriminator = discriminators.build(
            config.discriminator, image_size=config.image_size, **config.discriminator_options
        ).to(device)
        self.loss = DiscriminatorLoss(config, dtype).to(device)
        self.optimizer = build_optimizer(config, self.discriminator, config.discriminator_lr or config.lr)
        self.scale = LossScale(dtype, device)
        self._model = share_model(self.discriminator, device)

    def backward(self, images: Tensor, reconstruction: Tensor, step: int, share: float) -> dict[str, Tensor]:
        """Add the gradients of the discriminator's loss.

        Args:
            images: float32 [B, 3, H, W] in [-1, 1].
            reconstruction: float [B, 3, H, W]; detached here.
            step: steps taken before this one.
            share: of the batch, in (0, 1]; the loss is multiplied by it.

        Returns:
            unweighted losses and mean logits, detached.
        """
        total, losses = self.loss(self._model, images, reconstruction, step)
        self.scale.backward(share * total)
        return {name: loss.detach() for name, loss in losses.items()}

    def step(self) -> None:
        """Take the optimiser step that the gradients ask for, unless they overflowed."""
        if self.scale.step(self.optimizer, self._model.parameters(), self.config.gradient_clip):
            self.loss.update()
        else:
            self.loss.forget()

    def state_dict(self) -> dict[str, object]:
        """Return all that a checkpoint needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lecam": self.loss.lecam.state_dict() if self.loss.lecam else None,
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` returned, also amid a step that failed."""
        self.loss.forget()
        self.optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(True)
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.load_state_dict(state.get("scale"))
        if self.loss.lecam:
            self.loss.lecam.load_state_dict(state["lecam"])
