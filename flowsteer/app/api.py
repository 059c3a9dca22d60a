"""The comparison as an endpoint for programs; no component of the page stands behind it."""

# Gradio reads the annotations of an endpoint as objects, so they must not be postponed here.

from collections.abc import Callable, Iterator
from typing import Any

from flowsteer.app.comparator import Comparator, Snapshot
from flowsteer.app.screen import shown_error
from flowsteer.app.views import png_data_uri
from flowsteer.validation import check_prompt, check_seed


def compare_endpoint(comparator: Comparator) -> Callable[[str, int], Iterator[dict]]:
    """The function behind `/compare`."""

    def compare(prompt: str, seed: int = 0) -> Iterator[dict]:
        """Draw one prompt with teacher and student from one noise.

        Streams a growing result; the last one is complete. The cheapest columns come first, and
        distances are null until the 28-step picture is there.

        Args:
            prompt: what to draw, 1 to 1,000 characters.
            seed: of the noise, a whole number from 0 to 4,294,967,295.

        Returns:
            An object with `prompt`, `seed`, `notes` (what the model will not read) and `cards`.
            Each card has `key`, `title`, `nfe`, `seconds`, `num_inference_steps`,
            `guidance_scale`, `scheduler`, `student`, `sigmas`, `distance` (relative L2 of the
            latents to the 28-step picture's) and `image`, a PNG as a data URI.
        """
        try:
            prompt, seed = check_prompt(prompt), check_seed(seed)
            ready = 0
            for snapshot in comparator.draw(prompt, seed):
                if len(snapshot.cards) > ready:
                    ready = len(snapshot.cards)
                    yield result_record(comparator, snapshot, prompt, seed)
        except Exception as error:
            raise shown_error(error) from error

    return compare


def result_record(
    comparator: Comparator, snapshot: Snapshot, prompt: str, seed: int
) -> dict[str, Any]:
    """A snapshot as JSON values, cards in the order of the page."""
    done = [column.key for column in comparator.columns() if column.key in snapshot.cards]
    cards = []
    for card in (snapshot.cards[key] for key in done):
        settings = card.column.settings
        cards.append(
            {
                "key": card.column.key,
                "title": card.column.title,
                "nfe": card.nfe,
                "seconds": card.seconds,
                "num_inference_steps": settings.num_inference_steps,
                "guidance_scale": settings.guidance_scale,
                "scheduler": settings.scheduler,
                "student": settings.student,
                "sigmas": list(card.sigmas),
                "distance": card.distance,
                "grid_mismatch": card.grid_mismatch,
                "image": png_data_uri(card.image),
            }
        )
    return {"prompt": prompt, "seed": seed, "notes": list(snapshot.notes), "cards": cards}
