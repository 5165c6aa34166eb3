# Says "init" on the serial port and halts with interrupts on, of which none comes: a guest that does nothing, for measurements of what a VMM takes beside it
# (scripts/bench-scale). It is entered by PVH, as QEMU's microvm enters such a file, too.

.include "machine.inc"

.equ XEN_ELFNOTE_PHYS32_ENTRY, 18

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    mov $text, %esi
    mov $SERIAL_DATA, %edx
    mov $TEXT_LENGTH, %ecx
    cld
    rep outsb
1:  sti
    hlt
    jmp 1b

    .section .rodata
text:
    .ascii "init\n"
.equ TEXT_LENGTH, . - text
