#!/bin/sh
# Once, before anything else of compose.yaml starts: a password for each user, and certificates, in the volume
# `secrets`. Nothing is overwritten. To have new ones: docker compose down && docker volume rm mesh_secrets
#
# It runs as root, to give what it makes to the user that the others run as.
set -eu

secrets=${MESH_SECRETS:-/run/mesh}
owner=${MESH_OWNER:-10001:10001}
names=${MESH_CERT_NAMES:-DNS:nats,DNS:n1,DNS:n2,DNS:n3,DNS:localhost,IP:127.0.0.1}
cd "$secrets"
umask 077

for user in operator worker client cluster; do
  # A letter first: nats-server takes a password that looks like a number for one.
  [ -s "$user.password" ] || printf 'p%s\n' "$(openssl rand -hex 24)" > "$user.password"
done

if [ ! -s nats.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=mesh CA" -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.crt
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=mesh nats" -keyout nats.key -out nats.csr
  printf '%s\n' "subjectAltName=$names" "extendedKeyUsage=serverAuth,clientAuth" "basicConstraints=CA:FALSE" \
    "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" > nats.ext
  openssl x509 -req -in nats.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile nats.ext -out nats.made
  # Last, and at once: a run that was cut off is done again.
  mv nats.made nats.crt
  rm -f ca.key ca.srl nats.csr nats.ext # whoever has the key could vouch for anybody
fi

chown "$owner" "$secrets" ./* "$@"
