# Halts with interrupts off: nothing can ever wake it. With "silent" on the command line it says nothing before.

.include "payload.inc"

begin
    on_option "silent", halt_for_ever
    print "halt\n"
    jmp halt_for_ever
