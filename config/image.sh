#!/bin/sh
# Lays out the container's file system: the program, the shared libraries that it names, the authorities that TLS
# trusts, a user, and a folder for that user's data. Used by the Dockerfile and by tests/image/run.
#
#   config/image.sh target/dist/tailkeep FOLDER
set -eu
program=$1
image=$2
install -D -m 755 "$program" "$image/usr/bin/tailkeep"
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$image$library"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/ca-certificates.crt"
echo 'tailkeep:x:65532:65532::/var/lib/tailkeep:/sbin/nologin' | install -D -m 644 /dev/stdin "$image/etc/passwd"
echo 'tailkeep:x:65532:' | install -D -m 644 /dev/stdin "$image/etc/group"
# Names come from /etc/hosts, which Kubernetes writes, then from DNS.
echo 'hosts: files dns' | install -D -m 644 /dev/stdin "$image/etc/nsswitch.conf"
install -d -m 700 -o 65532 -g 65532 "$image/var/lib/tailkeep"
