# Shuts its processor down before it says anything: an exception without an IDT is a double fault without one, and that a triple fault.

.include "payload.inc"

begin
    lidt no_idt
    xor %ecx, %ecx
    div %ecx
    jmp halt_for_ever

    .section .rodata
no_idt:
    .word 0
    .quad 0
