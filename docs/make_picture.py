"""The README's picture: a comparison page of the demo model, photographed by Chromium.

python docs/make_picture.py
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import tl_jacobian as tj

PROMPT = "She grew up in Rome, studied in Paris and now lives in Berlin, the capital of"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1000,470",
    "--virtual-time-budget=5000",
]


def main() -> None:
    lin = tj.linearize(tj.load_demo_model("bridge"), PROMPT)
    scopes = [
        tj.semantic_scope(lin, " Germany"),
        tj.temperature_scope(lin),
        tj.fisher_scope(lin),
    ]
    picture = Path(__file__).with_name("first_attribution.png")
    with tempfile.TemporaryDirectory() as tmp:
        page = tj.compare(scopes).to_html(Path(tmp) / "page.html")
        profile = f"--user-data-dir={tmp}/profile"
        command = ["chromium", *FLAGS, profile, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
