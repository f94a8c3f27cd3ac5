#!/bin/sh
# Declares the mesh as soon as NATS answers; a cluster needs some time to elect its leaders.
set -eu

tries=0
until mesh init --apply; do
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then
    echo "the mesh could not be declared; see above, and docker compose logs nats" >&2
    exit 1
  fi
  sleep 2
done
