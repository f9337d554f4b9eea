"""How a server of ours is asked: straight, whatever proxy the shell is told to use.

requests sends even a call to 127.0.0.1 through `http_proxy`, unless `no_proxy` excepts it, and a
proxy's 403 would read as the server's own.
"""

from __future__ import annotations

import requests


def direct() -> requests.Session:
    """A session that reads nothing from the environment: no proxy, and no key out of a .netrc."""
    session = requests.Session()
    session.trust_env = False
    return session
