# A route in the words of ssh, scp, sftp and rsync: names are added after a / or a + to what fish completes itself.
# scp and rsync take a word with a / before its first colon, or without a colon, for a local file: after a + only, and
# with a colon. (fish puts no space behind that.)

# The routes that a word may become: names of ssh_config and known_hosts behind its last delimiter. The second argument
# ends each.
function __pyrelay_routes
    set -l stub (string replace -r '^.*[/+]' '' -- $argv[1])
    string match -qr '[:~]' -- $stub; and return
    set stub (string replace -r '^.*[%=]' '' -- $stub)
    set -l before (string sub -l (math (string length -- "$argv[1]") - (string length -- "$stub")) -- "$argv[1]")
    for name in (pyrelay --names 2>/dev/null)
        echo "$before$name$argv[2]"
    end
end

# Whether the word that is being typed can be a route; the command's options that take a value are the argument.
function __pyrelay_is_route
    set -l word (commandline -ct)
    string match -qr '[/+]' -- $word; or return 1
    string match -qr '^[-~./$\'"]' -- $word; and return 1
    string match -q '*/*' -- $word; and test -d (string replace -r '/.*' '' -- $word); and return 1
    set -l words (commandline -opc)
    set -l command (string replace -r '^.*/' '' -- $words[1])
    string match -q '*/*' -- $word; and contains -- $command scp rsync; and return 1
    set -e words[1]
    set -l taken 0
    for each in $words
        if test $taken = 1
            set taken 0
        else if string match -qr "^-[^-$argv[1]]*[$argv[1]]\$" -- $each
            set taken 1
        else if not string match -q -- '-*' $each
            contains -- $command ssh sftp; and return 1 # the host has been given
        end
    end
    test $taken = 0
end

complete -c ssh -n '__pyrelay_is_route BbcDEeFIiJLlmOopPQRSWw' -a '(__pyrelay_routes (commandline -ct))' -d route
complete -c sftp -n '__pyrelay_is_route BbcDFiJloPRSsX' -a '(__pyrelay_routes (commandline -ct))' -d route
complete -c scp -n '__pyrelay_is_route cDFiJloPSX' -a '(__pyrelay_routes (commandline -ct) :)' -d route
complete -c rsync -n '__pyrelay_is_route e' -a '(__pyrelay_routes (commandline -ct) :)' -d route
