# The least that shows that a guest runs: a line on the serial port, then off.

.include "payload.inc"

begin
    print "hello from the guest\n"
    jmp power_off
