"""A client that gives the benchmark's update, read where it lies."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.peers.work import update

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """The model and an update of this node and round."""
    config, node = context.run_config, int(context.node_config["partition-id"])
    number = int(message.content["config"]["server-round"])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    mine = update(Path(str(config["folder"])) / "drawn.npy", weights.size, node, number)
    told = RecordDict({"arrays": ArrayRecord([weights + mine]), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=told, reply_to=message)
