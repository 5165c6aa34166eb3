# Port I/O of each width, single and repeated: ports that nobody has read as all ones and ignore what is written.

.include "payload.inc"

.equ BLOCK, 8192                    # more than a page, which is what KVM passes on at once

# check_block instruction: fills the buffer from a port by the instruction and prints whether all of it is ones.
.macro check_block instruction, count
    mov $buffer, %edi
    mov $\count, %ecx
    rep \instruction
    print "\instruction: "
    call print_block
.endm

begin
    mov $UNCLAIMED_PORT, %edx
    xor %eax, %eax
    in %dx, %al
    print_value "in 8: ", %rax
    xor %eax, %eax
    in %dx, %ax
    print_value "\nin 16: ", %rax
    in %dx, %eax
    print_value "\nin 32: ", %rax
    print "\n"

    xor %eax, %eax
    out %al, %dx
    out %ax, %dx
    out %eax, %dx
    in %dx, %eax
    print_value "in 32 after out: ", %rax
    print "\n"

    check_block insb, BLOCK
    check_block insw, BLOCK / 2
    check_block insl, BLOCK / 4

    mov $buffer, %esi
    mov $BLOCK, %ecx
    rep outsb
    mov $buffer, %esi
    mov $BLOCK / 2, %ecx
    rep outsw
    mov $buffer, %esi
    mov $BLOCK / 4, %ecx
    rep outsl
    print "outs: done\n"

    # No more than the FIFO takes: nothing looks at the line status in between.
    mov $SERIAL_DATA, %edx
    mov $text, %esi
    mov $text_length, %ecx
    rep outsb
    jmp power_off

# Prints whether the buffer is all ones, and zeroes it for the next check.
print_block:
    push %rdx
    mov $buffer, %edi
    mov $BLOCK / 8, %ecx
    mov $-1, %rax
    repe scasq
    jne 1f
    print "all ones\n"
    jmp 2f
1:  print_value "other bits before ", %rdi
    print "\n"
2:  mov $buffer, %edi
    mov $BLOCK / 8, %ecx
    xor %eax, %eax
    rep stosq
    pop %rdx
    ret

    .section .rodata
text:
    .ascii "rep outsb works\n"
    .equ text_length, . - text

    .bss
    .balign 4096
buffer:
    .skip BLOCK
