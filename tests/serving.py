"""An ASGI app on a port of its own, served as the services are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from services.runtime.connection import Connection


@asynccontextmanager
async def served(app: Any, *, http: type[Connection] = Connection) -> AsyncIterator[str]:
    """Its address."""
    config = uvicorn.Config(
        app, http=http, ws="none", lifespan="off", log_config=None, proxy_headers=False, server_header=False, port=0
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await server.shutdown()
