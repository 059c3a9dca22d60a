"""The pipeline class that `load_pipeline` returns: stock's, with the defaults of what it holds."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import os
from pathlib import Path
from typing import Any

from diffusers import StableDiffusion3Pipeline

from flowsteer.files import write_text
from flowsteer.locks import TURN
from flowsteer.models.silent_t5 import silent_t5
from flowsteer.pipeline_info import pipeline_info, save_info
from flowsteer.quiet import quiet
from flowsteer.schedulers import RectifiedFlowMatchEulerDiscreteScheduler
from flowsteer.scheduling import check_flow_scheduler, stock_scheduler

_CALL = inspect.signature(StableDiffusion3Pipeline.__call__)


class DefaultsPipeline(StableDiffusion3Pipeline):
    """`StableDiffusion3Pipeline` whose steps and guidance scale default to its network's own.

    A student draws in one step a window without guidance, a teacher in 28 steps at its own scale.
    `save_pretrained` writes an ordinary StableDiffusion3Pipeline that stock diffusers opens, and
    from which `load_pipeline` knows edges, steps and guidance again.
    """

    reads = "text"

    @functools.wraps(StableDiffusion3Pipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - stock's
        given = _CALL.bind_partial(self, *args, **kwargs).arguments
        info = pipeline_info(self)
        if given.get("num_inference_steps") is None:
            given["num_inference_steps"] = info.num_inference_steps
        if given.get("guidance_scale") is None:
            given["guidance_scale"] = info.default_guidance_scale
        self._check_other_grid(given["num_inference_steps"], given.get("sigmas"))
        given.pop("self")
        return super().__call__(**given)

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """As in stock, one thread at a time: pipelines of one model share its tokenizers."""
        with TURN:
            return super().encode_prompt(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save as stock diffusers expects it: stock classes, and beside them what this one knows.

        Args:
            save_directory: made if it is not there.
            kwargs: as in stock.

        Raises:
            ValueError: if a network carries adapters, which a pipeline's folder cannot hold, or
                the folder is that of a LoRA student.
        """
        for name, part in self.components.items():
            if adapters := getattr(part, "peft_config", None):
                raise ValueError(
                    f"{name} carries the adapter {', '.join(adapters)}, which a pipeline's folder"
                    " cannot hold; merge it first (pipe.fuse_lora(), pipe.unload_lora_weights())"
                )
        parts = self.components
        if isinstance(self.scheduler, RectifiedFlowMatchEulerDiscreteScheduler):
            parts["scheduler"] = stock_scheduler(self.scheduler)
        has_t5 = self.text_encoder_3 is not None
        if not has_t5:
            width = self.transformer.config.joint_attention_dim
            t5 = silent_t5(width, self.transformer.dtype)
            parts |= dict(zip(("text_encoder_3", "tokenizer_3"), t5, strict=True))
        # first, so that uploads take it along
        save_info(pipeline_info(self), self.reads, has_t5, save_directory)
        with quiet():
            StableDiffusion3Pipeline(**parts).save_pretrained(save_directory, **kwargs)
        for config in Path(save_directory).glob("text_encoder*/config.json"):
            _name_float32(config)

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Any:
        """Another pipeline of the same parts, see stock; it knows its network as the first did."""
        twin = super().from_pipe(pipeline, **kwargs)
        if twin.transformer is pipeline.transformer:
            twin.flowsteer_info = pipeline_info(pipeline)
        return twin

    def _check_other_grid(self, steps: int, sigmas: Any) -> None:
        """Hold schedulers that know no edges to a student's, as one that knows them holds itself.

        Raises:
            ValueError: naming both grids, or a scheduler that takes no Euler steps.
        """
        info = pipeline_info(self)
        if info.student is None or info.allow_grid_mismatch:
            return
        if isinstance(self.scheduler, RectifiedFlowMatchEulerDiscreteScheduler):
            config = self.scheduler.config
            if config["window_edges"] or config["allow_grid_mismatch"]:
                return  # it checks itself
        check_flow_scheduler(self)
        if not self.scheduler.config.use_dynamic_shifting:
            trial = copy.copy(self.scheduler)
            trial.set_timesteps(steps if sigmas is None else None, sigmas=sigmas)
            info.student.info.check_grid(trial.sigmas.tolist())


# AutoPipeline and saved folders go by a class's name, and know stock's alone
DefaultsPipeline.__name__ = StableDiffusion3Pipeline.__name__


def _name_float32(config: Path) -> None:
    """Have a plain load read an encoder as float32, as it reads all other networks."""
    values = json.loads(config.read_text(encoding="utf-8"))
    write_text(config, json.dumps(values | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
