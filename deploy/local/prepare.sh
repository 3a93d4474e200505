# shellcheck shell=bash
# What make run and make up do before anything starts: check what was asked for, install the
# packages that are missing, build. Sourced; the caller defines fail and tree.
: "${tree:?}"

now_ms() { date +%s%3N; }

# seconds SINCE_MS: "4.2"
seconds() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

check_stack_settings() {
    [[ -z ${KAFKA:-} || $KAFKA == apache || $KAFKA == devbroker ]] ||
        fail "KAFKA=$KAFKA: say KAFKA=apache, or leave it out for devbroker"
    [[ -z ${MODEL:-} || -e $MODEL ]] || fail "MODEL=$MODEL: there is no such file or folder"
}

model_path() { realpath -- "${MODEL:-$tree/worker/models/demo}"; }

# Sets build_time.
prepare() {
    local groups=(build) started flags=${MAKEFLAGS:-} jobs=() log=$tree/build/run/build.log
    [[ ${KAFKA:-} != apache ]] || groups+=(kafka)
    "$tree/deploy/local/install.sh" "${groups[@]}"

    mkdir -p "$tree/build/run"
    started=$(now_ms)
    # The part before " -- " holds make's options; what follows is a person's text.
    [[ " ${flags%% -- *}" == *" -j"* ]] || jobs=(-j "$(nproc)")
    [[ -x $tree/build/bin/gateway ]] || echo "Building (the first time takes a minute) ..."
    if ! "${MAKE:-make}" -C "$tree" --no-print-directory "${jobs[@]}" all > "$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "the build failed; its last lines are above, all of them in $log"
    fi
    # shellcheck disable=SC2034 # run.sh prints it
    build_time=$(seconds "$started")
    if [[ ${KAFKA:-} == apache ]]; then
        "$tree/deploy/local/kafka.sh" install "$tree/build/kafka"
    fi
}
