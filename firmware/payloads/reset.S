# Resets the machine for each 'r' that comes in on the serial port, and switches it off for any other byte.
# The command line says how: acpi, i8042 or triple. Each start looks for traces of the one before.

.include "payload.inc"

.equ MARK, 0x6d61726b6d61726b
.equ MARK_ADDRESS, 0x2000000        # RAM that nothing loads to
.equ CMOS_RAM, 0x50

begin
    print "start"
    mov $MARK_ADDRESS, %ebx
    mov $MARK, %rcx
    cmpq $0, (%rbx)
    jne 1f
    print ", memory is zero"
1:  mov %rcx, (%rbx)
    cmpq $0, mark
    jne 2f
    print ", bss is zero"
2:  mov %rcx, mark
    mov $SERIAL_IER, %edx
    in %dx, %al
    test %al, %al
    jnz 3f
    print ", serial port is reset"
3:  out_byte IER_TRANSMITTED, SERIAL_IER
    print "\n"

4:  mov $SERIAL_LSR, %edx
    in %dx, %al
    test $LSR_DATA_READY, %al
    jz 4b
    mov $SERIAL_DATA, %edx
    in %dx, %al
    cmp $'r', %al
    jne power_off

.include "resets.inc"

    .bss
    .balign 8
mark:
    .skip 8
