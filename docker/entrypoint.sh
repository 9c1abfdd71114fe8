#!/bin/sh
# The process is the first argument: web, controller, init, migrate, backup, broker_users, node, egress, worker
# (ASSAY_WORKER_KIND: compute or engine).
set -eu
# What a process writes is for its own user, as in the units.
umask 077

role="${1:-web}"
[ "$#" -gt 0 ] && shift

case "$role" in
web)
    export ASSAY_PROCESS=web
    exec python -m assay.server --host 0.0.0.0 --port "${PORT:-8000}" \
        --workers "${WEB_CONCURRENCY:-2}" "$@"
    ;;
controller)
    export ASSAY_PROCESS=controller
    exec assay manage run_controller "$@"
    ;;
init)
    export ASSAY_PROCESS=migrate
    exec assay init "$@"
    ;;
migrate)
    export ASSAY_PROCESS=migrate
    assay manage migrate --no-input
    assay manage apply_database_roles
    exec assay manage bootstrap "$@"
    ;;
backup)
    export ASSAY_PROCESS=migrate
    exec assay backup "$@"
    ;;
broker_users)
    # It reads no other setting, and no secret of the platform.
    export ASSAY_PROCESS=broker_users ASSAY_ENV=development
    exec assay manage write_broker_users /var/lib/broker/users.acl "$@"
    ;;
node)
    export ASSAY_PROCESS=node TMPDIR=/var/lib/scratch
    export HF_HOME="$TMPDIR/huggingface" XDG_CACHE_HOME="$TMPDIR/cache"
    exec celery --quiet -A workers.app worker -I workers.celery_tasks.inference -Q engine.none -P threads \
        -c "${ASSAY_WORKER_CONCURRENCY:-16}" -n "engine@%h" \
        --without-mingle --without-gossip --without-heartbeat "$@"
    ;;
egress)
    export ASSAY_PROCESS=egress
    exec celery --quiet -A workers.app worker -I workers.celery_tasks.inference -Q engine.none -P threads \
        -c "${ASSAY_WORKER_CONCURRENCY:-16}" -n "egress@%h" \
        --without-mingle --without-gossip --without-heartbeat "$@"
    ;;
worker)
    # Copies of weights are too large for the memory that /tmp is.
    export ASSAY_PROCESS=worker TMPDIR=/var/lib/scratch
    export HF_HOME="$TMPDIR/huggingface" XDG_CACHE_HOME="$TMPDIR/cache"
    case "${ASSAY_WORKER_KIND:-compute}" in
    compute)
        exec python -m celery --quiet -A workers.app worker -I workers.celery_tasks.jobs -Q compute \
            -P threads -c "${ASSAY_WORKER_CONCURRENCY:-1}" -n "compute@%h" \
            --without-mingle --without-gossip --without-heartbeat "$@"
        ;;
    engine)
        exec celery --quiet -A workers.app worker -I workers.celery_tasks.inference -Q engine.none \
            -P threads -c "${ASSAY_WORKER_CONCURRENCY:-16}" -n "engine@%h" \
            --without-mingle --without-gossip --without-heartbeat "$@"
        ;;
    *)
        echo "ASSAY_WORKER_KIND=${ASSAY_WORKER_KIND} is not known; set it to compute or engine." >&2
        exit 64
        ;;
    esac
    ;;
*)
    echo "Process '$role' is not known; use web, controller, init, migrate, backup, broker_users, node, egress or worker." >&2
    exit 64
    ;;
esac
