"""Sets of photographs with hand-made boxes are those of detection's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
