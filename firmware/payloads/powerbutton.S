# Waits for the interrupt of the generic event device, which says that the power button was pressed, and switches the machine off.
# With `ignore` on the command line it goes on waiting instead, with `reset` it resets the machine.

.include "payload.inc"
.include "interrupts.inc"

.equ BUTTON_VECTOR, 0x40

begin
    call interrupts_init
    mov $BUTTON_VECTOR, %eax
    mov $on_button, %edi
    call set_handler
    mov $BUTTON_VECTOR, %eax
    route POWER_BUTTON_GSI
    print "ready\n"

next:
    cli
    cmpl $0, presses
    jne pressed
    sti                             # takes effect after hlt has begun: no interrupt is lost between them
    hlt
    jmp next

pressed:
    movl $0, presses
    print "pressed\n"
    on_option "ignore", next
    on_option "reset", reset
    jmp power_off

reset:
    out_byte RESET_VALUE, RESET_REGISTER
    jmp halt_for_ever

on_button:
    incl presses
    end_of_interrupt

    .bss
presses:
    .skip 4
