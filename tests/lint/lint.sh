#!/usr/bin/env bash
# Everything that can be said about the tree without running it. Each check prints one line; one
# that fails prints its causes below it. All checks run, then the exit status tells.
#
#   tests/lint/lint.sh [CHECK...]     only these (their names are in the output)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh build lint
jobs=$(nproc)
make=${MAKE:-make}
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# Tracked files and new ones that are not ignored, NUL-separated.
files() {
    git ls-files -z -co --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
        [[ ! -f $file ]] || printf '%s\0' "$file"
    done
}

count() { files "$@" | tr -dc '\0' | wc -c; }

# Objects, clang-tidy's verdicts and the headers' are kept in build/lint; only what changed is done
# again. -O1 because some warnings need the optimizer.
lint_make() {
    "$make" --no-print-directory -k -j"$jobs" \
        O=build/lint MODE=release CFLAGS=-O1 WERROR=-Werror "$@"
}

check_format() {
    local bad
    # Of its many lines about a file only the name is of use.
    bad=$(files '*.c' '*.h' | xargs -0 -n 16 -P "$jobs" clang-format --dry-run -Werror 2>&1 |
        sed -nE 's/^([^ :]+):[0-9]+:[0-9]+: error: .*/\1: run clang-format -i on it/p' | sort -u)
    [[ -z $bad ]] || {
        echo "$bad"
        return 1
    }
    printf '%s files' "$(count '*.c' '*.h')" >&2
}

check_compile() {
    lint_make lint-objects
    printf '%s sources with -Werror' "$(count '*.c')" >&2
}

check_headers() {
    lint_make lint-headers
    printf '%s headers, each alone' "$(count '*.h')" >&2
}

check_tidy() {
    lint_make lint-tidy
    printf '%s sources' "$(count '*.c')" >&2
}

check_cppcheck() {
    files '*.c' | tr '\0' '\n' > build/lint/cppcheck.files
    cppcheck --quiet --error-exitcode=1 --std=c11 --language=c -j "$jobs" \
        --enable=warning,performance,portability --inline-suppr \
        --suppress=missingIncludeSystem --suppress=ctuuninitvar --suppress=ctunullpointer \
        -D__GNUC__ -I. --file-list=build/lint/cppcheck.files
    printf '%s sources' "$(count '*.c')" >&2
}

check_shell() {
    files '*.sh' '.ci/run' | xargs -0 shellcheck -x
    printf '%s scripts' "$(count '*.sh' '.ci/run')" >&2
}

check_python() {
    files '*.py' | xargs -0 /usr/bin/python3 -c '
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)'
    printf '%s scripts parse' "$(count '*.py')" >&2
}

check_includes() { /usr/bin/python3 tests/lint/includes.py; }
check_text() { /usr/bin/python3 tests/lint/text.py; }
check_symbols() { /usr/bin/python3 tests/lint/symbols.py build/lint; }

check_docs() {
    "$make" --no-print-directory -s -j"$jobs" gateway router worker uploader devbroker
    deploy/local/docs.sh --check
    deploy/local/diagrams.py --check
}

# Manifests, and the topics among them, which are the code's; rules, their tests and dashboards.
# What Go installs once; without Go the checks say what they did not look at.
install_tools() {
    if command -v go > /dev/null; then
        deploy/k8s/tools.sh
    fi
}

check_k8s() {
    install_tools
    "$make" --no-print-directory -s -j"$jobs" gateway router worker uploader crafterse-admin
    deploy/k8s/topics.sh --check
    /usr/bin/python3 deploy/k8s/check.py
}
check_workflow() {
    local tool
    install_tools
    tool=$(PATH="build/tools:$PATH" command -v actionlint) || {
        echo "NOT by actionlint: no Go on this machine"
        return
    }
    "$tool" .github/workflows/*.yml
    echo "$(count '.github/workflows/*.yml') workflow"
}
check_monitoring() { /usr/bin/python3 deploy/monitoring/check.py; }

failed=()
run() {
    local name=$1 started=$SECONDS status
    # A subshell that is no condition of an if: otherwise bash would ignore its set -e. The last
    # line of a check that passes says what it looked at.
    set +e
    (
        set -e
        "check_$name"
    ) > "$output" 2>&1
    status=$?
    set -e
    if [[ $status -eq 0 ]]; then
        printf 'ok     %-10s %s (%d s)\n' "$name" "$(tail -n 1 "$output")" $((SECONDS - started))
    else
        printf 'FAILED %-10s\n' "$name"
        grep -v '^  CC ' "$output" | sed 's/^/    /' || true
        failed+=("$name")
    fi
}

checks=("$@")
if [[ ${#checks[@]} -eq 0 ]]; then
    checks=(format text includes python shell compile headers symbols cppcheck tidy docs
        k8s monitoring workflow)
fi
for check in "${checks[@]}"; do
    run "$check"
done
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'lint: %d of %d checks failed: %s\n' "${#failed[@]}" "${#checks[@]}" "${failed[*]}"
    exit 1
fi
printf 'lint: all %d checks passed\n' "${#checks[@]}"
