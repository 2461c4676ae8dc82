"""The README's picture: a comparison page of the demo model, photographed by Chromium.

python docs/make_picture.py
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import tl_jacobian as tj

PROMPT = "He grew up in the South and studied at Columbia. As a student of politics, he became a"
FLAGS = (
    "--headless --hide-scrollbars --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
)


def main() -> None:
    lin = tj.linearize(tj.load_demo_model("bridge"), PROMPT)
    scopes = [
        tj.semantic_scope(lin, " liberal"),
        tj.temperature_scope(lin),
        tj.fisher_scope(lin, method="low_rank", rank=32),
    ]
    picture = Path(__file__).with_name("first_attribution.png")
    with tempfile.TemporaryDirectory() as tmp:
        page = tj.compare(scopes, skip_first=True).to_html(Path(tmp) / "page.html")
        options = [f"--user-data-dir={tmp}/profile", "--window-size=1000,470", "--virtual-time-budget=5000"]
        command = ["chromium", *FLAGS.split(), *options, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
