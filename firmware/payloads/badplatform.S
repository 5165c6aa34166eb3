# A hostile guest and what is no virtio device: ports, the I/O APIC, the local APIC, MSRs, and memory where there is none.

.include "hostile.inc"

.equ PORTS, 0x10000
.equ LOW_PORTS, 0x1000              # accessed with each width
.equ PORT_STEP, 15                  # above them, where no device is
.equ BLOCK, 4096                    # items of a string instruction
.equ ROUTES, 2000
.equ ACCESSES, 5000
.equ MSR_TRIES, 5000
.equ APIC_REGISTERS, 0x400
.equ UNCLAIMED_MIDDLE, UNCLAIMED_MMIO + 0x100000

.equ GENERAL_PROTECTION, 13
.equ MSR_LENGTH, 2                  # bytes of rdmsr and of wrmsr

begin
    call interrupts_init
    call accept_all_vectors
    attack "ports", try_ports
    attack "strings", try_strings
    attack "routes", try_routes
    attack "apic", try_apic
    attack "msrs", try_msrs
    attack "nothing", try_nothing
    print "no such attack\n"
    jmp power_off

# Ports are read and written with 0, each of the lower ones; those of devices with every value. Not with what ends the machine or prints something.
try_ports:
    xor %edx, %edx
1:  in %dx, %al
    cmp $LOW_PORTS, %edx
    jae 2f
    in %dx, %ax
    in %dx, %eax
2:  xor %eax, %eax
    call out_each_width
    inc %edx
    cmp $LOW_PORTS, %edx
    jbe 1b
    add $PORT_STEP - 1, %edx
    cmp $PORTS, %edx
    jb 1b

    xor %ebx, %ebx                  # the value
3:  mov $device_ports, %esi
4:  lodsw
    movzwl %ax, %edx
    test %edx, %edx
    jz 5f
    movzbl %bl, %eax
    imul $0x01010101, %eax
    call out_each_width
    in %dx, %eax
    jmp 4b
5:  inc %bl
    jnz 3b

    # The serial port's divisor, and its loop.
    out_byte LCR_DIVISOR, SERIAL_LCR
    call flood_data
    out_byte LCR_8_BITS, SERIAL_LCR
    out_byte MCR_LOOPBACK, SERIAL_MCR
    call flood_data
    # As it was; and nobody listens to its interrupt.
restore_serial:
    out_byte 0, SERIAL_IER
    out_byte LCR_8_BITS, SERIAL_LCR
    out_byte MCR_RTS, SERIAL_MCR
    out_byte 7, SERIAL_FCR          # on, and both FIFOs emptied
    ret

flood_data:
    mov $SERIAL_DATA, %edx
    mov $1024, %ecx
1:  mov %ecx, %eax
    out %al, %dx
    loop 1b
    ret

# Writes EAX to port DX with each width, unless that ends the machine or prints something.
out_each_width:
    lea 3(%rdx), %ecx
    cmp $SERIAL_DATA, %ecx          # an access that reaches it
    jb 1f
    cmp $SERIAL_DATA, %edx
    jbe 4f
1:  cmp $I8042_COMMAND, %edx
    jne 2f
    cmp $I8042_PULSE_RESET, %al
    je 4f
2:  cmp $PVPANIC, %edx
    jne 3f
    test $PVPANIC_PANICKED | PVPANIC_CRASH_LOADED, %al      # either is an end of its own
    jnz 4f
3:  lea 3(%rdx), %ecx
    cmp $SLEEP_CONTROL, %ecx
    jb 5f
    cmp $ACPI_LAST, %edx
    ja 5f
    cmp $RESET_VALUE, %al
    je 4f
    mov %eax, %ecx
    and $0x3c, %ecx
    cmp $SLEEP_TO_S5, %ecx
    je 4f
5:  out %al, %dx
    cmp $LOW_PORTS, %edx
    jae 4f
    out %ax, %dx
    out %eax, %dx
4:  ret

# String instructions, which bring thousands of items in one exit.
try_strings:
    mov $string_ports, %esi
