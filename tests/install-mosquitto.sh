#!/bin/sh
# Makes sure that there is a Mosquitto to test against; `make test` and `make bench` call it.
# Installs it only as root, with apt-get. Otherwise it says what to do, and the tests that need a broker are skipped;
# with CI=true that is a failure.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin
if command -v mosquitto >/dev/null 2>&1; then
    exit 0
fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "thingjobs: there is no mosquitto here: the tests against a real broker cannot run." >&2
    echo "Install it (Debian and Ubuntu: sudo apt-get install mosquitto) and run this again." >&2
    if [ "${CI:-}" = true ]; then
        exit 1
    fi
    echo "Going on; those tests will be skipped, loudly." >&2
    exit 0
fi

echo "thingjobs: installing mosquitto for the tests ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends mosquitto; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "thingjobs: cannot install mosquitto: apt-get says why above." >&2
    exit 1
fi

# The package brings up a broker of its own, on port 1883 and at every boot. Nobody asked for that one: the tests
# start theirs. (A broker that was here before this script never gets this far.)
if [ -d /run/systemd/system ]; then
    systemctl disable --now mosquitto >/dev/null 2>&1 || true
elif command -v service >/dev/null 2>&1; then
    service mosquitto stop >/dev/null 2>&1 || true
fi
