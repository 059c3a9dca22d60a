"""The emoji model's architecture: a StableDiffusion3Pipeline small enough for a laptop."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

IMAGE_SIZE = 128
LATENT_SHAPE = (16, 16, 16)
MAX_TOKENS = 31  # with the folded zero token and 64 image patches: 96, a multiple of 8
SHIFT = 3.0
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Size:
    """Widths and depths of the four networks."""

    autoencoder: tuple[int, ...]
    layers: int
    heads: int
    head_dim: int
    text_width: int
    text_layers: int
    vocabulary: int


SIZES = {
    "emoji": Size((32, 64, 128, 192), 8, 4, 64, 160, 4, 3072),
    "tiny": Size((16, 16, 16, 16), 2, 2, 16, 16, 2, 514),
}


def find_size(name: str) -> Size:
    """The size of a name.

    Raises:
        ValueError: if it is not one of `SIZES`.
    """
    if name not in SIZES:
        raise ValueError(f"size = {name!r} is not one of {', '.join(SIZES)}")
    return SIZES[name]


def build_pipeline(size: str = "emoji", seed: int = 0, corpus: Iterable[str] = ()):
    """A StableDiffusion3Pipeline with random weights, without T5.

    Args:
        size: "emoji" (the bundled model's) or "tiny" (for tests).
        seed: of the weights.
        corpus: captions to learn the tokenizer's merges from; none gives a byte tokenizer.

    Raises:
        ValueError: if `size` is not one of `SIZES`.
    """
    dims = find_size(size)
    tokenizer = build_tokenizer(corpus, dims.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StableDiffusion3Pipeline(
            transformer=build_transformer(dims),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            vae=build_autoencoder(dims),
            text_encoder=build_text_encoder(dims, tokenizer),
            tokenizer=tokenizer,
            text_encoder_2=build_text_encoder(dims, tokenizer),
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )


def build_transformer(dims: Size) -> SD3Transformer2DModel:
    """SD3's transformer on 16 x 16 x 16 latents; modulations and output start at zero."""
    width = dims.heads * dims.head_dim
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SHAPE[1],
        patch_size=2,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_layers=dims.layers,
        attention_head_dim=dims.head_dim,
        num_attention_heads=dims.heads,
        joint_attention_dim=2 * dims.text_width,
        caption_projection_dim=width,
        pooled_projection_dim=2 * dims.text_width,
        pos_embed_max_size=LATENT_SHAPE[1] // 2,
        qk_norm="rms_norm",
    )
    # adaLN-Zero (Peebles & Xie 2023): every block starts as the identity
    zero = [transformer.proj_out, transformer.norm_out.linear]
    for block in transformer.transformer_blocks:
        zero += [block.norm1.linear, block.norm1_context.linear]
    for layer in zero:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return transformer


def build_autoencoder(dims: Size) -> AutoencoderKL:
    """An f8 autoencoder with 16 latent channels; scale and shift are measured after training."""
    widths = dims.autoencoder
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_SHAPE[0],
        norm_num_groups=16,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_text_encoder(dims: Size, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A small CLIP text encoder. Its EOS id is not 2, which would select a legacy pooling."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=dims.text_width,
        intermediate_size=4 * dims.text_width,
        num_hidden_layers=dims.text_layers,
        num_attention_heads=max(1, dims.text_width // 32),
        projection_dim=dims.text_width,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_tokenizer(corpus: Iterable[str], vocabulary: int) -> CLIPTokenizer:
    """A CLIP tokenizer over all 512 byte symbols plus merges learnt from the corpus.

    Byte-complete: any text has tokens, known words or not.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = alphabet + [symbol + "</w>" for symbol in alphabet]
    merges = _learn_merges(corpus, vocabulary - 2)
    for left, right in merges:
        if left + right not in symbols:
            symbols.append(left + right)
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={symbol: index for index, symbol in enumerate(symbols)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )


def _learn_merges(corpus: Iterable[str], symbols: int) -> list[tuple[str, str]]:
    """Byte-pair merges, as many as make `symbols` symbols in all."""
    stock = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = stock.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=symbols - 256,  # the trainer's own alphabet lacks most of the 256 word ends
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]


def save_pipeline(pipe: StableDiffusion3Pipeline, folder: str | Path) -> None:
    """Write the pipeline as bf16 safetensors that a plain stock load reads as float32.

    transformers loads encoders in the dtype their config names, diffusers the rest as float32; so
    the encoders' configs must say float32 too, or the first call mixes both.
    """
    folder = Path(folder)
    networks = ("transformer", "vae", "text_encoder", "text_encoder_2")
    halved = {name: copy.deepcopy(getattr(pipe, name)).to(torch.bfloat16) for name in networks}
    stock = StableDiffusion3Pipeline(**(pipe.components | halved))
    stock.save_pretrained(folder, max_shard_size="15MB")
    for name in ("text_encoder", "text_encoder_2"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def write_tiny_teacher(folder: Path) -> None:
    """A pipeline of random weights, no layer of it zero, for tests: its pictures show nothing."""
    pipe = build_pipeline("tiny", seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.1, generator=generator)
    save_pipeline(pipe, folder)
