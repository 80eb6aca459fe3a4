"""JSON-RPC over HTTP to an Ethereum node: what is refused before the first byte, and what a failure is called.

A node's URL may hold an API key (``https://host/v3/KEY``), so messages name the host only, and web3's own provider,
whose log and errors show the URL, is not used. Requests are not repeated here: a transaction whose answer was lost is
looked up before it is sent again (Ganache executes one with nonce 0 as often as it gets it).
"""

from __future__ import annotations

import ipaddress
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from ..errors import ChainUnavailableError, ConfigError

#: Longest answer that is read, in bytes; 1000 blocks of full rounds of 100 are about 30 MB.
MAX_ANSWER = 128 * 2**20


class HttpProvider(JSONBaseProvider):
    """A web3 provider for one node. Thread-safe: each thread has connections of its own.

    Parameters
    ----------
    url : str
        ``https://…``, or ``http://…`` on this machine.
    timeout : float
        Seconds until a request counts as failed.
    insecure : bool (default: False)
        Allow ``http`` to another machine, where anybody on the way can read and change what the node says.

    Raises
    ------
    ConfigError
        If the URL is none, or not encrypted.
    """

    def __init__(self, url: str, timeout: float, insecure: bool = False) -> None:
        super().__init__()
        self._url, self._timeout, self._closed = url, timeout, False
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError("A chain is 'embedded', 'embedded:FILE', or the http(s) URL of an Ethereum node")
        self.name = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        self._local = _is_loopback(host)
        if parts.scheme == "http" and not self._local and not insecure:
            raise ConfigError(
                f"{self.name} is another machine and the connection would not be encrypted: use https, or a tunnel to "
                f"http://127.0.0.1, or allow it explicitly (insecure) on a network that you trust"
            )
        self._own = threading.local()
        self._sessions: list[requests.Session] = []

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Send one request and return the node's answer.

        Raises
        ------
        ChainUnavailableError
            If there is none, or not one of an Ethereum node.
        """
        session = self._session()
        try:
            answer = session.post(
                self._url,
                data=self.encode_rpc_request(method, params),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            )
            with answer:
                body = answer.raw.read(MAX_ANSWER + 1, decode_content=True)
        except requests.Timeout:
            raise self._unavailable(f"did not answer within {self._timeout:g} s") from None
        except requests.exceptions.SSLError:
            raise self._unavailable("has no certificate that this machine trusts") from None
        except (requests.RequestException, OSError) as error:
            raise self._unavailable(f"does not answer ({type(error).__name__})") from None
        except Exception as error:  # urllib3's own, while the body is read
            raise self._unavailable(f"broke off its answer ({type(error).__name__})") from None
        if len(body) > MAX_ANSWER:
            raise self._unavailable(f"answered {method} with more than {MAX_ANSWER >> 20} MiB")
        try:
            response = self.decode_rpc_response(body)
        except (ValueError, RecursionError):
            response = None
        if not isinstance(response, dict) or not response.keys() & {"result", "error"}:
            raise self._unavailable(f"is no Ethereum node (HTTP status {answer.status_code})")
        return response

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        if self._closed:
            raise ChainUnavailableError(f"The connection to {self.name} was closed: connect again")
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            self._own.session = session = requests.Session()
            session.trust_env = not self._local  # a proxy is for other machines
            self._sessions.append(session)
        return session

    def _unavailable(self, what: str) -> ChainUnavailableError:
        cure = (
            "start it with `flbc chain up`" if self._local else "check the URL, the network and the provider's limits"
        )
        return ChainUnavailableError(f"The node {self.name} {what}: {cure}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
