# Reports a kernel panic to the pvpanic device, as Linux does, and goes on: a held panic leaves it spinning.

.include "payload.inc"

begin
    print "panic\n"
    out_byte PVPANIC_PANICKED, PVPANIC
    print "after the panic\n"
1:  pause
    jmp 1b
