"""The floor of the benchmarks over HTTPS: requests, asking what is next every so often on one connection.

Run as a program by the benchmarks: `bare_https.py PORT CA CERTIFICATE KEY THING SECONDS`.
"""

from __future__ import annotations

import sys
import time

import requests


def main() -> None:
    """Ask for ever."""
    port, ca, certificate, key, thing, seconds = sys.argv[1:]
    with requests.Session() as session:
        session.trust_env = False  # or REQUESTS_CA_BUNDLE would take the place of what follows
        session.verify, session.cert = ca, (certificate, key)
        while True:
            session.get(f"https://localhost:{port}/things/{thing}/jobs/$next", timeout=30)
            time.sleep(float(seconds))


if __name__ == "__main__":
    main()
