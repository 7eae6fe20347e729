# Completion for pyrelay, and for a route in the words of ssh, scp, sftp and rsync.
# What completes those four without this stays: names are added after a / or a + in a word, and nothing else.

[[ ${BASH_VERSINFO[0]} -ge 4 ]] || return 0

# >>> options
_pyrelay_flags="-F -i -J -l -o --netcat --netcat-command --share --engine -4 -6 -s -w --fdpass -X -x -P --proxy --proxy-auth --proxy-header --proxy-cacert --proxy-protection --proxy-service --tor --hop-delimiter --user-delimiter --port-delimiter --known-hosts --ssh-config --names -O -q -v -h --help -V --version"
_pyrelay_valued="-F -i -J -l -o --netcat-command --share --engine -s -w -X -x -P --proxy --proxy-auth --proxy-header --proxy-cacert --proxy-protection --proxy-service --hop-delimiter --user-delimiter --port-delimiter -O"
# <<< options

# Add the routes that the word $1 may become to COMPREPLY: names of ssh_config and known_hosts behind its last delimiter.
_pyrelay_routes() {
    local word=$1 stub before cut="" names name i
    stub=${word##*[/+]}
    before=${word%"$stub"}
    [[ $stub == *[:~]* ]] && return
    if [[ $stub == *[%=]* ]]; then
        before+=${stub%"${stub##*[%=]}"}
        stub=${stub##*[%=]}
    fi
    # readline replaces only what follows the last character of COMP_WORDBREAKS in the word.
    for ((i = ${#before} - 1; i >= 0; i--)); do
        if [[ $COMP_WORDBREAKS == *"${before:i:1}"* ]]; then
            cut=${before:0:i+1}
            break
        fi
    done
    names=$(pyrelay --names 2>/dev/null)
    while read -r name; do
        [[ -n $name && $name == "$stub"* ]] && COMPREPLY+=("${before#"$cut"}$name")
    done <<<"$names"
}

# Whether the word that is being typed, $2, can be a route: $1 is the command, $3 what stands before the word.
_pyrelay_is_route() {
    local valued i word words
    [[ $2 == *[/+]* && $2 != [-~./\$\'\"]* ]] || return 1
    [[ $2 == */* && -d ${2%%/*} ]] && return 1
    case $1 in
        ssh) valued=BbcDEeFIiJLlmOopPQRSWw ;;
        sftp) valued=BbcDFiJloPRSsX ;;
        scp) valued=cDFiJloPSX ;;
        *) valued=e ;;
    esac
    read -ra words <<<"$3"
    for ((i = 1; i < ${#words[@]}; i++)); do
        word=${words[i]}
        if [[ $word == -- ]]; then
            continue
        elif [[ $word == -* ]]; then
            if [[ $word != --* && $valued == *"${word: -1}"* && ${word:1:-1} != *["$valued"]* ]]; then
                i=$((i + 1))
                ((i == ${#words[@]})) && return 1 # the word is the value of this option
            fi
        elif [[ $1 == ssh || $1 == sftp ]]; then
            return 1 # the host has been given
        fi
    done
    return 0
}

declare -A _pyrelay_before=() # what completed each command without us
_pyrelay_around=(ssh scp sftp rsync)

# Put ourselves around what completes the commands now.
_pyrelay_wrap() {
    local command spec function
    for command in "${_pyrelay_around[@]}"; do
        spec=$(complete -p "$command" 2>/dev/null)
        if [[ -z $spec ]]; then
            complete -o default -F _pyrelay_ssh "$command"
        elif [[ $spec == *" -F "* && $spec != *" -F _pyrelay_ssh "* ]]; then
            function=${spec##* -F }
            function=${function%% *}
            _pyrelay_before[$command]=$function
            eval "${spec/ -F $function / -F _pyrelay_ssh }"
        fi
    done
}

_pyrelay_ssh() {
    local command=${1##*/} function line word
    if [[ -z ${_pyrelay_before[$command]+set} ]]; then
        # The system's own is loaded when it is first wanted.
        _pyrelay_before[$command]=
        complete -r "$command"
        if declare -F _comp_load >/dev/null; then
            _comp_load "$command" >/dev/null 2>&1
        elif declare -F _completion_loader >/dev/null; then
            _completion_loader "$command" >/dev/null 2>&1
        fi
        _pyrelay_wrap
    fi
    COMPREPLY=()
    function=${_pyrelay_before[$command]}
    [[ -n $function ]] && "$function" "$@"
    line=${COMP_LINE:0:COMP_POINT}
    word=${line##*[[:space:]]}
    if _pyrelay_is_route "$command" "$word" "${line%"$word"}"; then
        _pyrelay_routes "$word"
    fi
    _pyrelay_wrap # another command's completion may have loaded the system's once more
    return 0
}

_pyrelay() {
    local line=${COMP_LINE:0:COMP_POINT} word last
    word=${line##*[[:space:]]}
    last=${line%"$word"}
    last=${last%"${last##*[![:space:]]}"}
    last=${last##*[[:space:]]}
    COMPREPLY=()
    case $last in
        -F | -i) mapfile -t COMPREPLY < <(compgen -f -- "$word") && compopt -o filenames ;;
        -O) mapfile -t COMPREPLY < <(compgen -W "list check stop exit" -- "$word") ;;
        -X) mapfile -t COMPREPLY < <(compgen -W "4 4a 5 connect" -- "$word") ;;
        --engine) mapfile -t COMPREPLY < <(compgen -W "auto paramiko ssh" -- "$word") ;;
        *)
            if [[ " $_pyrelay_valued " == *" $last "* ]]; then
                return 0
            elif [[ $word == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$_pyrelay_flags" -- "$word")
            else
                _pyrelay_routes "$word"
            fi
            ;;
    esac
}

complete -F _pyrelay pyrelay
_pyrelay_wrap
