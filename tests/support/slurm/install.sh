#!/bin/sh
# Install Slurm for the tests where that is possible: Debian or Ubuntu, as root or with sudo that asks for nothing.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
for tool in slurmctld slurmd slurmdbd munged mariadbd mariadb-install-db sbatch ip unshare nsenter; do
  command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
[ -n "${missing:-}" ] || exit 0
root=""
[ "$(id -u)" = 0 ] || root="sudo -n"
if ! command -v apt-get >/dev/null || ! $root true 2>/dev/null; then
  echo "Slurm is not installed ($missing ) and cannot be here: its tests are skipped."
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq
$root apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client slurmdbd munge \
  mariadb-server-core mariadb-client-core iproute2 util-linux >/dev/null
