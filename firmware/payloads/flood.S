# Far more output than a pipe holds, then off at once: none of it may be lost.

.include "payload.inc"

.equ LINES, 0x2000

begin
    xor %ebx, %ebx
1:  print_value "line ", %rbx
    print "\n"
    inc %ebx
    cmp $LINES, %ebx
    jne 1b
    jmp power_off
