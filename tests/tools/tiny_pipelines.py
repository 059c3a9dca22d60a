"""Random pipelines of other families, as small as their classes allow, without text encoders.

Each entry is a transformer and what the call needs in place of a prompt; the autoencoder is left
out, since the tests look at latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch


def noise(*shape: int) -> torch.Tensor:
    """The same numbers for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def mask(batch: int, tokens: int) -> torch.Tensor:
    """All tokens are seen."""
    return torch.ones(batch, tokens, dtype=torch.long)


@dataclass(frozen=True)
class Tiny:
    """How to build and call a pipeline.

    Attributes:
        transformer: name of the network's class.
        sizes: its arguments.
        call: makes the arguments of a call.
        parts: what else the pipeline is built from.
        config: of the scheduler.
    """

    transformer: str
    sizes: dict[str, Any]
    call: Callable[[], dict[str, Any]]
    parts: Callable[[], dict[str, Any]] = dict
    config: dict[str, Any] = field(default_factory=dict)

    def build(self, name: str, scheduler: Any) -> Any:
        """The pipeline of class `name`; the same weights every time."""
        kind = getattr(diffusers, name)
        torch.manual_seed(0)
        network = getattr(diffusers, self.transformer)(**self.sizes).eval()
        given = {"transformer": network, "scheduler": scheduler, **self.parts()}
        pipe = kind(**{**dict.fromkeys(parts_of(kind)), **given})
        pipe.set_progress_bar_config(disable=True)
        return pipe


def parts_of(kind: type) -> list[str]:
    """The parts that a pipeline class must be given."""
    return sorted(kind._get_signature_keys(kind)[0])


def picture_autoencoder() -> diffusers.AutoencoderKL:
    """For the pipeline that reads its settings before it decodes: Bria's."""
    return diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, shift_factor=0.0)


def video_autoencoder() -> diffusers.AutoencoderKLLTXVideo:
    """For the pipeline that asks for its precision: LTX-Video with conditions."""
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), layers_per_block=(1, 1, 1, 1, 1),
        decoder_block_out_channels=(8, 8, 8, 8), decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip


def unguided(shape: tuple[int, ...], **given: Any) -> Callable[[], dict[str, Any]]:
    """A call with one prompt of these embeddings and no guidance."""
    return lambda: {"prompt_embeds": noise(*shape), "guidance_scale": 1.0, **given}


