"""Scoring over HTTP: MLflow's own server, which also takes a picture as a file."""

import asyncio
from collections.abc import Callable
from typing import Any

import mlflow
from fastapi import FastAPI, HTTPException, Request
from mlflow.pyfunc import scoring_server

from deepsky.errors import DataError
from deepsky.tracking.registry import registered_model, resolved
from deepsky.tracking.scoring import ScoredNetwork
from deepsky.tracking.store import store_errors, tracking_uri

ReadPicture = Callable[[bytes, ScoredNetwork], Any]  # a file's content -> (1, height, width, channel)


def scoring_app(name: str, read_picture: ReadPicture) -> FastAPI:
    """Return the application: MLflow's ``/invocations``, ``/ping`` and ``/version``, and ``/predict`` for a picture.

    Args:
        name: of a registered network, see ``registry.resolved``.
        read_picture: makes the network's input of what is posted to ``/predict``, or raises DataError.

    Raises:
        TrackingError: the store cannot be used, or knows no such network.
        DataError: its network cannot be read.
    """
    mlflow.set_tracking_uri(tracking_uri())
    uri = resolved(name)
    registered_model(uri)  # says in a line that there is none
    with store_errors():
        model = mlflow.pyfunc.load_model(uri)
    network: ScoredNetwork = model.get_raw_model()
    app: FastAPI = scoring_server.init(model)

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise HTTPException(415, "a form is not read; post the file itself: curl --data-binary @galaxy.jpg")
        try:
            image = read_picture(await request.body(), network)
        except DataError as error:
            raise HTTPException(422, f"{error.problem}; {error.remedy}") from error
        answers = (await asyncio.to_thread(model.predict, image)).iloc[0]
        shown = {label: float(value) for label, value in answers.items()}
        if network.card.target != "class":
            return {"fractions": shown}
        best = max(shown, key=lambda label: shown[label])
        return {"class": best, "confidence": shown[best], "probabilities": shown}

    return app
