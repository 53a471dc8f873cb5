# bash completion of onggi(8).
# Written from src/cli/options.rs: ONGGI_WRITE_DOCS=1 cargo test --lib manual
_onggi() {
    local cur=$2 prev=${COMP_WORDS[COMP_CWORD - 1]} command='' after=0 root=() words='' ids='' i word
    # bash makes three words of --option=value
    [ "$prev" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}
    [ "$cur" != = ] || cur=''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $command:$word in
        create:-b|create:--bundle|create:-f|create:--config|create:--console-socket|create:--pidfd-socket|create:--pid-file|create:--preserve-fds|run:-b|run:--bundle|run:-f|run:--config|run:--console-socket|run:--pidfd-socket|run:--pid-file|run:--preserve-fds|exec:-p|exec:--process|exec:--cwd|exec:-e|exec:--env|exec:-u|exec:--user|exec:-g|exec:--additional-gids|exec:-c|exec:--cap|exec:--apparmor|exec:--process-label|exec:--cgroup|exec:--timeout|exec:--console-socket|exec:--pidfd-socket|exec:--pid-file|exec:--preserve-fds|update:--blkio-weight|update:--cpu-period|update:--cpu-quota|update:--cpu-burst|update:--cpu-share|update:--cpu-rt-period|update:--cpu-rt-runtime|update:--cpu-idle|update:--cpuset-cpus|update:--cpuset-mems|update:--memory|update:--memory-reservation|update:--memory-swap|update:--pids-limit|update:-r|update:--resources|update:--l3-cache-schema|update:--mem-bw-schema|events:--interval|stats:-f|stats:--format|stats:--interval|list:-f|list:--format|ps:-f|ps:--format|spec:-b|spec:--bundle|check:-b|check:--bundle|check:-f|check:--format|*:--root|*:--log|*:--log-format|*:--log-level|*:--cgroup-manager|*:--rootless|*:--deadline)
            [ "${COMP_WORDS[i + 1]}" != = ] || i=$((i + 1))
            i=$((i + 1))
            [ "$word" != --root ] || root=(--root "${COMP_WORDS[i]}")
            ;;
        *:-*) ;;
        :*) command=$word ;;
        *) after=$((after + 1)) ;;
        esac
    done
    case $command:$prev in
    create:-b|create:--bundle) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    create:-f|create:--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    create:--console-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    create:--pidfd-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    create:--pid-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    create:--preserve-fds) :; return ;;
    run:-b|run:--bundle) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    run:-f|run:--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    run:--console-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    run:--pidfd-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    run:--pid-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    run:--preserve-fds) :; return ;;
    exec:-p|exec:--process) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    exec:--cwd) :; return ;;
    exec:-e|exec:--env) :; return ;;
    exec:-u|exec:--user) :; return ;;
    exec:-g|exec:--additional-gids) :; return ;;
    exec:-c|exec:--cap) :; return ;;
    exec:--apparmor) :; return ;;
    exec:--process-label) :; return ;;
    exec:--cgroup) :; return ;;
    exec:--timeout) :; return ;;
    exec:--console-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    exec:--pidfd-socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    exec:--pid-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    exec:--preserve-fds) :; return ;;
    update:--blkio-weight) :; return ;;
    update:--cpu-period) :; return ;;
    update:--cpu-quota) :; return ;;
    update:--cpu-burst) :; return ;;
    update:--cpu-share) :; return ;;
    update:--cpu-rt-period) :; return ;;
    update:--cpu-rt-runtime) :; return ;;
    update:--cpu-idle) :; return ;;
    update:--cpuset-cpus) :; return ;;
    update:--cpuset-mems) :; return ;;
    update:--memory) :; return ;;
    update:--memory-reservation) :; return ;;
    update:--memory-swap) :; return ;;
    update:--pids-limit) :; return ;;
    update:-r|update:--resources) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    update:--l3-cache-schema) :; return ;;
    update:--mem-bw-schema) :; return ;;
    events:--interval) :; return ;;
    stats:-f|stats:--format) mapfile -t COMPREPLY < <(compgen -W 'table json openmetrics' -- "$cur"); return ;;
    stats:--interval) :; return ;;
    list:-f|list:--format) mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$cur"); return ;;
    ps:-f|ps:--format) mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$cur"); return ;;
    spec:--rootless) ;;
    spec:-b|spec:--bundle) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    check:-b|check:--bundle) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    check:-f|check:--format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur"); return ;;
    *:--root) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    *:--log) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    *:--log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur"); return ;;
    *:--log-level) mapfile -t COMPREPLY < <(compgen -W 'error warning debug' -- "$cur"); return ;;
    *:--cgroup-manager) mapfile -t COMPREPLY < <(compgen -W 'cgroupfs systemd disabled' -- "$cur"); return ;;
    *:--rootless) mapfile -t COMPREPLY < <(compgen -W 'auto true false' -- "$cur"); return ;;
    *:--deadline) :; return ;;
    esac
    case $command in
    '') words='create start run exec state kill delete pause resume update events stats gc list ps spec check features --root --log --log-format --log-level --debug --systemd-cgroup --cgroup-manager --rootless --deadline -h --help -v --version' ;;
    create) words='-b --bundle -f --config --console-socket --pidfd-socket --pid-file --preserve-fds --no-pivot --no-new-keyring --no-subreaper --help' ;;
    start) words=' --help'; ids=one ;;
    run) words='-b --bundle -f --config --console-socket --pidfd-socket --pid-file --preserve-fds --no-pivot --no-new-keyring --no-subreaper -d --detach --keep --help' ;;
    exec) words='-p --process --cwd -e --env -t --tty -u --user -g --additional-gids -c --cap --apparmor --process-label --no-new-privs -d --detach --cgroup --ignore-paused --contain --timeout --die-with-parent --console-socket --pidfd-socket --pid-file --preserve-fds --help'; ids=one ;;
    state) words=' --help'; ids=one ;;
    kill) words='-a --all --help'; ids=one ;;
    delete) words='-f --force --help'; ids=one ;;
    pause) words=' --help'; ids=one ;;
    resume) words=' --help'; ids=one ;;
    update) words='--blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpu-idle --cpuset-cpus --cpuset-mems --memory --memory-reservation --memory-swap --pids-limit -r --resources --l3-cache-schema --mem-bw-schema --help'; ids=one ;;
    events) words='--interval --stats --help'; ids=one ;;
    stats) words='-f --format -w --watch --interval --help'; ids=all ;;
    gc) words='-n --dry-run --help' ;;
    list) words='-f --format -q --quiet --help' ;;
    ps) words='-f --format --help'; ids=one ;;
    spec) words='-b --bundle --rootless --help' ;;
    check) words='-b --bundle --host -f --format --help' ;;
    features) words=' --help' ;;
    esac
    if [ "$command" = kill ] && [ "$after" = 1 ]; then
        words='HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS'
    elif [ "$after" -gt 0 ] && { [ "$command" = exec ] || [ "$command" = ps ]; }; then
        compopt -o default
        return
    elif [ "$ids" = all ] || { [ "$ids" = one ] && [ "$after" = 0 ]; }; then
        words+=" $("$1" "${root[@]}" list --quiet 2>/dev/null)"
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _onggi onggi
