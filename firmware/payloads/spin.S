# Never leaves the guest by itself: only a signal ends the VMM.

.include "payload.inc"

begin
    print "spin\n"
1:  jmp 1b
