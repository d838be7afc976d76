"""The operator's API of the cloud over HTTPS: routes, what stands before them, and people's sessions."""

from __future__ import annotations

from reuna.adapters.operator_api.routes import Actions, ApiServer, Reception, api_app, serve_api
from reuna.adapters.operator_api.sessions import SignIns

__all__ = ["Actions", "ApiServer", "Reception", "SignIns", "api_app", "serve_api"]
