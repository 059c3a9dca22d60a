"""Starts the FlowSteer app: `python app.py`."""

import sys

from flowsteer.app.launch import main

if __name__ == "__main__":
    sys.exit(main())