1:  xor %eax, %eax
    lodsw
    mov %eax, %edx
    test %edx, %edx
    jz 2f
    push %rsi
    mov $block, %edi
    mov $BLOCK, %ecx
    rep insb
    mov $block, %edi
    mov $BLOCK / 2, %ecx
    rep insw
    mov $block, %edi
    mov $BLOCK / 4, %ecx
    rep insl
    mov $block, %edi
    mov $BLOCK / 4, %ecx
    xor %eax, %eax
    rep stosl
    mov $block, %esi
    mov $BLOCK, %ecx
    rep outsb
    mov $block, %esi
    mov $BLOCK / 2, %ecx
    rep outsw
    mov $block, %esi
    mov $BLOCK / 4, %ecx
    rep outsl
    pop %rsi
    jmp 1b
    # To and from memory where there is none.
2:  mov $UNCLAIMED_PORT, %edx
    mov $UNCLAIMED_MMIO, %edi
    mov $16, %ecx
    rep insl
    mov $UNCLAIMED_MMIO, %esi
    mov $16, %ecx
    rep outsb
    jmp restore_serial

# The I/O APIC: registers that there are not, each width and offset, and routes to every vector and CPU while their lines pulse. Not by
# NMI, SMI and INIT, which would end this guest (selfharm does it).
try_routes:
    mov $ROUTES, %r9d
1:  mov $IO_APIC, %ebx
    call next_random
    mov %eax, (%rbx)
    mov %al, %cl
    call next_random
    and $~(1 << 10), %eax           # no delivery mode from 4 on
    test $1 << 9, %eax
    jz 2f
    or $1 << 8, %eax                # 3, which is reserved, and not 2
2:  mov %eax, 0x10(%rbx)
    test $0xf, %cl
    jnz 3f
    mov %al, 0x10(%rbx)
    mov %rax, 0x10(%rbx)
    mov %rax, 0x0c(%rbx)            # across the window's beginning
    mov %rax, 0x1c(%rbx)
    mov %ax, 0x40(%rbx)
    mov %rax, 0xfc(%rbx)            # and its page's end
    mov 0x0d(%rbx), %rax
3:  mov 0x10(%rbx), %rax
    out_byte IER_TRANSMITTED, SERIAL_IER
    out_byte 0, SERIAL_IER
    sti
    nop
    cli
    dec %r9d
    jnz 1b
    mov $-1, %r9d                   # masks every entry
4:  inc %r9d
    lea IO_APIC_REDIRECTION(%r9, %r9), %eax
    mov $IO_APIC, %ebx
    mov %eax, (%rbx)
    movl $IO_APIC_MASKED, 0x10(%rbx)
    cmp $24, %r9d
    jne 4b
    jmp restore_apic

# The local APIC: every register with each width, but the orders to other CPUs; and those, to CPUs that there are not.
try_apic:
    xor %r9d, %r9d
1:  mov $LOCAL_APIC, %ebx
    mov %r9d, %ecx
    and $~0xf, %ecx
    cmp $0x20, %ecx                 # its id
    je 2f
    cmp $0x300, %ecx                # an order
    je 2f
    cmp $0x310, %ecx
    je 2f
    call next_random
    mov %al, (%rbx, %r9)
    mov %ax, (%rbx, %r9)
    mov %eax, (%rbx, %r9)
    mov %rax, (%rbx, %r9)
    mov (%rbx, %r9), %rax
2:  inc %r9d
    cmp $APIC_REGISTERS, %r9d
    jne 1b
    call restore_apic
    mov $ACCESSES / 5, %r9d
3:  write32 $(0x77 << 24), APIC_ICR_HIGH
    call next_random
    and $0xcfff, %eax               # no shorthand: it names a CPU
    write32 %eax, APIC_ICR_LOW
    # And vectors to this one.
    call next_random
    and $0xff, %eax
    or $0x40020, %eax
    write32 %eax, APIC_ICR_LOW
    sti
    nop
    cli
    dec %r9d
    jnz 3b
restore_apic:
    write32 $APIC_LVT_MASKED, APIC_LVT_TIMER
    write32 $APIC_LVT_MASKED, (LOCAL_APIC + 0x330)
    write32 $APIC_LVT_MASKED, (LOCAL_APIC + 0x340)
    write32 $APIC_LVT_MASKED, (LOCAL_APIC + 0x350)
    write32 $APIC_LVT_MASKED, (LOCAL_APIC + 0x360)
    write32 $APIC_LVT_MASKED, (LOCAL_APIC + 0x370)
    write32 $0, (LOCAL_APIC + 0x80)
    write32 $(APIC_ENABLE | SPURIOUS_VECTOR), APIC_SPURIOUS
    mov $16, %ecx                   # what is pending comes now
