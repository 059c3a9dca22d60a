"""One file a screen: its components, its events, and the HTML that it shows."""
