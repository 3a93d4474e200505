#!/usr/bin/env bash
# make run: from a prompt to a picture on this machine, whatever is missing.
#
# Installs the packages that are missing, builds, starts a stack of its own (or uses the one that
# `make up` left running), orders one picture over HTTP, follows its progress, saves it, and stops
# what it started: when it is done, when it fails, and on Ctrl-C.
#
# Reads from the environment: PROMPT, NEGATIVE, SEED, STEPS, SIZE (WxH), MODEL (a folder or file),
# KAFKA (apache), OUT (the PNG's name). They are never part of a command that a shell parses.
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
kept_stack=$tree/build/run/stack # what `make up` keeps
stack=$tree/build/run/once.$$

# shellcheck source=deploy/local/services.sh
. "$tree/deploy/local/services.sh"
# shellcheck source=deploy/local/prepare.sh
. "$tree/deploy/local/prepare.sh"

job_url=     # of the job under way: cancelled when we are interrupted
own_stack=0  # we started it, we stop it
bar_shown=0  # the cursor is on a progress bar
curl=(curl -sS --max-time 30)

fail() {
    clear_bar
    echo "run: $*" >&2
    exit 1
}

# ---- What was asked for ----------------------------------------------------------------------

check_request() {
    local name
    if [[ -z ${PROMPT:-} ]]; then
        echo 'usage: make run PROMPT="a flaming obsidian sword" [NEGATIVE=TEXT] [SEED=N]' >&2
        echo '                [STEPS=N] [SIZE=WxH] [MODEL=DIR|FILE] [KAFKA=apache] [OUT=FILE]' >&2
        exit 2
    fi
    for name in SEED STEPS; do
        [[ -z ${!name:-} || ${!name} =~ ^(0|[1-9][0-9]*)$ ]] ||
            fail "$name=${!name} is not a whole number"
    done
    [[ -z ${SIZE:-} || $SIZE =~ ^[0-9]+x[0-9]+$ ]] ||
        fail "SIZE=$SIZE is not WIDTHxHEIGHT, for example 128x128"
    check_stack_settings
    [[ -z ${OUT:-} || ! -d $OUT ]] || fail "OUT=$OUT is a folder: name the file to write"
}

# A file name of what the prompt says: "a-flaming-obsidian-sword".
slug() {
    local text
    text=$(printf %s "$1" | tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]' '-' | cut -c 1-48)
    text=${text#-}
    text=${text%-}
    echo "${text:-picture}"
}

# ---- The stack ---------------------------------------------------------------------------

start_or_use_stack() {
    local model started
    model=$(model_path)
    started=$(now_ms)
    if (stack=$kept_stack && stack_is_up); then
        stack=$kept_stack
        use_kept_stack "$model"
        start_time=
        return
    fi
    forget_dead_stacks
    mkdir -p "$stack"
    own_stack=1
    stack_tied=1
    echo "Starting $(stack_contents) ..."
    stack_start "$model" || fail "the stack did not start"
    start_time=$(seconds "$started")
    echo "Ready in $start_time s."
}

# The logs of a failed run stay until the next one.
forget_dead_stacks() {
    local old
    for old in "$tree"/build/run/once.*; do
        [[ ! -d $old ]] || kill -0 "${old##*.}" 2> /dev/null || rm -rf "$old"
    done
}

use_kept_stack() {
    local running
    running=$(stack_setting model)
    [[ -z ${MODEL:-} || $1 == "$running" ]] ||
        fail "the running stack serves $running, not $1: stop it with make down first"
    [[ -z ${KAFKA:-} || $(stack_setting kafka) == *Apache* ]] || [[ $KAFKA != apache ]] ||
        fail "the running stack uses $(stack_setting kafka): stop it with make down first"
    stack_url=$(stack_setting url)
    echo "Using the stack at $stack_url"
}

# ---- The order -------------------------------------------------------------------------------

request_body() {
    jq -n --arg prompt "$PROMPT" --arg negative "${NEGATIVE:-}" --arg seed "${SEED:-}" \
        --arg steps "${STEPS:-}" --arg size "${SIZE:-}" '
        {prompt: $prompt}
        + if $negative != "" then {negative_prompt: $negative} else {} end
        + if $seed != "" then {seed: ($seed | tonumber)} else {} end
        + if $steps != "" then {steps: ($steps | tonumber)} else {} end
        + if $size != "" then ($size | split("x") | map(tonumber) | {width: .[0], height: .[1]})
          else {} end'
}

submit() {
    local answer status
    [[ ! -f $stack/api.key ]] || curl+=(-H "Authorization: Bearer $(cat "$stack/api.key")")
    answer=$(request_body | "${curl[@]}" -w '\n%{http_code}' -H 'Content-Type: application/json' \
        --data-binary @- "$stack_url/v1/generations")
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    [[ $status == 20[02] ]] ||
        fail "the gateway refused: $(jq -r '.error | .message + (.details // [] | map(
            "\n  \(.field): \(.problem)" + if .allowed then "; allowed: \(.allowed)" else "" end
            ) | add // "")' <<< "$answer" 2> /dev/null || echo "HTTP $status: $answer")"
    job_url=$stack_url/v1/generations/$(jq -r .id <<< "$answer")
}

