"""The Gradio screens: teacher and students side by side, on the same functions as the commands."""
