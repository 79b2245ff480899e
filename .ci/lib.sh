# Sourced by the scripts beside it: steps that say what they do and how long it took.

# Checks that could not be run here, named at the end so that none is skipped in silence.
not_run=()

step() {
    local name=$1 started=$SECONDS
    shift
    printf '\n==> %s\n    %s\n' "$name" "$*"
    "$@"
    printf '    done in %s s\n' "$((SECONDS - started))"
}

skip() {
    printf '\n==> %s: NOT RUN: %s\n' "$1" "$2"
    not_run+=("$1: $2")
}

# A step whose command says by exit code 75 that it cannot be run here.
step_if_possible() { # step_if_possible NAME REASON COMMAND..
    local name=$1 reason=$2 started=$SECONDS code=0
    shift 2
    printf '\n==> %s\n    %s\n' "$name" "$*"
    "$@" || code=$?
    case $code in
        0) printf '    done in %s s\n' "$((SECONDS - started))" ;;
        75) skip "$name" "$reason" ;;
        *) exit "$code" ;;
    esac
}

summary() {
    printf '\nAll checks that were run have passed (%s s).\n' "$SECONDS"
    for check in "${not_run[@]}"; do
        printf 'Not run: %s\n' "$check"
    done
}

# Debian packages, where this machine has apt and lets us. 1 if they cannot be had.
apt_install() {
    command -v apt-get >/dev/null || return 1
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        sudo=(sudo -n)
        command -v sudo >/dev/null || return 1
    fi
    # Package lists may be missing or old; try with those there first.
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
    "${sudo[@]}" apt-get update >/dev/null 2>&1 &&
        DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1
}
