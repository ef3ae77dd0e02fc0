#!/usr/bin/env bash
# Publishes one command and prints its outcome: kcat.sh [KEY TYPE JSON]. Needs kcat 1.7 and bash 5.
set -euo pipefail

servers=${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}
topic=${TOPIC:-accounts.commands}
key=${1:-acct-42} type=${2:-account.open} data=${3:-'{"initial": 100}'}
timeout_seconds=30
attempts=3

uuid7() {
  local ms=$((${EPOCHREALTIME/[.,]/} / 1000)) random
  random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
  printf '%08x-%04x-7%s-%x%s-%s\n' $((ms >> 16)) $((ms & 0xffff)) "${random:0:3}" \
    $((8 + RANDOM % 4)) "${random:3:3}" "${random:6:12}"
}

# Prints the partition and the offset where the record was stored, or fails.
publish() {
  local said
  # librdkafka's own partitioner is not Java's: its records would be misrouted. One line: kcat ends a record at its end.
  said=$(printf '%s\n' "${data//$'\n'/ }" |
    kcat -P -b "$servers" -t "$topic" -k "$key" -H "ce_id=$id" -H "ce_type=$type" -vv \
      -X partitioner=murmur2_random -X enable.idempotence=true -X acks=all \
      -X delivery.timeout.ms=$((timeout_seconds * 1000)) 2>&1) || true
  sed -n 's/.* delivered to partition \([0-9]*\) (offset \([0-9]*\)).*/\1 \2/p' <<<"$said" | grep . ||
    { echo "not known to be stored: $said" >&2; return 1; }
}

# wait_for_outcome PARTITION OFFSET: prints the first outcome of the command from there on, or fails.
wait_for_outcome() {
  local deadline=$((SECONDS + timeout_seconds)) found
  while ((SECONDS < deadline)); do
    # No group is joined, nothing is committed.
    found=$(kcat -C -q -b "$servers" -t "$topic.outcomes" -p "$1" -o "$2" -e -f '%s\n' |
      grep -F "{\"command_id\":\"$id\"") || continue
    head -n 1 <<<"$found"
    return
  done
  return 1
}

# Made once, and kept with what caused the command: whoever has to send it again sends the same id.
id=${COMMAND_ID:-$(uuid7)}

# Where the outcomes end before publishing, so that none is missed: "TOPIC [PARTITION] offset END" for each partition.
count=$(kcat -L -b "$servers" | sed -n "s/^  topic \"$topic.outcomes\" with \([0-9]*\) partitions.*/\1/p")
[ -n "$count" ] || { echo "there is no topic $topic.outcomes: the worker makes it when it starts" >&2; exit 1; }
mapfile -t each < <(for ((p = 0; p < count; p++)); do printf '%s\n' -t "$topic.outcomes:$p:-1"; done)
ends=$(kcat -Q -b "$servers" "${each[@]}")

for ((attempt = 0; attempt < attempts; attempt++)); do # the same id each time: what was settled is only answered again
  stored=$(publish) || continue
  read -r partition offset <<<"$stored"
  there=$((partition % count)) # where the outcome goes
  outcome=$(wait_for_outcome "$there" "$(sed -n "s/.*\[$there\] offset //p" <<<"$ends")") || continue
  printf '{"command_id":"%s","partition":%s,"offset":%s,"outcome":%s}\n' "$id" "$partition" "$offset" "$outcome"
  exit
done
echo "no outcome yet; try again with COMMAND_ID=$id" >&2
exit 1
