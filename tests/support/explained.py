"""An explanation beside a run, with drawn pictures, as ``ddtl explain`` would leave it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddtl.reports.run import stored
from tests.reports.test_run_page import HOSTILE


def write(run: Path, **changes: Any) -> dict[str, Any]:
    """What ``ddtl explain`` leaves, with one picture a kind."""
    found = stored.read(run)
    folder = run / "explain"
    (folder / "pictures").mkdir(parents=True)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(picture, "WEBP")
    groups = []
    for key, title in (("true_positives", "True positives"), ("false_negatives", "False negatives")):
        (folder / "pictures" / f"{key}.webp").write_bytes(picture.getvalue())
        image = {
            "sample_id": f"{HOSTILE[0]} {key}", "true": HOSTILE[1], "called": HOSTILE[2],
            "probabilities": [0.25, 0.75], "picture": f"pictures/{key}.webp",
        }  # fmt: skip
        groups.append({"key": key, "title": title, "total": 9, "images": [image]})
    game = {"share": 0.8, "low": 0.7, "high": 0.9, "chance": 0.1, "other_patients": 0.3}
    networks = [{"pointing_game": {"strict": {"share": n / 10}, "tolerant": {"share": 0.2}}} for n in range(3)]
    record = {
        "digest": found.record["digest"], "threshold": found.record["threshold"], "cells": [7, 7],
        "pointing_game": {"images": 9, "patients": 5, "strict": game, "tolerant": {**game, "share": 0.9}},
        "layer": "norm.norm5",
        "randomised": {"networks": networks, "rank_correlation": 0.03}, "groups": groups, **changes,
    }  # fmt: skip
    (folder / "explain.json").write_text(json.dumps(record))
    return record
