"""The service as a whole: its folder, its workers, its port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError, need
from cpikan.fleet.batch import Batch
from cpikan.fleet.delivery import Delivery
from cpikan.fleet.ledger import NAME, Ledger
from cpikan.fleet.run import RESULTS, RunningOptions, engine_of, recipe_of, told_of, write_failed
from cpikan.messages import say
from cpikan.option import option
from cpikan.streaming.events import Events

_BACKLOG = 512


@dataclass(frozen=True)
class ServeOptions(RunningOptions):
    """Where the service listens, what it reads, how much it takes."""

    host: str = option(
        "127.0.0.1", "address to listen at; others than this machine's own need a token", metavar="ADDRESS"
    )
    port: int = option(8000, "port to listen at; 0: a free one, which is told", metavar="N")
    root: tuple[str, ...] = option((), "folders that stacks may lie in (default: this one)", metavar="DIR,...")
    token_file: str | None = option(None, "file with the token that requests must carry", metavar="FILE")
    queue: int = option(100, "stacks that wait or run at most; more are answered 429", metavar="N")
    grace: float = option(30.0, "seconds that running stacks have when the service is ended", metavar="S")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port {self.port}: give 1 to 65535, or 0 for a free one")
        if not 1 <= self.queue <= 1_000_000:
            raise InputError(f"--queue {self.queue}: give 1 to 1000000")
        if not 0 <= self.grace <= 86400:
            raise InputError(f"--grace {self.grace:g}: give 0 to 86400 seconds")


def run_serve(output: str | Path, options: ServeOptions, events: Events, command: str = "") -> dict[str, Any]:
    """Serve until the events want no more; jobs that had not ended are done by the next service of the same ``output``.

    Raises InputError for a port in use, roots, tokens, recipes and workers that do not serve.
    """
    need("fastapi", "service", "the service")
    need("uvicorn", "service", "the service")
    import uvicorn

    from cpikan.fleet.service.access import access_of
    from cpikan.fleet.service.app import make_app
    from cpikan.fleet.service.jobs import Jobs

    recipe, place = recipe_of(options), Path(output)
    settings = replace(options.settings(command), tells=True)
    database = options.database or str(place / RESULTS)
    listening = _listening(options.host, options.port)
    port = int(listening.getsockname()[1])
    with (
        closing(listening),
        closing(Ledger.open(place, recipe, resume=(place / NAME).exists(), overwrite=False)) as ledger,
        closing(engine_of(options, None, events)) as engine,
    ):
        access = access_of(options.host, port, options.root or (".",), options.token_file)
        delivery = Delivery(database, events)
        batch = Batch(place, recipe, ledger, engine, settings, lambda row: told_of(row, delivery, events))
        jobs = Jobs(place, batch, ledger, options.queue)
        app = make_app(jobs, place, database, access, f".{recipe.format}")
        worker = threading.Thread(target=jobs.run, args=(delivery.flush_when_due,), daemon=True)
        worker.start()
        say(f"cpikan: serving at http://{options.host}:{port}/docs with {engine.about} (Ctrl-C ends it)")
        shown = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        _server(shown, events).run(sockets=[listening])
        jobs.stop_taking()
        worker.join()
        jobs.stop(options.grace)
        rows = batch.rows()
        write_failed(place, rows)
        delivery.close(rows)
    return {"wafers": sum(jobs.ended.values()), **jobs.ended, "left": sum(jobs.counts().values()), "results": database}


def _server(config: Any, events: Events) -> Any:
    """Make a server that ends when the events want it; signals are not its business."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def on_tick(self, counter: int) -> bool:
            return events.cancelled() or await super().on_tick(counter)

    return Server(config)


def _listening(host: str, port: int) -> socket.socket:
    """Take the port before anything is begun; InputError where it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(_BACKLOG)  # now: who reads the address may ask at once
    except OSError as failure:
        made.close()
        raise InputError(
            f"{host}:{port} cannot be listened at ({failure.strerror}): give another --port, or 0"
        ) from failure
    return made
