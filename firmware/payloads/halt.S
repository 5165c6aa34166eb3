# Halts with interrupts off: nothing can ever wake it.

.include "payload.inc"

begin
    print "halt\n"
    jmp halt_for_ever
