"""Numbers of a pipeline's configurations that no weight's shape would betray.

Each check takes a configuration and where it comes from, and raises a one-line `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowsteer.validation import check_number, check_whole_number, shorten

Config = Mapping[str, Any]

MOST_WHOLE = 1_000_000  # of any whole number: the largest vocabularies have 262,144 words
MOST_LABELS = 1000  # transformers makes a list of them, whatever they are for
MOST_LENGTH = 1000  # of any list: layers, channels
MOST_SAMPLE = 8192  # pixels
MOST_TRAIN_TIMESTEPS = 100_000
ATTENTION = (None, "eager", "sdpa")  # others are fetched, or ask for packages

_SWITCHES = (
    "invert_sigmas",
    "stochastic_sampling",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_karras_sigmas",
)


def check_scheduler_numbers(values: Config, where: str) -> None:
    """A flow-matching scheduler's: what a grid is computed from."""
    _check_bounds(values, where)
    _whole(values, "num_train_timesteps", where, 1, MOST_TRAIN_TIMESTEPS)
    _number(values, "shift", where, 1e-3, 1000)
    for name in ("base_shift", "max_shift"):
        _number(values, name, where, -20, 20, or_none=True)  # exponents
    for name in ("base_image_seq_len", "max_image_seq_len"):
        _whole(values, name, where, 1, MOST_WHOLE, or_none=True)
    if values.get("use_dynamic_shifting") and "base_image_seq_len" in values:
        low, high = values["base_image_seq_len"], values.get("max_image_seq_len")
        if low is not None and low == high:
            raise ValueError(
                f"{where}: base_image_seq_len = max_image_seq_len = {low}; see its card"
            )
    _number(values, "shift_terminal", where, 1e-6, 1 - 1e-6, or_none=True)
    for name in _SWITCHES:
        if not isinstance(values.get(name, False), bool | None):
            raise ValueError(f"{where}: {name} = {shorten(values[name])} must be true or false")


def _check_sd3(values: Config, where: str) -> None:
    _check_bounds(values, where)
    for name in ("patch_size", "in_channels", "num_layers", "attention_head_dim"):
        _whole(values, name, where, 1, MOST_WHOLE)
    patch = values.get("patch_size", 2)
    most = values.get("pos_embed_max_size", 96)
    _whole(values, "pos_embed_max_size", where, 1, MOST_SAMPLE)
    size = _whole(values, "sample_size", where, patch, most * patch)
    if size is not None and size % patch:
        raise ValueError(
            f"{where}: sample_size = {size} must be a multiple of patch_size = {patch}"
        )


def _check_vae(values: Config, where: str) -> None:
    _check_bounds(values, where)
    _whole(values, "sample_size", where, 1, MOST_SAMPLE, or_none=True)
    for name in ("latent_channels", "layers_per_block", "norm_num_groups"):
        _whole(values, name, where, 1, MOST_WHOLE)
    _number(values, "scaling_factor", where, 1e-6, 1e6)
    _number(values, "shift_factor", where, -1e6, 1e6, or_none=True)
    if not isinstance(values.get("force_upcast", True), bool | None):
        raise ValueError(f"{where}: force_upcast must be true or false")


def _check_text_encoder(values: Config, where: str) -> None:
    _check_bounds(values, where)
    _whole(values, "num_labels", where, 0, MOST_LABELS)
    words = _whole(values, "vocab_size", where, 1, MOST_WHOLE)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        _whole(values, name, where, 0, MOST_WHOLE if words is None else words - 1, or_none=True)
    for name in ("layer_norm_eps", "layer_norm_epsilon"):
        _number(values, name, where, 0, 1)
    for name, value in values.items():
        if name.endswith("attn_implementation") and value not in ATTENTION:
            raise ValueError(f"{where}: {name} = {shorten(value)} is none of eager and sdpa")


CHECKS: Mapping[str, Callable[[Config, str], None]] = {
    "SD3Transformer2DModel": _check_sd3,
    "AutoencoderKL": _check_vae,
    "AutoencoderTiny": _check_vae,
    "CLIPTextModelWithProjection": _check_text_encoder,
    "T5EncoderModel": _check_text_encoder,
}


