"""Builds every HTTP client: one door out, one library, no redirects followed, every wait bounded."""

from __future__ import annotations

import httpx

TIMEOUT = httpx.Timeout(10.0, connect=3.0)


def client(base_url: str = "", *, timeout: httpx.Timeout = TIMEOUT) -> httpx.AsyncClient:
    """An asynchronous client. It takes no proxy and no credentials from the environment."""
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, follow_redirects=False, trust_env=False)


def blocking_client(base_url: str = "", *, timeout: httpx.Timeout = TIMEOUT) -> httpx.Client:
    """The same for commands."""
    return httpx.Client(base_url=base_url, timeout=timeout, follow_redirects=False, trust_env=False)
