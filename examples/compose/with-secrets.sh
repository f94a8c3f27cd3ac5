#!/bin/sh
# Runs a command of compose.yaml with only the secrets that it needs from the volume `secrets`:
#
#   with-secrets.sh nats-server -c …    all passwords, and the certificate
#   with-secrets.sh mesh worker …       the password of MESH_USER, and the trusted authority
set -eu

secrets=${MESH_SECRETS:-/run/mesh}

if [ "$1" = nats-server ]; then
  MESH_OPERATOR_PASSWORD=$(cat "$secrets/operator.password")
  MESH_WORKER_PASSWORD=$(cat "$secrets/worker.password")
  MESH_CLIENT_PASSWORD=$(cat "$secrets/client.password")
  MESH_CLUSTER_PASSWORD=$(cat "$secrets/cluster.password")
  MESH_NATS_CERT=$secrets/nats.crt MESH_NATS_KEY=$secrets/nats.key MESH_NATS_CA=$secrets/ca.crt
  MESH_CLUSTER_LISTEN=0.0.0.0:6222
  route=nats-route://route:$MESH_CLUSTER_PASSWORD@
  MESH_CLUSTER_ROUTES="[\"${route}n1:6222\", \"${route}n2:6222\", \"${route}n3:6222\"]"
  export MESH_OPERATOR_PASSWORD MESH_WORKER_PASSWORD MESH_CLIENT_PASSWORD MESH_CLUSTER_PASSWORD
  export MESH_NATS_CERT MESH_NATS_KEY MESH_NATS_CA MESH_CLUSTER_LISTEN MESH_CLUSTER_ROUTES
else
  MESH_PASSWORD=$(cat "$secrets/$MESH_USER.password")
  MESH_TLS_CA=$secrets/ca.crt
  export MESH_PASSWORD MESH_TLS_CA
fi
exec "$@"
