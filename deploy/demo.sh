#!/bin/bash
# A small cluster on this machine: one broker, two workers, and callers that
# use it while things go wrong. Exits non-zero if any step is not as it should be.
# Leaves three pictures in target/demo.
#
#   deploy/demo.sh                        builds release binaries first
#   BIN_DIR=target/debug deploy/demo.sh   uses binaries that are there
set -euo pipefail
cd "$(dirname "$0")/.."

CALLERS=8          # commands run at a time
SIZE=1920          # pixels across the picture of step 2
CLOSE_SIZE=900     # of step 3, where a pixel takes ten times as long
ITEMS=100000       # items of step 6
MANY=1000          # tasks of step 7
SURVIVORS=150      # tasks of step 8, 400 ms each: 7.5 s of work for 8 slots
READY_SECONDS=15   # for a process to print its ready line
DRAIN_SECONDS=90   # for the queue to run empty; a lost lease takes 30 s

pictures=${CARGO_TARGET_DIR:-target}/demo
work=$(mktemp -d "${TMPDIR:-/tmp}/asynq-demo.XXXXXX")
pids=()
# What the workers may read in step 11: this machine's logs, or one made up.
logs=/var/log
log=dpkg.log
[ -s "$logs/$log" ] && [ -r "$logs/$log" ] || { logs=$work/logs log=access.log; mkdir "$logs"; }

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
show() { printf '$ asynq %s\n' "$*"; }

fail() {
    printf '\ndemo: FAILED: %s\n' "$*" >&2
    for log in "$work"/*.log; do
        [ -s "$log" ] || continue
        printf '%s\n' "-- the end of $(basename "$log"):" >&2
        tail -n 15 "$log" >&2
    done
    exit 1
}

# Ends the processes this script started, and no others.
cleanup() {
    local status=$? pid
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ready FILE PATTERN PID: waits for a process to print its ready line.
ready() {
    local end=$((SECONDS + READY_SECONDS))
    until grep -q "$2" "$1" 2>/dev/null; do
        kill -0 "$3" 2>/dev/null || fail "$(basename "$1" .out) ended before it was ready"
        [ "$SECONDS" -lt "$end" ] || fail "$(basename "$1" .out) was not ready within $READY_SECONDS s"
        sleep 0.1
    done
}

start_broker() { # ADDRESS
    : >"$work/broker.out"
    "$bin/asynqd" --listen "$1" --http 127.0.0.1:0 --store sqlite --data-dir "$work/data" >"$work/broker.out" 2>>"$work/broker.log" &
    broker=$!
    pids+=("$broker")
    ready "$work/broker.out" '^listening on ' "$broker"
    address=$(sed -n 's/^listening on \([0-9.:]*\).*/\1/p' "$work/broker.out")
    say "broker: process $broker, listening on $address"
}

start_worker() { # NAME
    : >"$work/$1.out" # what a worker of this name said before
    "$bin/asynq-worker" --broker "$ASYNQ_BROKER" --name "$1" --slots 4 --builtins --files "$logs" \
        >"$work/$1.out" 2>>"$work/$1.log" &
    worker=$!
    pids+=("$worker")
    ready "$work/$1.out" '^registered ' "$worker"
    say "$1: process $worker, $(sed -n 's/^\(registered [0-9]* tasks\).*/\1/p' "$work/$1.out"), 4 slots"
}

# forget PID: a process that has ended; its number may become someone else's.
forget() {
    local pid left=()
    for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || left+=("$pid"); done
    pids=("${left[@]}")
}

# kill_9 NAME PID: kills a process of ours as a crash would, without the shell's own notice.
kill_9() {
    { kill -KILL "$2" && wait "$2"; } 2>/dev/null || true
    forget "$2"
    say "$1: process $2 killed"
}

# busy NAME N: waits until a worker holds N tiles of the picture.
busy() {
    local end=$((SECONDS + READY_SECONDS))
    until asynq worker ls | grep -q "^$1 .* $2/"; do
        kill -0 "$drawing" 2>/dev/null || fail "the picture was done before a worker could be killed"
        [ "$SECONDS" -lt "$end" ] || fail "$1 was not given $2 tasks within $READY_SECONDS s"
        sleep 0.1
    done
}

