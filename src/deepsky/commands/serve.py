"""A scoring server of a registered network."""

import errno
import os
import socket
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import uvicorn

from deepsky.commands.predict import preparation_of
from deepsky.errors import ConfigError, DataError
from deepsky.imaging.pictures import decode_picture
from deepsky.tracking.registry import only_model
from deepsky.tracking.scoring import ScoredNetwork
from deepsky.tracking.serving import scoring_app


def run(name: str | None, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        name: MODEL@ALIAS, MODEL/VERSION, or MODEL for its champion; None: the only one's.
        host: address to listen on.
        port: of it.

    Raises:
        ConfigError: something else serves there, this machine has no such address, or there are several networks.
        TrackingError: the store cannot be used, or knows no such network.
    """
    _check_free(host, port)
    name = name or only_model()
    app = scoring_app(name, read_posted)
    _Server(uvicorn.Config(app, host=host, port=port, log_level="warning"), name).run()


def read_posted(content: bytes, network: ScoredNetwork) -> npt.NDArray[np.uint8]:
    """Return a posted picture as the network's input, (1, height, width, channel).

    Raises:
        DataError: it is no picture, or the network takes flux.
    """
    if network.card.kind == "flux":
        raise DataError("the picture", "this network takes flux of several bands", "post its numbers to /invocations")
    return preparation_of(network.card).apply("the picture", decode_picture("the picture", content))[np.newaxis]


def _check_free(host: str, port: int) -> None:
    """Refuse an address on which nobody can listen, before the network is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"--port {port}", "is taken", "give another, or end what serves there") from error
        if error.errno == errno.EACCES:
            raise ConfigError(f"--port {port}", "is for root alone", "give one above 1023") from error
        remedy = "give 127.0.0.1, 0.0.0.0 for all addresses of this machine, or one of them"
        raise ConfigError(f"--host {host}", f"cannot be listened on ({_reason(error)})", remedy) from error


def _reason(error: OSError) -> str:
    """Return the system's own words; Python adds the address to them, and what looks a name up has other numbers."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


class _Server(uvicorn.Server):
    """Tells its address once it answers."""

    def __init__(self, config: uvicorn.Config, name: str) -> None:
        super().__init__(config)
        self._name = name

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets)
        if self.started:
            address = f"http://{self.config.host}:{self.config.port}"
            click.echo(f"{self._name} answers on {address}   (Ctrl-C stops)")
            click.echo(f"curl --data-binary @galaxy.jpg {address}/predict")
