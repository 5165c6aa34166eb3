# Starts every CPU that the MADT lists (ACPI 6.5 §5.2.12) by INIT and SIPI; each says its APIC id from real mode.

.include "payload.inc"
.include "interrupts.inc"
.include "madt.inc"

.equ TRAMPOLINE, 0x80000            # a page below 1 MiB; its number is the SIPI's vector
.equ NO_ANSWER, 0xffff
.equ TICKS_PER_MS, 1000000          # of KVM's APIC timer
.equ WAIT_MS, 2000

begin
    write32 $(APIC_ENABLE | SPURIOUS_VECTOR), APIC_SPURIOUS
    write32 $APIC_LVT_MASKED, APIC_LVT_TIMER
    write32 $APIC_DIVIDE_BY_1, APIC_TIMER_DIVIDE
    mov $trampoline, %esi
    mov $TRAMPOLINE, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb

    mov $APIC_ID, %eax
    mov (%rax), %r12d
    shr $24, %r12d
    print_value "boot cpu: apic id ", %r12
    print "\n"

    call find_madt
next_entry:
    cmp %r13, %rbx
    jae finish
    cmpb $MADT_LOCAL_APIC, (%rbx)
    jne skip_entry
    testl $MADT_ENABLED, 4(%rbx)
    jz skip_entry
    movzbl 3(%rbx), %edi            # its APIC id
    cmp %edi, %r12d
    je skip_entry
    call start_cpu
skip_entry:
    movzbl 1(%rbx), %eax            # the entry's length
    test %eax, %eax
    jz finish
    add %rax, %rbx
    jmp next_entry
finish:
    print "no more cpus\n"
    jmp power_off

# Starts the CPU with APIC id EDI and prints what it says, or that it says nothing.
start_cpu:
    print_value "cpu ", %rdi
    movw $NO_ANSWER, TRAMPOLINE + answer - trampoline
    mov %edi, %ecx
    shl $24, %ecx
    write32 %ecx, APIC_ICR_HIGH
    write32 $ICR_INIT, APIC_ICR_LOW
    mov $10, %ecx                   # 10 ms between them (Intel SDM vol. 3A, "MP Initialization Example")
    call wait_ms
    write32 $(ICR_STARTUP | TRAMPOLINE >> 12), APIC_ICR_LOW
    mov $WAIT_MS, %r8d
1:  mov $1, %ecx
    call wait_ms
    movzwl TRAMPOLINE + answer - trampoline, %eax
    cmp $NO_ANSWER, %eax
    jne 2f
    dec %r8d
    jnz 1b
    print ": no answer\n"
    ret
2:  print_value ": runs, apic id ", %rax
    print "\n"
    ret

# Waits ECX milliseconds by the APIC timer.
wait_ms:
    imul $TICKS_PER_MS, %ecx
    write32 %ecx, APIC_TIMER_INITIAL
    mov $APIC_TIMER_CURRENT, %edx
1:  mov (%rdx), %ecx
    test %ecx, %ecx
    jnz 1b
    ret

    .section .rodata
# What a started CPU runs, copied to TRAMPOLINE: in real mode, CS:0 is its first byte.
    .code16
trampoline:
    mov $1, %eax
    cpuid
    shr $24, %ebx                   # the initial APIC id (CPUID 1, EBX 31:24)
    mov %bx, %cs:answer - trampoline
1:  pause                           # still running when the machine is switched off
    jmp 1b
answer:
    .word NO_ANSWER
trampoline_end:
    .code64
    .text
