# What the soak's colony mostly runs, in a language whose processes are small: player.sh KIND LEDGER LOCKS [ARGUMENT...]
#
# All players append to LEDGER, whole lines, "UPTIME NAME WORD PID IDENTITY": `up` at the start, `exit` before an end of
# its own, `duplicate` when another instance of the same name, or a descendant of one, is alive: each holds LOCKS/NAME.
kind=$1 ledger=$2 locks=$3
shift 3
note() {
    read -r now _ </proc/uptime
    echo "$now $NCOLONY_NAME $1 $$ $NCOLONY_INSTANCE" >>"$ledger"
}
exec 9>>"$locks/$NCOLONY_NAME"
if ! flock -n 9; then
    note duplicate
    exit 3
fi
case $kind in
plain) # just be there
    note up
    exec sleep 1000000
    ;;
talking) # say so
    echo "open for business"
    note up
    exec sleep 1000000
    ;;
breakable) # broken while there is a file $1
    rm -f "$1"
    note up
    exec sleep 1000000
    ;;
beating) # touch the file $1
    : >"$1"
    note up
    while :; do
        sleep 2
        : >"$1"
    done
    ;;
crashing) # end soon
    note up
    sleep $(($$ % 15 + 1))
    note exit
    exit $(($$ % 2))
    ;;
looping) # end at once
    note up
    note exit
    exit 1
    ;;
flooding) # at a USR1 print for $1 seconds as fast as it goes, $2 bytes at most
    seconds=$1 bytes=$2
    trap 'timeout "$seconds" yes "$NCOLONY_NAME has much to say, and says it again and again" | head -c "$bytes"' USR1
    note up
    while :; do
        sleep 1000000 &
        wait $!
        kill $!
    done
    ;;
job) # take $1 seconds
    note up
    sleep "$1"
    note exit
    ;;
esac