1:  sti
    nop
    cli
    write32 $0, APIC_EOI
    loop 1b
    ret

# MSRs that there are not, and KVM's own with addresses where there is no memory (Linux Documentation/virt/kvm/x86/msr.rst).
try_msrs:
    mov $MSR_TRIES, %r9d
1:  call next_random
    and $0x1fff, %eax
    mov %eax, %ecx
    test $1, %al
    jz 2f
    or $0x40000000, %ecx
    test $2, %al
    jz 2f
    xor $0x80000000, %ecx           # 0xc0000000
2:  rdmsr
    dec %r9d
    jnz 1b
    mov $kvm_msrs, %esi
3:  lodsl
    test %eax, %eax
    jz 5f
    mov %eax, %ecx
    mov $bad_addresses, %edi
4:  mov (%rdi), %eax
    mov 4(%rdi), %edx
    wrmsr
    add $8, %edi
    cmp $bad_addresses_end, %edi
    jne 4b
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    jmp 3b
5:  ret

# Memory where no device is: every kind of instruction that reads, writes or does both.
try_nothing:
    mov $UNCLAIMED_MMIO, %ebx
    mov $ACCESSES, %r9d
1:  mov (%rbx), %al
    mov %rax, (%rbx)
    add $0x1003, %ebx               # each time another page, and another alignment
    dec %r9d
    jnz 1b
    mov $UNCLAIMED_MIDDLE + 0xffd, %ebx
    mov (%rbx), %rax
    mov %rax, (%rbx)
    xchg %rax, (%rbx)
    lock cmpxchg %rcx, (%rbx)
    lock xadd %eax, -13(%rbx)
    lock incl -13(%rbx)
    orl $1, -13(%rbx)
    push -13(%rbx)
    pop -13(%rbx)
    mov %rbx, %rsi
    mov $UNCLAIMED_MMIO, %edi
    mov $64, %ecx
    rep movsb
    mov $VIRTIO, %esi               # from registers to registers
    mov $VIRTIO + VIRTIO_SLOT_SIZE, %edi
    mov $0x20, %ecx
    rep movsl
    mov $RAM_END - 4, %ebx
    mov %rax, (%rbx)
    mov (%rbx), %rax
    mov $0xfffbcffd, %ebx           # KVM's own pages
    mov (%rbx), %rax
    mov %rax, (%rbx)
    ret

# Every vector has a handler. An exception that this does not expect comes again and again, and the test waits in vain.
accept_all_vectors:
    xor %r9d, %r9d
1:  mov %r9d, %eax
    mov $on_interrupt, %edi
    call set_handler
    inc %r9d
    cmp $VECTORS, %r9d
    jne 1b
    mov $GENERAL_PROTECTION, %eax
    mov $on_general_protection, %edi
    jmp set_handler

on_interrupt:
    end_of_interrupt

# Only MSR instructions are refused here: goes on behind it.
on_general_protection:
    add $8, %rsp                    # the error code
    addq $MSR_LENGTH, (%rsp)
    iretq

    .section .rodata
    .balign 8
bad_addresses:
    .quad RAM_END | 1, VIRTIO | 1, 0x100000001, -1, 0x7fffffffffffffc1, 0xfffffff1, RAM_END - 3
bad_addresses_end:
kvm_msrs:
    .long 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 0
device_ports:
    .word 0x60, 0x61, I8042_COMMAND, RTC_INDEX, RTC_DATA, SERIAL_IER, SERIAL_FCR, SERIAL_LCR, SERIAL_MCR, SERIAL_LSR, SERIAL_LSR + 1, SERIAL_LAST
    .word PVPANIC, 0x5ff, SLEEP_CONTROL, SLEEP_CONTROL + 1, RESET_REGISTER, PM_TIMER, PM_TIMER + 2, 0x608, 0x60a, 0x60c, 0x60d, 0
string_ports:
    .word SERIAL_IER, SERIAL_LSR, SERIAL_LAST, 0x60, I8042_COMMAND, RTC_INDEX, RTC_DATA, PVPANIC, SLEEP_CONTROL, PM_TIMER, 0x608
    .word UNCLAIMED_PORT, 0xffff, 0

    .bss
    .balign 4096
block:
    .skip BLOCK

    .text
