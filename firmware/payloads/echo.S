# Sends back what comes in on the serial port until an EOT (Ctrl-D), then says how many bytes there were.
# Halts until the received-data interrupt; with "poll" on the command line, reads the line status all the time instead.

.include "payload.inc"
.include "interrupts.inc"

.equ SERIAL_VECTOR, 0x40
.equ END_OF_TRANSMISSION, 4

begin
    xor %ebx, %ebx                  # bytes
    print "ready\n"
    out_byte FCR_ENABLE, SERIAL_FCR
    out_byte MCR_RTS | MCR_OUT2, SERIAL_MCR
    on_option "poll", next

    call interrupts_init
    mov $SERIAL_VECTOR, %eax
    mov $on_serial, %edi
    call set_handler
    mov $SERIAL_VECTOR, %eax
    call route_serial
    out_byte IER_RECEIVED, SERIAL_IER
    movb $1, halts

next:
    cli
    mov $SERIAL_LSR, %edx
    in %dx, %al
    test $LSR_DATA_READY, %al
    jnz received
    cmpb $0, halts
    je next
    sti                             # takes effect after hlt has begun: no interrupt is lost between them
    hlt
    jmp next

received:
    mov $SERIAL_DATA, %edx
    in %dx, %al
    cmp $END_OF_TRANSMISSION, %al
    je finish
    call print_char
    inc %rbx
    jmp next

finish:
    print_value "\nbytes: ", %rbx
    print "\n"
    jmp power_off

on_serial:
    end_of_interrupt

    .bss
halts:
    .skip 1
