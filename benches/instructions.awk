# Compares instructions per command: awk -f instructions.awk BASELINE COUNTED. A step that is 5 % worse fails, unless the
# two are of different processors, whose instructions cannot be compared.
# -v profiles=DIR: where callgrind's profiles of the counted run lie.

BEGIN { limit = 5 }

FNR == 1 { file++ }
/^#/ { next }
$1 == "with" { sub(/^with /, ""); with[file] = $0; next }
file == 1 { baseline[$1] = $2; next }
{ counted[$1] = $2; steps[++n] = $1 }

function tell(text) { fflush(); print "instructions: " text > "/dev/stderr" }

END {
    print "step          instructions per command      baseline  difference"
    for (i = 1; i <= n; i++) {
        step = steps[i]
        if (!(step in baseline)) {
            printf "%-12s %25d %13s %11s\n", step, counted[step], "none", ""
            missing = missing sprintf("\n  %s: %d instructions per command, and no baseline", step, counted[step])
            continue
        }
        percent = 100 * (counted[step] - baseline[step]) / baseline[step]
        printf "%-12s %25d %13d %+9.1f %%\n", step, counted[step], baseline[step], percent
        change = sprintf("\n  %s: %d instructions per command, the baseline has %d: %+.1f %%", step, counted[step], baseline[step], percent)
        if (percent > limit) failed = failed change
        if (percent < -limit) better = better change
    }
    for (step in baseline) if (!(step in counted)) missing = missing sprintf("\n  %s: in the baseline, and not counted", step)
    differs = with[1] != with[2]
    if (differs) tell("the baseline was taken with " with[1] "\n  and this was counted with   " with[2])
    split(with[1], before, ", ")
    split(with[2], now, ", ")
    if (before[2] != now[2]) {
        tell("NOT compared: " now[2] " has other instructions than " before[2] ".")
        exit
    }
    if (better) tell("better by more than " limit " %:" better "\n  keep it: ./dev instructions --accept, and commit benches/instructions.baseline.")
    if (failed) {
        tell("worse by more than " limit " %:" failed)
        if (differs) tell("the other compiler or valgrind may be the reason: count the last good commit with this one too.")
        tell("callgrind_annotate " profiles "/solewriter/instructions/data_path/STEP.of_the_bank/*.t1.*.out says where.")
    }
    if (missing) tell("the steps are not the baseline's:" missing)
    if (failed || missing) {
        tell("if it is worth it: ./dev instructions --accept, and commit benches/instructions.baseline with the reason.")
        exit 1
    }
}