# ---- Progress --------------------------------------------------------------------------------

if [[ -t 1 ]]; then is_terminal=1; else is_terminal=0; fi

clear_bar() {
    [[ $bar_shown -eq 0 ]] || printf '\r\033[K'
    bar_shown=0
}

# show TEXT STEP STEPS: how far the job is
show() {
    local width=32 filled=0 line
    if [[ $is_terminal -eq 0 ]]; then
        echo "$1"
        return
    fi
    [[ $3 -eq 0 ]] || filled=$((width * $2 / $3))
    line=$(printf '%*s' "$filled" '' | tr ' ' '#')$(printf '%*s' $((width - filled)) '' | tr ' ' -)
    printf '\r\033[K[%s] %s' "$line" "$1"
    bar_shown=1
}

# show_event EVENT STAGE STEP STEPS: only sampling steps move the bar
show_event() {
    case $1/$2 in
        step/denoise)
            shown=("$3" "$4")
            show "step $3 of $4" "$3" "$4"
            ;;
        step/*) ;; # the other stages take a moment
        *) show "$1" "${shown[@]}" ;;
    esac
}

# A service that dies takes the job's progress with it: better to say so than to wait.
check_services() {
    local name
    name=$(dead_service)
    [[ -z $name ]] || {
        clear_bar
        explain "$name" "ended while the job was under way"
        fail "the picture was not made"
    }
}

# "step<TAB>denoise<TAB>3<TAB>20" lines, one an event, until the job has ended.
read_events() {
    "${curl[@]}" --max-time 86400 -N "$job_url/events" 2> /dev/null | jq --unbuffered -nRr '
        foreach inputs as $line (""; if $line | startswith("event: ") then $line[7:] else . end;
            if $line | startswith("data: ") then
                . as $event | $line[6:] | fromjson
                | [$event, .stage // "-", .step // 0, .steps // 0] | @tsv
            else empty end)' 2> /dev/null
}

# If the connection breaks, so does the loop, and wait_for_end asks the job itself.
follow() {
    local event stage step steps shown=(0 0)
    while :; do
        if IFS=$'\t' read -r -t 1 event stage step steps; then
            show_event "$event" "$stage" "$step" "$steps"
            [[ $event != "done" ]] || break
        elif (($? > 128)); then # a second without news
            check_services
        else
            break
        fi
    done < <(read_events)
    clear_bar
}

# Fills `job` with the job's last state.
wait_for_end() {
    while :; do
        check_services
        job=$("${curl[@]}" "$job_url") || fail "the gateway does not answer any more"
        case $(jq -r .state <<< "$job") in
            succeeded) return ;;
            failed | cancelled | expired)
                job_url=
                fail "$(jq -r '"the job \(.state): \(.error.message) (\(.error.code))"' <<< "$job")"
                ;;
        esac
        sleep 0.2
    done
}

# ---- The picture -----------------------------------------------------------------------------

save() {
    seed=$(jq -r .seed <<< "$job")
    url=$(jq -r .url <<< "$job")
    out=$(realpath -m -- "${OUT:-$tree/out/$(slug "$PROMPT")-$seed.png}")
    mkdir -p "$(dirname "$out")"
    "${curl[@]}" -f -o "$out.part" "$url" || fail "the picture could not be fetched from $url"
    mv "$out.part" "$out"
    job_url=
}

print_result() {
    local note=
    [[ $own_stack -eq 0 ]] || note=" (while the stack runs; make up keeps one)"
    echo
    echo "${out#"$PWD"/}"
    echo "  seed  $seed"
    echo "  url   $url$note"
    printf '  time  build %s s' "$build_time"
    [[ -z $start_time ]] || printf ', start %s s' "$start_time"
    # "denoise_ms": 2041 becomes ", denoise 2.04 s".
    jq -j '.timings // {} | to_entries[] | select(.value | type == "number")
        | ", \(.key | sub("_(ms|seconds)$"; "")) " +
          "\(if .key | endswith("_ms") then .value / 1000 else .value end * 100 | round / 100) s"' \
        <<< "$job"
    printf '\n'
}

# ---- The end ---------------------------------------------------------------------------------

finish() {
    local status=$?
    trap '' INT TERM HUP
    trap - EXIT
    clear_bar
    if [[ -n $job_url ]]; then
        "${curl[@]}" --max-time 2 -o /dev/null -X DELETE "$job_url" 2> /dev/null || true
    fi
    if [[ $own_stack -eq 1 ]]; then
        stack_stop 5
        if [[ $status -eq 0 || $status -ge 128 ]]; then
            rm -rf "$stack"
            [[ $status -eq 0 ]] || printf '\nrun: interrupted; everything is stopped\n' >&2
        else
            echo "run: everything is stopped; the logs are in ${stack#"$PWD"/}" >&2
        fi
    fi
    exit "$status"
}

main() {
    local began
    began=$(now_ms)
    check_request
    prepare
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    start_or_use_stack
    submit
    follow
    wait_for_end
    save
    print_result
    echo "  in all $(seconds "$began") s"
}

main
