#!/bin/sh
# Runs a program that must not outlive the one who started this script.
# Standard input is a pipe whose only writer is that parent: when it ends, by whatever death, the pipe reads end of file.
# usage: guard.sh SIGNAL REMOVE STDIN STDOUT STDERR PROGRAM [ARGUMENT ...]
#   SIGNAL  what to send the program then          REMOVE  a directory to remove afterwards ("" for none)
# Prints the program's process id; ends with its exit status when it ends by itself.
signal=$1 remove=$2 stdin=$3 stdout=$4 stderr=$5
shift 5

exec 3<&0
"$@" 3<&- <"$stdin" >>"$stdout" 2>>"$stderr" &
child=$!
# If the program is stopped when the parent ends, the kernel hangs up on the whole group: POSIX, orphaned process groups.
# That must not end this script before its work is done.
trap '' HUP

orphaned=
trap 'orphaned=yes; kill -s "$signal" "$child" 2>/dev/null' USR1
# The reader keeps no copy of standard output: the parent reads the process id up to its end.
(read -r _ <&3; kill -s USR1 $$) >/dev/null 2>&1 &
reader=$!
exec 3<&-

echo "$child"
exec >&- 2>&-

wait "$child"
status=$?
# The trap interrupts `wait`: then wait once more for what it signalled.
while [ -n "$orphaned" ] && kill -s 0 "$child"; do
  wait "$child"
  status=$?
done
kill "$reader"
if [ -n "$orphaned" ] && [ -n "$remove" ]; then rm -rf "$remove"; fi
exit "$status"
