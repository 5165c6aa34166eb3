# A guest that wrecks itself, by what the command line says. How it ends is its own affair; the VMM has to end or to go on, as a VMM does.

.include "hostile.inc"

.equ MSR_APIC_BASE, 0x1b
.equ MSR_EFER, 0xc0000080
.equ MSR_HV_GUEST_OS_ID, 0x40000000
.equ MSR_HV_RESET, 0x40000003
.equ MSR_HV_CRASH_CTL, 0x40000105
.equ APIC_BASE_ENABLE, 1 << 11

.equ ICR_SMI, 0x4200
.equ ICR_NMI, 0x4400
.equ ICR_ALL, 2 << 18               # destination shorthand: all, this one too
.equ ICR_OTHERS, 3 << 18

begin
    attack "fetch-nothing", fetch_nothing
    attack "fetch-registers", fetch_registers
    attack "fetch-end", fetch_end
    attack "stack", use_stack
    attack "idt", use_idt
    attack "gdt", use_gdt
    attack "cr3-registers", use_cr3_registers
    attack "cr3-end", use_cr3_end
    attack "tables", write_tables
    attack "kernel", write_kernel
    attack "apic-base", move_apic
    attack "efer", clear_efer
    attack "init", send_init
    attack "nmi", send_nmi
    attack "smi", send_smi
    attack "hyperv-reset", hyperv_reset
    attack "hyperv-crash", hyperv_crash
    attack "hypercalls", hypercalls
    print "no such attack\n"
    jmp power_off

# Instructions from where nothing is, from a device's registers, and across the end of memory.
fetch_nothing:
    mov $UNCLAIMED_MMIO, %eax
    jmp *%rax
fetch_registers:
    mov $VIRTIO, %eax
    jmp *%rax
fetch_end:
    mov $RAM_END - 1, %eax
    movb $0x48, (%rax)              # the first byte of an instruction
    jmp *%rax

# A stack, an IDT, a GDT and page tables that are device registers, or not in memory.
use_stack:
    mov $VIRTIO + 0x100, %esp
    call ticks
    int $0x40
    ret
use_idt:
    lidt registers_pointer
    int $0x40
    ret
use_gdt:
    lgdt registers_pointer
    mov $0x18, %eax
    mov %eax, %ds
    ret
use_cr3_registers:
    mov $VIRTIO, %eax
    mov %rax, %cr3
    ret
use_cr3_end:
    mov $RAM_END, %eax
    mov %rax, %cr3
    ret

# The first device writes its used ring over the page tables, or over the code that runs.
write_tables:
    mov %cr3, %rax
    jmp write_over
write_kernel:
    mov $wait_for_it - 8, %eax
    and $~3, %eax
write_over:
    mov %eax, %r14d
    mov $VIRTIO, %r12d
    call negotiate
    call place_queues
    write_slot $0, VIRTIO_QUEUE_SEL
    write_slot %r14d, VIRTIO_QUEUE_DEVICE
    call launch
    mov $buffer, %eax
    mov $rings, %ebx
    mov %rax, (%rbx)
    movl $BUFFER_SIZE, 8(%rbx)
    movl $DESCRIPTOR_WRITE, 12(%rbx)
    movw $1, AVAILABLE + 2(%rbx)
    write_slot $0, VIRTIO_QUEUE_NOTIFY
    mov $PM_TIMER_HZ / 10, %ecx
    call wait_ticks
wait_for_it:
    mov %cr3, %rax                  # what the TLB knew is gone
    mov %rax, %cr3
    ret

# The local APIC lies over a device's registers from now on.
move_apic:
    mov $VIRTIO | APIC_BASE_ENABLE, %eax
    xor %edx, %edx
    mov $MSR_APIC_BASE, %ecx
    wrmsr
    mov $VIRTIO, %r12d
    write_slot $0, VIRTIO_STATUS
    write_slot $-1, VIRTIO_QUEUE_NOTIFY
    ret

# Long mode ends while it runs.
clear_efer:
    xor %eax, %eax
    xor %edx, %edx
    mov $MSR_EFER, %ecx
    wrmsr
    ret

# Every CPU gets what it has no handler for, or waits for a SIPI from then on.
send_init:
    write32 $(ICR_INIT | ICR_ALL), APIC_ICR_LOW
    write32 $(ICR_INIT | ICR_OTHERS), APIC_ICR_LOW
    ret
send_nmi:
    write32 $(ICR_NMI | ICR_OTHERS), APIC_ICR_LOW
    write32 $(ICR_NMI | ICR_ALL), APIC_ICR_LOW
    ret
send_smi:
    write32 $(ICR_SMI | ICR_OTHERS), APIC_ICR_LOW
    write32 $(ICR_SMI | ICR_ALL), APIC_ICR_LOW
    ret

# What leaves the guest by KVM_EXIT_SYSTEM_EVENT where KVM has Hyper-V's MSRs, and is a #GP where not.
hyperv_reset:
    mov $MSR_HV_GUEST_OS_ID, %ecx
    mov $1, %eax
    xor %edx, %edx
    wrmsr
    mov $MSR_HV_RESET, %ecx
    wrmsr
    ret
hyperv_crash:
    mov $MSR_HV_CRASH_CTL, %ecx
    xor %eax, %eax
    mov $0x80000000, %edx
    wrmsr
    ret

# KVM's hypercalls, among them KVM_HC_MAP_GPA_RANGE (12), and numbers that there are not.
hypercalls:
    xor %r9d, %r9d
1:  mov %r9d, %eax
    mov $VIRTIO, %ebx
    mov $-1, %ecx
    mov $-1, %edx
    mov $-1, %esi
    vmcall
    inc %r9d
    cmp $256, %r9d
    jne 1b
    ret

    .section .rodata
registers_pointer:
    .word 0xfff
    .quad VIRTIO

    .text
