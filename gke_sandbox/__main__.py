"""``python -m gke_sandbox`` is the command ``gke-sandbox``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
