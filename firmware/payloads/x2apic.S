# Starts every CPU that the MADT lists, whose APICs are in x2APIC mode from power-on; then sends the serial port's interrupt to the last of them,
# whose APIC id may have more than 8 bits.

.include "payload.inc"
.include "interrupts.inc"
.include "madt.inc"

.equ MSR_APIC_BASE, 0x1b
.equ APIC_BASE_X2APIC, 1 << 10
.equ MSR_APIC_SPURIOUS, 0x80f
.equ MSR_APIC_EOI, 0x80b
.equ MSR_APIC_ICR, 0x830            # bits 63:32: the destination
.equ TOPOLOGY_LEAF, 0xb             # CPUID: EDX is the APIC id

.equ TRAMPOLINE, 0x80000            # a page below 1 MiB; its number is the SIPI's vector
.equ SERIAL_VECTOR, 0x40
.equ PATIENCE, 1 << 24              # times that a variable is looked at

begin
    mov $MSR_APIC_BASE, %ecx
    rdmsr
    test $APIC_BASE_X2APIC, %eax
    jnz 1f
    print "the local APIC is not in x2APIC mode\n"
    jmp power_off
1:  mov $trampoline, %esi
    mov $TRAMPOLINE, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    # The started CPUs stay in real mode, whose vectors are at address 0: offset, then segment.
    movw $handler - trampoline, SERIAL_VECTOR * 4
    movw $TRAMPOLINE >> 4, SERIAL_VECTOR * 4 + 2

    xor %r14d, %r14d                # how many have answered
    xor %r12d, %r12d                # the last of them
    call find_madt
next_entry:
    cmp %r13, %rbx
    jae finish
    cmpb $MADT_LOCAL_APIC, (%rbx)
    je 1f
    cmpb $MADT_LOCAL_X2APIC, (%rbx)
    jne skip_entry
    mov 4(%rbx), %edi               # its APIC id
    mov 8(%rbx), %eax
    jmp 2f
1:  movzbl 3(%rbx), %edi
    mov 4(%rbx), %eax
2:  test $MADT_ENABLED, %eax
    jz skip_entry
    test %edi, %edi                 # this CPU
    jz skip_entry
    call start_cpu
skip_entry:
    movzbl 1(%rbx), %eax            # the entry's length
    add %rax, %rbx
    jmp next_entry

finish:
    print_value "others: ", %r14
    print_value "\nlast: ", %r12
    # The destination's bits 7:0 are in bits 31:24 of the entry's high half, bits 14:8 in its bits 23:17.
    mov %r12d, %eax
    shl $24, %eax
    mov %r12d, %ecx
    shr $8, %ecx
    shl $17, %ecx
    or %ecx, %eax
    write32 $(IO_APIC_REDIRECTION + 2 * SERIAL_GSI + 1), IO_APIC_SELECT
    write32 %eax, IO_APIC_WINDOW
    write32 $(IO_APIC_REDIRECTION + 2 * SERIAL_GSI), IO_APIC_SELECT
    write32 $SERIAL_VECTOR, IO_APIC_WINDOW
    out_byte MCR_OUT2, SERIAL_MCR
    out_byte IER_TRANSMITTED, SERIAL_IER
    mov $PATIENCE, %ecx
1:  mov TRAMPOLINE + interrupted - trampoline, %eax
    test %eax, %eax
    jnz 2f
    pause
    dec %ecx
    jnz 1b
2:  out_byte 0, SERIAL_IER
    mov TRAMPOLINE + interrupted - trampoline, %eax
    print_value "\ninterrupted: ", %rax
    print "\n"
    jmp power_off

# Starts the CPU with APIC id EDI and waits until it says that id.
start_cpu:
    movl $0, TRAMPOLINE + answer - trampoline
    mov $MSR_APIC_ICR, %ecx
    mov %edi, %edx
    mov $ICR_INIT, %eax
    wrmsr
    mov $ICR_STARTUP | TRAMPOLINE >> 12, %eax
    wrmsr
    mov $PATIENCE, %ecx
1:  mov TRAMPOLINE + answer - trampoline, %eax
    cmp %eax, %edi
    je 2f
    pause
    dec %ecx
    jnz 1b
    print_value "no answer of ", %rdi
    print "\n"
    ret
2:  inc %r14d
    mov %edi, %r12d
    ret

    .section .rodata
# What a started CPU runs, copied to TRAMPOLINE: in real mode, CS:0 is its first byte.
    .code16
trampoline:
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7000, %sp                # all have the same stack, and only one is interrupted
    mov $MSR_APIC_SPURIOUS, %ecx
    xor %edx, %edx
    mov $APIC_ENABLE | SPURIOUS_VECTOR, %eax
    wrmsr
    mov $TOPOLOGY_LEAF, %eax
    xor %ecx, %ecx
    cpuid
    mov %edx, %cs:answer - trampoline
    sti
1:  hlt
    jmp 1b
handler:
    mov $TOPOLOGY_LEAF, %eax
    xor %ecx, %ecx
    cpuid
    mov %edx, %cs:interrupted - trampoline
    mov $MSR_APIC_EOI, %ecx
    xor %edx, %edx
    xor %eax, %eax
    wrmsr
    iret
    .balign 4
answer:
    .long 0
interrupted:
    .long 0
trampoline_end:
    .code64
    .text
