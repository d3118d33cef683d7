"""The discriminator's side of adversarial training: its network, its optimiser, and what it tells the tokenizer.

Both sides use one pass of the tokenizer: the reconstructions that the tokenizer is taught by are those that the
discriminator learns from, before the tokenizer's step. (taming-transformers makes them anew after it.)
"""

import torch
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.losses import LeCam, adaptive_weight, discriminator_loss, generator_loss, r1_penalty
from vistok.networks import discriminators
from vistok.system.processes import share_model
from vistok.training.optimization import build_optimizer


class Adversary:
    """A discriminator that learns to tell images from reconstructions.

    Attributes:
        discriminator: the network.
        optimizer: of its weights.
        lecam: the regulariser with its moving averages, or None.
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
        self.config, self.device, self.dtype = config, device, dtype
        self.discriminator = discriminators.build(
            config.discriminator, image_size=config.image_size, **config.discriminator_options
        ).to(device)
        lr = config.discriminator_lr or config.lr
        self.optimizer = build_optimizer(config, self.discriminator.parameters(), lr)
        self._model = share_model(self.discriminator, device)
        self.lecam = LeCam(logits=config.lecam_logits).to(device) if config.lecam_weight else None
        self._mean_logits: list[Tensor] = []  # of the parts of a batch

    def tokenizer_losses(
        self, reconstruction: Tensor, reconstruction_terms: Tensor, last_layer: Tensor
    ) -> tuple[Tensor, float | Tensor]:
        """Return the adversarial loss of the tokenizer, unweighted, and its weight.

        Args:
            reconstruction: float [B, 3, H, W], with its graph.
            reconstruction_terms: scalar, the weighted sum that an adaptive weight is in proportion to.
            last_layer: the weight of the decoder's last layer.
        """
        self.discriminator.requires_grad_(False)  # this loss is the tokenizer's: no gradients here
        with self._autocast():
            logits = self.discriminator(reconstruction)
        self.discriminator.requires_grad_(True)
        loss = generator_loss(logits.float(), self.config.adversarial_loss)
        weight: float | Tensor = self.config.adversarial_weight
        if self.config.adversarial_adaptive:
            weight = weight * adaptive_weight(reconstruction_terms, loss, last_layer)
        return loss, weight

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
        torch.clear_autocast_cache()  # with autocast on outside too it holds the weights of the step before
        with self._autocast():
            # Two passes: one over both halves would mix their batch statistics.
            real, fake = self._model(images).float(), self._model(reconstruction.detach()).float()
        losses = {"discriminator": discriminator_loss(real, fake, self.config.adversarial_loss)}
        total = losses["discriminator"]
        if self.lecam:
            losses["lecam"] = self.lecam(real, fake)
            self._mean_logits.append(torch.stack([real.mean(), fake.mean()]).detach())
            total = total + self.config.lecam_weight * losses["lecam"]
        if self.config.r1_weight and step % self.config.r1_every == 0:  # lazily, StyleGAN2, appendix B
            with torch.autocast(images.device.type, enabled=False):  # gradients of gradients, in float32
                losses["r1"] = r1_penalty(self._model, images)
            total = total + self.config.r1_weight * self.config.r1_every * losses["r1"]
        (share * total).backward()
        losses |= {"logits_real": real.mean(), "logits_fake": fake.mean()}
        return {name: loss.detach() for name, loss in losses.items()}

    def step(self) -> None:
        """Take the optimiser step that the gradients ask for."""
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.lecam:
            self.lecam.update(torch.stack(self._mean_logits).mean(0))
            self._mean_logits = []

    def state_dict(self) -> dict[str, object]:
        """Return all that a checkpoint needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lecam": self.lecam.state_dict() if self.lecam else None,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` returned, also amid a step that failed."""
        self._mean_logits = []
        self.discriminator.requires_grad_(True)
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lecam:
            self.lecam.load_state_dict(state["lecam"])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
