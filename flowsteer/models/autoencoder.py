"""Between pictures and the latents that a flow model works on.

SD3's autoencoder has a shift as well as a scale: latents are (z - shift_factor) * scaling_factor.
"""

from __future__ import annotations

from diffusers import AutoencoderKL
from torch import Tensor


def encode_pictures(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures (b, 3, h, w) in [-1, 1] to normalised latents (b, c, h / f, w / f).

    The mode of the posterior, in the autoencoder's precision.
    """
    z = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mode()
    return (z - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Normalised latents (b, c, h, w) to pictures (b, 3, f h, f w) in [-1, 1], float32."""
    z = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(z).sample.float().clamp(-1, 1)
