#!/bin/sh
# Installs botmesh on this host: the binary, units, folders, and a user for each server. Running it again changes nothing that you edited.
#
#   deploy/install.sh ca           on the CA's host
#   deploy/install.sh proxy        on every host with bots (both words where the CA's host has bots too)
#
# BOTMESH=FILE    the binary to install              [target/release/botmesh]
# PREFIX=DIR      where it goes, in DIR/bin          [/usr/local]
# UNITDIR=DIR     where units go                     [/etc/systemd/system]
# DESTDIR=DIR     puts everything below DIR instead, for packaging: no user is made, nothing is owned, nothing is started
set -eu

here=$(cd "$(dirname "$0")" && pwd)
BOTMESH=${BOTMESH:-$here/../target/release/botmesh}
PREFIX=${PREFIX:-/usr/local}
UNITDIR=${UNITDIR:-/etc/systemd/system}
DESTDIR=${DESTDIR:-}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    printf 'usage: install.sh ca|proxy…\n' >&2
    exit 2
}

# folder PATH MODE [OWNER]: an owner is given only on this host itself, where the user exists.
folder() {
    mkdir -p "$DESTDIR$1"
    chmod "$2" "$DESTDIR$1"
    if [ -z "$DESTDIR" ] && [ -n "${3:-}" ]; then
        chown "$3:$3" "$1"
    fi
}

# A configuration is written once and then yours.
config() {
    if [ -e "$DESTDIR/etc/botmesh/$1" ]; then
        printf 'kept       %s\n' "$DESTDIR/etc/botmesh/$1"
    else
        install -m 0644 "$here/$1" "$DESTDIR/etc/botmesh/$1"
        printf 'installed  %s (edit it)\n' "$DESTDIR/etc/botmesh/$1"
    fi
}

# A unit is ours: change it with `systemctl edit`.
unit() {
    sed "s,/usr/local/bin/botmesh,$PREFIX/bin/botmesh," "$here/systemd/$1" >"$DESTDIR$UNITDIR/$1.new"
    chmod 0644 "$DESTDIR$UNITDIR/$1.new"
    mv -f "$DESTDIR$UNITDIR/$1.new" "$DESTDIR$UNITDIR/$1"
    printf 'installed  %s\n' "$DESTDIR$UNITDIR/$1"
}

tmpfiles() {
    install -m 0644 "$here/tmpfiles.d/$1" "$DESTDIR/usr/lib/tmpfiles.d/$1"
    [ -z "$DESTDIR" ] || return 0
    if command -v systemd-tmpfiles >/dev/null 2>&1; then
        systemd-tmpfiles --create "/usr/lib/tmpfiles.d/$1"
    else
        printf 'install.sh: no systemd-tmpfiles here: make what /usr/lib/tmpfiles.d/%s says at each boot\n' "$1" >&2
    fi
}

binary() {
    [ -x "$BOTMESH" ] || fail "$BOTMESH is no program: build it (cargo build --release) or say BOTMESH=FILE"
    # Beside it and renamed: a server that runs keeps its own file, and nobody sees half of one.
    install -m 0755 "$BOTMESH" "$DESTDIR$PREFIX/bin/.botmesh.new"
    mv -f "$DESTDIR$PREFIX/bin/.botmesh.new" "$DESTDIR$PREFIX/bin/botmesh"
    printf 'installed  %s\n' "$DESTDIR$PREFIX/bin/botmesh"
}

# A user for a server and for nothing else.
user() {
    if [ -z "$DESTDIR" ] && ! getent passwd "$1" >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$1"
        printf 'made       the user %s\n' "$1"
    fi
}

ca() {
    user botmesh-ca
    folder /var/lib/botmesh/ca 0700 botmesh-ca
    config ca.yaml
    unit botmesh-ca.service
    tmpfiles botmesh-ca.conf
}

proxy() {
    user botmesh
    # Root's until the proxy starts: it takes the folder with all that an earlier version left in it.
    folder /var/lib/botmesh/proxy 0700
    config proxy.yaml
    unit botmesh-proxy.service
    unit botmesh-proxy.socket
    unit botmesh-export.service
    tmpfiles botmesh-proxy.conf
}

[ $# -gt 0 ] || usage
for role in "$@"; do
    case $role in ca | proxy) ;; *) usage ;; esac
done
if [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ]; then
    fail "needs root (or DESTDIR=DIR)"
fi
for path in "$PREFIX/bin" "$UNITDIR" /etc/botmesh /usr/lib/tmpfiles.d /var/lib/botmesh; do
    mkdir -p "$DESTDIR$path"
done
binary
for role in "$@"; do
    "$role"
done
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