def check_parts_fit(where: str, configs: Mapping[str, Config]) -> None:
    """Make sure that the networks of a pipeline can pass each other what they make."""
    transformer, vae = configs["transformer"], configs["vae"]
    latent, channels = vae.get("latent_channels"), transformer.get("in_channels")
    _same(where, "vae/latent_channels", latent, "transformer/in_channels", channels)
    _same(
        where,
        "vae/latent_channels",
        latent,
        "transformer/out_channels",
        transformer.get("out_channels"),
    )
    encoders = [configs[n] for n in ("text_encoder", "text_encoder_2") if n in configs]
    if len(encoders) < 2 or any(
        not {"projection_dim", "hidden_size"} <= e.keys() for e in encoders
    ):
        return
    pooled = sum(encoder["projection_dim"] for encoder in encoders)
    _same(
        where,
        "the projection_dim of both text encoders",
        pooled,
        "transformer/pooled_projection_dim",
        transformer.get("pooled_projection_dim"),
    )
    width, room = sum(e["hidden_size"] for e in encoders), transformer.get("joint_attention_dim")
    if room is not None and width > room:
        raise ValueError(
            f"{where}: the text encoders are {width} wide, transformer/joint_attention_dim {room};"
            " they belong to different models"
        )
    third = configs.get("text_encoder_3", {})
    _same(where, "text_encoder_3/d_model", third.get("d_model"), "joint_attention_dim", room)


def check_tokenizer_numbers(where: str, files: Mapping[str, Any], encoder: Config) -> None:
    """Make sure that a tokenizer makes nothing that its text encoder cannot read.

    Args:
        where: its folder.
        files: the content of its JSON files by name.
        encoder: the text encoder's configuration.
    """
    config = files.get("tokenizer_config.json", {})
    if not isinstance(config, dict):
        raise ValueError(f"{where}/tokenizer_config.json must hold a JSON object")
    if (room := encoder.get("max_position_embeddings")) is not None:  # CLIP pads to its length
        name = f"{where}/tokenizer_config.json: model_max_length"
        check_whole_number(name, config.get("model_max_length"), 1, room)
    words = encoder.get("vocab_size")
    ids = _token_ids(files)
    if words is not None and ids and max(ids) >= words:
        raise ValueError(
            f"{where} has a word of number {max(ids):,}, and its text encoder knows {words:,};"
            " they belong to different models"
        )


def _token_ids(files: Mapping[str, Any]) -> list[int]:
    """Every number that a tokenizer's files give to a word."""
    whole = files.get("tokenizer.json")
    whole = whole if isinstance(whole, dict) else {}
    model = whole.get("model")
    vocabularies = [files.get("vocab.json"), files.get("added_tokens.json")]
    vocabularies.append(model.get("vocab") if isinstance(model, dict) else None)
    found = [v for words in vocabularies if isinstance(words, dict) for v in words.values()]
    added = whole.get("added_tokens")
    added = added if isinstance(added, list) else []
    found += [token.get("id") for token in added if isinstance(token, dict)]
    return [number for number in found if type(number) is int]


def _check_bounds(values: Config, where: str) -> None:
    """No whole number and no list is larger than any network's."""
    for name, value in values.items():
        if type(value) is int and abs(value) > MOST_WHOLE:
            raise ValueError(f"{where}: {name} = {shorten(value)} is above {MOST_WHOLE:,}")
        if isinstance(value, (list, dict)):
            if len(value) > MOST_LENGTH:
                raise ValueError(
                    f"{where}: {name} has {len(value):,} values, {MOST_LENGTH:,} at most"
                )
            inner = value if isinstance(value, list) else value.values()
            if any(type(number) is int and abs(number) > MOST_WHOLE for number in inner):
                raise ValueError(f"{where}: {name} = {shorten(value)} is above {MOST_WHOLE:,}")


def _whole(
    values: Config, name: str, where: str, low: int, high: int, or_none: bool = False
) -> int | None:
    """A whole number of a configuration, checked; None if it is not there, or null and may be."""
    value = values.get(name)
    if name not in values or (value is None and or_none):
        return None
    return check_whole_number(f"{where}: {name}", value, low, high)


def _number(
    values: Config, name: str, where: str, low: float, high: float, or_none: bool = False
) -> None:
    value = values.get(name)
    if name in values and not (value is None and or_none):
        check_number(f"{where}: {name}", value, low, high)


def _same(where: str, one: str, value: Any, other: str, expected: Any) -> None:
    if None not in (value, expected) and value != expected:
        raise ValueError(
            f"{where}: {one} is {value} and {other} {expected}; they belong to different models"
        )
