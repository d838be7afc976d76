"""A machine with an OPC UA server of another stack (open62541, as o6), in a process of its own.

    python -m tests.opcua_machine 48400 '{"nodes": {"oil": 1.5}}'

It says ``ready`` on its output, then does what each line of its input says and answers each with a line:
``{"node": "oil", "value": 2.0, "status": "UNCERTAIN", "ago_s": 3}`` gives a node a value, and adds it when it is new.
It ends with its input. The library runs ten minutes without a licence, and prints a banner to its error output.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import o6
from o6.ns import ns0

URI = "http://example.com/press"
CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"


class Machine:
    def __init__(self, port: int, said: dict[str, Any]) -> None:
        self.server = o6.Server(port=port, **security(said))
        if "user" in said:
            self.server.config.setAccessControl(OneUser(said["user"], said["password"]))
        if said.get("history"):
            self.server.config.setHistoryDatabase(capacity=5000, maxResponseSize=said["history"])
        for number, uri in enumerate((*said.get("namespaces", ()), URI)):
            index = o6.ns.register(f"press{number}", uri).index
            self.server._add_namespace(uri, index)
        self.index = index
        self.history = bool(said.get("history"))
        self.known: set[str] = set()

    async def do(self, said: dict[str, Any]) -> str:
        """Give a node a value, and make it when there is none."""
        name, value = said["node"], said.get("value")
        node = f"ns={self.index};s={name}"
        if name not in self.known:
            kind = o6.String(value) if isinstance(value, str) else value
            historizing = self.history and not said.get("forgets")
            await self.server.addVariable(
                name, self.server.objectsNode, kind, nodeId=node, historizing=historizing
            )
            self.known.add(name)
            if "unit" in said:
                await self.unit(node, *said["unit"])
            if "range" in said:
                await self.range(node, *said["range"])
        if value is None:
            return "GOOD"
        moment = datetime.now(UTC) - timedelta(seconds=said.get("ago_s", 0))
        if "at_ns" in said:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=said["at_ns"] // 1000)
        status = getattr(o6.StatusCode, said.get("status", "GOOD"))
        result = await self.server.write(
            node, o6.DataValue(value, status=status, sourceTimestamp=o6.DateTime(moment))
        )
        return str(result)

    async def unit(self, node: str, text: str, code: int) -> None:
        said = ns0.datatypes.EUInformation(
            namespaceUri=CEFACT,
            unitId=code,
            displayName=o6.LocalizedText(text),
            description=o6.LocalizedText(text),
        )
        await self.server.addVariable(
            "EngineeringUnits", node, said, ns=0, typeDefinition="i=68", parentReference="i=46"
        )

    async def range(self, node: str, low: float, high: float) -> None:
        said = ns0.datatypes.Range(low=low, high=high)
        await self.server.addVariable(
            "EURange", node, said, ns=0, typeDefinition="i=68", parentReference="i=46"
        )


class OneUser(o6.AccessControl):  # type: ignore[misc]  # it has no types
    """Lets one user in, by name and password, and nobody else."""

    def __init__(self, name: str, password: str) -> None:
        super().__init__(anonymous=False, username=True)
        self.name, self.word = name, password

    def activateSession(self, endpoint: Any, certificate: bytes, session: Any, token: Any) -> Any:
        if isinstance(token, ns0.datatypes.UserNameIdentityToken):
            if (str(token.userName), bytes(token.password).decode()) == (self.name, self.word):
                return None
        raise o6.StatusCodeError(o6.StatusCode.BAD_USER_ACCESS_DENIED)


def security(said: dict[str, Any]) -> dict[str, Any]:
    if "certificate" not in said:
        return {}
    return {
        "certificate": said["certificate"],
        "privateKey": said["key"],
        "trustList": said.get("trusted", []),
        "applicationUri": said["uri"],
        "secureOnly": said.get("only", False),
    }


async def serve(port: int, said: dict[str, Any]) -> None:
    machine = Machine(port, said)
    for each in said.get("nodes", ()):
        await machine.do(each)
    machine.server.start()
    await machine.server.waitReady()
    print("> ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(">", await machine.do(json.loads(line)), flush=True)
    os._exit(0)  # a machine's power is cut, too


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), json.loads(sys.argv[2])))
