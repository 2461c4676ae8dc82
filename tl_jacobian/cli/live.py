"""``tl-jacobian app``: the live view in the browser."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tl_jacobian.cli.interrupts import at_once
from tl_jacobian.cli.options import (
    DeviceOption,
    Dtype,
    DtypeOption,
    Host,
    HostOption,
    PrecisionOption,
    fail,
    load_libraries,
    told,
)
from tl_jacobian.errors import JacobianScopeError

if TYPE_CHECKING:
    from tl_jacobian.app.bench import Bench, Limits

ModelsOption = Annotated[
    list[str],
    typer.Option("--model", help='"demo", a TransformerLens model name, or a local folder; may be repeated.'),
]


def live(
    model: ModelsOption = ["demo"],  # noqa: B006  # typer copies it
    host: HostOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    precision: PrecisionOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    listen: Annotated[
        str, typer.Option(help="Address to listen on; on others than loopback the page's address holds a token.")
    ] = "127.0.0.1",
    open: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    prompt: Annotated[str, typer.Option(help="What the page begins with.")] = "",
    sae: Annotated[
        Path | None,
        typer.Option(help="Features to look at: a safetensors file of an SAE's weights, or SAELens's folder."),
    ] = None,
    sae_at: Annotated[
        str | None, typer.Option(help="Hook point that it reads, where its cfg.json doesn't say.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest text that is taken.")] = 4096,
    max_memory: Annotated[
        str | None, typer.Option(help='The most that a computation may take beyond the model, e.g. "8GiB".')
    ] = None,
) -> None:
    """Open the live view: type a prompt, click a token, a layer, a head, and see what drove the prediction.

    Everything runs in this process, on this machine; the page loads nothing from anywhere else. Ctrl-C ends it.

    Exit codes: 0 ended; 1 it can't be done (the message says why); 2 wrong usage.
    """
    if sae is not None and len(model) > 1:
        raise typer.BadParameter("--sae belongs to one model, and --model names several")
    load_libraries()
    with at_once():
        try:
            from tl_jacobian.app.server import Server
        except ImportError as error:
            fail(f'the page needs FastAPI, uvicorn and websockets ({error}): pip install "tl-jacobian[app]"')
        from tl_jacobian.app.bench import Limits
        from tl_jacobian.app.session import Place
        from tl_jacobian.core.host import load  # noqa: F401  # what _bench needs

    try:
        with told():
            limits = Limits(tokens=max_tokens, memory=max_memory)
            places = {}
            for name, short in _named(model).items():
                bench = _bench(name, short, host, device, dtype, limits, precision is not None, sae, sae_at)
                places[short] = Place(bench)
            server = Server(places, address=listen, port=port, view={"prompt": prompt} if prompt else None)
    except JacobianScopeError as error:
        fail(str(error))
    Console().print(f"The live view: {server.url}", markup=False, highlight=False, soft_wrap=True)
    if open:
        opening = threading.Timer(0.5, webbrowser.open, [server.url])
        opening.daemon = True  # an interrupt doesn't wait for it
        opening.start()
    server.run()


def _named(models: list[str]) -> dict[str, str]:
    """What views call each model: the last part of its name, never where it lies."""
    names = {name: Path(name).name or "model" for name in models}
    if len(set(names.values())) < len(models):
        raise typer.BadParameter(f"--model {' and '.join(models)}: names repeat; rename a folder")
    return names


def _bench(
    name: str,
    short: str,
    host: Host | None,
    device: str,
    dtype: Dtype,
    limits: Limits,
    as_model: bool,
    sae: Path | None,
    sae_at: str | None,
) -> Bench:
    """A loaded model at which views can ask."""
    from tl_jacobian.app.bench import Bench
    from tl_jacobian.app.features import sae_of
    from tl_jacobian.core.host.load import load_model
    from tl_jacobian.core.sae_file import load_sae

    features = None
    if sae is not None:
        read = "from tl_jacobian.core.sae_file import load_sae\n"
        # Its name, never where it lies.
        features = sae_of(load_sae(sae, device), sae_at, python=f"{read}sae = load_sae({sae.name!r})")
    loaded = load_model(name, host.value if host else None, device=device, dtype=dtype.value)
    python = ""
    if name == "demo" and (device, dtype) == ("cpu", Dtype.float32):
        python = f'tj.load_demo_model("{host.value}")' if host else "tj.load_demo_model()"
    options = {"precision": "model"} if as_model else None
    bench = Bench(loaded, short, python=python, limits=limits, options=options, sae=features)
    bench.warm()
    return bench
