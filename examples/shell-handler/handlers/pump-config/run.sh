#!/bin/sh
# Sets one option in the configuration of the pump: a line OPTION=VALUE in $PUMP_CONFIG.
#
# The agent calls it with the verb in $JOB_VERB and takes the exit status for the answer; manifest.json says which verbs
# there are, and what a job may say. Where the file is, the operator decides ([handlers.environment] PUMP_CONFIG).
set -eu

config=${PUMP_CONFIG:-/etc/pump.conf}
before="$JOB_DIR/before"

# Both values in one call, because each call starts an interpreter. Neither can have more than one line: the schema in
# manifest.json says so, and `job get` would refuse it. Where jq is installed, this is as good and faster:
#   option=$(jq -r .params.option "$JOB_DIR/job.json")
wanted=$(thingjobs job get params.option params.value)
option=${wanted%%
*}
value=${wanted#*
}

is_set() {
    grep -qxF "$option=$value" "$config"
}

# Makes standard input the content of $1; a power cut leaves the old one or the new one, never half of one.
replace() {
    cat >"$1.new"
    sync "$1.new"
    mv "$1.new" "$1"
}

case $JOB_VERB in
check) # changes nothing: it is called in a dry run, too
    [ -f "$config" ] || exec thingjobs job reject "there is no $config on this device, so it has no pump"
    [ ! -e "$config.lock" ] || exec thingjobs job retry "somebody is editing $config" --after 60
    if is_set; then exit 10; fi # 10: already as the job wants it
    ;;
apply)
    # A second call, after a power cut, must not keep what the first one wrote.
    [ -e "$before" ] || replace "$before" <"$config"
    # A text that never changes needs no interpreter; where it does, `thingjobs job progress` quotes it.
    echo '{"progress": 50, "message": "writing the configuration"}' >>"$JOB_EVENTS"
    { grep -v "^$option=" "$before" || true; echo "$option=$value"; } | replace "$config"
    thingjobs job detail "$option=$value"
    ;;
verify)
    is_set || exec thingjobs job fail "$config does not hold $option=$value: something else writes to it"
    ;;
rollback) # may be called twice, and after an apply that hardly began
    if [ -e "$before" ]; then replace "$config" <"$before"; fi
    ;;
esac
