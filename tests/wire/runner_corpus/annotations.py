from __future__ import annotations

x: NotThere = 1
print(__annotations__)
