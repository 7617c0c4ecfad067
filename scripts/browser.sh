#!/bin/sh
# Install a headless Chromium for the browser tests where that is possible. Without one those tests are skipped.
for name in "${CHROMIUM:-chromium}" chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "no Chromium found: the browser tests will be skipped (install chromium, or set CHROMIUM=/path/to/it)" >&2
    exit 0
fi
echo "Installing Chromium for the browser tests" >&2
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core </dev/null >/dev/null 2>&1; }
install || { apt-get update -qq </dev/null >/dev/null 2>&1 && install; } ||
    echo "Chromium could not be installed: the browser tests will be skipped" >&2
exit 0
