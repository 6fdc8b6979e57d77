#!/bin/sh
# Makes sure that there is a promtool, which judges the alerting rules: install-promtool.sh FOLDER; `make test` calls it.
# Takes it out of the Debian package `prometheus`, which is not installed. Where there is no apt-get it says what to do,
# and the tests of those rules are skipped; with CI=true that is a failure.
set -eu

folder=$1
if command -v promtool >/dev/null 2>&1 || [ -x "$folder/promtool" ]; then
    exit 0
fi

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
if command -v apt-get >/dev/null 2>&1; then
    echo "thingjobs: fetching promtool for the tests ..."
    fetch() { (cd "$made" && apt-get download prometheus); }
    take() { dpkg-deb --extract "$made"/prometheus_*.deb "$made" && install -m 755 "$made/usr/bin/promtool" "$folder/"; }
    if { { fetch || { apt-get update && fetch; }; } && take; } >"$made/log" 2>&1 </dev/null; then
        exit 0
    fi
    cat "$made/log" >&2
fi

echo "thingjobs: there is no promtool here: the alerting rules cannot be tested." >&2
echo "Put that of https://prometheus.io/download/ on your PATH." >&2
if [ "${CI:-}" = true ]; then
    exit 1
fi
echo "Going on; those tests will be skipped, loudly." >&2