PIPELINES = {
    "StableDiffusion3Pipeline": Tiny(
        "SD3Transformer2DModel",
        dict(sample_size=4, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
             num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16,
             pooled_projection_dim=8, out_channels=4, pos_embed_max_size=8),
        unguided((1, 3, 8), pooled_prompt_embeds=noise(1, 8), height=32, width=32),
    ),
    "FluxPipeline": Tiny(
        "FluxTransformer2DModel",
        dict(patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
             attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
             pooled_projection_dim=8, axes_dims_rope=[2, 2, 4]),
        unguided((1, 3, 8), pooled_prompt_embeds=noise(1, 8), height=32, width=32),
    ),
    "AuraFlowPipeline": Tiny(
        "AuraFlowTransformer2DModel",
        dict(sample_size=4, patch_size=1, in_channels=4, num_mmdit_layers=1,
             num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=2,
             joint_attention_dim=8, caption_projection_dim=16, pos_embed_max_size=64),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3), height=32, width=32),
    ),
    "LuminaPipeline": Tiny(
        "LuminaNextDiT2DModel",
        dict(sample_size=4, patch_size=2, in_channels=4, hidden_size=24, num_layers=1,
             num_attention_heads=3, num_kv_heads=1, multiple_of=8, cross_attention_dim=8),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3), height=32, width=32),
    ),
    "Lumina2Pipeline": Tiny(
        "Lumina2Transformer2DModel",
        dict(sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=1,
             num_refiner_layers=1, num_attention_heads=1, num_kv_heads=1, multiple_of=8,
             axes_dim_rope=(4, 2, 2), axes_lens=(32, 32, 32), cap_feat_dim=8),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3), height=32, width=32),
    ),
    "CogView4Pipeline": Tiny(
        "CogView4Transformer2DModel",
        dict(patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4,
             num_attention_heads=2, out_channels=4, text_embed_dim=8, time_embed_dim=8,
             condition_dim=4),
        unguided((1, 16, 8), height=32, width=32),
        config={"use_dynamic_shifting": True, "time_shift_type": "linear"},
    ),
    "GlmImagePipeline": Tiny(
        "GlmImageTransformer2DModel",
        dict(patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
             num_attention_heads=2, text_embed_dim=8, time_embed_dim=8, condition_dim=4,
             prior_vq_quantizer_codebook_size=8),
        unguided((1, 4, 8), prior_token_ids=torch.zeros(1, 4, dtype=torch.long), height=32,
                 width=32),
        config={"use_dynamic_shifting": True, "time_shift_type": "linear"},
    ),
    "QwenImagePipeline": Tiny(
        "QwenImageTransformer2DModel",
        dict(patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8,
             num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(4, 2, 2)),
        lambda: {"prompt_embeds": noise(1, 3, 8), "prompt_embeds_mask": mask(1, 3),
                 "true_cfg_scale": 1.0, "height": 32, "width": 32},
        config={"use_dynamic_shifting": True, "shift_terminal": 0.02},
    ),
    "LTXPipeline": Tiny(
        "LTXVideoTransformer3DModel",
        dict(in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8,
             cross_attention_dim=16, num_layers=1, caption_channels=8),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3), height=32, width=32, num_frames=9),
        config={"use_dynamic_shifting": True, "shift_terminal": 0.1},
    ),
    "ZImagePipeline": Tiny(
        "ZImageTransformer2DModel",
        dict(in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
             cap_feat_dim=8, axes_dims=[4, 2, 2], axes_lens=[64, 32, 32]),
        lambda: {"prompt_embeds": [noise(3, 8)], "guidance_scale": 0.0, "height": 32,
                 "width": 32},
        config={"shift": 3.0},
    ),
    "HunyuanVideoPipeline": Tiny(
        "HunyuanVideoTransformer3DModel",
        dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
             num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=1,
             text_embed_dim=8, pooled_projection_dim=8, rope_axes_dim=(2, 2, 4)),
        unguided((1, 3, 8), pooled_prompt_embeds=noise(1, 8), prompt_attention_mask=mask(1, 3),
                 height=16, width=16, num_frames=5),
        config={"shift": 7.0},
    ),
    "WanPipeline": Tiny(
        "WanTransformer3DModel",
        dict(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
             text_dim=8, freq_dim=8, ffn_dim=16, num_layers=1, rope_max_seq_len=16),
        unguided((1, 3, 8), height=16, width=16, num_frames=5),
        config={"shift": 3.0},
    ),
    "SanaPipeline": Tiny(
        "SanaTransformer2DModel",
        dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
             num_layers=1, num_cross_attention_heads=2, cross_attention_head_dim=8,
             cross_attention_dim=16, caption_channels=8, sample_size=1),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3), height=32, width=32,
                 use_resolution_binning=False),
        config={"shift": 3.0},
    ),
    "Kandinsky5T2IPipeline": Tiny(
        "Kandinsky5Transformer3DModel",
        dict(in_text_dim=8, in_text_dim2=8, time_dim=8, model_dim=16, ff_dim=16,
             num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4)),
        lambda: {"prompt_embeds_qwen": noise(1, 3, 8), "prompt_embeds_clip": noise(1, 8),
                 "prompt_cu_seqlens": torch.tensor([0, 3]), "guidance_scale": 1.0,
                 "height": 32, "width": 32},
        config={"shift": 3.0},
    ),
    "PRXPipeline": Tiny(
        "PRXTransformer2DModel",
        dict(in_channels=4, patch_size=2, context_in_dim=8, hidden_size=16, mlp_ratio=2.0,
             num_heads=2, depth=1, axes_dim=[4, 4]),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3).bool(), height=32, width=32,
                 use_resolution_binning=False),
        config={"shift": 3.0},
    ),
    "HiDreamImagePipeline": Tiny(
        "HiDreamImageTransformer2DModel",
        dict(patch_size=16, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1,
             attention_head_dim=8, num_attention_heads=2, caption_channels=[8, 8],
             text_emb_dim=8, axes_dims_rope=(4, 2, 2), max_resolution=(8, 8), llama_layers=(0, 0)),
        lambda: {"prompt_embeds_t5": noise(1, 3, 8), "prompt_embeds_llama3": noise(1, 1, 3, 8),
                 "pooled_prompt_embeds": noise(1, 8), "guidance_scale": 1.0, "height": 32,
                 "width": 32},
        config={"shift": 3.0},
    ),
    "ChromaPipeline": Tiny(
        "ChromaTransformer2DModel",
        dict(in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
             num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(2, 2, 4),
             approximator_num_channels=8, approximator_hidden_dim=8, approximator_layers=1),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3).bool(), height=32, width=32),
    ),
    "MochiPipeline": Tiny(
        "MochiTransformer3DModel",
        dict(num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=8,
             in_channels=4, text_embed_dim=8, time_embed_dim=4, max_sequence_length=3),
        unguided((1, 3, 8), prompt_attention_mask=mask(1, 3).bool(), height=16, width=16,
                 num_frames=7),
        parts=lambda: {"force_zeros_for_empty_prompt": False},
        config={"invert_sigmas": True},
    ),
    "BriaPipeline": Tiny(
        "BriaTransformer2DModel",
        dict(in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
             num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=[0, 4, 4]),
        unguided((1, 3, 8), height=32, width=32),
        parts=lambda: {"vae": picture_autoencoder()},
    ),
    "OvisImagePipeline": Tiny(
        "OvisImageTransformer2DModel",
        dict(in_channels=16, out_channels=16, num_layers=1, num_single_layers=1,
             attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
             axes_dims_rope=(2, 2, 4)),
        unguided((1, 3, 8), height=32, width=32),
    ),
}  # fmt: skip
PIPELINES["LTXConditionPipeline"] = Tiny(
    "LTXVideoTransformer3DModel",
    PIPELINES["LTXPipeline"].sizes,
    PIPELINES["LTXPipeline"].call,
    parts=lambda: {"vae": video_autoencoder()},
)
