# Resets the machine as soon as it has started.

.include "payload.inc"

begin
    print "start\n"
    out_byte RESET_VALUE, RESET_REGISTER
    jmp halt_for_ever