# picture FILE [BYTES]: fails unless there is a PNG of some size.
picture() {
    [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fail "$1 is no PNG"
    [ "$(wc -c <"$1")" -gt "${2:-100000}" ] || fail "$1 is too small to be the picture"
}

asynq() { "$bin/asynq" "$@"; }

# count STATE…: tasks of the one queue in these states, added up.
count() {
    local json state n sum=0
    json=$(asynq queue ls -o json) || fail "queue ls did not answer"
    for state in "$@"; do
        n=$(sed -n "s/.*\"$state\": *\([0-9][0-9]*\).*/\1/p" <<<"$json")
        sum=$((sum + ${n:-0}))
    done
    printf '%s\n' "$sum"
}

# Waits until nothing is scheduled, ready or running any more.
drain() {
    local end=$((SECONDS + DRAIN_SECONDS)) left shown=""
    while left=$(count scheduled ready running) && [ "$left" -gt 0 ]; do
        [ "$SECONDS" -lt "$end" ] || fail "$left tasks were still there after $DRAIN_SECONDS s"
        [ "$left" = "$shown" ] || say "  $left to go"
        shown=$left
        sleep 1
    done
    [ -n "$left" ] || fail "queue ls did not answer"
    say "  0 to go"
}

# enqueue_many N NAME JSON FILE: prints nothing, writes the acknowledged ids.
enqueue_many() {
    seq "$1" | xargs -P "$CALLERS" -I% "$bin/asynq" enqueue "$2" "$3" >"$4" || fail "an enqueue was refused"
    [ "$(sort -u "$4" | wc -l)" = "$1" ] || fail "$1 enqueues gave $(sort -u "$4" | wc -l) ids"
}

if [ -n "${BIN_DIR:-}" ]; then
    bin=$BIN_DIR
else
    bin=${CARGO_TARGET_DIR:-target}/release
    say "Building release binaries. The first time this takes some minutes."
    cargo build --locked --release -p asynqd -p asynq-worker -p asynq
fi
for program in asynqd asynq-worker asynq; do
    [ -x "$bin/$program" ] || fail "$bin/$program is missing"
done

step "1. A broker and two workers, each a process of its own"
start_broker 127.0.0.1:0
export ASYNQ_BROKER=http://$address
start_worker worker-1
start_worker worker-2

step "2. The main job: a picture, computed in tiles by both workers, streamed back row by row"
mkdir -p "$pictures"
show "demo mandelbrot -o $pictures/mandelbrot.png --size $SIZE"
asynq demo mandelbrot -o "$pictures/mandelbrot.png" --size "$SIZE" || fail "demo mandelbrot exited $?"
picture "$pictures/mandelbrot.png"

step "3. Closer, and kill -9 of a worker in the middle of it"
show "demo mandelbrot -o $pictures/seahorses.png --center -0.7436439,0.1318259 --zoom 360 --size $CLOSE_SIZE"
"$bin/asynq" demo mandelbrot -o "$pictures/seahorses.png" --center -0.7436439,0.1318259 --zoom 360 \
    --size "$CLOSE_SIZE" >"$work/seahorses.out" &
drawing=$!
pids+=("$drawing")
busy worker-2 4
kill -STOP "$worker" # so that it certainly holds tiles when it dies
busy worker-2 4
kill_9 worker-2 "$worker"
wait "$drawing" || fail "demo mandelbrot exited $?"
forget "$drawing"
cat "$work/seahorses.out"
lost=$(asynq task ls --limit 10000 -o json | grep -o '"losses":[1-9]' | wc -l)
[ "$lost" -gt 0 ] || fail "no tile was lost with the worker"
say "$lost tiles were lost with the worker, and drawn on by the other"
picture "$pictures/seahorses.png"
start_worker worker-2

step "4. A task goes round"
arguments='{"b":1,"a":1.10,"n":12345678901234567890}'
show "call echo '$arguments'"
answer=$(asynq call echo "$arguments") || fail "call echo exited $?"
say "$answer"
[ "$answer" = "$arguments" ] || fail "the answer differs from what was sent"
show "call sleep '{\"ms\":300}'"
answer=$(asynq call sleep '{"ms":300}') || fail "call sleep exited $?"
say "$answer"
[ "$answer" = null ] || fail "sleep returns null"

step "5. A task fails, and says why"
show "call fail '{\"message\":\"no disk in drive A\"}'"
status=0
asynq call fail '{"message":"no disk in drive A"}' 2>"$work/failed.txt" || status=$?
cat "$work/failed.txt"
say "(exit $status)"
[ "$status" = 1 ] || fail "a dead task exits 1"
grep -q "no disk in drive A" "$work/failed.txt" || fail "the reason is missing"

step "6. Items stream back, and a generator stops when nobody reads on"
show "iterate count '{\"n\":$ITEMS}' | wc -l"
lines=$(asynq iterate count "{\"n\":$ITEMS}" | wc -l) || fail "iterate exited $?"
say "$lines"
[ "$lines" = "$ITEMS" ] || fail "not every item came"
show "iterate count '{\"n\":1000000000}' | head -3"
cancelled=$(count cancelled)
asynq iterate count '{"n":1000000000}' | head -3 || fail "iterate exited $?"
[ "$(count cancelled)" = $((cancelled + 1)) ] || fail "the generator was not stopped"
say "(stopped: its task is cancelled)"

step "7. $MANY tasks, each from a command of its own"
before=$(count succeeded)
begin=$SECONDS
enqueue_many "$MANY" echo '{"n":%}' "$work/many.ids"
say "$MANY enqueued and on disk after $((SECONDS - begin)) s"
drain
[ "$(count succeeded)" = $((before + MANY)) ] || fail "not all of the $MANY tasks succeeded"
say "$MANY succeeded"

step "8. kill -9 of the broker with tasks queued and running"
enqueue_many "$SURVIVORS" sleep '{"ms":400}' "$work/survivors.ids"
say "$SURVIVORS acknowledged, $(count ready) queued, $(count running) running"
[ "$(count ready)" -gt 0 ] || fail "nothing was left in the queue to be lost"
kill_9 broker "$broker"
start_broker "$address"
drain
# `task wait` exits as `call` does, so one task that did not succeed fails xargs.
xargs -P "$CALLERS" -I% "$bin/asynq" task wait % <"$work/survivors.ids" >"$work/survivors.out" ||
    fail "not every acknowledged task succeeded"
[ "$(wc -l <"$work/survivors.out")" = "$SURVIVORS" ] || fail "not every acknowledged task has its result"
say "$SURVIVORS of $SURVIVORS acknowledged tasks succeeded"

step "9. A task nobody can run says so, and holds up nobody"
show "enqueue transcode"
stuck=$(asynq enqueue transcode) || fail "enqueue exited $?"
say "$stuck"
show "task explain $stuck"
asynq task explain "$stuck" || fail "task explain exited $?"
asynq task explain "$stuck" -o json | grep -q '"no_worker"' || fail "explain does not say no_worker"
asynq call echo '"still here"' >/dev/null || fail "the task nobody can run holds up another"
show "task cancel $stuck"
asynq task cancel "$stuck" || fail "task cancel exited $?"

step "10. What an operator sees"
show "queue ls"
asynq queue ls || fail "queue ls exited $?"
show "worker ls"
asynq worker ls || fail "worker ls exited $?"
[ "$(asynq worker ls -o json | grep -o '"name": *"worker-[12]"' | sort -u | wc -l)" = 2 ] ||
    fail "worker ls does not list both workers"

step "11. Logs, read by the workers, their rows counted as they come"
if [ "$log" = access.log ]; then
    seq 0 19999 | awk '{
        t = int($1 * 1.08 + 300 * sin($1 / 900)) + 300; s = $1 % 97 == 0 ? 500 : $1 % 13 == 0 ? 404 : $1 % 7 == 0 ? 304 : 200
        printf "192.0.2.%d - - [22/Nov/2026:%02d:%02d:%02d +0000] \"GET /page/%d HTTP/1.1\" %d %d \"-\" \"demo\"\n",
            $1 % 50, t / 3600, t / 60 % 60, t % 60, $1 * $1 % 31, s, $1 % 5000
    }' >"$logs/$log"
fi
show "demo logs $logs/$log -o $pictures/logs.png"
asynq demo logs "$logs/$log" -o "$pictures/logs.png" || fail "demo logs exited $?"
picture "$pictures/logs.png" 5000

step "Done: every step was as it should be. Look at mandelbrot.png, seahorses.png and logs.png in $pictures"
