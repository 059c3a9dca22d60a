"""The bundled emoji world: art, scenes, captions, models trained on them, and their judges."""
