#!/bin/sh
# Creates a password for each user, and certificates, in the volume `secrets`. It runs before every other service of
# compose.yaml, and overwrites nothing. To replace them: docker compose down && docker volume rm mesh_secrets
#
# It runs as root, because it gives the files to the user of the other services.
set -eu

secrets=${MESH_SECRETS:-/run/mesh}
owner=${MESH_OWNER:-10001:10001}
names=${MESH_CERT_NAMES:-DNS:nats,DNS:n1,DNS:n2,DNS:n3,DNS:localhost,IP:127.0.0.1}
cd "$secrets"
umask 077

for user in operator worker client cluster; do
  # It begins with a letter: nats-server would read a password of digits as a number.
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
  # Last and atomic: an interrupted run starts again.
  mv nats.made nats.crt
  rm -f ca.key ca.srl nats.csr nats.ext # with the key, anyone could make trusted certificates
fi

chown "$owner" "$secrets" ./* "$@"
