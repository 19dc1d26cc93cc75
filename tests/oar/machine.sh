#!/bin/sh
# Makes the inside of a throw-away OAR: called by cluster.py as process 1 of new mount and PID namespaces.
# What is written below /etc, /usr and /var goes to $folder/over, and is gone with the namespace.
set -eu
folder=$1 server=$2 sshd=$3
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

mount -t tmpfs over "$folder/over"
for name in etc usr var; do
    mkdir "$folder/over/$name" "$folder/over/$name.work"
    mount -t overlay over -o "lowerdir=/$name,upperdir=$folder/over/$name,workdir=$folder/over/$name.work" "/$name"
done
mount -t tmpfs run /run
mount -t tmpfs shm /dev/shm
mkdir -p /run/sshd /run/postgresql /run/home

# Packages: none starts anything by itself.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
if ! command -v oarsub >/dev/null || ! command -v Almighty >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    {
        apt-get -qq update
        apt-get -qq install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
            oar-server oar-server-pgsql oar-user oar-user-pgsql oar-node libjson-perl postgresql openssh-server
    } >"$folder/install.log" 2>&1
fi
touch "$folder/installed"

# Names. A job's shell reads no start-up files of whoever runs the tests.
echo "127.0.0.2 node1
127.0.0.3 node2" >>/etc/hosts
sed -i '/^root:/s#:/root:#:/run/home:#' /etc/passwd

# The database.
chown postgres /run/postgresql
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
data=/run/postgresql/data
as_postgres "$bin/initdb" --auth=trust --no-sync "$data" >"$folder/initdb.log"
as_postgres "$bin/postgres" -D "$data" -c fsync=off -c listen_addresses= -c unix_socket_directories=/run/postgresql \
    >"$folder/postgres.log" 2>&1 &
until "$bin/pg_isready" --quiet --host=/run/postgresql; do sleep 0.1; done
sql() { psql --quiet --set=ON_ERROR_STOP=1 --host=/run/postgresql --username="$@"; }
sql postgres --command="CREATE ROLE oar LOGIN" --command="CREATE DATABASE oar OWNER oar"
for name in pg_structure pg_default_admission_rules default_data; do
    sql oar --file="/usr/lib/oar/database/$name.sql"
done
# Whoever runs the tests is root, whom OAR's rules refuse by default.
sql oar --command="DELETE FROM admission_rules WHERE rule LIKE '%root and oar users are not allowed%'"

# Its settings: quick, on this machine alone. OAR's own scripts at the start and the end of a job make cgroups of this
# machine, and delete the user's files in its /tmp: they do nothing here.
sed -i -e 's#^DB_HOSTNAME=.*#DB_HOSTNAME="/run/postgresql"#' \
    -e 's/^DB_BASE_LOGIN_RO=.*/DB_BASE_LOGIN_RO="oar"/' \
    -e "s/^SERVER_PORT=.*/SERVER_PORT=\"$server\"/" \
    -e "s#^OPENSSH_CMD=.*#OPENSSH_CMD=\"/usr/bin/ssh -p $sshd -e none\"#" \
    -e "s#^LOG_FILE=.*#LOG_FILE=\"$folder/oar.log\"#" \
    -e 's/^CPUSET_PATH=/#&/' \
    -e 's/^FINAUD_FREQUENCY=.*/FINAUD_FREQUENCY="0"/' \
    -e 's/^SCHEDULER_JOB_SECURITY_TIME=.*/SCHEDULER_JOB_SECURITY_TIME="1"/' \
    -e 's/^SCHEDULER_GANTT_HOLE_MINIMUM_TIME=.*/SCHEDULER_GANTT_HOLE_MINIMUM_TIME="1"/' \
    -e 's/^#SCHEDULER_MIN_TIME_BETWEEN_2_CALLS=.*/SCHEDULER_MIN_TIME_BETWEEN_2_CALLS="0"/' /etc/oar/oar.conf
for script in /etc/oar/job_resource_manager*.pl; do echo 'exit(0);' >"$script"; done
install -o oar -g oar -m 644 /dev/null "$folder/oar.log"
sed -i 's/INET->new(LocalPort/INET->new(LocalAddr => "127.0.0.1", LocalPort/' /usr/lib/oar/Almighty
sed -i "s/^Port .*/Port $sshd/" /etc/oar/sshd_config
for last in 1 2 3; do echo "ListenAddress 127.0.0.$last"; done >>/etc/oar/sshd_config
rm -f /etc/oar/oar_ssh_host_*
ssh-keygen -q -t rsa -N '' -f /etc/oar/oar_ssh_host_rsa_key

/usr/sbin/sshd -D -e -f /etc/oar/sshd_config >"$folder/sshd.log" 2>&1 &
/usr/sbin/Almighty >"$folder/almighty.log" 2>&1 &
{
    oarproperty --add host --varchar
    oarproperty --add core
    for node in 1 2; do
        for core in 1 2 3 4; do
            oarnodesetting --add --hostname="node$node" --prop="host=node$node" --prop="core=$((4 * node + core))"
        done
    done
} >"$folder/resources.log" 2>&1
touch "$folder/ready"
touch /run/home/.bashrc # which OAR has every job read
trap '' CHLD # orphans of jobs don't stay as zombies: process 1 ignores their end
exec sleep infinity
