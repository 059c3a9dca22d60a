"""`flowsteer distill`: teach a few-step student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from flowsteer.cli.inputs import check_output_dir, collect_prompts
from flowsteer.limits import Within
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.presets import PRESETS


@dataclass(frozen=True)
class Distill(DistillationConfig):
    """Teach a few-step student; the result is OUTPUT_DIR/student."""

    prompts: Path | None = None
    """File with one prompt a line to learn from; by default captions of emoji scenes."""
    train_data_dir: Path | None = None
    """Folder of captioned pictures to learn from; perflow needs it for any teacher but emoji."""
    cache_samples: Annotated[int | None, Within(1, 1_000_000)] = None
    """Encode this many pictures once and learn from them; unset, new ones in every step."""
    prompt_cache: Path | None = None
    """Folder for the prompts' embeddings, computed once; for --prompts or --train_data_dir."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts is not None and self.train_data_dir is not None:
            raise ValueError("prompts and train_data_dir are both given; the pictures have prompts")

    @classmethod
    def starting_from(cls, words: Sequence[str]) -> Self | None:
        """The preset among the words, whose flags are the defaults of all others."""
        name = None
        for word, following in zip(words, [*words[1:], ""], strict=True):
            flag, _, value = word.partition("=")
            if flag == "--preset":
                name = value or following
        return cls.from_preset(name) if name in PRESETS else None  # else the parser complains

    def run(self) -> None:
        """Train, with a progress bar on stderr; print the student's folder."""
        check_output_dir(self.output_dir)
        texts = None if self.prompts is None else collect_prompts((), self.prompts)
        self._check_source()
        from flowsteer.loading import (
            check_device,
            check_drawable,
            load_pipeline,
            pipeline_info,
            resolve_model,
        )
        from flowsteer.models.schedule import check_schedule_of
        from flowsteer.training.distillation import STUDENT, distill
        from flowsteer.training.machine import check_compiler
        from flowsteer.training.progress import watch
        from flowsteer.training.run_folder import check_run

        check_run(self, STUDENT)
        model = self.pretrained_model_name_or_path
        check_drawable(model)
        check_schedule_of(resolve_model(model), model)
        check_compiler(self.compile, check_device(self.device))
        pipe = load_pipeline(model, device=self.device)
        source, encode = self._source(pipe, texts)
        embed = None
        if self.prompt_cache is not None:
            from flowsteer.training.prompt_cache import PromptCache

            embed = PromptCache.build(pipe, source.texts, self.prompt_cache, model)
        scale = pipeline_info(pipe).guidance_scale
        reports = distill(pipe, source, self, scale, encode=encode, embed=embed)
        for _ in watch(reports, self, "distil"):
            pass
        print(Path(self.output_dir) / "student")

    def _check_source(self) -> None:
        """Refuse what has no prompts or pictures to learn from, before anything is loaded."""
        given = self.prompts is not None or self.train_data_dir is not None
        if self.pretrained_model_name_or_path != "emoji" and not given:
            raise ValueError(
                f"pretrained_model_name_or_path = {self.pretrained_model_name_or_path!r} has no"
                " prompts of its own to learn from; give --prompts FILE, one prompt a line, or"
                " --train_data_dir"
            )
        if self.teaching.needs_data and self.prompts is not None:
            raise ValueError(
                f"method = {self.method!r} learns from pictures, and --prompts has none; give"
                " --train_data_dir, or use ota"
            )
        if self.prompt_cache is not None and not given:
            raise ValueError(
                "prompt_cache: emoji scenes never repeat a caption's sample, so there is nothing to"
                " keep; give --prompts FILE or --train_data_dir"
            )

    def _source(self, pipe: Any, texts: list[str] | None) -> tuple[Any, Any]:
        """Where samples come from, and what turns their pictures into latents."""
        from flowsteer.emoji.batches import CaptionSource, SceneSource, scene_encoder
        from flowsteer.emoji.words import normalize_prompt
        from flowsteer.training.sources import FolderSource, PromptSource, cached, vae_encoder

        source: Any
        if texts is not None:
            if self.pretrained_model_name_or_path == "emoji":
                texts = [normalize_prompt(text) for text in texts]  # as its pipeline reads them
            return PromptSource(tuple(texts), self.seed), None
        if self.train_data_dir is not None:
            size = pipe.transformer.config.sample_size * pipe.vae_scale_factor
            read = normalize_prompt if self.pretrained_model_name_or_path == "emoji" else None
            source = FolderSource(self.train_data_dir, self.seed, size, read)
            encode = vae_encoder(pipe.vae)
        elif self.teaching.needs_data:
            source, encode = SceneSource(self.seed), scene_encoder(pipe.vae)
        else:
            return CaptionSource(self.seed), None
        if self.cache_samples is not None:
            workers = self.dataloader_num_workers
            return cached(source, encode, self.cache_samples, self.seed, num_workers=workers)
        return source, encode
