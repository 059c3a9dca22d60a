"""The app's look: one Gradio theme from local fonts, and the style sheet beside this file."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLE_SHEET = Path(__file__).with_name("style.css")


class _Generic(gr.themes.utils.fonts.Font):
    """A generic family such as `system-ui`, which CSS reads only without quotes."""

    def __str__(self) -> str:
        return self.name


def flowsteer_theme() -> gr.themes.Base:
    """Calm neutral surfaces and one teal accent; fonts of the visitor's system alone."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=[_Generic("system-ui"), _Generic("-apple-system"), _Generic("sans-serif")],
        font_mono=[_Generic("ui-monospace"), _Generic("monospace")],
    )
    return theme.set(
        body_background_fill="#f7f6f3",
        body_background_fill_dark="#141413",
        body_text_color="#23211f",
        body_text_color_dark="#ecebe8",
        body_text_color_subdued="#67625c",
        body_text_color_subdued_dark="#a8a39c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1d1c1b",
        block_border_color="#e2dfda",
        block_border_color_dark="#33312f",
        block_label_background_fill="transparent",
        block_title_text_weight="600",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_shadow="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="#161514",
        input_border_color="#cfcbc4",
        input_border_color_dark="#45423f",
        input_border_color_focus="#0f766e",
        input_border_color_focus_dark="#2dd4bf",
        input_shadow_focus="0 0 0 3px rgb(15 118 110 / 0.18)",
        input_shadow_focus_dark="0 0 0 3px rgb(45 212 191 / 0.22)",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#0d8a80",
        button_primary_border_color="transparent",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#262523",
        button_secondary_background_fill_hover="#f0eeea",
        button_secondary_background_fill_hover_dark="#32302e",
        button_secondary_border_color="#cfcbc4",
        button_secondary_border_color_dark="#45423f",
        button_transition="background-color 0.15s ease",
    )
