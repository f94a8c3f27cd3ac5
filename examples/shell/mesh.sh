#!/usr/bin/env bash
# The mesh from a shell, with the stock `nats` CLI only (github.com/nats-io/natscli).
#
#     mesh up --engine simulator --name demo                          in one terminal
#     NATS_URL=nats://127.0.0.1:4222 examples/shell/mesh.sh demo      in another
set -euo pipefail
model=${1:-demo} job=shell-$RANDOM-$RANDOM

say() { printf '\n== %s\n' "$*"; }

say 'Submit. -J waits until it is stored; sent again with the same id, it still runs once.'
nats pub -J -H "Nats-Msg-Id:default.$job" "mesh.req.$model.standard.default.any" \
    "{\"id\": \"$job\", \"prompt\": \"Once upon a time\", \"max_tokens\": 40}"

say 'Follow it from its first event, until three seconds pass without one. Late is no loss: this is the journal.'
# To follow every job live:  nats sub 'mesh.live.default.>'
nats sub --stream MESH_EVENTS --all --wait 3s --raw "mesh.out.default.$job"

say 'The stored Result.'
nats kv get mesh_results "default.$job" --raw; echo

say 'Its events again, from output token 32 on; they end with an empty message.'
nats req --raw --wait-for-empty --reply-timeout 5s "mesh.ctl.default.replay.$job" '{"index": 32}'

say 'Cancel a long one.'
nats pub -J -H "Nats-Msg-Id:default.$job-2" "mesh.req.$model.batch.default.any" \
    "{\"id\": \"$job-2\", \"prompt\": \"Once upon a time\", \"max_tokens\": 4000}"
nats req --raw "mesh.ctl.default.cancel.$job-2" ''
nats req --raw "mesh.ctl.default.status.$job-2" ''

say 'All of it in one line, through the front door: the Result; and with "stream", the events up to an empty message.'
nats req --raw --timeout 60s "mesh.rpc.default.$model" '{"prompt": "Hello", "max_tokens": 8}'
nats req --raw --timeout 60s --wait-for-empty --reply-timeout 60s "mesh.rpc.default.$model" \
    '{"prompt": "Hello", "max_tokens": 8, "stream": true}'

say 'What waits and what runs, by model, tier and lane; who is waiting; the last event of a job.'
nats consumer report MESH_REQUESTS
nats stream subjects MESH_REQUESTS
nats stream get MESH_EVENTS --last-for "mesh.out.default.$job"
