"""The live view under load: 8 tabs send 200 mixed requests over loopback, some that raise, some cancelled in between.

What is looked for: an answer that is another tab's, an answer that never comes, memory that grows. Writes nothing.

    python -m benchmarks.live_load [--rounds 3] [--each 25] [--small]
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from typing import Any

import psutil
import torch
from websockets.sync.client import connect

import tl_jacobian as tj
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.server import Server
from tl_jacobian.app.session import Place

TABS = 8
ASKS: tuple[dict[str, Any], ...] = (
    {"do": "read"},
    {"do": "read", "scope": "temperature"},
    {"do": "read", "by": "words"},
    {"do": "read", "target": 10**6},  # no such token
    {"do": "drill", "positions": [2]},
    {"do": "head", "layer": 3, "head": 1},
    {"do": "head", "layer": 300, "head": 1},  # no such layer
    {"do": "try", "change": "drop", "positions": [1]},
    {"do": "try", "change": "silence", "layer": 5, "heads": [2]},
    {"do": "map"},
    {"do": "write", "n_tokens": 2},
    {"do": "nothing"},  # not understood
)


def message(tab: int, number: int, draw: random.Random) -> dict[str, Any]:
    ask = dict(draw.choice(ASKS))
    view = {"prompt": f"Tab number {tab} asks about {draw.choice(['Paris', 'Rome', 'Oslo', 'Lima'])} and"}
    view |= {name: ask.pop(name) for name in ("scope", "by", "target") if name in ask}
    return {"id": number, "lane": str(number), "ask": {**ask, "view": view}}


def one_tab(url: str, tab: int, each: int, count: Counter[str], wrong: list[str]) -> None:
    draw = random.Random(tab)
    host = url.split("/")[2]
    with connect(f"ws://{host}/live", origin=f"http://{host}", proxy=None, max_size=None) as socket:
        open_, cancelled = {}, set()
        for number in range(1, each + 1):
            open_[number] = message(tab, number, draw)
            socket.send(json.dumps(open_[number]))
            if draw.random() < 0.2:
                victim = draw.choice(list(open_))
                cancelled.add(victim)
                socket.send(json.dumps({"id": 1000 + number, "cancel": victim}))
            time.sleep(draw.random() * 0.3)
        while open_:
            head, _, body = socket.recv(timeout=300).partition(b"\n")
            said = json.loads(head)
            if said["type"] not in ("done", "failed", "cancelled"):
                continue
            asked = open_.pop(said["id"], None)
            count[said["type"]] += 1
            if asked is None:
                wrong.append(f"tab {tab} got {said['id']} twice")
            elif said["type"] == "cancelled" and said["id"] not in cancelled:
                wrong.append(f"tab {tab} lost {said['id']}, which nobody cancelled")
            elif said["type"] == "done" and asked["ask"]["do"] == "read":
                text = "".join(u["text"] for u in json.loads(body)["panels"]["text"][0]["units"])
                if text != asked["ask"]["view"]["prompt"]:
                    wrong.append(f"tab {tab} got {text!r}")


def small(tokenizer: Any) -> Any:
    """Random weights behind the demo model's tokenizer."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(0)
    size = {"n_layers": 6, "d_model": 48, "n_ctx": 256, "d_head": 16, "n_heads": 3, "d_vocab": 49_152}
    return HookedTransformer(HookedTransformerConfig(act_fn="gelu", **size), tokenizer, move_to_device=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=25, help="requests of a tab")
    parser.add_argument("--small", action="store_true", help="a random model of six layers: as many requests, sooner")
    args = parser.parse_args()
    model = tj.load_demo_model("bridge")
    bench = Bench(small(model.tokenizer) if args.small else model, "demo")
    bench.warm()
    server = Server({"demo": Place(bench)}, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    time.sleep(1)
    process, count, wrong, sizes = psutil.Process(), Counter[str](), list[str](), []
    for round_ in range(args.rounds):
        began = time.monotonic()
        tabs = [
            threading.Thread(target=one_tab, args=(server.url, tab, args.each, count, wrong)) for tab in range(TABS)
        ]
        for tab in tabs:
            tab.start()
        for tab in tabs:
            tab.join()
        sizes.append(process.memory_info().rss / 2**20)
        print(
            f"round {round_ + 1}: {TABS * args.each} requests in {time.monotonic() - began:.0f} s, {sizes[-1]:.0f} MiB",
            flush=True,
        )
    print(f"answers: {dict(count)}; wrong: {wrong or 'none'}; work left: {server.places['demo'].worker.waiting}")
    server.stop()


if __name__ == "__main__":
    main()
