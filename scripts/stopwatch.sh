# For other scripts to source: how long something took, and how busy the rest of the machine was meanwhile.
#   mark NAME     remembers the time by a name
#   elapsed NAME  prints the time since then, as in "312 s, others used 0.4 of 2 cores"
# What others used is all that the machine computed (or was denied by its host: steal) less what this script and the programs that it
# waited for computed, on average over the time. Without Linux's /proc only the time is printed.
declare -A mark_seconds mark_busy mark_own

# Clock ticks since the start: of the whole machine, and of this script with its children.
busy_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat; }
own_ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 + $14 + $15 }' /proc/$$/stat; }

mark() {
  mark_seconds[$1]=$(date +%s)
  [ -r /proc/stat ] || return 0
  mark_busy[$1]=$(busy_ticks)
  mark_own[$1]=$(own_ticks)
}

elapsed() {
  local seconds=$(($(date +%s) - mark_seconds[$1]))
  printf '%d s' $seconds
  [ -r /proc/stat ] || return 0
  awk -v ticks="$(($(busy_ticks) - mark_busy[$1] - $(own_ticks) + mark_own[$1]))" -v seconds=$seconds \
    -v rate="$(getconf CLK_TCK)" -v cores="$(getconf _NPROCESSORS_ONLN)" \
    'BEGIN { if (seconds > 0) printf ", others used %.1f of %d cores", (ticks > 0 ? ticks / rate / seconds : 0), cores }'
}
